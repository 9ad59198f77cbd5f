"""Draws parts that are absent, doubled or moved, on a background that is as it should be.

    python -m benchmarks.misplaced_parts misplaced
    snl train misplaced -o misplaced.snl
    snl evaluate misplaced.snl misplaced --json docs/results/misplaced-parts.json

Two products of the demo, with the lights, cameras and tolerances of their normal images. What is
wrong with these images is not in any texture but in what lies where: `absent`: the bare background;
`moved`: the part 15 to 25 % of the image's width away from its place; `doubled`: a second part that
lies over the first, half to two thirds of the width away. `snl evaluate` shows how many of each
kind are flagged.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import snl
from benchmarks.common import new_parser, run_main
from snl.demo.parts import PARTS
from snl.demo.scene import Light, Scene, illuminate, photograph

PRODUCTS = ("gear", "plate")
KINDS = ("absent", "moved", "doubled")
OUTSIDE = 8.0
"""Shift that takes a part and its shadow out of the image, whose sides run from -1 to 1."""


def image_of(product: str, kind: str, number: int, size: int, seed: int) -> NDArray[np.uint8]:
    """Return an image, uint8 (size, size, 3), of a part that is absent, moved or doubled."""
    rng = np.random.default_rng([seed, PRODUCTS.index(product), KINDS.index(kind), number])
    state = rng.bit_generator.state  # the same part, light and background in every scene
    angle = rng.uniform(0, 2 * math.pi)
    length = {"absent": OUTSIDE, "moved": rng.uniform(0.3, 0.5), "doubled": rng.uniform(1, 1.33)}
    shift = length[kind] * math.cos(angle), length[kind] * math.sin(angle)

    def scene(dx: float, dy: float) -> Scene:
        rng.bit_generator.state = state
        drawn = Scene.empty(size, Light.draw(rng))
        drawn.place = shifted(drawn.place, dx, dy)  # type: ignore[method-assign]
        PARTS[product].build(drawn, rng, None)
        return drawn

    other = scene(*shift)
    light = illuminate(other)
    if kind == "doubled":
        light = illuminate(scene(0, 0)) * (1 - other.body) + light * other.body
    return photograph(light, np.random.default_rng([seed, number]))


def shifted(place: Callable[..., None], dx: float, dy: float) -> Callable[..., None]:
    """Return `Scene.place` with a shift added."""

    @functools.wraps(place)
    def changed(angle: float, x: float, y: float, scale: float = 1) -> None:
        place(angle, x + dx, y + dy, scale)

    return changed


def draw(root: Path, images: int, size: int, seed: int) -> None:
    """Write the data set: normal images of the demo, and the altered ones in `test`."""
    snl.make_demo(
        root, seed=seed, size=size, n_train=60, n_good=images, n_defect=0, products=PRODUCTS
    )
    for product in PRODUCTS:
        for kind in KINDS:
            folder = root / product / "test" / kind
            folder.mkdir(parents=True)
            for number in range(images):
                pixels = image_of(product, kind, number, size, seed)
                Image.fromarray(pixels).save(folder / f"{number:03d}.png")


def parser() -> argparse.ArgumentParser:
    parser = new_parser("misplaced_parts", __doc__)
    parser.add_argument("folder", type=Path, help="new folder for the data set")
    parser.add_argument("--images", type=int, default=30, help="test images of each kind")
    parser.add_argument("--size", type=int, default=256, help="side of an image in pixels")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main() -> None:
    options = parser().parse_args()
    draw(options.folder, options.images, options.size, options.seed)


if __name__ == "__main__":
    run_main(main)
