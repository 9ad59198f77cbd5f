"""Thumbnails: what can be seen in them, and how large they are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from snl.drawing.heat import heat
from snl.reporting.thumbnails import (
    DETAIL,
    MOST_PIXELS,
    SIDES,
    detail,
    layer,
    picture_size,
    thumbnail,
    thumbnail_side,
)


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content))).astype(float)


def cracked(side: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Return a textured image with a crack one pixel wide, and a map that is high there."""
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal(150, 6, (side, side, 1)), 0, 255).repeat(3, 2).astype(np.uint8)
    image[700:780, 300] = 40
    anomaly_map = rng.random((64, 64)).astype(np.float32)
    anomaly_map[740 * 64 // side, 300 * 64 // side] = 3
    return image, anomaly_map


def test_a_crack_of_one_pixel_can_be_seen_in_the_detail() -> None:
    """Its contrast to the columns beside it; in a thumbnail of the whole image it is lost."""
    image, anomaly_map = cracked()
    found = detail(image, anomaly_map)
    assert found is not None
    content, (left, top, width, height) = found
    part = pixels(content)[..., 0]
    assert part.shape == (DETAIL, DETAIL)
    assert (width, height) == (DETAIL / 1000, DETAIL / 1000)
    assert left < 0.3 < left + width and top < 0.7 and top + height > 0.78
    rows = slice(round(700 - 1000 * top) + 4, round(780 - 1000 * top) - 4)
    column = round(300 - 1000 * left)
    beside = part[rows, column + 4].mean()
    assert beside - part[rows, column].mean() > 60
    whole = pixels(thumbnail(image))[..., 0]
    assert whole[180:198, 74:79].min(axis=1).mean() > 100  # contrast below 50


@pytest.mark.parametrize("corner", [(0, 0), (0, 63), (63, 0), (63, 63), (31, 5)])
@pytest.mark.parametrize("shape", [(400, 900), (900, 400), (200, 201), (90, 1000)])
def test_a_detail_lies_inside_the_image_and_contains_the_highest_value(
    corner: tuple[int, int], shape: tuple[int, int]
) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    anomaly_map = np.zeros((64, 64))
    anomaly_map[corner] = 1
    found = detail(image, anomaly_map)
    assert found is not None
    left, top, width, height = found[1]
    high, wide = pixels(found[0]).shape[:2]
    assert (high, wide) == (min(DETAIL, shape[0]), min(DETAIL, shape[1]))
    assert left >= 0 and top >= 0 and left + width <= 1 + 1e-9 and top + height <= 1 + 1e-9
    row, column = ((cell + 0.5) / 64 for cell in corner)
    assert left <= column <= left + width and top <= row <= top + height


def test_a_missed_defect_is_in_the_detail() -> None:
    image, anomaly_map = cracked()
    anomaly_map[5, 50] = 9  # another place, which the map finds more anomalous
    defect = np.zeros((64, 64), bool)
    defect[44:50, 19] = True
    for mask, row in ((defect, 740), (None, 80), (np.zeros((64, 64), bool), 80)):
        found = detail(image, anomaly_map, mask)
        assert found is not None
        _, top, _, height = found[1]
        assert top < row / 1000 < top + height


def test_a_small_image_has_no_detail() -> None:
    assert detail(np.zeros((150, 180, 3), np.uint8), np.eye(8)) is None


def test_the_layer_over_the_image_is_the_blend_of_heat() -> None:
    ys, xs = np.mgrid[:64, :96]
    anomaly_map = (np.exp(-((ys - 30) ** 2 + (xs - 40) ** 2) / 300) * 2).astype(np.float32)
    image = np.full((64, 96, 3), (90, 140, 60), np.uint8)
    rgba = pixels(layer(anomaly_map, (0.5, 1.8)))
    assert rgba.shape == (64, 96, 4)
    alpha = rgba[..., 3:] / 255
    blend = image * (1 - alpha) + rgba[..., :3] * alpha
    difference = np.abs(blend - heat(image, anomaly_map, (0.5, 1.8)))
    assert difference.mean() < 3 and np.percentile(difference, 99) < 25
    assert not rgba[anomaly_map < 0.5, 3].any()


def test_a_map_without_heat_takes_almost_nothing() -> None:
    assert len(layer(np.zeros((96, 96), np.float32), (0.5, 1.8))) < 200


def test_more_images_have_smaller_thumbnails() -> None:
    """A page of any number of images stays below a size that a browser opens."""
    sides = [thumbnail_side(n) for n in (0, 1, 1000, 1001, 3000, 3001, 10**6)]
    assert sides == [256, 256, 256, 192, 192, 144, 144]
    assert [most for most, _ in SIDES[:2]] == [1000, 3000]


@pytest.mark.parametrize("size", [(1, 1), (1000, 1000), (6000, 4000), (1, 10**7), (3000, 17)])
def test_the_picture_has_at_most_so_many_pixels(size: tuple[int, int]) -> None:
    width, height = picture_size(size)
    assert 1 <= width <= size[1] and 1 <= height <= size[0]
    assert width * height <= 1.01 * MOST_PIXELS or min(size) == 1
    if size[0] * size[1] <= MOST_PIXELS:
        assert (height, width) == size
