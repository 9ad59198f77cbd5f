"""Anomaly maps and masks at other sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_BLOCK = 2**17  # pixels that are computed at once: 1 MB of float64, which stays in the cache


def resize_map(anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize one map by bilinear interpolation.

    Pixel areas are aligned, and an axis that shrinks is antialiased: the convention of Pillow's
    `BILINEAR`. Sums are float64, so no value leaves the range of the map and a flat map stays flat.

    Args:
        anomaly_map: real (h, w).
        size: (H, W).

    Returns:
        float32 (H, W); the map itself, whatever its dtype, if it already has that size.
    """
    return resize_rows(anomaly_map, size, 0, size[0])


def resize_rows(
    anomaly_map: np.ndarray, size: tuple[int, int], first: int, last: int
) -> np.ndarray:
    """Return `resize_map(anomaly_map, size)[first:last]`, identical in every bit, without
    computing the other rows."""
    return resize_window(anomaly_map, size, (first, last), (0, size[1]))


def resize_window(
    anomaly_map: np.ndarray, size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> np.ndarray:
    """Return a rectangle of the resized map, identical in every bit, without computing the rest.

    Args:
        anomaly_map: real (h, w).
        size: (H, W) of the whole resized map.
        rows: first row and the row after the last one, 0 <= first < last <= H.
        columns: the same of the columns, up to W.

    Returns:
        `resize_map(anomaly_map, size)[rows[0] : rows[1], columns[0] : columns[1]]`.
    """
    if anomaly_map.shape == tuple(size):
        return anomaly_map[slice(*rows), slice(*columns)]
    (start, stop), down = _weights(anomaly_map.shape[0], size[0], *rows)
    (left, right), across = _weights(anomaly_map.shape[1], size[1], *columns)
    source = np.asarray(anomaly_map[start:stop, left:right], np.float64)
    wide = np.ascontiguousarray((across @ source.T).T)  # (source rows, columns)
    result = np.empty((down.shape[0], across.shape[0]), np.float32)
    step = max(1, _BLOCK // across.shape[0])
    for row in range(0, len(result), step):
        result[row : row + step] = down[row : row + step] @ wide
    return result


def resize_mask(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Resize a mask (h, w) to `size` (H, W), nearest neighbour."""
    rows, columns = (
        np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(int)
        for old, new in zip(mask.shape, size, strict=True)
    )
    resized: np.ndarray = mask[np.ix_(rows, columns)]
    return resized


def _weights(old: int, new: int, first: int, last: int) -> tuple[tuple[int, int], csr_array]:
    """Return the weights with which the pixels of an axis make up its resized pixels.

    Args:
        old, new: length of the axis before and after.
        first, last: resized pixels first..last - 1 are wanted.

    Returns:
        The range start..stop - 1 of the pixels with a weight above 0, and the weights
        (last - first, stop - start); rows sum to 1, with at most two entries where the axis grows.
    """
    scale = old / new
    support = max(scale, 1.0)
    centre = (np.arange(first, last) + 0.5) * scale
    start = np.maximum((centre - support + 0.5).astype(int), 0)
    stop = np.minimum((centre + support + 0.5).astype(int), old)
    index = start[:, None] + np.arange(int((stop - start).max()))
    weights = np.maximum(1 - np.abs(index + 0.5 - centre[:, None]) / support, 0)
    weights[index >= stop[:, None]] = 0
    weights /= weights.sum(1, keepdims=True)
    rows, taps = np.nonzero(weights)
    index, weights = index[rows, taps], weights[rows, taps]
    low, high = int(index.min()), int(index.max()) + 1
    pointers = np.searchsorted(rows, np.arange(last - first + 1))
    from scipy.sparse import csr_array  # what only reads calibrations starts without it

    return (low, high), csr_array(
        (weights, index - low, pointers), shape=(last - first, high - low)
    )


def highest_pixel(
    anomaly_map: np.ndarray, size: tuple[int, int], band: int = 2**22
) -> tuple[int, int]:
    """Return (x, y) of the first maximum, row by row, of the map resized to `size`.

    The resized map is computed in bands of at most about `band` pixels.
    """
    rows = max(1, band // size[1])
    best, position = -np.inf, (0, 0)
    for first in range(0, size[0], rows):
        part = resize_rows(anomaly_map, size, first, min(first + rows, size[0]))
        index = int(part.argmax())
        if part.flat[index] > best:
            best, position = float(part.flat[index]), (index % size[1], first + index // size[1])
    return position
