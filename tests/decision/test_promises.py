"""What held-out images allow: the numbers agree with the thresholds themselves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from snl.decision.calibration import CONFORMAL, Calibration, CalibrationSet
from snl.decision.edit import remove_products
from snl.decision.products import Prototypes
from snl.decision.promises import format_missing, promises
from snl.decision.sample import PEAKS
from snl.errors import SettingsError


def calibration(**counts: int) -> Calibration:
    rng = np.random.default_rng(0)
    sets = {
        name: CalibrationSet(
            rng.uniform(1, 2, count).astype(np.float32),
            rng.uniform(0.1, 0.2, count).astype(np.float32),
            -np.sort(-rng.uniform(0, 1, (count, PEAKS)), 1).astype(np.float32),
            rng.integers(1, 2**60, count, np.uint64),
        )
        for name, count in counts.items()
    }
    centres = np.eye(len(counts), 4, dtype=np.float32)
    stats = dict.fromkeys(counts, (0.0, 1.0))
    return Calibration(sets, stats, Prototypes(centres, tuple(counts)))


@pytest.mark.parametrize("count", [1, 4, 10, 18, 19, 20, 40])
def test_the_guarantee_of_a_product_alone(count: int) -> None:
    alone = dataclasses.replace(calibration(a=count, b=60), rule=CONFORMAL)
    (promise,) = (p for p in promises(alone, "a") if "conformal" in p.what)
    assert (promise.needed, promise.have) == (19, count)
    basis = alone.scores.threshold(0.05, "a")[1]
    assert (promise.missing == 0) == (basis == "product")


@pytest.mark.parametrize("count", [1, 9, 18, 19, 30])
def test_decisions_at_the_rate(count: int) -> None:
    one = dataclasses.replace(calibration(a=count), rule=CONFORMAL)
    (promise,) = (p for p in promises(one, "a") if p.what.startswith("decisions"))
    assert (promise.missing == 0) == one.can_decide()


@pytest.mark.parametrize("count", [1, 18, 19, 20])
def test_region_thresholds(count: int) -> None:
    one = calibration(a=count)
    (promise,) = (p for p in promises(one, "a") if "region" in p.what)
    assert (promise.missing == 0) == (one.region_threshold(0.2, "a") is not None)


def test_what_is_missing_is_said() -> None:
    one = calibration(a=3, b=200)
    text = format_missing(one, "a")
    assert text.startswith("7 more for a comparison of the image as a whole; 16 more for")
    assert format_missing(one, "b") == "" == format_missing(one, "a", all_products=True)
    assert format_missing(calibration(a=3), "a", all_products=True) == (
        "16 more for decisions at a rate of 0.05; 96 more for a rate of unknown products of 0.01"
    )
    with pytest.raises(SettingsError, match="not known"):
        promises(one, "c")


# --- removed products ---


def test_thresholds_do_not_change_when_a_product_is_removed() -> None:
    before = calibration(a=5, b=30, c=21)
    after = remove_products(before, ["b"])
    assert after.products == ("a", "c")
    for product in after.products:
        for rate in (0.05, 0.1, 0.2, 0.3):
            assert before.scores.threshold(rate, product) == after.scores.threshold(rate, product)
            assert before.region_threshold(rate, product) == after.region_threshold(rate, product)
        for value in (0.5, 1.1, 1.6, 1.95, 2.5):
            assert before.scores.p_value(value, product) == after.scores.p_value(value, product)
            assert before.unusual_p(product, value) == after.unusual_p(product, value)
    (retired,) = after.retired
    assert not retired.data.hashes.any() and set(retired.data.names.tolist()) == {""}


def test_removed_products_survive_a_file() -> None:
    from snl.decision.serialise import from_document, to_document
    from snl.settings import MapSettings

    after = remove_products(calibration(a=5, b=30, c=21), ["b", "c"])
    again = from_document(*to_document(after), MapSettings())
    assert len(again.retired) == 2
    assert again.scores.threshold(0.1, "a") == after.scores.threshold(0.1, "a")
    document, arrays = to_document(after)
    arrays["retired.1.scores"] = -arrays["retired.1.scores"]
    with pytest.raises(ValueError, match="damaged"):
        from_document(document, arrays, MapSettings())
