"""Colours of decisions and of anomaly maps, and the blend of a map over its image."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

# dark violet, magenta, orange, yellow: lightness grows with the value, so that readers with
# colour-vision deficiency can tell the values apart too
_ANCHORS = np.array([(60, 10, 110), (180, 30, 110), (240, 110, 40), (255, 225, 90)], dtype=float)
COLOURS = {
    "normal": (46, 160, 67),
    "uncertain": (191, 135, 0),
    "anomalous": (218, 54, 51),
    "unknown product": (130, 80, 223),
}
"""RGB colour of each decision."""
INK, PAPER = (32, 33, 36), (255, 255, 255)
"""RGB colours of text and lines, and of the background."""
_STEPS = 1024
"""Levels of the map that have a colour of their own."""


def colours(values: np.ndarray) -> np.ndarray:
    """Return the RGB colours of values in [0, 1].

    Args:
        values: float array of any shape; clipped to [0, 1].

    Returns:
        uint8 (..., 3).
    """
    position = np.clip(values, 0, 1) * (len(_ANCHORS) - 1)
    lower = np.minimum(position.astype(int), len(_ANCHORS) - 2)
    weight = (position - lower)[..., None]
    mixed: np.ndarray = np.round(_ANCHORS[lower] * (1 - weight) + _ANCHORS[lower + 1] * weight)
    return mixed.astype(np.uint8)


def heat(image: np.ndarray, anomaly_map: np.ndarray, map_range: tuple[float, float]) -> np.ndarray:
    """Blend an anomaly map over its image; pixels below the range stay unchanged.

    Args:
        image: uint8 (H, W, 3) RGB.
        anomaly_map: float (H, W).
        map_range: map values of the first and the last colour. All images of a bundle share one
            range, so that a normal image shows no heat.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    low, high = map_range
    above = anomaly_map > low  # few pixels of most images, and only these are computed
    kept, added = _tables()
    level = np.clip((anomaly_map[above] - low) / max(high - low, 1e-12), 0, 1)
    step = np.rint(level * (_STEPS - 1)).astype(np.intp)
    blended = image.copy()
    blended[above] = np.rint(image[above] * kept[step] + added[step])
    return blended


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Return by level the share of the image, float32 (N, 1), and the colour, float32 (N, 3)."""
    level = np.linspace(0, 1, _STEPS)
    alpha = (0.75 * np.minimum(level * 3, 1))[:, None]
    return (1 - alpha).astype(np.float32), (colours(level) * alpha).astype(np.float32)
