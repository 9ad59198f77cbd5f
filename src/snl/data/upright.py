"""A decoded image, turned upright and converted to RGB without a second copy of full size.

Pillow holds the decoded file. Everything else is computed from it in bands of rows: the network's
input, a smaller picture, and the whole image only where it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from snl.data import bands
from snl.data.roi import Crop, Window
from snl.data.samples import Samples, samples_of
from snl.data.source import name_of, opened, turn_of
from snl.data.stored import Box, Stored, decode, of_array
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
        mode: Pillow's colour mode of the file; `;16` is appended to that of deep colour.
        samples: what the file says about them; None: an array, or a PIL image.
        highest: largest sample; None for 8-bit images.
        remarks: sentences without subject, about what the conversion to 8 bits could not keep.
    """

    size: tuple[int, int]
    mode: str
    samples: Samples | None
    highest: int | None
    remarks: tuple[str, ...]

    def rows(self, first: int, last: int) -> NDArray[np.uint8]:
        """Return rows `first` to `last - 1`, (last - first, W, 3)."""

    def array(self) -> NDArray[np.uint8]:
        """Return the whole image, (H, W, 3)."""

    def resized(self, width: int, height: int) -> NDArray[np.uint8]:
        """Return the image resized by Pillow (bilinear, antialiased), (height, width, 3)."""


class Upright:
    """A decoded image, upright, in RGB.

    Args:
        stored: the image as it is stored; it must not change.
        turn: that makes it upright; None: it is upright.
        name: what messages call it.
        from_file: whether its samples are those of a file.
    """

    def __init__(
        self, stored: Stored, turn: Image.Transpose | None, name: str, from_file: bool = True
    ) -> None:
        self._stored, self._turn, self._name = stored, turn, name
        width, height = stored.size
        self.size = (width, height) if turn in _SWAPPING else (height, width)
        """(height, width) of the upright image."""
        self.mode: str = stored.mode
        self.samples = stored.samples if from_file else None
        self.highest = stored.highest
        self.remarks = stored.remarks

    def rows(self, first: int, last: int) -> NDArray[np.uint8]:
        """Return rows `first` to `last - 1`, (last - first, W, 3) uint8.

        Raises:
            ImageError: a mode that cannot be converted.
        """
        return _turned(self._stored.rgb(self._box(first, last)), self._turn)

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
        _check_narrow(self.size, width, self._name)
        plain = self._stored.plain if self._turn is None else None
        if plain is None:
            return np.asarray(bands.resize(self.rows, self.size, width, height), np.uint8)
        if bands.is_small(self.size):
            picture = plain.resize((width, height), Image.Resampling.BILINEAR)
            return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))

        def rows(first: int, last: int) -> NDArray[np.uint8]:
            return np.asarray(plain.crop(self._box(first, last)))

        pixels = bands.resize(rows, self.size, width, height)
        return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)

    def _box(self, first: int, last: int) -> Box:
        """Return the box of upright rows in the stored image."""
        if self._turn in _FROM_END:
            first, last = self.size[0] - last, self.size[0] - first
        width, height = self._stored.size
        if self._turn in _SWAPPING:
            return first, 0, last, height
        return 0, first, width, last


class Cropped:
    """A rectangle of a decoded image, with the methods of `Upright`.

    Args:
        whole: the image.
        window: the rectangle, inside it.
        name: what messages call the image.
    """

    def __init__(self, whole: Decoded, window: Window, name: str) -> None:
        self._whole, self._window, self._name = whole, window, name
        self.size = window.size
        self.mode, self.samples = whole.mode, whole.samples
        self.highest, self.remarks = whole.highest, whole.remarks

    def rows(self, first: int, last: int) -> NDArray[np.uint8]:
        top, left, _, right = self._window
        return np.ascontiguousarray(self._whole.rows(top + first, top + last)[:, left:right])

    def array(self) -> NDArray[np.uint8]:
        return self.rows(0, self.size[0])

    def resized(self, width: int, height: int) -> NDArray[np.uint8]:
        _check_narrow(self.size, width, self._name)
        return np.asarray(bands.resize(self.rows, self.size, width, height), np.uint8)


class _Array:
    """An array that was given as an image, with the methods of `Upright`."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self._image = image
        self.size: tuple[int, int] = (image.shape[0], image.shape[1])
        self.mode = "RGB"
        self.samples: Samples | None = None
        self.highest: int | None = None
        self.remarks: tuple[str, ...] = ()

    def rows(self, first: int, last: int) -> NDArray[np.uint8]:
        return self._image[first:last]

    def array(self) -> NDArray[np.uint8]:
        return self._image

    def resized(self, width: int, height: int) -> NDArray[np.uint8]:
        _check_narrow(self.size, width, "the array given")
        return np.asarray(bands.resize_array(self._image, width, height), np.uint8)


@contextmanager
def decoded(
    source: Any,
    *,
    max_pixels: int = MAX_PIXELS,
    white_level: int = 0,
    admit: Callable[[int, int], None] = lambda size, pixels: None,
) -> Iterator[Decoded]:
    """Decode an image for the `with` block; its memory is free afterwards.

    Args:
        source: what `load_image` accepts, or a `Crop` of it with one region of interest.
        max_pixels: largest allowed height times width.
        white_level: sample value that is white, for images of more than 8 bits per sample whose
            file does not state it; 0: 65535.
        admit: called before a file is decoded, with the bytes that this takes and the number of
            pixels; it may wait.

    Raises:
        ImageError: the image cannot be read, or anything in the `with` block fails; no other
            exception is raised.
    """
    if isinstance(source, Crop):
        with decoded(
            source.source, max_pixels=max_pixels, white_level=white_level, admit=admit
        ) as whole:
            yield cropped(whole, source)
        return
    if isinstance(source, np.ndarray):
        yield _from_array(source, white_level)
        return
    given = isinstance(source, Image.Image)
    name = name_of(source)
    with opened(_unread(source) if given else source, max_pixels=max_pixels) as image:
        if not given:
            admit(_decoding_bytes(image), image.width * image.height)
        stored = decode(image, name, white_level)
        yield Upright(stored, turn_of(image), name, not given)


def cropped(whole: Decoded, crop: Crop) -> Decoded:
    """Return the region of interest of a decoded image.

    Raises:
        ImageError: the image has another shape than those that the region was drawn on.
    """
    (roi,) = crop.rois
    name = name_of(crop.source)
    return whole if roi is None else Cropped(whole, roi.window(whole.size, name), name)


def _from_array(array: NDArray[Any], white_level: int) -> Decoded:
    if 0 in array.shape and array.ndim in (2, 3):
        raise ImageError(f"the array given has no pixels (shape {array.shape})")
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))
    if not fits or array.dtype.newbyteorder("=") not in (np.bool_, np.uint8, np.uint16):
        raise ImageError(bad_array_message(array))
    if array.dtype.itemsize == 2:
        return Upright(of_array(array, white_level), None, "the array given", False)
    image = array.astype(np.uint8) * np.uint8(255) if array.dtype == np.bool_ else array
    image = image[:, :, None] if image.ndim == 2 else image
    return _Array(np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3))))


def bad_array_message(array: NDArray[Any]) -> str:
    """Return the message about an array that is no image."""
    return (
        f"the array given has shape {array.shape} and dtype {array.dtype}; give H x W x 3 (RGB) "
        "or H x W (grey), uint8 or uint16"
    )


def _unread(image: Image.Image) -> Any:
    """Return the file of a PIL image that is open and not decoded yet, or else the image.

    What Pillow drops as it decodes can still be read from the file.
    """
    if not isinstance(image, ImageFile.ImageFile) or not image.tile or image.fp is None:
        return image
    if image.format not in ("PNG", "TIFF", "PPM") or image.tell() != 0:
        return image
    if samples_of(image).bits == 8:
        return image
    file: Any = image.fp
    position = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(position)
    return BytesIO(content)


def _turned(pixels: NDArray[np.uint8], turn: Image.Transpose | None) -> NDArray[np.uint8]:
    """Return pixels turned as `Image.transpose` does it."""
    if turn is None:
        return pixels
    if turn in (Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE):
        pixels = pixels.transpose(1, 0, 2)
    if turn is Image.Transpose.FLIP_LEFT_RIGHT:
        pixels = pixels[:, ::-1]
    elif turn is Image.Transpose.FLIP_TOP_BOTTOM:
        pixels = pixels[::-1]
    elif turn in (Image.Transpose.ROTATE_180, Image.Transpose.TRANSVERSE):
        pixels = pixels[::-1, ::-1]
    elif turn in (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270):
        pixels = np.rot90(pixels, 1 if turn is Image.Transpose.ROTATE_90 else -1)
    return np.ascontiguousarray(pixels)


def _check_narrow(size: tuple[int, int], width: int, name: str) -> None:
    """Check that all rows of an image (height, width) at a new width fit in memory.

    Raises:
        ImageError: they do not.
    """
    if 4 * size[0] * width > max(_MOST_NARROW, 4 * size[0] * size[1]):
        raise ImageError(
            f"{name} has {size[1]} x {size[0]} pixels, which is too narrow to be resized to a "
            f"width of {width}; cut it into shorter images"
        )


def _decoding_bytes(image: Image.Image) -> int:
    """Return the memory that decoding an open image takes, estimated from its header."""
    each = 2 if image.mode.startswith("I;16") else 4
    if image.mode in ("1", "L", "P"):
        each = 1
    elif samples_of(image).bits > 8:
        each = 8 if image.mode in ("RGB", "RGBA") else each
    if image.format == "WEBP":
        each += 8  # the decoder's frame, and a copy of it
    elif image.info.get("progressive"):
        each += 6  # a JPEG's coefficients
    converted = image.mode not in ("RGB", "L") or "transparency" in image.info
    if (converted or "exif" in image.info) and bands.is_small((image.height, image.width)):
        each += 7  # it may be turned: the whole image in RGB as an array, and again for Pillow
    return image.width * image.height * each
