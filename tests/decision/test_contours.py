"""Contours: area, tolerance and no self-crossing; against exact arithmetic and Pillow."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation, binary_fill_holes, gaussian_filter
from skimage.measure import label, regionprops

from snl.decision import contours
from snl.decision.contours import shoelace, simplify

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9))
Point = tuple[float, float]


def outline(mask: np.ndarray) -> np.ndarray:
    return contours.outline(np.pad(mask, 1))


def polygon(mask: np.ndarray) -> np.ndarray:
    return contours.polygon(outline(mask))


def components(mask: np.ndarray) -> list[np.ndarray]:
    """Return crops of the 8-connected components, by scikit-image."""
    return [np.asarray(r.image) for r in regionprops(label(mask, connectivity=2))]


def blob(seed: int, side: int = 90, level: float = 0.0, blur: float = 4.0) -> np.ndarray:
    """Return the largest component of blurred noise above a level."""
    rng = np.random.default_rng(seed)
    blobs = components(gaussian_filter(rng.normal(size=(side, side)), blur) > level)
    return max(blobs, key=np.count_nonzero)


def rasterise(points: np.ndarray, shape: tuple[int, int], factor: int = 4) -> np.ndarray:
    """Return the pixels more than half inside a polygon, by Pillow on a finer grid."""
    height, width = shape
    fine = Image.new("L", (width * factor, height * factor))
    corners = [(x * factor - 0.5, y * factor - 0.5) for x, y in points.tolist()]
    ImageDraw.Draw(fine).polygon(corners, fill=1)
    cells = np.asarray(fine).reshape(height, factor, width, factor)
    inside: np.ndarray = cells.mean((1, 3)) > 0.5
    return inside


def side(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def crosses(points: np.ndarray) -> bool:
    """Return whether any two segments cross properly, pair by pair."""
    closed = [tuple(p) for p in [*points.tolist(), points.tolist()[0]]]
    return any(
        side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0
        for (a, b), (c, d) in combinations(list(pairwise(closed)), 2)
    )


def farthest(points: np.ndarray, contour: np.ndarray) -> float:
    """Return the largest distance of a point from a closed contour, segment by segment."""
    best = np.full(len(points), np.inf)
    for a, b in pairwise(np.array([*contour, contour[0]], float)):
        t = np.clip((points - a) @ (b - a) / max((b - a) @ (b - a), 1e-12), 0, 1)
        best = np.minimum(best, np.linalg.norm(points - a - t[:, None] * (b - a), axis=1))
    return float(best.max())


def test_one_pixel_is_a_square() -> None:
    assert polygon(np.ones((1, 1), bool)).tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]


def test_a_rectangle_has_four_corners_and_holes_do_not_matter() -> None:
    mask = np.ones((5, 9), bool)
    mask[1:3, 2:7] = False
    assert polygon(mask).tolist() == [[0, 0], [9, 0], [9, 5], [0, 5]]


def test_pixels_that_touch_at_a_corner_have_one_contour() -> None:
    result = outline(np.eye(2, dtype=bool)).tolist()
    assert result == [[0, 0], [1, 0], [1, 1], [2, 1], [2, 2], [1, 2], [1, 1], [0, 1]]


@given(MASKS)
def test_outline_follows_pixel_edges_around_the_filled_mask(mask: np.ndarray) -> None:
    for component in components(mask):
        result = outline(component)
        steps = np.roll(result, -1, axis=0) - result
        assert ((steps == 0).sum(1) == 1).all()  # horizontal or vertical
        assert shoelace(result) == binary_fill_holes(component).sum()
        y, x = np.nonzero(component)
        assert result.min(0).tolist() == [x.min(), y.min()]
        assert result.max(0).tolist() == [x.max() + 1, y.max() + 1]


@given(MASKS)
def test_outline_starts_at_any_set_of_a_mask(mask: np.ndarray) -> None:
    for region in regionprops(label(mask, connectivity=2)):
        top, left, *_ = region.bbox
        y, x = min(map(tuple, region.coords.tolist()))
        result = contours.outline(np.pad(mask, 1), (x, y))
        np.testing.assert_array_equal(result - [left, top], outline(np.asarray(region.image)))


@given(MASKS)
def test_polygon_is_valid(mask: np.ndarray) -> None:
    for component in components(mask):
        result, exact = polygon(component), outline(component)
        assert len(result) >= 3
        assert not crosses(result)
        assert shoelace(result) == pytest.approx(shoelace(exact), rel=0.05)
        assert farthest(exact, result) <= 1.0
        assert {*map(tuple, result.tolist())} <= {*map(tuple, exact.tolist())}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.49, 1.0, 3.0]), st.sampled_from([1.0, 2.5]))
def test_simplify_keeps_its_tolerance(seed: int, tolerance: float, blur: float) -> None:
    exact = outline(blob(seed, side=40, blur=blur))
    result = simplify(exact, tolerance)
    assert farthest(exact, result) <= tolerance + 1e-9
    assert result[0].tolist() == exact[0].tolist()
    if tolerance < 0.5:
        assert not crosses(result)


@pytest.mark.parametrize("seed", range(10))
def test_polygon_of_a_blob_covers_it_with_few_corners(seed: int) -> None:
    component = blob(seed)
    result, exact = polygon(component), outline(component)
    filled = binary_fill_holes(component)
    inside = rasterise(result, component.shape)
    assert (inside & filled).sum() / (inside | filled).sum() > 0.93
    assert len(result) < 0.4 * len(exact)
    assert not crosses(result)
    assert not (inside & ~binary_dilation(filled, iterations=2)).any()


def test_a_thin_diagonal_line_keeps_its_area() -> None:
    line = np.eye(200, dtype=bool) | np.eye(200, k=1, dtype=bool)
    result = polygon(line)
    assert shoelace(result) == pytest.approx(line.sum(), rel=0.05)
    assert not crosses(result)


def test_a_comb_of_thin_teeth_does_not_cross_itself() -> None:
    comb = np.zeros((30, 81), bool)
    comb[:, ::2] = True
    comb[-1] = True
    assert polygon(comb).tolist() == outline(comb).tolist()  # teeth are one pixel wide
    assert not crosses(simplify(outline(comb), 0.49))
