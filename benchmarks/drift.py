"""How soon a drift monitor finds a change, and how often it alarms without one.

    python benchmarks/drift.py run -o docs/results/drift.json
    python benchmarks/drift.py table docs/results/drift.json

Values of a known law, N(0, 1), two statistics, false alarm 0.01. After a quiet time the score moves
by some standard deviations, the distance does not; or all images are rejected. The same streams
are quiet before every change. A minute on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from snl.files import write_json
from snl.monitoring.drift import Drift, DriftMonitor

STARTS = [(20, 0), (50, 0), (200, 0), (50, 100), (50, 1000), (50, 10_000), (50, 100_000)]
CHANGES: tuple[float | None, ...] = (0.5, 1.0, -1.0, 2.0, -2.0, None)  # None: all rejected
STREAMS, WAIT = 20, 2000
ALARM_STREAMS, ALARM_IMAGES, ALARM_RATE = 500, 2000, 0.1


def delay(
    state: dict[str, Any], change: float | None, random: np.random.Generator
) -> tuple[int, Drift] | None:
    """Images from a change to its alarm, and what was said of it; None: not within WAIT images."""
    monitor = DriftMonitor.from_dict(state)
    for number in range(1, WAIT + 1):
        values = random.normal(size=2) + np.array([change or 0.0, 0.0])
        found = monitor.update("nut", values.tolist(), rejected=change is None)
        if found.alarm:
            return number, found
    return None


def run() -> dict[str, Any]:
    delays = []
    for baseline, quiet in STARTS:
        found: dict[float | None, list[tuple[int, Drift] | None]] = {c: [] for c in CHANGES}
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
                found[change].append(delay(state, change, random))
        for change, results in found.items():
            waits = [math.inf if result is None else result[0] for result in results]
            late = [(r[1].since or 0) - quiet - 1 for r in results if r is not None]
            ranks = np.quantile(waits, [0.5, 0.9], method="inverted_cdf").tolist()
            row: dict[str, Any] = {"baseline": baseline, "quiet": quiet, "change": change}
            row |= {"streams": len(waits), "early": early, "found": len(late)}
            row |= {"median": finite(ranks[0]), "ninety": finite(ranks[1])}
            row |= {"since_error": float(np.median(np.abs(late))) if late else None}
            delays.append(row)
        sys.stderr.write(f"baseline {baseline}, quiet {quiet}\n")
    return {"delays": delays, "false_alarms": false_alarms(), "wait": WAIT}


def false_alarms() -> dict[str, Any]:
    """Alarms without a change, at a rate that so many streams can measure."""
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
    return int(value) if math.isfinite(value) else None


def table(results: dict[str, Any]) -> str:
    rows = results["delays"]
    changes = list(dict.fromkeys(row["change"] for row in rows))
    names = ["all rejected" if c is None else f"{c:+g} sd" for c in changes]
    lines = ["| baseline | quiet images | " + " | ".join(names) + " |", "|---" * (len(names) + 2)]
    lines[1] += "|"
    for start in dict.fromkeys((row["baseline"], row["quiet"]) for row in rows):
        cells = [cell(row) for row in rows if (row["baseline"], row["quiet"]) == start]
        lines.append(f"| {start[0]} | {start[1]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(row: dict[str, Any]) -> str:
    """Median and 90 % of the images waited for, or in how many streams the change was found."""
    if row["median"] is None:
        return f"found in {row['found']} of {row['streams']}"
    ninety = "more" if row["ninety"] is None else row["ninety"]
    return f"{row['median']} ({ninety})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("run").add_argument("-o", "--output", type=Path, required=True)
    verbs.add_parser("table").add_argument("results", type=Path)
    arguments = parser.parse_args()
    if arguments.verb == "run":
        write_json(arguments.output, run())
    else:
        print(table(json.loads(arguments.results.read_text())))


if __name__ == "__main__":
    main()
