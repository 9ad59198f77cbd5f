"""The stream of one product's images: its bags, its tests, and its alarm once one is raised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from snl.monitoring.martingale import LARGER, SHIFTS, Bag, Jumper, share_bets, shift_bets
from snl.monitoring.state_file import (
    read_bag,
    read_count,
    read_jumper,
    read_list,
    read_random,
    read_text,
    read_when,
    write_jumper,
    write_random,
)


class Stream:
    """One product: for each statistic a bag and a test, and last the test of rejections.

    Args:
        baseline: (n, statistics) finite; what the bags begin with.
        random: breaks ties; goes on over `begin`.
    """

    def __init__(self, baseline: np.ndarray, random: np.random.Generator) -> None:
        self.baseline = baseline
        self.random = random
        self.begin()

    def begin(self) -> None:
        """Forgets all but the baseline."""
        self.images = 0
        self.bags = [Bag(column) for column in self.baseline.T.tolist()]
        self.tests = [Jumper(len(SHIFTS)) for _ in self.bags] + [Jumper(len(LARGER))]
        self.alarm: tuple[int, str | None, str] | None = None  # since, since_when, reason

    def step(self, values: Sequence[float], rejected: bool, share: float, when: str | None) -> None:
        """One image; `values` (statistics,) are compared unless it was rejected.

        `share` is the share of rejected images that is no drift.
        """
        self.images += 1
        self.tests[-1].step(share_bets(rejected, share), self.images, when)
        if rejected:
            return
        for value, bag, test in zip(values, self.bags, self.tests, strict=False):
            test.step(shift_bets(bag.rank(value, self.random)), self.images, when)

    def judge(self, level: float, names: Sequence[str], share: float) -> None:
        """Raises the alarm, if there is none, where a test's log capital is at `level` or above."""
        best = max(range(len(self.tests)), key=lambda i: self.tests[i].log_capital)
        test = self.tests[best]
        if self.alarm is not None or test.log_capital < level:
            return
        if best == len(self.bags):
            bets = list(range(len(LARGER)))
            reason = f"more images are rejected than {100 * share:g} %"
        else:
            up = [bet for bet, shift in enumerate(SHIFTS) if shift > 0]
            down = [bet for bet, shift in enumerate(SHIFTS) if shift < 0]
            higher = sum(test.staked[bet] for bet in up) > sum(test.staked[bet] for bet in down)
            bets = up if higher else down
            change = "higher" if higher else "lower"
            change += " than at calibration" if len(self.baseline) else " than earlier"
            distance = f"distance to the product's prototypes is {change}"
            reason = {
                "score": f"scores are {change}",
                "distance": f"images look different ({distance})",
            }.get(names[best], f"values of {names[best]} are {change}")
        self.alarm = (*test.change(bets), reason)

    def to_dict(self) -> dict[str, Any]:
        """State as JSON values, without the baseline."""
        return {
            "images": self.images,
            "random": write_random(self.random),
            "alarm": None if self.alarm is None else list(self.alarm),
            "tests": [write_jumper(test) for test in self.tests],
            "bags": [bag.values.tolist() for bag in self.bags],
        }

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Takes on the state that `to_dict` of a stream of the same baseline and seed wrote.

        Raises:
            ValueError, KeyError, TypeError, OverflowError: damaged.
        """
        width = len(self.bags)
        read_random(facts["random"], self.random)
        self.images = read_count(facts["images"], "images")
        self.bags = [read_bag(bag, "bags") for bag in read_list(facts["bags"], "bags", width)]
        self.tests = [
            read_jumper(test, "tests", len(LARGER) if i == width else len(SHIFTS), self.images)
            for i, test in enumerate(read_list(facts["tests"], "tests", width + 1))
        ]
        if facts["alarm"] is not None:
            since, when, reason = read_list(facts["alarm"], "alarm", 3)
            since = read_count(since, "since", self.images)
            self.alarm = (since, read_when(when, "since_when"), read_text(reason, "reason"))
