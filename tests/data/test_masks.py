"""Masks of all formats: union, resizing, thresholds and errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from snl.data.masks import load_mask
from snl.errors import ImageError
from tests.data.image_files import from_array

REGION = np.zeros((5, 7), bool)
REGION[1:3, 2:6] = True


def save_mask(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def with_alpha(mode: str) -> Image.Image:
    grey = from_array((REGION * 255).astype(np.uint8))
    image = Image.new(mode, (7, 5), 0)
    image.paste(grey.convert(mode))
    image.putalpha(255)
    return image


MASKS: dict[str, Callable[[], Image.Image]] = {
    "255.png": lambda: from_array((REGION * 255).astype(np.uint8)),
    "1.png": lambda: from_array(REGION.astype(np.uint8)),
    "bits.png": lambda: from_array(REGION),
    "ids.bmp": lambda: from_array((REGION * np.arange(1, 8)).astype(np.uint8)),
    "rgb.png": lambda: from_array(np.dstack([REGION * 0, REGION * 2, REGION * 0]).astype(np.uint8)),
    "rgba.png": lambda: with_alpha("RGBA"),
    "la.png": lambda: with_alpha("LA"),
    "deep.png": lambda: from_array(REGION.astype(np.uint16)),
    "integers.tif": lambda: from_array(REGION.astype(np.int32)),
    "floats.tif": lambda: from_array((REGION * 1e-3).astype(np.float32)),
    "palette.png": lambda: from_array((REGION * 255).astype(np.uint8)).convert("P"),
    "grey.gif": lambda: from_array((REGION * 255).astype(np.uint8)),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_every_format(name: str, tmp_path: Path) -> None:
    mask = load_mask((save_mask(tmp_path / name, MASKS[name]()),))
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, REGION)


def test_a_jpeg_mask_does_not_grow(tmp_path: Path) -> None:
    region = np.zeros((64, 64), bool)
    region[20:40, 19:43] = True
    path = save_mask(tmp_path / "m.jpg", from_array((region * 255).astype(np.uint8)), quality=60)
    assert (np.asarray(Image.open(path)) > 0).sum() > region.sum()
    np.testing.assert_array_equal(load_mask((path,)), region)


def test_union_and_resizing_of_masks(tmp_path: Path) -> None:
    corner = np.zeros((10, 14), bool)
    corner[8:, 12:] = True
    first = save_mask(tmp_path / "first.png", from_array(REGION.astype(np.uint8)))
    second = save_mask(tmp_path / "second.png", from_array((corner * 9).astype(np.uint8)))
    doubled = REGION.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(load_mask((first, second), (10, 14)), doubled | corner)
    np.testing.assert_array_equal(load_mask((first, first)), REGION)
    with pytest.raises(ImageError, match=r"second\.png is 14 x 10 .* 7 x 5"):
        load_mask((first, second))


def test_without_a_mask_file(tmp_path: Path) -> None:
    assert load_mask((), (3, 4)).shape == (3, 4) and not load_mask((), (3, 4)).any()
    with pytest.raises(ImageError, match="size"):
        load_mask(())
    with pytest.raises(ImageError, match=r"gone\.png does not exist"):
        load_mask((tmp_path / "gone.png",), (3, 4))
