"""`differences` of calibrations: every field that decides is named, and equal ones are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snl.decision.calibration import Calibration, Rates
from snl.decision.differences import differences
from snl.decision.edit import set_rates
from snl.runtime.inspector import Inspector


@pytest.fixture
def calibration(inspector: Inspector) -> Calibration:
    return inspector.calibration


def test_equal_calibrations_do_not_differ(calibration: Calibration) -> None:
    again = replace(calibration, created="2026-01-01T00:00:00Z", reason="another")
    assert differences(calibration, again) == []


def test_each_change_has_its_words(calibration: Calibration) -> None:
    bolt = calibration.sets["bolt"]
    mask = np.zeros((64, 64), bool)
    fewer = {**calibration.sets, "bolt": bolt.select(np.arange(len(bolt) - 2))}
    other = replace(bolt, hashes=bolt.hashes + np.uint64(1))
    without = {name: one for name, one in calibration.sets.items() if name != "plate"}
    n = len(bolt)
    cases = {
        "false-alarm rate 0.05 -> 0.02": {"rates": Rates(0.02, 0.1)},
        "uncertain rate 0.1 -> 0.2": {"rates": Rates(0.05, 0.2)},
        "unknown rate 0.01 -> 0.02": {"rates": Rates(unknown=0.02)},
        "regions rate 0.2 -> 0.5": {"rates": Rates(regions=0.5)},
        "bolt: false-alarm rate 0.05 -> 0.03": {"product_rates": {"bolt": Rates(0.03, 0.1)}},
        "rule shared-tail -> conformal": {"rule": "conformal"},
        "bolt: rule shared-tail -> conformal": {"product_rules": {"bolt": "conformal"}},
        "tail as measured -> fitted": {"fit_tail": True},
        "tile 0 -> 64": {"tile": 64},
        f"bolt: {n} -> {n - 2} held-out images": {"sets": fewer},
        f"bolt: {n} other held-out images": {"sets": {**calibration.sets, "bolt": other}},
        "plate: removed": {"sets": without},
        "bolt: an ignore mask": {"ignore_masks": {"bolt": mask}},
        "bolt: mm per pixel none -> 0.5": {"mm_per_pixel": {"bolt": 0.5}},
        "bolt: smallest region 1 -> 9": {"min_region_area": {"bolt": 9}},
    }
    for words, change in cases.items():
        changed = replace(calibration, **change)  # type: ignore[arg-type]
        assert differences(calibration, changed) == [words]
        assert len(differences(changed, calibration)) == 1, "and back again"


def test_two_rates_that_one_edit_changes(calibration: Calibration) -> None:
    changed = set_rates(calibration, None, anomalous=0.3)
    assert differences(changed, calibration) == [
        "false-alarm rate 0.3 -> 0.05",
        "uncertain rate 0.3 -> 0.1",
    ]
