"""Decisions on parts: valid rates, a reference computed from the definition, and the precedence."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from snl.decision.calibration import Calibration, Rates
from snl.decision.decide import judge
from snl.decision.inspection import Verdict
from snl.decision.parts import PartTracker, allows, decide_part, part_images_needed
from tests.decision.calibrations import calibration_of, calibration_set, make_calibration

NEAR, FAR = 0.0, 1000.0
"""Distances of images of a known and of an unknown product."""


def verdict(
    calibration: Calibration, score: float, product: str = "bolt", distance: float = NEAR
) -> Verdict:
    return judge(calibration, score, product, distance)


def decide(calibration: Calibration, *scores: float, **options: Any) -> Any:
    views = [(f"{n}.png", verdict(calibration, score)) for n, score in enumerate(scores)]
    return decide_part("7", views, calibration, **options)


# ---------------------------------------------------------------- rates


def draw(rng: np.random.Generator, parts: int, views: int, dependence: str) -> np.ndarray:
    """Return positive scores (parts, views)."""
    own, common = rng.normal(size=(parts, views)), rng.normal(size=(parts, 1))
    share = {"independent": 0.0, "partial": 0.8, "full": 1.0}[dependence]
    return np.exp(share * common + (1 - share) * own)


@pytest.mark.parametrize("dependence", ["independent", "partial", "full"])
@pytest.mark.parametrize("separate", [True, False], ids=["a product each", "one product"])
@pytest.mark.parametrize("views", [1, 3, 5])
def test_normal_parts_are_anomalous_at_most_at_the_rate(
    dependence: str, separate: bool, views: int
) -> None:
    """Whole parts are held out; the views of one are as dependent as those of a new part."""
    rng = np.random.default_rng(views)
    draws, new, rate, flagged, unsure = 60, 40, 0.1, 0, 0
    for _ in range(draws):
        held = draw(rng, 60, views, dependence).astype(np.float32)
        names = [f"view {n}" for n in range(views)] if separate else ["bolt"] * views
        sets = {name: held[:, n] for n, name in enumerate(names)} if separate else {"bolt": held}
        calibration = make_calibration(
            {name: calibration_set(scores.ravel()) for name, scores in sets.items()},
            rates=Rates(rate, 2 * rate),
        )
        for scores in draw(rng, new, views, dependence).astype(np.float32):
            seen = [
                (name, verdict(calibration, float(s), name))
                for name, s in zip(names, scores, strict=True)
            ]
            decision = decide_part("7", seen, calibration).decision
            flagged += decision == "anomalous"
            unsure += decision in ("anomalous", "uncertain")
    # parts of one draw share their calibration: its beta-distributed rate adds to the variance
    spread = np.sqrt(rate * (1 - rate) * (1 / (draws * new) + 1 / (draws * 61)))
    assert flagged / (draws * new) <= rate + 3 * spread
    assert unsure / (draws * new) <= 2 * rate + 6 * spread
    if dependence == "independent" and views == 1:
        assert flagged / (draws * new) >= rate - 3 * spread - 1 / 61


def test_the_p_value_is_that_of_the_definition() -> None:
    """Counted view by view, with ties, for 1 to 4 views of two products."""
    rng = np.random.default_rng(0)
    held = {name: rng.integers(1, 9, n).astype(np.float32) for name, n in (("a", 30), ("b", 17))}
    calibration = make_calibration({k: calibration_set(v) for k, v in held.items()})
    for _ in range(200):
        count = int(rng.integers(1, 5))
        seen = [("ab"[int(rng.integers(2))], float(rng.integers(1, 9))) for _ in range(count)]
        smallest = 1.0
        for name, score in seen:
            higher = sum(1 for value in held[name] if value >= score)
            if higher:  # else the images of all products decide, which test_conformal checks
                smallest = min(smallest, (1 + higher) / (1 + len(held[name])))
            else:
                p = calibration.scores.p_value(score, name)
                assert p is not None
                smallest = min(smallest, p)
        views = [(str(n), verdict(calibration, s, name)) for n, (name, s) in enumerate(seen)]
        part = decide_part("7", views, calibration)
        assert part.p_value == pytest.approx(min(1.0, count * smallest), rel=1e-11)
        assert part.products == tuple(sorted({name for name, _ in seen}))
        assert part.score == max(v.calibrated for _, v in views)


def test_one_view_is_decided_as_its_image() -> None:
    calibration = calibration_of(bolt=40)
    for score in np.arange(0.5, 42):
        image = verdict(calibration, float(score))
        part = decide(calibration, float(score))
        assert (part.decision, part.p_value) == (image.decision, pytest.approx(image.p_value))


@pytest.mark.parametrize("views", range(1, 40))
def test_a_rate_is_possible_from_the_number_of_images_on_that_is_stated(views: int) -> None:
    """The highest view of a part is higher than all held-out images: anomalous if they suffice."""
    needed = part_images_needed(0.05, views)
    assert needed == 20 * views - 1
    for count, expected in ((needed, "anomalous"), (needed - 1, "uncertain")):
        calibration = calibration_of(bolt=count)
        scores = [1e6, *[0.5] * (views - 1)]
        assert allows(calibration, 0.05, views, "bolt") == (expected == "anomalous")
        assert decide(calibration, *scores).decision == expected
        # with too few images nothing is passed as normal
        quiet = decide(calibration, *[0.5] * views).decision
        assert quiet == ("normal" if expected == "anomalous" else "uncertain")


# ---------------------------------------------------------------- precedence


ANOMALOUS, UNCERTAIN, NORMAL = 1000.0, 985.0, 1.0
"""Scores of a view of three that make the part so, with the held-out scores 1 to 999."""


@pytest.mark.parametrize(
    ("scores", "unknown", "unreadable", "expected"),
    [
        ((NORMAL, NORMAL, NORMAL), (), 0, "normal"),
        ((NORMAL, UNCERTAIN - 10, NORMAL), (), 0, "uncertain"),
        ((NORMAL, ANOMALOUS, NORMAL), (), 0, "anomalous"),
        ((NORMAL, ANOMALOUS, NORMAL), (0,), 0, "anomalous"),
        ((NORMAL, ANOMALOUS, NORMAL), (1,), 0, "unknown product"),  # its score says nothing
        ((NORMAL, UNCERTAIN - 10, NORMAL), (0,), 0, "unknown product"),
        ((ANOMALOUS, ANOMALOUS, ANOMALOUS), (0, 1, 2), 0, "unknown product"),
        ((NORMAL, NORMAL, NORMAL), (), 1, "uncertain"),
        ((NORMAL, ANOMALOUS, NORMAL), (), 1, "anomalous"),
        ((NORMAL, NORMAL, NORMAL), (2,), 1, "unknown product"),
        ((), (), 3, "uncertain"),
    ],
)
def test_precedence(
    scores: tuple[float, ...], unknown: tuple[int, ...], unreadable: int, expected: str
) -> None:
    calibration = calibration_of(bolt=999)
    views = [
        (f"{n}.png", verdict(calibration, score, distance=FAR if n in unknown else NEAR))
        for n, score in enumerate(scores)
    ]
    for order in itertools.permutations(views):
        part = decide_part("7", order, calibration, unreadable=unreadable)
        assert part.decision == expected
        known = [name for name, v in views if v.decision != "unknown product"]
        assert (part.p_value is None) == (not known) == (part.worst is None)


def test_views_of_unknown_products_count_as_views() -> None:
    """Leaving them out would make the p-value of the others smaller than what is guaranteed."""
    calibration = calibration_of(bolt=999)
    near, far = verdict(calibration, 990.0), verdict(calibration, 5.0, distance=FAR)
    part = decide_part("7", [("a", near), ("b", far), ("c", far)], calibration)
    assert near.p_value is not None and part.p_value == pytest.approx(3 * near.p_value)
    assert part.worst == "a"


def test_the_smallest_rate_of_the_products_counts() -> None:
    calibration = dataclasses.replace(
        calibration_of(bolt=199, nut=199), product_rates={"nut": Rates(0.02, 0.03)}
    )
    views = [("a", verdict(calibration, 197.0)), ("b", verdict(calibration, 1.0, "nut"))]
    part = decide_part("7", views, calibration)
    assert (part.rate, part.uncertain_rate, part.p_value) == (0.02, 0.03, 0.04)
    assert part.decision == "normal"
    given = decide_part("7", views, calibration, Rates(0.04, 0.1))
    assert (given.rate, given.decision) == (0.04, "anomalous")


def test_without_held_out_images_every_part_is_uncertain() -> None:
    part = decide(calibration_of(bolt=0), 1.0, 2.0)
    assert (part.decision, part.p_value) == ("uncertain", None)


def test_a_p_value_equal_to_the_rate_is_anomalous_for_any_number_of_views() -> None:
    """V * p is rounded so that it does not exceed a rate that it equals."""
    for views in range(1, 60):
        calibration = calibration_of(bolt=20 * views - 1)
        assert decide(calibration, 1e6, *[1.0] * (views - 1)).p_value == 0.05


# ---------------------------------------------------------------- streams


def test_a_part_is_decided_with_its_last_image_in_any_order() -> None:
    calibration = calibration_of(bolt=199)
    rng = np.random.default_rng(0)
    parts = [str(n) for n in range(20) for _ in range(5)] + [""] * 7
    for _ in range(20):
        order = rng.permutation(len(parts))
        names = [f"{n}.png" for n in order]
        of_images = [parts[n] for n in order]
        verdicts = [verdict(calibration, float(s)) for s in rng.integers(1, 220, len(parts))]
        bad = {int(n) for n in rng.choice(len(parts), 8, replace=False)}
        tracker = PartTracker(of_images, names, calibration)
        decided = {}
        for index in range(len(parts)):
            if index in bad:
                continue
            for part in tracker.add(index, verdicts[index]):
                assert part.part not in decided
                decided[part.part] = part
                last = max(n for n, p in enumerate(of_images) if (p or names[n]) == part.part)
                assert last <= index
            complete = {
                p or names[n] for n, p in enumerate(of_images) if n <= index
            } - {p or names[n] for n, p in enumerate(of_images) if n > index}  # fmt: skip
            assert decided.keys() == complete
        decided |= {part.part: part for part in tracker.finish()}
        assert tracker.waiting == 0 and len(decided) == 27
        for name, part in decided.items():
            images = [n for n, p in enumerate(of_images) if (p or names[n]) == name]
            views = [(names[n], verdicts[n]) for n in images if n not in bad]
            expected = decide_part(name, views, calibration, unreadable=len(set(images) & bad))
            assert part == expected


# ---------------------------------------------------------------- what docs/decisions.md states


@pytest.mark.parametrize("dependence", ["independent", "partial", "full"])
@pytest.mark.parametrize("seen", [1, 2, 4])
def test_parts_with_fewer_views_than_the_held_out_ones(dependence: str, seen: int) -> None:
    """The rate of parts is at most rate * V / v; that of an image at most rate + 1 / (m + 1)."""
    rng = np.random.default_rng(seen)
    draws, new, held, views, rate, flagged = 200, 20, 12, 4, 0.1, 0
    for _ in range(draws):
        scores = draw(rng, held, views, dependence).astype(np.float32)
        sets = {"bolt": calibration_set(scores.ravel())}
        calibration = make_calibration(sets, rates=Rates(rate, 0.5))
        for part in draw(rng, new, views, dependence).astype(np.float32):
            flagged += decide(calibration, *map(float, part[:seen])).decision == "anomalous"
    share = flagged / (draws * new)
    spread = np.sqrt(rate * (1 - rate) * (1 / (draws * new) + 1 / (draws * (held + 1))))
    assert share <= rate * views / seen + 3 * spread
    if seen == 1:
        assert share <= rate + 1 / (held + 1) + 3 * spread
    if seen == views:
        assert share <= rate + 3 * spread


def test_what_the_rule_costs_with_many_images() -> None:
    """Five views at 5 %: 4.9 % where they are independent, 1 % where they repeat each other."""
    rng = np.random.default_rng(0)
    quantiles = norm.ppf(np.arange(1, 1000) / 1000)
    calibration = make_calibration({"bolt": calibration_set(np.exp(quantiles))})
    for dependence, expected in (("independent", 1 - 0.99**5), ("full", 0.01)):
        parts = draw(rng, 2000, 5, dependence)
        flagged = sum(decide(calibration, *map(float, p)).decision == "anomalous" for p in parts)
        assert flagged / 2000 == pytest.approx(expected, abs=3 * np.sqrt(expected / 2000))
