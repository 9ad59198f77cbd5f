"""p-values and thresholds against their definition, by loops; their guarantee, by simulation."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import genpareto

from snl.decision.conformal import Conformal, log_score_stats

Stats = Mapping[str, tuple[float, float]]


def z_of(value: float, moments: tuple[float, float]) -> float:
    return (math.log(max(value, 1e-12)) - moments[0]) / moments[1]


def p_by_definition(
    values: Mapping[str, list[float]], moments: Stats, x: float, product: str
) -> float:
    product_values = values[product]
    as_high = sum(v >= x for v in product_values)
    p = (1 + as_high) / (1 + len(product_values))
    if as_high:
        return p
    z = z_of(x, moments[product])
    pooled = [z_of(v, moments[name]) for name in values for v in values[name]]
    return min(p, (1 + sum(other >= z for other in pooled)) / (1 + len(pooled)))


def conformal_of(
    values: Mapping[str, list[float]], moments: Stats, tail: bool = False
) -> Conformal:
    arrays = {name: np.array(v, np.float32) for name, v in values.items()}
    return Conformal(arrays, moments, tail)


# few different numbers, so that ties are common; 5 and 10 are no fixed points of exp(log(x))
numbers = st.sampled_from([0.0, 0.25, 1.0, 3.0, 5.0, 10.0, 77.0])
moments = st.tuples(st.sampled_from([-1.0, 0.0, 2.5]), st.sampled_from([0.1, 1.0, 3.0]))
laws = st.lists(st.tuples(st.lists(numbers, max_size=7), moments), min_size=1, max_size=3)


@settings(max_examples=300)
@given(laws, numbers, st.floats(0.005, 0.9))
def test_p_values_and_thresholds_are_equivalent(
    drawn: list[tuple[list[float], tuple[float, float]]], x: float, rate: float
) -> None:
    values = {str(i): v for i, (v, _) in enumerate(drawn)}
    stats = {str(i): m for i, (_, m) in enumerate(drawn)}
    conformal = conformal_of(values, stats)
    pooled = [v for product_values in values.values() for v in product_values]
    for product, product_values in values.items():
        count = len(product_values)
        p = conformal.p_value(x, product)
        if not pooled:
            assert p is None and conformal.threshold(rate, product)[0] is None
            continue
        assert p == p_by_definition(values, stats, x, product)
        rates = {rate, 1 - 1e-12, p, *(k / (count + 1) for k in range(1, count + 1))}
        for r in rates - {1.0}:
            limit, basis = conformal.threshold(r, product)
            if 1 / (count + 1) <= r:
                assert limit in product_values and basis == "product"
            elif 1 / (len(pooled) + 1) <= r:
                assert limit is not None and basis == "all products"
            if limit is None:
                assert p > r and 1 / (len(pooled) + 1) > r
                continue
            assert (p <= r) == (x > limit)
            with np.errstate(over="ignore"):
                above = np.nextafter(np.float32(limit), np.float32(np.inf))
            for near in (limit, above):
                if near >= 0:
                    value = float(near)
                    assert (conformal.p_value(value, product) <= r) == (value > limit)  # type: ignore[operator]


@given(st.lists(numbers, min_size=1, max_size=12), st.floats(0.02, 0.9))
def test_the_threshold_is_the_smallest_held_back_value_that_keeps_the_rate(
    values: list[float], rate: float
) -> None:
    limit, basis = conformal_of({"a": values}, {"a": (0.0, 1.0)}).threshold(rate, "a")
    keep = [t for t in values if (1 + sum(v > t for v in values)) / (len(values) + 1) <= rate]
    if keep:
        assert (limit, basis) == (min(keep), "product")
    else:
        assert limit is None


def test_the_smallest_rate_is_one_over_n_plus_one() -> None:
    values = {"a": np.arange(1.0, 20.0), "b": np.arange(100.0, 110.0), "none": np.empty(0)}
    conformal = Conformal(values, dict.fromkeys(values, (0.0, 1.0)))
    assert conformal.smallest_rate("a") == 1 / 20 and conformal.smallest_rate("none") == 1
    assert conformal.smallest_rate() == 1 / 30
    assert conformal.threshold(0.05, "a") == (19.0, "product")
    assert conformal.threshold(0.0499, "a")[1] == "all products"
    assert conformal.threshold(1 / 30, "a") == (109.0, "all products")
    assert conformal.threshold(0.0333, "a") == (None, "all products")
    assert conformal.p_value(1e6, "a") == 1 / 30
    # a product without images is judged by those of all products
    assert conformal.threshold(0.05, "none") == (109.0, "all products")
    assert conformal.p_value(109.0, "none") == 2 / 30
    assert conformal.p_value(109.5, "none") == 1 / 30


def test_one_image_equal_scores_and_zeros() -> None:
    single = conformal_of({"a": [2.0]}, {"a": (0.0, 1.0)})
    assert (single.p_value(2.0, "a"), single.p_value(2.5, "a")) == (1.0, 0.5)
    assert single.threshold(0.5, "a") == (2.0, "product") and single.threshold(0.4, "a")[0] is None
    equal = conformal_of({"a": [2.0] * 19}, {"a": (0.0, 1e-6)})
    assert (equal.p_value(2.0, "a"), equal.p_value(2.01, "a")) == (1.0, 0.05)
    assert equal.threshold(0.5, "a") == equal.threshold(0.05, "a") == (2.0, "product")
    zeros = conformal_of(
        {"a": [0.0] * 19, "b": []}, log_score_stats({"a": np.zeros(9), "b": np.zeros(9)})
    )
    assert (zeros.p_value(0.0, "a"), zeros.p_value(1e-6, "a")) == (1.0, 0.05)
    assert zeros.threshold(0.05, "a") == (0.0, "product")
    limit, _ = zeros.threshold(0.05, "b")
    assert limit is not None and 0 <= limit < 1e-11
    assert math.isfinite(zeros.standardise(0.0, "b")) and math.isfinite(zeros.standardise(9.0, "b"))


def test_thresholds_stay_finite_however_much_products_differ() -> None:
    """The z-scores of a product whose training images are all alike have any size."""
    conformal = conformal_of(
        {"alike": [1.1] * 5, "b": [1.0]}, {"alike": (0.0, 1e-6), "b": (0.0, 1.0)}
    )
    limit, _ = conformal.threshold(0.2, "b")
    assert limit is not None and math.isfinite(limit) and limit > 1e38
    assert conformal.p_value(1e38, "b") == 0.5
    low = conformal_of({"alike": [1e-9] * 9, "b": []}, {"alike": (0.0, 1e-6), "b": (0.0, 1.0)})
    limit, _ = low.threshold(0.1, "b")
    assert limit is not None and limit < 0 and low.p_value(0.0, "b") == 0.1


# --- the guarantee ---


@pytest.mark.parametrize("n", [10, 20, 200])
def test_p_values_of_new_images_of_a_product_are_super_uniform(n: int) -> None:
    """P(p <= a) <= a, and at least a minus one step of the p-values."""
    rng = np.random.default_rng(n)
    rounds, new = 2000, 25
    shares_by_rate: dict[float, list[float]] = {a: [] for a in (0.01, 0.05, 0.1)}
    for _ in range(rounds):
        scores = np.round(rng.lognormal(size=n + new), 2)  # with ties
        conformal = Conformal({"a": scores[:n]}, {"a": (0.0, 1.0)})
        p = np.array([conformal.p_value(float(x), "a") for x in scores[n:]], float)
        for a, shares in shares_by_rate.items():
            shares.append(float(np.mean(p <= a)))
    for a, shares in shares_by_rate.items():
        error = np.std(shares) / math.sqrt(rounds)
        assert np.mean(shares) <= a + 3 * error
        if a >= 1 / (n + 1):
            assert np.mean(shares) >= a - 1 / (n + 1) - 0.005 - 3 * error
        else:
            assert sum(shares) == 0  # a p-value is never below what can be guaranteed


@pytest.mark.parametrize("counts", [(3, 6, 11), (0, 2, 18), (40, 60, 100)])
def test_pooled_p_values_are_super_uniform_over_all_products(counts: tuple[int, ...]) -> None:
    """Products of different scales and spreads, standardised by few training images each; new
    images come from the products in the same proportions as the held-out ones."""
    rng = np.random.default_rng(list(counts))
    rounds, new = 3000, 10
    scales, spreads = (1.0, 30.0, 1e-3), (0.1, 0.5, 1.0)
    share = np.array(counts) / sum(counts)
    all_products: dict[float, list[float]] = {a: [] for a in (0.01, 0.05, 0.1)}
    last_product: dict[float, list[float]] = {a: [] for a in all_products}
    for _ in range(rounds):
        drawn = {
            str(k): scale * rng.lognormal(0, spread, 15 + count + new)
            for k, (scale, spread, count) in enumerate(zip(scales, spreads, counts, strict=True))
        }
        training = log_score_stats({k: v[:15] for k, v in drawn.items()})
        conformal = Conformal(
            {k: v[15 : 15 + count] for (k, v), count in zip(drawn.items(), counts, strict=True)},
            training,
        )
        p = np.array(
            [[conformal.p_value(x, k) for x in v[-new:].tolist()] for k, v in drawn.items()]
        )
        for a in all_products:
            rates = np.mean(p.astype(float) <= a, 1)
            all_products[a].append(float(rates @ share))
            last_product[a].append(float(rates[-1]))
    for a, measured in all_products.items():
        mean, error = np.mean(measured), np.std(measured) / math.sqrt(rounds)
        assert mean <= a + 3 * error
        if (sum(counts) + 1) * a < 1:
            assert sum(measured) == 0
        elif min(counts) and (max(counts) + 1) * a < 1:  # pooled p-values decide
            assert mean >= a - 1 / (sum(counts) + 1) - 3 * error
        # what the images of a product guarantee holds for that product
        if (counts[-1] + 1) * a >= 1:
            error = np.std(last_product[a]) / math.sqrt(rounds)
            assert np.mean(last_product[a]) <= a + 3 * error


# --- moments of the training images ---


def test_log_score_stats_shrink_towards_other_products_where_images_are_few() -> None:
    rng = np.random.default_rng(0)
    many = np.exp(rng.normal(1.0, 0.3, 4000))
    conformal = log_score_stats(
        {"many": many, "one": np.array([5.0]), "other": np.exp(rng.normal(0, 0.5, 4000))}
    )
    assert conformal["many"] == pytest.approx((np.log(many).mean(), np.log(many).std()), rel=1e-2)
    typical = np.median([np.log(many).std(ddof=1), 0.5])
    assert conformal["one"] == pytest.approx((math.log(5), typical), rel=0.05)
    alone = log_score_stats({"one": np.array([5.0])})
    assert alone["one"] == pytest.approx((math.log(5), math.sqrt(10 / 10)))
    assert all(d > 0 for _, d in log_score_stats({"a": np.ones(5), "b": np.ones(5)}).values())


# --- below what can be guaranteed: extrapolated only on request ---


def pareto_tail(shape: float, n: int, seed: int = 0) -> np.ndarray:
    """Scores whose logarithm has a generalised Pareto distribution over its whole range."""
    return np.exp(genpareto.rvs(shape, size=n, random_state=seed))


def test_without_tail_nothing_is_extrapolated() -> None:
    values = {"a": pareto_tail(0.1, 200)}
    assert Conformal(values, {"a": (0.0, 1.0)}).threshold(0.004, "a") == (None, "all products")
    assert Conformal(values, {"a": (0.0, 1.0)}).p_value(1e9, "a") == 1 / 201
    few = {"a": pareto_tail(0.1, 49)}  # too few for a tail
    assert Conformal(few, {"a": (0.0, 1.0)}, tail=True).threshold(0.004, "a")[0] is None


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.3])
def test_a_fitted_tail_comes_near_a_known_one(shape: float) -> None:
    conformal = Conformal({"a": pareto_tail(shape, 4000, 1)}, {"a": (0.0, 1.0)}, tail=True)
    for rate in (1e-4, 2e-5):
        limit, basis = conformal.threshold(rate, "a")
        assert limit is not None and basis == "tail fit"
        assert rate / 5 <= genpareto.sf(math.log(limit), shape) <= 5 * rate
        assert (
            conformal.p_value(limit * (1 + 1e-6), "a")
            <= rate
            <= conformal.p_value(  # type: ignore[operator]
                limit * (1 - 1e-6), "a"
            )
        )
    # where the images suffice the tail is not used
    assert conformal.threshold(0.01, "a") == Conformal(
        conformal.values, {"a": (0.0, 1.0)}
    ).threshold(0.01, "a")


def test_the_tail_is_the_maximum_likelihood_fit() -> None:
    """p-values against those of a likelihood that is maximised here."""
    scores = pareto_tail(0.2, 500, 2)
    conformal = Conformal({"a": scores}, {"a": (0.0, 1.0)}, tail=True)
    z = np.sort(np.log(scores))
    beyond = z[-100:] - z[-101]

    def minus_log_likelihood(parameters: np.ndarray) -> float:
        shape, scale = parameters[0], math.exp(parameters[1])
        inside = 1 + shape * beyond / scale
        if (inside <= 0).any():
            return math.inf
        return float(len(beyond) * math.log(scale) + (1 + 1 / shape) * np.log(inside).sum())

    best = minimize(minus_log_likelihood, np.array([0.1, 0.0]), method="Nelder-Mead")
    shape, scale = best.x[0], math.exp(best.x[1])
    for z_new in (z[-1] + 0.1, z[-1] + 1, z[-1] + 3):
        p = 100 / 501 * (1 + shape * (z_new - z[-101]) / scale) ** (-1 / shape)
        assert conformal.p_value(math.exp(z_new), "a") == pytest.approx(p, rel=0.02)


def test_p_values_of_a_tail_join_those_of_the_images() -> None:
    conformal = Conformal({"a": pareto_tail(0.1, 100), "b": pareto_tail(0.1, 9)},
                      {"a": (0.0, 1.0), "b": (0.0, 1.0)}, tail=True)  # fmt: skip
    grid = np.exp(np.linspace(0, 20, 400))
    for product in ("a", "b"):
        p = np.array([conformal.p_value(float(x), product) for x in grid], float)
        assert (np.diff(p) <= 0).all() and (p > 0).all() and p[0] <= 1
        for rate in (0.2, 0.05, 0.02, 1 / 110, 1e-3, 1e-4):
            limit, _ = conformal.threshold(rate, product)
            assert limit is not None
            np.testing.assert_array_equal(p <= rate, grid > limit)


def test_no_tail_is_fitted_to_equal_values() -> None:
    for values in (np.full(60, 2.0), np.zeros(60), np.r_[np.full(59, 2.0), 3.0]):
        conformal = Conformal({"a": values}, {"a": (0.0, 1.0)}, tail=True)
        assert conformal.threshold(1e-3, "a") == (None, "all products")
        assert conformal.p_value(1e6, "a") == 1 / 61


def test_a_tail_that_ends_does_not_end_at_the_highest_image() -> None:
    scores = np.exp(np.random.default_rng(3).uniform(0, 1, 300))
    conformal = Conformal({"a": scores}, {"a": (0.0, 1.0)}, tail=True)
    limit, _ = conformal.threshold(1e-3, "a")
    assert limit is not None and limit > scores.max()
    assert conformal.p_value(1e6, "a") > 0  # type: ignore[operator]
