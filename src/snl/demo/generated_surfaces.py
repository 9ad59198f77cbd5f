"""Materials of generated parts: colour and relief of brushed, cast, woven and other surfaces."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from snl.demo.noise import Array, cells, clouds, noise
from snl.demo.scene import Scene

Color = tuple[float, float, float]
"""Reflectance of red, green and blue, linear, 0 to 1."""


@dataclass(frozen=True)
class Material:
    """What a part is made of."""

    family: str
    """A key of `SURFACES`."""
    color: Color
    second: Color
    """Colour of the weft of a fabric and of the specks of a granular material."""
    contrast: float
    """Strength of the texture, 0.6 to 1.4."""
    scale: float
    """Size of the texture, 0.75 to 1.4."""
    angle: float
    """Direction of brush marks in the part's frame, radians."""
    gloss: float
    rough: float

    @property
    def is_metal(self) -> bool:
        """Whether the surface reflects like a metal."""
        return self.family in ("brushed", "turned", "cast")

    @property
    def luminance(self) -> float:
        """Brightness of the colour, linear, 0 to 1."""
        return luminance(self.color)


@dataclass(frozen=True)
class Finish:
    """The surface of one part."""

    rgb: Array
    """(3, N, N) reflectance."""
    height: Array
    """(N, N)."""
    shade: Array | float = 1.0
    """(N, N): fraction of the light that arrives, less than 1 in furrows."""
    stretch: float = 1.0
    """Factor by which brush marks stretch highlights across their direction, `Scene.groove`."""


def _tinted(color: Color, tone: Array) -> Array:
    return np.array(color, np.float32)[:, None, None] * tone


def _brushed(m: Material, scene: Scene, rng: Generator, turned: float) -> Finish:
    n, angle = scene.size, m.angle + turned
    lines = noise(rng, n, 0.9, 0.008 * m.scale, angle)
    lines += 0.6 * noise(rng, n, 0.35, 0.013 * m.scale, angle)
    tone = 1 + 0.06 * m.contrast * lines + 0.025 * clouds(rng, n, 0.8)
    scene.groove[0], scene.groove[1] = math.cos(angle), math.sin(angle)
    return Finish(_tinted(m.color, tone), 0.0004 * lines, stretch=3.5)


def _turned(m: Material, scene: Scene, rng: Generator, turned: float) -> Finish:
    """Concentric marks of a lathe."""
    r = np.sqrt(scene.u * scene.u + scene.v * scene.v)
    marks = np.convolve(rng.normal(0, 1, 484), np.ones(5) / 5, "valid")
    marks = np.interp(r, np.linspace(0, 1.5 * m.scale, 480), marks).astype(np.float32)
    tone = 1 + 0.09 * m.contrast * marks + 0.03 * noise(rng, scene.size, 0.012)
    tone += 0.03 * clouds(rng, scene.size, 0.5)
    c, s = math.cos(turned), math.sin(turned)
    x, y = c * scene.u - s * scene.v, s * scene.u + c * scene.v
    inverse = 1 / np.maximum(r, 0.02)
    scene.groove[0], scene.groove[1] = -y * inverse, x * inverse
    return Finish(_tinted(m.color, tone), 0.0007 * marks, stretch=3.5)


def _cast(m: Material, scene: Scene, rng: Generator, turned: float) -> Finish:
    n = scene.size
    rough, fine = noise(rng, n, 0.045 * m.scale), noise(rng, n, 0.02)
    tone = 1 + 0.07 * clouds(rng, n, 0.5) + 0.05 * m.contrast * rough + 0.03 * fine
    return Finish(_tinted(m.color, tone), 0.0016 * m.contrast * rough + 0.0008 * fine)


def _plain(m: Material, scene: Scene, rng: Generator, turned: float) -> Finish:
    """Moulded plastic or paint, almost even."""
    n = scene.size
    peel = noise(rng, n, 0.08 * m.scale)
    tone = 1 + 0.015 * clouds(rng, n, 0.6) + 0.008 * noise(rng, n, 0.015)
    return Finish(_tinted(m.color, tone), 0.0007 * m.contrast * peel)


def _granular(m: Material, scene: Scene, rng: Generator, turned: float) -> Finish:
    """Stone, terrazzo or sintered material: grains, part of them of the second colour."""
    _, border, value = cells(rng, scene.u, scene.v, 0.06 * m.scale)
    edge = np.exp(-((border / 0.012) ** 2))
    tone = 1 + 0.2 * m.contrast * (value - 0.5) + 0.04 * noise(rng, scene.size, 0.015)
    speck = np.clip((value - 0.85) * 20, 0, 1) * (1 - edge) * 0.3 * m.contrast
    rgb = _tinted(m.color, tone)
    rgb += (np.array(m.second, np.float32)[:, None, None] - rgb) * np.clip(speck, 0, 1)
    return Finish(rgb, -0.001 * edge, 1 - 0.12 * edge)


def _grained(m: Material, scene: Scene, rng: Generator, turned: float) -> Finish:
    """Leather or embossed rubber: pebbles between furrows."""
    n = scene.size
    u, v = (c + 0.02 * noise(rng, n, 0.2) for c in (scene.u, scene.v))
    _, border, value = cells(rng, u * 1.15, v, 0.075 * m.scale)
    pebble = 1 - np.exp(-((border / 0.022) ** 1.5))
    tone = 0.7 + 0.3 * pebble + 0.1 * m.contrast * (value - 0.5) + 0.04 * clouds(rng, n, 0.8)
    return Finish(_tinted(m.color, tone), 0.007 * pebble, 0.75 + 0.25 * pebble)


def _fabric(m: Material, scene: Scene, rng: Generator, turned: float) -> Finish:
    """A plain weave or twill of warp and weft threads of two colours."""
    n, pitch = scene.size, 0.085 * m.scale
    a = scene.u / pitch + 0.14 * noise(rng, n, 0.4, 0.9)
    b = scene.v / pitch + 0.14 * noise(rng, n, 0.9, 0.4)
    i, j = np.floor(a), np.floor(b)
    period = 2 if m.contrast > 1.1 else 4
    step = np.mod(i + j, period)
    over = step < period / 2
    threads = rng.normal(0, 1, (2, 64)).astype(np.float32)
    across = np.where(over, a - i, b - j) - 0.5
    thread = np.where(over, threads[0][i.astype(np.intp) % 64], threads[1][j.astype(np.intp) % 64])
    profile = np.sqrt(np.clip(1 - 3.6 * across * across, 0.02, 1))
    along = np.where(over, step + b - j, step - period / 2 + a - i) * (2 / period)
    height = profile * (0.55 + 0.45 * np.sin(np.clip(along, 0, 1) * math.pi))
    tone = 1 + 0.06 * thread + 0.1 * noise(rng, n, 0.015) + 0.05 * clouds(rng, n, 0.6)
    colors = np.array([m.color, m.second], np.float32)[:, :, None, None]
    rgb = np.where(over, colors[0], colors[1]) * tone
    return Finish(rgb, pitch * 0.28 * height, 0.35 + 0.65 * np.sqrt(height))


SURFACES: Mapping[str, Callable[[Material, Scene, Generator, float], Finish]] = {
    "brushed": _brushed,
    "turned": _turned,
    "cast": _cast,
    "plain": _plain,
    "granular": _granular,
    "grained": _grained,
    "fabric": _fabric,
}

_METALS: tuple[Color, ...] = (
    *((0.56, 0.55, 0.53), (0.43, 0.43, 0.44), (0.6, 0.42, 0.18), (0.55, 0.27, 0.16)),
    *((0.13, 0.22, 0.42), (0.45, 0.12, 0.1), (0.16, 0.34, 0.2), (0.14, 0.14, 0.15)),
)
"""Aluminium, steel, brass, copper, then anodised blue, red, green and black."""


def draw_material(rng: Generator, family: str) -> Material:
    """Return a random material of a family."""
    if family in ("brushed", "turned", "cast"):
        base = _METALS[int(rng.integers(len(_METALS) if family != "cast" else 4))]
        shade = rng.uniform(0.85, 1.15) * (0.6 if family == "cast" else 1)
        color = (base[0] * shade, base[1] * shade, base[2] * shade)
        gloss, rough = rng.uniform(0.75, 1.0), rng.uniform(0.16, 0.26)
        if family == "cast":
            gloss, rough = rng.uniform(0.3, 0.5), rng.uniform(0.35, 0.5)
    else:
        saturation = rng.uniform(0.08, 0.75)
        color = reflectance(rng.random(), saturation, rng.uniform(0.3, 0.85))
        gloss, rough = rng.uniform(0.03, 0.3), rng.uniform(0.14, 0.35)
        if family in ("fabric", "granular", "grained"):
            gloss *= 0.3
    return Material(
        family=family,
        color=color,
        second=second_color(rng, color),
        contrast=float(rng.uniform(0.6, 1.4)),
        scale=float(rng.uniform(0.75, 1.4)),
        angle=float(rng.choice([0.0, math.pi / 2, math.pi / 4])),
        gloss=float(gloss),
        rough=float(rough),
    )


def reflectance(hue: float, saturation: float, value: float) -> Color:
    """Return the linear reflectance of a colour given as on a screen, each value 0 to 1."""
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return red * red, green * green, blue * blue


def luminance(color: Color) -> float:
    """Return the brightness of a colour, linear, 0 to 1."""
    return 0.25 * color[0] + 0.65 * color[1] + 0.1 * color[2]


def second_color(rng: Generator, color: Color) -> Color:
    """Return another colour of clearly different brightness."""
    value, step = math.sqrt(luminance(color)), rng.uniform(0.35, 0.5)
    other = value - step if value > 0.55 else value + step
    return reflectance(rng.random(), rng.uniform(0.0, 0.4), max(other, 0.1))
