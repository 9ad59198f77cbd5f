"""Random grey textures for canvases: noise, cells, waves, fractals, gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SIDE = 512
"""Side of textures and canvases in pixels."""

Field = NDArray[np.float32]
"""(H, W), about 0..1."""
Rng = np.random.Generator


def texture(rng: Rng) -> Field:
    """Return a random texture, distorted in a third of the cases."""
    makers: list[Callable[[Rng], Field]] = [noise, cells, waves, ifs, julia, gradient]
    field = makers[rng.choice(len(makers), p=[0.3, 0.2, 0.2, 0.12, 0.08, 0.1])](rng)
    if rng.random() < 0.3:
        shift = [noise(rng, 3.2) * rng.uniform(10, 120) for _ in range(2)]
        grid = np.indices(field.shape, dtype=np.float32)
        field = ndimage.map_coordinates(
            field, [g + s for g, s in zip(grid, shift, strict=True)], order=1, mode="mirror"
        )
    return field


def noise(rng: Rng, power: float | None = None) -> Field:
    """Return noise with the spectrum 1 / f^power, in some cases stretched or band-limited.

    `power` None: random, 0.4 to 3.2.
    """
    power = rng.uniform(0.4, 3.2) if power is None else power
    y, x = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE), indexing="ij")
    angle, stretch = rng.uniform(0, np.pi), 10 ** rng.uniform(0, 1.3) if rng.random() < 0.4 else 1
    u = x * np.cos(angle) + y * np.sin(angle)
    v = (y * np.cos(angle) - x * np.sin(angle)) * stretch
    f = np.hypot(u, v) + 1 / SIDE
    gain = f ** (-power)
    if rng.random() < 0.25:
        band = 10 ** rng.uniform(-2, -0.5)
        gain = np.exp(-(((f - band) / (band * rng.uniform(0.1, 0.6))) ** 2))
    white = rng.normal(size=f.shape) + 1j * rng.normal(size=f.shape)
    return _unit(np.fft.irfft2(white * gain, (SIDE, SIDE)))


def cells(rng: Rng) -> Field:
    """Return Voronoi cells of random or grid points: distances, flat values, or borders."""
    count = int(10 ** rng.uniform(1, 3.3))
    points = rng.integers(0, SIDE, (count, 2))
    if rng.random() < 0.4:
        step = max(int(SIDE / np.sqrt(count)), 6)
        grid = np.stack(np.meshgrid(*[np.arange(0, SIDE, step)] * 2), -1).reshape(-1, 2)
        jitter = step * rng.uniform(0, 0.4)
        points = np.clip(grid + rng.normal(0, jitter, grid.shape), 0, SIDE - 1).astype(int)
    seeds = np.ones((SIDE, SIDE), dtype=bool)
    seeds[points[:, 0], points[:, 1]] = False
    distance, nearest = ndimage.distance_transform_edt(seeds, return_indices=True)
    kind = rng.integers(3)
    if kind == 0:
        return _unit(distance)
    values: Field = rng.random((SIDE, SIDE)).astype(np.float32)[nearest[0], nearest[1]]
    if kind == 1:
        return values
    border = (np.abs(ndimage.laplace(values)) > 1e-6).astype(np.float32)
    return _unit(ndimage.gaussian_filter(border, rng.uniform(0.5, 4)))


def waves(rng: Rng) -> Field:
    """Return one grating or up to three crossed ones: stripes, checks, weaves, knurls."""
    y, x = np.indices((SIDE, SIDE), dtype=np.float32)
    total = np.zeros((SIDE, SIDE), dtype=np.float32)
    turn = rng.uniform(0, np.pi)
    for number in range(rng.integers(1, 4)):
        angle = turn + number * rng.choice([np.pi / 2, np.pi / 3, rng.uniform(0, np.pi)])
        period = 10 ** rng.uniform(0.7, 2.2)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period)
        sharp = rng.uniform(0.5, 12)
        total += np.tanh(wave * sharp) if rng.random() < 0.6 else np.abs(wave)
    return _unit(total)


def ifs(rng: Rng) -> Field:
    """Return the log density of a random iterated function system, drawn by the chaos game."""
    maps = random_ifs(rng)
    x, y = chaos_game(rng, maps, 6000, 40)
    return draw_points(x, y, SIDE)


def random_ifs(rng: Rng) -> NDArray[np.float64]:
    """Return two to six contracting affine maps, (K, 2, 3)."""
    count = rng.integers(2, 7)
    maps = rng.uniform(-1, 1, (count, 2, 3))
    for m in maps:  # the larger singular value becomes 0.3..0.85, so that every map contracts
        m[:, :2] *= rng.uniform(0.3, 0.85) / np.linalg.svd(m[:, :2], compute_uv=False)[0]
    return maps


def chaos_game(
    rng: Rng, maps: NDArray[np.float64], points: int, rounds: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the coordinates x, y of a set of points that is mapped repeatedly by random maps.

    Args:
        rng: random generator.
        maps: affine maps, (K, 2, 3), chosen with probability proportional to their determinant.
        points: number of points.
        rounds: number of iterations; the first ten are discarded.
    """
    size = np.abs(maps[:, 0, 0] * maps[:, 1, 1] - maps[:, 0, 1] * maps[:, 1, 0]) + 0.02
    chosen = rng.choice(len(maps), (rounds, points), p=size / size.sum())
    x, y = np.zeros(points), np.zeros(points)
    history = []
    for number, row in enumerate(chosen):
        m = maps[row]
        x, y = (
            m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2],
            m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2],
        )
        if number >= 10:
            history.append((x, y))
    return np.concatenate([h[0] for h in history]), np.concatenate([h[1] for h in history])


def draw_points(x: NDArray[np.float64], y: NDArray[np.float64], side: int) -> Field:
    """Return the log density of points, (side, side), scaled so that the points fill the image."""
    x_range, y_range = np.quantile(x, [0.01, 0.99]), np.quantile(y, [0.01, 0.99])
    span = max(x_range[1] - x_range[0], y_range[1] - y_range[0], 1e-9) * 1.1
    column = ((x - x_range.mean()) / span + 0.5) * side
    row = ((y - y_range.mean()) / span + 0.5) * side
    inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
    index = row[inside].astype(int) * side + column[inside].astype(int)
    return _unit(np.log1p(np.bincount(index, minlength=side * side)).reshape(side, side))


def julia(rng: Rng) -> Field:
    """Return escape times of a quadratic map with a parameter near the Mandelbrot set's border."""
    angle = rng.uniform(0, 2 * np.pi)
    c = (0.5 * np.exp(1j * angle) - 0.25 * np.exp(2j * angle)) * rng.uniform(0.95, 1.15)
    reach = 10 ** rng.uniform(-0.7, 0.2)
    axis = np.linspace(-reach, reach, SIDE // 2)
    z = (axis[:, None] * 1j + axis[None]) + complex(*rng.uniform(-0.6, 0.6, 2))
    steps = np.zeros(z.shape, dtype=np.float32)
    for _ in range(28):
        z = z * z + c
        alive = np.abs(z) < 4
        steps += alive
        z[~alive] = 4
    return _unit(np.repeat(np.repeat(steps, 2, 0), 2, 1))


def gradient(rng: Rng) -> Field:
    """Return a linear, radial or angular gradient."""
    y, x = np.indices((SIDE, SIDE), dtype=np.float32)
    u, v = x - rng.uniform(0, SIDE), y - rng.uniform(0, SIDE)
    kind = rng.integers(3)
    if kind == 0:
        angle = rng.uniform(0, 2 * np.pi)
        return _unit(u * np.cos(angle) + v * np.sin(angle))
    if kind == 1:
        rings = np.hypot(u, v)
        return _unit(rings if rng.random() < 0.5 else np.sin(rings / 10 ** rng.uniform(0.5, 1.6)))
    return _unit(np.sin(np.arctan2(v, u) * rng.integers(1, 24)))


def _unit(field: NDArray[np.floating]) -> Field:
    """Return the field scaled to 0..1 by its 1st and 99th percentile, and clipped."""
    low, high = np.quantile(field[::4, ::4], [0.01, 0.99])
    return np.asarray(np.clip((field - low) / max(high - low, 1e-9), 0, 1), dtype=np.float32)
