"""Test martingales: capital that grows only where what was assumed of a stream does not hold.

A gambler starts with capital 1 and bets, image by image, against the assumption. If it holds, every
bet is fair (or worse), so the chance that the capital EVER reaches L is at most 1 / L (Ville's
inequality). The bets on the order of values are conformal (Vovk, Gammerman, Shafer, Algorithmic
Learning in a Random World, 2nd ed. 2022, part III; Vovk et al., Retrain or not retrain: conformal
test martingales for change-point detection, COPA 2021, arXiv 2102.10439).
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from statistics import NormalDist

import numpy as np

CAPACITY = 50_000
"""Values that a bag holds at most (400 kB); then a random half of it is let go."""

SWITCH = 0.01
"""Share of the staked capital that is spread anew over all bets at every step."""

QUIET = 4.0
"""How slowly the reserve is staked: after k steps, log(QUIET) / log(QUIET + k) of it is left."""

SHIFTS = (-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)
"""Bets of a rank test: by how many standard deviations values may have moved."""

LARGER = (0.1, 0.25, 0.5, 0.9)
"""Bets of a test of a share: how far on the way from it to 1 the chance may have moved."""

_NORMAL = NormalDist()
_TINY = 2.0**-53


class Bag:
    """Values sorted, to find the place of a new one among them.

    Args:
        values: (n,) to begin with; finite.
    """

    def __init__(self, values: Iterable[float] = ()) -> None:
        self.values = array("d", sorted(values))

    def rank(self, value: float, random: np.random.Generator) -> float:
        """Smoothed rank of a new value among the bag and itself, in 0..1; then it joins the bag.

        1 minus the conformal p-value: (values below + u (values equal + 1)) / (n + 1), with u
        uniform in 0..1 to break ties. While all values, the first ones included, are exchangeable,
        successive ranks are independent and uniform (Vovk et al. 2022), and independent of the bag
        as a set; so a random half of a full bag may be let go without harm to that.
        """
        low, high = bisect_left(self.values, value), bisect_right(self.values, value)
        rank = (low + float(random.random()) * (high - low + 1)) / (len(self.values) + 1)
        self.values.insert(high, value)
        if len(self.values) > CAPACITY:
            order = np.argsort(random.random(len(self.values)))  # `random` draws only doubles
            self.values = array("d", np.sort(np.asarray(self.values)[order[: CAPACITY // 2]]))
        return rank


def shift_bets(rank: float) -> list[float]:
    """Log of the factor that each bet of SHIFTS wins by a rank in 0..1.

    The bet on a shift d pays exp(d z - d^2 / 2), z the normal quantile of the rank: what N(d, 1)
    says over N(0, 1). Its mean over uniform ranks is 1. Bets of both signs make the test two-sided.
    """
    z = _NORMAL.inv_cdf(min(max(rank, _TINY), 1 - _TINY))
    return [shift * (z - shift / 2) for shift in SHIFTS]


def share_bets(happened: bool, share: float) -> list[float]:
    """Log of the factor that each bet of LARGER wins by an event of chance `share` (0..1) or less.

    A bet on a chance q > share pays q / share if it happened, (1 - q) / (1 - share) else: at most 1
    on the mean whenever the chance is at most `share`, whatever came before.
    """
    if happened:
        return [math.log(share + (1 - share) * part) - math.log(share) for part in LARGER]
    return [math.log(1 - part) for part in LARGER]  # (1 - q) / (1 - share), q as above


class Jumper:
    """Capital spread over bets, most of it in reserve at first: the Simple Jumper, slowing down.

    As in the Simple Jumper (Vovk et al. 2021) a share SWITCH of the staked capital is
    spread anew over all bets at each step. Beside the bets stands a reserve that does not bet.
    Of it, a share 1 - log(QUIET + k - 1) / log(QUIET + k) is staked at step k, so a change after k
    quiet steps meets a stake of about 1 / (k log^2 k): a long quiet time costs the logarithm of its
    length, and never all the capital. (A constant rate J would leave exp(-J k) of the reserve.)
    For any rates fixed beforehand the capital is a martingale if every bet is fair.

    Args:
        bets: how many.
    """

    def __init__(self, bets: int) -> None:
        self.steps = 0
        self.log_capital = 0.0
        self.log_peak = 0.0
        self.reserve = 1.0  # share of the capital; `staked` has the others
        self.staked = [0.0] * bets
        self.rise = [0.0] * bets  # what each bet won since its last low: Page's CUSUM
        self.start = [0] * bets  # number of the image with which that rise began
        self.start_when: list[str | None] = [None] * bets

    def step(self, log_factors: Sequence[float], image: int, when: str | None) -> None:
        """One image, by what each bet won.

        Args:
            log_factors: (bets,) finite.
            image, when: kept as the possible beginning of a change.
        """
        self.steps += 1
        kept = math.log(QUIET + self.steps - 1) / math.log(QUIET + self.steps)
        spread = SWITCH * sum(self.staked) + (1 - kept) * self.reserve
        share = spread / len(self.staked)
        staked = [
            ((1 - SWITCH) * stake + share) * math.exp(won)
            for stake, won in zip(self.staked, log_factors, strict=True)
        ]
        reserve = kept * self.reserve
        growth = reserve + sum(staked)
        self.reserve = reserve / growth
        self.staked = [stake / growth for stake in staked]
        self.log_capital += math.log(growth)
        self.log_peak = max(self.log_peak, self.log_capital)
        for bet, won in enumerate(log_factors):
            if self.rise[bet] <= 0:
                self.rise[bet], self.start[bet], self.start_when[bet] = 0.0, image, when
            self.rise[bet] += won

    def change(self, bets: Iterable[int]) -> tuple[int, str | None]:
        """Image with which the largest rise among some bets began, and its `when`.

        For one bet this is the most likely change-point: the last low of its log capital.
        """
        bet = max(bets, key=self.rise.__getitem__)
        return self.start[bet], self.start_when[bet]
