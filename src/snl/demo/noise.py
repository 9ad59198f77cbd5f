"""Random textures for the demo images: smooth noise, noise of many scales, and cells."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import fft

Array = NDArray[Any]


def noise(
    rng: Generator, size: int, along: float, across: float = 0.0, angle: float = 0.0
) -> Array:
    """Return smooth noise, (size, size), of mean 0 and unit standard deviation.

    Args:
        rng: random generator.
        size: side of the image in pixels.
        along: length scale in the direction `angle`; the image is 2 wide.
        across: length scale perpendicular to it; 0: as `along`.
        angle: direction in radians.
    """
    return _field(rng, size, _smooth_spectrum(size, along, across or along, angle))


def clouds(rng: Generator, size: int, scale: float, slope: float = 1.7) -> Array:
    """Return noise of all scales up to `scale`, of unit standard deviation: dirt, uneven paint."""
    return _field(rng, size, _cloud_spectrum(size, scale, slope))


def _field(rng: Generator, size: int, response: Array) -> Array:
    """Return noise with the amplitude spectrum `response`, (2 k + 1, l).

    The rows are the frequencies -k to k, the columns 0 to l - 1.
    """
    rows, columns = response.shape
    white = rng.standard_normal((2, rows, columns), np.float32)
    spectrum = np.zeros((size, columns), np.complex64)
    wave = (white[0] + 1j * white[1]) * response
    spectrum[: rows // 2 + 1] = wave[rows // 2 :]
    spectrum[size - rows // 2 :] = wave[: rows // 2]
    field: Array = fft.irfft(fft.ifft(spectrum, axis=0), n=size, axis=1)
    return field


@lru_cache(maxsize=64)
def _smooth_spectrum(size: int, along: float, across: float, angle: float) -> Array:
    c, s = math.cos(angle), math.sin(angle)
    fx, fy = _frequencies(
        size, math.hypot(c / along, s / across) * 1.06, math.hypot(s / along, c / across) * 1.06
    )
    square = (along * (c * fx + s * fy)) ** 2 + (across * (c * fy - s * fx)) ** 2
    return _normalised(np.exp(-8 * square), size)


@lru_cache(maxsize=32)
def _cloud_spectrum(size: int, scale: float, slope: float) -> Array:
    fx, fy = _frequencies(size, 24, 24)
    return _normalised((1 + (scale**2) * (fx**2 + fy**2)) ** (-slope / 2 - 0.3), size)


def _frequencies(size: int, max_x: float, max_y: float) -> tuple[Array, Array]:
    """Return the frequencies of the waves that fit in an image (2 wide), up to the given ones."""
    nx, ny = (min(size // 2 - 1, math.ceil(2 * limit)) for limit in (max_x, max_y))
    fx = np.arange(0, nx + 1, dtype=np.float32) / 2
    fy = np.arange(-ny, ny + 1, dtype=np.float32) / 2
    return fx[None, :], fy[:, None]


def _normalised(response: Array, size: int) -> Array:
    """Return the spectrum scaled to give fields of mean 0 and expected standard deviation 1."""
    response[response.shape[0] // 2, 0] = 0
    power = 4 * float((response[:, 1:] ** 2).sum()) + float((response[:, 0] ** 2).sum())
    scaled: Array = (response * (size**2 / math.sqrt(power))).astype(np.float32)
    return scaled


def cells(rng: Generator, u: Array, v: Array, pitch: float) -> tuple[Array, Array, Array]:
    """Return Worley noise: cells around one random point per grid square.

    Args:
        rng: random generator.
        u, v: coordinates, (N, N).
        pitch: side of a grid square.

    Returns:
        The distance to the nearest point, the distance to the second nearest minus that (0 at
        the border of a cell), and a random value of the cell in [0, 1].
    """
    i, j = u / pitch, v / pitch
    i0, j0 = np.floor(i).astype(np.intp), np.floor(j).astype(np.intp)
    low_i, low_j = int(i0.min()) - 1, int(j0.min()) - 1
    rows, columns = int(j0.max()) - low_j + 2, int(i0.max()) - low_i + 2
    points = rng.uniform(0.08, 0.92, (2, rows * columns)).astype(np.float32)
    values = rng.uniform(0, 1, rows * columns).astype(np.float32)
    first, second = np.full_like(u, 9), np.full_like(u, 9)
    value = np.zeros_like(u)
    fi, fj = (i - i0).astype(np.float32), (j - j0).astype(np.float32)
    base = (j0 - low_j) * columns + (i0 - low_i)
    for step_j in (-1, 0, 1):
        for step_i in (-1, 0, 1):
            at = base + (step_j * columns + step_i)
            dx, dy = points[0][at] + (step_i - fi), points[1][at] + (step_j - fj)
            d = dx * dx + dy * dy
            nearer = d < first
            second = np.minimum(second, np.maximum(first, d))
            first = np.minimum(first, d)
            value = np.where(nearer, values[at], value)
    return np.sqrt(first) * pitch, (np.sqrt(second) - np.sqrt(first)) * pitch, value
