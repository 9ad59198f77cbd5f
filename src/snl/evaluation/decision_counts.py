"""How decisions compare with labels: false alarms, detections, product recognition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from snl.decision.inspection import ANOMALOUS, NORMAL, UNCERTAIN, UNKNOWN
from snl.text_table import aligned

if TYPE_CHECKING:
    from snl.evaluation.image_score import ImageScore

DECISIONS = (NORMAL, UNCERTAIN, ANOMALOUS, UNKNOWN)

LEGEND = """\
true rate %: 95 % confidence interval of the false-alarm rate that these images speak for
missed: anomalous images that are called normal; recognised: % of images of known products"""
"""Explains the tables of decisions."""


def decision_counts(scores: Sequence[ImageScore]) -> dict[str, Any] | None:
    """Return the counts of decisions as JSON values: `products` by name, and `overall`.

    Of normal and of anomalous images: the number with each decision; `false_alarms`, normal images
    called anomalous, with `false_alarm_bounds`, the exact 95 % interval of their rate (Clopper and
    Pearson, Biometrika 26, 1934); `recognised`, the product-recognition accuracy (None where the
    product is not known to the model). None: the model has no calibration.
    """
    decided = [image for image in scores if image.verdict is not None]
    if not decided:
        return None
    names = sorted({image.product for image in decided})
    return {
        "products": {n: _counts([i for i in decided if i.product == n]) for n in names},
        "overall": _counts(decided),
    }


def _counts(images: Sequence[ImageScore]) -> dict[str, Any]:
    verdicts = [(image, image.verdict) for image in images if image.verdict is not None]
    counts = {
        label: {
            decision: sum(i.label == label and v.decision == decision for i, v in verdicts)
            for decision in DECISIONS
        }
        for label in ("normal", "anomalous")
    }
    normal = sum(counts["normal"].values())
    alarms = counts["normal"][ANOMALOUS]
    recognised = [i.product == v.recognised for i, v in verdicts if i.known]
    return {
        **counts,
        "false_alarms": alarms,
        "false_alarm_bounds": rate_interval(alarms, normal),
        "recognised": sum(recognised) / len(recognised) if recognised else None,
    }


def rate_interval(count: int, total: int, confidence: float = 0.95) -> list[float] | None:
    """Return the exact confidence interval of a rate, with `count` events in `total` trials.

    None: there were no trials.
    """
    if not total:
        return None
    from scipy.special import betaincinv  # scipy.stats takes a second to import

    tail = (1 - confidence) / 2
    low = float(betaincinv(count, total - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, total - count, 1 - tail)) if count < total else 1.0
    return [low, high]


def format_decisions(scores: Sequence[ImageScore], products: Sequence[str] | None = None) -> str:
    """Return the counts as aligned text; empty where there are none.

    Args:
        scores: of all images.
        products: that have a row; None: all.
    """
    counts = decision_counts(scores)
    if counts is None:
        return ""
    rows = [["decisions", "normal: false alarms", "of", "true rate %", "uncertain", "unknown",
             "anomalous: found", "missed", "of", "uncertain", "unknown", "recognised"]]  # fmt: skip
    names = counts["products"] if products is None else products
    shown = [name for name in names if name in counts["products"]]
    for name, row in [
        *((name, counts["products"][name]) for name in shown),
        ("all products", counts["overall"]),
    ]:
        normal, anomalous = row["normal"], row["anomalous"]
        interval, recognised = row["false_alarm_bounds"], row["recognised"]
        rows.append(
            [
                name,
                str(row["false_alarms"]),
                str(sum(normal.values())),
                f"{100 * interval[0]:.1f} .. {100 * interval[1]:.1f}" if interval else "-",
                str(normal[UNCERTAIN]),
                str(normal[UNKNOWN]),
                str(anomalous[ANOMALOUS]),
                str(anomalous[NORMAL]),
                str(sum(anomalous.values())),
                str(anomalous[UNCERTAIN]),
                str(anomalous[UNKNOWN]),
                "-" if recognised is None else f"{100 * recognised:.1f}",
            ]
        )
    return aligned(rows, last=1)
