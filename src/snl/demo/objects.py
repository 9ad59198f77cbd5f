"""Separate parts of the demo set, seen from above: gear, plate, blister pack."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from snl.demo.defects import Fault
from snl.demo.noise import Array, clouds, noise
from snl.demo.scene import (
    Scene,
    backdrop,
    box,
    capsule,
    chamfer,
    cover,
    disc,
    drop_shadow,
    lettering,
    soft,
    turn,
)

_TEETH = 18


def gear(scene: Scene, rng: Generator, fault: Fault | None) -> None:
    """Build a turned steel gear with a keyway and six lightening holes, on a dark mat."""
    px, n = scene.px, scene.size
    backdrop(scene, rng, (0.03, 0.034, 0.042))
    scene.place(rng.normal(0, 0.1), rng.normal(0, 0.02), rng.normal(0, 0.02), rng.normal(1, 0.008))
    root, tip, bore = 0.7, rng.normal(0.845, 0.004), rng.normal(0.2, 0.003)
    length = np.ones(_TEETH, np.float32)
    intact = length
    broken = -1
    if fault and fault.kind == "broken_tooth":
        broken = int(fault.rng.integers(_TEETH))
        length = length.copy()
        length[broken] = fault.mix(0.62, 0.08)
    jag = noise(rng, n, 0.035) * 0.012

    def outline(u: Array, v: Array, length: Array) -> tuple[Array, Array, Array]:
        r = np.sqrt(u * u + v * v)
        phase = np.arctan2(v, u) * np.float32(_TEETH / (2 * math.pi))
        tooth = np.floor(phase + 0.5).astype(np.intp) % _TEETH
        wave = np.cos(phase * np.float32(2 * math.pi))
        flank = np.clip(0.5 + 0.95 * wave, 0, 1)
        flank = flank * flank * (3 - 2 * flank)
        slope = 1 + 1.1 * np.abs(np.sin(phase * np.float32(2 * math.pi))) * (np.abs(wave) < 0.5)
        top = length[tooth]
        profile = root + (tip - root) * np.minimum(flank, top + (jag / 0.14) * (top < 1))
        return (r - profile) / slope, r, tooth

    d, r, tooth = outline(scene.u, scene.v, length)
    if fault and broken >= 0:
        whole, *_ = outline(scene.u, scene.v, intact)
        missing = np.maximum(whole - 0.02, -(d + 0.03))
        scene.mark(soft(missing, 2 * px) * (tooth == broken) * (r > root - 0.02))
    hole = disc(scene.u, scene.v, bore)
    key_u, key_v = scene.u, scene.v + bore
    hole = np.minimum(hole, box(key_u, key_v, 0.052, 0.07, 0.008))
    sector = np.arctan2(scene.v, scene.u) + np.float32(math.pi / 6)
    sector = np.mod(sector, np.float32(math.pi / 3)) - np.float32(math.pi / 6)
    hu, hv = r * np.cos(sector) - 0.45, r * np.sin(sector)
    hole = np.minimum(hole, disc(hu, hv, rng.normal(0.085, 0.002)))
    solid = np.maximum(d, -hole)

    sx, sy = scene.light.shadow(0.1)
    drop_shadow(scene, solid, disc(scene.u - sx, scene.v - sy, root + 0.09))
    scene.shade *= 1 - 0.5 * cover(hole, 0.05)

    alpha = cover(solid, 1.3 * px)
    ring = np.maximum(0.3 - r, r - 0.6)  # the turned recess between hub and rim
    step = soft(ring, 0.025)
    turned = np.convolve(rng.normal(0, 1, 484), np.ones(5) / 5, "valid")
    turned = np.interp(r, np.linspace(0, 1.2, 480), turned).astype(np.float32)
    tone = 0.43 + 0.035 * turned + 0.014 * noise(rng, n, 0.012) - 0.06 * step
    tone += 0.02 * clouds(rng, n, 0.5)
    steel = np.array([1.0, 1.0, 1.015], np.float32)[:, None, None] * tone
    scene.paint(alpha, steel, gloss=1.1, rough=rng.normal(0.15, 0.006), metal=0.93, shade=1.0)
    face = chamfer(solid, 0.028, 0.75) - 0.02 * step + 0.0007 * turned
    scene.height += (face - scene.height) * alpha
    inverse = 1 / np.maximum(r, 0.02)
    scene.groove[0], scene.groove[1] = -scene.v * inverse, scene.u * inverse
    scene.groove[2] += 3.6 * alpha
    scene.shade *= 1 - 0.4 * soft(np.abs(ring + 0.012) - 0.006, 0.03) * alpha
    scene.area[:], scene.body[:] = solid < -0.05, alpha


def plate(scene: Scene, rng: Generator, fault: Fault | None) -> None:
    """Build a brushed aluminium panel with stamped holes, two slots and an engraved number."""
    px, n = scene.px, scene.size
    backdrop(scene, rng, (0.05, 0.09, 0.16))
    scene.place(
        rng.normal(0, 0.03), rng.normal(0, 0.015), rng.normal(0, 0.015), rng.normal(1, 0.005)
    )
    u, v = scene.u, scene.v
    jitter = rng.normal(0, 0.003, (9, 3)).tolist()
    rounds = [(0.0, -0.12, 0.25)]
    rounds += [(a, b, 0.075) for a in (-0.66, 0.66) for b in (-0.68, 0.68)]
    rounds += [(a, b, 0.045) for a in (-0.36, 0.36) for b in (-0.42, 0.18)]
    wrong = 1 + int(fault.rng.integers(8)) if fault else 0
    stamped = np.full_like(u, 9)
    for k, ((a, b, radius), (da, db, dr)) in enumerate(zip(rounds, jitter, strict=True)):
        d = disc(u - a - da, v - b - db, radius + dr)
        if fault and fault.kind == "missing_hole" and k == wrong:
            scene.mark(soft(d - 0.05, 2 * px))
            continue
        if fault and fault.kind == "misplaced_hole" and k == wrong:
            direction, shift = fault.rng.uniform(0, 2 * math.pi), fault.mix(0.07, 0.14)
            moved = disc(
                u - a - shift * math.cos(direction),
                v - b - shift * math.sin(direction),
                radius + dr,
            )
            scene.mark(soft(np.minimum(d, moved) - 0.05, 2 * px))
            d = moved
        stamped = np.minimum(stamped, d)
    for a in (-0.7, 0.7):
        stamped = np.minimum(stamped, capsule(u - a, v, 0.2 + jitter[0][0], 0.05))
    solid = np.maximum(box(u, v, 0.87, 0.87, 0.1), -stamped)
    sx, sy = scene.light.shadow(0.06)
    drop_shadow(scene, solid, box(u - sx, v - sy, 0.87, 0.87, 0.1))
    scene.shade *= 1 - 0.6 * soft(stamped - 0.02, 0.1)

    alpha = cover(solid, 1.3 * px)
    lines = noise(rng, n, 0.9, 0.007, 0.0) + 0.6 * noise(rng, n, 0.35, 0.012, 0.0)
    tone = 0.56 + 0.035 * lines + 0.015 * clouds(rng, n, 0.8)
    metal = np.array([1.0, 0.985, 0.96], np.float32)[:, None, None] * tone
    scene.paint(alpha, metal, gloss=0.9, rough=rng.normal(0.2, 0.01), metal=0.9, shade=1.0)
    rolled = -np.exp(-((stamped / 0.02) ** 2)) * 0.011  # the punch pulls the edge down
    face = chamfer(box(u, v, 0.87, 0.87, 0.1), 0.03, 0.7) + rolled + 0.0004 * lines
    text = scene.crop(0, 0.45, 0.34)
    engraved = lettering(text.u, text.v - 0.45, "A-217", 0.14)
    scene.height += (face - scene.height) * alpha
    text.height -= 0.007 * engraved
    text.rgb *= 1 - 0.45 * engraved
    scene.groove[2] += 3.2 * alpha
    scene.area[:], scene.body[:] = solid < -0.05, alpha


_CAPS = tuple((a, b) for b in (-0.46, 0.46) for a in (-0.58, 0.0, 0.58))


def blister(scene: Scene, rng: Generator, fault: Fault | None) -> None:
    """Build a blister pack: six two-coloured capsules in the pockets of an embossed foil."""
    px, n = scene.px, scene.size
    scene.place(
        rng.normal(0, 0.025), rng.normal(0, 0.02), rng.normal(0, 0.02), rng.normal(1, 0.006)
    )
    u, v = scene.u, scene.v
    emboss = np.sin((u + v) * 58) * np.sin((u - v) * 58)
    crumple = clouds(rng, n, 0.5)
    tone = 0.62 + 0.02 * emboss + 0.02 * noise(rng, n, 0.012)
    scene.rgb[:] = np.array([0.98, 0.99, 1.0], np.float32)[:, None, None] * tone
    scene.gloss[:], scene.rough[:], scene.metal[:] = 0.7, 0.3, 0.8
    scene.height += 0.0018 * emboss + 0.002 * crumple
    wrong = int(fault.rng.integers(len(_CAPS))) if fault else -1
    lot = rng.normal(1, 0.025)
    for k, (a, b) in enumerate(_CAPS):
        da, db, spin = rng.normal(0, 0.008), rng.normal(0, 0.02), rng.normal(0, 0.035)
        pocket = scene.crop(a, b, 0.46)
        capsule_fault = fault if fault and k == wrong else None
        _pocket(pocket, a, b)
        if capsule_fault and capsule_fault.kind == "missing_capsule":
            pocket.mark(soft(capsule(pocket.u - a, pocket.v - b, 0.22, 0.2), 2 * px))
            continue
        _capsule(pocket, a + da, b + db, spin, lot, capsule_fault)
    for a, b in _CAPS:  # the clear plastic domes
        pocket = scene.crop(a, b, 0.46)
        d = capsule(pocket.u - a, pocket.v - b, 0.21, 0.21)
        glint = np.exp(-(((pocket.u - a + 0.1) / 0.022) ** 2)) * cover(
            np.abs(pocket.v - b) - 0.2, 0.15
        )
        pocket.paint(glint * 0.3 * cover(d, px), (0.9, 0.9, 0.92), metal=0, shade=1)
    scene.area[:] = np.maximum(np.abs(u), np.abs(v)) < 0.8


def _pocket(site: Scene, a: float, b: float) -> None:
    px = site.px
    d = capsule(site.u - a, site.v - b, 0.21, 0.215)
    inside = cover(d, 1.5 * px)
    site.paint(inside, (0.5, 0.51, 0.53), gloss=0.5, rough=0.25, metal=0.75)
    site.height += (0.03 * np.clip(-d / 0.05, 0, 1) - site.height) * inside
    rim = np.exp(-((d / 0.016) ** 2))
    site.height += 0.014 * rim
    site.shade *= 1 - 0.45 * soft(d + 0.02, 0.1)


def _capsule(site: Scene, a: float, b: float, spin: float, lot: float, fault: Fault | None) -> None:
    px = site.px
    half, radius = 0.19, 0.15
    cu, cv = turn(site.u - a, site.v - b, spin)
    d = capsule(cu, cv, half, radius)
    kind = fault.kind if fault else ""
    if fault and kind == "crushed":
        position, side = fault.rng.uniform(-0.2, 0.2), float(fault.rng.choice([-1, 1]))
        dent = np.exp(-(((cv - position) / 0.09) ** 2) - ((cu - side * radius) / 0.11) ** 2)
        site.mark(soft(d - 0.02, 2 * px) * cover(0.04 - dent, 0.03))
        d = d + fault.mix(0.035, 0.11) * dent
    sx, sy = site.light.shadow(0.09)
    site.shade *= 1 - 0.5 * soft(capsule(cu - sx, cv - sy, half, radius), 0.08)
    alpha = cover(d, 1.4 * px)
    split = 0.03
    red, cream = [0.52 * lot, 0.035, 0.03], [0.78, 0.66 * lot, 0.4]
    if fault and kind == "wrong_color":
        site.mark(soft(capsule(cu, cv, half, radius) - 0.005, 2 * px))
        red = [fault.mix(r, w) for r, w in zip((0.36, 0.06, 0.03), (0.05, 0.12, 0.4), strict=True)]
    tall = np.clip(-d / radius, 0, 1)
    dome = np.sqrt(tall * (2 - tall)) * radius * 0.85
    lap = cover(split - cv, 1.2 * px)
    site.paint(alpha, cream, gloss=0.45, rough=0.13, metal=0, shade=1.0)
    site.paint(alpha * (1 - lap), red)
    dome += 0.012 * soft(split - cv, 0.014)
    site.height += (dome - site.height) * alpha
    site.shade *= 1 - 0.35 * (1 - np.sqrt(tall)) * alpha
    site.paint(alpha * cover(np.abs(cv - split) - 0.005, px * 1.4) * 0.4, (0.15, 0.02, 0.02))
