"""The calibration in force as text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snl.decision.calibration import Calibration
    from snl.runtime.inspector import Inspector


def format_calibration(inspector: Inspector) -> str:
    """Return the calibration in force as aligned text."""
    calibration = inspector.calibration
    rows = [["product", "normals", "least rate", "anomalous above", "uncertain above", "by",
             "rates"]]  # fmt: skip
    for product, data in calibration.sets.items():
        rates = calibration.rates_for(product)
        threshold, basis = calibration.scores.threshold(rates.anomalous, product)
        uncertain, _ = calibration.scores.threshold(rates.uncertain, product)
        rows.append(
            [
                product,
                str(len(data)),
                f"{calibration.scores.smallest_rate(product):.2g}",
                _number(threshold),
                _number(uncertain),
                basis if threshold is not None else "-",
                f"{rates.anomalous:g} / {rates.uncertain:g}",
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
             for row in rows]  # fmt: skip
    count = sum(map(len, calibration.sets.values()))
    return "\n".join(
        [
            lines[0],
            "-" * max(map(len, lines)),
            *lines[1:],
            f"all products together: {count} held-out images, rates from "
            f"{calibration.scores.smallest_rate():.2g} up",
            *_remarks(calibration),
            f"version of {calibration.created} ({calibration.reason}); "
            f"{len(inspector.calibrations) - 1} before it",
        ]
    )


def _remarks(calibration: Calibration) -> Iterable[str]:
    rates = calibration.rates
    yield f"unknown products: rate {rates.unknown:g}; regions: {rates.regions:g} per image"
    tables: tuple[tuple[str, Any], ...] = (
        ("ignore masks of", dict.fromkeys(calibration.ignore_masks, "")),
        ("mm per pixel:", calibration.mm_per_pixel),
        ("smallest region in pixels:", calibration.min_region_area),
    )
    for name, values in tables:
        if values:
            yield name + " " + ", ".join(f"{k} {v}".strip() for k, v in values.items())
    if calibration.tile:
        yield f"tiles of {calibration.tile} pixels"
    if calibration.fit_tail:
        yield "rates below these come from a fitted tail: an estimate, not a guarantee"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
