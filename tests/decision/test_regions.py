"""Regions and peaks: against a flood fill, scikit-image and plain loops; bands; wrong input."""

from __future__ import annotations

import json
import math
import time
import tracemalloc
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import gaussian_filter
from skimage.measure import label, regionprops
from skimage.morphology import local_maxima

from snl.decision import components
from snl.decision.maps import resize_map
from snl.decision.regions import Region, find_regions, find_regions_resized, peaks
from snl.errors import DataError, SettingsError, SnlError

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=8)
MAPS = arrays(np.float32, SHAPES, elements=st.integers(-3, 3).map(float))


def around(y: int, x: int, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    return [
        (y + dy, x + dx)
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
        if (dy or dx) and 0 <= y + dy < shape[0] and 0 <= x + dx < shape[1]
    ]


def flood(levels: np.ndarray, threshold: float) -> list[set[tuple[int, int]]]:
    """Return the components of levels > threshold as sets of (y, x), by a flood fill."""
    remaining = {(int(y), int(x)) for y, x in np.argwhere(levels > threshold)}
    filled = []
    while remaining:
        component: set[tuple[int, int]] = set()
        queue = [min(remaining)]
        while queue:
            pixel = queue.pop()
            if pixel in remaining:
                remaining.remove(pixel)
                component.add(pixel)
                queue += around(*pixel, levels.shape)
        filled.append(component)
    return filled


def slow_peaks(levels: np.ndarray) -> list[float]:
    """Return the local maxima by flooding plateaus; -inf is not a maximum."""
    seen: set[tuple[int, int]] = set()
    maxima = []
    for start in np.ndindex(levels.shape):
        if start in seen or levels[start] == -np.inf:
            continue
        queue, highest = [start], True
        while queue:
            pixel = queue.pop()
            if pixel in seen:
                continue
            seen.add(pixel)
            for other in around(*pixel, levels.shape):
                highest &= bool(levels[other] <= levels[start])
                if levels[other] == levels[start]:
                    queue.append(other)
        if highest:
            maxima.append(float(levels[start]))
    return sorted(maxima, reverse=True)


@given(MAPS, st.integers(-4, 3), st.integers(1, 4))
def test_regions_are_those_of_a_flood_fill(
    levels: np.ndarray, threshold: int, smallest: int
) -> None:
    expected = []
    for component in flood(levels, threshold):
        if len(component) < smallest:
            continue
        top = max(float(levels[p]) for p in component)
        y, x = min(p for p in component if levels[p] == top)
        ys, xs = [p[0] for p in component], [p[1] for p in component]
        box = (min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1)
        expected.append((-top, min(component), box, len(component), (x, y)))
    result = find_regions(levels, threshold, smallest=smallest)
    assert [(-r.peak, r.box, r.area, r.peak_at) for r in result] == [
        (peak, box, area, at) for peak, _, box, area, at in sorted(expected)
    ]


@given(MAPS, st.integers(-4, 3))
def test_every_region_contains_a_peak(levels: np.ndarray, threshold: int) -> None:
    tops = peaks(levels, most=levels.size)
    assert len(find_regions(levels, threshold)) <= (tops > threshold).sum()
    assert tops[0] == levels.max()


@given(MAPS, st.integers(1, 20))
def test_peaks_are_those_of_a_loop(levels: np.ndarray, most: int) -> None:
    expected = (slow_peaks(levels) + [-math.inf] * most)[:most]
    np.testing.assert_array_equal(peaks(levels, most), expected)


@given(st.data())
def test_ignored_pixels_count_as_lower_than_all_others(data: st.DataObject) -> None:
    levels = data.draw(MAPS)
    ignored = data.draw(arrays(bool, levels.shape))
    lowered = np.where(ignored, -np.inf, levels)
    filled = np.where(ignored, np.nan, levels).astype(np.float32)
    result = peaks(filled, levels.size, ignored)
    expected = slow_peaks(lowered)
    np.testing.assert_array_equal(result[: len(expected)], expected)
    assert (result[len(expected) :] == -np.inf).all()


@pytest.mark.parametrize("seed", range(4))
def test_against_scikit_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = gaussian_filter(rng.normal(size=(60, 80)), 1.5).astype(np.float32)
    expected = regionprops(label(levels > 0.1, connectivity=2), intensity_image=levels)
    expected.sort(key=lambda r: -r.intensity_max)
    result = find_regions(levels, 0.1)
    assert len(result) == len(expected) > 5
    for region, reference in zip(result, expected, strict=True):
        top, left, bottom, right = reference.bbox
        assert region.box == (left, top, right - left, bottom - top)
        assert (region.area, region.peak) == (reference.area, reference.intensity_max)
        assert levels[region.peak_at[::-1]] == region.peak
        corners = np.array(region.polygon)
        assert corners.min(0) == pytest.approx([left, top], abs=1)
        assert corners.max(0) == pytest.approx([right, bottom], abs=1)
    tops = np.sort(levels[local_maxima(levels, connectivity=2)])[::-1]
    np.testing.assert_array_equal(peaks(levels, len(tops) + 3)[: len(tops)], tops)
    assert peaks(levels, len(tops) + 3)[len(tops) :].tolist() == [-math.inf] * 3


def test_scale_p_value_and_maximum_number() -> None:
    levels = np.zeros((5, 7), np.float32)
    levels[0, 0], levels[2, 2:4], levels[4, 6] = 3, (1, 2), 1
    result = find_regions(levels, 0.5, mm_per_pixel=0.5, p_value=lambda peak: 1 / peak, most=2)
    assert [r.peak for r in result] == [3, 2]
    assert result[1] == Region(
        box=(2, 2, 2, 1),
        polygon=((2, 2), (4, 2), (4, 3), (2, 3)),
        area=2,
        area_mm2=0.5,
        peak=2.0,
        peak_at=(3, 2),
        p_value=0.5,
    )
    assert json.loads(json.dumps(result[1].to_dict(), allow_nan=False)) == result[1].to_dict()
    assert find_regions(levels, 0.5)[0].area_mm2 is None
    assert [r.box for r in find_regions(levels, 0.5, smallest=2)] == [(2, 2, 2, 1)]


def test_holes_are_in_the_polygon_but_not_in_the_area() -> None:
    levels = np.ones((4, 4))
    levels[1:3, 1:3] = 0
    levels[1, 1] = 2
    (outer,) = find_regions(levels, 0.5)
    assert outer.area == 13 and outer.polygon == ((0, 0), (4, 0), (4, 4), (0, 4))


def test_a_region_in_the_hole_of_another_is_separate() -> None:
    levels = np.ones((7, 7))
    levels[1:6, 1:6] = 0
    levels[3, 3] = 2
    inner, outer = find_regions(levels, 0.5)
    assert (inner.area, inner.box, outer.area) == (1, (3, 3, 1, 1), 24)


def test_infinite_thresholds() -> None:
    levels = np.arange(12.0).reshape(3, 4)
    assert find_regions(levels, math.inf) == ()
    assert find_regions(levels, -math.inf)[0].area == 12


def test_integer_maps_are_accepted() -> None:
    assert find_regions(np.array([[0, 255]], np.uint8), 254)[0].peak == 255.0
    assert peaks(np.array([[3, 0, 200]], np.uint8), 3).tolist() == [200, 3, -math.inf]


FLAT = np.zeros((2, 3))
HOLED = np.array([[0.0, 1.0], [np.nan, 2.0]])


@pytest.mark.parametrize(
    ("levels", "threshold", "options", "words"),
    [
        (HOLED, 0.0, {}, "nan at x 0, y 1"),
        (np.array([[np.inf]]), 0.0, {}, "inf at x 0, y 0"),
        (np.zeros((2, 3, 1)), 0.0, {}, "2 x 3 x 1"),
        (np.array(1.0), 0.0, {}, "single number"),
        (np.zeros((0, 3)), 0.0, {}, "0 x 3"),
        (np.zeros((2, 3), complex), 0.0, {}, "complex"),
        (FLAT > 0, 0.0, {}, "bool"),
        (FLAT, math.nan, {}, "threshold"),
        (FLAT, 0.0, {"smallest": 0}, "smallest"),
        (FLAT, 0.0, {"most": 0}, "at most 0"),
        (FLAT, 0.0, {"mm_per_pixel": 0.0}, "mm per pixel"),
        (FLAT, 0.0, {"mm_per_pixel": -1.0}, "mm per pixel"),
        (FLAT, 0.0, {"mm_per_pixel": math.nan}, "mm per pixel"),
        (FLAT, 0.0, {"mm_per_pixel": math.inf}, "mm per pixel"),
    ],
)
def test_wrong_input_is_reported(
    levels: np.ndarray, threshold: float, options: dict[str, float], words: str
) -> None:
    with pytest.raises(SnlError, match=words) as caught:
        find_regions(levels, threshold, **options)  # type: ignore[arg-type]
    assert "give" in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_input_of_peaks_is_reported() -> None:
    with pytest.raises(DataError, match="nan at x 0, y 1"):
        peaks(HOLED)
    with pytest.raises(SettingsError, match="at most 0"):
        peaks(FLAT, 0)
    with pytest.raises(DataError, match="mask of ignored"):
        peaks(FLAT, ignored=np.zeros((3, 2), bool))
    with pytest.raises(DataError, match="mask of ignored"):
        peaks(FLAT, ignored=np.zeros((2, 3), np.uint8))
    assert (peaks(HOLED, 2, np.ones((2, 2), bool)) == -np.inf).all()


def test_a_large_map_is_processed_quickly() -> None:
    rng = np.random.default_rng(0)
    levels = np.zeros((3000, 4000), np.float32)
    for y, x in np.ndindex(10, 10):
        part = gaussian_filter(rng.normal(size=(200, 300)).astype(np.float32), 6)
        levels[y * 300 + 40 : y * 300 + 240, x * 400 + 40 : x * 400 + 340] = part > part.mean()
    begin = time.process_time()
    result = find_regions(levels, 0.5)
    assert len(result) == 100 and time.process_time() - begin < 3.0  # 0.3 s on one slow core


BANDS = st.integers(1, 60)  # pixels of a band, so that components extend over several


@given(MAPS, st.integers(-4, 3), st.integers(1, 4), st.integers(1, 5), BANDS)
def test_bands_do_not_change_regions(
    levels: np.ndarray, threshold: int, smallest: int, most: int, band: int
) -> None:
    expected = find_regions(levels, threshold, smallest=smallest, most=most)
    with mock.patch.object(components, "_BAND", band):
        result = find_regions(levels, threshold, smallest=smallest, most=most)
    assert result == expected


@given(st.data())
def test_regions_of_a_resized_map_are_those_of_the_whole_one(data: st.DataObject) -> None:
    levels = data.draw(MAPS)
    size = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    threshold = data.draw(st.floats(-4, 4, width=32))
    options = data.draw(
        st.fixed_dictionaries(
            {
                "smallest": st.integers(1, 9),
                "most": st.integers(1, 5),
                "mm_per_pixel": st.none() | st.just(0.5),
                "p_value": st.none() | st.just(abs),
            }
        )
    )
    expected = find_regions(resize_map(levels, size), threshold, **options)
    with mock.patch.object(components, "_BAND", data.draw(BANDS)):
        assert find_regions_resized(levels, size, threshold, **options) == expected


def test_a_component_joined_two_bands_further_down_is_one() -> None:
    levels = np.zeros((6, 9))
    levels[:, 0] = levels[1:, 4] = levels[:5, 8] = 1  # two arms joined at the bottom, one apart
    levels[5, :5] = 1
    levels[2, 4] = levels[4, 8] = 3
    with mock.patch.object(components, "_BAND", 9):
        left, right = find_regions(levels, 0.5)
    assert (left.box, left.area, left.peak_at) == ((0, 0, 5, 6), 14, (4, 2))
    assert (right.box, right.area, right.peak_at) == ((8, 0, 1, 5), 5, (8, 4))


def test_equal_peaks_are_in_the_order_of_their_first_pixels_over_bands() -> None:
    levels = np.zeros((7, 5))
    levels[:4, 2] = levels[2, 0] = levels[5, 4] = levels[6, 1] = 1  # the tall one is joined last
    expected = [(2, 0, 1, 4), (0, 2, 1, 1), (4, 5, 1, 1), (1, 6, 1, 1)]
    for most in range(1, 5):
        with mock.patch.object(components, "_BAND", 5):
            result = find_regions(levels, 0.5, most=most)
        assert [r.box for r in result] == expected[:most]


LARGE = (12_600, 12_600)


@pytest.mark.parametrize(
    ("name", "megabytes"), [("normal", 10), ("one defect", 20), ("noise", 250)]
)
def test_memory_of_a_large_image(name: str, megabytes: int) -> None:
    """The map itself would need 635 MB. Noise: 100 regions, some as large as the image."""
    levels = np.random.default_rng(0).random((256, 256), np.float32)
    threshold = {"normal": 1.0, "one defect": 1.5, "noise": 0.5}[name]
    if name == "one defect":
        levels[100:105, 60:80] = 2
    tracemalloc.start()
    result = find_regions_resized(levels, LARGE, threshold)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(result) == {"normal": 0, "one defect": 1, "noise": 100}[name]
    assert peak < megabytes * 1e6
