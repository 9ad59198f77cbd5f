"""AUROC, AP, F1-max and AUPRO of any number of scores, in bounded memory.

All figures come from one structure, `ScoreHistogram`: how much weight lies at which score. It is
exact up to `cap` distinct scores and stays within 1e-4 of exact beyond. Histograms merge, so an
evaluation may be spread over batches, processes and machines.

Everywhere: a higher score is more abnormal; scores are compared as float32; equal scores are one
step of a curve; a figure is None where it is undefined (only one class seen).

    >>> auroc([0.1, 0.2, 0.3], [0.3, 0.9])
    0.9166666666666666
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from snl.errors import DataError
from snl.evaluation.histogram import (
    CAP,
    Array,
    ScoreHistogram,
    class_weights,
    histogram_of,
    keys_of,
)

__all__ = ["DetectionMetrics", "LocalizationMetrics", "ScoreHistogram"]


def auroc(
    normal: ScoreHistogram | ArrayLike, anomalous: ScoreHistogram | ArrayLike
) -> float | None:
    """Area under the ROC curve, 0..1: P(anomalous > normal) + P(equal) / 2 (Mann-Whitney).

    Args:
        normal, anomalous: scores of each class, of any shape, or their histograms.

    Raises:
        DataError: a score is NaN or infinite.
    """
    return _auroc(*class_weights(histogram_of(normal), histogram_of(anomalous)))


def average_precision(
    normal: ScoreHistogram | ArrayLike, anomalous: ScoreHistogram | ArrayLike
) -> float | None:
    """Average precision, 0..1: the sum of precision times gain in recall over all thresholds.

    Step-wise, without interpolation, as scikit-learn's `average_precision_score`. Arguments and
    errors as for `auroc`.
    """
    return _average_precision(*class_weights(histogram_of(normal), histogram_of(anomalous)))


def f1_max(
    normal: ScoreHistogram | ArrayLike, anomalous: ScoreHistogram | ArrayLike
) -> float | None:
    """The highest F1 that any threshold reaches, 0..1. Arguments and errors as for `auroc`."""
    return _f1_max(*class_weights(histogram_of(normal), histogram_of(anomalous)))


def aupro(normal: ScoreHistogram, regions: ScoreHistogram, limit: float = 0.3) -> float | None:
    """Area under the per-region overlap curve up to a false-positive rate, over that rate: 0..1.

    At each threshold: the share of a ground-truth region that is detected, averaged over all
    regions of all images, against the share of normal pixels detected. Integrated by trapezoids
    over every distinct score, with linear interpolation at the limit. If all scores are equal the
    curve is the diagonal, and the value `limit / 2`.
    Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 5.

    Args:
        normal: scores of all normal pixels, those of images without any region included.
        regions: scores of the pixels in regions, each with its `region_weights`.
        limit: false-positive rate to integrate to, over 0 and up to 1.
    """
    false_alarms, overlaps = class_weights(normal, regions)
    return _aupro(false_alarms, overlaps, limit)


def roc_curve(
    normal: ScoreHistogram | ArrayLike,
    anomalous: ScoreHistogram | ArrayLike,
    points: int = 1000,
) -> tuple[Array, Array]:
    """False- and true-positive rate, float64, both from 0 to 1, at no more than `points` points.

    Points left out (`points`: 10 or more) lie within 5 / points of the line through those kept.
    Both arrays are empty where a class is missing. Arguments and errors as for `auroc`.
    """
    if points < 10:
        raise ValueError(f"points must be at least 10, not {points}")
    x, y = _curve(*class_weights(histogram_of(normal), histogram_of(anomalous)))
    if x.size > points:
        length = x + y
        at = np.searchsorted(length, np.linspace(0, 2, points // 2))
        kept = np.unique(np.concatenate([at, np.maximum(at - 1, 0)]))  # both ends of long steps
        x, y = x[kept], y[kept]
    return x, y


def pro_curve(
    normal: ScoreHistogram, regions: ScoreHistogram, points: int = 1000
) -> tuple[Array, Array]:
    """False-positive rate and per-region overlap; as `roc_curve`, with the arguments of `aupro`."""
    return roc_curve(normal, regions, points)


def region_weights(mask: Array) -> Array:
    """One over the area of its region, for each pixel of a mask, so that every region weighs 1.

    Regions are connected through sides and corners (8 neighbours), as in the evaluation code of
    MVTec AD and in anomalib.

    Args:
        mask: (H, W) bool, or a number that is over 0 in regions.

    Returns:
        (number of pixels that are True,) float64, in the order of `mask[mask]`.
    """
    mask = np.asarray(mask) > 0
    inside = np.flatnonzero(mask)
    if not inside.size:
        return np.empty(0, np.float64)
    from scipy import ndimage  # here: image-level figures do not need it

    band = mask[inside[0] // mask.shape[1] : inside[-1] // mask.shape[1] + 1]
    columns = np.flatnonzero(band.any(axis=0))
    crop = band[:, columns[0] : columns[-1] + 1]
    labels, _ = ndimage.label(crop, structure=np.ones((3, 3), np.int8))
    region = labels[crop]
    weights: Array = (1.0 / np.maximum(np.bincount(region), 1))[region]
    return weights


class DetectionMetrics:
    """Image-level figures over any number of images; the state is two `ScoreHistogram`s.

    >>> metrics = DetectionMetrics()
    >>> metrics.update([0.1, 0.4, 0.8], [False, False, True])
    >>> metrics.compute()["image_auroc"]
    1.0
    """

    def __init__(self, cap: int = CAP) -> None:
        self.normal = ScoreHistogram(cap)
        self.anomalous = ScoreHistogram(cap)

    def update(self, score: ArrayLike, anomalous: ArrayLike) -> None:
        """Add one score and label, or arrays of both.

        Args:
            score: image score(s), any finite float.
            anomalous: label(s) of the same shape, bool.

        Raises:
            DataError: shapes differ, or a score is NaN or infinite; nothing has been added then.
        """
        labels = np.asarray(anomalous, dtype=bool)
        if np.shape(score) != labels.shape:
            raise DataError(
                f"scores of shape {np.shape(score)} but labels of shape {labels.shape}; "
                "give one label for each image score"
            )
        keys, labels = keys_of(score, "image scores"), labels.ravel()
        self.normal._add(keys[~labels], None)
        self.anomalous._add(keys[labels], None)

    def merge(self, other: DetectionMetrics) -> None:
        """Add all that `other` has seen."""
        self.normal.merge(other.normal)
        self.anomalous.merge(other.anomalous)

    def compute(self) -> dict[str, float | int | None]:
        """`image_auroc`, `image_ap`, `image_f1max` (None: undefined), `n_normal`, `n_anomalous`."""
        steps = class_weights(self.normal, self.anomalous)
        return {
            "image_auroc": _auroc(*steps),
            "image_ap": _average_precision(*steps),
            "image_f1max": _f1_max(*steps),
            "n_normal": round(self.normal.total),
            "n_anomalous": round(self.anomalous.total),
        }


class LocalizationMetrics:
    """Pixel-level figures over any number of images; the state is three `ScoreHistogram`s.

    Only images whose mask is known are counted; that of a normal image is empty.

    >>> metrics = LocalizationMetrics()
    >>> metrics.update(np.eye(4), np.eye(4) > 0)
    >>> metrics.compute()["aupro"]
    1.0
    """

    def __init__(self, cap: int = CAP) -> None:
        self.normal = ScoreHistogram(cap)
        self.anomalous = ScoreHistogram(cap)
        self.regions = ScoreHistogram(cap)  # anomalous pixels, every region of weight 1
        self.n_masked = 0

    def update(self, anomaly_map: ArrayLike, mask: ArrayLike) -> None:
        """Add one image.

        Args:
            anomaly_map: (H, W) finite scores, compared as float32.
            mask: (H, W) bool, or a number that is over 0 where anomalous.

        Raises:
            DataError: shapes differ or are not (H, W), or a score is NaN or infinite; nothing has
                been added then.
        """
        values, truth = np.asarray(anomaly_map), np.asarray(mask)
        if values.ndim != 2 or values.shape != truth.shape:
            raise DataError(
                f"anomaly map of shape {values.shape} but mask of shape {truth.shape}; both must "
                "be H x W of the same image - resize the mask by nearest neighbour"
            )
        keys = keys_of(values, "values of the anomaly map")
        self.n_masked += 1
        truth = truth > 0
        if not truth.any():
            self.normal._add(keys, None)
            return
        flat = truth.ravel()
        self.normal._add(keys[~flat], None)
        anomalous = keys[flat]
        self.anomalous._add(anomalous, None)
        self.regions._add(anomalous, region_weights(truth))

    def merge(self, other: LocalizationMetrics) -> None:
        """Add all that `other` has seen."""
        self.normal.merge(other.normal)
        self.anomalous.merge(other.anomalous)
        self.regions.merge(other.regions)
        self.n_masked += other.n_masked

    def compute(self) -> dict[str, float | int | None]:
        """Figures over all pixels of all images together.

        Returns:
            `pixel_auroc`, `pixel_ap`, `pixel_f1max`, `aupro` (to a false-positive rate of 0.3),
            `aupro_05` (to 0.05), each None where undefined; `n_masked`, the images seen.
        """
        normal, anomalous, regions = class_weights(self.normal, self.anomalous, self.regions)
        return {
            "pixel_auroc": _auroc(normal, anomalous),
            "pixel_ap": _average_precision(normal, anomalous),
            "pixel_f1max": _f1_max(normal, anomalous),
            "aupro": _aupro(normal, regions, 0.3),
            "aupro_05": _aupro(normal, regions, 0.05),
            "n_masked": self.n_masked,
        }


# The figures on steps: what each class adds at every distinct threshold, highest first.


def _defined(normal: Array, anomalous: Array) -> bool:
    return bool(normal.any() and anomalous.any())


def _auroc(normal: Array, anomalous: Array) -> float | None:
    if not _defined(normal, anomalous):
        return None
    above = np.cumsum(anomalous)
    area = np.dot(normal, above - anomalous / 2)
    return float(area / (above[-1] * normal.sum()))


def _average_precision(normal: Array, anomalous: Array) -> float | None:
    if not _defined(normal, anomalous):
        return None
    hits, alarms = np.cumsum(anomalous), np.cumsum(normal)
    return float(np.dot(anomalous, hits / (hits + alarms)) / hits[-1])


def _f1_max(normal: Array, anomalous: Array) -> float | None:
    if not _defined(normal, anomalous):
        return None
    hits, alarms = np.cumsum(anomalous), np.cumsum(normal)
    return float(np.max(2 * hits / (hits + alarms + hits[-1])))


def _curve(normal: Array, anomalous: Array) -> tuple[Array, Array]:
    if not _defined(normal, anomalous):
        return np.empty(0), np.empty(0)
    x, y = (np.concatenate([[0.0], np.cumsum(a)]) for a in (normal, anomalous))
    return x / x[-1], y / y[-1]


def _aupro(normal: Array, regions: Array, limit: float) -> float | None:
    if not 0 < limit <= 1:
        raise ValueError(f"limit is a false-positive rate over 0 and up to 1, not {limit}")
    x, y = _curve(normal, regions)
    if not x.size:
        return None
    end = int(np.searchsorted(x, limit))  # the first point at or beyond the limit; x[0] is 0
    part = (limit - x[end - 1]) / (x[end] - x[end - 1])
    y_limit = y[end - 1] + part * (y[end] - y[end - 1])
    x, y = np.append(x[:end], limit), np.append(y[:end], y_limit)
    return float(np.dot(np.diff(x), (y[1:] + y[:-1]) / 2) / limit)
