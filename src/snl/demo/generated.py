"""Generated products of the demo set: any number of part designs, drawn from random numbers.

A design is everything that all images of a product share: outline, material, holes, markings,
background and kinds of defects. It depends only on the seed and the product's number. Of three
consecutive products, the third is a variant of the second: the same outline and background, but
other holes, markings and a slightly different colour.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from numpy.random import Generator

from snl.demo import defects
from snl.demo.defects import Defect, Fault
from snl.demo.generated_marks import Mark, draw_marks, print_marks
from snl.demo.generated_shapes import Hole, Layout, Outline, draw_holes, draw_outline
from snl.demo.generated_surfaces import (
    SURFACES,
    Color,
    Material,
    draw_material,
    reflectance,
    second_color,
)
from snl.demo.noise import Array, noise
from snl.demo.parts import Product
from snl.demo.scene import (
    Scene,
    anywhere,
    backdrop,
    chamfer,
    cover,
    disc,
    drop_shadow,
    soft,
)

MAX_PRODUCTS = 10_000
"""Largest number of generated products."""

GENERATED_SUBTLEST = 0.4
"""Lowest level of defects of generated products, from 0 (subtle) to 1 (obvious).

It is lower than that of the hand-made products, whose image AUROC is near 1: generated products
compare methods, and a difference between methods is visible only if the defects are hard. With this
value a small model reaches an image AUROC of about 0.87 on nine products; still lower, many defects
are invisible in the camera's noise.
"""

_ENGRAVED = ("brushed", "turned", "plain")
"""Materials on which an engraving is legible."""
_NAME = re.compile(r"part_(\d{3,5})")


def part_names(count: int) -> list[str]:
    """Return the names of the first `count` generated products: `part_000`, `part_001`, ...

    All names have the same width, at least three digits.
    """
    width = max(3, len(str(count - 1)))
    return [f"part_{number:0{width}d}" for number in range(count)]


def part_number(name: str) -> int | None:
    """Return the number of a generated product, or None if `name` is not the name of one."""
    match = _NAME.fullmatch(name)
    number = int(match[1]) if match else MAX_PRODUCTS
    return number if number < MAX_PRODUCTS else None


@dataclass(frozen=True)
class Design:
    """What all images of a generated product have in common."""

    outline: Outline
    material: Material
    holes: tuple[Hole, ...]
    marks: tuple[Mark, ...]
    background: Color
    angle: float
    """Angle of the part in the image, radians."""
    play: float
    """Standard deviation of that angle between images, radians."""
    thickness: float
    """Length of the cast shadow is proportional to it."""
    edge: float
    """Width of the rounded edge."""
    defects: tuple[str, ...]
    """Three or four kinds."""


def draw_design(seed: int, number: int) -> Design:
    """Return the design of a generated product, which depends on nothing but the two numbers.

    Args:
        seed: seed of the set.
        number: number of the product, 0 or more.
    """
    base = number - 1 if number % 3 == 2 else number  # see the module's docstring
    shared, own = np.random.default_rng([seed, base, 0]), np.random.default_rng([seed, number, 1])
    outline = draw_outline(shared)
    families = list(SURFACES)
    if outline.fills_image:
        families.remove("turned")
    elif not outline.is_round:
        families = [name for name in families if name not in ("turned", "fabric")]
    material = draw_material(shared, str(shared.choice(families)))
    bright = math.sqrt(material.luminance)
    step = shared.uniform(0.3, 0.5)
    value = bright - step if bright - step > 0.12 else min(bright + step, 0.85)
    background = reflectance(shared.random(), shared.uniform(0.0, 0.25), value)
    red, green, blue = (c * own.uniform(0.85, 1.15) for c in material.color)
    material = replace(material, color=(red, green, blue))
    room = math.hypot(outline.a, outline.b) < 0.98 or outline.is_round
    quarter = 24 if room else 2
    angle = float(shared.integers(quarter)) * 2 * math.pi / (24 if room else 4)
    play, thickness, edge = shared.uniform((0.01, 0.03, 0.02), (0.05, 0.11, 0.06)).tolist()
    layout = Layout(outline)
    holes = draw_holes(own, layout) if not outline.fills_image or own.random() < 0.3 else ()
    ink = second_color(own, material.color)
    marks = draw_marks(own, layout, ink, material.family in _ENGRAVED and bright > 0.35)
    design = Design(outline, material, holes, marks, background, angle, play, thickness, edge, ())
    return replace(design, defects=_draw_defects(own, design))


def _draw_defects(rng: Generator, design: Design) -> tuple[str, ...]:
    """Return three or four kinds of defects; at most two are structural."""
    structural = []
    if design.holes:
        structural += ["missing_hole", "misplaced_hole"]
    if design.marks:
        structural += ["missing_print", "wrong_print"]
    if not design.outline.fills_image:
        structural += ["chipped_edge"]
    on_surface = list(surface_defects(design.material))
    count = min(int(rng.integers(1, 3)), len(structural))
    kinds = rng.permutation(structural)[:count].tolist() if structural else []
    kinds += rng.permutation(on_surface)[: int(rng.integers(3, 5)) - count].tolist()
    return tuple(sorted(kinds))


def surface_defects(material: Material) -> dict[str, Defect]:
    """Return the defects that a material may have, by kind."""
    dark = material.luminance < 0.15
    fibre = (0.6, 0.57, 0.52) if dark else (0.025, 0.02, 0.016)
    dirt = (0.4, 0.35, 0.28) if dark else (0.12, 0.09, 0.06)
    inner = tuple(0.35 * c for c in material.color)
    found = {
        "hair": defects.hair(fibre),
        "deposit": defects.deposit(dirt, gloss=0.15, size=(0.05, 0.11), thick=0.05),
    }
    if not dark:
        found["stain"] = defects.stain((0.55, 0.47, 0.36), size=(0.09, 0.22))
    if material.family in ("fabric", "grained"):
        found["cut"] = defects.cut(inner, (0.008, 0.025))
        found["hole"] = defects.hole((0.012, 0.012, 0.012), inner, (0.025, 0.08))
        return found
    found["scratch"] = defects.scratch(-0.35 if material.luminance > 0.35 else 0.35)
    if material.family in ("brushed", "turned", "plain"):
        found["dent"] = defects.dent((0.08, 0.15), (0.15, 0.5))
    if not material.is_metal or material.family == "cast":
        found["crack"] = defects.crack((0.02, 0.017, 0.015), width=(0.006, 0.014))
    return found


@lru_cache(maxsize=256)
def generated_part(seed: int, number: int) -> Product:
    """Return a generated product: how to build it and its defects."""
    design = draw_design(seed, number)
    painted = surface_defects(design.material)
    return Product(
        build=partial(build, design),
        defects={kind: painted.get(kind) for kind in design.defects},
        subtlest=GENERATED_SUBTLEST,
    )


def build(design: Design, scene: Scene, rng: Generator, fault: Fault | None) -> None:
    """Build a part of a design, with the tolerances of one image and the structural defect given.

    `rng` gives the same numbers with and without a defect.
    """
    px, outline, material = scene.px, design.outline, design.material
    backdrop(scene, rng, design.background)
    turned = design.angle + float(rng.normal(0, design.play))
    dx, dy = rng.normal(0, 0.018, 2).tolist()
    scene.place(turned, dx, dy, rng.normal(1, 0.007))
    u, v = scene.u, scene.v
    edge = outline.distance(u, v)
    holes = _stamp(scene, design.holes, rng, fault)
    solid = np.maximum(edge, -holes)
    if fault and fault.kind == "chipped_edge":
        chip = _chip(scene, edge, fault)
        scene.mark(soft(np.maximum(chip, edge) - 0.02, 2 * px))
        solid = np.maximum(solid, -chip)
    c, s = math.cos(turned), math.sin(turned)
    sx, sy = scene.light.shadow(design.thickness)
    drop_shadow(scene, solid, outline.distance(u - c * sx - s * sy, v - c * sy + s * sx))
    scene.shade *= 1 - 0.45 * soft(holes - 0.02, 0.1)

    alpha = cover(solid, 1.3 * px)
    lot = float(rng.normal(1, 0.02))
    finish = SURFACES[material.family](material, scene, rng, turned)
    metal = 0.9 if material.is_metal else 0.0
    scene.paint(
        alpha, finish.rgb * lot, gloss=material.gloss, rough=material.rough, metal=metal, shade=1.0
    )
    scene.shade *= 1 - alpha * (1 - finish.shade)
    face = chamfer(solid, design.edge, 0.7) + finish.height
    scene.height += (face - scene.height) * alpha
    scene.groove[2] += (finish.stretch - 1) * alpha
    if outline.fills_image:
        anywhere(scene, 0.2)
        scene.area *= solid < -0.04
    else:
        scene.area[:] = solid < max(-0.05, 0.6 * float(solid.min()))
    print_marks(scene, design.marks, alpha, rng, fault)
    scene.body[:] = alpha


def _stamp(scene: Scene, holes: tuple[Hole, ...], rng: Generator, fault: Fault | None) -> Array:
    """Return the signed distance to the nearest hole, with the tolerances of a punch."""
    stamped = np.full_like(scene.u, 9)
    wrong = -1
    if fault and fault.kind in ("missing_hole", "misplaced_hole"):
        wrong = int(fault.rng.integers(len(holes)))
    for k, hole in enumerate(holes):
        du, dv, grow = rng.normal(0, 0.003, 3).tolist()
        d = hole.distance(scene.u, scene.v, du, dv, grow)
        if fault and k == wrong:
            support = d
            if fault.kind == "missing_hole":
                d = np.full_like(d, 9)
            else:
                direction, shift = fault.rng.uniform(0, 2 * math.pi), fault.mix(0.02, 0.1)
                du, dv = du + shift * math.cos(direction), dv + shift * math.sin(direction)
                d = hole.distance(scene.u, scene.v, du, dv, grow)
            scene.mark(soft(np.minimum(support, d) - 0.05, 2 * scene.px))
        stamped = np.minimum(stamped, d)
    return stamped


def _chip(scene: Scene, edge: Array, fault: Fault) -> Array:
    """Return the signed distance to a piece that broke off the edge of a part."""
    rim = np.flatnonzero((np.abs(edge) < scene.px) & (np.abs(scene.x) < 0.9))
    at = int(rim[fault.rng.integers(len(rim))])
    ragged = 0.018 * noise(fault.rng, scene.size, 0.06)
    x, y = float(scene.x.flat[at]), float(scene.y.flat[at])
    return disc(scene.x - x, scene.y - y, fault.mix(0.04, 0.17)) + ragged
