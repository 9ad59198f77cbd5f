"""The inspector after training: checks of the weights, metadata, and the first calibration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snl.data.catalog import Catalog
from snl.data.records import Record
from snl.data.rois import rois_of
from snl.decision.fit import fit_calibration
from snl.errors import ImageError, NotFiniteError, TrainingError
from snl.model.network import Network
from snl.runtime import bundle
from snl.runtime.convert import network_version
from snl.runtime.inspector import Inspector
from snl.runtime.measure import measure
from snl.runtime.metadata import ModelMetadata, TrainingInfo
from snl.runtime.predictor import Predictor
from snl.settings import Settings, plugins_used
from snl.training.contents import Hashes
from snl.training.selection import split

REFERENCE_IMAGES, REFERENCE_IMAGES_IN_TILES = 100, 20
"""Training images per product for prototypes and log-score statistics."""


@dataclass(frozen=True)
class Images:
    """The images of a training: used for the network, and held out for calibration."""

    catalog: Catalog
    used: list[Record]
    held_out: list[Record]

    @classmethod
    def of(cls, catalog: Catalog, settings: Settings) -> Images:
        return cls(catalog, *split(catalog, settings))


def metadata_of(
    network: Network,
    images: Images,
    sources: Mapping[str, str],
    hashes: Hashes,
    facts: dict[str, Any],
) -> ModelMetadata:
    """Everything that is known after training; there is no calibration yet."""
    state = {name: v.detach().cpu().numpy() for name, v in network.state_dict().items()}
    training = TrainingInfo(
        products=dict(sorted(Counter(record.product for record in images.used).items())),
        data={
            "name": Path(images.catalog.root).resolve().name,
            "layout": images.catalog.layout,
            "fingerprint": sources["data"],
            "contents": sources["image contents"],
            "images": len(images.used) + len(images.held_out),
        },
        facts=facts,
        hashes=np.array([hashes[r.path] for r in images.used if hashes[r.path]], np.uint64),
    )
    return ModelMetadata(
        network.settings,
        training,
        (),
        tuple(network.teacher.mean),
        tuple(network.teacher.std),
        network_version(state),
        plugins_used(network.settings),
    )


def calibrated(
    predictor: Predictor,
    images: Images,
    skip_bad: bool,
    bar: Callable[[int, int], None] | None,
    ignore_masks: Mapping[str, np.ndarray],
) -> Inspector:
    """The inspector with its first calibration; unreadable images are added to the facts."""
    settings = predictor.settings
    most = REFERENCE_IMAGES_IN_TILES if settings.tile else REFERENCE_IMAGES
    reference = few_per_product(images.used, most)
    errors: list[ImageError] = []
    total = len(reference) + len(images.held_out)
    training, held_out = (
        measure(
            predictor,
            records,
            errors,
            tile=settings.tile,
            ignore_masks=ignore_masks,
            progress=_part(bar, before, total),
        )
        for records, before in ((reference, 0), (images.held_out, len(reference)))
    )
    for error in errors:
        if isinstance(error, NotFiniteError):
            raise diverged(settings, str(error))
    if errors and not skip_bad:
        raise errors[0]
    known = set(training.products)
    predictor.training.facts["skipped"].extend(str(error) for error in errors)
    calibration = fit_calibration(
        training,
        held_out,
        seed=settings.training.seed,
        scoring=settings.map,
        tile=settings.tile,
        network=predictor.metadata.network,
        rois=rois_of(images.used),
        ignore_masks={name: ignore_masks[name] for name in ignore_masks if name in known},
    )
    inspector = Inspector(predictor, [calibration])
    inspector.log("training")
    return inspector


def check_finite(network: Network) -> None:
    """Check the weights and the error statistics of a trained network.

    Raises:
        TrainingError: a value that no bundle may have, because results would not be finite.
    """
    state = {name: v.detach().cpu().numpy() for name, v in network.state_dict().items()}
    try:
        bundle.check_finite(state)
    except ValueError as error:
        raise diverged(network.settings, str(error)) from None


def diverged(settings: Settings, reason: str) -> TrainingError:
    return TrainingError(
        f"the training diverged, nothing was written ({reason}); lower training.lr (now "
        f"{settings.training.lr:g}) and start over with --overwrite"
    )


def few_per_product(records: Sequence[Record], most: int) -> list[Record]:
    """Return at most `most` records of each product, evenly spread."""
    chosen: list[Record] = []
    for product in sorted({record.product for record in records}):
        of_product = [record for record in records if record.product == product]
        chosen += of_product[:: max(1, -(-len(of_product) // most))]
    return chosen


def _part(
    bar: Callable[[int, int], None] | None, before: int, total: int
) -> Callable[[int, int], None] | None:
    """Progress of a part of the work as progress of the whole."""
    return None if bar is None else lambda done, _: bar(before + done, total)
