"""The parts of a drift monitor as JSON values, and back; every value is checked on the way in."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from snl.monitoring.martingale import Bag, Jumper

_STATES = 2**128
"""Of the random generator (PCG64), whose state is written as hexadecimal digits."""


def read_number(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number in low..high.

    Raises:
        ValueError: anything else, as do all functions here.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is no number")
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"{name} is {value}, not in {low}..{high}")
    return float(value)


def read_count(value: Any, name: str, high: int = 2**53) -> int:
    """An integer in 0..high."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
        raise ValueError(f"{name} is no count in 0..{high}")
    return value


def read_text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value


def read_when(value: Any, name: str) -> str | None:
    return None if value is None else read_text(value, name)


def read_list(value: Any, name: str, length: int | None = None) -> list[Any]:
    """A list, of a certain length if one is given."""
    if not isinstance(value, list) or length not in (None, len(value)):
        raise ValueError(f"{name} is no list" + (f" of {length}" if length is not None else ""))
    return value


def read_numbers(value: Any, name: str, length: int | None = None) -> list[float]:
    return [read_number(item, name) for item in read_list(value, name, length)]


def read_map(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no JSON object")
    return value


def read_bag(value: Any, name: str) -> Bag:
    """A bag of sorted values."""
    values = read_numbers(value, name)
    if any(a > b for a, b in pairwise(values)):
        raise ValueError(f"{name} is not sorted")
    bag = Bag()
    bag.values = array("d", values)
    return bag


def write_jumper(jumper: Jumper) -> dict[str, Any]:
    return {
        "steps": jumper.steps,
        "log_capital": jumper.log_capital,
        "log_peak": jumper.log_peak,
        "reserve": jumper.reserve,
        "staked": list(jumper.staked),
        "rise": list(jumper.rise),
        "start": list(jumper.start),
        "start_when": list(jumper.start_when),
    }


def read_jumper(value: Any, name: str, bets: int, images: int) -> Jumper:
    """A jumper over `bets` bets that has seen at most `images` images."""
    facts = read_map(value, name)
    jumper = Jumper(bets)
    jumper.steps = read_count(facts["steps"], f"{name} steps", images)
    jumper.log_capital = read_number(facts["log_capital"], f"{name} log_capital")
    jumper.log_peak = read_number(facts["log_peak"], f"{name} log_peak", 0)
    if jumper.log_peak < jumper.log_capital:
        raise ValueError(f"{name} log_peak is below log_capital")
    jumper.reserve = read_number(facts["reserve"], f"{name} reserve", 0, 1)
    jumper.staked = read_numbers(facts["staked"], f"{name} staked", bets)
    total = jumper.reserve + sum(jumper.staked)
    if min(jumper.staked) < 0 or abs(total - 1) > 1e-9:
        raise ValueError(f"{name} reserve and staked are no shares of one capital")
    jumper.rise = read_numbers(facts["rise"], f"{name} rise", bets)
    starts = read_list(facts["start"], f"{name} start", bets)
    jumper.start = [read_count(start, f"{name} start", images) for start in starts]
    whens = read_list(facts["start_when"], f"{name} start_when", bets)
    jumper.start_when = [read_when(when, f"{name} start_when") for when in whens]
    return jumper


def write_random(random: np.random.Generator) -> str:
    return f"{random.bit_generator.state['state']['state']:032x}"


def read_random(value: Any, random: np.random.Generator) -> None:
    """Puts a generator into the state that `write_random` wrote for one of the same seed."""
    state = int(read_text(value, "random"), 16)
    if not 0 <= state < _STATES:
        raise ValueError("random is no state of the generator")
    whole: Mapping[str, Any] = random.bit_generator.state
    random.bit_generator.state = {**whole, "state": {**whole["state"], "state": state}}
