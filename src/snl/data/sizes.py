"""Read the size of an image as it will be decoded, without decoding its pixels."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from PIL import Image

from snl.data.roi import Crop
from snl.data.source import ORIENTATION, TURNS, name_of, opened
from snl.limits import MAX_PIXELS

_SWAPS_AXES = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
"""Transpositions that exchange width and height."""
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
"""Tag numbers."""


def upright_size(path: str | Path | Crop, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return the (height, width) that `load_image` gives for a file, from its metadata.

    Only a PNG with its orientation stored after the pixel data is decoded.

    Args:
        path: image file, or a crop of one, whose size is that of its region of interest.
        max_pixels: largest allowed height times width.

    Raises:
        ImageError: the header cannot be read (no other exception is raised). A readable header
            does not mean that the pixels can be decoded.
    """
    if isinstance(path, Crop):
        (roi,) = path.rois
        size = upright_size(path.source, max_pixels=max_pixels)
        return size if roi is None else roi.window(size, name_of(path.source)).size
    with opened(path, max_pixels=max_pixels) as image:
        width, height = image.size
        if image.format == "TIFF":  # only some versions of Pillow exchange width and height here
            tags = image.tag_v2  # type: ignore[attr-defined]
            width, height = int(tags[_TIFF_WIDTH]), int(tags[_TIFF_HEIGHT])
        return (width, height) if _orientation(image) in _SWAPS_AXES else (height, width)


def _orientation(image: Image.Image) -> Image.Transpose | None:
    try:
        if image.format == "PNG":
            file = image.fp  # type: ignore[attr-defined]
            if not _has_late_metadata(file):
                # PngImageFile.getexif would decode the image to reach metadata after the pixels.
                return TURNS.get(Image.Image.getexif(image).get(ORIENTATION, 1))
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF is ignored, as in decoding
        return None


def _has_late_metadata(file: IO[bytes]) -> bool:
    """Return True if a PNG has EXIF or XMP after its pixel data; restores the file position."""
    before, position, after_pixels = file.tell(), 8, False
    try:
        while True:
            file.seek(position)
            head = file.read(32)
            kind, content = head[4:8], head[8:]
            if len(kind) < 4 or kind == b"IEND":
                return False
            is_metadata = content.startswith((b"XML:com.adobe.xmp", b"Raw profile type exif"))
            if after_pixels and (kind == b"eXIf" or is_metadata):
                return True
            after_pixels = after_pixels or kind == b"IDAT"
            position += 12 + int.from_bytes(head[:4], "big")
    finally:
        file.seek(before)
