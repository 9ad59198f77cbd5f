"""Thumbnails of images, maps and masks for the report page."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from snl.drawing.heat import colours

SIDES = ((1000, 256), (3000, 192), (math.inf, 144))
"""Largest number of images of a page, and the longer side of its thumbnails in pixels: it bounds
the size of the page."""
LONGEST = 256
"""Maximum length of a thumbnail's longer side in pixels, unless the page has many images."""
DETAIL = 160
"""Side in pixels of the detail around the highest value of the map, at the picture's own scale."""
LAYER = 96
"""Maximum length of the longer side of a map's layer, which is smooth."""
QUALITY, DETAIL_QUALITY = 70, 80
"""WebP qualities."""
_METHOD = 2
"""Effort of WebP: 5 % larger files than with the usual 4, in less than half the time."""
MOST_PIXELS = 3 * 2**19
"""Pixels of a picture that details are cut from; larger images are reduced."""

Frame = tuple[float, float, float, float]
"""Left, top, width and height of a detail, as shares of the image."""


def thumbnail_side(count: float) -> int:
    """Return the longer side of the thumbnails of a page with this number of images.

    >>> thumbnail_side(600), thumbnail_side(5000)
    (256, 144)
    """
    return next(side for most, side in SIDES if count <= most)


def picture_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return (width, height) of the picture of an image (height, width): its own size, or
    `MOST_PIXELS`.

    >>> picture_size((1000, 1000)), picture_size((6000, 4000))
    ((1000, 1000), (1024, 1536))
    """
    height, width = size
    factor = min(1.0, math.sqrt(MOST_PIXELS / (height * width)))
    return max(1, round(width * factor)), max(1, round(height * factor))


def thumbnail(image: np.ndarray, longest: int = LONGEST) -> bytes:
    """Return a small WebP of an image with its aspect ratio; small images are not enlarged.

    Args:
        image: uint8 (H, W, 3) RGB.
        longest: maximum length of the longer side in pixels.
    """
    picture = Image.fromarray(image)
    size = fitted(picture.height, picture.width, longest)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    return _webp(picture, QUALITY)


def layer(anomaly_map: np.ndarray, map_range: tuple[float, float]) -> bytes:
    """Return a small WebP of a map with transparency, which the page lays over the image.

    Blended with the image it looks like `snl.drawing.heat.heat`: transparent below the range.

    Args:
        anomaly_map: float32 (H, W), in the aspect ratio of the image.
        map_range: map values of the first and the last colour.
    """
    low, high = map_range
    level = np.clip((anomaly_map - low) / max(high - low, 1e-12), 0, 1)
    alpha = np.round(255 * 0.75 * np.minimum(level * 3, 1)).astype(np.uint8)
    return _webp(Image.fromarray(np.dstack([colours(level), alpha])), QUALITY)


def detail(
    picture: np.ndarray, anomaly_map: np.ndarray, defect: np.ndarray | None = None
) -> tuple[bytes, Frame] | None:
    """Return the part of a picture around the highest value of its map, and where it is.

    It is not reduced, so that a defect of one pixel's width can be seen.

    Args:
        picture: uint8 (H, W, 3) RGB, the image at its own size or `MOST_PIXELS`.
        anomaly_map: float (h, w) of the whole image.
        defect: bool (h, w), the mask of its defect, if it is known: the highest value there is
            taken, so that the defect can be seen where it was missed, too.

    Returns:
        A WebP and its frame; None: the picture is hardly larger than its detail would be.
    """
    height, width = picture.shape[:2]
    if max(height, width) <= 1.2 * DETAIL:
        return None
    if defect is not None and defect.any():
        anomaly_map = np.where(defect, anomaly_map, -np.inf)
    row, column = np.unravel_index(int(np.argmax(anomaly_map)), anomaly_map.shape)
    left, wide = _around(int(column), anomaly_map.shape[1], width)
    top, high = _around(int(row), anomaly_map.shape[0], height)
    part = Image.fromarray(np.ascontiguousarray(picture[top : top + high, left : left + wide]))
    frame = (left / width, top / height, wide / width, high / height)
    return _webp(part, DETAIL_QUALITY), frame


def _around(cell: int, cells: int, length: int) -> tuple[int, int]:
    """Return first pixel and number of pixels of a detail along one axis, inside the picture."""
    size = min(DETAIL, length)
    centre = (cell + 0.5) / cells * length
    return int(min(max(0, round(centre - size / 2)), length - size)), size


def mask_thumbnail(mask: np.ndarray, longest: int = LONGEST) -> bytes:
    """Return a small 1-bit PNG of a mask, of the same size as the image's thumbnail.

    A pixel is set if any part of it is defective, so that thin defects stay visible.

    Args:
        mask: bool (H, W).
        longest: maximum length of the longer side in pixels.
    """
    coverage = Image.fromarray(np.asarray(mask, dtype=bool).astype(np.float32))
    size = fitted(coverage.height, coverage.width, longest)
    coverage = coverage.resize(size, Image.Resampling.BOX)
    file = io.BytesIO()
    Image.fromarray(np.asarray(coverage) > 1e-6).convert("1").save(file, "PNG", optimize=True)
    return file.getvalue()


def fitted(height: int, width: int, longest: int) -> tuple[int, int]:
    """Return (width, height) of an image whose longer side is at most `longest` pixels."""
    factor = min(1.0, longest / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _webp(picture: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=quality, method=_METHOD)
    return file.getvalue()
