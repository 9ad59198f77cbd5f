"""Resize images that are too large to hold twice, in bands of rows.

Images of at most `WHOLE` pixels are resized by Pillow in one step. Larger ones are resized in two:
first every row, band by band, then every column. Pillow does the same inside, but it may begin with
the columns and rounds in between, so that some values differ by 1. Every way to resize an image
goes through this module, so all of them give the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WHOLE = 2**26
"""Most pixels of an image that is resized in one step: 8192 x 8192."""
BAND = 2**22
"""Pixels of a band: 12 MB as RGB, 17 MB as float32."""

Rows = Callable[[int, int], NDArray[Any]]
"""Rows `first` to `last - 1` of an image: uint8 (n, W, 3), uint8 (n, W) or float32 (n, W)."""


def is_small(size: tuple[int, int]) -> bool:
    """Return whether an image of (height, width) is resized in one step."""
    return size[0] * size[1] <= WHOLE


def bands(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the first row of each band of an image (height, width), and the row after its last."""
    height, width = size
    step = max(1, BAND // width)
    for first in range(0, height, step):
        yield first, min(first + step, height)


def resize(
    rows: Rows,
    size: tuple[int, int],
    width: int,
    height: int,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> NDArray[Any]:
    """Return an image resized by Pillow's filters.

    Memory for a large image: one band, and all rows at the new width.

    Args:
        rows: the image.
        size: (height, width) of the image.
        width, height: of the result.
        resample: Pillow's filter.
    """
    if is_small(size):
        whole = Image.fromarray(rows(0, size[0]))
        return np.array(whole.resize((width, height), resample))
    narrow: NDArray[Any] | None = None
    for first, last in bands(size):
        band = Image.fromarray(rows(first, last)).resize((width, last - first), resample)
        values = np.asarray(band)
        if narrow is None:
            narrow = np.empty((size[0], *values.shape[1:]), values.dtype)
        narrow[first:last] = values
    assert narrow is not None  # an image has rows
    return np.array(Image.fromarray(narrow).resize((width, height), resample))


def resize_array(
    array: NDArray[Any],
    width: int,
    height: int,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> NDArray[Any]:
    """Return `resize` of an array, (H, W, 3) uint8 or (H, W) uint8, float32 or bool.

    Pixels of a bool array are 0 or 1 as float32.
    """

    def rows(first: int, last: int) -> NDArray[Any]:
        part = array[first:last]
        return part.astype(np.float32) if part.dtype == np.bool_ else part

    return resize(rows, (array.shape[0], array.shape[1]), width, height, resample)
