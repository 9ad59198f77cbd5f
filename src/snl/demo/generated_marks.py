"""Markings of generated parts: lettering, rows of dots, stripes and logos."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from snl.demo.defects import Fault
from snl.demo.generated_shapes import Layout
from snl.demo.generated_surfaces import Color
from snl.demo.noise import Array
from snl.demo.scene import Scene, box, cover, disc, lettering, turn

_CHARACTERS = "ABCDEFHKLMNPRSTUVXZ023456789"  # without characters that look like others
_KINDS = ("text", "text", "dots", "target", "badge", "stripe")
_SIZES = {
    "text": (0.13, 0.22),
    "dots": (0.028, 0.05),
    "target": (0.1, 0.17),
    "badge": (0.1, 0.17),
    "stripe": (0.03, 0.09),
}


@dataclass(frozen=True)
class Mark:
    """Something printed on a part or engraved into it."""

    kind: str
    """`text`, `dots`, `target` (disc in a ring), `badge` (bar in a frame) or `stripe`."""
    u: float
    v: float
    size: float
    """Height of letters, radius, or half the width."""
    angle: float
    """Radians."""
    text: str
    """The lettering; of other marks: only its length counts, as the number of dots."""
    color: Color
    engraved: bool

    def coverage(self, u: Array, v: Array, px: float) -> Array:
        """Return the coverage (0 to 1) of the mark at points (u, v) of the part."""
        mu, mv = turn(u - self.u, v - self.v, self.angle)
        size = self.size
        if self.kind == "text":
            return lettering(mu, mv, self.text, size)
        if self.kind == "dots":
            pitch, last = 2.8 * size, (len(self.text) - 1) / 2
            place = np.clip(np.round(mu / pitch + last) - last, -last, last)
            return cover(disc(mu - pitch * place, mv, size), 1.4 * px)
        if self.kind == "target":
            r = disc(mu, mv, 0)
            return cover(
                np.minimum(np.abs(r - 0.85 * size) - 0.15 * size, r - 0.4 * size), 1.4 * px
            )
        if self.kind == "badge":
            frame = np.abs(box(mu, mv, 1.4 * size, 0.8 * size, 0.1 * size)) - 0.12 * size
            return cover(np.minimum(frame, box(mu, mv, 0.9 * size, 0.25 * size)), 1.4 * px)
        return cover(np.abs(mv) - size, 1.4 * px)

    @property
    def half_length(self) -> float:
        """Half the length along the mark's direction."""
        if self.kind == "text":
            return 0.37 * self.size * len(self.text)
        return {"dots": 1.4 * len(self.text), "badge": 1.5}.get(self.kind, 1.0) * self.size

    @property
    def half_height(self) -> float:
        """Half the extent across that direction."""
        return 0.6 * self.size if self.kind == "text" else self.size

    def circles(self) -> list[tuple[float, float]]:
        """Return centres (u, v) of circles of radius `half_height` that cover the mark."""
        length = max(self.half_length - self.half_height, 0)
        steps = np.linspace(-length, length, 1 + math.ceil(2 * length / (1.2 * self.half_height)))
        c, s = math.cos(self.angle), math.sin(self.angle)
        return [(self.u + c * t, self.v + s * t) for t in steps.tolist()]


def draw_marks(rng: Generator, layout: Layout, color: Color, may_engrave: bool) -> tuple[Mark, ...]:
    """Return 0 to 3 marks at free places of a part."""
    marks: list[Mark] = []
    engraved = may_engrave and rng.random() < 0.4
    for _ in range(int(rng.choice([0, 1, 2, 2, 3]))):
        kind = str(rng.choice(_KINDS))
        size = rng.uniform(*_SIZES[kind])
        for _ in range(40):
            mark = Mark(
                kind=kind,
                u=float(rng.uniform(-0.7, 0.7)),
                v=float(rng.uniform(-0.7, 0.7)),
                size=float(size),
                angle=float(rng.choice([0.0, 0.0, math.pi / 2])),
                text="".join(rng.choice(list(_CHARACTERS), int(rng.integers(3, 6))).tolist()),
                color=color,
                engraved=engraved and kind != "stripe",
            )
            if kind == "stripe":  # crosses the whole part, under the other marks
                if layout.crossed(mark.u, mark.v, mark.angle) < 0.4:
                    continue
                marks.insert(0, mark)
                break
            reach = mark.half_height
            if all(layout.fits(u, v, reach, 0.03) for u, v in mark.circles()):
                for u, v in mark.circles():
                    layout.take(u, v, reach)
                marks.append(mark)
                break
    return tuple(marks)


def print_marks(
    scene: Scene, marks: tuple[Mark, ...], alpha: Array, rng: Generator, fault: Fault | None
) -> None:
    """Print or engrave all marks, with the small tolerances of a press.

    Args:
        scene: the scene, with the part painted.
        marks: what to print.
        alpha: coverage of the part, (N, N).
        rng: generator of the tolerances.
        fault: with `missing_print` or `wrong_print`, one mark is faded or wrong.
    """
    kind = fault.kind if fault else ""
    at_fault = -1
    if fault and kind in ("missing_print", "wrong_print"):
        at_fault = int(fault.rng.integers(len(marks)))
    for k, mark in enumerate(marks):
        shift, ink = rng.normal(0, 0.004, 2).tolist(), float(rng.normal(0.88, 0.03))
        printed = replace(mark, u=mark.u + shift[0], v=mark.v + shift[1])
        normal = ink * printed.coverage(scene.u, scene.v, scene.px) * alpha
        layer = normal
        if fault and k == at_fault:
            if kind == "missing_print":
                layer = normal * _worn(scene, printed, fault)
            else:
                wrong = _wrong(printed, fault)
                layer = ink * wrong.coverage(scene.u, scene.v, scene.px) * alpha
            changed = ndimage.maximum_filter(np.abs(layer - normal), 3)
            scene.mark(np.clip(changed * 4, 0, 1))
        if mark.engraved:
            scene.height -= 0.007 * layer
            scene.paint(layer * 0.55, (0.03, 0.03, 0.03), metal=0.3)
        else:
            scene.paint(layer, mark.color, gloss=0.06, rough=0.3, metal=0)


def _worn(scene: Scene, mark: Mark, fault: Fault) -> Array | float:
    """Return the factor of the ink: 0 for a mark that is missing, more for a subtle defect.

    Of a stripe, a piece is missing.
    """
    left = fault.mix(0.45, 0.0)
    if mark.kind != "stripe":
        return left
    along, _ = turn(scene.u - mark.u, scene.v - mark.v, mark.angle)
    solid = np.flatnonzero((scene.area > 0.5) & (mark.coverage(scene.u, scene.v, scene.px) > 0.5))
    at = along.flat[solid[fault.rng.integers(len(solid))]] if len(solid) else 0.0
    gone: Array = cover(np.abs(along - at) - fault.mix(0.05, 0.2), 2 * scene.px)
    return 1 - (1 - left) * gone


def _wrong(mark: Mark, fault: Fault) -> Mark:
    """Return a mark with other characters, or one that is shifted and turned."""
    if mark.kind == "text":
        letters = list(mark.text)
        count = max(1, round(fault.mix(0.5, len(letters))))
        for at in fault.rng.permutation(len(letters))[:count].tolist():
            others = [c for c in _CHARACTERS if c != letters[at]]
            letters[at] = others[int(fault.rng.integers(len(others)))]
        return replace(mark, text="".join(letters))
    direction, shift = fault.rng.uniform(0, 2 * math.pi), fault.mix(0.03, 0.1)
    if mark.kind == "stripe":  # along itself, a shift of a stripe would not be visible
        direction = mark.angle + math.pi / 2
    turned = fault.mix(0.06, 0.35) * float(fault.rng.choice([-1, 1]))
    return replace(
        mark,
        u=mark.u + shift * math.cos(direction),
        v=mark.v + shift * math.sin(direction),
        angle=mark.angle + (0 if mark.kind == "stripe" else turned),
    )
