"""Intervals of the true rate, and held-out images that stand alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import beta, mannwhitneyu

from snl.decision.calibration import CONFORMAL, SHARED_TAIL, Calibration
from snl.decision.certainty import lie_further, stand_alone, true_rate_interval
from snl.decision.edit import leave_out, set_rule
from snl.errors import SettingsError
from tests.decision.calibrations import calibration_set, make_calibration


def random_calibration(seed: int, rule: str = SHARED_TAIL, **counts: int) -> Calibration:
    """Return a calibration of log-normal scores with standard deviation 0.2."""
    rng = np.random.default_rng(seed)
    sets = {}
    for name, n in counts.items():
        data = calibration_set(np.exp(0.2 * rng.normal(size=n)))
        names = np.array([f"good/{name}{i}.png" for i in range(n)], np.str_)
        sets[name] = dataclasses.replace(data, names=names)
    return make_calibration(sets, dict.fromkeys(counts, (0.0, 0.2)), rule=rule)


@pytest.mark.parametrize(("n", "allowed"), [(19, 1), (20, 1), (38, 1), (39, 2), (200, 10)])
def test_the_conformal_interval_is_that_of_the_beta_distribution(n: int, allowed: int) -> None:
    calibration = random_calibration(0, CONFORMAL, a=n)
    ends = true_rate_interval(calibration, "a", 0.05)
    assert ends == pytest.approx(tuple(beta(allowed, n + 1 - allowed).ppf([0.025, 0.975])))
    more = true_rate_interval(calibration, "a", 0.05, images=10 * n)
    assert ends is not None and more is not None and more[1] - more[0] < ends[1] - ends[0]


def test_the_interval_of_the_shared_tail_holds_the_true_rate() -> None:
    inside = []
    population = np.exp(0.2 * np.random.default_rng(99).normal(size=20_000))
    for seed in range(60):
        calibration = random_calibration(seed, a=20, b=40, c=40)
        ends = true_rate_interval(calibration, "a", 0.05)
        limit = calibration.scores.threshold(0.05, "a")[0]
        assert ends is not None and limit is not None
        inside.append(ends[0] <= np.mean(population > limit) <= ends[1])
    assert np.mean(inside) >= 0.8


def test_no_interval_without_a_threshold_or_with_another_basis() -> None:
    calibration = random_calibration(1, CONFORMAL, a=10, b=30)
    assert true_rate_interval(calibration, "a", 0.05) is None  # of all products
    assert true_rate_interval(calibration, "a", 0.001) is None
    assert true_rate_interval(random_calibration(1, a=2, b=30), "a", 0.05) is None


def with_outlier(factor: float) -> Calibration:
    calibration = random_calibration(2, a=20, b=20)
    scores = calibration.sets["a"].scores.copy()
    scores[7] = factor * np.delete(scores, 7).max()
    return calibration.with_sets({"a": dataclasses.replace(calibration.sets["a"], scores=scores)})


@pytest.mark.parametrize("rule", [SHARED_TAIL, CONFORMAL])
def test_an_image_that_stands_alone_is_named_with_its_effect(rule: str) -> None:
    calibration = dataclasses.replace(with_outlier(2.5), rule=rule)
    (alone,) = stand_alone(calibration, "a")
    assert (alone.name, alone.row) == ("good/a7.png", 7)
    assert alone.score == pytest.approx(2.5 * alone.next_score)
    without = leave_out(calibration, ["a7.png"])
    assert len(without.sets["a"]) == 19 and without.sets["b"] is calibration.sets["b"]
    assert alone.threshold == calibration.scores.threshold(0.05, "a")[0]
    assert alone.threshold_without == without.scores.threshold(0.05, "a")[0]
    assert alone.threshold is not None
    if rule == CONFORMAL:
        assert alone.threshold == np.float32(alone.score)
    assert stand_alone(without, "a") == stand_alone(calibration, "b") == []


def test_normal_draws_hardly_ever_have_an_image_that_stands_alone() -> None:
    found = [bool(stand_alone(random_calibration(s, a=20), "a")) for s in range(200)]
    assert np.mean(found) <= 0.02
    # a second kind of normal part is no outlier
    two = random_calibration(3, a=20)
    scores = two.sets["a"].scores.copy()
    scores[:8] *= 3
    two = two.with_sets({"a": dataclasses.replace(two.sets["a"], scores=scores)})
    assert stand_alone(two, "a") == []
    assert stand_alone(random_calibration(4, a=3), "a") == []


def test_leaving_out_needs_a_name_that_is_clear() -> None:
    calibration = with_outlier(2.5)
    with pytest.raises(SettingsError, match=r"x\.png: no held-out image has this name"):
        leave_out(calibration, ["x.png"])
    with pytest.raises(SettingsError, match=r"7\.png: no held-out"):
        leave_out(calibration, ["7.png"])  # part of a name is no name
    twice = {
        k: dataclasses.replace(v, names=np.array(["good/1.png"] * len(v)))
        for k, v in calibration.sets.items()
    }
    with pytest.raises(SettingsError, match="several held-out images"):
        leave_out(calibration.with_sets(twice), ["good/1.png"])


def test_the_rule_of_one_product_and_of_all() -> None:
    calibration = random_calibration(5, a=20, b=20)
    one = set_rule(calibration, CONFORMAL, "a")
    assert one.rule_for("a") == CONFORMAL and one.rule_for("b") == SHARED_TAIL
    assert one.scores.threshold(0.05, "a")[1] == "product"
    assert one.scores.threshold(0.05, "b") == calibration.scores.threshold(0.05, "b")
    assert set_rule(one, SHARED_TAIL).product_rules == {}
    for rule, product in (("other", None), (CONFORMAL, "c")):
        with pytest.raises(SettingsError):
            set_rule(calibration, rule, product)


def test_images_that_lie_further_than_held_out_ones_are_named_by_product() -> None:
    rng = np.random.default_rng(0)
    sets = {}
    for name in ("moved", "same", "few", "nearer"):
        data = calibration_set(np.exp(0.2 * rng.normal(size=20)))
        sets[name] = dataclasses.replace(data, distances=rng.normal(1, 0.1, 20).astype(np.float32))
    calibration = make_calibration(sets, dict.fromkeys(sets, (0.0, 0.2)))
    new = {
        "moved": rng.normal(1.3, 0.1, 12),
        "same": rng.normal(1, 0.1, 300),
        "few": rng.normal(9, 0.1, 4),
        "nearer": rng.normal(0.5, 0.1, 50),
    }
    (further,) = lie_further(calibration, new)
    assert (further.product, further.images) == ("moved", 12)
    assert (
        further.p_value
        == mannwhitneyu(new["moved"], sets["moved"].distances, alternative="greater").pvalue
        <= 0.001
    )
    assert "moved: 12 normal images lie further" in str(further)


def test_images_of_the_same_kind_seldom_lie_further() -> None:
    alarms = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        data = dataclasses.replace(
            calibration_set(np.ones(20)), distances=rng.gamma(3, size=20).astype(np.float32)
        )
        calibration = make_calibration({"a": data}, {"a": (0.0, 0.2)})
        alarms += len(lie_further(calibration, {"a": rng.gamma(3, size=50)}))
    assert alarms <= 4  # at most one in 1,000 is nominal; 5 of 400 have a probability of 0.0007
