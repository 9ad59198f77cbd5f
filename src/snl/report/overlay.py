"""Pictures a person can read: image, map over it, contour, score bar."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from snl.deployment.inspector import Inspection

LONGEST = 1024
"""Panels are shrunk to this many pixels on their longer side."""
SHORTEST = 256
"""... and small images enlarged so that the text fits."""

# dark violet, magenta, orange, yellow: light grows with the value, also for the colour-blind
_ANCHORS = np.array([(60, 10, 110), (180, 30, 110), (240, 110, 40), (255, 225, 90)], dtype=float)
_COLOURS = {"normal": (46, 160, 67), "anomalous": (218, 54, 51), "uncertain": (191, 135, 0)}
_INK, _PAPER, _RAIL = (32, 33, 36), (255, 255, 255), (225, 227, 230)


def colours(values: np.ndarray) -> np.ndarray:
    """Values in 0..1 (any shape) to uint8 RGB (..., 3)."""
    x = np.clip(values, 0, 1) * (len(_ANCHORS) - 1)
    i = np.minimum(x.astype(int), len(_ANCHORS) - 2)
    part = (x - i)[..., None]
    mixed: np.ndarray = np.round(_ANCHORS[i] * (1 - part) + _ANCHORS[i + 1] * part)
    return mixed.astype(np.uint8)


def heat(image: np.ndarray, anomaly_map: np.ndarray, map_range: tuple[float, float]) -> np.ndarray:
    """Blend a map over its image; where the map is below the range the image shows untouched.

    Args:
        image: uint8 (H, W, 3).
        anomaly_map: float (H, W).
        map_range: values at which the colours begin and end; the same for every image of a
            bundle, so that a normal image does not light up.

    Returns:
        uint8 (H, W, 3).
    """
    low, high = map_range
    level = np.clip((anomaly_map - low) / max(high - low, 1e-12), 0, 1)
    alpha = (0.75 * np.minimum(level * 3, 1))[..., None]
    return np.round(image * (1 - alpha) + colours(level) * alpha).astype(np.uint8)


def draw(inspection: Inspection) -> Image.Image:
    """Image and overlay side by side above a line with decision, score bar and numbers."""
    height, width = inspection.image.shape[:2]
    factor = min(LONGEST / max(height, width), max(1.0, SHORTEST / min(height, width)))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    image = Image.fromarray(inspection.image).resize(size, Image.Resampling.BILINEAR)
    levels = Image.fromarray(inspection.anomaly_map).resize(size, Image.Resampling.BILINEAR)
    pixels, anomaly_map = np.asarray(image), np.asarray(levels)
    over = heat(pixels, anomaly_map, inspection.map_range)
    if inspection.threshold is not None:
        over[_outline(anomaly_map > inspection.threshold)] = (255, 255, 255)
    gap, bar = 6, 44
    sheet = Image.new("RGB", (max(2 * size[0] + gap, 420), size[1] + bar), _PAPER)
    sheet.paste(image, (0, 0))
    sheet.paste(Image.fromarray(over), (size[0] + gap, 0))
    _caption(sheet, inspection, size[1], bar)
    return sheet


def _caption(sheet: Image.Image, inspection: Inspection, top: int, height: int) -> None:
    """Decision in its colour, a rail with score and threshold, the numbers in words."""
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    colour = _COLOURS[inspection.decision]
    pen.rectangle((0, top, 8, top + height), fill=colour)
    pen.text((16, top + 4), inspection.decision.upper(), fill=colour, font=font)
    limit = inspection.threshold
    words = f"score {inspection.score:.3f}"
    words += f", threshold {limit:.3f}" if limit is not None else ", no threshold"
    if inspection.product:
        words += f", {inspection.product}"
    pen.text((124, top + 4), words, fill=_INK, font=font)
    left, right, y = 16, sheet.width - 12, top + 32
    full = 2 * limit if limit else max(inspection.map_range[1], 1e-12)
    pen.rectangle((left, y - 4, right, y + 4), fill=_RAIL)
    reach = left + (right - left) * min(max(inspection.score / full, 0.0), 1.0)
    pen.rectangle((left, y - 4, reach, y + 4), fill=colour)
    if limit:
        middle = left + (right - left) * limit / full
        pen.line((middle, y - 8, middle, y + 8), fill=_INK, width=2)


def _outline(region: np.ndarray) -> np.ndarray:
    """Pixels of a region (H, W) that touch its outside, two pixels wide."""
    from scipy.ndimage import binary_erosion

    inner: np.ndarray = binary_erosion(region, iterations=2, border_value=1)
    outline: np.ndarray = region & ~inner
    return outline
