"""The drift monitor of an inspector: what it takes from the calibration, and from inspections."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from snl.decision.calibration import Calibration
from snl.decision.decide import judge
from snl.decision.inspection import ANOMALOUS, UNKNOWN, Verdict
from snl.errors import SnlError
from snl.monitoring.drift import Drift, DriftMonitor

FALSE_ALARM = 0.01
"""Chance of ever a false alarm for one product, unless another is asked for."""


def baseline(calibration: Calibration) -> dict[str, np.ndarray]:
    """Score and distance (n, 2) of the held-back images that would not be rejected, by product.

    Those that are the threshold themselves are left out, see docs/drift.md.
    """
    found = {}
    for product, normals in calibration.sets.items():
        rates = calibration.rates_for(product)
        limit, _ = calibration.scores.threshold(rates.anomalous, product)
        least = calibration.unknown_rate(rates)
        unknown = [calibration.unknown_p(distance) for distance in normals.distances.tolist()]
        near = np.array([p is None or p > least for p in unknown], bool)
        # as float32: a threshold of all products together is off its score by rounding
        low = normals.scores < np.float32(np.inf if limit is None else limit)
        rows = np.stack([normals.scores, normals.distances], 1).astype(np.float64)
        found[product] = rows[near & low]
    return found


def start(calibration: Calibration, false_alarm: float = FALSE_ALARM) -> DriftMonitor:
    """A monitor that has seen nothing yet."""
    return DriftMonitor(baseline(calibration), false_alarm=false_alarm)


def resume(path: Path, calibration: Calibration) -> DriftMonitor:
    """The monitor of a state file.

    Raises:
        SnlError: unreadable, or begun with another calibration.
    """
    monitor = DriftMonitor.load(path)
    before, wanted = monitor.baseline, baseline(calibration)
    same = all(k in before and np.array_equal(before[k], v) for k, v in wanted.items())
    if not same or any(len(rows) for k, rows in before.items() if k not in wanted):
        raise SnlError(
            f"{path}: was begun with another bundle or calibration, so its promise does not hold "
            "for this one; give another file, or remove it to start anew"
        )
    return monitor


def watch(
    monitor: DriftMonitor, calibration: Calibration, verdict: Verdict, when: str | None = None
) -> Drift:
    """Tell the monitor of one more image.

    Whether it counts as rejected is decided by the rates of the calibration, which the baseline is
    cut off by too, whatever other rates this inspection was asked to use.
    """
    given = verdict.product if verdict.product_from == "given" else None
    own = judge(calibration, verdict.score, verdict.recognised, verdict.distance, given)
    rejected = own.decision in (ANOMALOUS, UNKNOWN)
    return monitor.update(
        verdict.product, (verdict.score, verdict.distance), rejected=rejected, when=when
    )
