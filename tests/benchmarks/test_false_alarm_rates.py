"""Realised and expected false-alarm rates, on one bundle and on generated scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import snl
from benchmarks.false_alarm_rates import ALL, bundles, generated, tables


@pytest.mark.parametrize(("n", "rate"), [(20, 0.1), (60, 0.05)])
def test_the_expected_range_holds_95_percent_of_simulated_counts(n: int, rate: float) -> None:
    rng = np.random.default_rng(0)
    images, runs = 50, 4000
    scores = np.sort(rng.random((runs, n)), 1)
    # the largest p-value at most `rate` belongs to this score, counted from the top
    thresholds = scores[:, -int(rate * (n + 1))]
    counts = (rng.random((runs, images)) >= thresholds[:, None]).sum(1)
    low, high = bundles.expected_range(images, n, rate)
    assert np.mean((counts >= low) & (counts <= high)) > 0.94
    assert np.mean((counts > low) & (counts < high)) < 0.96


def test_too_few_scores_for_a_rate_give_no_alarms() -> None:
    assert bundles.expected_range(50, 5, 0.01) == [0, 0]


def test_generated_scores_keep_the_nominal_rate() -> None:
    results = generated.generated(runs=20)
    assert results["families"].keys() == generated.FAMILIES.keys()
    for family in (*results["families"].values(), *results["one product"].values()):
        for rates in family.values():
            for rate, realised in rates.items():
                assert realised[ALL] < 1.2 * float(rate) + 4 * realised["standard error"] + 0.002


def test_a_bundle_and_its_table(calibrated: Path, varied: Path, parts: Path) -> None:
    catalog = snl.Catalog.read(varied)
    run = bundles.measure(calibrated, catalog)
    assert set(run["held_back"]) == set(catalog.products)
    total = run["rates"]["0.05"][ALL]
    each = [run["rates"]["0.05"][name] for name in catalog.products]
    for key in ("normal", "alarms", "anomalous", "found"):
        assert total[key] == sum(result[key] for result in each)
    lines = tables.table(json.loads(json.dumps({"runs": [run]}))).splitlines()
    for name in (*catalog.products, ALL):
        assert any(line.startswith(f"| {name} |") for line in lines)
    with pytest.raises(snl.SnlError, match="was not trained on"):
        bundles.measure(calibrated, snl.Catalog.read(parts))
