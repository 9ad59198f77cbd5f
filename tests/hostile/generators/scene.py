"""A test picture with more levels than any file format keeps, and its quantised versions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 40, 48


def scene(seed: int = 0, *, colour: bool = False) -> NDArray[np.float64]:
    """Return smooth values that reach 0 and 1: (H, W), or (H, W, 3)."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[:HEIGHT, :WIDTH] / max(HEIGHT, WIDTH)
    channels = []
    for _ in range(3 if colour else 1):
        a, b, c, d = rng.uniform(1, 6, 4)
        values = np.sin(a * xs + b) + np.cos(c * ys + d) + 0.1 * rng.random(xs.shape)
        channels.append((values - values.min()) / (values.max() - values.min()))
    return np.stack(channels, axis=2) if colour else channels[0]


def quantised(values: NDArray[np.float64], largest: int) -> NDArray[np.int64]:
    """Return values in 0..1 as integers in 0..largest."""
    return np.asarray(np.rint(values * largest), np.int64)


def as_rgb8(samples: NDArray[np.int64], largest: int) -> NDArray[np.uint8]:
    """Return what samples mean as 8-bit RGB, (H, W, 3): the reference for decoders."""
    eight = np.rint(np.clip(samples / largest, 0, 1) * 255).astype(np.uint8)
    return np.repeat(eight[:, :, None], 3, axis=2) if eight.ndim == 2 else eight
