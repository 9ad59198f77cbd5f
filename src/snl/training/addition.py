"""The two stages of adding products: they become known, then adapters are trained for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from snl import progress
from snl.data.records import Record
from snl.data.rois import rois_of
from snl.data.stream import read
from snl.decision.calibration import Calibration
from snl.decision.conformal import log_score_stats
from snl.decision.fit import calibration_sets, timestamp
from snl.decision.products import Prototypes, fit_prototypes
from snl.decision.references import fit_references
from snl.decision.sample import NormalSample
from snl.errors import ImageError, TrainingError
from snl.limits import MAX_PIXELS
from snl.model import adapters
from snl.model.memory import Bank
from snl.model.network import Network
from snl.runtime import previous
from snl.runtime.convert import network_version
from snl.runtime.inspector import Inspector
from snl.runtime.measure import measure
from snl.runtime.metadata import ModelMetadata, to_sections
from snl.runtime.predictor import Predictor
from snl.runtime.previous import Previous
from snl.runtime.sections import NETWORK, Section
from snl.runtime.torch_engine import TorchEngine
from snl.training.cache import CacheBudget, TrainingData
from snl.training.contents import Hashes
from snl.training.fit_statistics import bank_for, fit_statistics
from snl.training.loop import RunOptions, fit
from snl.training.selection import embeddings_of
from snl.training.trained import REFERENCE_IMAGES, Images, check_finite, few_per_product

LEARNING_RATE = 4.0
"""Learning rate of adapters, as a multiple of that of the student's training."""
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
        ignore_masks: bool (h, w) by new product: pixels of the map that do not count.
        max_pixels: largest allowed height times width of an image.
        quiet: no progress bars.
    """

    images: Images
    hashes: Hashes
    identity: str
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
        """Return an inspector that knows the new products, with adapters that change nothing."""
        metadata, old = inspector.metadata, inspector.calibration.prototypes
        before = Previous(_sections(inspector.network, metadata))
        network = deepcopy(inspector.network)
        others = [name for name in old.names if name not in self.products]
        gone = [name for name in old.names if name in self.products]
        new, known, strangers = (
            torch.from_numpy(one.centres)
            for one in (self._prototypes(network), old.select(others), old.select(gone))
        )
        if network.memory is not None:
            network.memory.add_bank(self._bank(network), new, known, strangers)
        network.add_group(new, known, strangers)
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
            previous=before,
        )
        return self._measured(network, metadata, inspector.calibration)

    def train(
        self, inspector: Inspector, steps: int, options: RunOptions, cache: CacheBudget
    ) -> Inspector:
        """Return the inspector after adapters were trained for the new products.

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
        rate = min(LEARNING_RATE * stored.training.lr, 1e3)
        network.settings = stored.replace({"training.steps": steps, "training.lr": rate})
        sources = {"network": metadata.network, "image contents": self.identity}
        data = TrainingData(
            network,
            [record.source for record in self.images.used],
            budget=cache,
            folder=options.folder,
            batch_size=stored.training.batch_size,
            max_pixels=self.max_pixels,
            progress=self._bar("reading images"),
        )
        with closing(data), adapters.training(network.student, stored.training.seed):
            facts = fit(network, data, sources, options, is_new=False)
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
        return self._measured(network, metadata, inspector.calibration)

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

    def _bank(self, network: Network) -> Bank:
        """Return the new products' bank of the memory."""
        sources = [record.source for record in self.images.used]
        most = min(network.settings.map.memory, MOST_REMEMBERED * len(self.products))
        bank = bank_for(network, sources, most, PATCHES_PER_REMEMBERED, max_pixels=self.max_pixels)
        if bank is None:
            raise self._unreadable()
        return bank

    def _prototypes(self, network: Network) -> Prototypes:
        """Return the prototypes of the new products.

        Raises:
            TrainingError: none of a product's images can be read.
        """
        names, embeddings = self.embeddings(network, self._few)
        if set(names) != set(self.products):
            raise self._unreadable()
        return fit_prototypes(embeddings, names, network.settings.training.seed)

    @property
    def _few(self) -> list[Record]:
        """Training images for prototypes and statistics."""
        return few_per_product(self.images.used, REFERENCE_IMAGES)

    def _unreadable(self) -> TrainingError:
        return TrainingError(
            f"the images of {self.names} cannot be read; snl doctor NORMALS lists what is wrong"
        )

    def _measured(
        self, network: Network, metadata: ModelMetadata, before: Calibration
    ) -> Inspector:
        """Return the inspector with statistics and calibration of the new products.

        Args:
            network: whose last group is that of the new products.
            metadata: of the network, except for its version.
            before: calibration that is continued.
        """
        fit_statistics(
            network.eval(),
            [record.source for record in self._few],
            self._bar("errors on normal images"),
            added=network.groups - 1,
            max_pixels=self.max_pixels,
        )
        check_finite(network)
        metadata = replace(metadata, network=network_version(_weights(network)), calibrations=())
        engine = TorchEngine(network, str(network.mean.device))
        predictor = Predictor(engine, metadata, max_pixels=self.max_pixels)
        return Inspector(predictor, [self._calibration(predictor, before)])

    def _calibration(self, predictor: Predictor, old: Calibration) -> Calibration:
        """Return the calibration of all products; nothing changes for the earlier ones."""
        rois = {k: v for k, v in old.rois.items() if k not in self.products}
        rois |= rois_of(self.images.used)
        masks = {**old.ignore_masks, **self.ignore_masks}
        for product in self.products:
            if product not in self.ignore_masks and old.rois.get(product) != rois.get(product):
                masks.pop(product, None)  # it was drawn on another part of the image
        training, held_out = (
            self._sample(predictor, records, masks) for records in (self._few, self.images.held_out)
        )
        if set(training.products) != set(self.products):
            raise self._unreadable()
        earlier = [name for name in old.products if name not in self.products]
        seed = predictor.settings.training.seed
        prototypes = old.prototypes.select(earlier).merge(
            fit_prototypes(training.embeddings, training.products, seed)
        )
        references = None
        if old.references is not None:
            new = fit_references(training.embeddings, training.products)
            references = old.references.select(earlier).merge(new)
        sets = {name: old.sets[name] for name in earlier}
        sets |= calibration_sets(held_out, prototypes, self.products, references, rois)
        stats = {name: old.log_score_stats[name] for name in earlier}
        stats |= log_score_stats(
            {name: training.scores[training.of(name)] for name in self.products}
        )
        shown = held_out if len(held_out) else training
        low, high = old.map_range
        return replace(
            old,
            sets=dict(sorted(sets.items())),
            log_score_stats=stats,
            prototypes=prototypes,
            references=references,
            map_range=(low, max(high, 2 * float(shown.scores.max()))),
            network=predictor.metadata.network,
            rois=rois,
            ignore_masks=masks,
            created=timestamp(),
            reason=f"added {self.names}",
        )

    def _sample(
        self, predictor: Predictor, records: Sequence[Record], masks: Mapping[str, np.ndarray]
    ) -> NormalSample:
        """Measure images of the new products."""
        errors: list[ImageError] = []
        return measure(
            predictor, records, errors, ignore_masks=masks, progress=self._bar("calibrating")
        )

    def _bar(self, title: str) -> Callable[[int, int], None] | None:
        return None if self.quiet else progress.bar(title, "image")


def _weights(network: Network) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}


def _sections(network: Network, metadata: ModelMetadata) -> dict[str, Section]:
    """Return the sections of a bundle, with those of some of its previous states."""
    sections = {
        NETWORK: Section({}, _weights(network)),
        **to_sections(replace(metadata, previous=None, events=())),
    }
    before = metadata.previous
    return (
        sections
        if before is None
        else previous.shortened({**sections, **previous.to_sections(before, sections)})
    )
