"""Textured surfaces of the demo set: glazed tile, leather, twill, wood veneer."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from snl.demo.defects import Fault, pixel
from snl.demo.noise import cells, clouds, noise
from snl.demo.scene import Scene, anywhere, backdrop, box, chamfer, cover, disc, drop_shadow, soft


def tile(scene: Scene, rng: Generator, fault: Fault | None) -> None:
    """Build a glazed stoneware tile: a cream glaze with iron specks, brown at the edges."""
    px, n = scene.px, scene.size
    backdrop(scene, rng, (0.16, 0.155, 0.15))
    scene.place(
        rng.normal(0, 0.03), rng.normal(0, 0.015), rng.normal(0, 0.015), rng.normal(1, 0.006)
    )
    wave = 0.006 * noise(rng, n, 0.3)
    u, v = scene.u, scene.v
    d = box(u, v, 0.87, 0.87, 0.06) + wave
    chip = None
    if fault and fault.kind == "chipped_edge":
        side, along = int(fault.rng.integers(4)), fault.rng.uniform(-0.6, 0.6)
        ca, cb = (along, 0.88) if side % 2 else (0.88, along)
        ca, cb = (ca, cb) if side < 2 else (-ca, -cb)
        su, sv = scene.u - ca, scene.v - cb
        ragged = 0.022 * noise(fault.rng, n, 0.07) + 0.01 * noise(fault.rng, n, 0.03)
        chip = disc(su, sv, fault.mix(0.09, 0.22)) + ragged
        scene.mark(soft(np.maximum(chip, d) - 0.006, 2 * px))
    sx, sy = scene.light.shadow(0.09)
    drop_shadow(scene, d, box(u - sx, v - sy, 0.87, 0.87, 0.06))
    alpha = cover(d, 1.3 * px)
    mottle, fine = clouds(rng, n, 0.5), noise(rng, n, 0.018)
    tone = 1 + 0.03 * mottle + 0.02 * fine
    cream = np.array([0.66, 0.6, 0.48], np.float32)[:, None, None] * tone
    scene.paint(alpha, cream, gloss=0.28, rough=0.12, metal=0, shade=1.0)
    brown = soft(-d - 0.035 + 0.01 * mottle, 0.05)
    scene.paint(alpha * brown * 0.75, (0.3, 0.16, 0.07))
    near, _, value = cells(rng, u, v, 0.085)
    size = np.maximum(value - 0.45, 0) * 0.03
    speck = soft(near - size + 0.002 * fine, 0.014) * (value > 0.45)
    scene.paint(alpha * speck * 0.75, (0.1, 0.06, 0.035))
    face = chamfer(d, 0.07, 0.65) + 0.0035 * mottle + 0.0004 * fine
    if chip is not None:
        bare = cover(chip, 1.5 * px) * alpha
        scene.paint(bare, (0.5, 0.27, 0.16), gloss=0.01, metal=0)
        face += np.clip(chip * 0.7, -0.09, 0) * bare + 0.006 * noise(rng, n, 0.03) * bare
    scene.height += (face - scene.height) * alpha
    scene.area[:], scene.body[:] = d < -0.12, alpha


def leather(scene: Scene, rng: Generator, fault: Fault | None) -> None:
    """Build grained brown leather: pebbles of different sizes between fine furrows."""
    n = scene.size
    turned = rng.normal(0, 0.15)
    scene.place(turned, rng.uniform(-1, 1), rng.uniform(-1, 1), rng.normal(1, 0.03))
    u = scene.u + 0.012 * noise(rng, n, 0.12) + 0.05 * noise(rng, n, 0.5)
    v = scene.v + 0.012 * noise(rng, n, 0.12) + 0.05 * noise(rng, n, 0.5)
    _, border, value = cells(rng, u * 1.15, v, 0.06)
    pebble = 1 - np.exp(-((border / 0.02) ** 1.5))
    fine = noise(rng, n, 0.02)
    scene.height += 0.008 * pebble + 0.0018 * fine + 0.02 * noise(rng, n, 0.6) * 0.3
    tone = 0.68 + 0.32 * pebble + 0.1 * (value - 0.5) + 0.03 * fine + 0.05 * clouds(rng, n, 0.8)
    brown = np.array([0.3, 0.135, 0.06], np.float32) * rng.normal(1, 0.03)
    scene.rgb[:] = brown.astype(np.float32)[:, None, None] * tone
    scene.gloss[:] = 0.09 * pebble
    scene.rough[:] = 0.28
    scene.shade *= 0.72 + 0.28 * pebble
    anywhere(scene, 0.2)


def twill(scene: Scene, rng: Generator, fault: Fault | None) -> None:
    """Build a 2/2 twill of wool with dark warp and light weft threads."""
    px, n = scene.px, scene.size
    pitch = 0.072
    scene.place(
        rng.normal(0, 0.04), rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2), rng.normal(1, 0.01)
    )
    a = scene.u / pitch + 0.16 * noise(rng, n, 0.4, 0.9) + 0.05 * noise(rng, n, 0.1)
    b = scene.v / pitch + 0.16 * noise(rng, n, 0.9, 0.4) + 0.05 * noise(rng, n, 0.1)
    i, j = np.floor(a), np.floor(b)
    fa, fb = a - i - 0.5, b - j - 0.5
    step = np.mod(i + j, 4)
    over = step < 2
    plies = rng.normal(0, 1, (4, 96)).astype(np.float32)
    ii, jj = i.astype(np.intp) % 96, j.astype(np.intp) % 96
    warp_fibre = noise(rng, n, 0.05, 0.012, 1.2)
    weft_fibre = noise(rng, n, 0.05, 0.012, 0.35)
    round_a = np.sqrt(np.clip(1 - (fa / (0.5 + 0.02 * plies[0][ii])) ** 2 * 0.92, 0.02, 1))
    round_b = np.sqrt(np.clip(1 - (fb / (0.5 + 0.02 * plies[1][jj])) ** 2 * 0.92, 0.02, 1))
    swell_a = np.sin((step + fb + 0.5) * np.float32(math.pi / 2))
    swell_b = np.sin((step - 2 + fa + 0.5) * np.float32(math.pi / 2))
    h_warp = round_a * (0.35 + 0.65 * np.clip(swell_a, 0, 1))
    h_weft = round_b * (0.35 + 0.65 * np.clip(swell_b, 0, 1))
    if fault and fault.kind == "broken_thread":
        anywhere(scene, 0.2)
        centre = pixel(scene, fault.rng)
        thread = math.floor(float(a.flat[centre])) + 0.5
        span = fault.mix(3, 9)
        missing = np.maximum(np.abs(a - thread) - 0.56, np.abs(b - float(b.flat[centre])) - span)
        frayed = missing + 0.25 * noise(fault.rng, n, 0.05) * (np.abs(a - thread) < 0.4)
        gap = cover(frayed, 0.3)
        over = over & (gap < 0.5)
        h_weft = np.where(gap > 0.5, round_b * 0.4, h_weft)
        scene.mark(cover(missing - 0.15, 2 * px / pitch))
    h = np.where(over, h_warp, h_weft)
    fibre = np.where(over, warp_fibre, weft_fibre)
    lot = rng.normal(1, 0.03)
    dark = np.array([0.035, 0.05, 0.105], np.float32)[:, None, None]
    light = np.array([0.36, 0.37, 0.38], np.float32)[:, None, None]
    warp_tone = 1 + 0.1 * plies[2][ii] + 0.22 * warp_fibre
    weft_tone = 1 + 0.06 * plies[3][jj] + 0.13 * weft_fibre
    scene.rgb[:] = np.where(over, dark * np.float32(lot) * warp_tone, light * weft_tone)
    scene.rgb *= 1 + 0.05 * clouds(rng, n, 0.6)
    scene.height += pitch * 0.3 * h + 0.003 * fibre
    scene.shade *= 0.3 + 0.7 * np.sqrt(np.clip(h, 0, 1))
    scene.gloss[:], scene.rough[:] = 0.02, 0.5
    anywhere(scene, 0.2)


def wood(scene: Scene, rng: Generator, fault: Fault | None) -> None:
    """Build oak veneer with vertical grain: growth rings, open pores, fine fibres."""
    n = scene.size
    lean = rng.normal(0, 0.035)
    scene.place(lean, rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), rng.normal(1, 0.03))
    bend = 0.13 * noise(rng, n, 0.7, 1.8) + 0.02 * noise(rng, n, 0.15, 0.7)
    ring = (scene.u + bend) * rng.normal(5.2, 0.15)
    within = np.mod(ring, 1)
    widths = rng.normal(0, 1, 64).astype(np.float32)[np.floor(ring).astype(np.intp) % 64]
    late = within**2 * (1 - np.clip((within - 0.86) / 0.14, 0, 1))
    upright = math.pi / 2 + lean
    fibre = noise(rng, n, 0.5, 0.011, upright)
    coarse = noise(rng, n, 0.9, 0.05, upright)
    pores = noise(rng, n, 0.09, 0.007, upright)
    early = 1 - np.clip(within / 0.45, 0, 1)  # the large pores of oak are in the early wood
    pore = np.clip((pores - 1.9 + 1.1 * early) * 1.2, 0, 1)
    tone = 1 - 0.3 * late + 0.05 * fibre + 0.04 * coarse + 0.025 * widths
    oak = np.array([0.5, 0.3, 0.145], np.float32) * rng.normal(1, 0.025)
    scene.rgb[:] = oak.astype(np.float32)[:, None, None] * tone
    scene.rgb[2] *= 1 - 0.12 * late
    scene.rgb[1] *= 1 - 0.05 * late
    scene.paint(pore * 0.55, (0.13, 0.065, 0.03))
    scene.height += 0.0012 * fibre - 0.006 * pore + 0.0015 * late
    scene.gloss[:], scene.rough[:] = 0.06, 0.25
    scene.groove[0], scene.groove[1], scene.groove[2] = 0, 1, 2.2
    scene.shade *= 1 - 0.25 * pore
    anywhere(scene, 0.2)
