"""Decode images of any format to arrays; every failure is an ImageError.

The rules are fixed and do not depend on the content of an image, so that images stay comparable
(docs/images.md):

* the orientation in EXIF is applied;
* samples of more than 8 bits are scaled by their white level to 0..255: by that which the file
  states, else by the one given, else by 65535; samples above it are clipped;
* floating-point grey must be in 0..1 and is scaled to 0..255;
* where white is stored as 0 (TIFF), samples are inverted;
* transparent pixels (alpha, palette or key colour) are blended with black, unless all pixels are
  transparent, which some programs write without meaning it;
* from an animation or a file with several pages, the first image is read.

No global setting of Pillow is changed, so all functions are thread-safe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from snl.data.bands import resize_array
from snl.data.source import name_of, one_line, open_image, opened
from snl.data.upright import bad_array_message, decoded
from snl.errors import ImageError
from snl.limits import MAX_PIXELS

__all__ = [
    "MAX_PIXELS",
    "load_image",
    "load_input",
    "name_of",
    "one_line",
    "open_image",
    "opened",
    "to_input",
]


def load_image(
    source: str | Path | BinaryIO | Image.Image | NDArray[Any],
    *,
    max_pixels: int = MAX_PIXELS,
    white_level: int = 0,
) -> NDArray[np.uint8]:
    """Return an image as a contiguous array, (H, W, 3) uint8 RGB in [0, 255].

    Args:
        source: path, binary stream, PIL image, or array: (H, W, 3), (H, W, 1) or (H, W), uint8,
            uint16 or bool. A contiguous (H, W, 3) uint8 array is returned without copying it.
        max_pixels: largest allowed height times width, checked before decoding.
        white_level: sample value that is white, 255 to 65535, for images of more than 8 bits per
            sample whose file does not state it; 0: 65535.

    Raises:
        ImageError: the image cannot be read; no other exception is raised.

    >>> load_image(np.zeros((2, 5), np.uint8)).shape
    (2, 5, 3)
    >>> int(load_image(np.full((1, 1), 4095, np.uint16), white_level=4095)[0, 0, 0])
    255
    """
    with decoded(source, max_pixels=max_pixels, white_level=white_level) as image:
        return image.array()


def load_input(
    source: Any, size: int, *, max_pixels: int = MAX_PIXELS, white_level: int = 0
) -> NDArray[np.uint8]:
    """Return `to_input(load_image(source), size)` without the whole image as an array.

    Raises:
        ImageError: the image cannot be read, or a size below 1.
    """
    if size < 1:
        raise ImageError(f"the input size is {size} pixels; give a size of 1 or more")
    with decoded(source, max_pixels=max_pixels, white_level=white_level) as image:
        return image.resized(size, size)


def to_input(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return an image resized to a network input, (size, size, 3) uint8.

    The whole image is resized, without cropping (bilinear, antialiased).

    Args:
        image: (H, W, 3) uint8.
        size: side of the input in pixels, at least 1.

    Raises:
        ImageError: an image of another shape or dtype, or a size below 1.

    >>> to_input(np.full((4, 8, 3), 7, np.uint8), 2).tolist()[0][0]
    [7, 7, 7]
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ImageError(bad_array_message(image))
    if size < 1:
        raise ImageError(f"the input size is {size} pixels; give a size of 1 or more")
    return np.asarray(resize_array(image, size, size), np.uint8)
