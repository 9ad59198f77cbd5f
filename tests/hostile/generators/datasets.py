"""Data sets as trees of files: names, masks beside and inside, layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.trees import draw, save_mask, save_part


def fill(
    folder: Path, count: int, *, first: int = 0, defect: bool = False, suffix: str = ".png"
) -> list[Path]:
    """Write images of parts into a folder and return their paths."""
    paths = [folder / f"{n:03}{suffix}" for n in range(count)]
    for number, path in enumerate(paths):
        save_part(path, first + number + (200 if defect else 0), defect=defect)
    return paths


def make_mvtec_2(root: Path) -> Path:
    """MVTec AD 2: `train`, `validation`, `test_public` with masks, two private test folders."""
    for product in ("can", "vial"):
        base = root / product
        for n in range(4):
            save_part(base / "train" / "good" / f"{n:03}_regular.png", n, product=product)
        save_part(base / "validation" / "good" / "000_regular.png", 50, product=product)
        for n in range(2):
            name = f"{n:03}_regular"
            save_part(base / "test_public" / "good" / f"{name}.png", 100 + n, product=product)
            path = base / "test_public" / "bad" / f"{name}.png"
            save_part(path, 200 + n, defect=True, product=product)
            mask = base / "test_public" / "ground_truth" / "bad" / f"{name}_mask.png"
            save_mask(mask, 200 + n, product=product)
            save_part(base / "test_private" / f"{name}.png", 300 + n, product=product)
            save_part(base / "test_private_mixed" / f"{n:03}_mixed.png", 400 + n, product=product)
    return root


def mask_of(seed: int) -> np.ndarray:
    """Return the mask of the defective part of a seed, (H, W) of 0 and 255."""
    return draw(seed, defect=True)[1]


def save_array(path: Path, values: np.ndarray, **options: object) -> Path:
    """Write an array as an image and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path
