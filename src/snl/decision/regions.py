"""Connected defect regions of an anomaly map, and the peaks of a map."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from snl.decision.components import component_mask, find_components
from snl.decision.contours import outline, polygon
from snl.decision.plateaus import plateaus
from snl.errors import DataError, SettingsError


@dataclass(frozen=True)
class Region:
    """One connected component of an anomaly map above a threshold.

    Attributes:
        box: x, y, width, height in pixels of the map.
        polygon: outer contour as corners (x, y), clockwise as seen, closed implicitly, in
            coordinates of pixel corners: the pixel in column x and row y is the square from (x, y)
            to (x + 1, y + 1). Holes are included. Simplified: within one pixel of the exact
            contour. It does not cross itself; it touches itself where pixels meet at a corner only.
        area: number of pixels above the threshold, without holes.
        area_mm2: area in square millimetres; None without a scale.
        peak: highest value of the map in the region.
        peak_at: x, y of the first pixel with that value, row by row.
        p_value: p-value of the peak; None if there is none.
    """

    box: tuple[int, int, int, int]
    polygon: tuple[tuple[float, float], ...]
    area: int
    area_mm2: float | None
    peak: float
    peak_at: tuple[int, int]
    p_value: float | None

    def shifted(self, x: int, y: int) -> Region:
        """Return the region moved from the coordinates of a crop to those of the whole image.

        Args:
            x, y: left and top pixel of the crop.
        """
        left, top, width, height = self.box
        return replace(
            self,
            box=(left + x, top + y, width, height),
            polygon=tuple((px + x, py + y) for px, py in self.polygon),
            peak_at=(self.peak_at[0] + x, self.peak_at[1] + y),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; tuples become lists."""
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
    """Return the 8-connected components of map > threshold, highest peak first.

    Args:
        anomaly_map: real (H, W), finite.
        threshold: pixels above it belong to a region; may be infinite.
        smallest: regions of fewer pixels are left out, at least 1.
        mm_per_pixel: side length of a pixel in millimetres, above 0, for areas.
        p_value: maps the peak of a region to its p-value.
        most: maximum number of regions, at least 1; those with the lowest peaks are left out.

    Returns:
        Regions; those of equal peaks in the order of their first pixels, row by row.

    Raises:
        DataError: the map is not two-dimensional, empty, not real or not finite.
        SettingsError: the threshold is NaN, or an argument is out of its range.

    Example:
        >>> levels = np.zeros((4, 6)); levels[1, 2:4] = 5, 7
        >>> [(r.box, r.area, r.peak_at) for r in find_regions(levels, 1.0)]
        [((2, 1, 2, 1), 2, (3, 1))]
    """
    return find_regions_resized(
        anomaly_map,
        np.shape(anomaly_map),
        threshold,
        smallest=smallest,
        mm_per_pixel=mm_per_pixel,
        p_value=p_value,
        most=most,
    )


def find_regions_resized(
    anomaly_map: np.ndarray,
    size: tuple[int, ...],
    threshold: float,
    *,
    smallest: int = 1,
    mm_per_pixel: float | None = None,
    p_value: Callable[[float], float | None] | None = None,
    most: int = 100,
) -> tuple[Region, ...]:
    """Return `find_regions(resize_map(anomaly_map, size), threshold, ...)` without computing the
    whole resized map.

    The resized map is computed in bands of rows, and only where it can exceed the threshold. Memory
    is that of a band (about 50 MB), plus one byte for each pixel of one region's box at a time.

    Args:
        anomaly_map: real (h, w), finite.
        size: (H, W) of the resized map, to whose pixels the regions and all arguments refer.
        threshold, smallest, mm_per_pixel, p_value, most: as for `find_regions`.

    Raises:
        DataError, SettingsError: as `find_regions`.
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
    shape = size[0], size[1]
    regions = []
    for component in find_components(anomaly_map, shape, threshold, smallest, most):
        x, y = int(component["left"]), int(component["top"])
        peak_y, peak_x = divmod(int(component["peak_at"]), shape[1])
        area, peak = int(component["area"]), float(component["peak"])
        corners = _polygon(anomaly_map, shape, threshold, component)
        regions.append(
            Region(
                box=(x, y, int(component["right"]) - x, int(component["bottom"]) - y),
                polygon=tuple(zip(*corners.T.astype(float).tolist(), strict=True)),
                area=area,
                area_mm2=None if mm_per_pixel is None else area * mm_per_pixel**2,
                peak=peak,
                peak_at=(peak_x, peak_y),
                p_value=None if p_value is None else p_value(peak),
            )
        )
    return tuple(regions)


def _polygon(
    anomaly_map: np.ndarray, size: tuple[int, int], threshold: float, component: np.void
) -> np.ndarray:
    """Return the polygon around a component in coordinates of the resized map, int64 (N, 2)."""
    x, y = int(component["left"]), int(component["top"])
    first_y, first_x = divmod(int(component["first"]), size[1])
    mask = component_mask(anomaly_map, size, threshold, component)
    contour = outline(mask, (first_x - x, first_y - y))
    del mask  # up to a byte for each pixel of the image
    corners: np.ndarray = polygon(contour) + np.array([x, y])
    return corners


def peaks(anomaly_map: np.ndarray, most: int = 16, ignored: np.ndarray | None = None) -> np.ndarray:
    """Return the values of the local maxima of a map, highest first.

    A local maximum is an 8-connected plateau of equal values whose neighbours are all lower. Every
    region of map > t contains one, the plateau of its highest pixel, and regions are disjoint. So
    for any threshold t there are at most as many regions as peaks above t, and the number of these
    peaks never increases with t.

    Args:
        anomaly_map: real (H, W), finite where not ignored.
        most: length of the result, at least 1; the lowest peaks are left out.
        ignored: ignore mask, bool (H, W); its pixels count as lower than all others.

    Returns:
        float64 (most,), padded with -inf.

    Raises:
        DataError: as `find_regions`, or the mask has another shape or type.
        SettingsError: `most` is below 1.
    """
    if most < 1:
        raise SettingsError(f"at most {most} peaks; give at least 1")
    levels = _checked(anomaly_map, ignored)
    values = np.sort(plateaus(levels, ignored))[::-1][:most]
    return np.pad(values, (0, most - len(values)), constant_values=-np.inf)


def _checked(anomaly_map: np.ndarray, ignored: np.ndarray | None = None) -> np.ndarray:
    """Return the map as an array.

    Raises:
        DataError: the map or its ignore mask cannot be used.
    """
    anomaly_map = np.asarray(anomaly_map)
    if anomaly_map.ndim != 2 or not anomaly_map.size:
        shape = " x ".join(map(str, anomaly_map.shape)) or "a single number"
        raise DataError(f"anomaly map of shape {shape}; give one map of height x width")
    if anomaly_map.dtype.kind not in "fiu":
        raise DataError(f"anomaly map of type {anomaly_map.dtype}; give real numbers")
    usable = np.isfinite(anomaly_map)
    if ignored is not None:
        if ignored.shape != anomaly_map.shape or ignored.dtype != bool:
            raise DataError(
                f"mask of ignored pixels of type {ignored.dtype} and shape {ignored.shape}; "
                f"give bool of the map's shape {anomaly_map.shape}"
            )
        usable |= ignored
    if not usable.all():
        y, x = np.unravel_index(int(np.argmin(usable)), usable.shape)
        raise DataError(
            f"anomaly map is {anomaly_map[y, x]} at x {x}, y {y}; give a map of finite numbers"
        )
    return anomaly_map
