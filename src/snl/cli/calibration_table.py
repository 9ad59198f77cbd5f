"""The calibration in force as text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snl.decision.calibration import Calibration
    from snl.runtime.inspector import Inspector


_SHOWN = 5
"""Products whose missing images are listed."""

Intervals = dict[str, "tuple[float, float] | None"]
"""Ranges of the true rate by product; None: not known."""


def format_calibration(inspector: Inspector, brief: bool = False) -> str:
    """Return the calibration in force as aligned text.

    Args:
        inspector: that has it.
        brief: only the table, and what is wrong with the thresholds.
    """
    from snl.decision.certainty import true_rate_interval

    calibration = inspector.calibration
    intervals = {
        product: true_rate_interval(calibration, product, calibration.rates_for(product).anomalous)
        for product in calibration.sets
    }
    rows = [["product", "normals", "least rate", "anomalous above", "uncertain above", "by",
             "rates", "true rate"]]  # fmt: skip
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
                _interval(intervals[product]),
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
             for row in rows]  # fmt: skip
    table = [lines[0], "-" * max(map(len, lines)), *lines[1:]]
    if brief:
        return "\n".join(
            [*table, *_notes(calibration), "snl calibrate FILE without a change says more"]
        )
    count = sum(map(len, calibration.sets.values()))
    return "\n".join(
        [
            *table,
            f"all products together: {count} held-out images, rates from "
            f"{calibration.scores.smallest_rate():.2g} up",
            *_remarks(calibration),
            *_certainty(calibration, intervals),
            *_notes(calibration),
            *missing(calibration),
            f"version of {calibration.created} ({calibration.reason}); "
            f"{len(inspector.calibrations) - 1} before it",
        ]
    )


def _remarks(calibration: Calibration) -> Iterable[str]:
    rates = calibration.rates
    yield f"unknown products: rate {rates.unknown:g}; regions: {rates.regions:g} per image"
    tables: tuple[tuple[str, Any], ...] = (
        ("ignore masks of", dict.fromkeys(calibration.ignore_masks, "")),
        ("regions of interest:", calibration.rois),
        ("mm per pixel:", calibration.mm_per_pixel),
        ("smallest region in pixels:", calibration.min_region_area),
    )
    for name, values in tables:
        if values:
            yield name + " " + ", ".join(f"{k} {v}".strip() for k, v in values.items())
    if calibration.tile:
        yield f"tiles of {calibration.tile} pixels"


def _certainty(calibration: Calibration, intervals: Intervals) -> Iterable[str]:
    """Yield what the true rates are, and what narrows them."""
    from snl.decision.certainty import true_rate_interval

    ends = {product: interval for product, interval in intervals.items() if interval is not None}
    if ends:
        product = max(ends, key=lambda name: ends[name][1] - ends[name][0])
        rate = calibration.rates_for(product).anomalous
        count = len(calibration.sets[product])
        more = true_rate_interval(calibration, product, rate, 3 * count)
        yield (
            f"true rate: of 95 % of such calibrations, estimated. {product} has the widest, "
            f"{_interval(ends[product])}; with {2 * count} more images it would be "
            f"{_interval(more)}: snl calibrate FILE NORMALS --add"
        )


def _notes(calibration: Calibration) -> Iterable[str]:
    """Yield thresholds that coincide, and images that stand alone."""
    from snl.decision.certainty import stand_alone

    if calibration.fit_tail:
        yield "rates below the least come from a fitted tail: an estimate, not a guarantee"
    for product in calibration.products:
        rates = calibration.rates_for(product)
        limits = [calibration.scores.threshold(r, product)[0]
                  for r in (rates.anomalous, rates.uncertain)]  # fmt: skip
        if limits[0] is not None and limits[0] == limits[1]:
            yield (
                f"note: {product}: both thresholds are equal, so no image can be uncertain; for a "
                "band of uncertain images raise the other one with --uncertain-rate"
            )
        for image in stand_alone(calibration, product):
            name = image.name or f"number {image.row + 1}"
            yield (
                f"note: {product}: held-out image {name} stands alone: score {image.score:.4g}, "
                f"the next one {image.next_score:.4g}; without it the threshold would be "
                f"{_number(image.threshold_without)} instead of {_number(image.threshold)}. See "
                "snl inspect FILE IMAGE --out OVERLAYS; if it is not normal: snl calibrate FILE "
                f"--leave-out {image.name or 'NAME'} --product {product}"
            )


def missing(calibration: Calibration, products: Iterable[str] = ()) -> Iterable[str]:
    """Return what the held-out images of products do not allow yet, of five products at most.

    Args:
        calibration: in force.
        products: to look at; none: all that have fewer held-out images than most need.
    """
    from snl.decision.promises import format_missing

    chosen = list(products) or list(calibration.products)
    lines = [
        f"{name}: {_count(len(calibration.sets[name]))}; {text}"
        for name in chosen
        if (text := format_missing(calibration, name))
    ]
    if len(lines) > _SHOWN:
        lines[_SHOWN:] = [f"and {len(lines) - _SHOWN} more products like these"]
    if text := format_missing(calibration, chosen[0], all_products=True):
        total = sum(map(len, calibration.sets.values()))
        lines.append(f"all products together: {_count(total)}; {text}")
    if lines:
        lines.append("held-out images are added with snl calibrate FILE NORMALS --add")
    return lines


def _count(images: int) -> str:
    return f"{images} held-out image{'' if images == 1 else 's'}"


def _interval(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
