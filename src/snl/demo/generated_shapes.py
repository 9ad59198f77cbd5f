"""Outlines and holes of generated parts, as signed distances (negative inside).

All lengths are in the part's frame: the image is about 2 wide and high.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from snl.demo.noise import Array
from snl.demo.scene import box, capsule, disc, turn

LARGEST = 0.86
"""Largest distance of an outline from the centre, along u and along v."""


@dataclass(frozen=True)
class Outline:
    """The silhouette of a part."""

    family: str
    """A key of `FAMILIES`."""
    a: float
    """Half the extent along u."""
    b: float
    """Half the extent along v."""
    corner: float
    """Radius of the corners."""
    count: int
    """Number of corners, teeth or lobes; the type of a bracket."""
    depth: float
    """Depth of teeth and lobes; half the width of arms; width of a ring."""

    def distance(self, u: Array, v: Array) -> Array:
        """Return the signed distance to the outline, of the shape of `u` and `v`.

        It is approximate for teeth and lobes.
        """
        return FAMILIES[self.family](self, u, v)

    @property
    def is_round(self) -> bool:
        """Whether the part looks almost the same from all directions."""
        return self.family in ("disc", "ring", "gear", "lobes", "polygon")

    @property
    def fills_image(self) -> bool:
        """Whether the part has no edge inside the image."""
        return self.family == "sheet"


def _plate(o: Outline, u: Array, v: Array) -> Array:
    return box(u, v, o.a, o.b, o.corner)


def _disc(o: Outline, u: Array, v: Array) -> Array:
    """A disc, with a straight side if `count` is odd."""
    d = disc(u, v, o.a)
    return np.maximum(d, v - 0.75 * o.a) if o.count % 2 else d


def _ring(o: Outline, u: Array, v: Array) -> Array:
    r = np.sqrt(u * u + v * v)
    d: Array = np.maximum(r - o.a, o.a - o.depth - r)
    return d


def _polygon(o: Outline, u: Array, v: Array) -> Array:
    """A regular polygon; arcs around the centre cut its corners."""
    r, sector = np.sqrt(u * u + v * v), 2 * math.pi / o.count
    angle = np.mod(np.arctan2(v, u) + sector / 2, sector) - sector / 2
    flat = o.a * math.cos(sector / 2)
    d: Array = np.maximum(r * np.cos(angle) - flat, r - o.a + o.corner * 0.5)
    return d


def _gear(o: Outline, u: Array, v: Array) -> Array:
    r, wave = np.sqrt(u * u + v * v), np.cos(o.count * np.arctan2(v, u))
    d: Array = (r - (o.a - o.depth * (0.5 - 0.5 * np.clip(1.7 * wave, -1, 1)))) * 0.7
    return d


def _lobes(o: Outline, u: Array, v: Array) -> Array:
    r, wave = np.sqrt(u * u + v * v), np.cos(o.count * np.arctan2(v, u))
    d: Array = (r - (o.a - o.depth * (0.5 - 0.5 * wave))) * 0.85
    return d


def _bracket(o: Outline, u: Array, v: Array) -> Array:
    """Two or three arms: L, T, U or a cross."""
    w = o.depth
    if o.count % 4 == 0:
        arms = [box(u, v, o.a, w, o.corner), box(u, v, w, o.b, o.corner)]
    elif o.count % 4 == 1:
        arms = [box(u, v + o.b - w, o.a, w, o.corner), box(u, v, w, o.b, o.corner)]
    else:
        arms = [box(u, v - o.b + w, o.a, w, o.corner), box(u + o.a - w, v, w, o.b, o.corner)]
        if o.count % 4 == 3:
            arms.append(box(u - o.a + w, v, w, o.b, o.corner))
    d: Array = np.minimum.reduce(arms)
    return d


def _sheet(_: Outline, u: Array, v: Array) -> Array:
    return np.full_like(u, -1)


FAMILIES: Mapping[str, Callable[[Outline, Array, Array], Array]] = {
    "plate": _plate,
    "strip": _plate,
    "disc": _disc,
    "ring": _ring,
    "polygon": _polygon,
    "gear": _gear,
    "lobes": _lobes,
    "bracket": _bracket,
    "sheet": _sheet,
}


def draw_outline(rng: Generator) -> Outline:
    """Return a random outline; every family is equally likely."""
    family = str(rng.choice(list(FAMILIES)))
    a, b = rng.uniform(0.66, LARGEST), rng.uniform(0.5, LARGEST)
    corner, depth, count = rng.uniform(0.02, 0.2), rng.uniform(0.05, 0.14), int(rng.integers(5, 9))
    if family == "strip":
        b = rng.uniform(0.24, 0.4)
        corner = b if rng.random() < 0.5 else corner
    elif family == "ring":
        depth = rng.uniform(0.34, 0.52)
    elif family == "gear":
        count = int(rng.integers(9, 27))
    elif family == "lobes":
        count, depth = int(rng.integers(3, 7)), rng.uniform(0.1, 0.22)
    elif family == "polygon":
        count = int(rng.integers(3, 9))
        a = 0.9 if count == 3 else a
    elif family == "bracket":
        a, b, depth = rng.uniform(0.7, LARGEST), rng.uniform(0.7, LARGEST), rng.uniform(0.2, 0.3)
        corner = rng.uniform(0.02, 0.12)
    return Outline(family, float(a), float(b), float(corner), count, float(depth))


@dataclass(frozen=True)
class Hole:
    """A hole through a part."""

    kind: str
    """`round`, `slot`, `square` or `hexagon`."""
    u: float
    v: float
    size: float
    """Radius, or half the side."""
    angle: float
    """Radians."""

    @property
    def reach(self) -> float:
        """Radius of the circle around the hole."""
        return self.size * {"round": 1.0, "slot": 1.5, "square": 1.35, "hexagon": 1.15}[self.kind]

    def distance(self, u: Array, v: Array, du: float = 0, dv: float = 0, grow: float = 0) -> Array:
        """Return the signed distance to the hole, shifted by (du, dv) and wider by `grow`."""
        hu, hv = turn(u - (self.u + du), v - (self.v + dv), self.angle)
        size = self.size + grow
        if self.kind == "slot":
            return capsule(hu, hv, 0.95 * size, 0.55 * size)
        if self.kind == "square":
            return box(hu, hv, size, size, 0.2 * size)
        if self.kind == "hexagon":
            return np.maximum(np.abs(hu), np.abs(hu) * 0.5 + np.abs(hv) * 0.8660254) - size
        return disc(hu, hv, size)


class Layout:
    """The free places of a part: where another hole or mark still fits."""

    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self._taken: list[tuple[float, float, float]] = []

    def fits(self, u: float, v: float, reach: float, gap: float = 0.05) -> bool:
        """Return whether a circle lies inside the outline, `gap` away from everything else."""
        # A bracket's arms overlap, so the distance must hold along the circle, not at its centre.
        angles = np.linspace(0, 2 * math.pi, 12, endpoint=False)
        edge_u, edge_v = u + (reach + gap) * np.cos(angles), v + (reach + gap) * np.sin(angles)
        inside = self.outline.distance(edge_u, edge_v).max() < 0
        inside &= max(abs(u), abs(v)) + reach < LARGEST
        return bool(inside) and all(
            math.hypot(u - x, v - y) > reach + radius + gap for x, y, radius in self._taken
        )

    def crossed(self, u: float, v: float, angle: float) -> float:
        """Return how much of a line of length 1.4 around a point lies inside the outline."""
        t = np.linspace(-0.7, 0.7, 29)
        d = self.outline.distance(u + t * math.cos(angle), v + t * math.sin(angle))
        return float((d < -0.05).mean())

    def take(self, u: float, v: float, reach: float) -> None:
        """Reserve a circle."""
        self._taken.append((u, v, reach))


def draw_holes(rng: Generator, layout: Layout) -> tuple[Hole, ...]:
    """Return up to 10 holes in a regular pattern, sometimes with one large hole in the middle."""
    holes: list[Hole] = []

    def add(hole: Hole) -> None:
        if layout.fits(hole.u, hole.v, hole.reach):
            layout.take(hole.u, hole.v, hole.reach)
            holes.append(hole)

    outline, kinds = layout.outline, ("round", "round", "slot", "square", "hexagon")
    if rng.random() < 0.45:
        add(Hole(str(rng.choice(kinds)), 0.0, 0.0, float(rng.uniform(0.1, 0.22)), 0.0))
    kind, size = str(rng.choice(kinds)), float(rng.uniform(0.05, 0.095))
    start, spin = rng.uniform(0, 2 * math.pi), float(rng.choice([0.0, math.pi / 2]))
    if outline.is_round:
        count = int(rng.integers(3, 9))
        radius = outline.a * rng.uniform(0.5, 0.72)
        if outline.family == "ring":
            radius = outline.a - outline.depth / 2
        for k in range(count):
            angle = float(start + 2 * math.pi * k / count)
            add(Hole(kind, radius * math.cos(angle), radius * math.sin(angle), size, angle))
        return tuple(holes)
    columns, rows = int(rng.integers(2, 5)), int(rng.integers(1, 4))
    wide, high = outline.a * rng.uniform(0.6, 0.82), outline.b * rng.uniform(0.55, 0.8)
    across = np.linspace(-wide, wide, columns)
    down = np.linspace(-high, high, rows) if rows > 1 else np.array([rng.uniform(-high, high) / 2])
    if outline.family == "strip":
        down = np.zeros(1)
    if outline.family == "bracket":  # near the axes of the arms
        w = outline.depth
        ends_u, ends_v = outline.a - w, outline.b - w
        across, down = np.array([-ends_u, 0, ends_u]), np.array([-ends_v, 0, ends_v])
    for dv in down.tolist():
        for du in across.tolist():
            add(Hole(kind, du, dv, size, spin))
    return tuple(holes)
