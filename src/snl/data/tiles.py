"""Cut large images into overlapping square tiles, and blend maps of tiles without seams.

A tile is a square of the upright image, `side` pixels wide. Neighbours overlap by at least a
quarter of a tile and are spread evenly, so that the last ones end at the edge of the image. If an
image is smaller than a tile, the tile is centred on it and padded by mirroring at the edges, so
that its scale is that of all other tiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from snl.data.roi import Readable
from snl.data.sizes import upright_size
from snl.errors import ImageError
from snl.limits import MAX_PIXELS

OVERLAP = 0.25
"""Smallest overlap of neighbouring tiles, as a fraction of their side."""


@dataclass(frozen=True, slots=True)
class Box:
    """A square of an image, in pixels; it may extend beyond the image (`top`, `left` below 0)."""

    top: int
    left: int
    side: int


@dataclass(frozen=True, slots=True)
class Tile:
    """A square of the upright image in a file, or of a region of interest in it."""

    path: Readable
    box: Box


Source: TypeAlias = str | Readable | Tile
"""The source of one network input: a whole image, a region of interest or a tile."""


def grid(size: tuple[int, int], side: int) -> list[Box]:
    """Return the tiles that cover an image, row by row.

    Args:
        size: (height, width) of the image, at least 1.
        side: side of a tile in pixels, at least 1.

    Raises:
        ValueError: a size or side below 1.

    >>> [(box.top, box.left) for box in grid((8, 14), 8)]
    [(0, 0), (0, 6)]
    """
    return [Box(top, left, side) for top in starts(size[0], side) for left in starts(size[1], side)]


def starts(length: int, side: int) -> list[int]:
    """Return the first pixel of each tile along one axis of `length` pixels.

    It is negative if the axis is shorter than a tile.

    Raises:
        ValueError: a length or side below 1.
    """
    if length < 1 or side < 1:
        raise ValueError(f"no tiles of {side} pixels on an axis of {length}; give 1 or more")
    if length <= side:
        return [-((side - length) // 2)]
    step = max(1, side - math.ceil(OVERLAP * side))
    last = math.ceil((length - side) / step)
    return [number * (length - side) // last for number in range(last + 1)]


def cut(image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Return the part of an image (H, W, 3) inside a box, (side, side, 3).

    Pixels outside the image are mirrored at its edge, with the edge pixel repeated
    (c b a | a b c | c b a).
    """
    height, width = image.shape[:2]
    bottom, right = box.top + box.side, box.left + box.side
    if min(box.top, box.left) >= 0 and bottom <= height and right <= width:
        return image[box.top : bottom, box.left : right]
    return image[np.ix_(_mirrored(box.top, bottom, height), _mirrored(box.left, right, width))]


def blend(length: int, side: int) -> dict[int, NDArray[np.float32]]:
    """Return the blending weights of the tiles along one axis, (side,), by their first pixel.

    The weights are a raised cosine, 0 at both ends of the tile, divided by the sum over all tiles:
    they sum to 1 at every pixel of the image and are 0 outside of it.
    """
    taper = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    total = np.zeros(length)
    inside = {
        start: slice(max(0, -start), min(side, length - start)) for start in starts(length, side)
    }
    for start, part in inside.items():
        total[start + part.start : start + part.stop] += taper[part]
    weights = {}
    for start, part in inside.items():
        row = np.zeros(side)
        row[part] = taper[part] / total[start + part.start : start + part.stop]
        weights[start] = row.astype(np.float32)
    return weights


class Mosaic:
    """The map of an image, blended from the maps of its tiles.

    Memory: the map and O(H + W) weights; the maps of the tiles are not kept.

    Args:
        size: (H, W) of the image.
        side: side of a tile in pixels, as for `grid`.
    """

    def __init__(self, size: tuple[int, int], side: int) -> None:
        self.map: NDArray[np.float32] = np.zeros(size, np.float32)
        """(H, W) float32; complete when every tile of the grid has been added once."""
        self._rows, self._columns = blend(size[0], side), blend(size[1], side)

    def add(self, box: Box, tile_map: NDArray[np.float32]) -> None:
        """Add the map of one box of the grid, (side, side) float32."""
        height, width = self.map.shape
        top, left = max(0, -box.top), max(0, -box.left)
        bottom, right = min(box.side, height - box.top), min(box.side, width - box.left)
        part = tile_map[top:bottom, left:right] * self._rows[box.top][top:bottom, None]
        part *= self._columns[box.left][left:right]
        self.map[box.top + top : box.top + bottom, box.left + left : box.left + right] += part


class Tiles(NamedTuple):
    """The result of `tiles_of`."""

    tiles: list[Tile]
    total: int
    """Number of tiles of all images, including those that were not selected."""
    errors: list[ImageError]
    """The errors of images with an unreadable header."""


def tiles_of(
    paths: Sequence[Readable],
    side: int,
    most: int | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Tiles:
    """Return the tiles of all images, in order. Only headers are read, no image is decoded.

    Args:
        paths: image files, or regions of interest in them.
        side: side of a tile in pixels.
        most: largest number of tiles; if there are more, this many are selected, evenly spread.
            None: no limit.
        max_pixels: largest allowed height times width of an image; others are errors.
    """
    grids: dict[tuple[int, int], list[Box]] = {}  # images of the same size share their boxes
    readable: list[tuple[Readable, list[Box]]] = []
    errors: list[ImageError] = []
    for path in paths:
        try:
            size = upright_size(path, max_pixels=max_pixels)
        except ImageError as error:
            errors.append(error)
            continue
        if size not in grids:
            grids[size] = grid(size, side)
        readable.append((path, grids[size]))
    total = sum(len(boxes) for _, boxes in readable)
    selected = _spread(total, most)
    tiles: list[Tile] = []
    first = 0
    for path, boxes in readable:
        low, high = np.searchsorted(selected, (first, first + len(boxes)))
        tiles += [Tile(path, boxes[i - first]) for i in selected[low:high].tolist()]
        first += len(boxes)
    return Tiles(tiles, total, errors)


def samples(
    paths: Sequence[Readable], side: int, most: int, *, max_pixels: int = MAX_PIXELS
) -> Sequence[Source]:
    """Return at most `most` images, evenly spread, or at most `most` of the tiles of such images.

    Args:
        paths: image files, or regions of interest in them.
        side: side of a tile in pixels; 0: whole images. With tiles, images with an unreadable
            header are skipped.
        most: largest number of images or tiles, at least 1.
        max_pixels: largest allowed height times width of an image; others have no tiles.
    """
    subset = paths[:: max(1, math.ceil(len(paths) / most))]
    return tiles_of(subset, side, most, max_pixels=max_pixels).tiles if side else subset


def _spread(total: int, most: int | None) -> NDArray[np.intp]:
    """Return at most `most` of the numbers 0..total-1, ascending and evenly spread.

    A constant step could select the same columns of every image (every second tile, for example).
    Therefore the numbers whose products with the golden ratio have the smallest fractional parts
    are selected.
    """
    if most is None or total <= most:
        return np.arange(total)
    fractions = np.arange(total) * ((math.sqrt(5) - 1) / 2) % 1.0
    return np.sort(np.argsort(fractions)[:most])


def _mirrored(first: int, last: int, length: int) -> NDArray[np.intp]:
    """Return the indices first..last-1 of an axis that is continued by mirroring at both ends."""
    index = np.arange(first, last) % (2 * length)
    return np.asarray(np.where(index < length, index, 2 * length - 1 - index), np.intp)
