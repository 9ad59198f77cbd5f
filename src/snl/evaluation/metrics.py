"""AUROC, AP, F1-max and AUPRO of any number of scores, in bounded memory.

All metrics are computed from a `ScoreHistogram`, which is exact up to `cap` distinct scores; beyond
that, metrics stay within 1e-4 of the exact value. Histograms can be merged, so an evaluation can be
distributed over batches, processes and machines.

A higher score is more abnormal. Scores are compared as float32. Equal scores are one step of a
curve. A metric is None where it is undefined (only one class seen).

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
    """Compute the area under the ROC curve, 0..1.

    It equals P(anomalous > normal) + P(equal) / 2 (Mann-Whitney).

    Args:
        normal, anomalous: scores of each class, of any shape, or their histograms.

    Raises:
        DataError: a score is NaN or infinite.
    """
    return _auroc(*class_weights(histogram_of(normal), histogram_of(anomalous)))


def average_precision(
    normal: ScoreHistogram | ArrayLike, anomalous: ScoreHistogram | ArrayLike
) -> float | None:
    """Compute the average precision, 0..1: precision times gain in recall, summed over thresholds.

    Not interpolated, as in scikit-learn's `average_precision_score`. Arguments and errors as for
    `auroc`.
    """
    return _average_precision(*class_weights(histogram_of(normal), histogram_of(anomalous)))


def f1_max(
    normal: ScoreHistogram | ArrayLike, anomalous: ScoreHistogram | ArrayLike
) -> float | None:
    """Compute the highest F1 over all thresholds, 0..1. Arguments and errors as for `auroc`."""
    return _f1_max(*class_weights(histogram_of(normal), histogram_of(anomalous)))


def aupro(normal: ScoreHistogram, regions: ScoreHistogram, limit: float = 0.3) -> float | None:
    """Compute the area under the per-region overlap curve up to a false-positive rate, 0..1.

    The curve shows, for each threshold, the detected share of a ground-truth region, averaged over
    all regions of all images, against the detected share of normal pixels. The integral uses
    trapezoids over all distinct scores, with linear interpolation at the limit, and is divided by
    the limit. If all scores are equal the curve is the diagonal and the value is `limit / 2`.
    Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 5.

    Args:
        normal: scores of all normal pixels, including those of images without regions.
        regions: scores of the pixels in regions, weighted by `region_weights`.
        limit: upper false-positive rate of the integral, above 0 and at most 1.
    """
    false_alarms, overlaps = class_weights(normal, regions)
    return _aupro(false_alarms, overlaps, limit)


def roc_curve(
    normal: ScoreHistogram | ArrayLike,
    anomalous: ScoreHistogram | ArrayLike,
    points: int = 1000,
) -> tuple[Array, Array]:
    """Compute false- and true-positive rates, float64, from 0 to 1, at `points` points at most.

    Omitted points lie within 5 / points of the line through the others; `points` is at least 10.
    Both arrays are empty if a class is missing. Other arguments and errors as for `auroc`.
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
    """Compute false-positive rates and per-region overlaps: `roc_curve` with the histograms of
    `aupro`."""
    return roc_curve(normal, regions, points)


def region_weights(mask: Array) -> Array:
    """Compute 1 / area of the region for each pixel of a mask, so that every region has weight 1.

    Regions are 8-connected, as in the evaluation code of MVTec AD and in anomalib.

    Args:
        mask: (H, W) bool, or numbers above 0 in regions.

    Returns:
        float64 (number of pixels in regions,), in the order of `mask[mask]`.
    """
    mask = np.asarray(mask) > 0
    inside = np.flatnonzero(mask)
    if not inside.size:
        return np.empty(0, np.float64)
    from scipy import ndimage  # image-level metrics do not need it

    band = mask[inside[0] // mask.shape[1] : inside[-1] // mask.shape[1] + 1]
    columns = np.flatnonzero(band.any(axis=0))
    crop = band[:, columns[0] : columns[-1] + 1]
    labels, _ = ndimage.label(crop, structure=np.ones((3, 3), np.int8))
    region = labels[crop]
    weights: Array = (1.0 / np.maximum(np.bincount(region), 1))[region]
    return weights


class DetectionMetrics:
    """Image-level metrics over any number of images; the state is two `ScoreHistogram`s.

    >>> metrics = DetectionMetrics()
    >>> metrics.update([0.1, 0.4, 0.8], [False, False, True])
    >>> metrics.compute()["image_auroc"]
    1.0
    """

    def __init__(self, cap: int = CAP) -> None:
        self.normal = ScoreHistogram(cap)
        self.anomalous = ScoreHistogram(cap)

    def update(self, score: ArrayLike, anomalous: ArrayLike) -> None:
        """Add one score and its label, or arrays of both.

        Args:
            score: finite image score(s).
            anomalous: label(s), bool, of the same shape.

        Raises:
            DataError: shapes differ, or a score is NaN or infinite; nothing is added then.
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
        """Add the images of `other`."""
        self.normal.merge(other.normal)
        self.anomalous.merge(other.anomalous)

    def compute(self) -> dict[str, float | int | None]:
        """Compute `image_auroc`, `image_ap` and `image_f1max`, each None where undefined, and count
        `n_normal` and `n_anomalous` images."""
        steps = class_weights(self.normal, self.anomalous)
        return {
            "image_auroc": _auroc(*steps),
            "image_ap": _average_precision(*steps),
            "image_f1max": _f1_max(*steps),
            "n_normal": round(self.normal.total),
            "n_anomalous": round(self.anomalous.total),
        }


_WHAT = "values of the anomaly map"
_BAND = 2**22  # pixels


def _bands(shape: tuple[int, ...]) -> list[slice]:
    """Return slices of the rows of a map (H, W), of at most about `_BAND` pixels each."""
    step = max(1, _BAND // max(1, shape[1]))
    return [slice(row, row + step) for row in range(0, shape[0], step)]


class LocalizationMetrics:
    """Pixel-level metrics over any number of images; the state is three `ScoreHistogram`s.

    Only images with a known mask count. The mask of a normal image is empty.

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
            mask: (H, W) bool, or numbers above 0 where anomalous.

        Raises:
            DataError: shapes differ or are not (H, W), or a score is NaN or infinite; nothing is
                added then.
        """
        values, truth = np.asarray(anomaly_map), np.asarray(mask)
        if values.ndim != 2 or values.shape != truth.shape:
            raise DataError(
                f"anomaly map of shape {values.shape} but mask of shape {truth.shape}; both must "
                "be H x W of the same image - resize the mask by nearest neighbour"
            )
        bands = _bands(values.shape)
        if len(bands) > 1:  # of a large map only a part has its keys in memory at a time
            for band in bands:
                keys_of(values[band], _WHAT)  # refuses it before anything is added
        weights = region_weights(truth)
        for band in bands:
            keys = keys_of(values[band], _WHAT)
            inside = truth[band].ravel() > 0
            if not inside.any():
                self.normal._add(keys, None)
                continue
            self.normal._add(keys[~inside], None)
            anomalous = keys[inside]
            self.anomalous._add(anomalous, None)
            self.regions._add(anomalous, weights[: anomalous.size])
            weights = weights[anomalous.size :]
        self.n_masked += 1

    def merge(self, other: LocalizationMetrics) -> None:
        """Add the images of `other`."""
        self.normal.merge(other.normal)
        self.anomalous.merge(other.anomalous)
        self.regions.merge(other.regions)
        self.n_masked += other.n_masked

    def compute(self) -> dict[str, float | int | None]:
        """Compute metrics over all pixels of all images.

        Returns:
            `pixel_auroc`, `pixel_ap`, `pixel_f1max`, `aupro` (up to a false-positive rate of 0.3),
            `aupro_05` (up to 0.05), each None where undefined; `n_masked`, the number of images.
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


# Metrics from the weight of each class at every distinct threshold, highest first.


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
        raise ValueError(f"limit must be a false-positive rate above 0 and at most 1, not {limit}")
    x, y = _curve(normal, regions)
    if not x.size:
        return None
    end = int(np.searchsorted(x, limit))  # the first point at or beyond the limit; x[0] is 0
    fraction = (limit - x[end - 1]) / (x[end] - x[end - 1])
    y_limit = y[end - 1] + fraction * (y[end] - y[end - 1])
    x, y = np.append(x[:end], limit), np.append(y[:end], y_limit)
    return float(np.dot(np.diff(x), (y[1:] + y[:-1]) / 2) / limit)
