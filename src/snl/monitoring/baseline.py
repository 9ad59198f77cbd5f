"""Connect a drift monitor with a calibration and with the inspections based on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from snl.decision.calibration import Calibration
from snl.decision.decide import judge
from snl.decision.inspection import ANOMALOUS, UNKNOWN, Verdict
from snl.errors import SnlError
from snl.monitoring.drift import Drift, DriftMonitor

FALSE_ALARM = 0.01
"""Default probability that a product without drift ever raises an alarm."""


def baseline(calibration: Calibration) -> dict[str, np.ndarray]:
    """Return the baseline of each product: its calibration images that would not be rejected.

    An image whose score is the threshold itself is left out; docs/drift.md explains why.

    Args:
        calibration: with held-out calibration images, thresholds and rates.

    Returns:
        Product to float64 (n, 2): score and distance to the product's nearest prototype.
    """
    baselines = {}
    for product, normals in calibration.sets.items():
        rates = calibration.rates_for(product)
        limit, _ = calibration.scores.threshold(rates.anomalous, product)
        unknown_rate = calibration.unknown_rate(rates)
        p_values = [calibration.unknown_p(distance) for distance in normals.distances.tolist()]
        is_known = np.array([p is None or p > unknown_rate for p in p_values], bool)
        # compared in float32: a threshold pooled over products differs from its score by rounding
        is_below = normals.scores < np.float32(np.inf if limit is None else limit)
        rows = np.stack([normals.scores, normals.distances], 1).astype(np.float64)
        baselines[product] = rows[is_known & is_below]
    return baselines


def start(calibration: Calibration, false_alarm: float = FALSE_ALARM) -> DriftMonitor:
    """Return a new monitor for a calibration.

    Args:
        calibration: its held-out calibration images are the baseline.
        false_alarm: probability in (0, 1) that a product without drift ever raises an alarm.
    """
    return DriftMonitor(baseline(calibration), false_alarm=false_alarm)


def resume(path: Path, calibration: Calibration) -> DriftMonitor:
    """Load a monitor from its state file.

    Args:
        path: file written by `DriftMonitor.save`.
        calibration: must have the same baseline as the calibration that the monitor started with.

    Raises:
        SnlError: the file cannot be read, or belongs to another calibration.
    """
    monitor = DriftMonitor.load(path)
    saved, expected = monitor.baseline, baseline(calibration)
    same = all(k in saved and np.array_equal(saved[k], v) for k, v in expected.items())
    if not same or any(len(rows) for k, rows in saved.items() if k not in expected):
        raise SnlError(
            f"{path}: belongs to another bundle or calibration, so its false-alarm guarantee does "
            "not hold for this one; give another file, or delete it to start a new monitor"
        )
    return monitor


def watch(
    monitor: DriftMonitor, calibration: Calibration, verdict: Verdict, when: str | None = None
) -> Drift:
    """Update the monitor with one inspected image.

    The calibration's rates determine whether the image counts as rejected, because they also limit
    the baseline. Other rates that the inspection itself may have used are ignored.

    Args:
        monitor: is updated.
        calibration: the calibration that the monitor started with.
        verdict: the decision about the image.
        when: time or name of the image; see `DriftMonitor.update`.

    Returns:
        The drift status of the image's product.
    """
    given = verdict.product if verdict.product_from == "given" else None
    verdict = judge(calibration, verdict.score, verdict.recognised, verdict.distance, given)
    rejected = verdict.decision in (ANOMALOUS, UNKNOWN)
    return monitor.update(
        verdict.product, (verdict.score, verdict.distance), rejected=rejected, when=when
    )
