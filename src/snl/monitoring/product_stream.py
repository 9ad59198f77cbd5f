"""The image stream of one product: its bags of values, its tests and its alarm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from snl.monitoring.martingale import (
    LARGER,
    SHIFTS,
    UP,
    Bag,
    Counts,
    Jumper,
    share_bets,
    shift_bets,
)
from snl.monitoring.state_file import (
    read_bag,
    read_count,
    read_flag,
    read_jumper,
    read_list,
    read_random,
    read_text,
    read_when,
    write_jumper,
    write_random,
)

MIN_BASELINE = 15
"""Fewest baseline values that a stream is compared with. Fewer are no evidence of what is normal:
the first images of the stream take their place."""


class Stream:
    """One product: a bag and a test for each statistic, and a test of the share of rejections.

    Args:
        baseline: float64 (n, statistics), finite; initial values of the bags if there are at least
            `MIN_BASELINE`, else the bags start empty.
        random: breaks ties; its state is not changed by `restart`.
        own_share: compare the share of rejected images with that of the earlier images of the
            stream, as always with fewer than `MIN_BASELINE` values, instead of a fixed share.

    Attributes:
        compared: whether the stream is compared with the baseline.
        images: number of images since the start or the last `restart`.
        rejections: numbers of images that were not and that were rejected, for `own_share`.
        bags: one for each statistic.
        tests: one for each statistic, then the test of rejections.
        alarm: since, since_when and reason of the alarm, see `Drift`; None: no alarm.
    """

    def __init__(
        self, baseline: np.ndarray, random: np.random.Generator, own_share: bool = False
    ) -> None:
        self.baseline = baseline
        self.compared = len(baseline) >= MIN_BASELINE
        self.own_share = own_share or not self.compared
        self.random = random
        self.restart()

    def restart(self) -> None:
        """Discard everything except the baseline."""
        self.images = 0
        self.rejections = Counts()
        columns = self.baseline.T.tolist()
        self.bags = [Bag(column if self.compared else ()) for column in columns]
        self.tests = [Jumper(len(SHIFTS)) for _ in self.bags] + [Jumper(len(LARGER))]
        self.alarm: tuple[int, str | None, str] | None = None

    def step(self, values: Sequence[float], rejected: bool, share: float, when: str | None) -> None:
        """Update the tests with one image.

        Args:
            values: (statistics,) finite; ignored for a rejected image.
            rejected: whether the image was rejected.
            share: share of rejected images that does not count as drift.
            when: time or name of the image.
        """
        self.images += 1
        if self.own_share:
            bets = shift_bets(self.rejections.rank(rejected, self.random))
            self.tests[-1].step([bets[bet] for bet in UP], self.images, when)
        else:
            self.tests[-1].step(share_bets(rejected, share), self.images, when)
        if rejected:
            return
        for value, bag, test in zip(values, self.bags, self.tests, strict=False):
            test.step(shift_bets(bag.rank(value, self.random)), self.images, when)

    def check_alarm(self, log_limit: float, names: Sequence[str], share: float) -> None:
        """Raise the alarm, if there is none yet, when a test's log capital reaches the limit.

        Args:
            log_limit: log capital that raises the alarm.
            names: names of the statistics, for the reason.
            share: as in `step`, for the reason.
        """
        best = max(range(len(self.tests)), key=lambda i: self.tests[i].log_capital)
        test = self.tests[best]
        if self.alarm is not None or test.log_capital < log_limit:
            return
        if best == len(self.bags):
            bets = list(range(len(LARGER)))
            usual = "earlier" if self.own_share else f"{100 * share:g} %"
            reason = f"more images are rejected than {usual}"
        else:
            up = list(UP)
            down = [bet for bet in range(len(SHIFTS)) if bet not in UP]
            higher = sum(test.staked[bet] for bet in up) > sum(test.staked[bet] for bet in down)
            bets = up if higher else down
            change = "higher" if higher else "lower"
            change += " than at calibration" if self.compared else " than earlier"
            distance = f"distance to the product's prototypes is {change}"
            reason = {
                "score": f"scores are {change}",
                "distance": f"images look different ({distance})",
            }.get(names[best], f"values of {names[best]} are {change}")
        self.alarm = (*test.change(bets), reason)

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON values, without the baseline."""
        return {
            "images": self.images,
            "random": write_random(self.random),
            "own_share": self.own_share,
            "rejections": list(self.rejections.counts),
            "alarm": None if self.alarm is None else list(self.alarm),
            "tests": [write_jumper(test) for test in self.tests],
            "bags": [bag.values.tolist() for bag in self.bags],
        }

    def restore(self, content: Mapping[str, Any]) -> None:
        """Set the state from `to_dict` of a stream with the same baseline and seed.

        Raises:
            ValueError, KeyError, TypeError, OverflowError: the content is damaged.
        """
        width = len(self.bags)
        read_random(content["random"], self.random)
        self.images = read_count(content["images"], "images")
        if "rejections" in content:  # not in format 1, which had fixed shares only
            self.own_share = read_flag(content["own_share"], "own_share") or not self.compared
            counts = read_list(content["rejections"], "rejections", 2)
            self.rejections.counts = [
                read_count(number, "rejections", self.images) for number in counts
            ]
        self.bags = [read_bag(bag, "bags") for bag in read_list(content["bags"], "bags", width)]
        self.tests = [
            read_jumper(test, "tests", len(LARGER) if i == width else len(SHIFTS), self.images)
            for i, test in enumerate(read_list(content["tests"], "tests", width + 1))
        ]
        if content["alarm"] is not None:
            since, when, reason = read_list(content["alarm"], "alarm", 3)
            since = read_count(since, "since", self.images)
            self.alarm = (since, read_when(when, "since_when"), read_text(reason, "reason"))
