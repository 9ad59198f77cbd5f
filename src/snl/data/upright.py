"""A decoded image, turned upright and converted to RGB without a second copy of full size.

Pillow holds the decoded file. Everything else is computed from it in bands of rows: the network's
input, a smaller picture, and the whole image only where it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from snl.data import bands
from snl.data.images import load_image, name_of, opened, to_input, to_rgb, turn_of
from snl.errors import ImageError
from snl.limits import MAX_PIXELS

_SWAPPING = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
_FROM_END = (
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
"""Turns whose first upright row is the last stored row or column."""
_MOST_NARROW = 2**30
"""Bytes of all rows at the new width, which resizing needs: an image may be very high."""


class Decoded(Protocol):
    """An upright image in RGB, of a file or an array.

    Attributes:
        size: (height, width).
        mode: Pillow's colour mode of the file.
    """

    size: tuple[int, int]
    mode: str

    def rows(self, first: int, last: int) -> NDArray[np.uint8]:
        """Return rows `first` to `last - 1`, (last - first, W, 3)."""

    def array(self) -> NDArray[np.uint8]:
        """Return the whole image, (H, W, 3)."""

    def resized(self, width: int, height: int) -> NDArray[np.uint8]:
        """Return the image resized by Pillow (bilinear, antialiased), (height, width, 3)."""


class Upright:
    """A decoded image, upright, in RGB.

    Args:
        image: decoded by Pillow, as it is stored; it must not change.
        turn: that makes it upright; None: it is upright.
        name: what messages call it.
    """

    def __init__(self, image: Image.Image, turn: Image.Transpose | None, name: str) -> None:
        self._image, self._turn, self._name = image, turn, name
        width, height = image.size
        self.size = (width, height) if turn in _SWAPPING else (height, width)
        """(height, width) of the upright image."""
        self.mode: str = image.mode
        """Pillow's colour mode of the file."""

    def rows(self, first: int, last: int) -> NDArray[np.uint8]:
        """Return rows `first` to `last - 1`, (last - first, W, 3) uint8.

        Raises:
            ImageError: values out of range, or a mode that cannot be converted.
        """
        image = self._image
        if last - first < self.size[0]:
            image = image.crop(self._stored(first, last))
        try:
            return to_rgb(image if self._turn is None else image.transpose(self._turn), self._name)
        except ImageError:
            to_rgb(self._image, self._name)  # its message names the range of the whole image
            raise

    def array(self) -> NDArray[np.uint8]:
        """Return the whole image, (H, W, 3) uint8."""
        parts = list(bands.bands(self.size))
        if len(parts) == 1:
            return self.rows(0, self.size[0])
        array = np.empty((*self.size, 3), np.uint8)
        for first, last in parts:
            array[first:last] = self.rows(first, last)
        return array

    def resized(self, width: int, height: int) -> NDArray[np.uint8]:
        """Return the image resized by Pillow (bilinear, antialiased), (height, width, 3) uint8.

        Raises:
            ImageError: as `rows`, or the image is too high and narrow to be resized.
        """
        if 4 * self.size[0] * width > max(_MOST_NARROW, 4 * self.size[0] * self.size[1]):
            raise ImageError(
                f"{self._name} has {self.size[1]} x {self.size[0]} pixels, which is too narrow to "
                f"be resized to a width of {width}; cut it into shorter images"
            )
        plain = self._turn is None and not self._image.has_transparency_data
        if plain and self._image.mode in ("RGB", "L"):
            picture = self._image.resize((width, height), Image.Resampling.BILINEAR)
            return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))
        return np.asarray(bands.resize(self.rows, self.size, width, height), np.uint8)

    def _stored(self, first: int, last: int) -> tuple[int, int, int, int]:
        """Return the box (left, top, right, bottom) of upright rows in the stored image."""
        if self._turn in _FROM_END:
            first, last = self.size[0] - last, self.size[0] - first
        width, height = self._image.size
        if self._turn in _SWAPPING:
            return first, 0, last, height
        return 0, first, width, last


class _Array:
    """An array that was given as an image, with the methods of `Upright`."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self._image = image
        self.size: tuple[int, int] = (image.shape[0], image.shape[1])
        self.mode = "RGB"

    def rows(self, first: int, last: int) -> NDArray[np.uint8]:
        return self._image[first:last]

    def array(self) -> NDArray[np.uint8]:
        return self._image

    def resized(self, width: int, height: int) -> NDArray[np.uint8]:
        if width == height:  # the network's input
            return to_input(self._image, width)
        return np.asarray(bands.resize_array(self._image, width, height), np.uint8)


@contextmanager
def decoded(
    source: Any,
    *,
    max_pixels: int = MAX_PIXELS,
    admit: Callable[[int, int], None] = lambda size, pixels: None,
) -> Iterator[Decoded]:
    """Decode an image for the `with` block; its memory is free afterwards.

    Args:
        source: what `load_image` accepts.
        max_pixels: largest allowed height times width.
        admit: called before a file is decoded, with the bytes that this takes and the number of
            pixels; it may wait.

    Raises:
        ImageError: the image cannot be read, or anything in the `with` block fails; no other
            exception is raised.
    """
    if isinstance(source, np.ndarray):
        yield _Array(load_image(source))
        return
    with opened(source, max_pixels=max_pixels) as image:
        if not isinstance(source, Image.Image):
            admit(_decoding_bytes(image), image.width * image.height)
        image.load()
        yield Upright(image, turn_of(image), name_of(source))


def load_input(source: Any, size: int, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return `to_input(load_image(source), size)` without the whole image as an array.

    Raises:
        ImageError: the image cannot be read, or a size below 1.
    """
    if size < 1:
        raise ImageError(f"the input size is {size} pixels; give a size of 1 or more")
    with decoded(source, max_pixels=max_pixels) as image:
        return image.resized(size, size)


def _decoding_bytes(image: Image.Image) -> int:
    """Return the memory that decoding an open image takes, estimated from its header."""
    each = 2 if image.mode.startswith("I;16") else 4
    if image.mode in ("1", "L", "P"):
        each = 1
    if image.format == "WEBP":
        each += 8  # the decoder's frame, and a copy of it
    elif image.info.get("progressive"):
        each += 6  # a JPEG's coefficients
    return image.width * image.height * each
