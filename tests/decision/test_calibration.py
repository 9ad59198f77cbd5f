"""Thresholds: the promise of split conformal prediction, and no promise where it cannot be kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snl.decision.calibration import conformal_threshold, threshold


@given(st.integers(1, 60), st.floats(0.01, 0.5))
def test_threshold_is_the_order_statistic_of_the_definition(n: int, rate: float) -> None:
    scores = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
    limit = conformal_threshold(scores, rate)
    allowed = [s for s in np.sort(scores) if (np.sum(scores >= s)) / (n + 1) <= rate + 1e-9]
    # the smallest score whose conformal p-value, as a new image, is at most the rate
    above = {float(s) for s in scores if limit is not None and s >= limit}
    if n + 1 < 1 / rate - 1e-6:
        assert limit is None
    else:
        assert limit is not None
        assert len(above) / (n + 1) <= rate + 1 / (n + 1) + 1e-9
        assert len(allowed) <= len(above)


def test_smallest_rate_is_one_over_n_plus_one() -> None:
    scores = np.arange(19.0)
    assert conformal_threshold(scores, 0.05) == 18.0
    assert conformal_threshold(scores[:18], 0.05) is None
    assert conformal_threshold(scores, 0.5) == 9.0
    assert conformal_threshold(np.array([]), 0.1) is None


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1])
@pytest.mark.parametrize("n", [19, 40, 200])
def test_false_alarms_of_new_images_stay_at_the_rate(n: int, rate: float) -> None:
    if n + 1 < 1 / rate:
        assert conformal_threshold(np.zeros(n), rate) is None
        return
    rng = np.random.default_rng(n)
    alarms = []
    for _ in range(2000):
        scores = rng.lognormal(size=n + 50)
        limit = conformal_threshold(scores[:n], rate)
        assert limit is not None
        alarms.append(np.mean(scores[n:] > limit))
    error = np.std(alarms) / np.sqrt(len(alarms))
    assert np.mean(alarms) <= rate + 3 * error
    assert np.mean(alarms) >= rate - 1 / (n + 1) - 3 * error  # and the rate is used


def test_a_product_has_its_own_threshold_where_it_has_enough_images() -> None:
    scores = {"a": np.arange(20.0), "b": 100 + np.arange(20.0), "few": np.array([5.0])}
    assert threshold(scores, "a") == (19.0, "product")
    assert threshold(scores, "b") == (119.0, "product")
    for product in ("few", "unknown", None):
        assert threshold(scores, product) == (118.0, "all products")
    assert threshold({}) == (None, "all products")
