"""The size of the upright image in a file, from what stands before and behind its pixels."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from PIL import Image

from snl.data.images import MAX_PIXELS, ORIENTATION, TURNS, opened

_ACROSS = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
"""Turns that make height of width."""
_WIDTH, _HEIGHT = 256, 257


def upright_size(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) that `load_image` will give to the file's image, without decoding it.

    (Except for PNGs that say only behind their pixels how they are turned.)

    Raises:
        ImageError, and nothing else. That the header can be read does not say that the rest can.
    """
    with opened(path, max_pixels=max_pixels) as image:
        width, height = image.size
        if image.format == "TIFF":  # some versions of Pillow give the turned size here, some not
            tags = image.tag_v2  # type: ignore[attr-defined]
            width, height = int(tags[_WIDTH]), int(tags[_HEIGHT])
        return (width, height) if _turn(image) in _ACROSS else (height, width)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        if image.format == "PNG":
            file = image.fp  # type: ignore[attr-defined]
            if not _turned_behind(file):
                # the method of PNGs would decode the image to look behind its pixels
                return TURNS.get(Image.Image.getexif(image).get(ORIENTATION, 1))
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # as in decoding: damaged EXIF does not turn an image
        return None


def _turned_behind(file: IO[bytes]) -> bool:
    """Whether a PNG has EXIF or XMP behind its pixels; the file is left as it was."""
    before, position, behind = file.tell(), 8, False
    try:
        while True:
            file.seek(position)
            head = file.read(32)
            kind, text = head[4:8], head[8:]
            if len(kind) < 4 or kind == b"IEND":
                return False
            named = text.startswith((b"XML:com.adobe.xmp", b"Raw profile type exif"))
            if behind and (kind == b"eXIf" or named):
                return True
            behind = behind or kind == b"IDAT"
            position += 12 + int.from_bytes(head[:4], "big")
    finally:
        file.seek(before)
