"""Rates, thresholds of regions and unknown products, calibration sets."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from snl.decision.calibration import COUNTED_REGIONS, CalibrationSet, Rates
from snl.decision.regions import find_regions, peaks
from snl.decision.sample import PEAKS
from snl.errors import SettingsError
from tests.decision.calibrations import calibration_of, calibration_set, make_calibration

# --- rates ---


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, math.nan, math.inf, "0.1", None, True, [0.1]])
@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Rates)])
def test_a_rate_is_between_0_and_1(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match="between 0 and 1") as caught:
        Rates(**{name: value})
    assert "\n" not in str(caught.value)


def test_the_rate_of_uncertain_includes_the_rate_of_anomalous() -> None:
    with pytest.raises(SettingsError, match="give as much or more"):
        Rates(anomalous=0.2, uncertain=0.1)
    assert Rates().changed(anomalous=0.3) == Rates(anomalous=0.3, uncertain=0.3)
    assert Rates().changed(anomalous=0.02).uncertain == 0.1
    assert Rates().changed(uncertain=0.3, anomalous=None, unknown=None).anomalous == 0.05
    with pytest.raises(SettingsError):
        Rates().changed(anomalous=0.3, uncertain=0.2)


def test_a_rate_that_is_too_small_is_refused_with_numbers() -> None:
    with pytest.raises(SettingsError) as caught:
        calibration_of(a=10, b=20).check_rates(Rates(anomalous=0.01), "a")
    message = str(caught.value)
    assert "0.01 needs 99 held-out normal images; there are 10 of 'a' and 30 of all" in message
    assert "allow 0.033 and more" in message and "--add" in message
    assert "--tail fit" not in message  # which needs 50 images
    with pytest.raises(SettingsError, match="--tail fit"):
        calibration_of(a=10, b=50).check_rates(Rates(anomalous=0.01), "a")
    with pytest.raises(SettingsError) as caught:  # of all products together: no product is named
        calibration_of(a=10, b=20).check_rates(Rates(anomalous=0.01))
    assert "there are 30 of all products" in str(caught.value)
    few = dataclasses.replace(calibration_of(a=10, b=20), fit_tail=True)
    with pytest.raises(SettingsError, match="a tail is fitted to 50 images or more"):
        few.check_rates(Rates(anomalous=0.01), "a")
    tail = dataclasses.replace(calibration_of(a=60), fit_tail=True)
    tail.check_rates(Rates(anomalous=0.001), "a")


def test_rates_of_a_product_replace_those_of_all() -> None:
    rates = {"a": Rates(0.3, 0.4)}
    calibration = dataclasses.replace(calibration_of(a=19, b=19), product_rates=rates)
    assert calibration.rates_for("a") == Rates(0.3, 0.4)
    assert calibration.rates_for("b") == calibration.rates_for() == Rates()


@pytest.mark.parametrize(("a", "b", "rate", "possible"), [
    (19, 0, 0.05, True), (18, 0, 0.05, False), (10, 9, 0.05, True), (0, 19, 0.05, True),
    (10, 8, 0.05, False), (0, 0, 0.9, False), (1, 0, 0.5, True),
])  # fmt: skip
def test_whether_a_decision_is_possible(a: int, b: int, rate: float, possible: bool) -> None:
    """Any n images, of the product or of all together, allow the rate 1 / (n + 1)."""
    calibration = calibration_of(a=a, b=b)
    assert calibration.can_decide(rate, "a") == calibration.can_decide(rate) == possible
    assert calibration.can_decide(None, "a") == calibration.can_decide(0.05, "a")


def test_an_unknown_product_is_refused() -> None:
    calibration = calibration_of(a=3, b=4)
    calibration.check_product("a")
    calibration.check_product(None)
    assert calibration.products == ("a", "b")
    with pytest.raises(SettingsError, match=r"product 'c' is not .*: a, b"):
        calibration.check_product("c")


# --- unknown products ---


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_no_more_normal_images_than_the_rate_are_unknown(rate: float) -> None:
    """Even without the margin: held-out and new images have the same distribution of distances."""
    rng = np.random.default_rng(7)
    shares = []
    for _ in range(400):
        drawn = np.sqrt(rng.chisquare(6, (2, 60 + 20)))
        calibration = make_calibration(
            {k: calibration_set(v[:60], v[:60]) for k, v in zip("ab", drawn, strict=True)}
        )
        p = [
            [calibration.unknown_p(name, d) for d in v[60:].tolist()]
            for name, v in zip("ab", drawn, strict=True)
        ]
        limit = calibration.unknown_rate(Rates(unknown=rate))
        shares.append(float(np.mean(np.array(p, float) <= limit)))
    assert np.mean(shares) <= rate + 3 * np.std(shares) / math.sqrt(len(shares))
    assert calibration.unknown_p("a", 60.0) == 1 / 121  # a distant image is unknown


def test_the_smallest_rate_of_unknown_with_few_images() -> None:
    assert calibration_of(a=9, b=10).unknown_rate() == 1 / 20
    assert calibration_of(a=60, b=60).unknown_rate() == 0.01
    assert calibration_of(a=9, b=10).unknown_rate(Rates(unknown=0.3)) == 0.3
    nothing = calibration_of(a=0)
    assert nothing.unknown_p("a", 50.0) is None and nothing.unknown_rate() == 1.0


# --- regions ---


def noise_peaks(rng: np.random.Generator, count: int, scale: float = 1.0) -> np.ndarray:
    """Return the highest local maxima (count, 16) of smooth noise; every tenth map is high."""
    maps = np.stack([gaussian_filter(rng.normal(size=(16, 16)), 1.0) for _ in range(count)])
    maps = scale * np.exp(2 * maps + 0.5 * (rng.uniform(size=(count, 1, 1)) < 0.1))
    return np.stack([peaks(m.astype(np.float32), PEAKS) for m in maps])


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("n", [40, 120])
def test_normal_images_have_at_most_the_rate_of_regions(n: int, rate: float) -> None:
    rng = np.random.default_rng(n)
    pool = noise_peaks(rng, 1500)
    losses = []
    for _ in range(400):
        rows = pool[rng.integers(len(pool), size=n + 20)]
        calibration = make_calibration({"a": calibration_set(rows[:n, 0], peaks=rows[:n])})
        limit = calibration.region_threshold(rate, "a")
        assert limit is not None
        losses.append(float(np.minimum((rows[n:] > limit).sum(1), 4).mean()))
    error = np.std(losses) / math.sqrt(len(losses))
    assert np.mean(losses) <= rate + 3 * error
    # and the rate is used
    assert np.mean(losses) >= rate - 2 * COUNTED_REGIONS / (n + 1) - 3 * error


def test_products_with_few_images_keep_the_rate_of_regions_together() -> None:
    """Seven images do not allow 0.4 per image, twenty-one of three products do."""
    rng = np.random.default_rng(5)
    scales = {"a": 1.0, "b": 50.0, "c": 0.01}
    pools = {name: noise_peaks(rng, 500, scale) for name, scale in scales.items()}
    stats = {name: (math.log(scale), 0.5) for name, scale in scales.items()}
    losses = []
    for _ in range(400):
        rows = {name: pool[rng.integers(500, size=7 + 10)] for name, pool in pools.items()}
        sets = {k: calibration_set(v[:7, 0], peaks=v[:7]) for k, v in rows.items()}
        calibration = make_calibration(sets, stats)
        alone = make_calibration({"a": sets["a"]}, stats)
        assert alone.region_threshold(0.4, "a") is None
        limits = {name: calibration.region_threshold(0.4, name) for name in scales}
        each = [np.minimum((v[7:] > limits[name]).sum(1), 4).mean() for name, v in rows.items()]
        losses.append(float(np.mean(each)))
        ratio = limits["b"] / limits["a"]  # type: ignore[operator]
        assert ratio == pytest.approx(50)
    assert np.mean(losses) <= 0.4 + 3 * np.std(losses) / math.sqrt(len(losses))


@given(st.integers(0, 60), st.integers(0, 2**32 - 1), st.floats(0.01, 0.98))
def test_the_region_threshold_is_the_smallest_that_the_theorem_allows(
    n: int, seed: int, rate: float
) -> None:
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.integers(0, 12, (n, PEAKS)).astype(np.float32))[:, ::-1]  # ties
    rows[rng.uniform(size=rows.shape) < 0.3] = -np.inf
    rows = np.sort(rows)[:, ::-1]
    rows[:, 0] = np.maximum(rows[:, 0], 0)  # every map has a maximum
    calibration = make_calibration({"a": calibration_set(rows[:, 0], peaks=rows)})

    def risk(limit: float) -> float:
        counts = [min(sum(v > limit for v in row), 4) for row in rows.tolist()]
        return (sum(counts) + 4) / (n + 1)

    limit = calibration.region_threshold(rate, "a")
    if 4 / (n + 1) > rate + 1e-9:
        assert limit is None
        return
    assert limit is not None and limit in rows and risk(limit) <= rate + 1e-9
    lower = [v for v in np.unique(rows) if v < limit]
    assert all(risk(v) > rate - 1e-9 for v in lower)
    more = calibration.region_threshold(min(rate + 0.01, 0.99), "a")
    assert more is not None and more <= limit  # monotone


def test_there_are_no_more_regions_than_peaks() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        level = gaussian_filter(rng.normal(size=(24, 30)), 1.2).astype(np.float32)
        highest = peaks(level, 200)
        for limit in np.quantile(level, [0.5, 0.8, 0.95]):
            assert len(find_regions(level, float(limit), most=200)) <= (highest > limit).sum()


# --- calibration sets ---


def test_an_image_in_both_sets_counts_once() -> None:
    first = calibration_set([1, 2, 3], hashes=[10, 20, 2**63 + 5])
    second = calibration_set([9, 4, 5], hashes=[2**63 + 5, 40, 10])
    both = first.merge(second)
    assert both.scores.tolist() == [1, 2, 3, 4] and both.hashes.tolist()[:2] == [10, 20]
    assert both.hashes.dtype == np.uint64 and both.peaks.shape == (4, PEAKS)
    empty = CalibrationSet.empty()
    assert len(empty.merge(first)) == 3 and len(first.merge(empty)) == 3
    assert len(empty) == 0


def test_unique_keeps_the_first_of_equal_images_in_order() -> None:
    twice = calibration_set([5, 4, 3, 2, 1], hashes=[9, 2**63 + 1, 9, 1, 2**63 + 1])
    assert twice.unique().scores.tolist() == [5, 4, 2]
    assert twice.unique().hashes.tolist() == [9, 2**63 + 1, 1]
    assert len(CalibrationSet.empty().unique()) == 0
