"""From a prediction to a decision: verdicts, recognised and unknown products, ignore masks."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snl.decision.calibration import Rates
from snl.decision.decide import decide, decision_at, judge
from snl.decision.prediction import Prediction
from snl.errors import SettingsError
from snl.settings import MapSettings
from tests.decision.calibrations import (
    assert_same,
    calibration_of,
    calibration_set,
    full_calibration,
    make_calibration,
)


def prediction_at(
    *embedding: float, score: float = 5.0, anomaly_map: np.ndarray | None = None
) -> Prediction:
    """Return a prediction with this embedding; the map is 4 x 4 for an image of 12 x 8."""
    if anomaly_map is None:
        anomaly_map = np.full((4, 4), score, np.float32)
    return Prediction(anomaly_map, score, np.array(embedding, np.float32), (12, 8), "a.png")


# --- thresholds ---


@given(
    st.integers(0, 40), st.integers(0, 40), st.floats(0.01, 0.5), st.floats(0, 0.4),
    st.floats(0.5, 45),
)  # fmt: skip
def test_decisions_agree_with_thresholds(
    count: int, others: int, rate: float, more: float, score: float
) -> None:
    calibration = calibration_of(a=count, b=others)
    score = float(np.float32(score))
    rates = Rates(rate, rate + more)
    verdict = judge(calibration, score, "a", 1.0, "a", rates)
    if count + others and 1 / (count + others + 1) <= rate:
        assert verdict.threshold is not None and verdict.uncertain_threshold is not None
        if score > verdict.threshold:
            assert verdict.decision == "anomalous"
        elif score > verdict.uncertain_threshold:
            assert verdict.decision == "uncertain"
        else:
            assert verdict.decision == "normal"
        calibration.check_rates(rates, "a")
        calibration.check_rates(rates)
    else:
        assert (verdict.decision, verdict.threshold) == ("uncertain", None)
        for product in ("a", None):
            with pytest.raises(SettingsError, match="held-out normal images") as caught:
                calibration.check_rates(rates, product)
            assert "\n" not in str(caught.value)


def test_the_decision_at_a_p_value() -> None:
    rates = Rates(0.05, 0.1)
    assert decision_at(0.051, rates, 1.0) == "uncertain"
    assert decision_at(0.05, rates, 1.0) == "anomalous"
    assert decision_at(0.101, rates, 1.0) == "normal"
    assert decision_at(0.001, rates, None) == decision_at(None, rates, None) == "uncertain"


def test_a_threshold_from_a_fitted_tail() -> None:
    calibration = dataclasses.replace(calibration_of(a=60), fit_tail=True)
    assert judge(calibration, 1.0, "a", 1.0, rates=Rates(0.001)).threshold_from == "tail fit"


def test_rates_of_a_product_and_of_one_call() -> None:
    rates = {"a": Rates(0.3, 0.4)}
    calibration = dataclasses.replace(calibration_of(a=19, b=19), product_rates=rates)
    assert judge(calibration, 15.0, "a", 0.1).decision == "anomalous"
    assert judge(calibration, 15.0, "b", 0.1).decision == "normal"
    assert judge(calibration, 15.0, "b", 0.1, "a").decision == "anomalous"
    assert judge(calibration, 15.0, "a", 0.1, rates=Rates()).decision == "normal"


# --- recognised, given and unknown products ---


def test_the_nearest_product_is_recognised_and_a_given_product_is_used() -> None:
    calibration = calibration_of(a=19, b=199)  # prototypes at (10, 0) and (0, 10)
    near_b = prediction_at(0, 9)
    recognised = decide(near_b, calibration)
    assert (recognised.product, recognised.product_from) == ("b", "recognised")
    assert recognised.recognised == "b" and recognised.distance == 1
    assert recognised.p_value == 196 / 200
    given_a = decide(near_b, calibration, "a")
    assert (given_a.product, given_a.product_from, given_a.recognised) == ("a", "given", "b")
    assert given_a.p_value == 16 / 20
    far = prediction_at(90, 100)
    assert decide(far, calibration).decision == "unknown product"
    assert decide(far, calibration, "a").decision == "normal"
    with pytest.raises(SettingsError, match="'c' is not"):
        decide(near_b, calibration, "c")


@given(
    st.lists(st.floats(0.1, 3), min_size=1, max_size=30), st.floats(0.05, 9), st.floats(0.01, 0.9)
)
def test_unknown_at_its_rate_with_a_margin(
    distances: list[float], distance: float, rate: float
) -> None:
    known = np.array(distances, np.float32)
    calibration = make_calibration({"a": calibration_set(known, known)})
    verdict = judge(calibration, 0.0, "a", distance, rates=Rates(0.001, unknown=rate))

    medians = [np.median(np.delete(known, i)) if len(known) > 1 else d for i, d in enumerate(known)]

    def p_value(squared: float) -> float:
        """Twice the squared distance, in medians: an image counts as one at distance / sqrt(2)."""
        scale = float(np.median(known.astype(np.float64))) ** 2
        pairs = zip(known.tolist(), medians, strict=True)
        above = sum(2 * (d / float(m)) ** 2 >= squared / scale for d, m in pairs)
        return (1 + above) / (1 + len(known))

    bounds = (p_value(distance**2 * (1 + 1e-6)), p_value(distance**2 * (1 - 1e-6)))
    assert verdict.unknown_p in bounds
    limit = max(rate, 1 / (1 + len(known)))
    assert (verdict.decision == "unknown product") == (verdict.unknown_p <= limit)  # type: ignore[operator]


def test_verdicts_with_few_images() -> None:
    assert judge(calibration_of(a=9, b=10), 0.0, "a", 50.0).decision == "unknown product"
    verdict = judge(calibration_of(a=0), 3.0, "a", 50.0)
    assert (verdict.decision, verdict.p_value, verdict.unknown_p) == ("uncertain", None, None)
    assert verdict.threshold is None and verdict.region_threshold is None


# --- ignore masks, region rules ---


def test_ignored_pixels_do_not_count() -> None:
    """A quarter of the map is ignored; the mask has another size than the map."""
    rng = np.random.default_rng(0)
    anomaly_map = rng.uniform(1, 2, (4, 4)).astype(np.float32)
    anomaly_map[0, 0] = 30.0
    mask = np.zeros((64, 64), bool)
    mask[:32, :32] = True
    prediction = prediction_at(10, 0, score=30.0, anomaly_map=anomaly_map)
    calibration = dataclasses.replace(calibration_of(a=40, b=40), ignore_masks={"a": mask})
    result = decide(prediction, calibration)
    rest = np.where(np.arange(16).reshape(4, 4) % 4 < 2, 0, anomaly_map)
    rest[2:] = anomaly_map[2:]
    np.testing.assert_array_equal(result.prediction.anomaly_map, rest)
    assert result.score == rest.max() == result.prediction.score
    assert result.decision == "normal"
    assert decide(prediction, calibration, "b").score == 30.0  # the mask of another product
    # with the scorer of the network
    scoring = MapSettings(score="topk", top_share=0.25)
    result = decide(prediction, dataclasses.replace(calibration, scoring=scoring))
    assert result.score == pytest.approx(np.sort(rest.ravel())[-4:].astype(np.float64).mean())


def test_the_inspection_has_the_region_rules_of_its_product() -> None:
    calibration = dataclasses.replace(
        calibration_of(a=60, b=60),
        mm_per_pixel={"a": 0.5},
        min_region_area={"b": 30},
        map_range=(0.5, 4.0),
    )
    anomaly_map = np.zeros((12, 8), np.float32)
    anomaly_map[2:5, 1:5] = 99.0
    prediction = prediction_at(10, 0, score=99.0, anomaly_map=anomaly_map)
    result = decide(prediction, calibration, "a")
    (region,) = result.regions
    assert (region.area, region.area_mm2) == (12, 3.0)
    assert region.p_value == calibration.max_scores.p_value(99.0, "a")
    assert result.map_range == (0.5, 4.0)
    assert decide(prediction, calibration, "b").regions == ()  # smaller than 30 pixels


# --- decide changes nothing ---


@pytest.mark.parametrize("product", [None, "größe =", "bolt"])
def test_decide_is_pure(product: str | None) -> None:
    calibration = dataclasses.replace(full_calibration(), fit_tail=False)
    anomaly_map = np.random.default_rng(1).uniform(0, 3, (8, 8)).astype(np.float32)
    embedding = calibration.prototypes.centres[1].copy()  # of the product with the mask
    prediction = Prediction(
        anomaly_map, 2.5, embedding, (16, 12), "a.png", {"head": np.ones(3, np.float32)}
    )
    before, untouched = copy.deepcopy(prediction), copy.deepcopy(calibration)
    for array in (anomaly_map, embedding, *calibration.ignore_masks.values()):
        array.setflags(write=False)  # writing to one would raise
    first = decide(prediction, calibration, product)
    _ = first.anomaly_map, first.regions, first.to_dict()
    second = decide(prediction, calibration, product)
    assert first.to_dict() == second.to_dict()
    assert_same(calibration, untouched)
    assert prediction.score == before.score and prediction.size == before.size
    np.testing.assert_array_equal(prediction.anomaly_map, before.anomaly_map)
    np.testing.assert_array_equal(prediction.embedding, before.embedding)
    masked = first.product in calibration.ignore_masks
    assert (first.prediction is prediction) == (not masked)
    assert not masked or first.prediction.outputs == prediction.outputs
