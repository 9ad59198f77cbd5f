"""Surface defects of the demo set, for any product: stains, scratches, cracks.

Each function takes a finished scene, marks the support of the defect in `scene.fault` and paints
the defect there. Structural defects (a missing component, a broken tooth) are made by the function
that builds the part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from snl.demo.noise import Array, clouds, noise
from snl.demo.scene import Scene, cover, soft


@dataclass(frozen=True)
class Fault:
    """A defect to make: its kind, its level (0 subtle to 1 obvious) and its random generator."""

    kind: str
    level: float
    rng: Generator

    def mix(self, subtle: float, obvious: float) -> float:
        """Return the value for this level, interpolated between a subtle and an obvious defect."""
        return subtle + (obvious - subtle) * self.level


Defect = Callable[[Scene, Fault], None]


def pixel(scene: Scene, rng: Generator) -> int:
    """Return the flat index of a random pixel in the area of the part where defects may be."""
    candidates = np.flatnonzero(scene.area > 0.5)
    return int(candidates[rng.integers(len(candidates))])


def spot(scene: Scene, rng: Generator) -> tuple[float, float]:
    """Return the image coordinates (x, y) of a random pixel in that area."""
    index = pixel(scene, rng)
    return float(scene.x.flat[index]), float(scene.y.flat[index])


def stroke(
    scene: Scene, rng: Generator, at: tuple[float, float], angle: float, half: float, wobble: float
) -> tuple[Array, Array, Array]:
    """Return the coordinates of an irregular line.

    Args:
        scene: the scene.
        rng: random generator.
        at: centre (x, y).
        angle: direction in radians.
        half: half the length.
        wobble: deviation from a straight line, relative to `half`.

    Returns:
        The position along the line (-1 to 1), the distance across it, and the signed distance to
        its ends (negative inside).
    """
    c, s = math.cos(angle), math.sin(angle)
    dx, dy = scene.x - at[0], scene.y - at[1]
    along, across = c * dx + s * dy, c * dy - s * dx
    knots = np.linspace(-half, half, 33)
    walk = sum(
        np.interp(knots, np.linspace(-half, half, k), rng.normal(0, 1 / k, k))
        for k in (3, 6, 12, 33)
    )
    path = np.interp(along, knots, wobble * half * walk).astype(np.float32)
    return along / np.float32(half), across - path, np.abs(along) - np.float32(half)


def blob(scene: Scene, rng: Generator, at: tuple[float, float], radius: float) -> Array:
    """Return the signed distance to a round patch with an irregular outline."""
    stretch, angle = rng.uniform(1, 1.5), rng.uniform(0, math.pi)
    c, s = math.cos(angle), math.sin(angle)
    dx, dy = scene.x - at[0], scene.y - at[1]
    a, b = (c * dx + s * dy) / stretch, (c * dy - s * dx) * stretch
    ragged = noise(rng, scene.size, radius * 1.2) * 0.16 + noise(rng, scene.size, 0.06) * 0.05
    return np.sqrt(a * a + b * b) + ragged * radius - radius


def scratch(bright: float, angle: float | None = None) -> Defect:
    """Return a defect: one or two scratches; `bright` is added to the colour at the bottom."""

    def make(scene: Scene, fault: Fault) -> None:
        rng, at = fault.rng, spot(scene, fault.rng)
        for number in range(1 + int(rng.integers(0, 3) == 0)):
            turn = rng.uniform(0, math.pi) if angle is None else rng.normal(angle, 0.3)
            half = rng.uniform(0.15, 0.22) + fault.mix(0, 0.25) * rng.uniform(0.4, 1)
            t, d, end = stroke(scene, rng, (at[0] + 0.05 * number, at[1]), turn, half, 0.1)
            width = max(fault.mix(0.008, 0.014), 0.8 * scene.px)
            taper = np.clip(1.15 - t * t, 0.15, 1)
            depth = 0.7 + 0.3 * np.sin(t * rng.uniform(3, 9) + rng.uniform(0, 6))
            line = np.maximum(np.abs(d) - width * taper, end)
            scene.mark(soft(line - 1.5 * scene.px, 2 * scene.px))
            core = cover(np.maximum(np.abs(d) - 0.6 * width * taper, end), 1.5 * scene.px) * depth
            scene.rgb += core * (bright * fault.mix(0.6, 1.0))
            np.clip(scene.rgb, 0.004, 1, out=scene.rgb)
            scene.height -= np.exp(-((d / width) ** 2)) * cover(end, 0.05) * width * depth * 0.5
            scene.groove[2] += (1 - scene.groove[2]) * core
            scene.metal *= 1 - 0.5 * core

    return make


def stain(
    tint: Sequence[float], *, wet: float = 0.0, size: tuple[float, float] = (0.1, 0.3)
) -> Defect:
    """Return a defect: a dried liquid that multiplies the colour by `tint`; `wet` adds gloss."""

    def make(scene: Scene, fault: Fault) -> None:
        rng, at = fault.rng, spot(scene, fault.rng)
        d = blob(scene, rng, at, rng.uniform(*size))
        inside = soft(d, 5 * scene.px)
        rim = np.exp(-(((d + 0.02) / 0.02) ** 2))
        uneven = np.clip(0.72 + 0.18 * clouds(rng, scene.size, 0.3) + 0.3 * rim, 0, 1.2)
        strength = inside * uneven * fault.mix(0.5, 1.0)
        for c in range(3):
            scene.rgb[c] *= 1 + (tint[c] - 1) * strength
        scene.gloss += strength * wet
        scene.mark(inside)

    return make


def deposit(
    color: Sequence[float], *, gloss: float, size: tuple[float, float], thick: float
) -> Defect:
    """Return a defect: a lump of foreign material on the part, such as glue, solder or dirt."""

    def make(scene: Scene, fault: Fault) -> None:
        rng, at = fault.rng, spot(scene, fault.rng)
        d = blob(scene, rng, at, rng.uniform(*size) * fault.mix(0.75, 1.15))
        inside = soft(d, 3 * scene.px)
        dome = np.sqrt(np.clip(-d / thick, 0, 1)) * thick * 0.4
        opacity = fault.mix(0.3, 0.75)
        scene.paint(inside * opacity, color, metal=0)
        scene.paint(inside, gloss=gloss, rough=0.12, shade=1)
        flat = 0.2 * scene.height + dome + 0.003 * clouds(rng, scene.size, 0.3)
        scene.height += (flat - scene.height) * inside
        scene.shade *= 1 - 0.4 * soft(np.abs(d - 0.01) - 0.01, 0.02)
        scene.mark(soft(d - 0.022, 3 * scene.px))

    return make


def rust(scene: Scene, fault: Fault) -> None:
    """Paint a patch of corrosion: brown, rough, dull."""
    rng, at = fault.rng, spot(scene, fault.rng)
    d = blob(scene, rng, at, fault.mix(0.09, 0.2) * rng.uniform(0.8, 1.2))
    inside = soft(d, 4 * scene.px)
    eaten = np.clip(
        0.62 + 0.5 * clouds(rng, scene.size, 0.12, 1.2) - 0.3 * soft(-d - 0.06, 0.1), 0, 1
    )
    strength = inside * eaten * fault.mix(0.6, 1.0)
    brown = np.array([0.27, 0.105, 0.035], np.float32)[:, None, None]
    speck = np.clip(1 + 0.35 * noise(rng, scene.size, 0.025), 0.3, 2)
    scene.paint(strength, brown * speck, gloss=0.04, rough=0.5, metal=0.0)
    scene.height += 0.0022 * clouds(rng, scene.size, 0.03, 1.2) * strength
    scene.mark(inside)


def crack(
    color: Sequence[float],
    *,
    width: tuple[float, float],
    relief: float = 0.003,
    angle: float | None = None,
) -> Defect:
    """Return a defect: a jagged line with branches, thinner towards its ends.

    With `angle` (radians) the crack follows the grain of the material.
    """

    def make(scene: Scene, fault: Fault) -> None:
        rng, at = fault.rng, spot(scene, fault.rng)
        turn = rng.uniform(0, math.pi) if angle is None else rng.normal(angle, 0.04)
        half = rng.uniform(0.18, 0.3) + 0.2 * fault.level
        wobble, spread = (0.35, 0.9) if angle is None else (0.1, 0.15)
        thick = max(fault.mix(*width), 0.45 * scene.px)
        for branch in range(1 + int(rng.integers(0, 3))):
            if branch:
                turn += float(rng.choice([-1, 1])) * rng.uniform(0.45 * spread, spread)
                half *= rng.uniform(0.35, 0.6)
            t, d, end = stroke(scene, rng, at, turn, half, wobble)
            taper = np.clip(1.1 - np.abs(t), 0.35, 1)
            line = np.maximum(np.abs(d) - thick * taper, end)
            depth = cover(line, 1.4 * scene.px) * np.clip(fault.mix(0.75, 1.1) * taper + 0.2, 0, 1)
            scene.paint(depth, color, gloss=0.02, metal=0)
            scene.shade *= 1 - 0.25 * soft(line - 0.008, 0.02) * fault.level
            scene.height += np.clip(d / 0.01, -1, 1) * relief * cover(end, 0.1) * soft(line, 0.06)
            scene.mark(soft(line - 0.012, 2 * scene.px))

    return make


def dent(radius: tuple[float, float], depth: tuple[float, float]) -> Defect:
    """Return a defect: a smooth hollow, visible only by its shading."""

    def make(scene: Scene, fault: Fault) -> None:
        rng, at = fault.rng, spot(scene, fault.rng)
        size = rng.uniform(*radius)
        d = blob(scene, rng, at, size)
        bowl = np.clip(-d / size, 0, 1)
        scene.height -= (bowl * bowl * (3 - 2 * bowl)) * size * fault.mix(*depth)
        scene.mark(soft(d, 4 * scene.px))

    return make


def hole(color: Sequence[float], rim: Sequence[float], size: tuple[float, float]) -> Defect:
    """Return a defect: a puncture with an irregular rim."""

    def make(scene: Scene, fault: Fault) -> None:
        rng, at = fault.rng, spot(scene, fault.rng)
        d = blob(scene, rng, at, fault.mix(*size) * rng.uniform(0.85, 1.15))
        d += 0.008 * noise(rng, scene.size, 0.03)
        lip = np.exp(-((d / 0.02) ** 2))
        scene.height += 0.012 * lip
        scene.paint(soft(d - 0.016, 0.02) * 0.6, rim)
        scene.paint(soft(d, 3 * scene.px), color, gloss=0.0, metal=0, shade=0.5)
        scene.mark(soft(d - 0.022, 3 * scene.px))

    return make


def cut(inner: Sequence[float], width: tuple[float, float]) -> Defect:
    """Return a defect: an open slit with raised edges."""

    def make(scene: Scene, fault: Fault) -> None:
        rng, at = fault.rng, spot(scene, fault.rng)
        half = rng.uniform(0.12, 0.2) + 0.14 * fault.level
        t, d, end = stroke(scene, rng, at, rng.uniform(0, math.pi), half, 0.12)
        half_width = fault.mix(*width) * np.sqrt(np.clip(1 - t * t, 0, 1))
        line = np.maximum(np.abs(d) - half_width, end)
        lip = np.exp(-((line / 0.016) ** 2)) * cover(end, 0.04)
        scene.height += 0.012 * lip
        scene.paint(lip * 0.35, inner)
        gap = cover(line, 1.6 * scene.px)
        scene.paint(gap * 0.9, [0.4 * c for c in inner], gloss=0.01, shade=0.45)
        scene.mark(soft(line - 0.03, 2 * scene.px))

    return make


def crease(scene: Scene, fault: Fault) -> None:
    """Paint a flattened fold: a soft valley beside a worn ridge."""
    rng, at = fault.rng, spot(scene, fault.rng)
    half = rng.uniform(0.25, 0.4) + 0.2 * fault.level
    t, d, end = stroke(scene, rng, at, rng.uniform(0, math.pi), half, 0.08)
    reach = 0.045
    fade = np.sqrt(np.clip(1 - t * t, 0, 1))
    profile = np.exp(-(((d - 0.02) / 0.022) ** 2)) - np.exp(-(((d + 0.014) / 0.018) ** 2))
    press = soft(np.abs(d) - 0.03, 0.03) * fade
    scene.height *= 1 - fault.mix(0.5, 0.8) * press
    scene.height += profile * fade * fault.mix(0.014, 0.026)
    worn = np.exp(-(((d - 0.02) / 0.016) ** 2)) * fade * fault.mix(0.25, 0.55)
    scene.rgb *= 1 + worn * np.clip(0.8 + 0.4 * noise(rng, scene.size, 0.03), 0, 2)
    scene.mark(soft(np.maximum(np.abs(d) - reach * fade - 0.004, end), 3 * scene.px))


def hair(color: Sequence[float]) -> Defect:
    """Return a defect: a fibre or hair on the part."""

    def make(scene: Scene, fault: Fault) -> None:
        rng, at = fault.rng, spot(scene, fault.rng)
        half = rng.uniform(0.12, 0.22) + 0.12 * fault.level
        t, d, end = stroke(scene, rng, at, rng.uniform(0, math.pi), half, 0.1)
        d = d - (0.3 + 0.5 * fault.level) * half * (t * t - 0.4)
        width = max(fault.mix(0.005, 0.009), 0.6 * scene.px)
        line = np.maximum(np.abs(d) - width, end)
        scene.shade *= 1 - 0.35 * soft(np.maximum(np.abs(d - 0.009) - width, end), 0.016)
        scene.paint(cover(line, 1.4 * scene.px) * fault.mix(0.65, 1), color, gloss=0.08, metal=0)
        scene.mark(soft(line - 0.012, 2 * scene.px))

    return make
