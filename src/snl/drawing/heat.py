"""An anomaly map in colours over its image, and the colours of decisions."""

from __future__ import annotations

import numpy as np

# dark violet, magenta, orange, yellow: light grows with the value, also for the colour-blind
_ANCHORS = np.array([(60, 10, 110), (180, 30, 110), (240, 110, 40), (255, 225, 90)], dtype=float)
COLOURS = {
    "normal": (46, 160, 67),
    "uncertain": (191, 135, 0),
    "anomalous": (218, 54, 51),
    "unknown product": (130, 80, 223),
}
"""Of the decisions."""
INK, PAPER = (32, 33, 36), (255, 255, 255)
"""Of words and lines, and of what is behind them."""


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
