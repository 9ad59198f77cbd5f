"""Maps outside of the network: their score, other sizes. numpy and Pillow."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from snl.settings import MapSettings


def score_of(anomaly_map: np.ndarray, settings: MapSettings) -> float:
    """Of one map (h, w): the maximum, or the mean of the largest `top_share` of the pixels, as
    `snl.model.anomaly.score`."""
    if settings.score == "max":
        return float(anomaly_map.max())
    count = max(1, math.ceil(settings.top_share * anomaly_map.size))
    return float(np.partition(anomaly_map, -count, axis=None)[-count:].mean(dtype=np.float64))


def resize_map(anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """One map (h, w) to `size` (H, W), bilinear, pixel areas aligned, antialiased where it
    shrinks."""
    if anomaly_map.shape == tuple(size):
        return anomaly_map
    image = Image.fromarray(np.asarray(anomaly_map, np.float32))
    return np.array(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def resize_mask(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A mask (h, w) to `size` (H, W), nearest neighbour."""
    rows, columns = (
        np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(int)
        for old, new in zip(mask.shape, size, strict=True)
    )
    found: np.ndarray = mask[np.ix_(rows, columns)]
    return found
