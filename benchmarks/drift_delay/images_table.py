"""Results of `images.py` as Markdown."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.common import markdown_table

REASONS = {"scores": "score", "images": "distance", "more": "rejected"}
"""The reason of an alarm in one word, by its first word."""

HEAD = """\
# Drift of images

Made from `drift-images.json`:

    snl demo --out demo
    python -m benchmarks.drift_delay images demo/demo.snl -o docs/results/drift-images.json
    python -m benchmarks.drift_delay table docs/results/drift-images.json \\
        -o docs/results/drift-images.md

New normal parts of the demo, {streams} streams of each product: {quiet} unchanged images, or none,
then {wait} changed ones. Alarms of any product count. The false-alarm probability is 1 % per
product.

- `reason`: the reason of the alarm and the number of streams: `score`, `distance`, or `rejected`
  (more than 25 % are).
- `rejected`: share of the {wait} images that were decided anomalous or of an unknown product;
  `unknown product`: share of the latter only.
- Blur is in pixels of 256. In the slow change, each image loses 0.2 % of the initial brightness.
  Only gear, plate and tile do not fill the image, so only they have a background.

Took {seconds} s on one core that other processes shared.
"""


def table(results: dict[str, Any]) -> str:
    """Return all results as Markdown."""
    lines = []
    titles = {"recognised": "Products recognised", "given": "Products given"}
    for known, title in titles.items():
        lines += ["", f"## {title}", "", *summary(results, known)]
    for quiet in (results["quiet"], 0):
        for part in results["runs"]:
            title = f"Images until the alarm: {size(part)} held out, {quiet} unchanged, recognised"
            rows = [row for row in part["recognised"] if row["quiet"] == quiet]
            lines += ["", f"## {title}", "", *each_product(rows, results["wait"])]
    lines += ["", "## Without a change", ""]
    for part in results["runs"]:
        result = part["unchanged"]
        reasons = ", ".join(f"{name} ({reason})" for name, reason in result["alarms"].items())
        lines.append(
            f"- {size(part)} held out: {len(result['alarms'])} alarms for "
            f"{len(part['held_back'])} products in {result['images']} images; "
            f"{result['rejected']} images were rejected" + (f": {reasons}" if reasons else "")
        )
    shuffled = results["shuffled"]
    for rate, alarms in shuffled["alarms"].items():
        lines.append(
            f"- {shuffled['streams']} streams of {shuffled['images']} images and "
            f"{shuffled['held_back']} held-out ones in shuffled order, nominal probability "
            f"{float(rate):.0%}: {alarms} alarms"
        )
    return HEAD.format(**results) + "\n".join(lines)


def summary(results: dict[str, Any], known: str) -> list[str]:
    """Return a table over all products and streams, with a row per change and calibration."""
    heads = [
        *("change", "held out", "unchanged", "detected", "images: median", "worst", "reason"),
        *("error of `since`", "rejected", "unknown product"),
    ]
    lines = []
    changes = dict.fromkeys(row["change"] for row in results["runs"][0][known])
    for quiet, change in itertools.product((results["quiet"], 0), changes):
        for part in results["runs"]:
            rows = [r for r in part[known] if (r["change"], r["quiet"]) == (change, quiet)]
            alarms = [row["found"] for row in rows if not row["early"]]
            lines.append([change, size(part), str(quiet), *outcome(alarms, results["wait"])])
    return markdown_table(heads, lines)


def outcome(alarms: Sequence[dict[str, Any]], wait: int) -> list[str]:
    """Return the cells of a row: how many changes were detected, delays, reasons, decisions."""
    if not alarms:
        return ["0 of 0", *["-"] * 6]
    detected = [alarm for alarm in alarms if alarm["delay"] is not None]
    waits = [math.inf if alarm["delay"] is None else alarm["delay"] for alarm in alarms]
    errors = [abs(alarm["since_error"]) for alarm in detected]
    reasons = Counter(REASONS[alarm["reason"].split()[0]] for alarm in detected)
    return [
        f"{len(detected)} of {len(alarms)}",
        number(float(np.quantile(waits, 0.5, method="inverted_cdf")), wait),
        number(max(waits), wait),
        ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()) or "-",
        f"{np.median(errors):.0f}" if errors else "-",
        f"{np.mean([alarm['rejected'] for alarm in alarms]):.0%}",
        f"{np.mean([alarm['unknown'] for alarm in alarms]):.0%}",
    ]


def each_product(rows: Sequence[dict[str, Any]], wait: int) -> list[str]:
    """Return a table of delays with a row per product and a column per change."""
    changes = list(dict.fromkeys(row["change"] for row in rows))
    lines = []
    for product in dict.fromkeys(row["product"] for row in rows):
        cells = []
        for change in changes:
            streams = [r for r in rows if (r["product"], r["change"]) == (product, change)]
            delays = ["early" if row["early"] else cell(row, wait) for row in streams]
            cells.append(", ".join(delays) or "-")
        lines.append([product, *cells])
    return markdown_table(["product", *changes], lines)


def cell(row: dict[str, Any], wait: int) -> str:
    """Return the images until the alarm and its reason."""
    alarm = row["found"]
    if alarm["delay"] is None:
        return f"> {wait}"
    return f"{alarm['delay']} {REASONS[alarm['reason'].split()[0]]}"


def number(value: float, wait: int) -> str:
    """Return a delay; an infinite one as more than the images of the stream."""
    return f"{value:.0f}" if math.isfinite(value) else f"> {wait}"


def size(part: dict[str, Any]) -> str:
    """Return the number of held-out images per product, or its range."""
    least, most = min(part["held_back"].values()), max(part["held_back"].values())
    return str(least) if least == most else f"{least} to {most}"
