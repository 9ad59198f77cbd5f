"""The calibration in force as text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snl.decision.calibration import Calibration
    from snl.runtime.inspector import Inspector


_SHOWN = 5
"""Products that are named in one line, or whose missing images are listed."""

_SMALL = 0.02
"""A threshold that moves by at most this share is not shown after a change."""

Intervals = dict[str, "tuple[float, float] | None"]
"""Ranges of the true rate by product; None: not known."""


def format_calibration(inspector: Inspector) -> str:
    """Return the calibration in force as text."""
    from snl.decision.calibration import rounded_up

    calibration = inspector.calibration
    intervals = _intervals(calibration, calibration.products)
    count = sum(map(len, calibration.sets.values()))
    return "\n".join(
        [
            *_table(calibration, intervals),
            f"all products together: {count} held-out images, rates from "
            f"{rounded_up(calibration.scores.smallest_rate()):g} up",
            *_remarks(calibration),
            *_certainty(calibration, intervals),
            *_notes(calibration),
            *missing(calibration),
            f"version of {calibration.created} ({calibration.reason}); "
            f"{len(inspector.calibrations) - 1} before it",
        ]
    )


def format_change(before: Calibration, after: Calibration) -> str:
    """Return what a change of the calibration means for thresholds as text."""
    moved = {product: move(before, after, product) for product in after.products}
    changed = [product for product, share in moved.items() if share > _SMALL]
    lines = _table(after, _intervals(after, changed)) if changed else []
    others = [share for share in moved.values() if 0 < share <= _SMALL]
    if others:
        many = f"{len(others)} {'other ' if changed else ''}product{'s'[: len(others) > 1]}"
        lines.append(f"the thresholds of {many} move by at most {100 * max(others):.2g} %")
    lines += _notes(after)
    return "\n".join([*lines, "snl calibrate FILE without a change says more"])


def move(before: Calibration, after: Calibration, product: str) -> float:
    """Return by which share the thresholds of a product move; infinite: there was none, or there is
    none, or its images or rates are others."""
    if product not in before.sets or len(before.sets[product]) != len(after.sets[product]):
        return math.inf
    rates = before.rates_for(product), after.rates_for(product)
    if rates[0] != rates[1]:
        return math.inf
    moves = [0.0]
    for rate in (rates[0].anomalous, rates[0].uncertain):
        old, new = (one.scores.threshold(rate, product)[0] for one in (before, after))
        if (old is None) != (new is None):
            return math.inf
        if old is not None and new is not None and old != new:
            moves.append(abs(new - old) / max(abs(old), 1e-12))
    return max(moves)


def _intervals(calibration: Calibration, products: Iterable[str]) -> Intervals:
    from snl.decision.certainty import true_rate_interval

    return {
        product: true_rate_interval(calibration, product, calibration.rates_for(product).anomalous)
        for product in products
    }


def _table(calibration: Calibration, intervals: Intervals) -> list[str]:
    """Return a table of the products that intervals are given of."""
    from snl.decision.calibration import rounded_up

    rows = [["product", "normals", "least rate", "anomalous above", "uncertain above", "by",
             "rates", "true rate"]]  # fmt: skip
    for product in intervals:
        data, rates = calibration.sets[product], calibration.rates_for(product)
        threshold, basis = calibration.scores.threshold(rates.anomalous, product)
        uncertain, _ = calibration.scores.threshold(rates.uncertain, product)
        rows.append(
            [
                product,
                str(len(data)),
                f"{rounded_up(calibration.scores.smallest_rate(product)):g}",
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
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


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
        low, high = ends[product]
        helps = more and more[0] <= rate <= more[1] and more[1] - more[0] < 0.9 * (high - low)
        forecast = f"; with {2 * count} more images it would be about {_interval(more)}"
        yield (
            f"true rate: of 95 % of such calibrations, estimated. {product} has the widest, "
            f"{_interval(ends[product])}{forecast if helps else ''}: snl calibrate FILE NORMALS "
            "--add narrows it"
        )


def _notes(calibration: Calibration) -> Iterable[str]:
    """Yield thresholds that coincide, and images that stand alone."""
    from snl.decision.certainty import stand_alone

    if calibration.fit_tail:
        yield "rates below the least come from a fitted tail: an estimate, not a guarantee"
    equal = [product for product in calibration.products if _are_equal(calibration, product)]
    if equal:
        more = f" and {len(equal) - _SHOWN} more products" if len(equal) > _SHOWN else ""
        yield (
            f"note: {', '.join(equal[:_SHOWN])}{more}: both thresholds are equal, so no image can "
            "be uncertain; for a band of uncertain images raise the other one with --uncertain-rate"
        )
    for product in calibration.products:
        for image in stand_alone(calibration, product):
            name = image.name or f"number {image.row + 1}"
            yield (
                f"note: {product}: held-out image {name} stands alone: score {image.score:.4g}, "
                f"the next one {image.next_score:.4g}; without it the threshold would be "
                f"{_number(image.threshold_without)} instead of {_number(image.threshold)}. See "
                "snl inspect FILE IMAGE --out OVERLAYS; if it is not normal: snl calibrate FILE "
                f"--leave-out {image.name or 'NAME'} --product {product}"
            )


def _are_equal(calibration: Calibration, product: str) -> bool:
    """Return whether both thresholds of a product exist and are the same."""
    rates = calibration.rates_for(product)
    limit = calibration.scores.threshold(rates.anomalous, product)[0]
    return limit is not None and limit == calibration.scores.threshold(rates.uncertain, product)[0]


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
