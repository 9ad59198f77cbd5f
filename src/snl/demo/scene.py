"""A small picture maker for the demo set: layers of paint and height, lit and photographed.

Coordinates run from -1 to 1 over the image (y down); heights are in the same unit, so that slopes
are true slopes. Nothing here knows a product.
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
from scipy import fft, ndimage

Array = NDArray[Any]


@dataclass(frozen=True)
class Light:
    """One lamp at a finite distance, and an evenly bright surrounding."""

    x: float
    y: float
    z: float
    key: float
    ambient: float

    @staticmethod
    def draw(rng: Generator) -> Light:
        """A lamp at the upper left, as far as a workshop keeps it in place."""
        angle, lean = math.radians(rng.uniform(208, 242)), rng.uniform(1.7, 2.2)
        return Light(
            x=lean * math.cos(angle),
            y=lean * math.sin(angle),
            z=rng.uniform(2.4, 2.9),
            key=rng.uniform(0.8, 0.98),
            ambient=rng.uniform(0.3, 0.38),
        )

    def shadow(self, length: float) -> tuple[float, float]:
        """The way a shadow falls from something `length` high."""
        return -length * self.x / self.z, -length * self.y / self.z


@dataclass
class Scene:
    """What a camera looks at: maps of (N, N), or (k, N, N) where said; painted in place."""

    x: Array
    y: Array
    u: Array
    """`u`, `v`: coordinates in the frame of the part, set by `place`."""
    v: Array
    rgb: Array
    """(3, N, N) reflectance."""
    height: Array
    gloss: Array
    rough: Array
    metal: Array
    shade: Array
    """What is left of the light: shadows and corners."""
    groove: Array
    """(3, N, N): direction of brush marks (x, y) and how far they stretch highlights (1: no)."""
    area: Array
    """Where defects may have their centre."""
    body: Array
    """The part itself, where it does not fill the image: a stain on it ends at its edge."""
    fault: Array
    """Support of the defect, 0 to 1: outside it nothing may differ from the normal part."""
    light: Light

    @staticmethod
    def empty(size: int, light: Light) -> Scene:
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
        """Width of a pixel; of the full image, also in a crop."""
        return float(self.x[0, 1] - self.x[0, 0])

    def place(self, angle: float, dx: float, dy: float, scale: float = 1) -> None:
        """Put the part's frame: turned by `angle` (radians), moved, made larger."""
        c, s = math.cos(angle) / scale, math.sin(angle) / scale
        x, y = self.x - dx, self.y - dy
        self.u, self.v = c * x + s * y, c * y - s * x

    def crop(self, u: float, v: float, radius: float) -> Scene:
        """The views around a point of the part's frame: painting them paints this scene."""
        d = np.maximum(np.abs(self.u - u), np.abs(self.v - v)) < radius
        rows, columns = np.flatnonzero(d.any(1)), np.flatnonzero(d.any(0))
        if not len(rows):
            rows = columns = np.arange(2)
        top, left = int(rows[0]), int(columns[0])
        bottom, right = max(int(rows[-1]), top + 1), max(int(columns[-1]), left + 1)
        return self._window((..., slice(top, bottom + 1), slice(left, right + 1)))

    def rows(self, rows: slice) -> Scene:
        """The views of some rows of the image."""
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
        """Lay paint of the given qualities over what is there; None leaves a quality."""
        if color is not None:
            rgb = np.asarray(color, np.float32)
            self.rgb += ((rgb[:, None, None] if rgb.ndim == 1 else rgb) - self.rgb) * alpha
        for name, value in (("gloss", gloss), ("rough", rough), ("metal", metal), ("shade", shade)):
            if value is not None:
                layer: Array = getattr(self, name)
                layer += (value - layer) * alpha

    def mark(self, alpha: Array) -> None:
        """Add to the support of the defect."""
        np.maximum(self.fault, alpha, out=self.fault)


def cover(d: Array, width: float) -> Array:
    """How much of a pixel lies inside a signed distance `d` (negative inside)."""
    return np.clip(0.5 - d / width, 0, 1)


def soft(d: Array, width: float) -> Array:
    """`cover` with a smooth shoulder, for wide transitions."""
    t = np.clip(0.5 - d / width, 0, 1)
    return t * t * (3 - 2 * t)


def disc(u: Array, v: Array, radius: float) -> Array:
    return np.sqrt(u * u + v * v) - radius


def box(u: Array, v: Array, a: float, b: float, corner: float = 0.0) -> Array:
    """Signed distance to a rectangle of half sides a, b with rounded corners."""
    du, dv = np.abs(u) - (a - corner), np.abs(v) - (b - corner)
    outside = np.sqrt(np.maximum(du, 0) ** 2 + np.maximum(dv, 0) ** 2)
    return outside + np.minimum(np.maximum(du, dv), 0) - corner


def capsule(u: Array, v: Array, half: float, radius: float) -> Array:
    """Signed distance to a stadium along v."""
    return np.sqrt(u * u + np.maximum(np.abs(v) - half, 0) ** 2) - radius


def turn(u: Array, v: Array, angle: float) -> tuple[Array, Array]:
    c, s = math.cos(angle), math.sin(angle)
    return c * u + s * v, c * v - s * u


def noise(
    rng: Generator, size: int, along: float, across: float = 0.0, angle: float = 0.0
) -> Array:
    """Smooth noise of unit deviation: `along`, `across`: its length scales (across 0: the same)."""
    return _field(rng, size, _smooth(size, along, across or along, angle))


def clouds(rng: Generator, size: int, scale: float, slope: float = 1.7) -> Array:
    """Noise of all scales up to `scale`, of unit deviation: dirt, wear, uneven paint."""
    return _field(rng, size, _cloudy(size, scale, slope))


def _field(rng: Generator, size: int, response: Array) -> Array:
    """Noise whose spectrum is `response`, (2 k + 1, l): rows from -k to k, columns from 0."""
    rows, columns = response.shape
    white = rng.standard_normal((2, rows, columns), np.float32)
    spectrum = np.zeros((size, columns), np.complex64)
    wave = (white[0] + 1j * white[1]) * response
    spectrum[: rows // 2 + 1] = wave[rows // 2 :]
    spectrum[size - rows // 2 :] = wave[: rows // 2]
    field: Array = fft.irfft(fft.ifft(spectrum, axis=0), n=size, axis=1)
    return field


@lru_cache(maxsize=64)
def _smooth(size: int, along: float, across: float, angle: float) -> Array:
    c, s = math.cos(angle), math.sin(angle)
    fx, fy = _frequencies(
        size, math.hypot(c / along, s / across) * 1.06, math.hypot(s / along, c / across) * 1.06
    )
    square = (along * (c * fx + s * fy)) ** 2 + (across * (c * fy - s * fx)) ** 2
    return _unit(np.exp(-8 * square), size)


@lru_cache(maxsize=32)
def _cloudy(size: int, scale: float, slope: float) -> Array:
    fx, fy = _frequencies(size, 24, 24)
    return _unit((1 + (scale**2) * (fx**2 + fy**2)) ** (-slope / 2 - 0.3), size)


def _frequencies(size: int, x_most: float, y_most: float) -> tuple[Array, Array]:
    """The waves that fit an image (2 wide), up to the given frequencies."""
    nx, ny = (min(size // 2 - 1, math.ceil(2 * most)) for most in (x_most, y_most))
    fx = np.arange(0, nx + 1, dtype=np.float32) / 2
    fy = np.arange(-ny, ny + 1, dtype=np.float32) / 2
    return fx[None, :], fy[:, None]


def _unit(response: Array, size: int) -> Array:
    """Scaled to make fields of mean 0 and expected deviation 1."""
    response[response.shape[0] // 2, 0] = 0
    power = 4 * float((response[:, 1:] ** 2).sum()) + float((response[:, 0] ** 2).sum())
    return (response * (size**2 / math.sqrt(power))).astype(np.float32)


def cells(rng: Generator, u: Array, v: Array, pitch: float) -> tuple[Array, Array, Array]:
    """Worley's cells: distance to the nearest point, to the border (second minus first), value."""
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


@lru_cache(maxsize=32)
def _letters(text: str) -> Array:
    font = ImageFont.load_default()
    left, top, right, bottom = font.getbbox(text)
    page = Image.new("L", (math.ceil(right - left) + 4, math.ceil(bottom - top) + 4))
    ImageDraw.Draw(page).text((2 - left, 2 - top), text, fill=255, font=font)
    return np.asarray(page, np.float32) / 255


def lettering(u: Array, v: Array, text: str, height: float) -> Array:
    """Coverage of a line of print centred at (0, 0)."""
    page = _letters(text)
    scale = (page.shape[0] - 4) / height
    rows = v * scale + page.shape[0] / 2 - 0.5
    columns = u * scale + page.shape[1] / 2 - 0.5
    printed: Array = ndimage.map_coordinates(page, [rows, columns], order=1, mode="constant")
    return printed


def backdrop(scene: Scene, rng: Generator, color: tuple[float, float, float]) -> None:
    """What the part lies on: out of focus, a little uneven."""
    grain = noise(rng, scene.size, 0.03)
    tone = 1 + 0.05 * grain + 0.05 * clouds(rng, scene.size, 0.6)
    scene.rgb[:] = np.array(color, np.float32)[:, None, None] * tone
    scene.gloss[:], scene.rough[:] = 0.03, 0.5
    scene.height += 0.0012 * grain


def anywhere(scene: Scene, margin: float) -> None:
    """Textures: a defect may be anywhere but at the very border."""
    scene.area[:] = np.maximum(np.abs(scene.x), np.abs(scene.y)) < 1 - margin


def drop_shadow(scene: Scene, d: Array, shifted: Array) -> None:
    """Cast shadow (distance field moved away from the lamp) and contact darkening."""
    scene.shade *= 1 - 0.5 * soft(shifted, 0.13)
    scene.shade *= 1 - 0.45 * soft(d - 0.015, 0.06)


def chamfer(d: Array, width: float, slope: float) -> Array:
    """Height of a part's face with its edge broken over `width`."""
    t = np.clip(-d / width, 0, 1)
    return (t * (2 - t)) * np.float32(width * slope)


_BAND = 32  # rows worked on at a time, so that what is in hand stays in the processor's cache


def _slopes(height: Array, px: float) -> tuple[Array, Array]:
    gx, gy = np.empty_like(height), np.empty_like(height)
    np.subtract(height[:, 2:], height[:, :-2], out=gx[:, 1:-1])
    np.subtract(height[2:], height[:-2], out=gy[1:-1])
    gx[:, 0], gx[:, -1], gy[0], gy[-1] = gx[:, 1], gx[:, -2], gy[1], gy[-2]
    scale = np.float32(0.5 / px)
    return gx * scale, gy * scale


def illuminate(scene: Scene) -> Array:
    """Light of a scene as a camera above gets it, (3, N, N), linear.

    Lambert's law for the body of a material, and Beckmann's distribution of facet slopes (1963)
    for its surface, stretched across brush marks as in Ward's model (1992).
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

    # Slope that a mirror facet must have to send the lamp to the camera, less the slope there is.
    ex, ey = lx / (1 + lz) + gx, ly / (1 + lz) + gy
    tx, ty, stretch = scene.groove
    narrow, wide = ex * tx + ey * ty, (ey * tx - ex * ty) / stretch
    rough = np.maximum(scene.rough, 0.02)
    spark = np.exp(-np.minimum((narrow * narrow + wide * wide) / (rough * rough), 40))
    # The room mirrored: brighter towards the lamp's side, dark from below.
    side = 1 / math.hypot(light.x, light.y)
    towards = np.clip(-(gx * light.x + gy * light.y) * side, -1, 1)
    room = light.ambient * (0.62 + 0.38 * towards)

    body = (light.ambient + falloff * facing) * scene.shade * (1 - 0.8 * scene.metal)
    surface = scene.gloss * (falloff * spark + room * (0.12 + 0.88 * scene.metal)) * scene.shade
    tint = 1 + (scene.rgb - 1) * scene.metal
    return scene.rgb * body + tint * surface


def photograph(image: Array, rng: Generator) -> NDArray[np.uint8]:
    """Linear light (3, N, N) to an (N, N, 3) photograph: lens, sensor, tone curve."""
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
        band = band / (1 + 0.12 * band * band)  # the shoulder keeps highlights from burning out
        band = np.sqrt(band) + white[:, rows] * level
        photo[rows] = np.clip(band * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return photo
