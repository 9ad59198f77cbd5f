"""Delays of the drift monitor on values from a known distribution.

Two statistics are drawn from N(0, 1); the false-alarm probability is 0.01. After a number of
unchanged images the score shifts by some standard deviations while the distance does not, or all
images are rejected. All changes follow the same unchanged streams.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.common import log, markdown_table
from snl.monitoring.drift import Drift, DriftMonitor

STARTS = [(20, 0), (50, 0), (200, 0), (50, 100), (50, 1000), (50, 10_000), (50, 100_000)]
"""Images of the baseline, and unchanged images before the change."""
CHANGES: tuple[float | None, ...] = (0.5, 1.0, -1.0, 2.0, -2.0, None)
"""Shift of the score in standard deviations; None: all images are rejected."""
STREAMS, WAIT = 20, 2000
ALARM_STREAMS, ALARM_IMAGES, ALARM_RATE = 500, 2000, 0.1
GAPS = [(5, 0.0), (5, 1.5), (10, 0.0), (10, 1.5), (14, 1.5), (20, 0.0), (20, 1.5), (50, 0.0)]
"""Images of the baseline, and how many standard deviations the scores of ALL images of the stream
lie above those of the baseline: held-out images that are not like the stream."""
GAP_STREAMS, GAP_IMAGES = 500, 500


def delay(
    state: dict[str, Any], change: float | None, random: np.random.Generator
) -> tuple[int, Drift] | None:
    """Return the images from a change to its alarm, and the alarm.

    Args:
        state: of the monitor before the change.
        change: one of CHANGES.
        random: source of the values.

    Returns:
        None: no alarm within WAIT images.
    """
    monitor = DriftMonitor.from_dict(state)
    for number in range(1, WAIT + 1):
        values = random.normal(size=2) + np.array([change or 0.0, 0.0])
        drift = monitor.update("nut", values.tolist(), rejected=change is None)
        if drift.alarm:
            return number, drift
    return None


def run() -> dict[str, Any]:
    """Return the delays of all starts and changes, and the false alarms."""
    delays = []
    for baseline, quiet in STARTS:
        alarms: dict[float | None, list[tuple[int, Drift] | None]] = {c: [] for c in CHANGES}
        early = 0
        for stream in range(STREAMS):
            random = np.random.default_rng([stream, baseline, quiet])
            monitor = DriftMonitor({"nut": random.normal(size=(baseline, 2))}, seed=stream)
            for values in random.normal(size=(quiet, 2)).tolist():
                monitor.update("nut", values)
            if monitor.status()["nut"].alarm:
                early += 1
                continue
            state = monitor.to_dict()
            for change in CHANGES:
                alarms[change].append(delay(state, change, random))
        for change, results in alarms.items():
            waits = [math.inf if result is None else result[0] for result in results]
            errors = [(r[1].since or 0) - quiet - 1 for r in results if r is not None]
            quantiles = np.quantile(waits, [0.5, 0.9], method="inverted_cdf").tolist()
            row: dict[str, Any] = {"baseline": baseline, "quiet": quiet, "change": change}
            row |= {"streams": len(waits), "early": early, "found": len(errors)}
            row |= {"median": finite(quantiles[0]), "ninety": finite(quantiles[1])}
            row |= {"since_error": float(np.median(np.abs(errors))) if errors else None}
            delays.append(row)
        log(f"baseline {baseline}, {quiet} unchanged")
    gaps = [
        {
            "baseline": n,
            "gap": gap,
            "streams": GAP_STREAMS,
            "images": WAIT,
            "alarms": alarms_at(n, gap),
        }
        for n, gap in GAPS
    ]
    return {"delays": delays, "false_alarms": false_alarms(), "gaps": gaps, "wait": WAIT}


def alarms_at(baseline: int, gap: float) -> int:
    """Return in how many of GAP_STREAMS streams without a change the monitor ever alarms.

    Args:
        baseline: images of the baseline.
        gap: see GAPS.
    """
    alarms = 0
    for stream in range(GAP_STREAMS):
        random = np.random.default_rng([stream, baseline, 2])
        monitor = DriftMonitor({"nut": random.normal(size=(baseline, 2))}, seed=stream)
        values = random.normal(size=(GAP_IMAGES, 2)) + np.array([gap, 0.0])
        alarms += any(monitor.update("nut", row).alarm for row in values.tolist())
    log(f"baseline {baseline}, gap {gap:g}: {alarms} of {GAP_STREAMS}")
    return alarms


def false_alarms() -> dict[str, Any]:
    """Return the alarms of streams without a change.

    The false-alarm probability is high enough (ALARM_RATE) to be measured with ALARM_STREAMS.
    """
    alarms = 0
    for stream in range(ALARM_STREAMS):
        random = np.random.default_rng([stream, 1])
        monitor = DriftMonitor(
            {"nut": random.normal(size=(20, 2))}, false_alarm=ALARM_RATE, seed=stream
        )
        rejected = (random.random(ALARM_IMAGES) < 0.25).tolist()
        values = random.normal(size=(ALARM_IMAGES, 2)).tolist()
        for row, reject in zip(values, rejected, strict=True):
            last = monitor.update("nut", row, rejected=reject)
        alarms += last.alarm
    return {
        "stated": ALARM_RATE,
        "streams": ALARM_STREAMS,
        "images": ALARM_IMAGES,
        "alarms": alarms,
    }


def finite(value: float) -> int | None:
    """Return a number of images, or None where it is infinite."""
    return int(value) if math.isfinite(value) else None


def table(results: dict[str, Any]) -> str:
    """Return the delays as Markdown."""
    rows = results["delays"]
    changes = list(dict.fromkeys(row["change"] for row in rows))
    names = ["all rejected" if c is None else f"{c:+g} sd" for c in changes]
    lines = []
    for start in dict.fromkeys((row["baseline"], row["quiet"]) for row in rows):
        cells = [cell(row) for row in rows if (row["baseline"], row["quiet"]) == start]
        lines.append([*map(str, start), *cells])
    text = markdown_table(["baseline", "unchanged images", *names], lines)
    gaps = [
        [
            str(row["baseline"]),
            f"{row['gap']:+g} sd",
            f"{100 * row['alarms'] / row['streams']:.1f} %",
        ]
        for row in results.get("gaps", [])
    ]
    if gaps:
        heading = ["baseline", "stream above baseline", "streams with an alarm"]
        text = [*text, "", *markdown_table(heading, gaps)]
    return "\n".join(text)


def cell(row: dict[str, Any]) -> str:
    """Return median and 90 % quantile of the delay, or in how many streams there was an alarm."""
    if row["median"] is None:
        return f"detected in {row['found']} of {row['streams']}"
    ninety = "more" if row["ninety"] is None else row["ninety"]
    return f"{row['median']} ({ninety})"
