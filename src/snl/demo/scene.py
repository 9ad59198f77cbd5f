"""A small renderer for the demo set: maps of colour, height and gloss, lit and photographed.

Coordinates run from -1 to 1 across the image (y down). Heights have the same unit, so that slopes
are geometrically correct. Nothing here depends on a product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from snl.demo.noise import Array
from snl.demo.noise import clouds as clouds  # benchmarks import both names from here
from snl.demo.noise import noise as noise


@dataclass(frozen=True)
class Light:
    """One lamp at a finite distance, and uniform ambient light."""

    x: float
    y: float
    z: float
    key: float
    ambient: float

    @staticmethod
    def draw(rng: Generator) -> Light:
        """Return a lamp at the upper left with the small variations of a real set-up."""
        angle, distance = math.radians(rng.uniform(208, 242)), rng.uniform(1.7, 2.2)
        return Light(
            x=distance * math.cos(angle),
            y=distance * math.sin(angle),
            z=rng.uniform(2.4, 2.9),
            key=rng.uniform(0.8, 0.98),
            ambient=rng.uniform(0.3, 0.38),
        )

    def shadow(self, length: float) -> tuple[float, float]:
        """Return the offset (x, y) of the shadow of something `length` high."""
        return -length * self.x / self.z, -length * self.y / self.z


@dataclass
class Scene:
    """The scene in front of the camera: maps, (N, N) unless stated, that are painted in place."""

    x: Array
    y: Array
    u: Array
    """`u`, `v`: coordinates in the frame of the part, which `place` sets."""
    v: Array
    rgb: Array
    """(3, N, N) reflectance."""
    height: Array
    gloss: Array
    rough: Array
    metal: Array
    shade: Array
    """Fraction of the light that arrives, less than 1 in shadows and corners."""
    groove: Array
    """(3, N, N): direction of brush marks (x, y) and factor by which they stretch highlights."""
    area: Array
    """Where a defect may have its centre."""
    body: Array
    """Coverage of the part, 0 to 1, if it does not fill the image: defects end at its edge."""
    fault: Array
    """Support of the defect, 0 to 1: outside of it the image equals that of the normal part."""
    light: Light

    @staticmethod
    def empty(size: int, light: Light) -> Scene:
        """Return a black, flat scene of size x size pixels."""
        axis = ((np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1).astype(np.float32)
        x, y = (np.ascontiguousarray(a) for a in np.meshgrid(axis, axis))
        flat = np.zeros((8, size, size), np.float32)
        groove = np.zeros((3, size, size), np.float32)
        groove[0] = groove[2] = 1
        flat[4] = flat[7] = 1
        return Scene(
            x=x, y=y, u=x, v=y, rgb=np.zeros((3, size, size), np.float32),
            height=flat[0], gloss=flat[1], rough=flat[2] + 0.3, metal=flat[3], shade=flat[4],
            groove=groove, area=flat[5], body=flat[7], fault=flat[6], light=light,
        )  # fmt: skip

    @property
    def size(self) -> int:
        return self.rgb.shape[-1]

    @property
    def px(self) -> float:
        """Width of a pixel, also in a crop."""
        return float(self.x[0, 1] - self.x[0, 0])

    def place(self, angle: float, dx: float, dy: float, scale: float = 1) -> None:
        """Set the frame of the part: rotated by `angle` (radians), shifted and scaled."""
        c, s = math.cos(angle) / scale, math.sin(angle) / scale
        x, y = self.x - dx, self.y - dy
        self.u, self.v = c * x + s * y, c * y - s * x

    def crop(self, u: float, v: float, radius: float) -> Scene:
        """Return views of the maps around a point of the part's frame; painting changes both."""
        d = np.maximum(np.abs(self.u - u), np.abs(self.v - v)) < radius
        rows, columns = np.flatnonzero(d.any(1)), np.flatnonzero(d.any(0))
        if not len(rows):
            rows = columns = np.arange(2)
        top, left = int(rows[0]), int(columns[0])
        bottom, right = max(int(rows[-1]), top + 1), max(int(columns[-1]), left + 1)
        return self._window((..., slice(top, bottom + 1), slice(left, right + 1)))

    def rows(self, rows: slice) -> Scene:
        """Return views of the maps in a range of rows."""
        return self._window((..., rows, slice(None)))

    def _window(self, window: tuple[Any, ...]) -> Scene:
        maps = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "light"}
        return Scene(**{name: a[window] for name, a in maps.items()}, light=self.light)

    def paint(
        self,
        alpha: Array,
        color: Sequence[float] | Array | None = None,
        *,
        gloss: float | None = None,
        rough: float | None = None,
        metal: float | None = None,
        shade: float | None = None,
    ) -> None:
        """Blend material properties into the scene, with weight `alpha`; None: unchanged."""
        if color is not None:
            rgb = np.asarray(color, np.float32)
            self.rgb += ((rgb[:, None, None] if rgb.ndim == 1 else rgb) - self.rgb) * alpha
        for name, value in (("gloss", gloss), ("rough", rough), ("metal", metal), ("shade", shade)):
            if value is not None:
                layer: Array = getattr(self, name)
                layer += (value - layer) * alpha

    def mark(self, alpha: Array) -> None:
        """Add `alpha` (0 to 1) to the support of the defect."""
        np.maximum(self.fault, alpha, out=self.fault)


def cover(d: Array, width: float) -> Array:
    """Return the coverage (0 to 1) of a shape by its signed distance `d` (negative inside).

    The coverage falls linearly over an edge of the given width.
    """
    return np.clip(0.5 - d / width, 0, 1)


def soft(d: Array, width: float) -> Array:
    """Return `cover` with a smooth transition (smoothstep), for wide edges."""
    t = np.clip(0.5 - d / width, 0, 1)
    return t * t * (3 - 2 * t)


def disc(u: Array, v: Array, radius: float) -> Array:
    """Return the signed distance to a circle."""
    return np.sqrt(u * u + v * v) - radius


def box(u: Array, v: Array, a: float, b: float, corner: float = 0.0) -> Array:
    """Return the signed distance to a rectangle of half sides a, b with rounded corners."""
    du, dv = np.abs(u) - (a - corner), np.abs(v) - (b - corner)
    outside = np.sqrt(np.maximum(du, 0) ** 2 + np.maximum(dv, 0) ** 2)
    return outside + np.minimum(np.maximum(du, dv), 0) - corner


def capsule(u: Array, v: Array, half: float, radius: float) -> Array:
    """Return the signed distance to a stadium (rounded rod) along v."""
    return np.sqrt(u * u + np.maximum(np.abs(v) - half, 0) ** 2) - radius


def turn(u: Array, v: Array, angle: float) -> tuple[Array, Array]:
    """Return coordinates in a frame that is rotated by `angle` (radians)."""
    c, s = math.cos(angle), math.sin(angle)
    return c * u + s * v, c * v - s * u


@lru_cache(maxsize=32)
def _letters(text: str) -> Array:
    font = ImageFont.load_default()
    left, top, right, bottom = font.getbbox(text)
    page = Image.new("L", (math.ceil(right - left) + 4, math.ceil(bottom - top) + 4))
    ImageDraw.Draw(page).text((2 - left, 2 - top), text, fill=255, font=font)
    return np.asarray(page, np.float32) / 255


def lettering(u: Array, v: Array, text: str, height: float) -> Array:
    """Return the coverage (0 to 1) of a line of text centred at (0, 0)."""
    page = _letters(text)
    scale = (page.shape[0] - 4) / height
    rows = v * scale + page.shape[0] / 2 - 0.5
    columns = u * scale + page.shape[1] / 2 - 0.5
    printed: Array = ndimage.map_coordinates(page, [rows, columns], order=1, mode="constant")
    return printed


def backdrop(scene: Scene, rng: Generator, color: tuple[float, float, float]) -> None:
    """Paint the surface under the part: out of focus, slightly uneven."""
    grain = noise(rng, scene.size, 0.03)
    tone = 1 + 0.05 * grain + 0.05 * clouds(rng, scene.size, 0.6)
    scene.rgb[:] = np.array(color, np.float32)[:, None, None] * tone
    scene.gloss[:], scene.rough[:] = 0.03, 0.5
    scene.height += 0.0012 * grain


def anywhere(scene: Scene, margin: float) -> None:
    """Allow defects anywhere except near the border of the image (for textures)."""
    scene.area[:] = np.maximum(np.abs(scene.x), np.abs(scene.y)) < 1 - margin


def drop_shadow(scene: Scene, d: Array, shifted: Array) -> None:
    """Paint the shadow of a part and the darkening where it touches the ground.

    Args:
        scene: the scene.
        d: signed distance to the part.
        shifted: the same, shifted away from the lamp: the cast shadow.
    """
    scene.shade *= 1 - 0.5 * soft(shifted, 0.13)
    scene.shade *= 1 - 0.45 * soft(d - 0.015, 0.06)


def chamfer(d: Array, width: float, slope: float) -> Array:
    """Return the height of a part whose edge is rounded over `width`."""
    t = np.clip(-d / width, 0, 1)
    return (t * (2 - t)) * np.float32(width * slope)


_BAND = 32  # rows processed at a time, so that the intermediate arrays fit in the processor's cache


def _slopes(height: Array, px: float) -> tuple[Array, Array]:
    gx, gy = np.empty_like(height), np.empty_like(height)
    np.subtract(height[:, 2:], height[:, :-2], out=gx[:, 1:-1])
    np.subtract(height[2:], height[:-2], out=gy[1:-1])
    gx[:, 0], gx[:, -1], gy[0], gy[-1] = gx[:, 1], gx[:, -2], gy[1], gy[-2]
    scale = np.float32(0.5 / px)
    return gx * scale, gy * scale


def illuminate(scene: Scene) -> Array:
    """Return the light that a camera above the scene receives, (3, N, N), linear.

    Diffuse reflection follows Lambert's law; specular reflection follows Beckmann's distribution
    of facet slopes (1963), stretched across brush marks as in Ward's model (1992).
    """
    gx, gy = _slopes(scene.height, scene.px)
    out = np.empty_like(scene.rgb)
    for top in range(0, scene.size, _BAND):
        rows = slice(top, top + _BAND)
        out[:, rows] = _lit(scene.rows(rows), gx[rows], gy[rows])
    return out


def _lit(scene: Scene, gx: Array, gy: Array) -> Array:
    light = scene.light
    dx, dy = light.x - scene.x, light.y - scene.y
    inverse = 1 / np.sqrt(dx * dx + dy * dy + light.z**2)
    lx, ly, lz = dx * inverse, dy * inverse, light.z * inverse
    facing = np.maximum(lz - gx * lx - gy * ly, 0) / np.sqrt(1 + gx * gx + gy * gy)
    falloff = light.key * (inverse * (light.x**2 + light.y**2 + light.z**2) ** 0.5) ** 2

    # Slope of a facet that reflects the lamp into the camera, minus the slope of the surface.
    ex, ey = lx / (1 + lz) + gx, ly / (1 + lz) + gy
    tx, ty, stretch = scene.groove
    narrow, wide = ex * tx + ey * ty, (ey * tx - ex * ty) / stretch
    rough = np.maximum(scene.rough, 0.02)
    highlight = np.exp(-np.minimum((narrow * narrow + wide * wide) / (rough * rough), 40))
    # Reflection of the surroundings: brighter on the side of the lamp.
    side = 1 / math.hypot(light.x, light.y)
    towards = np.clip(-(gx * light.x + gy * light.y) * side, -1, 1)
    surroundings = light.ambient * (0.62 + 0.38 * towards)

    body = (light.ambient + falloff * facing) * scene.shade * (1 - 0.8 * scene.metal)
    reflected = falloff * highlight + surroundings * (0.12 + 0.88 * scene.metal)
    surface = scene.gloss * reflected * scene.shade
    tint = 1 + (scene.rgb - 1) * scene.metal
    return scene.rgb * body + tint * surface


def photograph(image: Array, rng: Generator) -> NDArray[np.uint8]:
    """Return the photograph, (N, N, 3) uint8, of linear light (3, N, N).

    Models vignetting and blur of the lens, colour balance and noise of the sensor, and the tone
    curve.
    """
    size = image.shape[-1]
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    fall = rng.uniform(0.04, 0.12)
    x0, y0 = rng.uniform(-0.15, 0.15, 2).tolist()
    vignette = 1 - fall * ((axis - x0) ** 2 + ((axis - y0) ** 2)[:, None])
    gain = rng.uniform(0.94, 1.06) * vignette
    balance = np.array([1 + rng.normal(0, 0.018), 1, 1 + rng.normal(0, 0.022)], np.float32)
    sigma = rng.uniform(0.38, 0.6)
    white = rng.standard_normal((3, size, size), np.float32)
    level = rng.uniform(0.005, 0.009)

    blurred = np.empty_like(image)
    for c in range(3):
        ndimage.gaussian_filter(image[c], sigma, output=blurred[c], mode="nearest", truncate=2.5)
    photo = np.empty((size, size, 3), np.uint8)
    for top in range(0, size, _BAND):
        rows = slice(top, top + _BAND)
        band = np.maximum(blurred[:, rows] * gain[rows], 0) * balance[:, None, None]
        band = band / (1 + 0.12 * band * band)  # compresses highlights instead of clipping them
        band = np.sqrt(band) + white[:, rows] * level
        photo[rows] = np.clip(band * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return photo
