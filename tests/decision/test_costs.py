"""The rate with the lowest cost: against brute force, and against known score distributions."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snl.decision.costs import Costs, best_rate, candidate_rates, operation, rounded_up
from snl.errors import SettingsError

STANDARD = NormalDist()
above = np.vectorize(lambda score: 1 - STANDARD.cdf(score))

p_values = st.lists(st.integers(1, 40).map(lambda k: k / 40), min_size=1, max_size=12)
any_cost = st.floats(1e-3, 1e9)


@given(p_values, any_cost, any_cost, st.floats(1e-4, 0.9999), st.integers(1, 20))
def test_no_rate_of_a_fine_grid_is_cheaper(
    p: list[float], miss: float, alarm: float, share: float, smallest: int
) -> None:
    result = best_rate([np.array(p)], Costs(miss, alarm, share), smallest / 40, 39)

    def cost(rate: float) -> float:
        missed = sum(value > rate for value in p) / len(p)
        return share * missed * miss + (1 - share) * rate * alarm

    best = result.best
    assert best.cost == pytest.approx(cost(best.rate))
    grid = [n / 400 for n in range(10 * smallest, 400)]
    lowest = min(cost(rate) for rate in grid)
    assert best.cost <= lowest * (1 + 1e-9)
    assert best.rate >= smallest / 40 and best.rate < 1
    assert best.found == sum(value <= best.rate for value in p) / len(p)
    low, high = result.interval
    assert low <= best.rate <= high
    flat_low, flat_high = result.flat
    assert flat_low <= best.rate <= flat_high
    inside = [rate for rate in candidate_rates(np.array(p), smallest / 40)
              if flat_low <= rate <= flat_high]  # fmt: skip
    assert all(cost(rate) <= 1.05 * best.cost * (1 + 1e-9) for rate in inside)


def test_of_equal_costs_the_highest_rate_is_chosen() -> None:
    # raising the rate from 0.25 to 0.5 finds one of two defects more: 1/4 * 1 against 1/4 * 1
    result = best_rate([np.array([0.25, 0.5])], Costs(1.0, 1.0, 1 / 3), 0.25, 3)
    costs = [operation(np.array([0.25, 0.5]), Costs(1.0, 1.0, 1 / 3), r).cost for r in (0.25, 0.5)]
    assert costs[0] == pytest.approx(costs[1])
    assert result.best.rate == 0.5


def test_products_count_by_their_defects() -> None:
    costs = Costs(50.0, 1.0, 0.02)
    one, other = np.array([0.02, 0.3]), np.array([0.04, 0.05, 0.2])
    together = best_rate([one, other], costs, 0.01, 99).best
    assert together == best_rate([np.concatenate([one, other])], costs, 0.01, 99).best


def test_extreme_costs_choose_the_ends() -> None:
    p = np.array([0.02, 0.1, 0.6, 1.0])
    assert best_rate([p], Costs(1e9, 1.0, 0.5), 0.01, 99).best.rate == 0.6  # 1 is no rate
    assert best_rate([p], Costs(1.0, 1e9, 0.5), 0.01, 99).best.rate == 0.01
    certain = best_rate([np.full(50, 0.01)], Costs(100.0, 1.0, 0.01), 0.01, 10**6)
    assert certain.interval == (0.01, 0.01) and certain.more_defects == 0


@pytest.mark.parametrize(
    "values", [(0, 1, 0.1), (1, 0, 0.1), (-1, 1, 0.1), (math.nan, 1, 0.1), (math.inf, 1, 0.1),
               (1e13, 1, 0.1), (1, 1, 0), (1, 1, 1), (1, 1, -0.5), (1, 1, math.nan)],
)  # fmt: skip
def test_invalid_costs(values: tuple[float, float, float]) -> None:
    with pytest.raises(SettingsError, match="give a number") as caught:
        Costs(*values)
    assert "\n" not in str(caught.value)


def test_without_defects_or_rates() -> None:
    with pytest.raises(ValueError):
        best_rate([np.empty(0)], Costs(1, 1, 0.5), 0.1, 9)
    with pytest.raises(ValueError):
        best_rate([np.array([0.5])], Costs(1, 1, 0.5), 1.0, 0)


def closed_form(distance: float, costs: Costs) -> float:
    """Return the best rate if normal scores are N(0, 1) and those of defects N(distance, 1): where
    the ratio of the densities is that of the expected costs."""
    ratio = (1 - costs.defect_share) * costs.false_alarm / (costs.defect_share * costs.miss)
    return 1 - STANDARD.cdf(distance / 2 + math.log(ratio) / distance)


def test_many_defects_give_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    costs = Costs(30.0, 1.0, 0.01)
    p = above(rng.normal(2, 1, 20_000))
    result = best_rate([p], costs, 1e-6, 10**7)
    wanted = closed_form(2, costs)
    assert result.best.rate == pytest.approx(wanted, rel=0.15)
    assert result.interval[1] < 1.5 * result.interval[0]
    missed = STANDARD.cdf(STANDARD.inv_cdf(1 - wanted) - 2)
    assert result.best.cost == pytest.approx(costs.per_part(wanted, missed), rel=0.03)


@pytest.mark.parametrize(
    ("distance", "defects", "costs"),
    [(2.0, 100, Costs(100, 1, 0.01)), (3.0, 60, Costs(20, 1, 0.01)), (1.5, 40, Costs(50, 1, 0.01))],
)
def test_the_interval_covers_the_true_optimum(distance: float, defects: int, costs: Costs) -> None:
    """With exact p-values: the calibration has very many images."""
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        p = above(rng.normal(distance, 1, defects))
        low, high = best_rate([p], costs, 1e-6, 10**7, seed).interval
        covered += low <= closed_form(distance, costs) <= high
    assert covered >= 160


@pytest.mark.parametrize(("normals", "defects"), [(40, 30), (200, 100)])
def test_the_interval_covers_the_best_rate_of_a_calibration(normals: int, defects: int) -> None:
    """With few held-out images the nominal rates are not the true ones; the best nominal rate of
    each drawn calibration is known from the distributions."""
    costs = Costs(100, 1, 0.01)
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        held = np.sort(rng.normal(0, 1, normals))
        scores = rng.normal(2, 1, defects)
        p = (1 + normals - np.searchsorted(held, scores)) / (normals + 1)
        result = best_rate([p], costs, 1 / (normals + 1), normals, seed)
        thresholds = held[::-1]  # of the rates 1 / (n + 1), 2 / (n + 1), ...
        true = costs.per_part(above(thresholds), 1 - above(thresholds - 2))
        best = (1 + int(np.argmin(true))) / (normals + 1)
        covered += result.interval[0] <= best <= result.interval[1]
    assert covered >= 160


def test_the_stated_number_of_defects_narrows_a_wide_interval() -> None:
    """In most cases: it is an estimate from few defects."""
    costs = Costs(30, 1, 0.01)
    narrow = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        few = best_rate([above(rng.normal(2, 1, 15))], costs, 1e-6, 10**7)
        assert (few.more_defects != 0) == (few.interval[1] > 4 * few.interval[0])
        if few.more_defects:
            more = best_rate([above(rng.normal(2, 1, 15 + few.more_defects))], costs, 1e-6, 10**7)
            narrow.append(more.interval[1] <= 4 * more.interval[0])
    assert len(narrow) > 20 and np.mean(narrow) > 0.6


def test_defects_do_not_help_where_the_normal_images_are_too_few() -> None:
    p = np.tile([0.05, 0.1], 1000)
    costs = Costs(100, 1, 0.0009)
    few, many = (best_rate([p], costs, 0.05, normals) for normals in (19, 10**6))
    assert few.best == many.best
    assert few.interval == (0.05, 0.1) and many.interval == (0.05, 0.05)


def test_results_repeat() -> None:
    p = [np.random.default_rng(0).uniform(size=30)]
    assert best_rate(p, Costs(10, 1, 0.1), 0.01, 99) == best_rate(p, Costs(10, 1, 0.1), 0.01, 99)


@given(st.integers(1, 500), st.integers(2, 1000))
def test_a_rounded_rate_decides_alike(k: int, n: int) -> None:
    rate = k / (n + 1)
    if rate >= 1:
        return
    value = rounded_up(rate, lambda other: math.floor(other * (n + 1) + 1e-9) == k)
    assert rate <= value < (k + 1) / (n + 1)
    assert len(f"{value:.12g}".lstrip("0.")) <= 6 or value == rate
