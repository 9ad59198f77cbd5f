"""The rules of thresholds compared: realised rates, their spread, and defects found."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.false_alarm_rates import ALL
from benchmarks.internals import RULES, Calibration, CalibrationSet, ImageSample

PARTITIONS = 200
RATE = 0.05
_GRID = np.linspace(0.0, 0.3, 601)


def compare_rules(calibration: Calibration, kept: ImageSample, test: ImageSample) -> dict[str, Any]:
    """Return figures of each rule at 5 % over random partitions.

    Held-out images and normal test images, which the network was not trained on, are put together
    and split at random, as many held out as before. `oracle` is the share of defects found with the
    threshold of every product at one and the same quantile of all these normal images, at which the
    mean rate is that of the rule: no calibration can know it.
    """
    normal = np.array([r.label == "normal" for r in test.records], bool)
    together, defects = together_and_defects(calibration, kept, test, calibration.products)
    counts = {p: len(data) for p, data in calibration.sets.items()}
    results: dict[str, Any] = {}
    for rule in RULES:
        ruled = dataclasses.replace(calibration, rule=rule, product_rules={})
        rates = {p: np.zeros(PARTITIONS) for p in together}
        found = {p: np.zeros(PARTITIONS) for p in together}
        rng = np.random.default_rng(0)
        for i in range(PARTITIONS):
            drawn = {p: rng.permutation(v) for p, v in together.items()}
            sets = {p: set_of(v[: counts[p]]) for p, v in drawn.items()}
            current = ruled.with_sets(sets)
            for p, values in drawn.items():
                limit, _ = current.scores.threshold(RATE, p)
                limit = np.inf if limit is None else limit
                rates[p][i] = np.mean(values[counts[p] :] > limit)
                found[p][i] = np.mean(defects[p] > limit)
        every = np.stack(list(rates.values()))
        results[rule] = {
            "rate": {p: float(v.mean()) for p, v in rates.items()} | {ALL: float(every.mean())},
            "standard deviation": float(every.std()),
            "found": {p: float(v.mean()) for p, v in found.items()}
            | {ALL: float(np.mean([v.mean() for v in found.values()]))},
            "oracle": _oracle(together, defects, float(every.mean())),
        }
        plain = ruled.scores
        limits = {p: plain.threshold(RATE, p)[0] for p in together}
        results[rule]["plain split"] = {
            p: {
                "alarms": int(np.sum(test.scores[test.of(p) & normal] > (limits[p] or np.inf))),
                "normal": int(np.sum(test.of(p) & normal)),
                "found": int(np.sum(defects[p] > (limits[p] or np.inf))),
                "anomalous": len(defects[p]),
            }
            for p in together
        }
    # what the other rule finds at the same mean rate: nominal rates are varied
    results["conformal at the rate of shared-tail"] = _at_same_rate(
        dataclasses.replace(calibration, rule="conformal", product_rules={}),
        together,
        defects,
        counts,
        results["shared-tail"]["rate"][ALL],
    )
    return results


def together_and_defects(
    calibration: Calibration, kept: ImageSample, test: ImageSample, products: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the scores of held-out and normal test images, and those of anomalous ones."""
    normal = np.array([r.label == "normal" for r in test.records], bool)
    together = {
        p: np.concatenate([kept.scores[kept.of(p)], test.scores[test.of(p) & normal]])
        for p in products
    }
    return together, {p: test.scores[test.of(p) & ~normal] for p in products}


def _at_same_rate(
    calibration: Calibration,
    together: dict[str, np.ndarray],
    defects: dict[str, np.ndarray],
    counts: dict[str, int],
    rate: float,
) -> float:
    """Return the share of defects found by a rule whose mean realised rate is the given one."""
    nominal = np.array([0.04, 0.045, 0.05, 0.055, 0.06, 0.065, 0.07, 0.08, 0.1])
    rates, found = np.zeros(len(nominal)), np.zeros(len(nominal))
    rng = np.random.default_rng(0)
    for _ in range(PARTITIONS // 4):
        drawn = {p: rng.permutation(v) for p, v in together.items()}
        current = calibration.with_sets({p: set_of(v[: counts[p]]) for p, v in drawn.items()})
        for j, value in enumerate(nominal.tolist()):
            for p, values in drawn.items():
                limit = current.scores.threshold(value, p)[0]
                limit = np.inf if limit is None else limit
                rates[j] += np.mean(values[counts[p] :] > limit)
                found[j] += np.mean(defects[p] > limit)
    total = PARTITIONS // 4 * len(together)
    return float(np.interp(rate, rates / total, found / total))


def set_of(scores: np.ndarray) -> CalibrationSet:
    """Return a calibration set with these scores (n,); its other fields are placeholders."""
    n = len(scores)
    return CalibrationSet(
        scores.astype(np.float32),
        np.ones(n, np.float32),
        np.zeros((n, 16), np.float32),
        np.arange(n, dtype=np.uint64),
    )


def _oracle(together: dict[str, np.ndarray], defects: dict[str, np.ndarray], rate: float) -> float:
    """Return the share of defects found at the quantile that realises a mean rate."""
    limits = {p: np.quantile(v, 1 - _GRID) for p, v in together.items()}
    rates = np.mean([np.mean(v[:, None] > limits[p], 0) for p, v in together.items()], 0)
    found = np.mean([np.mean(v[:, None] > limits[p], 0) for p, v in defects.items()], 0)
    return float(np.interp(rate, rates, found))
