"""From score to decision: rates, verdicts, regions, versions as JSON and arrays."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from snl.decision.calibration import PEAKS, REGIONS_COUNTED, Calibration, Normals, Rates
from snl.decision.regions import find_regions, peaks
from snl.decision.serialise import from_document, to_document
from snl.errors import SettingsError


def normals_of(scores: Any, distances: Any = None, tops: Any = None, hashes: Any = None) -> Normals:
    scores = np.asarray(scores, np.float32)
    n = len(scores)
    rows = np.full((n, PEAKS), -np.inf, np.float32)
    rows[:, 0] = scores
    return Normals(
        scores,
        np.full(n, 1, np.float32) if distances is None else np.asarray(distances, np.float32),
        rows if tops is None else np.asarray(tops, np.float32),
        np.arange(n, dtype=np.uint64) if hashes is None else np.asarray(hashes, np.uint64),
    )


def calibration_of(**counts: int) -> Calibration:
    """Scores 1, 2, ..., n of each product."""
    normals = {name: normals_of(np.arange(1, n + 1)) for name, n in counts.items()}
    return Calibration(normals, dict.fromkeys(counts, (0.0, 1.0)))


# --- rates ---


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, math.nan, math.inf, "0.1", None, True, [0.1]])
@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Rates)])
def test_a_rate_is_a_share(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match="between 0 and 1") as caught:
        Rates(**{name: value})
    assert "\n" not in str(caught.value)


def test_the_rate_of_uncertain_counts_the_anomalous_ones() -> None:
    with pytest.raises(SettingsError, match="give as much or more"):
        Rates(anomalous=0.2, uncertain=0.1)
    assert Rates().changed(anomalous=0.3) == Rates(anomalous=0.3, uncertain=0.3)
    assert Rates().changed(anomalous=0.02).uncertain == 0.1
    assert Rates().changed(uncertain=0.3, anomalous=None, unknown=None).anomalous == 0.05
    with pytest.raises(SettingsError):
        Rates().changed(anomalous=0.3, uncertain=0.2)


@given(
    st.integers(0, 40), st.integers(0, 40), st.floats(0.01, 0.5), st.floats(0, 0.4),
    st.floats(0.5, 45),
)  # fmt: skip
def test_decisions_are_where_the_thresholds_are(
    own: int, others: int, rate: float, more: float, score: float
) -> None:
    calibration = calibration_of(own=own, others=others)
    score = float(np.float32(score))
    rates = Rates(rate, rate + more)
    verdict = calibration.judge(score, {"own": 1.0, "others": 9.0}, "own", rates)
    if own + others and 1 / (own + others + 1) <= rate:
        assert verdict.threshold is not None and verdict.uncertain_threshold is not None
        if score > verdict.threshold:
            assert verdict.decision == "anomalous"
        elif score > verdict.uncertain_threshold:
            assert verdict.decision == "uncertain"
        else:
            assert verdict.decision == "normal"
        calibration.check(rates, "own")
        calibration.check(rates)
    else:
        assert (verdict.decision, verdict.threshold) == ("uncertain", None)
        for product in ("own", None):
            with pytest.raises(SettingsError, match="held-back normal images") as caught:
                calibration.check(rates, product)
            assert "\n" not in str(caught.value)


def test_what_cannot_be_promised_is_told_with_numbers() -> None:
    with pytest.raises(SettingsError) as caught:
        calibration_of(a=10, b=20).check(Rates(anomalous=0.01), "a")
    told = str(caught.value)
    assert "0.01 needs 99 held-back normal images; there are 10 of 'a' and 30 of all" in told
    assert "promise 0.032 and more" in told and "--add" in told and "--tail fit" in told
    tail = dataclasses.replace(calibration_of(a=60), tail=True)
    tail.check(Rates(anomalous=0.001), "a")
    assert tail.judge(1.0, {"a": 1.0}, rates=Rates(0.001)).threshold_from == "tail fit"


def test_a_product_can_have_rates_of_its_own() -> None:
    own = {"a": Rates(0.3, 0.4)}
    calibration = dataclasses.replace(calibration_of(a=19, b=19), own_rates=own)
    near_a, near_b = {"a": 0.1, "b": 5.0}, {"a": 5.0, "b": 0.1}
    assert calibration.judge(15.0, near_a).decision == "anomalous"
    assert calibration.judge(15.0, near_b).decision == "normal"
    assert calibration.judge(15.0, near_b, "a").decision == "anomalous"
    assert calibration.judge(15.0, near_a, rates=Rates()).decision == "normal"  # for this once
    assert calibration.rates_of("b") == calibration.rates_of() == Rates()


# --- recognised, given, unknown ---


def test_the_nearest_product_is_recognised_and_a_given_one_believed() -> None:
    calibration = calibration_of(a=19, b=199)
    found = calibration.judge(5.0, {"a": 1.2, "b": 1.1})
    assert (found.product, found.product_from, found.recognised) == ("b", "recognised", "b")
    assert found.distance == 1.1 and found.p_value == 196 / 200
    given = calibration.judge(5.0, {"a": 1.2, "b": 1.1}, "a")
    assert (given.product, given.product_from, given.recognised) == ("a", "given", "b")
    assert given.p_value == 16 / 20
    far = {"a": 99.0, "b": 98.0}
    assert calibration.judge(5.0, far).decision == "unknown product"
    assert calibration.judge(5.0, far, "a").decision == "normal"


@given(
    st.lists(st.floats(0.1, 3), min_size=1, max_size=30), st.floats(0.05, 9), st.floats(0.01, 0.9)
)
def test_unknown_is_told_at_its_rate_with_a_margin(
    distances: list[float], distance: float, rate: float
) -> None:
    known = np.array(distances, np.float32)
    calibration = Calibration({"a": normals_of(known, known)}, {"a": (0.0, 1.0)})
    verdict = calibration.judge(0.0, {"a": distance}, rates=Rates(0.001, unknown=rate))
    # twice the squared distance: an image at this distance counts as one at distance / sqrt(2)
    p = (1 + sum(2 * float(d) ** 2 >= distance**2 * (1 + 1e-12) for d in known)) / (1 + len(known))
    low = (1 + sum(2 * float(d) ** 2 >= distance**2 * (1 - 1e-12) for d in known)) / (
        1 + len(known)
    )
    assert verdict.unknown_p in (p, low)
    holds = max(rate, 1 / (1 + len(known)))
    assert (verdict.decision == "unknown product") == (verdict.unknown_p <= holds)  # type: ignore[operator]


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_no_more_normal_images_than_the_rate_are_unknown(rate: float) -> None:
    """Even without the margin: the law of distances is the same for held-back and new images."""
    rng = np.random.default_rng(7)
    told = []
    for _ in range(400):
        drawn = np.sqrt(rng.chisquare(6, (2, 60 + 20)))
        calibration = Calibration(
            {k: normals_of(v[:60], v[:60]) for k, v in zip("ab", drawn, strict=True)},
            dict.fromkeys("ab", (0.0, 1.0)),
        )
        p = [[calibration.unknown_p(d) for d in v[60:].tolist()] for v in drawn]
        told.append(
            float(np.mean(np.array(p, float) <= calibration.unknown_rate(Rates(unknown=rate))))
        )
    assert np.mean(told) <= rate + 3 * np.std(told) / math.sqrt(len(told))
    assert calibration.unknown_p(60.0) == 1 / 121  # and what is far away is


def test_few_images_promise_the_least_rate_of_unknown() -> None:
    calibration = calibration_of(a=9, b=10)
    assert calibration.unknown_rate() == 1 / 20
    assert calibration.judge(0.0, {"a": 50.0, "b": 60.0}).decision == "unknown product"
    nothing = calibration_of(a=0)
    verdict = nothing.judge(3.0, {"a": 50.0})
    assert (verdict.decision, verdict.p_value, verdict.unknown_p) == ("uncertain", None, None)
    assert verdict.threshold is None and verdict.region_threshold is None


# --- regions ---


def noise_peaks(rng: np.random.Generator, count: int, scale: float = 1.0) -> np.ndarray:
    """Highest local maxima (count, 16) of smooth noise; every tenth map is a bad one."""
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
        calibration = Calibration({"a": normals_of(rows[:n, 0], tops=rows[:n])}, {"a": (0.0, 1.0)})
        limit = calibration.region_threshold(rate, "a")
        assert limit is not None
        losses.append(float(np.minimum((rows[n:] > limit).sum(1), 4).mean()))
    error = np.std(losses) / math.sqrt(len(losses))
    assert np.mean(losses) <= rate + 3 * error
    assert np.mean(losses) >= rate - 2 * REGIONS_COUNTED / (n + 1) - 3 * error  # and it is used


def test_products_with_few_images_keep_the_rate_of_regions_together() -> None:
    """Seven images cannot promise 0.4 a map, twenty-one of three products can."""
    rng = np.random.default_rng(5)
    scales = {"a": 1.0, "b": 50.0, "c": 0.01}
    pools = {name: noise_peaks(rng, 500, scale) for name, scale in scales.items()}
    usual = {name: (math.log(scale), 0.5) for name, scale in scales.items()}
    losses = []
    for _ in range(400):
        rows = {name: pool[rng.integers(500, size=7 + 10)] for name, pool in pools.items()}
        normals = {k: normals_of(v[:7, 0], tops=v[:7]) for k, v in rows.items()}
        calibration = Calibration(normals, usual)
        alone = Calibration({"a": normals["a"]}, usual)
        assert alone.region_threshold(0.4, "a") is None
        limits = {name: calibration.region_threshold(0.4, name) for name in scales}
        each = [np.minimum((v[7:] > limits[name]).sum(1), 4).mean() for name, v in rows.items()]
        losses.append(float(np.mean(each)))
        ratio = limits["b"] / limits["a"]  # type: ignore[operator]
        assert ratio == pytest.approx(50)
    assert np.mean(losses) <= 0.4 + 3 * np.std(losses) / math.sqrt(len(losses))


@given(st.integers(0, 60), st.integers(0, 2**32 - 1), st.floats(0.01, 0.98))
def test_the_region_threshold_is_the_least_that_the_theorem_allows(
    n: int, seed: int, rate: float
) -> None:
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.integers(0, 12, (n, PEAKS)).astype(np.float32))[:, ::-1]  # ties
    rows[rng.uniform(size=rows.shape) < 0.3] = -np.inf
    rows = np.sort(rows)[:, ::-1]
    rows[:, 0] = np.maximum(rows[:, 0], 0)  # every map has a highest place
    calibration = Calibration({"a": normals_of(rows[:, 0], tops=rows)}, {"a": (0.0, 1.0)})

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


# --- kept images ---


def test_an_image_that_is_in_both_counts_once() -> None:
    first = normals_of([1, 2, 3], hashes=[10, 20, 2**63 + 5])
    second = normals_of([9, 4, 5], hashes=[2**63 + 5, 40, 10])
    both = first.and_also(second)
    assert both.scores.tolist() == [1, 2, 3, 4] and both.hashes.tolist()[:2] == [10, 20]
    assert both.hashes.dtype == np.uint64 and both.peaks.shape == (4, PEAKS)
    assert len(Normals.none().and_also(first)) == 3 and len(first.and_also(Normals.none())) == 3
    assert len(Normals.none()) == 0


# --- as JSON and arrays ---


def full() -> Calibration:
    """With everything in it that a calibration can hold."""
    rng = np.random.default_rng(0)
    tops = np.sort(rng.uniform(0, 3, (5, PEAKS)))[:, ::-1].copy()
    tops[2, 7:] = -np.inf
    return Calibration(
        {
            "bolt": normals_of(
                rng.uniform(1, 2, 5), rng.uniform(size=5), tops, [2**64 - 1, 2, 3, 4, 5]
            ),
            "größe =": Normals.none(),
        },
        {"bolt": (0.25, 0.5), "größe =": (-3.0, 1e-6)},
        Rates(0.01, 0.02, 0.03, 0.04),
        {"bolt": Rates(0.2, 0.3)},
        {"größe =": np.eye(8, dtype=bool)},
        {"bolt": 0.05},
        {"bolt": 7},
        96,
        True,
        "2026-01-02T03:04:05+00:00",
        "everything",
    )


def through_json(calibration: Calibration) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    document, arrays = to_document(calibration)
    return json.loads(json.dumps(document, allow_nan=False)), arrays


def assert_same(left: Calibration, right: Calibration) -> None:
    for f in dataclasses.fields(Calibration):
        a, b = getattr(left, f.name), getattr(right, f.name)
        if f.name == "normals":
            assert list(a) == list(b)
            for name in a:
                for part in dataclasses.fields(Normals):
                    x, y = getattr(a[name], part.name), getattr(b[name], part.name)
                    assert x.dtype == y.dtype
                    np.testing.assert_array_equal(x, y)
        elif f.name == "ignored":
            assert list(a) == list(b) and all(np.array_equal(a[k], b[k]) for k in a)
            assert all(mask.dtype == bool for mask in b.values())
        else:
            assert a == b and type(a) is type(b)


def test_a_calibration_comes_back_whole() -> None:
    assert_same(full(), from_document(*through_json(full())))
    bare = calibration_of(a=3)
    assert_same(bare, from_document(*through_json(bare)))


Damage = Callable[[dict[str, Any], dict[str, np.ndarray]], Any]


def put(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    return lambda document, arrays: arrays.update({name: change(arrays[name].copy())})


def at(index: Any, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[index] = value
        return array

    return change


PARTS = [f.name for f in dataclasses.fields(Normals)]
DAMAGES: dict[str, Damage] = {
    **{f"no {part}": (lambda d, a, n=part: a.pop(f"0.{n}")) for part in PARTS},
    **{f"no {key}": (lambda d, a, k=key: d.pop(k)) for key in to_document(full())[0]},
    "a score more": put("0.scores", lambda v: np.append(v, v[:1])),
    "a score is no number": put("0.scores", at(0, math.nan)),
    "an endless score": put("0.scores", at(0, math.inf)),
    "scores in rows": put("0.scores", lambda v: v[:, None]),
    "one score alone": put("0.scores", lambda v: np.float32(1).reshape(())),
    "scores as text": put("0.scores", lambda v: np.frombuffer(b"abcde", np.int8)),
    "a distance is no number": put("0.distances", at(0, math.nan)),
    "few distances": put("0.distances", lambda v: v[:2]),
    "few peaks": put("0.peaks", lambda v: v[:, :8]),
    "a peak is no number": put("0.peaks", at((0, 0), math.nan)),
    "an endless peak": put("0.peaks", at((0, 0), math.inf)),
    "peaks upside down": put("0.peaks", lambda v: v[:, ::-1]),
    "hashes as fractions": put("0.hashes", lambda v: v.astype(np.float32)),
    "few hashes": put("0.hashes", lambda v: v[1:]),
    "an array too many": lambda d, a: a.update({"0.more": np.zeros(3)}),
    "arrays of one more product": lambda d, a: a.update({"2.scores": np.zeros(3)}),
    "a line for a mask": put("1.ignored", lambda v: v[0]),
    "an empty mask": put("1.ignored", lambda v: v[:0]),
    "a negative deviation": lambda d, a: d["usual"].update(bolt=[0.0, -1.0]),
    "no deviation": lambda d, a: d["usual"].update(bolt=[0.0]),
    "a deviation of zero": lambda d, a: d["usual"].update(bolt=[0.0, 0.0]),
    "a usual score that is no number": lambda d, a: d["usual"].update(bolt=[math.nan, 1.0]),
    "an endless deviation": lambda d, a: d["usual"].update(bolt=[0.0, math.inf]),
    "no usual score of a product": lambda d, a: d["usual"].pop("bolt"),
    "usual scores of others": lambda d, a: d["usual"].update(c=[0.0, 1.0]),
    "a list of usual scores": lambda d, a: d.update(usual=[[0.0, 1.0], [0.0, 1.0]]),
    "another name": lambda d, a: d.update(products=["a", "b"]),
    "products as a number": lambda d, a: d.update(products=2),
    "a rate of 2": lambda d, a: d["rates"].update(anomalous=2),
    "a rate as text": lambda d, a: d["rates"].update(anomalous="0.1"),
    "rates that contradict": lambda d, a: d["rates"].update(anomalous=0.5),
    "another rate": lambda d, a: d["rates"].update(other=0.5),
    "rates as a list": lambda d, a: d.update(rates=[0.1, 0.2]),
    "own rates of others": lambda d, a: d["own_rates"].update(c=d["rates"]),
    "a scale of zero": lambda d, a: d["mm_per_pixel"].update(bolt=0),
    "a negative scale": lambda d, a: d["mm_per_pixel"].update(bolt=-0.1),
    "a scale of nothing": lambda d, a: d["mm_per_pixel"].update(bolt=None),
    "a scale of others": lambda d, a: d["mm_per_pixel"].update(c=0.1),
    "no smallest region": lambda d, a: d["smallest"].update(bolt=0),
    "tiles of a pixel": lambda d, a: d.update(tile=1),
    "tiles without end": lambda d, a: d.update(tile=math.inf),
    "negative tiles": lambda d, a: d.update(tile=-64),
    "tiles as text": lambda d, a: d.update(tile="large"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_noticed(damage: Damage) -> None:
    document, arrays = through_json(full())
    damage(document, arrays)
    kinds = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, SettingsError)
    with pytest.raises(kinds):
        from_document(document, arrays)
