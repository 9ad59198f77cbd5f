"""Open an image file without Pillow's own limit of pixels, which is the same for the whole process.

Pillow refuses files of more than 178,956,970 pixels, and prints a warning from half of that on. The
limit is a global variable of Pillow. Changing it is not safe in a program with several threads, and
it would also change what the rest of the program reads; so its formats are tried here one by one,
as `PIL.Image.open` does, and the caller checks the size.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

from snl.errors import SettingsError

_PREFIX = 16  # bytes by which a format recognises its files, as in PIL.Image.open


def open_header(file: BinaryIO, formats: Sequence[str]) -> Image.Image:
    """Return an image of any size whose header has been read, but not its pixels.

    Args:
        file: the open file, which the image reads later; it must stay open until then.
        formats: names of Pillow's formats, in the order in which they are tried.

    Raises:
        UnidentifiedImageError: it is in none of the formats, or its header is damaged.
        Exception: what a format's own reader raises.
    """
    Image.preinit()
    file.seek(0)
    prefix = file.read(_PREFIX)
    for name in formats:
        if name not in Image.OPEN:
            Image.init()
        factory, accepts = Image.OPEN[name]
        accepted = accepts(prefix) if accepts else True
        if not accepted or isinstance(accepted, str):  # a text says why it cannot be read
            continue
        file.seek(0)
        try:
            image: ImageFile.ImageFile = factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
        return image
    raise UnidentifiedImageError("no format recognises it")


def check_max_pixels(value: int) -> None:
    """Check a limit of the pixels of an image.

    Raises:
        SettingsError: it is not a whole number of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SettingsError(f"max_pixels {value!r}: give a whole number of at least 1")


def load_pixels(image: Image.Image) -> None:
    """Decode an open image of any size; see `open_header`.

    Raises:
        Exception: what a format's own decoder raises.
    """
    # Pillow checks the size of a TIFF once more before it reserves the memory, unless it has.
    if image.format == "TIFF" and getattr(image, "_im", image) is None:
        image.im = Image.new(image.mode, getattr(image, "_tile_size", image.size), None).im
    image.load()
