"""Detection and decisions by part, where several images show one part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from snl.data.records import Record
from snl.decision.calibration import Calibration
from snl.decision.inspection import ANOMALOUS, NORMAL, UNCERTAIN, UNKNOWN
from snl.decision.parts import PartDecision, decide_part
from snl.evaluation.decision_counts import DECISIONS, rate_interval
from snl.evaluation.image_score import ImageScore
from snl.evaluation.metrics import auroc
from snl.text_table import aligned


@dataclass(frozen=True)
class PartScore:
    """The result for one part.

    Attributes:
        part: its name.
        products: that its images show, as the data set has them, sorted.
        label: `anomalous` if one of its images is, else `normal`.
        score: highest calibrated score of its images; without a calibration the highest raw score.
        views: number of its test images, with those that could not be read.
        decision: None if the model has no calibration.
    """

    part: str
    products: tuple[str, ...]
    label: str
    score: float
    views: int
    decision: PartDecision | None = None

    @property
    def group(self) -> str:
        """The products in one text."""
        return " + ".join(self.products)


def score_parts(
    records: Sequence[Record], scores: Sequence[ImageScore], calibration: Calibration | None
) -> tuple[PartScore, ...]:
    """Return the results of all parts, in the order of their first images.

    Args:
        records: labelled test images.
        scores: of those that could be read.
        calibration: by which they were decided; None: there is none.

    Returns:
        Nothing if no record has a part. A part none of whose images could be read is left out; an
        image that belongs to no part is a part of its own.
    """
    if not any(record.part for record in records):
        return ()
    by_path = {image.path: image for image in scores}
    parts: dict[tuple[bool, str], list[Record]] = defaultdict(list)
    for record in records:
        parts[bool(record.part), record.part or str(record.path)].append(record)
    results = []
    for (_, name), images in parts.items():
        read = [by_path[record.path] for record in images if record.path in by_path]
        if not read:
            continue
        views = [(str(i.path), i.verdict) for i in read if i.verdict is not None]
        decision = None
        if calibration is not None:
            decision = decide_part(name, views, calibration, unreadable=len(images) - len(read))
        results.append(
            PartScore(
                part=name,
                products=tuple(sorted({record.product for record in images})),
                label="anomalous" if any(r.label == "anomalous" for r in images) else "normal",
                score=max(i.verdict.calibrated if i.verdict else i.score for i in read),
                views=len(images),
                decision=decision,
            )
        )
    return tuple(results)


def part_counts(parts: Sequence[PartScore]) -> dict[str, Any]:
    """Return counts and AUROC as JSON values: `products` by the products of a part, and `overall`.

    Each has `n_normal`, `n_anomalous`, the smallest and largest number of `views`, and `auroc` of
    the parts' scores; with a calibration also, of normal and of anomalous parts, the number with
    each decision, and `false_alarms` with `false_alarm_bounds` as for images.
    """
    groups = sorted({part.group for part in parts})
    return {
        "products": {name: _counts([p for p in parts if p.group == name]) for name in groups},
        "overall": _counts(parts),
    }


def format_parts(parts: Sequence[PartScore]) -> str:
    """Return `part_counts` as aligned text, in percent; `-` where a value is not defined."""
    counts = part_counts(parts)
    rows = [["parts", "AUROC", "views", "normal: false alarms", "of", "true rate %", "uncertain",
             "unknown", "anomalous: found", "missed", "of", "uncertain", "unknown"]]  # fmt: skip
    for name, row in [*counts["products"].items(), ("all parts", counts["overall"])]:
        least, most = row["views"]
        decided = "normal" in row
        normal, anomalous = row.get("normal", {}), row.get("anomalous", {})
        bounds = row.get("false_alarm_bounds")
        rows.append(
            [
                name,
                "-" if row["auroc"] is None else f"{100 * row['auroc']:.1f}",
                str(least) if least == most else f"{least} .. {most}",
                str(row["false_alarms"]) if decided else "-",
                str(row["n_normal"]),
                f"{100 * bounds[0]:.1f} .. {100 * bounds[1]:.1f}" if bounds else "-",
                *(str(normal[key]) if decided else "-" for key in (UNCERTAIN, UNKNOWN)),
                *(str(anomalous[key]) if decided else "-" for key in (ANOMALOUS, NORMAL)),
                str(row["n_anomalous"]),
                *(str(anomalous[key]) if decided else "-" for key in (UNCERTAIN, UNKNOWN)),
            ]
        )
    return aligned(rows, last=1)


def part_notes(parts: Sequence[PartScore]) -> list[str]:
    """Return a sentence on the decisions on all parts; none if there are no parts."""
    if not parts:
        return []
    row = _counts(parts)
    text = f"by part ({row['n_normal']} normal, {row['n_anomalous']} anomalous)"
    if "normal" in row:
        text += (
            f": {row['false_alarms']} false alarms, {row['anomalous'][ANOMALOUS]} anomalous parts "
            "found, at the rates of the calibration"
        )
    if row["auroc"] is not None:
        text += f"; AUROC of parts {100 * row['auroc']:.1f} %"
    return [text]


def _counts(parts: Sequence[PartScore]) -> dict[str, Any]:
    by_label = {
        label: [part for part in parts if part.label == label] for label in ("normal", "anomalous")
    }
    normal, anomalous = by_label["normal"], by_label["anomalous"]
    values: dict[str, Any] = {
        "n_normal": len(normal),
        "n_anomalous": len(anomalous),
        "views": [min(part.views for part in parts), max(part.views for part in parts)],
        "auroc": auroc([part.score for part in normal], [part.score for part in anomalous]),
    }
    if any(part.decision is None for part in parts):
        return values
    decisions = {
        label: {
            decision: sum(p.decision is not None and p.decision.decision == decision for p in group)
            for decision in DECISIONS
        }
        for label, group in by_label.items()
    }
    alarms = decisions["normal"][ANOMALOUS]
    return values | {
        **decisions,
        "false_alarms": alarms,
        "false_alarm_bounds": rate_interval(alarms, len(normal)),
    }
