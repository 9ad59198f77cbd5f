"""The demo data set: generated images of eight products, in the layout of MVTec AD.

An anomalous image is a new normal image to which a defect is added; its mask is the support of the
defect and therefore exact. Every image has its own random generator, seeded with seed, product,
split, kind and number: with other counts or fewer products the images are the same.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from snl.demo.defects import Fault
from snl.demo.noise import Array
from snl.demo.parts import PARTS
from snl.demo.scene import Light, Scene, illuminate, photograph
from snl.errors import DataError, SettingsError
from snl.temporary import temporary_folder

PRODUCTS: tuple[str, ...] = tuple(PARTS)
DEFECTS: Mapping[str, tuple[str, ...]] = {name: tuple(p.defects) for name, p in PARTS.items()}

SUBTLEST = 0.6
"""Lowest level of defects, from 0 (subtle) to 1 (obvious): a person sees all at a glance."""

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
        product: one of `PRODUCTS`.
        kind: `good`, or one of `DEFECTS[product]`.
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
    if kind != "good" and kind not in DEFECTS[product]:
        raise SettingsError(
            f"product '{product}' has no defect '{kind}'; use good, {', '.join(DEFECTS[product])}"
        )
    key = (product, split, kind, index)
    normal, anomalous, mask = _render(key, seed, size)
    clean = photograph(normal, _generator(seed, *key, "camera"))
    image = clean if kind == "good" else photograph(anomalous, _generator(seed, *key, "camera"))
    return DemoImage(image, clean, mask)


def make_demo(
    root: str | Path,
    *,
    seed: int = 0,
    size: int = 256,
    n_train: int = 60,
    n_good: int = 12,
    n_defect: int = 6,
    products: Sequence[str] | None = None,
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
        products: names from `PRODUCTS`; None: all.
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
    selected = PRODUCTS if products is None else products
    counts = {"n_train": n_train, "n_good": n_good, "n_defect": n_defect}
    _check(seed, size, counts, selected)
    selected = list(selected)
    root = Path(root)
    text = _README.format(seed=seed, size=size, products=selected, **counts)
    try:
        target = root.resolve()
        _check_target(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(target.name, target.parent) as temporary:
            draft = temporary / target.name
            draft.mkdir()
            _write_all(draft, list(_plan(selected, **counts)), seed, size, progress)
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
        if product not in PARTS:
            raise SettingsError(
                f"the demo set has no product '{product}'; use {', '.join(PRODUCTS)}"
            )
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
    products: Sequence[str], n_train: int, n_good: int, n_defect: int
) -> Iterator[tuple[str, str, str, int]]:
    """Yield the key of every image to write: product, split, kind, number."""
    for product in products:
        for split, count in (("train", n_train), ("test", n_good)):
            yield from ((product, split, "good", k) for k in range(count))
        for kind in DEFECTS[product]:
            yield from ((product, "test", kind, k) for k in range(n_defect))


def _write_all(
    draft: Path,
    plan: Sequence[tuple[str, str, str, int]],
    seed: int,
    size: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    for product, split, kind in {key[:3] for key in plan}:
        (draft / product / split / kind).mkdir(parents=True)
        if kind != "good":
            (draft / product / "ground_truth" / kind).mkdir(parents=True)
    workers = min(8, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(workers)
    try:
        pending: set[Future[None]] = {
            pool.submit(_write_one, draft, key, seed, size) for key in plan
        }
        done = 0
        while pending:
            completed, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in completed:
                future.result()
                done += 1
                if progress is not None:
                    progress(done, len(plan))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _render(
    key: tuple[str, str, str, int], seed: int, size: int
) -> tuple[Array, Array, NDArray[np.uint8]]:
    """Return the light on the sensor without and with the defect, (3, N, N), and the mask."""
    product, _, kind, index = key
    part = PARTS[product]

    def build(fault: Fault | None) -> Scene:
        rng = _generator(seed, *key, "part")
        scene = Scene.empty(size, Light.draw(rng))
        part.build(scene, rng, fault)
        return scene

    scene = build(None)
    normal = illuminate(scene)
    if kind == "good":
        return normal, normal, np.zeros((size, size), np.uint8)
    # Levels are a golden-ratio sequence: consecutive images cover the range evenly.
    start = _generator(seed, product, kind, "level").uniform()
    level = SUBTLEST + (1 - SUBTLEST) * ((start + 0.618034 * index) % 1)
    fault = Fault(kind, level, _generator(seed, *key, "defect"))
    paint = part.defects[kind]
    if paint is None:
        scene = build(fault)
    else:
        paint(scene, fault)
        scene.fault *= scene.body
    anomalous = normal + (illuminate(scene) - normal) * scene.fault
    return normal, anomalous, np.where(scene.fault > 0.1, 255, 0).astype(np.uint8)


def _write_one(draft: Path, key: tuple[str, str, str, int], seed: int, size: int) -> None:
    product, split, kind, index = key
    _, light, mask = _render(key, seed, size)
    image = photograph(light, _generator(seed, *key, "camera"))
    _save(image, draft / product / split / kind / f"{index:03d}.png")
    if kind != "good":
        _save(mask, draft / product / "ground_truth" / kind / f"{index:03d}_mask.png")


def _save(image: NDArray[np.uint8], path: Path) -> None:
    # Sensor noise has no repeated strings: Huffman coding alone gives smaller files, faster.
    strategy = zlib.Z_HUFFMAN_ONLY if image.ndim == 3 else zlib.Z_DEFAULT_STRATEGY
    Image.fromarray(image).save(path, format="PNG", compress_level=6, compress_type=strategy)


def _generator(seed: int, *key: Any) -> np.random.Generator:
    return np.random.default_rng([int(seed), *"/".join(map(str, key)).encode()])
