"""Connected components of a resized map above a threshold, without computing the whole map.

The resized map is computed in bands of rows. Components of a band that reach its last row stay
open: those of the next band may continue them. All others are complete, and only the wanted ones
are kept, so that memory does not grow with the number of components.

A resized pixel is a weighted mean of pixels of the map, so it exceeds the threshold only where one
of them does. Rows and columns where none does are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from snl.decision.maps import resize_map, resize_window

NEIGHBOURS = np.ones((3, 3), bool)  # pixels that touch at a corner are connected

COMPONENT = np.dtype(
    [
        ("area", np.int64),  # pixels
        ("peak", np.float64),  # highest value
        ("peak_at", np.int64),  # first pixel with that value: y * W + x
        ("first", np.int64),  # first pixel, row by row
        ("left", np.int64),  # first column, first row, and the ones after the last
        ("top", np.int64),
        ("right", np.int64),
        ("bottom", np.int64),
    ]
)
_BAND = 2**20  # pixels of a band: 4 MB as float32, about 40 MB with all that is derived from it


def find_components(
    anomaly_map: np.ndarray, size: tuple[int, int], threshold: float, smallest: int, most: int
) -> np.ndarray:
    """Return the 8-connected components of `resize_map(anomaly_map, size) > threshold`.

    Args:
        anomaly_map: real (h, w), finite.
        size: (H, W) of the resized map.
        threshold: may be infinite.
        smallest: components of fewer pixels are left out.
        most: maximum number of components; those with the lowest peaks are left out.

    Returns:
        COMPONENT (N,), highest peak first, equal peaks in the order of their first pixels.
    """
    rows, columns = (_active(anomaly_map, size, threshold, axis) for axis in (0, 1))
    complete = still_open = np.empty(0, COMPONENT)
    if not len(rows):
        return complete
    left, right = int(columns[0]), int(columns[-1]) + 1
    edge = np.zeros(
        right - left, np.int64
    )  # last row of the band before: index in `still_open` + 1
    end = 0
    for top, bottom in _bands(rows, max(1, _BAND // (right - left))):
        if top > end:
            complete = _select(np.concatenate([complete, still_open]), smallest, most)
            still_open = still_open[:0]
            edge[:] = 0
        values = resize_window(anomaly_map, size, (top, bottom), (left, right))
        parts, first_row, last_row = _label(values, threshold, smallest, most)
        for name, offset in (("left", left), ("right", left), ("top", top), ("bottom", top)):
            parts[name] += offset
        for name in ("first", "peak_at"):
            y, x = np.divmod(parts[name], right - left)
            parts[name] = (y + top) * size[1] + x + left
        group = _connect(edge, first_row, len(still_open), len(parts))
        merged = _merge(np.concatenate([still_open, parts]), group)
        touching = np.flatnonzero(last_row)
        open_groups, place = np.unique(
            group[len(still_open) + last_row[touching] - 1], return_inverse=True
        )
        edge[:] = 0
        edge[touching] = place.reshape(-1) + 1
        still_open = merged[open_groups]
        closed = np.delete(merged, open_groups)
        complete = _select(np.concatenate([complete, closed]), smallest, most)
        end = bottom
    return _select(np.concatenate([complete, still_open]), smallest, most)


def component_mask(
    anomaly_map: np.ndarray, size: tuple[int, int], threshold: float, component: np.void
) -> np.ndarray:
    """Return the pixels above the threshold in the box of a component, other components included:
    bool, with a border of False one pixel wide."""
    top, bottom = int(component["top"]), int(component["bottom"])
    columns = int(component["left"]), int(component["right"])
    mask = np.zeros((bottom - top + 2, columns[1] - columns[0] + 2), bool)
    step = max(1, _BAND // mask.shape[1])
    for row in range(top, bottom, step):
        stop = min(row + step, bottom)
        values = resize_window(anomaly_map, size, (row, stop), columns)
        mask[row - top + 1 : stop - top + 1, 1:-1] = values > threshold
    return mask


def _active(
    anomaly_map: np.ndarray, size: tuple[int, int], threshold: float, axis: int
) -> NDArray[np.intp]:
    """Return the rows (axis 0) or columns (axis 1) of the resized map that can exceed the
    threshold: those with a weight above 0 for a pixel that does."""
    highest = anomaly_map.max(1 - axis)
    if anomaly_map.shape != size:
        highest = highest.astype(np.float32)  # as the values that are compared later
    active = (highest > threshold).astype(np.float32)
    return np.flatnonzero(resize_map(active[:, None], (size[axis], 1)))


def _bands(rows: NDArray[np.intp], height: int) -> Iterator[tuple[int, int]]:
    """Divide runs of consecutive rows into bands (first row, row after the last)."""
    starts = np.flatnonzero(np.diff(rows, prepend=-2) > 1)
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        top, bottom = int(rows[start]), int(rows[stop - 1]) + 1
        for row in range(top, bottom, height):
            yield row, min(row + height, bottom)


def _label(
    values: np.ndarray, threshold: float, smallest: int, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the components of one band.

    Returns:
        COMPONENT (n,): those that touch the first or last row, and the wanted ones of the others;
        the first and the last row, each pixel the number of its component from 1 up, or 0.
    """
    from scipy.ndimage import find_objects, label  # see snl.decision.maps

    labels, count = label(values > threshold, structure=NEIGHBOURS)
    pixels = np.flatnonzero(labels)
    number, above = labels.ravel()[pixels] - 1, values.ravel()[pixels]
    components = np.zeros(count, COMPONENT)
    components["area"] = np.bincount(number, minlength=count)
    # of assignments to one element the last one holds
    components["first"][number[::-1]] = pixels[::-1]
    peak = above[np.searchsorted(pixels, components["first"])]
    np.maximum.at(peak, number, above)
    highest = np.flatnonzero(above == peak[number])[::-1]
    components["peak_at"][number[highest]] = pixels[highest]
    components["peak"] = peak
    del pixels, number, above

    touching = np.zeros(count + 1, bool)
    touching[labels[0]] = touching[labels[-1]] = True
    inner = np.flatnonzero(~touching[1:] & (components["area"] >= smallest))
    inner = inner[np.argsort(-components["peak"][inner], kind="stable")[:most]]
    chosen = np.union1d(np.flatnonzero(touching[1:]), inner)
    rank = np.zeros(count + 1, np.int32)
    rank[chosen + 1] = np.arange(1, len(chosen) + 1)
    labels = rank[labels]
    components = components[chosen]
    boxes = [(c.start, r.start, c.stop, r.stop) for r, c in find_objects(labels, len(chosen))]
    names = ("left", "top", "right", "bottom")
    for name, side in zip(names, np.array(boxes, np.int64).reshape(-1, 4).T, strict=True):
        components[name] = side
    return components, labels[0], labels[-1]


def _connect(edge: np.ndarray, first_row: np.ndarray, above: int, below: int) -> np.ndarray:
    """Number the components joined over the edge of two bands.

    Args:
        edge, first_row: (W,) the rows on both sides, each pixel the number of its component or 0.
        above, below: number of components on both sides.

    Returns:
        int (above + below,): the group of every component, from 0 up without gaps.
    """
    if not above:
        return np.arange(below)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components  # 50 ms, for few maps

    padded = np.pad(edge, 1)
    pairs = np.concatenate(
        [np.stack([padded[shift : shift + len(edge)], first_row]) for shift in range(3)], axis=1
    )
    pairs = pairs[:, (pairs > 0).all(0)]
    i, j = pairs[0] - 1, pairs[1] - 1 + above
    graph = coo_array((np.ones(len(i), bool), (i, j)), shape=(above + below,) * 2)
    group: np.ndarray = connected_components(graph, directed=False)[1]
    return group


def _merge(parts: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return COMPONENT (G,), each made of the parts of one group."""
    order = np.lexsort((parts["peak_at"], -parts["peak"], group))
    parts, starts = parts[order], np.flatnonzero(np.diff(group[order], prepend=-1))
    merged = parts[starts]  # the part with the highest peak, the first such pixel
    if len(starts):
        merged["area"] = np.add.reduceat(parts["area"], starts)
        for name in ("first", "left", "top"):
            merged[name] = np.minimum.reduceat(parts[name], starts)
        for name in ("right", "bottom"):
            merged[name] = np.maximum.reduceat(parts[name], starts)
    return merged


def _select(components: np.ndarray, smallest: int, most: int) -> np.ndarray:
    """Return the wanted components, highest peak first."""
    components = components[components["area"] >= smallest]
    return components[np.lexsort((components["first"], -components["peak"]))[:most]]
