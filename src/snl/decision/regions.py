"""Connected defect regions of an anomaly map, and its peaks, of which a region has at least one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import find_objects, label, maximum_filter

from snl.decision.contours import polygon
from snl.errors import DataError, SettingsError

_NEIGHBOURS = np.ones((3, 3), bool)  # pixels that touch at a corner hang together


@dataclass(frozen=True)
class Region:
    """One connected part of an anomaly map above a threshold.

    Attributes:
        box: x, y, width, height in pixels of the map.
        polygon: its outer contour, corners (x, y), clockwise as seen, closed implicitly, in
            coordinates of pixel corners: the pixel in column x and row y is the square from (x, y)
            to (x + 1, y + 1). Holes are inside it. Simplified: within a pixel of the exact
            contour. It does not cross itself; it touches itself where pixels meet at a corner only.
        area: pixels above the threshold, so without holes.
        area_mm2: the same in square millimetres; None without a scale.
        peak: highest value of the map in it.
        peak_at: x, y of the first pixel with that value, row by row.
        p_value: of the peak, as the caller's function gives it; None without one.
    """

    box: tuple[int, int, int, int]
    polygon: tuple[tuple[float, float], ...]
    area: int
    area_mm2: float | None
    peak: float
    peak_at: tuple[int, int]
    p_value: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values; tuples as lists."""
        return {
            "box": list(self.box),
            "polygon": [list(point) for point in self.polygon],
            "area": self.area,
            "area_mm2": self.area_mm2,
            "peak": self.peak,
            "peak_at": list(self.peak_at),
            "p_value": self.p_value,
        }


def find_regions(
    anomaly_map: np.ndarray,
    threshold: float,
    *,
    smallest: int = 1,
    mm_per_pixel: float | None = None,
    p_value: Callable[[float], float | None] | None = None,
    most: int = 100,
) -> tuple[Region, ...]:
    """The 8-connected components of map > threshold, highest peak first.

    Args:
        anomaly_map: real (H, W), finite.
        threshold: a pixel above it belongs to a region; may be infinite.
        smallest: regions of fewer pixels are left out.
        mm_per_pixel: side of a pixel in millimetres, for areas.
        p_value: from the peak of a region to its p-value.
        most: regions at most; those with the lowest peaks are left out.

    Returns:
        Regions; equal peaks in the order of their first pixels, row by row.

    Raises:
        DataError: a map that is not two-dimensional, empty, not real or not finite.
        SettingsError: a threshold that is no number, `smallest` or `most` below 1, a scale that
            is not above 0.

    Example:
        >>> levels = np.zeros((4, 6)); levels[1, 2:4] = 5, 7
        >>> [(r.box, r.area, r.peak_at) for r in find_regions(levels, 1.0)]
        [((2, 1, 2, 1), 2, (3, 1))]
    """
    anomaly_map = _checked(anomaly_map)
    if math.isnan(threshold):
        raise SettingsError("threshold of regions is not a number; give a value of the map")
    if smallest < 1:
        raise SettingsError(f"smallest region of {smallest} pixels; give at least 1")
    if most < 1:
        raise SettingsError(f"at most {most} regions; give at least 1")
    if mm_per_pixel is not None and not (math.isfinite(mm_per_pixel) and mm_per_pixel > 0):
        raise SettingsError(f"{mm_per_pixel} mm per pixel; give a number above 0, or None")
    labels, count = label(anomaly_map > threshold, structure=_NEIGHBOURS)
    if not count:
        return ()
    pixels = np.flatnonzero(labels)
    number, values = labels.ravel()[pixels] - 1, anomaly_map.ravel()[pixels]
    areas = np.bincount(number, minlength=count)
    highest = np.full(count, values.min())
    np.maximum.at(highest, number, values)
    tops = np.flatnonzero(values == highest[number])
    tops = pixels[tops[np.unique(number[tops], return_index=True)[1]]]  # the first of each
    del pixels, number, values
    chosen = np.flatnonzero(areas >= smallest)
    chosen = chosen[np.argsort(-highest[chosen].astype(float), kind="stable")][:most]
    rank = np.zeros(count + 1, np.int32)
    rank[chosen + 1] = np.arange(1, len(chosen) + 1)
    labels = rank[labels]
    regions = []
    for i, (rows, columns) in enumerate(find_objects(labels, len(chosen))):
        k, x, y = chosen[i], columns.start, rows.start
        corners = polygon(labels[rows, columns] == i + 1)
        top_y, top_x = divmod(int(tops[k]), anomaly_map.shape[1])
        area, peak = int(areas[k]), float(highest[k])
        regions.append(
            Region(
                box=(x, y, columns.stop - x, rows.stop - y),
                polygon=tuple((float(cx + x), float(cy + y)) for cx, cy in corners.tolist()),
                area=area,
                area_mm2=None if mm_per_pixel is None else area * mm_per_pixel**2,
                peak=peak,
                peak_at=(top_x, top_y),
                p_value=None if p_value is None else p_value(peak),
            )
        )
    return tuple(regions)


def peaks(anomaly_map: np.ndarray, most: int = 16, ignored: np.ndarray | None = None) -> np.ndarray:
    """Values of the local maxima of a map, highest first.

    A local maximum is a connected plateau of equal values all of whose neighbours (of eight) are
    lower. Every region of map > t holds one, that of its highest pixel, and no two regions share
    one, so for any threshold t there are at most as many regions as peaks above t; and that count
    only falls as t rises.

    Args:
        anomaly_map: real (H, W), finite where not ignored.
        most: length of the result; the lowest are left out.
        ignored: bool (H, W), pixels that are not looked at, as if they were lower than all others.

    Returns:
        float64 (most,), padded with -inf.

    Raises:
        DataError: as `find_regions`, or a mask of another shape or type.
        SettingsError: `most` below 1.
    """
    if most < 1:
        raise SettingsError(f"at most {most} peaks; give at least 1")
    levels = _checked(anomaly_map, ignored).astype(float)
    if ignored is not None:
        levels[ignored] = -np.inf
    top = levels == maximum_filter(levels, size=3, mode="nearest")
    top &= levels > -np.inf
    # a plateau that goes on beside a higher pixel is none: its other pixels are not in `top`
    beside = maximum_filter(np.where(top, -np.inf, levels), size=3, mode="nearest") == levels
    labels, count = label(top, structure=_NEIGHBOURS)
    values = np.full(count + 1, -np.inf)
    values[labels[top]] = levels[top]
    values[labels[top & beside]] = -np.inf
    values = np.sort(values)[::-1][:most]
    return np.pad(values, (0, most - len(values)), constant_values=-np.inf)


def _checked(anomaly_map: np.ndarray, ignored: np.ndarray | None = None) -> np.ndarray:
    """The map as an array.

    Raises:
        DataError: it, or the mask of what is ignored in it, cannot be used.
    """
    anomaly_map = np.asarray(anomaly_map)
    if anomaly_map.ndim != 2 or not anomaly_map.size:
        shape = " x ".join(map(str, anomaly_map.shape)) or "a single number"
        raise DataError(f"anomaly map of shape {shape}; give one map of height x width")
    if anomaly_map.dtype.kind not in "fiu":
        raise DataError(f"anomaly map of type {anomaly_map.dtype}; give real numbers")
    fine = np.isfinite(anomaly_map)
    if ignored is not None:
        if ignored.shape != anomaly_map.shape or ignored.dtype != bool:
            raise DataError(
                f"mask of ignored pixels of type {ignored.dtype} and shape {ignored.shape}; "
                f"give bool of the map's shape {anomaly_map.shape}"
            )
        fine |= ignored
    if not fine.all():
        y, x = np.unravel_index(int(np.argmin(fine)), fine.shape)
        raise DataError(
            f"anomaly map is {anomaly_map[y, x]} at x {x}, y {y}; give a map of finite numbers"
        )
    return anomaly_map
