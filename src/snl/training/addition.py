"""The two stages of adding products: they become known, then the student is trained on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snl import progress
from snl.data.records import Record
from snl.data.rois import rois_of
from snl.data.stream import read
from snl.decision.calibration import Calibration, CalibrationSet
from snl.decision.conformal import log_score_stats
from snl.decision.fit import calibration_sets, timestamp
from snl.decision.products import Prototypes, fit_prototypes
from snl.decision.references import fit_references
from snl.decision.sample import NormalSample
from snl.errors import ImageError, TrainingError
from snl.limits import MAX_PIXELS
from snl.model.network import Network
from snl.runtime.convert import network_version
from snl.runtime.inspector import Inspector
from snl.runtime.measure import measure
from snl.runtime.metadata import ModelMetadata, to_sections
from snl.runtime.predictor import Predictor
from snl.runtime.previous import Previous
from snl.runtime.rehearsal import Kept
from snl.runtime.sections import NETWORK, Section
from snl.runtime.torch_engine import TorchEngine
from snl.settings import TrainingSettings
from snl.training.cache import CacheBudget, TrainingData
from snl.training.contents import Hashes
from snl.training.fit_statistics import bank_for, fit_statistics
from snl.training.loop import Order, RunOptions, fit, indices
from snl.training.selection import embeddings_of
from snl.training.trained import (
    REFERENCE_IMAGES,
    Images,
    check_finite,
    few_per_product,
    small_images,
)

PATCHES_PER_REMEMBERED = 8
"""Patches of the new images for each one in their bank of the memory. A bank of one product needs
more of its patches than one that products share, to which hard products contribute more
(docs/products.md)."""
MOST_REMEMBERED = 4096
"""Patches in that bank for each new product."""
ADDITIONS = "additions"
"""Among the training facts: products, fingerprint of the images' contents, steps (0: not trained
yet), seconds and loss of every addition."""


@dataclass(frozen=True)
class Addition:
    """New products, and how their images are read.

    Attributes:
        images: of the new products.
        hashes: content hashes of their files.
        identity: fingerprint of their contents.
        folder: for temporary files.
        ignore_masks: bool (h, w) by new product: pixels of the map that do not count.
        max_pixels: largest allowed height times width of an image.
        quiet: no progress bars.
    """

    images: Images
    hashes: Hashes
    identity: str
    folder: Path
    ignore_masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    max_pixels: int = MAX_PIXELS
    quiet: bool = False

    @cached_property
    def products(self) -> list[str]:
        """Names of the new products."""
        return sorted({record.product for record in self.images.used})

    @property
    def names(self) -> str:
        """The new products in a sentence."""
        return ", ".join(self.products)

    def introduce(self, inspector: Inspector) -> Inspector:
        """Return an inspector that knows the new products, with the same student."""
        network, metadata = inspector.network, inspector.metadata
        before = Previous(_sections(network, metadata), metadata.rehearsal)
        new = small_images(self.images, self.hashes, inspector.settings, self.max_pixels)
        assert metadata.rehearsal is not None and new is not None  # checked before
        rehearsal = metadata.rehearsal.without(self.products).merge(new)
        network = deepcopy(network)
        if network.memory is not None:
            self._remember(network, inspector.calibration)
        trained = metadata.training
        products = {**trained.products, **Counter(r.product for r in self.images.used)}
        hashes = [self.hashes[record.path] for record in self.images.used]
        added = np.array([value for value in hashes if value is not None], np.uint64)
        addition: dict[str, Any] = {
            "products": self.products,
            "contents": self.identity,
            "steps": 0,
        }
        facts = {**trained.facts, ADDITIONS: [*trained.facts.get(ADDITIONS, ()), addition]}
        metadata = replace(
            metadata,
            training=replace(
                trained,
                products=dict(sorted(products.items())),
                hashes=np.union1d(trained.hashes, added),
                facts=facts,
            ),
            rehearsal=rehearsal,
            previous=before,
        )
        return self._measured(network, metadata, inspector, moments=False)

    def train(
        self, inspector: Inspector, steps: int, options: RunOptions, cache: CacheBudget
    ) -> Inspector:
        """Return the inspector after its student was trained on all products.

        Args:
            inspector: as `introduce` returned it, perhaps by way of a file.
            steps: of the training.
            options: of the run; a checkpoint in its folder is continued.
            cache: memory and disk that teacher features may take.

        Raises:
            TrainingError, Interrupted: see `snl.training.loop.fit`.
        """
        metadata = inspector.metadata
        network = deepcopy(inspector.network)
        stored = network.settings
        network.settings = stored.replace({"training.steps": steps})
        old = [path for path, kept in self._files(metadata).items() if self._replays(kept)]
        sources = {
            "network": metadata.network,
            "image contents": self.identity,
        }
        data = TrainingData(
            network,
            [*old, *(record.source for record in self.images.used)],
            budget=cache,
            folder=options.folder,
            batch_size=stored.training.batch_size,
            max_pixels=self.max_pixels,
            progress=self._bar("reading images"),
        )
        with closing(data):
            replayed = set(old)
            order = half_and_half(
                [source not in replayed for source in data.sources],
                network.settings.training,
            )
            facts = fit(network, data, sources, options, order=order)
        network.settings = stored
        check_finite(network)
        trained = metadata.training
        *before, addition = trained.facts[ADDITIONS]
        addition = {
            **addition,
            **{name: facts[name] for name in ("steps", "seconds", "loss", "precision")},
            "skipped": [str(error) for error in data.skipped],
        }
        facts = {**trained.facts, ADDITIONS: [*before, addition]}
        metadata = replace(metadata, training=replace(trained, facts=facts))
        return self._measured(network, metadata, inspector, moments=True)

    def _replays(self, kept: Kept) -> bool:
        """Return whether an image is of an earlier product, and to be trained on."""
        return not kept.held_out and kept.product not in self.products

    def _files(self, metadata: ModelMetadata) -> dict[Path, Kept]:
        """Return the small images as files."""
        assert metadata.rehearsal is not None
        return metadata.rehearsal.write(self.folder)

    def _remember(self, network: Network, calibration: Calibration) -> None:
        """Add a bank of the new products' patches to the network's memory."""
        memory = network.memory
        assert memory is not None
        paths = [record.source for record in self.images.used]
        most = min(network.settings.map.memory, MOST_REMEMBERED * len(self.products))
        bank = bank_for(network, paths, most, PATCHES_PER_REMEMBERED, max_pixels=self.max_pixels)
        if bank is None:
            raise self._unreadable()
        old = calibration.prototypes
        others = [name for name in old.names if name not in self.products]
        gone = [name for name in old.names if name in self.products]
        memory.add_bank(
            bank,
            *(
                torch.from_numpy(prototypes.centres)
                for prototypes in (self.prototypes(network), old.select(others), old.select(gone))
            ),
        )

    def prototypes(self, network: Network) -> Prototypes:
        """Return the prototypes of the new products.

        Raises:
            TrainingError: none of a product's images can be read.
        """
        records = few_per_product(self.images.used, REFERENCE_IMAGES)
        names, embeddings = self.embeddings(network, records)
        if set(names) != set(self.products):
            raise self._unreadable()
        return fit_prototypes(embeddings, names, network.settings.training.seed)

    def embeddings(
        self, network: Network, records: Sequence[Record]
    ) -> tuple[list[str], np.ndarray]:
        """Return products and embeddings (M, D) of the readable images among new ones."""
        stream = read(
            [record.source for record in records],
            network.settings.image_size,
            max_pixels=self.max_pixels,
            white_level=network.settings.white_level,
        )
        readable, embeddings = embeddings_of(network, stream, len(records), None)
        return [records[index].product for index in readable], embeddings

    def _unreadable(self) -> TrainingError:
        return TrainingError(
            f"the images of {self.names} cannot be read; snl doctor NORMALS lists what is wrong"
        )

    def _measured(
        self, network: Network, metadata: ModelMetadata, before: Inspector, *, moments: bool
    ) -> Inspector:
        """Return the inspector with statistics and calibrations of all products.

        Args:
            network: with its student.
            metadata: with the small images of all products.
            before: inspector whose calibration is continued.
            moments: whether the student has changed, so that its errors are measured anew.
        """
        files = self._files(metadata)
        replayed = [path for path, kept in files.items() if self._replays(kept)]
        new = few_per_product(self.images.used, REFERENCE_IMAGES)
        fit_statistics(
            network.eval(),
            [*replayed, *(record.source for record in new)],
            self._bar("errors on normal images"),
            memory=False,
            moments=moments,
            max_pixels=self.max_pixels,
        )
        check_finite(network)
        metadata = replace(metadata, network=network_version(_weights(network)), calibrations=())
        engine = TorchEngine(network, str(network.mean.device))
        predictor = Predictor(engine, metadata, max_pixels=self.max_pixels)
        calibration = self._calibration(predictor, before.calibration, files)
        return Inspector(predictor, [calibration])

    def _calibration(
        self, predictor: Predictor, old: Calibration, files: Mapping[Path, Kept]
    ) -> Calibration:
        """Return the calibration of all products.

        Prototypes and references of the earlier products stay, because the teacher is the same.
        """
        rois = {k: v for k, v in old.rois.items() if k not in self.products}
        rois |= rois_of(self.images.used)
        masks = {**old.ignore_masks, **self.ignore_masks}
        for product in self.products:
            if product not in self.ignore_masks and old.rois.get(product) != rois.get(product):
                masks.pop(product, None)  # it was drawn on another part of the image
        earlier = [name for name in old.products if name not in self.products]
        training, held_out = (
            self._sample(predictor, files, new, masks, held_out=held)
            for new, held in (
                (few_per_product(self.images.used, REFERENCE_IMAGES), False),
                (self.images.held_out, True),
            )
        )
        of_new = np.isin(training.products, self.products)
        embeddings = training.embeddings[of_new]
        names = [name for name in training.products if name in self.products]
        if set(names) != set(self.products):
            raise self._unreadable()
        prototypes = old.prototypes.select(earlier).merge(
            fit_prototypes(embeddings, names, predictor.settings.training.seed)
        )
        references = None
        if old.references is not None:
            references = old.references.select(earlier).merge(fit_references(embeddings, names))
        products = sorted({*earlier, *self.products})
        sets = calibration_sets(held_out, prototypes, products, references, rois)
        shown = held_out if len(held_out) else training
        low = float(np.median(shown.backgrounds))
        return replace(
            old,
            sets=sets | {name: _continued(old.sets[name], sets[name]) for name in earlier},
            log_score_stats=log_score_stats(
                {name: training.scores[training.of(name)] for name in products}
            ),
            prototypes=prototypes,
            references=references,
            map_range=(low, max(2 * float(shown.scores.max()), low + 1e-6)),
            network=predictor.metadata.network,
            ignore_masks=masks,
            rois=rois,
            created=timestamp(),
            reason=f"added {self.names}",
            retired=(),
        )

    def _sample(
        self,
        predictor: Predictor,
        files: Mapping[Path, Kept],
        new: Sequence[Record],
        masks: Mapping[str, np.ndarray],
        *,
        held_out: bool,
    ) -> NormalSample:
        """Measure the small images of earlier products, and the images of the new ones."""
        old = [
            Record(path, kept.product, "train", "normal")
            for path, kept in files.items()
            if kept.held_out == held_out and kept.product not in self.products
        ]
        errors: list[ImageError] = []
        sample = measure(
            predictor,
            [*old, *new],
            errors,
            ignore_masks=masks,
            progress=self._bar("calibrating"),
        )
        hashes, paths = sample.hashes.copy(), list(sample.paths)
        for row, path in enumerate(sample.paths):
            if kept := files.get(Path(path)):
                hashes[row], paths[row] = kept.hash, kept.name
        return replace(sample, hashes=hashes, paths=tuple(paths))

    def _bar(self, title: str) -> Callable[[int, int], None] | None:
        return None if self.quiet else progress.bar(title, "image")


def half_and_half(new: Sequence[bool], settings: TrainingSettings) -> Order:
    """Return batches with as many images of new products as of earlier ones.

    Args:
        new: of every image, whether it shows a new product.
        settings: batch size and seed.
    """
    rows = [np.flatnonzero(np.array(new) == value) for value in (True, False)]
    half = settings.batch_size - settings.batch_size // 2
    sizes = [half, settings.batch_size - half]
    if not len(rows[1]):
        sizes = [settings.batch_size, 0]

    def order(step: int) -> np.ndarray:
        parts = [
            places[indices(step, len(places), replace(settings, batch_size=size))]
            for places, size in zip(rows, sizes, strict=True)
            if size
        ]
        return np.concatenate(parts)

    return order


def _continued(old: CalibrationSet, new: CalibrationSet) -> CalibrationSet:
    """Return new measurements of held-out images, with what the network does not change.

    The distances to references and prototypes were measured on the images themselves, not on their
    small copies; a new product may be nearer.
    """
    places = {content: row for row, content in enumerate(old.hashes.tolist())}
    rows = np.array([places.get(content, -1) for content in new.hashes.tolist()], int)
    known = rows >= 0
    distances, neighbours = new.distances.copy(), new.neighbours.copy()
    distances[known] = np.minimum(distances[known], old.distances[rows[known]])
    neighbours[known] = old.neighbours[rows[known]]
    return replace(new, distances=distances, neighbours=neighbours)


def _weights(network: Network) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}


def _sections(network: Network, metadata: ModelMetadata) -> dict[str, Section]:
    """Return the sections of a bundle, without its small images and its previous state."""
    metadata = replace(metadata, rehearsal=None, previous=None, events=())
    return {NETWORK: Section({}, _weights(network)), **to_sections(metadata)}
