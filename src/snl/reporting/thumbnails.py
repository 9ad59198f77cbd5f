"""Thumbnails of images and masks for the report page."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

LONGEST = 144
"""Maximum length of a thumbnail's longer side in pixels."""
QUALITY = 70
"""WebP quality of thumbnails."""


def thumbnail(image: np.ndarray, longest: int = LONGEST) -> bytes:
    """Return a small WebP of an image with its aspect ratio; small images are not enlarged.

    Args:
        image: uint8 (H, W, 3) RGB.
        longest: maximum length of the longer side in pixels.
    """
    picture = Image.fromarray(image)
    size = _size(picture.height, picture.width, longest)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY, method=4)
    return file.getvalue()


def mask_thumbnail(mask: np.ndarray, longest: int = LONGEST) -> bytes:
    """Return a small 1-bit PNG of a mask, of the same size as the image's thumbnail.

    A pixel is set if any part of it is defective, so that thin defects stay visible.

    Args:
        mask: bool (H, W).
        longest: maximum length of the longer side in pixels.
    """
    coverage = Image.fromarray(np.asarray(mask, dtype=bool).astype(np.float32))
    size = _size(coverage.height, coverage.width, longest)
    coverage = coverage.resize(size, Image.Resampling.BOX)
    file = io.BytesIO()
    Image.fromarray(np.asarray(coverage) > 1e-6).convert("1").save(file, "PNG", optimize=True)
    return file.getvalue()


def _size(height: int, width: int, longest: int) -> tuple[int, int]:
    """Return (width, height) of a thumbnail in pixels."""
    factor = min(1.0, longest / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor))
