"""A calibration from measurements of normal images; it knows no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePath

import numpy as np

from snl.data.roi import Roi, distinct
from snl.decision.calibration import Calibration, CalibrationSet
from snl.decision.conformal import log_score_stats
from snl.decision.products import Prototypes, fit_prototypes
from snl.decision.recognition import comparable
from snl.decision.references import References, fit_references
from snl.decision.sample import NormalSample
from snl.settings import MapSettings


def fit_calibration(
    training: NormalSample,
    held_out: NormalSample,
    *,
    seed: int = 0,
    scoring: MapSettings | None = None,
    tile: int = 0,
    network: str = "",
    rois: Mapping[str, Roi] | None = None,
    ignore_masks: Mapping[str, np.ndarray] | None = None,
) -> Calibration:
    """Return the first calibration of a network.

    Args:
        training: training images of every product; prototypes and log-score statistics come from
            them, so that held-out and new images are treated alike.
        held_out: normal images that training did not see; thresholds come from them.
        seed: of the prototypes' k-means.
        scoring: of the network's map.
        tile: side of the tiles in pixels; 0: whole images.
        network: version of the network.
        rois: regions of interest by product.
        ignore_masks: bool (h, w) by product: pixels of the region that do not count.
    """
    rois = rois or {}
    products = sorted(set(training.products))
    prototypes = fit_prototypes(training.embeddings, training.products, seed)
    references = fit_references(training.embeddings, training.products)
    shown = held_out if len(held_out) else training
    low = float(np.median(shown.backgrounds))
    high = max(2 * float(shown.scores.max()), low + 1e-6)
    return Calibration(
        sets=calibration_sets(held_out, prototypes, products, references, rois),
        log_score_stats=log_score_stats(
            {name: training.scores[training.of(name)] for name in products}
        ),
        prototypes=prototypes,
        scoring=scoring or MapSettings(),
        map_range=(low, high),
        network=network,
        rois=rois,
        ignore_masks=ignore_masks or {},
        tile=tile,
        created=timestamp(),
        references=references,
    )


def calibration_sets(
    sample: NormalSample,
    prototypes: Prototypes,
    products: Sequence[str],
    references: References | None = None,
    rois: Mapping[str, Roi] | None = None,
) -> dict[str, CalibrationSet]:
    """Return the calibration set of every product; of products without images an empty one.

    Distances are those to the nearest prototype of a product with the same region of interest.
    """
    rois = rois or {}
    nearest = np.zeros(len(sample), np.float32)
    for roi in distinct(products, rois):
        same = [name for name in products if rois.get(name) == roi]
        rows = np.isin(sample.products, same)
        near = comparable(prototypes, rois, roi)
        nearest[rows] = near.distances(sample.embeddings[rows]).min(1)
    names = np.array([short_name(path) for path in sample.paths] or [""] * len(sample), np.str_)
    return {
        product: CalibrationSet(
            sample.scores[rows],
            nearest[rows],
            sample.peaks[rows],
            sample.hashes[rows],
            names[rows],
            *([references.distances(sample.embeddings[rows], product)] if references else []),
        )
        for product in products
        for rows in [sample.of(product)]
    }


def raised_scores(calibration: Calibration, sample: NormalSample) -> list[float]:
    """Return the scores of images, raised as those of new images are."""
    rows = zip(sample.scores, sample.products, sample.embeddings, strict=True)
    return [calibration.raised(float(score), name, row) for score, name, row in rows]


def short_name(path: str) -> str:
    """Return folder and name of a file, by which a person finds it."""
    return "/".join(PurePath(path).parts[-2:])


def timestamp() -> str:
    """Return the current ISO time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
