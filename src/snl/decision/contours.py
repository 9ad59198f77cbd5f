"""Outer contours: from a mask to the polygon around a connected set of its pixels.

Coordinates are those of pixel corners: the pixel in column x and row y is the square from (x, y) to
(x + 1, y + 1). The contour is the closed path along pixel edges that separates the set, with its
holes filled, from the outside. It is then simplified (Douglas and Peucker, Algorithms for the
reduction of the number of points required to represent a digitized line, 1973).

Why the polygon does not cross itself: at the finer tolerance every segment lies less than half a
pixel from the part of the contour that it replaces, and two parts without a common corner are at
least one pixel apart. Corners where the contour touches itself (two pixels connected by a corner
only) are kept together with their neighbours, so the polygon touches itself there in the same way.
For the coarser tolerance there is no such proof, so its result is checked.
"""

from __future__ import annotations

from array import array

import numpy as np

COARSE, FINE = 1.0, 0.49
"""Tolerances in pixels: the first for wide sets if its polygon is valid, otherwise the second."""
_WIDE = 5.0  # minimum mean width in pixels for the coarse tolerance
_AREA = 0.05  # maximum relative error of the area of a simplified polygon
_PAIRS = (
    2_000_000  # maximum number of pairs of segments compared (100 MB); beyond, the fine tolerance
)
_END = np.array([(1, 0), (1, 1), (0, 1), (0, 0)])  # of a pixel's upper, right, lower, left edge


def outline(mask: np.ndarray, start: tuple[int, int] | None = None) -> np.ndarray:
    """Return the outer contour of an 8-connected set of pixels along pixel edges, exact.

    Time and memory depend on the length of the contour, not on the area.

    Args:
        mask: bool (H + 2, W + 2): the pixels (H, W) with a border of False around them, which does
            not count in coordinates. Holes, and other sets of pixels, do not matter.
        start: (x, y) of the first pixel of the set, row by row; None: the first one of the mask.

    Returns:
        int64 (N, 2): corners (x, y), clockwise as seen, beginning at the top left one of `start`.
    """
    width = mask.shape[1]
    first = int(mask.argmax()) if start is None else (start[1] + 1) * width + start[0] + 1
    pixels = mask.reshape(-1).view(np.uint8).data
    ahead = (1, width, -1, -width)  # walking east, south, west, north, with the set on the right
    pixel, direction, turns = first, 0, array("q")
    while True:
        # Turn left where possible, so that pixels connected by a corner only stay together.
        following = pixel + ahead[direction]
        if pixels[following + ahead[direction - 1]]:
            turns.append(pixel * 4 + direction)
            pixel, direction = following + ahead[direction - 1], (direction - 1) % 4
        elif pixels[following]:
            pixel = following
        else:
            turns.append(pixel * 4 + direction)
            direction = (direction + 1) % 4
            if pixel == first and direction == 0:
                break
    pixel_of, direction_of = np.divmod(np.array(turns), 4)
    y, x = np.divmod(pixel_of, width)
    return np.roll(np.stack([x, y], axis=1) - 1 + _END[direction_of], 1, axis=0)


def polygon(contour: np.ndarray) -> np.ndarray:
    """Return the simplified contour of a connected set of pixels.

    Args:
        contour: the exact one, as `outline` returns it.

    Returns:
        int64 (N, 2), N >= 3: corners (x, y), clockwise as seen, closed implicitly, within one pixel
        of the exact contour; the area differs by at most 5 per cent. The polygon does not cross
        itself, but touches itself where pixels are connected by a corner only.
    """
    area = shoelace(contour)
    around = np.abs(contour - np.roll(contour, 1, axis=0)).sum()
    for tolerance in (COARSE, FINE) if 2 * area >= _WIDE * around else (FINE,):
        points = simplify(contour, tolerance)
        if len(points) < 3 or abs(shoelace(points) - area) > _AREA * area:
            continue
        if tolerance == FINE or not _meets_itself(points):
            return points
    return contour


def simplify(points: np.ndarray, tolerance: float) -> np.ndarray:
    """Simplify a closed line by the Douglas-Peucker algorithm, all parts of one depth at once.

    Args:
        points: int (N, 2), not negative, distinct except where the line touches itself; such points
            are kept.
        tolerance: maximum distance of an omitted point from the segment that replaces it.

    Returns:
        The remaining points (M, 2) in their order, including the first one.
    """
    keys = points[:, 1] * (int(points[:, 0].max()) + 1) + points[:, 0]
    _, kind, count = np.unique(keys, return_inverse=True, return_counts=True)
    keep = (count > 1)[kind.reshape(-1)]
    keep |= np.roll(keep, 1) | np.roll(keep, -1)
    keep[0] = True
    keep[np.argmax(((points - points[0]) ** 2).sum(1))] = True
    kept, left = np.flatnonzero(keep), np.flatnonzero(~keep)
    place = np.searchsorted(kept, left)
    a, b = kept[place - 1], kept[place % len(kept)]  # ends of the segment that replaces a point
    while len(left):
        away = _distance(points[left], points[a], points[b])
        begins = np.flatnonzero(np.diff(a, prepend=-1))
        sizes = np.diff(begins, append=len(left))
        farthest = np.maximum.reduceat(away, begins)
        part = np.repeat(np.arange(len(begins)), sizes)
        split = farthest > tolerance
        peak = np.flatnonzero(split[part] & (away == farthest[part]))
        peak = left[peak[np.unique(part[peak], return_index=True)[1]]]  # the first of each part
        keep[peak] = True
        active = split[part]
        left, a, b, middle = left[active], a[active], b[active], np.repeat(peak, sizes[split])
        a, b = np.where(left > middle, middle, a), np.where(left < middle, middle, b)
        active = left != middle
        left, a, b = left[active], a[active], b[active]
    result: np.ndarray = points[keep]
    return result


def shoelace(points: np.ndarray) -> float:
    """Return the area of a polygon (N, 2) that does not cross itself, in square pixels."""
    x, y = points[:, 0].astype(float), points[:, 1].astype(float)
    return float(abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2)


def _distance(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the distances of points to the segments a..b, each (N, 2); float64 (N,)."""
    along, offset = (b - a).astype(float), (points - a).astype(float)
    length = (along**2).sum(1)
    share = np.clip((along * offset).sum(1) / np.where(length > 0, length, 1), 0, 1)
    away: np.ndarray = np.sqrt(((offset - share[:, None] * along) ** 2).sum(1))
    return away


def _meets_itself(points: np.ndarray) -> bool:
    """Return whether segments of a closed polygon meet anywhere but in a common corner; also True
    if there are too many segments to check."""
    following = np.roll(points, -1, axis=0)
    ahead, back = following - points, np.roll(points, 1, axis=0) - points
    if ((_cross(ahead, back) == 0) & ((ahead * back).sum(1) > 0)).any():
        return True  # back along the same line
    low, high = np.minimum(points, following), np.maximum(points, following)
    order = np.argsort(low[:, 0], kind="stable")
    last = np.searchsorted(low[order, 0], high[order, 0], side="right")  # starts before it ends
    many = np.maximum(last - np.arange(len(order)) - 1, 0)
    if many.sum() > _PAIRS:
        return True
    left = np.repeat(np.arange(len(order)), many)
    right = left + 1 + np.arange(len(left)) - np.repeat(np.cumsum(many) - many, many)
    i, j = order[left], order[right]
    near = (low[i, 1] <= high[j, 1]) & (low[j, 1] <= high[i, 1])
    i, j = i[near], j[near]
    a, b, c, d = points[i], following[i], points[j], following[j]
    shared = np.zeros(len(i), bool)
    for corner in (a, b):
        for other in (c, d):
            shared |= (corner == other).all(1)
    apart = _cross(b - a, c - a) * _cross(b - a, d - a) > 0
    apart |= _cross(d - c, a - c) * _cross(d - c, b - c) > 0
    return bool((~shared & ~apart).any())


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cross products of int (N, 2) with (N, 2); the sign is the side."""
    result: np.ndarray = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return result
