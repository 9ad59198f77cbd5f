"""k-means: rows belong to their centre, centres are distinct, results depend on the seed only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from snl.kmeans import kmeans


def squares_loop(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(M, K) squared distances."""
    return np.array([[sum((r - c) ** 2) for c in centres] for r in rows])


def clusters(per_cluster: int = 15, width: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    means = 10.0 * np.eye(4, width)
    return means, np.repeat(means, per_cluster, 0) + rng.normal(0, 0.1, (4 * per_cluster, width))


@pytest.mark.parametrize("seed", range(6))
def test_separated_clusters_are_found(seed: int) -> None:
    means, rows = clusters(width=5)
    centres, nearest = kmeans(rows, 4, seed)
    assert sorted(squares_loop(means, centres).argmin(1).tolist()) == [0, 1, 2, 3]
    squares = squares_loop(rows, centres)
    np.testing.assert_allclose(nearest, squares.min(1), rtol=1e-9)
    for k in range(4):  # fixed point of Lloyd's algorithm: a centre is the mean of its rows
        np.testing.assert_allclose(centres[k], rows[squares.argmin(1) == k].mean(0), rtol=1e-9)


def test_one_centre_is_the_mean_and_the_mean_square_the_variance() -> None:
    rows = np.random.default_rng(1).normal(size=(30, 4))
    centres, nearest = kmeans(rows, 1, 0)
    np.testing.assert_allclose(centres[0], rows.mean(0), atol=1e-12)
    assert nearest.mean() == pytest.approx(rows.var(0).sum())


def test_with_as_many_centres_as_rows_the_centres_are_the_rows() -> None:
    rows = np.random.default_rng(2).normal(size=(7, 3))
    centres, nearest = kmeans(rows, 7, 3)
    np.testing.assert_allclose(np.unique(centres, axis=0), np.unique(rows, axis=0), atol=1e-12)
    assert nearest.max() < 1e-20


def test_results_depend_on_the_seed_only() -> None:
    rows = np.random.default_rng(4).normal(size=(80, 3))
    np.random.seed(1)
    first = kmeans(rows, 9, 5)
    np.random.seed(2)
    before = np.random.get_state()[1].copy()
    again, other = kmeans(rows, 9, 5), kmeans(rows, 9, 6)
    assert np.array_equal(np.random.get_state()[1], before)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_the_input_is_not_modified() -> None:
    for count in (3, 40):
        rows = np.random.default_rng(5).normal(size=(count, 3))
        before = rows.copy()
        kmeans(rows, 8, 0)
        assert np.array_equal(rows, before)


def test_a_single_outlier_among_many_rows_gets_a_centre() -> None:
    """k-means++ draws by squared distance; a uniform draw would nearly always miss it."""
    rows = np.concatenate([np.random.default_rng(6).normal(0, 0.01, (500, 2)), [[50.0, 50.0]]])
    for seed in range(10):
        assert squares_loop(rows[-1:], kmeans(rows, 2, seed)[0]).min() < 1e-9


@budget(max_examples=60, deadline=None)
@given(
    distinct=st.lists(
        st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=6, unique=True
    ),
    repeats=st.integers(1, 5),
    k=st.integers(1, 10),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_rows(distinct: list[tuple[int, int]], repeats: int, k: int, seed: int) -> None:
    rows = np.array(distinct * repeats, dtype=np.float64)
    centres, nearest = kmeans(rows, k, seed)
    assert centres.shape == (k, 2) and nearest.shape == (max(len(rows), k),)
    assert np.isfinite(centres).all() and (nearest >= 0).all() and np.isfinite(nearest).all()
    # all distinct, also as float32, in which they are stored
    assert len(np.unique(centres.astype(np.float32), axis=0)) == k
    # all within the range of the rows, apart from the jitter of surplus copies
    assert (centres >= rows.min(0) - 0.1).all() and (centres <= rows.max(0) + 0.1).all()
    if k >= len(distinct):
        assert squares_loop(rows, centres).min(1).max() < 0.01
