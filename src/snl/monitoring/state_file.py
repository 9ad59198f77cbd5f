"""Convert the parts of a drift monitor to JSON values and back; every value read is checked."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from snl.monitoring.martingale import Bag, Jumper

_STATES = 2**128
"""Number of states of the random generator (PCG64); a state is written as hexadecimal digits."""


def read_number(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a finite number in [low, high].

    Args:
        value: a JSON value.
        name: name of the value in error messages, as in all functions here.
        low, high: limits.

    Raises:
        ValueError: any other value, as in all functions here.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is not a number")
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"{name} is {value}, not in [{low}, {high}]")
    return float(value)


def read_count(value: Any, name: str, high: int = 2**53) -> int:
    """Return an integer in [0, high]."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
        raise ValueError(f"{name} is not an integer in [0, {high}]")
    return value


def read_flag(value: Any, name: str) -> bool:
    """Return a truth value."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is not true or false")
    return value


def read_text(value: Any, name: str) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a string")
    return value


def read_when(value: Any, name: str) -> str | None:
    """Return a string or None."""
    return None if value is None else read_text(value, name)


def read_list(value: Any, name: str, length: int | None = None) -> list[Any]:
    """Return a list, of the given length if this is not None."""
    if not isinstance(value, list) or length not in (None, len(value)):
        items = f" of {length} items" if length is not None else ""
        raise ValueError(f"{name} is not a list{items}")
    return value


def read_numbers(value: Any, name: str, length: int | None = None) -> list[float]:
    """Return a list of finite numbers, of the given length if this is not None."""
    return [read_number(item, name) for item in read_list(value, name, length)]


def read_map(value: Any, name: str) -> dict[str, Any]:
    """Return a JSON object."""
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a JSON object")
    return value


def read_bag(value: Any, name: str) -> Bag:
    """Return a bag from its sorted values."""
    values = read_numbers(value, name)
    if any(a > b for a, b in pairwise(values)):
        raise ValueError(f"{name} is not sorted")
    bag = Bag()
    bag.values = array("d", values)
    return bag


def write_jumper(jumper: Jumper) -> dict[str, Any]:
    """Return the state of a jumper as JSON values."""
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
    """Return a jumper with `bets` bets after at most `images` images."""
    content = read_map(value, name)
    jumper = Jumper(bets)
    jumper.steps = read_count(content["steps"], f"{name} steps", images)
    jumper.log_capital = read_number(content["log_capital"], f"{name} log_capital")
    jumper.log_peak = read_number(content["log_peak"], f"{name} log_peak", 0)
    if jumper.log_peak < jumper.log_capital:
        raise ValueError(f"{name} log_peak is below log_capital")
    jumper.reserve = read_number(content["reserve"], f"{name} reserve", 0, 1)
    jumper.staked = read_numbers(content["staked"], f"{name} staked", bets)
    total = jumper.reserve + sum(jumper.staked)
    if min(jumper.staked) < 0 or abs(total - 1) > 1e-9:
        raise ValueError(f"{name} reserve and staked are not shares of one capital")
    jumper.rise = read_numbers(content["rise"], f"{name} rise", bets)
    starts = read_list(content["start"], f"{name} start", bets)
    jumper.start = [read_count(start, f"{name} start", images) for start in starts]
    whens = read_list(content["start_when"], f"{name} start_when", bets)
    jumper.start_when = [read_when(when, f"{name} start_when") for when in whens]
    return jumper


def write_random(random: np.random.Generator) -> str:
    """Return the state of a generator as hexadecimal digits."""
    return f"{random.bit_generator.state['state']['state']:032x}"


def read_random(value: Any, random: np.random.Generator) -> None:
    """Set a generator to the state that `write_random` returned for one with the same seed."""
    state = int(read_text(value, "random"), 16)
    if not 0 <= state < _STATES:
        raise ValueError("random is not a state of the generator")
    current: Mapping[str, Any] = random.bit_generator.state
    random.bit_generator.state = {**current, "state": {**current["state"], "state": state}}
