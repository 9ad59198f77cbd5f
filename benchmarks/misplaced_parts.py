"""Draws parts that are absent, doubled or moved, on a background that is as it should be.

    python -m benchmarks.misplaced_parts misplaced
    snl train misplaced -o misplaced.snl
    snl evaluate misplaced.snl misplaced --json docs/results/misplaced-parts.json

Two products of the demo, with the lights, cameras and tolerances of their normal images, and the
same two on a carrier: a perforated sheet, whose pattern a student may reproduce whether a part lies
on it or not. What is wrong with these images is not in any texture but in what lies where:
`absent`: the bare background; `moved`: the part 15 to 25 % of the image's width away from its
place; `doubled`: a second part that lies over the first, half to two thirds of the width away.
`snl evaluate` shows how many of each kind are flagged.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import snl
from benchmarks.common import new_parser, run_main
from snl.demo.parts import PARTS
from snl.demo.scene import Light, Scene, cover, disc, illuminate, photograph, turn

PARTS_DRAWN = ("gear", "plate")
CARRIED = "_on_carrier"
PRODUCTS = (*PARTS_DRAWN, *(name + CARRIED for name in PARTS_DRAWN))
KINDS = ("absent", "moved", "doubled")
OUTSIDE = 8.0
"""Shift that takes a part and its shadow out of the image, whose sides run from -1 to 1."""


def image_of(product: str, kind: str, number: int, size: int, seed: int) -> NDArray[np.uint8]:
    """Return an image, uint8 (size, size, 3), of a part: absent, moved, doubled or `good`."""
    key = [seed, PRODUCTS.index(product), (*KINDS, "good").index(kind), number]
    rng = np.random.default_rng(key)
    part = product.removesuffix(CARRIED)
    state = rng.bit_generator.state  # the same part, light and background in every scene
    angle = rng.uniform(0, 2 * math.pi)
    length = {"absent": OUTSIDE, "moved": rng.uniform(0.3, 0.5), "doubled": rng.uniform(1, 1.33)}
    length["good"] = 0.0
    shift = length[kind] * math.cos(angle), length[kind] * math.sin(angle)

    def scene(dx: float, dy: float) -> Scene:
        rng.bit_generator.state = state
        drawn = Scene.empty(size, Light.draw(rng))
        drawn.place = shifted(drawn.place, dx, dy)  # type: ignore[method-assign]
        PARTS[part].build(drawn, rng, None)
        return drawn

    other = scene(*shift)
    light, body = illuminate(other), other.body
    if kind == "doubled":
        first = scene(0, 0)
        light = illuminate(first) * (1 - body) + light * body
        body = np.maximum(body, first.body)
    if part != product:
        light = light * body + carrier(other, np.random.default_rng([*key, 1])) * (1 - body)
    return photograph(light, np.random.default_rng([seed, number]))


def carrier(scene: Scene, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the light (size, size) of a perforated sheet, turned and moved a little."""
    u, v = turn(scene.x, scene.y, rng.uniform(-0.1, 0.1))
    pitch = 0.2
    u, v = ((a + rng.uniform(0, pitch)) % pitch - pitch / 2 for a in (u, v))
    hole = cover(disc(u, v, 0.06), 2 * scene.px)
    rim = cover(np.abs(disc(u, v, 0.068)) - 0.008, 2 * scene.px)
    level = rng.uniform(0.28, 0.34)
    sheet = (level + 0.12 * rim) * (1 - hole) + 0.03 * hole
    return np.asarray(sheet * scene.shade, np.float32)


def shifted(place: Callable[..., None], dx: float, dy: float) -> Callable[..., None]:
    """Return `Scene.place` with a shift added."""

    @functools.wraps(place)
    def changed(angle: float, x: float, y: float, scale: float = 1) -> None:
        place(angle, x + dx, y + dy, scale)

    return changed


def draw(root: Path, images: int, size: int, seed: int) -> None:
    """Write the data set: 60 normal images of each product to train on, and `images` of each kind,
    `good` included, in `test`."""
    snl.make_demo(
        root, seed=seed, size=size, n_train=60, n_good=images, n_defect=0, products=PARTS_DRAWN
    )
    for product in PRODUCTS:
        for kind in KINDS:
            _draw(root / product / "test" / kind, product, kind, range(images), size, seed)
        if product not in PARTS_DRAWN:
            train = range(images, images + 60)
            _draw(root / product / "train" / "good", product, "good", train, size, seed)
            _draw(root / product / "test" / "good", product, "good", range(images), size, seed)


def _draw(
    folder: Path, product: str, kind: str, numbers: Iterable[int], size: int, seed: int
) -> None:
    folder.mkdir(parents=True)
    for number in numbers:
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
