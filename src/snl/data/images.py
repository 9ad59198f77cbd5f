"""Decode images of any format to arrays; every failure is an ImageError.

The rules are fixed and do not depend on the content of an image, so that images stay comparable:

* the orientation in EXIF is applied;
* transparent pixels (alpha, palette or key colour) are blended with black;
* 16-bit grey is scaled from 0..65535 to 0..255; 32-bit integer grey must be in the same range and
  is scaled likewise;
* floating-point grey must be in 0..1 and is scaled to 0..255;
* from an animation or a file with several pages, the first image is read.

No global setting of Pillow is changed, so all functions are thread-safe.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from snl.errors import ImageError

MAX_PIXELS = 160_000_000
"""Default limit of height times width; Pillow itself has a limit of 178,956,970."""

# Pillow opens dozens of formats, some of them with external programs; cameras use these.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")

ORIENTATION = 0x0112
"""EXIF tag."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(
    source: str | Path | BinaryIO | Image.Image | NDArray[Any], *, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Return an image as a contiguous array, (H, W, 3) uint8 RGB in [0, 255].

    Args:
        source: path, binary stream, PIL image, or array: (H, W, 3), (H, W, 1) or (H, W), uint8 or
            bool. A contiguous (H, W, 3) uint8 array is returned without copying it.
        max_pixels: largest allowed height times width, checked before decoding.

    Raises:
        ImageError: the image cannot be read; no other exception is raised.

    >>> load_image(np.zeros((2, 5), np.uint8)).shape
    (2, 5, 3)
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    image = open_image(source, max_pixels=max_pixels)
    return to_rgb(image, name_of(source))


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
        raise ImageError(_bad_array_message(image))
    if size < 1:
        raise ImageError(f"the input size is {size} pixels; give a size of 1 or more")
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(resized)


def open_image(
    source: str | Path | BinaryIO | Image.Image, *, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Return the decoded, upright image in the mode it is stored in (`L`, `RGB`, `I;16`, ...).

    Raises:
        ImageError: the image cannot be read; no other exception is raised.
    """
    with opened(source, max_pixels=max_pixels) as image:
        return _decode(image)


@contextmanager
def opened(
    source: str | Path | BinaryIO | Image.Image, *, max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """Open an image as a context manager: its header is read and its size checked, no more.

    Raises:
        ImageError: the header cannot be read, or anything in the `with` block fails; no other
            exception is raised.
    """
    name = name_of(source)
    try:
        if isinstance(source, Image.Image):
            _check_size(source, name, max_pixels)
            yield source
            return
        if not isinstance(source, str | Path) and not hasattr(source, "read"):
            raise ImageError(
                f"{name} is a {type(source).__name__}; give a path, a binary stream, a PIL image "
                "or an array"
            )
        with ExitStack() as stack:
            if isinstance(source, str | Path):
                source = stack.enter_context(_open_file(Path(source), name))
            image = stack.enter_context(Image.open(source, formats=_FORMATS))
            _check_size(image, name, max_pixels)
            yield image
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise almost any type of exception
        raise ImageError(_explain(error, name)) from error


def to_rgb(image: Image.Image, name: str = "the image given") -> NDArray[np.uint8]:
    """Return a decoded PIL image of any mode as a contiguous array, (H, W, 3) uint8 RGB.

    Args:
        image: the image.
        name: what messages call it.

    Raises:
        ImageError: values out of range, or a mode that cannot be converted.
    """
    try:
        if image.mode.startswith("I;16") or image.mode == "I":
            return _grey_to_rgb(_scale_integers(np.asarray(image), name))
        if image.mode == "F":
            return _grey_to_rgb(_scale_floats(np.asarray(image), name))
        if image.has_transparency_data:
            return _blend_with_black(np.asarray(image.convert("RGBA")))
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(
            f"{name} has the colour mode {image.mode}, which is not supported; save it as RGB"
        ) from error


def name_of(source: object) -> str:
    """Return the name of an image source for messages: its path in one line, or its kind."""
    if isinstance(source, np.ndarray):
        return "the array given"
    if isinstance(source, Image.Image):
        return one_line(getattr(source, "filename", "") or "the PIL image given")
    if isinstance(source, str | Path):
        return one_line(source) or "the empty path"
    name = getattr(source, "name", None)
    return one_line(name) if isinstance(name, str) and name else "the stream given"


def one_line(text: object) -> str:
    """Return text that any terminal shows in one line: no line breaks, no lone surrogates."""
    return " ".join(str(text).split()).encode("utf-8", "backslashreplace").decode("utf-8")


def _open_file(path: Path, name: str) -> BinaryIO:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(f"{name} does not exist; check the path") from error
    except PermissionError as error:
        raise ImageError(_permission_message(name)) from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{name} is a folder, not an image; give one file")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{name} is not a regular file; give an image file")
    if status.st_size == 0:
        raise ImageError(f"{name} is empty (0 bytes); copy it again or remove it")
    try:
        return path.open("rb")
    except PermissionError as error:
        raise ImageError(_permission_message(name)) from error


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height == 0:
        raise ImageError(f"{name} has no pixels ({width} x {height}); save it again")
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} pixels, more than the limit of {max_pixels}; "
            "make it smaller, or increase max_pixels"
        )


def _decode(image: Image.Image) -> Image.Image:
    _correct_bmp(image)
    image.load()
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # the pixels are usable although the EXIF data is damaged
        turn = None
    upright = image.copy() if turn is None else image.transpose(turn)
    upright.format = image.format
    return upright


def _correct_bmp(image: Image.Image) -> None:
    """Make Pillow decode 8 bits per pixel of a BMP with a palette of black and white.

    It takes such a file for one of 1 bit per pixel.
    """
    file = getattr(image, "fp", None)
    if image.format != "BMP" or image.mode != "1" or file is None:
        return
    position = file.tell()
    file.seek(28)
    bits = int.from_bytes(file.read(2), "little")
    file.seek(position)
    if bits == 8 and isinstance(image, ImageFile):
        image.tile = [
            tile._replace(args=("1;8", *tile.args[1:]))
            for tile in image.tile
            if isinstance(tile.args, tuple)
        ]


def _from_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    image = array
    if image.dtype == np.bool_:
        image = image.astype(np.uint8) * np.uint8(255)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ImageError(_bad_array_message(array))
    if 0 in image.shape:
        raise ImageError(f"the array given has no pixels (shape {array.shape})")
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def _scale_integers(values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(
            f"{name} has integers from {low} to {high}, outside 0..65535; save it with 8 or 16 bits"
        )
    return np.asarray((values.astype(np.uint32) + 128) // 257, np.uint8)


def _scale_floats(values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # written this way so that NaN fails, too
        raise ImageError(
            f"{name} has floating-point values from {low:g} to {high:g}, outside 0..1; scale "
            "them, or save it with 8 or 16 bits"
        )
    return np.asarray(np.rint(values * 255), np.uint8)


def _grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _blend_with_black(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    colour, alpha = rgba[:, :, :3].astype(np.uint16), rgba[:, :, 3:].astype(np.uint16)
    return np.asarray((colour * alpha + 127) // 255, np.uint8)


def _bad_array_message(array: NDArray[Any]) -> str:
    return (
        f"the array given has shape {array.shape} and dtype {array.dtype}; give H x W x 3 (RGB) "
        "or H x W (grey), uint8"
    )


def _permission_message(name: str) -> str:
    return f"{name} cannot be read (permission denied); change its permissions"


def _explain(error: Exception, name: str) -> str:
    if isinstance(error, UnidentifiedImageError):
        return (
            f"{name} is not an image or has a damaged header; give a JPEG, PNG, BMP, TIFF or WEBP"
        )
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"{name} has too many pixels to be decoded safely; make it smaller"
    if isinstance(error, MemoryError):
        return f"{name} does not fit in memory; make it smaller"
    reason = one_line(error) or type(error).__name__
    return f"{name} cannot be decoded ({reason}); copy or export it again"
