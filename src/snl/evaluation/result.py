"""The result of an evaluation: metrics per product, their mean, pooled, and every image's score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from snl.evaluation.decision_counts import decision_counts
from snl.evaluation.detection_rates import DetectionRates, detection_rates
from snl.evaluation.image_score import ImageScore
from snl.evaluation.metrics import auroc
from snl.evaluation.parts import PartScore, part_counts
from snl.text_table import aligned

METRICS = (
    "image_auroc",
    "image_ap",
    "image_f1max",
    "pixel_auroc",
    "pixel_ap",
    "pixel_f1max",
    "aupro",
    "aupro_05",
)
COUNTS = ("n_normal", "n_anomalous", "n_masked")

MAX_PRODUCTS = 30
"""Products that a printed table shows unasked."""

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""`roc` of images and `pro` of regions: false-positive rates and what is detected at them."""


@dataclass(frozen=True)
class EvaluatedImage:
    """One test image with its map, as `evaluate` passes it to `visit`.

    Attributes:
        result: its score.
        image: uint8 (h, w, 3), the network's square input or, in tiles, the image.
        size: (H, W) of the image.
        anomaly_map: float32 (h, w).
        mask: bool (h, w); None: unknown.
        picture: uint8 (H', W', 3), the image at the size that `evaluate` was asked for, or None.
    """

    result: ImageScore
    image: np.ndarray
    size: tuple[int, int]
    anomaly_map: np.ndarray
    mask: np.ndarray | None
    picture: np.ndarray | None = None


@dataclass(frozen=True)
class Evaluation:
    """Metrics of all products.

    Attributes:
        products: metrics and counts by product; None where a metric is not defined.
        mean: over the products where a metric is defined; counts are summed.
        pooled: of all images in one ranking.
        scores: of every image.
        skipped: errors of images that could not be read.
        unusable_masks: errors of masks that could not be read; their images count for detection
            only.
        curves: by product.
        pooled_curves: of all images in one ranking.
        remarks: number of images by remark, such as that samples were clipped.
        parts: of every part that an image shows; empty if the data set has no parts.
    """

    products: dict[str, dict[str, float | int | None]]
    mean: dict[str, float | int | None]
    pooled: dict[str, float | int | None]
    scores: tuple[ImageScore, ...]
    skipped: tuple[str, ...] = ()
    unusable_masks: tuple[str, ...] = ()
    curves: Mapping[str, Curves] = field(default_factory=dict)
    pooled_curves: Curves = field(default_factory=dict)
    remarks: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[PartScore, ...] = ()

    @property
    def calibrated_auroc(self) -> float | None:
        """Pooled image AUROC of the calibrated scores; None if the model has no calibration."""
        scores: dict[str, list[float]] = {"normal": [], "anomalous": []}
        for image in self.scores:
            if image.verdict is None:
                return None
            scores[image.label].append(image.verdict.calibrated)
        return auroc(scores["normal"], scores["anomalous"])

    @cached_property
    def detection_rates(self) -> DetectionRates:
        """What decisions detect and what the scores allow at 1 % and 5 % false alarms on the test
        images, by product and kind of defect.

        >>> evaluation.detection_rates.products["bottle"].kinds["broken"].at_5  # doctest: +SKIP
        0.95
        """
        return detection_rates(self.scores)

    def to_dict(self) -> dict[str, Any]:
        """Return the tables as JSON values; None where a metric is not defined."""
        tables: dict[str, Any] = {
            "products": self.products,
            "mean": self.mean,
            "pooled": self.pooled,
            "detection_rates": self.detection_rates.to_dict(),
        }
        if self.parts:
            tables["parts"] = part_counts(self.parts)
        counts = decision_counts(self.scores)
        if counts is None:
            return tables
        pooled = self.pooled | {"image_auroc_calibrated": self.calibrated_auroc}
        return tables | {"pooled": pooled, "decisions": counts}


def worst_products(evaluation: Evaluation, most: int = MAX_PRODUCTS) -> list[str]:
    """Return all products in their order, or, of more than `most`, as many with the lowest image
    AUROC, lowest first."""
    products = evaluation.products
    if len(products) <= most:
        return list(products)

    def auroc_of(name: str) -> float:
        value = products[name]["image_auroc"]
        return 2.0 if value is None else value  # those without defects or normal images last

    return sorted(products, key=auroc_of)[:most]


def format_table(evaluation: Evaluation, products: Sequence[str] | None = None) -> str:
    """Return the tables as aligned text, in percent; `-` where a metric is not defined.

    Args:
        evaluation: what is shown.
        products: that have a row; None: all.
    """
    shown = evaluation.products if products is None else products
    tables = [
        *((name, evaluation.products[name]) for name in shown),
        ("mean", evaluation.mean),
        ("pooled", evaluation.pooled),
    ]
    rows = [["product", *METRICS, *COUNTS]]
    rows += [
        [name, *(_percent(values[m]) for m in METRICS), *(str(values[c]) for c in COUNTS)]
        for name, values in tables
    ]
    return aligned(rows, last=2)


def ordered(values: dict[str, Any]) -> dict[str, Any]:
    """Return metrics and counts in the order of the tables."""
    return {name: values[name] for name in (*METRICS, *COUNTS)}


def mean_of(products: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean over the products where a metric is defined; counts are summed."""
    mean: dict[str, Any] = {}
    for name in METRICS:
        defined = [values[name] for values in products if values[name] is not None]
        mean[name] = sum(defined) / len(defined) if defined else None
    return mean | {name: sum(values[name] for values in products) for name in COUNTS}


def _percent(value: float | int | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
