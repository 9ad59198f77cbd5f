"""Grids cover the image, weights sum to one, cuts are padded as by numpy, tiles of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from snl.data.images import load_image
from snl.data.tiles import OVERLAP, Box, Mosaic, Tile, blend, cut, grid, samples, starts, tiles_of

LENGTHS = st.integers(1, 700)
SIDES = st.integers(1, 150)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve images of 60 x 90 pixels."""
    folder = tmp_path_factory.mktemp("tiles")
    paths = [folder / f"{i:02}.png" for i in range(12)]
    for i, path in enumerate(paths):
        Image.fromarray(picture(60, 90, i)).save(path)
    return paths


# --- grids ---


@given(LENGTHS, SIDES)
@settings(deadline=None)
def test_every_pixel_is_covered_and_neighbours_overlap(length: int, side: int) -> None:
    first = starts(length, side)
    covered = np.zeros(length, int)
    for start in first:
        covered[max(0, start) : start + side] += 1
    assert covered.min() >= 1
    if length <= side:
        assert len(first) == 1
        before, after = -first[0], first[0] + side - length
        assert before in (after, after - 1)  # centred
    else:
        assert first[0] == 0 and first[-1] == length - side
        steps = np.diff(first)
        assert steps.min() >= 1 and np.ptp(steps) <= 1  # evenly spread
        shared = side - int(steps.max())
        assert shared >= OVERLAP * side or int(steps.max()) == 1


def test_no_more_tiles_than_the_overlap_requires() -> None:
    assert starts(256, 256) == [0] and starts(257, 256) == [0, 1]
    assert starts(448, 256) == [0, 192] and len(starts(449, 256)) == 3
    assert len(grid((3000, 4000), 256)) == 16 * 21
    assert len(grid((3000, 4000), 1024)) == 4 * 5


def test_grid_goes_row_by_row() -> None:
    boxes = grid((20, 14), 8)
    assert [(b.top, b.left) for b in boxes] == [(t, x) for t in (0, 6, 12) for x in (0, 6)]
    assert {b.side for b in boxes} == {8}


@pytest.mark.parametrize(("length", "side"), [(0, 8), (8, 0), (-1, 8)])
def test_lengths_and_sides_below_one_are_refused(length: int, side: int) -> None:
    with pytest.raises(ValueError, match="no tiles"):
        starts(length, side)


# --- cuts ---


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.data())
@settings(max_examples=60, deadline=None)
def test_cut_is_a_crop_of_the_mirrored_image(
    height: int, width: int, side: int, data: st.DataObject
) -> None:
    image = picture(height, width)
    top, left = (data.draw(st.integers(-60, n)) for n in (height, width))
    margin = 130
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    expected = padded[margin + top : margin + top + side, margin + left : margin + left + side]
    np.testing.assert_array_equal(cut(image, Box(top, left, side)), expected)


# --- weights ---


@given(LENGTHS, SIDES)
@settings(deadline=None)
def test_weights_sum_to_one(length: int, side: int) -> None:
    total = np.zeros(length + 2 * side)
    for start, weights in blend(length, side).items():
        assert weights.dtype == np.float32 and weights.shape == (side,) and weights.min() >= 0
        total[side + start : 2 * side + start] += weights
    np.testing.assert_allclose(total[side : side + length], 1, atol=1e-6)
    assert not total[:side].any() and not total[side + length :].any()


def test_weights_are_zero_where_a_tile_ends_inside_the_image() -> None:
    rows = blend(1000, 256)
    first, *middle, last = rows.values()
    assert first[0] == last[-1] == 1  # only one tile covers the border of the image
    for weights in middle:
        assert weights[0] < 1e-3 and weights[-1] < 1e-3
        assert abs(np.diff(weights)).max() < 2.5 / 64  # smooth over a quarter of a tile


@given(st.integers(1, 120), st.integers(1, 120), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_mosaic_of_ones_is_one(height: int, width: int, side: int) -> None:
    mosaic = Mosaic((height, width), side)
    for box in grid((height, width), side):
        mosaic.add(box, np.ones((side, side), np.float32))
    assert mosaic.map.dtype == np.float32
    np.testing.assert_allclose(mosaic.map, 1, atol=2e-6)


def test_mosaic_restores_an_image_from_its_tiles() -> None:
    for shape in ((90, 130), (20, 130), (1, 33), (33, 1), (7, 5)):
        image = picture(*shape)
        mosaic = Mosaic(shape, 32)
        for box in grid(shape, 32):
            mosaic.add(box, cut(image, box)[..., 1].astype(np.float32))
        np.testing.assert_allclose(mosaic.map, image[..., 1], atol=1e-3)


# --- tiles of files ---


def test_tiles_of_files_in_order_and_nothing_decoded(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(image: ImageFile.ImageFile) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    tiles, total, errors = tiles_of(files, 40)
    boxes = grid((60, 90), 40)
    assert tiles == [Tile(path, box) for path in files for box in boxes]
    assert total == len(tiles) == 12 * len(boxes) and errors == []


def test_boxes_are_of_the_upright_image(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(picture(60, 90)).save(tmp_path / "turned.jpg", exif=tags)
    assert load_image(tmp_path / "turned.jpg").shape == (90, 60, 3)
    tiles, _, _ = tiles_of([tmp_path / "turned.jpg"], 40)
    assert [tile.box for tile in tiles] == grid((90, 60), 40)


def test_unreadable_files_are_reported_once_each(files: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    tiles, total, errors = tiles_of([files[0], bad, tmp_path / "missing.png", files[1]], 40)
    assert {tile.path for tile in tiles} == set(files[:2]) and total == len(tiles)
    assert len(errors) == 2 and "bad.png" in str(errors[0]) and "missing.png" in str(errors[1])


@pytest.mark.parametrize("side", [15, 20, 30, 40])
def test_selected_tiles_are_spread_over_images_rows_and_columns(
    files: list[Path], side: int
) -> None:
    complete = tiles_of(files, side)
    most = len(complete.tiles) // 3
    tiles, total, _ = tiles_of(files, side, most)
    assert len(tiles) == most and total == complete.total
    places = {tile: i for i, tile in enumerate(complete.tiles)}
    assert np.all(np.diff([places[tile] for tile in tiles]) > 0)  # in order, without duplicates
    for key in (lambda t: t.path, lambda t: t.box.top, lambda t: t.box.left):
        values = [key(tile) for tile in complete.tiles]
        for value in set(values):
            share = sum(key(tile) == value for tile in tiles) / values.count(value)
            assert 0.15 < share < 0.55, (value, share)
    assert tiles_of(files, side, total) == complete


def test_samples(files: list[Path]) -> None:
    assert samples(files, 0, 12) == files and samples(files, 0, 5) == files[::3]
    assert samples(files, 40, 1000) == tiles_of(files, 40).tiles
    few = samples(files, 40, 6)
    assert len(few) == 6 and all(isinstance(tile, Tile) for tile in few)
