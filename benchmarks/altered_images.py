"""Real images with the part taken out, moved or doubled.

    python -m benchmarks.altered_images DATA altered --products circuitboard,metal_plate
    snl evaluate parts.snl altered --json altered.json

For products whose part lies on a plain background that reaches the corners of the image. `absent`:
the corner with the least variation, mirrored over the whole image. `moved`: the part on that
background, a fifth to a third of the width away from its place. `doubled`: the image with a second
copy of its part, a quarter to a half of the width away. The part is what differs from the corner by
more than Otsu's threshold, with soft edges. Normal test images are copied as `good`. Look at the
images before you believe a figure: where a part touches every corner, or is as dark as its
background, they are wrong.
"""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import snl
from benchmarks.common import log, names_of, new_parser, run_main
from snl.errors import SnlError

KINDS = ("absent", "moved", "doubled")
CORNER = 0.15
"""Side of a corner, as a share of the image's."""
DISTANCES = {"moved": (0.2, 0.33), "doubled": (0.25, 0.5)}
"""From the part's place, as shares of the width."""

Pixels = NDArray[np.float32]


def altered(pixels: Pixels, kind: str, rng: np.random.Generator) -> Pixels:
    """Return an image (H, W, 3), 0..255, with its part absent, moved or doubled."""
    corner = plainest_corner(pixels)
    empty = mirrored(corner, pixels.shape[0], pixels.shape[1])
    if kind == "absent":
        return empty
    part = part_of(pixels, corner)
    angle, width = rng.uniform(0, 2 * math.pi), pixels.shape[1]
    length = rng.uniform(*DISTANCES[kind]) * width
    shift = round(length * math.sin(angle)), round(length * math.cos(angle))
    moved, mask = shifted(pixels, shift), shifted(part, shift)
    below = empty if kind == "moved" else pixels
    return mask * moved + (1 - mask) * below


def plainest_corner(pixels: Pixels) -> Pixels:
    """Return the corner with the least standard deviation."""
    height, width = (max(8, round(CORNER * side)) for side in pixels.shape[:2])
    corners = [pixels[:height, :width], pixels[:height, -width:]]
    corners += [pixels[-height:, :width], pixels[-height:, -width:]]
    return min(corners, key=lambda c: float(c.std((0, 1)).sum()))


def mirrored(corner: Pixels, height: int, width: int) -> Pixels:
    """Return an image (height, width, 3) of a corner, mirrored at its edges again and again."""

    def places(side: int, own: int) -> NDArray[np.intp]:
        place = np.arange(side) % (2 * own)
        return np.minimum(place, 2 * own - 1 - place)

    return corner[places(height, len(corner))][:, places(width, corner.shape[1])]


def part_of(pixels: Pixels, corner: Pixels) -> Pixels:
    """Return the mask (H, W, 1) of the part, 0..1, with soft edges.

    Raises:
        SnlError: nothing differs from the corner.
    """
    from scipy import ndimage
    from skimage import filters

    otsu: Callable[[Pixels], float] = filters.threshold_otsu
    difference = np.abs(pixels - corner.mean((0, 1))).sum(2)
    if difference.max() <= 0:
        raise SnlError("an image is of one colour; there is no part in it")
    found = difference > otsu(difference)
    labels, count = ndimage.label(ndimage.binary_closing(found, iterations=3))
    if count == 0:
        raise SnlError("no part stands out from the background; leave this product out")
    sizes = ndimage.sum_labels(found, labels, range(1, count + 1))
    largest = ndimage.binary_fill_holes(labels == 1 + int(np.argmax(sizes)))
    side = max(pixels.shape[:2])
    wider = ndimage.binary_dilation(largest, iterations=max(1, side // 128))
    soft: Pixels = ndimage.gaussian_filter(wider.astype(np.float32), side / 256)[..., None]
    return soft


def shifted(array: Pixels, shift: tuple[int, int]) -> Pixels:
    """Return an array (H, W, C) moved by (rows, columns), zero where nothing comes from."""
    height, width = array.shape[:2]
    moved = np.zeros_like(array)
    dy, dx = shift
    target = slice(max(dy, 0), min(height, height + dy)), slice(max(dx, 0), min(width, width + dx))
    source = (
        slice(max(-dy, 0), min(height, height - dy)),
        slice(max(-dx, 0), min(width, width - dx)),
    )
    moved[target] = array[source]
    return moved


def write(data: Path, root: Path, products: list[str], images: int, seed: int) -> None:
    """Write `images` of each kind of every product, and its normal test images."""
    if root.exists():
        raise SnlError(f"{root} exists already; give a new folder")
    records = snl.Catalog.read(data).test()
    for number, product in enumerate(products):
        normal = [r.path for r in records if r.product == product and r.label == "normal"]
        if not normal:
            raise SnlError(f"{data}: no normal test images of '{product}'")
        log(f"{product}: {min(images, len(normal))} images of each kind")
        for kind in KINDS:
            folder = root / product / "test" / kind
            folder.mkdir(parents=True)
            for place, path in enumerate(normal[:images]):
                rng = np.random.default_rng([seed, number, KINDS.index(kind), place])
                with Image.open(path) as opened:
                    pixels = np.asarray(opened.convert("RGB"), np.float32)
                changed = altered(pixels, kind, rng).round().clip(0, 255).astype(np.uint8)
                Image.fromarray(changed).save(folder / f"{place:03d}.png")
        good = root / product / "test" / "good"
        good.mkdir(parents=True)
        for path in normal:
            shutil.copy2(path, good / path.name)


def parser() -> argparse.ArgumentParser:
    parser = new_parser("altered_images", __doc__)
    parser.add_argument("data", type=Path, help="data set with normal test images")
    parser.add_argument("folder", type=Path, help="new folder for the altered images")
    parser.add_argument("--products", type=names_of, required=True, help="comma-separated")
    parser.add_argument("--images", type=int, default=20, help="of each kind and product")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main() -> None:
    options = parser().parse_args()
    write(options.data, options.folder, list(options.products), options.images, options.seed)


if __name__ == "__main__":
    run_main(main)
