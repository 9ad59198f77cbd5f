"""Choose the tests that `make check` leaves out, from measured durations.

    pytest tests -o junit_family=xunit1 --junitxml build/durations.xml
    python tests/mark_slow.py build/durations.xml

The slowest test functions (all their parameters together) are written to tests/slow.txt until the
rest takes at most BUDGET seconds in one process. `tests/conftest.py` gives them the mark `slow`.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

BUDGET = 75.0
"""Seconds of all tests that are not slow, in one process."""
FILE = Path(__file__).parent / "slow.txt"


def durations(reports: list[str]) -> Counter[str]:
    """Return the seconds of every test function, as `tests/a/test_b.py::test_c`."""
    seconds: Counter[str] = Counter()
    for report in reports:
        for case in ElementTree.parse(report).iter("testcase"):
            file = case.get("file") or case.get("classname", "").replace(".", "/") + ".py"
            name = case.get("name", "").partition("[")[0]
            seconds[f"{file}::{name}"] += float(case.get("time", 0))
    return seconds


def choose(seconds: Counter[str], budget: float = BUDGET) -> list[str]:
    """Return the slowest functions, so that the others stay within the budget."""
    remaining = sum(seconds.values())
    slow = []
    for name, taken in seconds.most_common():
        if remaining <= budget:
            break
        slow.append(name)
        remaining -= taken
    return sorted(slow)


if __name__ == "__main__":
    chosen = choose(durations(sys.argv[1:]))
    FILE.write_text("".join(f"{name}\n" for name in chosen), encoding="utf-8")
    print(f"{len(chosen)} test functions: {FILE}")
