"""Open image sources with Pillow: files, streams, PIL images; every failure is an ImageError."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO, UnsupportedOperation
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from snl.data import tiff
from snl.data.formats import (
    SUPPORTED_SIGNATURES,
    format_of_content,
    is_camera_raw,
    unsupported_format,
    unsupported_message,
)
from snl.data.opening import load_pixels, open_header
from snl.data.quiet import without_warnings
from snl.errors import ImageError
from snl.limits import MAX_PIXELS

# Pillow opens dozens of formats, some of them with external programs; cameras use these.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")

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
    with without_warnings(), _image_errors(name):
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
            image = stack.enter_context(_open_header(_seekable(source), name))
            _check_size(image, name, max_pixels)
            _correct_bmp(image)
            yield image


@contextmanager
def _image_errors(name: str) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise almost any type of exception
        raise ImageError(_explain(error, name)) from error


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


def _open_header(file: BinaryIO, name: str) -> Image.Image:
    """Return an image whose header has been read.

    Raises:
        ImageError: a format that is not supported.
        Exception: a damaged header.
    """
    start = file.read(1024)
    if (unsupported := format_of_content(start)) or (
        start.startswith((b"II", b"MM")) and (is_camera_raw(name) or tiff.is_camera_raw(file))
    ):
        unsupported = unsupported or "camera raw image"
        raise ImageError(unsupported_message(name, unsupported))
    try:
        image = open_header(file, FORMATS)
    except UnidentifiedImageError:
        kind = next((k for s, k in SUPPORTED_SIGNATURES if start.startswith(s)), None)
        if kind == "TIFF":
            return tiff.open_unusual(file, name)
        if kind is None and (unsupported := unsupported_format(name)):
            raise ImageError(unsupported_message(name, unsupported)) from None
        raise
    if image.format == "TIFF":
        tiff.prepare(image, name)
    return image


def _seekable(source: BinaryIO) -> BinaryIO:
    """Return a stream, or its content where it cannot be read twice."""
    try:
        source.seek(0)
    except (AttributeError, UnsupportedOperation):  # a pipe
        return BytesIO(source.read())
    return source


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height == 0:
        raise ImageError(f"{name} has no pixels ({width} x {height}); save it again")
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} pixels, more than the limit of {max_pixels}; "
            f"allow it with --max-pixels {width * height} (max_pixels in Python), or make it "
            "smaller"
        )


def _correct_bmp(image: Image.Image) -> None:
    """Make Pillow decode 8 bits per pixel of a BMP with a palette of black and white.

    It takes such a file for one of 1 bit per pixel, and all pixels would be black.
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


def _decode(image: Image.Image) -> Image.Image:
    load_pixels(image)
    turn = turn_of(image)
    upright = image.copy() if turn is None else image.transpose(turn)
    upright.format = image.format
    return upright


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return the turn that makes a decoded image upright, by its EXIF data; None: it is upright."""
    try:
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # the pixels are usable although the EXIF data is damaged
        return None


def _permission_message(name: str) -> str:
    return f"{name} cannot be read (permission denied); change its permissions"


def _explain(error: Exception, name: str) -> str:
    if isinstance(error, UnidentifiedImageError):
        return (
            f"{name} is not an image or has a damaged header; give a JPEG, PNG, BMP, TIFF or WEBP"
        )
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return (
            f"{name} has more pixels than Pillow decodes of its format; save it as PNG, or make it "
            "smaller"
        )
    if isinstance(error, MemoryError):
        return f"{name} does not fit in memory; make it smaller"
    reason = one_line(error) or type(error).__name__
    if "unsupported" in reason.lower() or "not supported" in reason.lower():
        return f"{name} is of a kind that is not supported ({reason}); save it as PNG or TIFF"
    return f"{name} cannot be decoded ({reason}); copy or export it again"
