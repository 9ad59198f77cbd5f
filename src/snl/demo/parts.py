"""The products of the demo set and the kinds of defects of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from numpy.random import Generator

from snl.demo import defects, objects, surfaces
from snl.demo.circuit import circuit
from snl.demo.defects import Defect, Fault
from snl.demo.scene import Scene

SUBTLEST = 0.6
"""Lowest level of defects, from 0 (subtle) to 1 (obvious): a person sees all at a glance."""


@dataclass(frozen=True)
class Product:
    """How to build and damage a product."""

    build: Callable[[Scene, Generator, Fault | None], None]
    """Paints the part into a scene, with the structural defect given, if any."""
    defects: Mapping[str, Defect | None]
    """By kind; None: a structural defect, which `build` makes."""
    subtlest: float = SUBTLEST
    """Lowest level of its defects; the highest is 1."""


PARTS: Mapping[str, Product] = {
    "blister": Product(
        objects.blister,
        {
            "missing_capsule": None,
            "crushed": None,
            "wrong_color": None,
            "hair": defects.hair((0.02, 0.015, 0.012)),
        },
    ),
    "circuit": Product(
        circuit,
        {
            "missing_part": None,
            "misplaced_part": None,
            "solder_bridge": None,
            "scratch": defects.scratch(0.22),
        },
    ),
    "gear": Product(
        objects.gear,
        {"broken_tooth": None, "scratch": defects.scratch(0.3), "rust": defects.rust},
    ),
    "leather": Product(
        surfaces.leather,
        {
            "cut": defects.cut((0.45, 0.3, 0.2), (0.012, 0.035)),
            "crease": defects.crease,
            "glue": defects.deposit((0.5, 0.38, 0.2), gloss=0.4, size=(0.08, 0.16), thick=0.05),
            "stain": defects.stain((0.42, 0.45, 0.55)),
        },
    ),
    "plate": Product(
        objects.plate,
        {
            "dent": defects.dent((0.08, 0.15), (0.1, 0.3)),
            "misplaced_hole": None,
            "missing_hole": None,
            "scratch": defects.scratch(0.3),
        },
    ),
    "tile": Product(
        surfaces.tile,
        {
            "chipped_edge": None,
            "crack": defects.crack((0.07, 0.05, 0.04), width=(0.003, 0.007)),
            "stain": defects.stain((0.72, 0.66, 0.5)),
        },
    ),
    "twill": Product(
        surfaces.twill,
        {
            "broken_thread": None,
            "hole": defects.hole((0.012, 0.012, 0.014), (0.12, 0.125, 0.14), (0.05, 0.11)),
            "stain": defects.stain((0.3, 0.22, 0.13), size=(0.15, 0.3)),
        },
    ),
    "wood": Product(
        surfaces.wood,
        {
            "crack": defects.crack((0.03, 0.016, 0.008), width=(0.009, 0.018), angle=math.pi / 2),
            "hole": defects.hole((0.02, 0.011, 0.006), (0.2, 0.1, 0.05), (0.022, 0.06)),
            "scratch": defects.scratch(0.35, angle=0.0),
            "stain": defects.stain((0.35, 0.33, 0.36)),
        },
    ),
}
