"""Resizing of maps: against Pillow and a float64 loop, in parts, its range, time and memory."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from snl.decision.maps import resize_map, resize_rows, resize_window

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=12)
SIZES = st.tuples(st.integers(1, 30), st.integers(1, 30))
VALUES = st.floats(-100, 100, width=32, allow_subnormal=False)
MAPS = arrays(np.float32, SHAPES, elements=VALUES)


def resize_loop(anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mean of the map under a triangle around every resized pixel's centre, float64."""
    for axis in (0, 1):
        lines = np.moveaxis(anomaly_map.astype(float), axis, 0)
        old, new = len(lines), size[axis]
        width = max(old / new, 1.0)
        resized = []
        for pixel in range(new):
            centre = (pixel + 0.5) * old / new - 0.5
            weights = [max(0.0, 1 - abs(k - centre) / width) for k in range(old)]
            total = sum(w * line for w, line in zip(weights, lines, strict=True))
            resized.append(total / sum(weights))
        anomaly_map = np.moveaxis(np.array(resized), 0, axis)
    return anomaly_map


def resize_pillow(anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(anomaly_map).resize(size[::-1], Image.Resampling.BILINEAR)
    return np.array(image)


@given(MAPS, SIZES)
def test_resized_map_is_that_of_a_loop_and_of_pillow(
    anomaly_map: np.ndarray, size: tuple[int, int]
) -> None:
    result = resize_map(anomaly_map, size)
    assert result.dtype == np.float32 and result.shape == size
    tolerance = 1e-6 * np.abs(anomaly_map).max()
    np.testing.assert_allclose(result, resize_loop(anomaly_map, size), rtol=0, atol=tolerance)
    np.testing.assert_allclose(result, resize_pillow(anomaly_map, size), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("shape", "size"), [((64, 64), (512, 512)), ((300, 500), (77, 64)), ((37, 90), (1201, 45))]
)
def test_larger_maps_agree_with_pillow(shape: tuple[int, int], size: tuple[int, int]) -> None:
    anomaly_map = np.random.default_rng(0).gamma(2, size=shape).astype(np.float32)
    np.testing.assert_allclose(
        resize_map(anomaly_map, size), resize_pillow(anomaly_map, size), rtol=1e-6
    )


@given(MAPS, SIZES)
def test_no_value_leaves_the_range_of_the_map(
    anomaly_map: np.ndarray, size: tuple[int, int]
) -> None:
    result = resize_map(anomaly_map, size)
    assert anomaly_map.min() <= result.min() and result.max() <= anomaly_map.max()


@given(st.data())
def test_parts_are_those_of_the_whole_to_the_last_bit(data: st.DataObject) -> None:
    anomaly_map, size = data.draw(MAPS), data.draw(SIZES)
    rows, columns = (
        sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True)))
        for n in size
    )
    whole = resize_map(anomaly_map, size)
    part = resize_rows(anomaly_map, size, *rows)
    np.testing.assert_array_equal(part, whole[slice(*rows)], strict=True)
    window = resize_window(anomaly_map, size, (rows[0], rows[1]), (columns[0], columns[1]))
    np.testing.assert_array_equal(window, whole[slice(*rows), slice(*columns)], strict=True)


def test_large_parts_are_those_of_the_whole_to_the_last_bit() -> None:
    anomaly_map = np.random.default_rng(0).normal(size=(90, 70)).astype(np.float32)
    for size in ((2000, 3001), (45, 3001), (2000, 33)):
        whole = resize_map(anomaly_map, size)
        for first, last in ((0, 1), (7, 40), (size[0] - 1, size[0]), (0, size[0] // 2)):
            part = resize_rows(anomaly_map, size, first, last)
            np.testing.assert_array_equal(part, whole[first:last], strict=True)
            window = resize_window(anomaly_map, size, (first, last), (9, 31))
            np.testing.assert_array_equal(window, whole[first:last, 9:31], strict=True)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
def test_a_map_of_the_wanted_size_is_returned_as_it_is(dtype: type) -> None:
    anomaly_map = np.arange(12).reshape(3, 4).astype(dtype)
    assert np.shares_memory(resize_map(anomaly_map, (3, 4)), anomaly_map)
    np.testing.assert_array_equal(resize_map(anomaly_map, (3, 4)), anomaly_map, strict=True)


def test_whole_numbers_are_resized_as_real_ones() -> None:
    result = resize_map(np.array([[0, 255]], np.uint8), (1, 4))
    np.testing.assert_array_equal(result, np.array([[0, 63.75, 191.25, 255]], np.float32))


def test_enlarging_is_fast_and_needs_little_beside_the_result() -> None:
    anomaly_map = np.random.default_rng(0).random((256, 256), np.float32)
    tracemalloc.start()
    begin = time.process_time()
    resize_map(anomaly_map, (3000, 4000))
    seconds, peak = time.process_time() - begin, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 0.5  # 0.04 s on one slow core
    assert peak < 4 * 3000 * 4000 + 30e6
