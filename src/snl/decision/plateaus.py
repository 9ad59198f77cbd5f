"""The local maxima of a map, found in bands of rows: memory is that of a band and the maxima."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from snl.decision.components import NEIGHBOURS

_BAND = 2**21  # pixels of a band: 16 MB as float64, about 100 MB with all that is derived from it


def plateaus(levels: np.ndarray, ignored: np.ndarray | None = None) -> NDArray[np.float64]:
    """Return the values of all local maxima of a map, in no particular order.

    A local maximum is an 8-connected plateau of equal values whose neighbours are all lower.

    Args:
        levels: real (H, W), at least one pixel, finite where not ignored.
        ignored: bool (H, W): its pixels count as lower than all others; None: none is.
    """
    from scipy.ndimage import label  # see snl.decision.maps

    height, width = levels.shape
    step = max(1, _BAND // width)
    values: list[np.ndarray] = []  # of the pixels that no neighbour exceeds, by component
    touching: list[np.ndarray] = []  # whether the component touches a higher pixel
    pairs: list[np.ndarray] = []  # components that are one, on both sides of an edge
    count, edge = 0, np.zeros(width, np.int64)
    for first in range(0, height, step):
        last = min(first + step, height)
        band, top, at_higher = _tops(levels, ignored, first, last)
        labels, found = label(top, structure=NEIGHBOURS)
        value, touches = np.full(found + 1, -np.inf), np.zeros(found + 1, bool)
        value[labels[top]] = band[top]
        touches[labels[top & at_higher]] = True
        values.append(value[1:])
        touching.append(touches[1:])
        pairs.append(_pairs(edge, np.where(labels[0], labels[0] + count, 0)))
        edge = np.where(labels[-1], labels[-1] + count, 0).astype(np.int64)
        count += found
    joined, higher = np.concatenate(values), np.concatenate(touching)
    _join(np.concatenate(pairs, axis=1) - 1, joined, higher)
    return joined[~higher & (joined > -np.inf)]


def _tops(
    levels: np.ndarray, ignored: np.ndarray | None, first: int, last: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows first..last - 1 as float64 with -inf where ignored, where no neighbour is higher,
    and where one that is not such a pixel itself has the same value."""
    from scipy.ndimage import maximum_filter

    begin, end = max(0, first - 2), min(len(levels), last + 2)
    band = levels[begin:end].astype(np.float64)
    if ignored is not None:
        band[ignored[begin:end]] = -np.inf
    top = (band == maximum_filter(band, size=3, mode="nearest")) & (band > -np.inf)
    if begin:  # the neighbours of the outermost rows are not there
        top[0] = False
    if end < len(levels):
        top[-1] = False
    at_higher = maximum_filter(np.where(top, -np.inf, band), size=3, mode="nearest") == band
    own = slice(first - begin, last - begin)
    return band[own], top[own], at_higher[own]


def _pairs(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return the numbers (2, P) of components that touch over the edge of two bands.

    Args:
        above, below: (W,) the rows on both sides, each pixel the number of its component or 0.
    """
    padded = np.pad(above, 1)
    pairs = np.concatenate(
        [np.stack([padded[shift : shift + len(above)], below]) for shift in range(3)], axis=1
    )
    touching: np.ndarray = np.unique(pairs[:, (pairs > 0).all(0)], axis=1)
    return touching


def _join(pairs: np.ndarray, values: np.ndarray, touching: np.ndarray) -> None:
    """Join components in place: one of each group keeps its value, and touches if one of them does.

    Args:
        pairs: (2, P) indices of components that are one.
        values, touching: by component.
    """
    if not pairs.size:
        return
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components  # 50 ms, for few maps

    members, place = np.unique(pairs, return_inverse=True)
    i, j = place.reshape(2, -1)
    graph = coo_array((np.ones(len(i), bool), (i, j)), shape=(len(members),) * 2)
    number, group = connected_components(graph, directed=False)
    touches = np.zeros(number, bool)
    np.logical_or.at(touches, group, touching[members])
    touching[members] = touches[group]
    _, kept = np.unique(group, return_index=True)
    values[np.delete(members, kept)] = -np.inf
