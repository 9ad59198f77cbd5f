"""What was tried for the shared tail, one change at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.false_alarm_rates.rules import RATE, set_of, together_and_defects
from benchmarks.internals import Calibration, ImageSample, shared_tail

PARTITIONS = 100
Centre = Callable[[np.ndarray], float]


def _mean(z: np.ndarray) -> float:
    return float(np.mean(z))


def _median(z: np.ndarray) -> float:
    return float(np.median(z))


def _hodges_lehmann(z: np.ndarray) -> float:
    i, j = np.triu_indices(len(z))
    return float(np.median((z[i] + z[j]) / 2))


TRIES: dict[str, dict[str, Any]] = {
    "shared-tail (the default)": {},
    "centre: median": {"centre": _median},
    "centre: mean": {"centre": _mean},
    "centre: Hodges-Lehmann": {"centre": _hodges_lehmann},
    "other products count 25 images": {"others": 25.0},
    "other products count 100 images": {"others": 100.0},
    "every image counts alike": {"others": 1e9},
    "one scale for all products": {"scale": "one"},
    "conformal": {"rule": "conformal"},
}


def tries(
    calibration: Calibration, kept: ImageSample, test: ImageSample, products: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return mean rate, its standard deviation over products and random partitions, lowest and
    highest mean of a product, and the share of defects found, for some products alone."""
    together, defects = together_and_defects(calibration, kept, test, products)
    counts = {p: len(calibration.sets[p]) for p in products}
    typical = float(np.median([calibration.log_score_stats[p][1] for p in products]))
    results = {}
    for name, change in TRIES.items():
        stats = {p: calibration.log_score_stats[p] for p in products}
        if change.get("scale") == "one":
            stats = {p: (mean, typical) for p, (mean, _) in stats.items()}
        base = dataclasses.replace(
            calibration,
            log_score_stats=stats,
            rule=change.get("rule", "shared-tail"),
            product_rules={},
            product_rates={},
        )
        rng = np.random.default_rng(0)
        rates, found = [], []
        with _changed(change):
            for _ in range(PARTITIONS):
                drawn = {p: rng.permutation(v) for p, v in together.items()}
                sets = {p: set_of(v[: counts[p]]) for p, v in drawn.items()}
                scores = dataclasses.replace(base, sets=sets).scores
                limits = {p: scores.threshold(RATE, p)[0] or np.inf for p in products}
                rates.append([np.mean(drawn[p][counts[p] :] > limits[p]) for p in products])
                found.append([np.mean(defects[p] > limits[p]) for p in products])
        each = np.mean(rates, 0)
        results[name] = {
            "rate": float(np.mean(rates)),
            "standard deviation": float(np.std(rates)),
            "lowest": float(each.min()),
            "highest": float(each.max()),
            "found": float(np.mean(found)),
        }
    return results


@contextmanager
def _changed(change: dict[str, Any]) -> Iterator[None]:
    """Run with another constant or centre of the shared tail."""
    with ExitStack() as stack:
        if "others" in change:
            stack.enter_context(mock.patch.object(shared_tail, "OTHERS", change["others"]))
        if centre := change.get("centre"):

            def left_out(z: np.ndarray, m: float, centre: Centre = centre) -> np.ndarray:
                if len(z) < 2:
                    return np.empty(0)
                return np.array([z[i] - centre(np.delete(z, i)) for i in range(len(z))])

            stack.enter_context(mock.patch.object(shared_tail, "centre", centre))
            stack.enter_context(mock.patch.object(shared_tail, "left_out_residuals", left_out))
        yield
