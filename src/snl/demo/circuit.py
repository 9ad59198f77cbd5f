"""The circuit board of the demo set."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.random import Generator

from snl.demo.defects import Fault
from snl.demo.noise import Array, clouds, noise
from snl.demo.scene import (
    Scene,
    anywhere,
    box,
    capsule,
    chamfer,
    cover,
    disc,
    lettering,
    soft,
    turn,
)

# Components: kind, u, v, angle in quarter turns, text printed on it.
_LAYOUT = (
    ("resistor", -0.62, -0.66, 0, "103"),
    ("resistor", -0.62, -0.44, 0, "472"),
    ("capacitor", -0.2, -0.72, 1, ""),
    ("capacitor", 0.02, -0.72, 1, ""),
    ("resistor", 0.72, 0.3, 1, "220"),
    ("capacitor", 0.46, 0.3, 1, ""),
    ("resistor", -0.1, 0.74, 0, "0R0"),
    ("capacitor", 0.3, 0.74, 0, ""),
    ("can", 0.6, -0.6, 0, ""),
    ("chip", -0.36, 0.16, 0, ""),
)
_TRACKS = (
    ((-1.1, -0.9), (-0.8, -0.9), (-0.74, -0.66)),
    ((-0.5, -0.66), (-0.36, -0.66), (-0.2, -0.86), (0.2, -0.92), (1.1, -0.92)),
    ((-0.5, -0.44), (-0.2, -0.44), (-0.2, -0.6)),
    ((0.02, -0.6), (0.02, -0.4), (0.2, -0.2), (0.2, 0.3), (0.46, 0.42)),
    ((-0.74, -0.44), (-0.9, -0.3), (-0.9, 0.5), (-0.72, 0.7), (-0.22, 0.74)),
    ((0.02, 0.74), (0.18, 0.74)),
    ((0.42, 0.74), (0.72, 0.62), (0.72, 0.42)),
    ((0.72, 0.18), (0.72, -0.3), (0.6, -0.42)),
    ((0.46, 0.18), (0.36, -0.1), (0.36, -0.42), (0.46, -0.6)),
    ((-0.1, 0.0), (0.1, 0.0), (0.1, 0.52), (0.3, 0.6), (1.1, 0.6)),
)
_VIAS = (
    (-0.9, 0.1),
    (0.2, 0.1),
    (0.36, -0.3),
    (0.1, 0.4),
    (-0.34, -0.24),
    (0.88, -0.1),
    (0.88, 0.8),
)


def circuit(scene: Scene, rng: Generator, fault: Fault | None) -> None:
    """Build a populated circuit board: tracks under a green mask, components, printed labels."""
    px, n = scene.px, scene.size
    scene.place(rng.normal(0, 0.02), rng.normal(0, 0.02), rng.normal(0, 0.02), rng.normal(1, 0.006))
    u, v = scene.u, scene.v
    weave = np.sin(u * 75) * np.sin(v * 75)
    tone = 1 + 0.04 * weave + 0.04 * clouds(rng, n, 0.8) + 0.03 * noise(rng, n, 0.02)
    green = np.array([0.012, 0.115, 0.05], np.float32) * rng.normal(1, 0.03)
    scene.rgb[:] = green.astype(np.float32)[:, None, None] * tone
    scene.gloss[:], scene.rough[:] = 0.22, 0.2
    scene.height += 0.0008 * weave + 0.0008 * noise(rng, n, 0.05)
    copper = np.full_like(u, 9)
    for track in _TRACKS:
        for (a, b), (c, d) in itertools.pairwise(track):
            length = math.hypot(c - a, d - b)
            du, dv = turn(u - (a + c) / 2, v - (b + d) / 2, math.atan2(d - b, c - a) - math.pi / 2)
            np.minimum(copper, capsule(du, dv, length / 2, 0.024), out=copper)
    scene.paint(soft(copper, 0.02) * 0.85, (0.03, 0.2, 0.09))
    scene.height += 0.006 * soft(copper, 0.022)
    for a, b in _VIAS:
        via = scene.crop(a, b, 0.09)
        ring = disc(via.u - a, via.v - b, 0.042)
        via.paint(cover(ring, 1.3 * px), (0.75, 0.52, 0.2), gloss=0.8, rough=0.3, metal=0.9)
        via.height += 0.006 * soft(ring, 0.025)
        via.paint(cover(ring + 0.022, 1.3 * px), (0.01, 0.012, 0.01), gloss=0.0, metal=0)

    small = [k for k, line in enumerate(_LAYOUT) if line[0] in ("resistor", "capacitor")]
    wrong = small[int(fault.rng.integers(len(small)))] if fault else -1
    spin, shift = (fault.rng.uniform(-1, 1), fault.rng.uniform(-1, 1)) if fault else (0.0, 0.0)
    for k, (kind, a, b, quarter, label) in enumerate(_LAYOUT):
        da, db, turned = (rng.normal(0, s) for s in (0.005, 0.005, 0.015))
        shade = rng.normal(1, 0.03)
        angle = quarter * math.pi / 2
        if kind == "can":
            _can(scene.crop(a, b, 0.36), a + da, b + db, turned, shade)
            continue
        if kind == "chip":
            bridge = fault if fault and fault.kind == "solder_bridge" else None
            _chip(scene.crop(a, b, 0.5), a + da, b + db, turned, shade, bridge)
            continue
        site = scene.crop(a, b, 0.24)
        _pads(site, a, b, angle)
        if fault and k == wrong and fault.kind in ("missing_part", "misplaced_part"):
            pu, pv = turn(site.u - a, site.v - b, angle)
            support = box(pu, pv, 0.13, 0.085, 0.02) - 0.035
            if fault.kind == "missing_part":
                site.mark(soft(support, 2 * px))
                continue
            turned += math.copysign(fault.mix(0.22, 1.1), spin)
            da, db = da + 0.035 * shift, db + 0.035 * spin
            pu, pv = turn(site.u - a - da, site.v - b - db, angle + turned)
            support = np.minimum(support, box(pu, pv, 0.13, 0.085, 0.02) - 0.035)
            site.mark(soft(support, 2 * px))
        _two_pole(site, a + da, b + db, angle + turned, kind, label, shade)
    anywhere(scene, 0.2)


def _pads(site: Scene, a: float, b: float, angle: float) -> None:
    pu, pv = turn(site.u - a, site.v - b, angle)
    d = box(np.abs(pu) - 0.115, pv, 0.05, 0.078, 0.015)
    site.paint(cover(d, 1.5 * site.px), (0.62, 0.62, 0.6), gloss=0.8, rough=0.25, metal=0.85)
    mound = np.sqrt(np.clip(-d / 0.05, 0, 1)) * 0.028
    site.height += (mound - site.height) * cover(d, 1.5 * site.px)
    frame = np.abs(box(pu, pv, 0.195, 0.108, 0.01)) - 0.006
    site.paint(cover(frame, 1.5 * site.px) * 0.8, (0.75, 0.77, 0.73), gloss=0.05, metal=0)


def _body(site: Scene, d: Array, tall: float) -> None:
    """Paint the shadow of a component, and the darkening where it touches the board."""
    px = site.px
    sx, sy = site.light.shadow(tall)
    covered = cover(d, px)
    site.shade *= 1 - 0.5 * soft(np.roll(d, (round(sy / px), round(sx / px)), (0, 1)), 0.05) * (
        1 - covered
    )
    site.shade *= 1 - 0.4 * soft(d - 0.01, 0.03) * (1 - covered)


def _two_pole(
    site: Scene, a: float, b: float, angle: float, kind: str, label: str, tone: float
) -> None:
    """Paint a chip resistor (black, printed) or capacitor (tan) with tinned ends."""
    px = site.px
    pu, pv = turn(site.u - a, site.v - b, angle)
    body = box(pu, pv, 0.13, 0.072, 0.012)
    _body(site, body, 0.05)
    alpha = cover(body, 1.4 * px)
    color = (0.022, 0.022, 0.025) if kind == "resistor" else (0.42, 0.27, 0.13)
    site.paint(alpha, [c * tone for c in color], gloss=0.1, rough=0.3, metal=0, shade=1.0)
    ends = alpha * cover(0.088 - np.abs(pu), 1.5 * px)
    site.paint(ends, (0.66, 0.66, 0.65), gloss=0.85, rough=0.3, metal=0.9)
    site.height += (chamfer(body, 0.03, 0.8) + 0.05 - site.height) * alpha
    if label:
        printed = lettering(pu, pv, label, 0.07)
        site.paint(printed * cover(np.abs(pu) - 0.085, px), (0.7, 0.7, 0.68))


def _can(site: Scene, a: float, b: float, angle: float, tone: float) -> None:
    """Paint an electrolytic capacitor from above: a metal lid with a cross and a black mark."""
    px = site.px
    pu, pv = turn(site.u - a, site.v - b, angle)
    base = box(pu, pv, 0.245, 0.245, 0.05)
    _body(site, base, 0.04)
    site.paint(cover(base, 1.4 * px), (0.018, 0.018, 0.02), gloss=0.15, rough=0.3, metal=0, shade=1)
    lid = disc(pu, pv, 0.22)
    alpha = cover(lid, 1.4 * px)
    site.shade *= 1 - 0.5 * soft(lid - 0.012, 0.04) * (1 - alpha)
    site.paint(alpha, [0.6 * tone] * 3, gloss=0.85, rough=0.3, metal=0.9, shade=1)
    dome = chamfer(lid, 0.06, 0.5)
    score = np.minimum(np.abs(pu), np.abs(pv)) - 0.005
    cross = cover(score, 0.02) * cover(lid + 0.08, 0.02)
    site.height += (dome - 0.012 * cross - site.height) * alpha
    mark = alpha * cover(0.1 - pv, 1.5 * px) * cover(lid + 0.025, 1.5 * px)
    site.paint(mark, (0.02, 0.02, 0.022), gloss=0.1, metal=0)


def _chip(site: Scene, a: float, b: float, angle: float, tone: float, bridge: Fault | None) -> None:
    """Paint a chip package with eight legs per side; `bridge`: solder between two of them."""
    px = site.px
    pu, pv = turn(site.u - a, site.v - b, angle)
    pitch = 0.0875
    body = box(pu, pv, 0.36, 0.2, 0.02)
    legs = box(pu - pitch * np.clip(np.round(pu / pitch - 0.5) + 0.5, -3.5, 3.5), np.abs(pv) - 0.25,
               0.02, 0.075, 0.01)  # fmt: skip
    _body(site, np.minimum(body, legs), 0.03)
    metal = cover(legs, 1.3 * px)
    site.paint(metal, (0.62, 0.62, 0.6), gloss=0.85, rough=0.25, metal=0.9, shade=1.0)
    drop = np.clip((np.abs(pv) - 0.2) / 0.07, 0, 1)
    site.height += (0.05 * (1 - drop * drop * (3 - 2 * drop)) + 0.01 - site.height) * metal
    if bridge:
        gap = (int(bridge.rng.integers(7)) - 3) * pitch
        side = float(bridge.rng.choice([-1, 1]))
        wide = pitch * 0.5 + 0.02 * bridge.level
        d = box(pu - gap, pv - side * bridge.mix(0.3, 0.27), wide, bridge.mix(0.016, 0.045), 0.014)
        over = soft(d, 2 * px)
        site.paint(over, (0.64, 0.64, 0.62), gloss=0.9, rough=0.2, metal=0.9, shade=1.0)
        site.height += (np.sqrt(np.clip(-d / 0.03, 0, 1)) * 0.03 - site.height) * over
        site.mark(soft(d - 0.01, 2 * px))
    alpha = cover(body, 1.4 * px)
    dark = [c * tone for c in (0.02, 0.021, 0.024)]
    site.paint(alpha, dark, gloss=0.12, rough=0.35, metal=0, shade=1.0)
    face = chamfer(body, 0.05, 0.7) + 0.06
    pin = disc(pu + 0.28, pv - 0.12, 0.032)
    site.height += (face - 0.012 * soft(pin, 0.02) - site.height) * alpha
    site.paint(cover(pin, 2 * px) * 0.5, (0.005, 0.005, 0.006))
    text = np.maximum(
        lettering(pu, pv + 0.05, "SNL8051", 0.09), lettering(pu, pv - 0.07, "2214", 0.07)
    )
    site.paint(text * 0.75, (0.42, 0.42, 0.4))
