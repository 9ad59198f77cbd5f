"""How decisions fared on labelled images: false alarms, hits, products told right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from snl.decision.calibration import ANOMALOUS, NORMAL, UNCERTAIN, UNKNOWN
from snl.text_table import aligned

if TYPE_CHECKING:
    from snl.evaluation.evaluate import ImageScore

KINDS = (NORMAL, UNCERTAIN, ANOMALOUS, UNKNOWN)
OVERALL = "all products"


def decisions(scores: Sequence[ImageScore]) -> dict[str, dict[str, Any]]:
    """Counts by product and for all, as JSON values.

    Of normal and of anomalous images: how many were called what; `false_alarms`, normal images
    called anomalous, with `false_alarm_bounds`, the exact 95 % interval of their rate (Clopper and
    Pearson, Biometrika 26, 1934); `recognised`, the share taken for their own product (None where
    it was not taught). Empty where the predictor does not decide.
    """
    judged = [(one, one.verdict) for one in scores if one.verdict is not None]
    names = sorted({one.product for one, _ in judged})
    found: dict[str, dict[str, Any]] = {}
    for name in [*names, OVERALL] if names else []:
        own = [(one, verdict) for one, verdict in judged if name in (one.product, OVERALL)]
        counts = {
            label: {
                kind: sum(o.label == label and v.decision == kind for o, v in own) for kind in KINDS
            }
            for label in ("normal", "anomalous")
        }
        normal = sum(counts["normal"].values())
        alarms = counts["normal"][ANOMALOUS]
        told = [one.product == verdict.recognised for one, verdict in own if one.taught]
        found[name] = {
            **counts,
            "false_alarms": alarms,
            "false_alarm_bounds": bounds(alarms, normal),
            "recognised": sum(told) / len(told) if told else None,
        }
    return found


def bounds(count: int, total: int, confidence: float = 0.95) -> list[float] | None:
    """Exact interval of a rate of which `count` of `total` was seen; None: nothing was seen."""
    if not total:
        return None
    from scipy.stats import beta

    rest = (1 - confidence) / 2
    low = float(beta.ppf(rest, count, total - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - rest, count + 1, total - count)) if count < total else 1.0
    return [low, high]


def format_decisions(scores: Sequence[ImageScore]) -> str:
    """The counts as aligned text; empty where there are none."""
    found = decisions(scores)
    if not found:
        return ""
    rows = [["decisions", "normal: false alarms", "of", "95 % bounds", "uncertain", "unknown",
             "anomalous: found", "of", "uncertain", "unknown", "recognised"]]  # fmt: skip
    for name, one in found.items():
        normal, anomalous = one["normal"], one["anomalous"]
        limits = one["false_alarm_bounds"]
        told = one["recognised"]
        rows.append(
            [
                name,
                str(one["false_alarms"]),
                str(sum(normal.values())),
                f"{100 * limits[0]:.1f} .. {100 * limits[1]:.1f}" if limits else "-",
                str(normal[UNCERTAIN]),
                str(normal[UNKNOWN]),
                str(anomalous[ANOMALOUS]),
                str(sum(anomalous.values())),
                str(anomalous[UNCERTAIN]),
                str(anomalous[UNKNOWN]),
                "-" if told is None else f"{100 * told:.1f}",
            ]
        )
    return aligned(rows, last=1)
