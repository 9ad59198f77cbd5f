"""Connect a drift monitor with a calibration and with the inspections based on it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from snl.decision.calibration import Calibration
from snl.decision.decide import judge
from snl.decision.inspection import ANOMALOUS, UNKNOWN, Verdict
from snl.errors import SnlError
from snl.monitoring.drift import Drift, DriftMonitor
from snl.monitoring.product_stream import MIN_BASELINE

REJECTED = 0.25
"""Share of rejected images that does not count as drift."""

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
        # of held-out images the second distance is not stored; this is a lower bound of it
        apart = calibration.prototypes.separation(product)
        p_values = [
            calibration.unknown_p(product, distance, max(apart - distance, distance))
            for distance in normals.distances.tolist()
        ]
        is_known = np.array([p is None or p > unknown_rate for p in p_values], bool)
        # compared in float32: a threshold pooled over products differs from its score by rounding
        scores = calibration.raised_scores(product)
        is_below = scores < np.float32(np.inf if limit is None else limit)
        rows = np.stack([scores, normals.distances], 1).astype(np.float64)
        baselines[product] = rows[is_known & is_below]
    return baselines


def start(calibration: Calibration, false_alarm: float = FALSE_ALARM) -> DriftMonitor:
    """Return a new monitor for a calibration.

    Args:
        calibration: its held-out calibration images are the baseline.
        false_alarm: probability in (0, 1) that a product without drift ever raises an alarm.
    """
    rows = baseline(calibration)
    uncertain = [
        product
        for product, normals in calibration.sets.items()
        if not _rejects_few(len(normals), len(rows[product]), false_alarm)
    ]
    return DriftMonitor(rows, false_alarm=false_alarm, rejected=REJECTED, own_share=uncertain)


def _rejects_few(images: int, accepted: int, false_alarm: float) -> bool:
    """Return whether calibration images show that at most `REJECTED` of the images are rejected.

    With a threshold at the (k + 1)-th largest of n values, the share of rejected new images has the
    distribution Beta(k + 1, n - k). It exceeds q with the probability that at most k of n
    independent events of probability q happen, which must not exceed the share of `false_alarm`
    that one of the three tests has.
    """
    above = max(images - accepted - 1, 0)  # the image that is the threshold is not above it
    chance = sum(
        math.comb(images, k) * REJECTED**k * (1 - REJECTED) ** (images - k)
        for k in range(above + 1)
    )
    return chance <= false_alarm / 3


def note(monitor: DriftMonitor, calibration: Calibration) -> str | None:
    """Return what the monitor cannot detect for want of calibration images, or None."""
    few = [name for name in monitor.uncompared if name in calibration.products]
    if not few:
        return None
    names = ", ".join(few[:5]) + (", ..." if len(few) > 5 else "")
    return (
        f"{names}: fewer than {MIN_BASELINE} usable held-out images, so drift is measured from the "
        "first images of the stream on, not from the calibration; to compare with the calibration, "
        "add normal images (snl calibrate FILE NORMALS --add) and start a new state file"
    )


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
    second = math.inf if verdict.second_distance is None else verdict.second_distance
    verdict = judge(
        calibration, verdict.score, verdict.recognised, verdict.distance, given, second=second
    )
    rejected = verdict.decision in (ANOMALOUS, UNKNOWN)
    return monitor.update(
        verdict.product, (verdict.score, verdict.distance), rejected=rejected, when=when
    )
