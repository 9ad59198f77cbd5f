"""The shared tail: p-values and thresholds from a product's centre and the tail of all products."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import huber

from snl.decision.conformal import Conformal
from snl.decision.shared_tail import BEND, SharedTail, centre, left_out_residuals, spread

STATS = {"a": (0.0, 0.2), "b": (0.5, 0.4), "c": (-1.0, 0.1)}


def drawn(rng: np.random.Generator, **counts: int) -> dict[str, np.ndarray]:
    """Log-normal scores of products that score one standard deviation above their training."""
    return {
        name: np.exp(STATS[name][0] + STATS[name][1] * (1 + rng.normal(size=n))).astype(np.float32)
        for name, n in counts.items()
    }


@given(st.lists(st.floats(-4, 8), min_size=1, max_size=30))
def test_the_centre_minimises_hubers_loss(z: list[float]) -> None:
    values = np.array(z)
    found = minimize_scalar(
        lambda m: float(huber(BEND, values - m).sum()),
        bounds=(values.min() - 1, values.max() + 1),
        method="bounded",
        options={"xatol": 1e-10},
    )
    loss = float(huber(BEND, values - centre(values)).sum())
    assert loss <= found.fun + 1e-6 * max(1.0, found.fun)


@pytest.mark.parametrize("n", [2, 5, 20, 80])
def test_left_out_residuals_are_about_those_of_leaving_out(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(20):
        z = rng.normal(size=n)
        exact = [z[i] - centre(np.delete(z, i)) for i in range(n)]
        assert np.abs(left_out_residuals(z, centre(z)) - exact).max() < 1.2 / n
    assert left_out_residuals(np.array([1.0]), 1.0).size == 0


@given(
    st.integers(0, 25),
    st.integers(0, 40),
    st.floats(0.001, 0.9),
    st.booleans(),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_threshold_and_p_value_agree(
    own: int, others: int, rate: float, tail: bool, ties: bool, random: object
) -> None:
    rng = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    values = drawn(rng, a=own, b=others)
    if ties:
        values = {k: np.round(v, 1) for k, v in values.items()}
    normal = SharedTail(values, STATS, tail)
    limit, basis = normal.threshold(rate, "a")
    some = np.concatenate([*values.values(), rng.lognormal(size=5)]).astype(np.float32)
    p = [normal.p_value(float(v), "a") for v in np.sort(some)]
    if not own + others:
        assert limit is None and p == [None] * len(p)
        return
    assert all(x is not None and 0 < x <= 1 for x in p)
    assert all(x >= y for x, y in itertools.pairwise(p))  # type: ignore[operator]
    if limit is None:
        assert min(p) > rate or rate < normal.smallest_rate("a")  # type: ignore[type-var]
        return
    assert basis in ("shared tail", "tail fit", "all products", "product")
    for value, x in zip(np.sort(some), p, strict=True):
        assert (x <= rate) == (float(value) > limit)  # type: ignore[operator]


@pytest.mark.parametrize("counts", [(20, 20, 20), (5, 38, 60), (38, 0, 0), (2, 100, 100)])
def test_the_mean_rate_is_about_nominal(counts: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(300):
        values = drawn(rng, **dict(zip("abc", counts, strict=True)))
        new = drawn(rng, a=200)["a"]
        limit, basis = SharedTail(values, STATS).threshold(0.05, "a")
        assert limit is not None and basis == "shared tail"
        rates.append(np.mean(new > limit))
    assert 0.035 < np.mean(rates) < 0.06


def test_a_calibration_varies_less_than_by_the_conformal_rule() -> None:
    rng = np.random.default_rng(2)
    rates: dict[type, list[float]] = {SharedTail: [], Conformal: []}
    for _ in range(300):
        values, new = drawn(rng, a=20, b=20, c=20), drawn(rng, a=500)["a"]
        for kind, found in rates.items():
            limit = kind(values, STATS).threshold(0.05, "a")[0]
            found.append(float(np.mean(new > limit)))
    assert np.std(rates[SharedTail]) < 0.75 * np.std(rates[Conformal])


def test_one_outlier_does_not_blind_a_product() -> None:
    values = drawn(np.random.default_rng(3), a=19, b=30, c=30)
    outlier = np.float32(values["a"].max() * 1.6)
    with_it = {**values, "a": np.append(values["a"], outlier)}
    before, after = (SharedTail(v, STATS).threshold(0.05, "a")[0] for v in (values, with_it))
    assert before is not None and after is not None and after < 1.15 * before
    assert Conformal(with_it, STATS).threshold(0.05, "a") == (float(outlier), "product")


def test_a_product_with_many_images_has_its_own_tail() -> None:
    rng = np.random.default_rng(4)
    values = drawn(rng, a=10, b=20, c=20)
    heavy = np.exp(0.2 * rng.standard_t(2, 4000)).astype(np.float32)
    limit = SharedTail({**values, "a": heavy}, STATS).threshold(0.05, "a")[0]
    assert limit == pytest.approx(float(np.quantile(heavy, 0.95)), rel=0.03)


def test_products_by_the_conformal_rule_are_those_of_conformal() -> None:
    values = drawn(np.random.default_rng(5), a=20, b=10, c=0)
    mixed, plain = SharedTail(values, STATS, conformal="abc"), Conformal(values, STATS)
    for product in "abc":
        assert mixed.smallest_rate(product) == plain.smallest_rate(product)
        for rate in (0.01, 0.05, 0.2):
            assert mixed.threshold(rate, product) == plain.threshold(rate, product)
        for value in (0.5, 1.0, 1.5, 9.0):
            assert mixed.p_value(value, product) == plain.p_value(value, product)
            assert mixed.p_value_from(value, product) == plain.p_value_from(value, product)
    assert mixed.smallest_rate() == plain.smallest_rate() == 1 / 31


def test_the_smallest_rate_and_the_fitted_tail_beyond_it() -> None:
    values = drawn(np.random.default_rng(6), a=20, b=40, c=0)
    normal, fitted = SharedTail(values, STATS), SharedTail(values, STATS, tail=True)
    assert normal.smallest_rate("a") == pytest.approx(1 / 61)
    assert normal.threshold(0.001, "a") == (None, "shared tail")
    limit, basis = fitted.threshold(0.001, "a")
    highest = normal.threshold(0.02, "a")[0]
    assert basis == "tail fit" and limit is not None and highest is not None and limit > highest
    assert fitted.p_value_from(2 * limit, "a") == "tail fit"
    # a product without images has no centre: the pooled z-scores decide
    assert normal.threshold(0.05, "c")[1] == "all products"


def test_draws_with_replacement_give_other_thresholds_around_the_same() -> None:
    values = drawn(np.random.default_rng(7), a=20, b=20, c=1)
    normal, rng = SharedTail(values, STATS), np.random.default_rng(0)
    limit = normal.threshold(0.05, "a")[0]
    again = [normal.drawn_again("a", n, rng).threshold(0.05, "a")[0] for n in [20] * 50]
    assert limit is not None and np.quantile(again, 0.1) < limit < np.quantile(again, 0.95)
    many = normal.drawn_again("a", 200, rng)
    assert len(many.values["a"]) == 200 and set(many.values["a"]) <= set(normal.values["a"])
    assert normal.threshold(0.05, "a")[0] == limit
    assert spread(1) > spread(20) > 1
