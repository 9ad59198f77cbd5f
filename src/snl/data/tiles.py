"""Large images in square tiles that overlap, and maps of tiles put together without seams.

A tile is a square of the upright image, `side` pixels wide. Neighbours share at least a quarter of
a tile; they are spread evenly, so that the last ones end at the image's edge. Where an image is
smaller than a tile, the tile is centred on it and filled up by mirroring at the edges: its scale is
the same as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from snl.data.sizes import upright_size
from snl.errors import ImageError

OVERLAP = 0.25
"""Least share of a tile's side that it has in common with its neighbour."""


@dataclass(frozen=True, slots=True)
class Box:
    """A square of an image, in its pixels; parts of it may lie outside (`top`, `left` below 0)."""

    top: int
    left: int
    side: int


@dataclass(frozen=True, slots=True)
class Tile:
    """A square of the upright image in a file."""

    path: Path
    box: Box


Source: TypeAlias = str | Path | Tile
"""What is read as one input of the network: a whole image, or a tile of one."""


def grid(size: tuple[int, int], side: int) -> list[Box]:
    """The tiles that cover an image, row by row.

    Args:
        size: (height, width) of the image, at least 1.
        side: of a tile in pixels, at least 1.

    >>> [(box.top, box.left) for box in grid((8, 14), 8)]
    [(0, 0), (0, 6)]
    """
    return [Box(top, left, side) for top in starts(size[0], side) for left in starts(size[1], side)]


def starts(length: int, side: int) -> list[int]:
    """First pixels of the tiles along one axis of `length` pixels; below 0 if it is shorter than a
    tile."""
    if length < 1 or side < 1:
        raise ValueError(f"no tiles of {side} pixels on an axis of {length}")
    if length <= side:
        return [-((side - length) // 2)]
    step = max(1, side - math.ceil(OVERLAP * side))
    last = math.ceil((length - side) / step)
    return [number * (length - side) // last for number in range(last + 1)]


def cut(image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The box of an image (H, W, 3), as (side, side, 3); what lies outside is mirrored at the edge,
    the edge pixel repeated (c b a | a b c | c b a)."""
    height, width = image.shape[:2]
    bottom, right = box.top + box.side, box.left + box.side
    if min(box.top, box.left) >= 0 and bottom <= height and right <= width:
        return image[box.top : bottom, box.left : right]
    return image[np.ix_(_mirrored(box.top, bottom, height), _mirrored(box.left, right, width))]


def blend(length: int, side: int) -> dict[int, NDArray[np.float32]]:
    """Along one axis, each tile's weights (side,) by its first pixel.

    A raised cosine that vanishes at the tile's ends, over the sum of those of all tiles: at every
    pixel of the image the weights sum to 1, outside of it they are 0.
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
    """An image's map, put together tile by tile; holds the map and O(H + W) weights, no tiles.

    Args:
        size: (H, W) of the image.
        side: of a tile in pixels, as given to `grid`.
    """

    def __init__(self, size: tuple[int, int], side: int) -> None:
        self.map: NDArray[np.float32] = np.zeros(size, np.float32)
        """(H, W), complete when every tile of the grid was added once."""
        self._rows, self._columns = blend(size[0], side), blend(size[1], side)

    def add(self, box: Box, tile_map: NDArray[np.float32]) -> None:
        """Blend in the map (side, side) of one box of the grid."""
        height, width = self.map.shape
        top, left = max(0, -box.top), max(0, -box.left)
        bottom, right = min(box.side, height - box.top), min(box.side, width - box.left)
        part = tile_map[top:bottom, left:right] * self._rows[box.top][top:bottom, None]
        part *= self._columns[box.left][left:right]
        self.map[box.top + top : box.top + bottom, box.left + left : box.left + right] += part


class Tiles(NamedTuple):
    """What `tiles_of` finds."""

    tiles: list[Tile]
    total: int
    """Number of tiles of all images, whether they are among `tiles` or not."""
    errors: list[ImageError]
    """Of images whose header cannot be read."""


def tiles_of(paths: Sequence[Path], side: int, most: int | None = None) -> Tiles:
    """The tiles of all images, in order; none is decoded.

    Args:
        paths: image files.
        side: of a tile in pixels.
        most: of more tiles, this many evenly spread ones; None: all.
    """
    grids: dict[tuple[int, int], list[Box]] = {}  # images of one size share their boxes
    found: list[tuple[Path, list[Box]]] = []
    errors: list[ImageError] = []
    for path in paths:
        try:
            size = upright_size(path)
        except ImageError as error:
            errors.append(error)
            continue
        if size not in grids:
            grids[size] = grid(size, side)
        found.append((path, grids[size]))
    total = sum(len(boxes) for _, boxes in found)
    chosen = _spread(total, most)
    tiles: list[Tile] = []
    first = 0
    for path, boxes in found:
        low, high = np.searchsorted(chosen, (first, first + len(boxes)))
        tiles += [Tile(path, boxes[i - first]) for i in chosen[low:high].tolist()]
        first += len(boxes)
    return Tiles(tiles, total, errors)


def samples(paths: Sequence[Path], side: int, most: int) -> Sequence[Source]:
    """At most `most` of the images, evenly spread; if `side` is not 0, as many of their tiles, of
    which those of images whose header cannot be read are left out."""
    some = paths[:: max(1, math.ceil(len(paths) / most))]
    return tiles_of(some, side, most).tiles if side else some


def _spread(total: int, most: int | None) -> NDArray[np.intp]:
    """At most `most` of the numbers 0..total-1, ascending, evenly spread but in step with no grid.

    Every second tile would be the same columns of every image; these are the numbers whose products
    with the golden ratio have the smallest fractions.
    """
    if most is None or total <= most:
        return np.arange(total)
    fractions = np.arange(total) * ((math.sqrt(5) - 1) / 2) % 1.0
    return np.sort(np.argsort(fractions)[:most])


def _mirrored(first: int, last: int, length: int) -> NDArray[np.intp]:
    """Indices first..last-1 of an axis that goes on mirrored at both ends."""
    index = np.arange(first, last) % (2 * length)
    return np.asarray(np.where(index < length, index, 2 * length - 1 - index), np.intp)
