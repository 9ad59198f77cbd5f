"""What `drift_images.py` measured, as Markdown."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

REASONS = {"scores": "score", "images": "distance", "more": "rejected"}
"""What an alarm says, in a word, by its first word."""

HEAD = """\
# Drift of images

Made from `drift-images.json`:

    snl demo --out demo
    python benchmarks/drift_images.py run demo/demo.snl -o docs/results/drift-images.json
    python benchmarks/drift_images.py table docs/results/drift-images.json

New normal parts of the demo, {streams} streams of each product: {quiet} quiet images, or none, then
{wait} of which every one is changed. Alarms of any product count, at 1 % a product.

- `told first`: the reason of the alarm, by number of streams: `score`, `distance`, or `rejected`
  (more than 25 % are).
- `rejected`: share of all {wait} that were decided anomalous or of an unknown product; `unknown
  product`: the latter alone.
- Blur in pixels of 256. In the slow change, the brightness falls with each image by 0.2 % of what
  it was at first. Only gear, plate and tile do not fill the image, so only they have a background.

Took {seconds} s on one core that other work shared.
"""


def table(results: dict[str, Any]) -> str:
    lines = []
    titles = {"recognised": "Products recognised", "given": "Products given"}
    for known, title in titles.items():
        lines += ["", f"## {title}", "", *summary(results, known)]
    for quiet in (results["quiet"], 0):
        for part in results["runs"]:
            title = f"Images until the alarm: {size(part)} held back, {quiet} quiet, recognised"
            rows = [row for row in part["recognised"] if row["quiet"] == quiet]
            lines += ["", f"## {title}", "", *each_product(rows, results["wait"])]
    lines += ["", "## Without a change", ""]
    for part in results["runs"]:
        found = part["unchanged"]
        told = ", ".join(f"{name} ({reason})" for name, reason in found["alarms"].items())
        lines.append(
            f"- {size(part)} held back: {len(found['alarms'])} alarms of {len(part['held_back'])} "
            f"products in {found['images']} images, of which {found['rejected']} were rejected"
            + (f": {told}" if told else "")
        )
    drawn = results["shuffled"]
    for rate, alarms in drawn["alarms"].items():
        lines.append(
            f"- {drawn['streams']} streams of {drawn['images']} images and {drawn['held_back']} "
            f"held-back ones in shuffled order, {float(rate):.0%} stated: {alarms} alarms"
        )
    return HEAD.format(**results) + "\n".join(lines)


def summary(results: dict[str, Any], known: str) -> list[str]:
    """Over all products and streams, a line for each change and calibration."""
    names = [
        *("change", "held back", "quiet", "found", "images: median", "worst", "told first"),
        *("`since` off by", "rejected", "unknown product"),
    ]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    changes = dict.fromkeys(row["change"] for row in results["runs"][0][known])
    for quiet, change in itertools.product((results["quiet"], 0), changes):
        for part in results["runs"]:
            rows = [r for r in part[known] if (r["change"], r["quiet"]) == (change, quiet)]
            found = [row["found"] for row in rows if not row["early"]]
            cells = [change, size(part), str(quiet), *outcome(found, results["wait"])]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def outcome(found: Sequence[dict[str, Any]], wait: int) -> list[str]:
    waits = [math.inf if f["delay"] is None else f["delay"] for f in found]
    off = [abs(f["since_error"]) for f in found if f["delay"] is not None]
    reasons = Counter(REASONS[f["reason"].split()[0]] for f in found if f["delay"] is not None)
    told = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    return [
        f"{len(off)} of {len(found)}",
        number(float(np.quantile(waits, 0.5, method="inverted_cdf")), wait),
        number(max(waits), wait),
        told or "-",
        f"{np.median(off):.0f}" if off else "-",
        f"{np.mean([f['rejected'] for f in found]):.0%}",
        f"{np.mean([f['unknown'] for f in found]):.0%}",
    ]


def each_product(rows: Sequence[dict[str, Any]], wait: int) -> list[str]:
    changes = list(dict.fromkeys(row["change"] for row in rows))
    lines = ["| product | " + " | ".join(changes) + " |", "|---" * (len(changes) + 1) + "|"]
    for product in dict.fromkeys(row["product"] for row in rows):
        cells = []
        for change in changes:
            own = [row for row in rows if (row["product"], row["change"]) == (product, change)]
            cells.append(
                ", ".join("early" if row["early"] else cell(row, wait) for row in own) or "-"
            )
        lines.append(f"| {product} | " + " | ".join(cells) + " |")
    return lines


def cell(row: dict[str, Any], wait: int) -> str:
    """Images until the alarm, and what it said."""
    found = row["found"]
    if found["delay"] is None:
        return f"> {wait}"
    return f"{found['delay']} {REASONS[found['reason'].split()[0]]}"


def number(value: float, wait: int) -> str:
    return f"{value:.0f}" if math.isfinite(value) else f"> {wait}"


def size(part: dict[str, Any]) -> str:
    least, most = min(part["held_back"].values()), max(part["held_back"].values())
    return str(least) if least == most else f"{least} to {most}"
