"""The demo data set: generated images of parts, in the layout of MVTec AD.

There are eight hand-made products and any number of generated ones (`snl.demo.generated`).

An anomalous image is a new normal image to which a defect is added; its mask is the support of the
defect and therefore exact. Every image has its own random generator, seeded with seed, product,
split, kind and number: with other counts or fewer products the images are the same.
"""

from __future__ import annotations

import ast
import itertools
import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from snl.demo.defects import Fault
from snl.demo.generated import MAX_PRODUCTS, generated_part, part_names, part_number
from snl.demo.noise import Array
from snl.demo.parts import PARTS, Product
from snl.demo.scene import Light, Scene, illuminate, photograph
from snl.errors import DataError, SettingsError
from snl.temporary import temporary_folder

PRODUCTS: tuple[str, ...] = tuple(PARTS)
DEFECTS: Mapping[str, tuple[str, ...]] = {name: tuple(p.defects) for name, p in PARTS.items()}
"""The hand-made products and their kinds of defects."""

Key = tuple[str, str, str, int]
"""An image: product, split, kind, number."""

_README = """\
Demo data set for visual anomaly detection
==========================================

All images in this folder are generated; none is a photograph and the parts do not exist.
Layout: <product>/train/good, <product>/test/good, <product>/test/<defect>,
<product>/ground_truth/<defect>/*_mask.png (255 where the defect is, 0 elsewhere).

Created with
    snl.make_demo(root, seed={seed}, size={size}, n_train={n_train}, n_good={n_good}, \
n_defect={n_defect}, products={products})
With the same versions of NumPy and SciPy, the same call creates the same files, byte for byte.

Licence: CC0 1.0, public domain (https://creativecommons.org/publicdomain/zero/1.0/).
"""


@dataclass(frozen=True)
class DemoImage:
    """One image of the set, its mask, and the same image without the defect."""

    image: NDArray[np.uint8]
    """(N, N, 3) RGB."""
    clean: NDArray[np.uint8]
    """(N, N, 3) RGB: the same part, light and sensor noise without the defect."""
    mask: NDArray[np.uint8]
    """(N, N): 255 at the defect, 0 elsewhere."""


def demo_image(
    product: str,
    kind: str = "good",
    index: int = 0,
    *,
    split: str = "test",
    seed: int = 0,
    size: int = 256,
) -> DemoImage:
    """Return one image of the demo set, identical to the file that `make_demo` writes.

    Args:
        product: one of `PRODUCTS`, or a generated one: `part_000` to `part_9999`.
        kind: `good`, or a key of `part_of(product, seed).defects`.
        index: number of the image in its folder.
        split: `train` or `test`.
        seed: seed of the set.
        size: side in pixels, 64 or more.

    Raises:
        SettingsError: unknown product, kind or split; size or seed out of range.

    >>> int(demo_image("gear", "rust", size=64).mask.max())
    255
    """
    _check(seed, size, {"index": index}, [product])
    if split not in ("train", "test"):
        raise SettingsError(f"split is {split!r}; use train or test")
    kinds = part_of(product, seed).defects
    if kind != "good" and kind not in kinds:
        raise SettingsError(
            f"product '{product}' has no defect '{kind}'; use good, {', '.join(kinds)}"
        )
    key = (product, split, kind, index)
    normal, anomalous, mask = _render(key, seed, size)
    clean = photograph(normal, _generator(seed, key, "camera"))
    image = clean if kind == "good" else photograph(anomalous, _generator(seed, key, "camera"))
    return DemoImage(image, clean, mask)


def part_of(product: str, seed: int) -> Product:
    """Return how to build a product and its defects.

    Args:
        product: the name of a hand-made or generated product.
        seed: seed of the set; generated products depend on it.

    Raises:
        SettingsError: no such product.
    """
    if product in PARTS:
        return PARTS[product]
    number = part_number(product)
    if number is None:
        raise SettingsError(
            f"the demo set has no product '{product}'; use {', '.join(PRODUCTS)}, "
            f"or part_000 to part_{MAX_PRODUCTS - 1}"
        )
    return generated_part(int(seed), number)


def make_demo(
    root: str | Path,
    *,
    seed: int = 0,
    size: int = 256,
    n_train: int = 60,
    n_good: int = 12,
    n_defect: int = 6,
    products: int | Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the demo set to a new or empty folder and return its path.

    Args:
        root: the folder; it is created if it does not exist.
        seed: 0 or more; the same seed gives the same files, byte for byte.
        size: side of the images in pixels, 64 or more.
        n_train: normal training images, per product.
        n_good: normal test images, per product.
        n_defect: anomalous test images, per product and kind of defect.
        products: a number of generated products, 1 to 10,000, or names; None: the hand-made
            products. A generated product is the same whatever their number is.
        progress: called with (images done, images in total) after every image.

    Returns:
        The folder.

    Raises:
        DataError: the folder is not empty or cannot be written.
        SettingsError: an unknown product, or a number out of range.

    If writing fails or is interrupted, no files are left behind.

    Example:
        >>> folder = snl.make_demo("demo-parts", products=["gear"], size=64)
    """
    counts = {"n_train": n_train, "n_good": n_good, "n_defect": n_defect}
    selected = _names(products)
    _check(seed, size, counts, selected)
    root = Path(root)
    described = len(selected) if isinstance(products, (int, np.integer)) else list(selected)
    text = _README.format(seed=seed, size=size, products=described, **counts)
    try:
        target = root.resolve()
        _check_target(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(target.name, target.parent) as temporary:
            draft = temporary / target.name
            draft.mkdir()
            _write_all(draft, _plan(selected, seed, **counts), seed, size, progress)
            (draft / "README.txt").write_text(text, encoding="utf-8")
            if target.exists():
                target.rmdir()
            draft.rename(target)
    except OSError as error:
        raise DataError(
            f"cannot write the demo set to '{root}': {error.strerror or error}; "
            "choose a writable folder on a disk with enough free space"
        ) from error
    return root


def made_with(root: Path) -> dict[str, Any]:
    """Return the arguments with which `make_demo` made the set in a folder, as its README says.

    They are empty if the README says nothing about them.
    """
    text = (root / "README.txt").read_text(encoding="utf-8", errors="replace")
    call = re.search(r"^ *snl\.make_demo\(root, .*\)$", text, re.MULTILINE)
    if call is None:
        return {}
    try:
        expression = ast.parse(call[0].strip(), mode="eval").body
        keywords = expression.keywords if isinstance(expression, ast.Call) else []
        return {word.arg: ast.literal_eval(word.value) for word in keywords if word.arg}
    except (SyntaxError, ValueError):
        return {}


def _names(products: int | Sequence[str] | None) -> Sequence[str]:
    """Return the names of the products that the argument of `make_demo` means."""
    if products is None:
        return PRODUCTS
    if not isinstance(products, (int, np.integer)):
        return products
    if isinstance(products, bool) or not 1 <= products <= MAX_PRODUCTS:
        raise SettingsError(
            f"products is {products!r}; use a number from 1 to {MAX_PRODUCTS}, or a list of names"
        )
    return part_names(int(products))


def _check(seed: int, size: int, counts: Mapping[str, int], products: Sequence[str]) -> None:
    for name, value, minimum in [("seed", seed, 0), ("size", size, 64)] + [
        (name, value, 0) for name, value in counts.items()
    ]:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
            raise SettingsError(f"{name} is {value!r}; use an integer of {minimum} or more")
    if isinstance(products, str) or not products:
        raise SettingsError(
            f"products is {products!r}; give a list with names from {', '.join(PRODUCTS)}"
        )
    for product in products:
        if part_number(product) is None:  # generated products are drawn when they are needed
            part_of(product, seed)
    if len(set(products)) < len(products):
        raise SettingsError(
            f"products has a name twice: {', '.join(products)}; give each name once"
        )


def _check_target(root: Path) -> None:
    if root.is_dir() and not any(root.iterdir()):
        return
    if root.exists():
        what = "is not empty" if root.is_dir() else "is not a folder"
        raise DataError(f"'{root}' {what}; give a new or empty folder for the demo set")


def _plan(
    products: Sequence[str], seed: int, n_train: int, n_good: int, n_defect: int
) -> dict[tuple[str, str, str], int]:
    """Return the folders to write, (product, split, kind), and the number of images in each."""
    plan: dict[tuple[str, str, str], int] = {}
    for product in products:
        plan[product, "train", "good"] = n_train
        plan[product, "test", "good"] = n_good
        plan |= {(product, "test", kind): n_defect for kind in part_of(product, seed).defects}
    return {folder: count for folder, count in plan.items() if count}


def _write_all(
    draft: Path,
    plan: Mapping[tuple[str, str, str], int],
    seed: int,
    size: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    for product, split, kind in plan:
        (draft / product / split / kind).mkdir(parents=True)
        if kind != "good":
            (draft / product / "ground_truth" / kind).mkdir(parents=True)
    keys = ((*folder, index) for folder, count in plan.items() for index in range(count))
    workers, done, total = min(8, os.cpu_count() or 1), 0, sum(plan.values())
    pool = ThreadPoolExecutor(workers)
    try:
        pending: set[Future[None]] = set()
        while done < total:
            # Few at a time, so that a large set needs no more memory than a small one.
            for key in itertools.islice(keys, 4 * workers - len(pending)):
                pending.add(pool.submit(_write_one, draft, key, seed, size))
            completed, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in completed:
                future.result()
                done += 1
                if progress is not None:
                    progress(done, total)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _render(key: Key, seed: int, size: int) -> tuple[Array, Array, NDArray[np.uint8]]:
    """Return the light on the sensor without and with the defect, (3, N, N), and the mask."""
    product, _, kind, index = key
    part = part_of(product, seed)

    def build(fault: Fault | None) -> Scene:
        rng = _generator(seed, key, "part")
        scene = Scene.empty(size, Light.draw(rng))
        part.build(scene, rng, fault)
        return scene

    scene = build(None)
    normal = illuminate(scene)
    if kind == "good":
        return normal, normal, np.zeros((size, size), np.uint8)
    # Levels are a golden-ratio sequence: consecutive images cover the range evenly.
    start = _generator(seed, (product, kind), "level").uniform()
    level = part.subtlest + (1 - part.subtlest) * ((start + 0.618034 * index) % 1)
    fault = Fault(kind, level, _generator(seed, key, "defect"))
    paint = part.defects[kind]
    if paint is None:
        scene = build(fault)
    else:
        paint(scene, fault)
        scene.fault *= scene.body
    anomalous = normal + (illuminate(scene) - normal) * scene.fault
    return normal, anomalous, np.where(scene.fault > 0.1, 255, 0).astype(np.uint8)


def _write_one(draft: Path, key: Key, seed: int, size: int) -> None:
    product, split, kind, index = key
    _, light, mask = _render(key, seed, size)
    image = photograph(light, _generator(seed, key, "camera"))
    _save(image, draft / product / split / kind / f"{index:03d}.png")
    if kind != "good":
        _save(mask, draft / product / "ground_truth" / kind / f"{index:03d}_mask.png")


def _save(image: NDArray[np.uint8], path: Path) -> None:
    # Sensor noise has no repeated strings: Huffman coding alone gives smaller files, faster.
    strategy = zlib.Z_HUFFMAN_ONLY if image.ndim == 3 else zlib.Z_DEFAULT_STRATEGY
    Image.fromarray(image).save(path, format="PNG", compress_level=6, compress_type=strategy)


def _generator(seed: int, key: tuple[str | int, ...], use: str) -> np.random.Generator:
    """Return the random generator for one use; the key's first entry is the product."""
    product, *rest = key
    number = part_number(str(product))
    if number is not None:  # part_0012 of a set of 5000 is part_012 of a set of 20
        product = f"part_{number:03d}"
    text = "/".join(map(str, (product, *rest, use)))
    return np.random.default_rng([int(seed), *text.encode()])
