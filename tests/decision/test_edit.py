"""Edits of a calibration: each changes what it names, and never the calibration it starts from."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from snl.decision import edit
from snl.decision.calibration import Calibration, Rates
from snl.decision.decide import judge
from snl.errors import DataError, SettingsError
from tests.decision.calibrations import (
    assert_same,
    calibration_of,
    calibration_set,
    full_calibration,
)

MASK = np.eye(8, dtype=bool)
EDITS: dict[str, tuple[Callable[[Calibration], Calibration], str, str]] = {
    "rates": (lambda c: edit.set_rates(c, anomalous=0.3), "rates", "rates"),
    "rates of a product": (
        lambda c: edit.set_rates(c, "bolt", unknown=0.3), "product_rates", "rates"),
    "mask": (
        lambda c: edit.set_ignore_mask(c, "bolt", MASK), "ignore_masks", "ignore mask of bolt"),
    "no mask": (
        lambda c: edit.set_ignore_mask(c, "größe =", None), "ignore_masks",
        "ignore mask of größe ="),
    "scale": (
        lambda c: edit.set_product_values(c, "mm_per_pixel", {"größe =": 2}), "mm_per_pixel",
        "mm_per_pixel"),
    "area": (
        lambda c: edit.set_product_values(c, "min_region_area", {"bolt": 8}), "min_region_area",
        "min_region_area"),
    "sets": (
        lambda c: edit.set_calibration_sets(c, {"bolt": calibration_set([1, 2])}), "sets",
        "new normal images"),
    "added": (
        lambda c: edit.set_calibration_sets(
            c, {"größe =": calibration_set([1])}, add=True, reason="x"), "sets", "x"),
    "any": (lambda c: edit.edit(c, "why", tile=0), "tile", "why"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "field", "reason"), EDITS.values(), ids=EDITS.keys())
def test_an_edit_changes_one_field_of_a_copy(
    change: Callable[[Calibration], Calibration], field: str, reason: str
) -> None:
    before = full_calibration()
    untouched = copy.deepcopy(before)
    after = change(before)
    assert_same(before, untouched)
    assert after.reason == reason
    age = datetime.now(UTC) - datetime.fromisoformat(after.created)
    assert abs(age.total_seconds()) < 60
    restored = {name: getattr(before, name) for name in ("created", "reason", field)}
    assert_same(dataclasses.replace(after, **restored), before)
    assert getattr(after, field) is not getattr(before, field)


# --- rates ---


def test_rates_of_all_and_of_one_product() -> None:
    calibration = calibration_of(a=19, b=19)
    changed = edit.set_rates(calibration, anomalous=0.2)
    assert changed.rates == Rates(0.2, 0.2) and changed.product_rates == {}
    changed = edit.set_rates(changed, "a", unknown=0.3)
    assert changed.rates_for("a") == Rates(0.2, 0.2, 0.3) and changed.rates_for("b").unknown == 0.01
    changed = edit.set_rates(changed, uncertain=0.4)  # the product keeps its rates
    assert changed.rates_for("a") == Rates(0.2, 0.2, 0.3) and changed.rates == Rates(0.2, 0.4)
    assert edit.set_rates(changed, "b", regions=0.5, anomalous=None).rates_for("b") == Rates(
        0.2, 0.4, regions=0.5
    )


@pytest.mark.parametrize(
    ("product", "rates", "message"),
    [
        ("c", {"anomalous": 0.2}, "'c' is not"),
        (None, {"anomalous": 0.01}, "needs 99 held-out normal images; there are 38 of all"),
        ("a", {"anomalous": 0.01}, "19 of 'a' and 38 of all products"),
        (None, {"uncertain": 0.01}, "give as much or more"),
        (None, {"unknown": 2.0}, "between 0 and 1"),
    ],
)
def test_impossible_rates_are_refused(
    product: str | None, rates: dict[str, float], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        edit.set_rates(calibration_of(a=19, b=19), product, **rates)


def test_rates_of_unknown_and_regions_need_no_images() -> None:
    assert edit.set_rates(calibration_of(a=0), unknown=0.2, regions=0.3).rates.regions == 0.3


# --- masks and product values ---


def test_masks_are_set_replaced_and_removed() -> None:
    calibration = edit.set_ignore_mask(calibration_of(a=1, b=1), "a", MASK)
    assert calibration.ignore_masks["a"] is MASK
    calibration = edit.set_ignore_mask(calibration, "b", ~MASK)
    calibration = edit.set_ignore_mask(calibration, "a", ~MASK)
    assert set(calibration.ignore_masks) == {"a", "b"} and not calibration.ignore_masks["a"][0, 0]
    calibration = edit.set_ignore_mask(calibration, "a", None)
    assert set(edit.set_ignore_mask(calibration, "a", None).ignore_masks) == {"b"}
    with pytest.raises(DataError, match="'a' ignores every pixel"):
        edit.set_ignore_mask(calibration, "a", np.ones((4, 4), bool))
    with pytest.raises(SettingsError, match="'c' is not"):
        edit.set_ignore_mask(calibration, "c", MASK)


@pytest.mark.parametrize("field", ["mm_per_pixel", "min_region_area"])
def test_product_values(field: str) -> None:
    calibration = edit.set_product_values(calibration_of(a=1, b=1), field, {"a": 2, "b": 3})
    calibration = edit.set_product_values(calibration, field, {"a": 5})
    assert getattr(calibration, field) == {"a": 5, "b": 3}
    for value in (0, -1, float("nan"), float("inf")):
        with pytest.raises(SettingsError, match=f"{field} of 'a' is .*above 0"):
            edit.set_product_values(calibration, field, {"b": 1, "a": value})
    with pytest.raises(SettingsError, match="'c' is not"):
        edit.set_product_values(calibration, field, {"c": 1})


# --- calibration sets ---


def test_sets_are_replaced_or_added_to() -> None:
    calibration = calibration_of(a=3, b=4)  # hashes 0, 1, 2 and 0, 1, 2, 3
    new = calibration_set([9, 8, 7, 7], hashes=[2, 50, 51, 51])
    replaced = edit.set_calibration_sets(calibration, {"a": new})
    assert replaced.sets["a"].scores.tolist() == [9, 8, 7]  # every image once
    added = edit.set_calibration_sets(calibration, {"a": new}, add=True)
    assert added.sets["a"].scores.tolist() == [1, 2, 3, 8, 7]  # the image that is known stays
    for changed in (replaced, added):
        assert changed.sets["b"] is calibration.sets["b"]
        assert changed.products == ("a", "b")
        assert changed.scores is not calibration.scores


# --- missed images ---


def verdicts(calibration: Calibration, *scores: float, product: str = "a") -> list[Any]:
    return [judge(calibration, score, product, 1.0, product) for score in scores]


def test_missed_images_raise_the_rate_of_uncertain_of_their_product() -> None:
    calibration = calibration_of(a=39, b=39)
    near, far = verdicts(calibration, 35.0, 20.0)
    assert near.decision == far.decision == "normal" and near.p_value == 6 / 40
    changed, caught = edit.raise_uncertain_rates(calibration, [far, near])
    assert caught == [False, True]
    assert changed.rates == calibration.rates and set(changed.product_rates) == {"a"}
    assert changed.rates_for("a") == dataclasses.replace(
        calibration.rates, uncertain=6 / 40 * edit.ROUNDING
    )
    assert changed.sets is calibration.sets  # scores of anomalous images do not enter
    assert changed.reason == "2 missed images"
    assert [v.decision for v in verdicts(changed, 35.0, 20.0)] == ["uncertain", "normal"]
    changed, caught = edit.raise_uncertain_rates(calibration, [far], largest=0.6)
    assert caught == [True]
    assert changed.rates_for("a").uncertain == pytest.approx(far.p_value, rel=1e-3)


def test_the_largest_of_several_p_values_counts() -> None:
    calibration = calibration_of(a=39, b=39)
    missed = verdicts(calibration, 33.5, 35.0)
    for order in (missed, missed[::-1]):
        changed, caught = edit.raise_uncertain_rates(calibration, order)
        assert caught == [True, True]
        assert changed.rates_for("a").uncertain == pytest.approx(missed[0].p_value, rel=1e-3)


def test_images_that_are_caught_or_hopeless_change_nothing() -> None:
    calibration = calibration_of(a=39, b=39)
    flagged, far = verdicts(calibration, 39.0, 5.0)
    assert flagged.decision != "normal"
    for missed, caught in (([flagged], [True]), ([far], [False]), ([], [])):
        assert edit.raise_uncertain_rates(calibration, missed) == (calibration, caught)
        assert edit.raise_uncertain_rates(calibration, missed)[0] is calibration


# --- several edits as one version ---


def test_combined_edits_are_one_version_with_all_reasons() -> None:
    before = calibration_of(a=19, b=19)
    first = edit.set_rates(before, anomalous=0.2)
    second = edit.set_product_values(first, "mm_per_pixel", {"a": 2})
    third = edit.set_rates(second, "a", anomalous=0.3)
    combined = edit.combine(before, [first, second, third])
    assert combined.reason == "rates, mm_per_pixel"
    assert_same(dataclasses.replace(combined, reason=third.reason), third)
    assert edit.combine(before, []) is before
