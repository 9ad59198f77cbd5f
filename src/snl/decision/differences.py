"""What differs between two calibrations, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from snl.decision.calibration import Calibration, Rates

_RATES = {
    "anomalous": "false-alarm rate",
    "uncertain": "uncertain rate",
    "unknown": "unknown rate",
    "regions": "regions rate",
}
MOST_SHOWN = 12
"""Differences that `described` names."""
_DEFAULTS = {"mm_per_pixel": "none", "min_region_area": 1}
_NAMES = {"mm_per_pixel": "mm per pixel", "min_region_area": "smallest region"}


def differences(before: Calibration, after: Calibration) -> list[str]:
    """Return what a change from one calibration of a network to another one changes.

    Args:
        before, after: of the same network.

    Returns:
        Short texts such as `false-alarm rate 0.05 -> 0.02` or `bolt: 20 -> 25 held-out images`;
        none if they decide alike.
    """
    return [*_general(before, after), *_of_products(before, after)]


def described(reason: str, before: Calibration, after: Calibration) -> str:
    """Return a reason with what changes from one calibration to another one: `rates (false-alarm
    rate 0.05 -> 0.02)`."""
    changes = differences(before, after)
    some = ", ".join(changes[:MOST_SHOWN]) + (", ..." if len(changes) > MOST_SHOWN else "")
    return reason + (f" ({some})" if some else "")


def _general(before: Calibration, after: Calibration) -> Iterator[str]:
    yield from _rates(before.rates, after.rates)
    if before.rule != after.rule:
        yield f"rule {before.rule} -> {after.rule}"
    if before.fit_tail != after.fit_tail:
        yield f"tail {_tail(before)} -> {_tail(after)}"
    if before.tile != after.tile:
        yield f"tile {before.tile} -> {after.tile}"


def _tail(calibration: Calibration) -> str:
    return "fitted" if calibration.fit_tail else "as measured"


def _rates(before: Rates, after: Rates) -> Iterator[str]:
    for field in fields(Rates):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old != new:
            yield f"{_RATES[field.name]} {old:g} -> {new:g}"


def _of_products(before: Calibration, after: Calibration) -> Iterator[str]:
    for product in dict.fromkeys([*before.products, *after.products]):
        if product not in after.sets:
            yield f"{product}: removed"
            continue
        if product not in before.sets:
            yield f"{product}: added"
            continue
        if product in before.product_rates or product in after.product_rates:
            for text in _rates(before.rates_for(product), after.rates_for(product)):
                yield f"{product}: {text}"
        if product in before.product_rules or product in after.product_rules:
            old_rule, new_rule = before.rule_for(product), after.rule_for(product)
            if old_rule != new_rule:
                yield f"{product}: rule {old_rule} -> {new_rule}"
        old, new = before.sets[product].hashes, after.sets[product].hashes
        if len(old) != len(new):
            yield f"{product}: {len(old)} -> {len(new)} held-out images"
        elif not np.array_equal(np.sort(old), np.sort(new)):
            yield f"{product}: {len(new)} other held-out images"
        yield from _mask(product, before.ignore_masks, after.ignore_masks)
        for name, default in _DEFAULTS.items():
            a, b = (getattr(one, name).get(product, default) for one in (before, after))
            if a != b:
                yield f"{product}: {_NAMES[name]} {a} -> {b}"


def _mask(product: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    old, new = before.get(product), after.get(product)
    if old is None and new is not None:
        yield f"{product}: an ignore mask"
    elif old is not None and new is None:
        yield f"{product}: no ignore mask"
    elif old is not None and new is not None and not np.array_equal(old, new):
        yield f"{product}: another ignore mask"
