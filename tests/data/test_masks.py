"""Masks of all formats: union, resizing, thresholds and errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from snl.data.masks import load_mask, looks_like_mask, read_area
from snl.errors import ImageError
from tests.data.image_files import filtered, from_array, png

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


def coloured(indices: np.ndarray, palette: list[int]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette(palette)
    return image


@pytest.mark.parametrize(
    "palette",
    [
        [0, 0, 0, 255, 255, 255],
        [255, 255, 255, 0, 0, 0],
        [120, 0, 9, 0, 0, 0, 5, 5, 5],
        [0, 0, 0, 0, 0, 0],
    ],
)
@pytest.mark.parametrize("name", ["m.png", "m.bmp", "m.tif"])
def test_palette_masks_mean_the_index(palette: list[int], name: str, tmp_path: Path) -> None:
    path = save_mask(tmp_path / name, coloured(REGION.astype(np.uint8), palette))
    np.testing.assert_array_equal(load_mask((path,)), REGION)


def transparent(colour: tuple[int, int, int], background: tuple[int, int, int]) -> Image.Image:
    pixels = np.where(REGION[:, :, None], (*colour, 255), (*background, 0))
    return from_array(pixels.astype(np.uint8))


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (200, 0, 9)])
@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0)])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_over_one_colour_is_the_mask(
    colour: tuple[int, int, int], background: tuple[int, int, int], mode: str, tmp_path: Path
) -> None:
    image = transparent(colour, background).convert(mode)
    path = save_mask(tmp_path / "m.png", image)
    np.testing.assert_array_equal(load_mask((path,)), REGION)


@pytest.mark.parametrize(("channels", "colour"), [(2, 4), (3, 2), (4, 6)])
def test_16_bits_per_colour(channels: int, colour: int, tmp_path: Path) -> None:
    samples = np.zeros((5, 7, channels), ">u2")
    samples[REGION] = 3
    if channels != 3:
        samples[:, :, -1] = 65535
    (tmp_path / "m.png").write_bytes(png(7, 5, 16, colour, filtered(samples)))
    np.testing.assert_array_equal(load_mask((tmp_path / "m.png",)), REGION)


def test_colours_count_where_a_mask_is_opaque(tmp_path: Path) -> None:
    pixels = np.zeros((5, 7, 4), np.uint8)
    pixels[REGION] = (255, 255, 255, 255)
    pixels[0] = (0, 0, 0, 255)
    pixels[4] = (90, 90, 90, 0)  # transparent: normal
    path = save_mask(tmp_path / "m.png", from_array(pixels))
    np.testing.assert_array_equal(load_mask((path,)), REGION)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_lossy_webp_is_treated_as_jpeg(mode: str, tmp_path: Path) -> None:
    region = np.zeros((64, 64), bool)
    region[20:40, 19:43] = True
    image = from_array((region * 255).astype(np.uint8)).convert(mode)
    if mode == "RGBA":
        image.putalpha(255)
    lossy = save_mask(tmp_path / "lossy.webp", image, quality=30)
    assert (np.asarray(Image.open(lossy).convert("L")) > 0).sum() > region.sum()
    assert (load_mask((lossy,)) != region).mean() < 0.02
    ids = from_array(region.astype(np.uint8)).convert(mode)
    if mode == "RGBA":
        ids.putalpha(255)
    exact = save_mask(tmp_path / "exact.webp", ids, lossless=True)
    np.testing.assert_array_equal(load_mask((exact,)), region)


def test_jpeg_in_tiff_is_lossy(tmp_path: Path) -> None:
    region = np.zeros((64, 64), bool)
    region[20:40, 19:43] = True
    image = from_array((region * 255).astype(np.uint8))
    path = save_mask(tmp_path / "m.tif", image, compression="jpeg", quality=50)
    assert (np.asarray(Image.open(path)) > 0).sum() > region.sum()
    assert (load_mask((path,)) != region).mean() < 0.01


def test_floats_that_are_no_numbers_are_normal(tmp_path: Path) -> None:
    values = np.where(REGION, 1e-6, -1.0).astype(np.float32)
    values[0] = np.nan
    values[4, 6] = np.inf
    expected = REGION.copy()
    expected[4, 6] = True
    path = save_mask(tmp_path / "m.tif", from_array(values))
    np.testing.assert_array_equal(load_mask((path,)), expected)


def test_a_mask_of_another_shape_is_not_stretched(tmp_path: Path) -> None:
    path = save_mask(tmp_path / "m.png", from_array(REGION))
    with pytest.raises(ImageError, match=r"m\.png is 7 x 5 pixels but its image is 10 x 14"):
        load_mask((path,), (64, 64), image_size=(14, 10))
    assert load_mask((path,), image_size=(10, 14)).shape == (5, 7)
    assert load_mask((path,), (10, 14), image_size=(50, 70)).sum() == 4 * REGION.sum()
    assert load_mask((path,), (14, 10)).shape == (14, 10)  # an ignore mask


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (REGION, True),
        (np.zeros((5, 7), np.uint8), True),
        ((REGION * 3).astype(np.uint16), True),
        (np.full((5, 7), 9, np.uint8), False),
        (np.arange(35, dtype=np.uint8).reshape(5, 7), False),
    ],
)
def test_two_valued_images(array: np.ndarray, expected: bool, tmp_path: Path) -> None:
    path = save_mask(tmp_path / "m.png", from_array(array))
    assert looks_like_mask(path, most=2) == expected
    (tmp_path / "broken.png").write_bytes(b"x")
    assert looks_like_mask(tmp_path / "broken.png") is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_an_area_is_black_and_white_and_no_picture(tmp_path: Path, suffix: str) -> None:
    """Soft edges and compression make other values, but not many."""
    rng = np.random.default_rng(0)
    area = Image.new("L", (400, 300))
    ImageDraw.Draw(area).ellipse((50, 40, 260, 280), fill=255)
    soft = area.filter(ImageFilter.GaussianBlur(2))
    for name, image in (("hard", area), ("soft", soft), ("colour", soft.convert("RGB"))):
        image.save(tmp_path / f"{name}{suffix}")
        found = read_area(tmp_path / f"{name}{suffix}")
        assert np.mean(found != (np.asarray(area) > 0)) < 0.05
    noise = rng.normal(120, 30, (300, 400, 3)).clip(0, 255).astype(np.uint8)
    bright = rng.normal(30, 8, (300, 400)).clip(0, 255).astype(np.uint8)
    for name, values in (("colour", noise), ("grey", noise[..., 0]), ("dark", bright)):
        Image.fromarray(values).save(tmp_path / f"{name}-picture{suffix}")
        with pytest.raises(ImageError, match=f"{name}-picture.* is a picture, not a mask"):
            read_area(tmp_path / f"{name}-picture{suffix}")


def test_an_area_of_deep_or_few_values(tmp_path: Path) -> None:
    """Class ids are no picture, and 16 bits count as 8 do."""
    ids = save_mask(tmp_path / "ids.png", from_array(np.arange(20, dtype=np.uint8).reshape(4, 5)))
    assert read_area(ids).sum() == 19
    deep = save_mask(tmp_path / "deep.png", from_array((REGION * 65535).astype(np.uint16)))
    assert np.array_equal(read_area(deep), REGION)
    slope = np.linspace(0, 65535, 10_000).reshape(100, 100).astype(np.uint16)
    with pytest.raises(ImageError, match="is a picture"):
        read_area(save_mask(tmp_path / "slope.png", from_array(slope)))
