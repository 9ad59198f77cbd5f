"""Test martingales: a capital that grows only if an assumption about a stream is false.

The capital starts at 1 and is bet, image by image, against the assumption. If the assumption holds,
every bet is fair or unfavourable, so the probability that the capital EVER reaches L is at most
1 / L (Ville's inequality). The bets on the order of the values are conformal (Vovk, Gammerman,
Shafer, Algorithmic Learning in a Random World, 2nd ed. 2022, part III; Vovk et al., Retrain or not
retrain: conformal test martingales for change-point detection, COPA 2021, arXiv 2102.10439).
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from statistics import NormalDist

import numpy as np

CAPACITY = 50_000
"""Maximum number of values in a bag (400 kB); a full bag is reduced to a random half."""

SWITCH = 0.01
"""Share of the staked capital that is redistributed over all bets in every step."""

QUIET = 4.0
"""How slowly the reserve is staked: after k steps a share log(QUIET) / log(QUIET + k) is left."""

SHIFTS = (-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)
"""Bets of a rank test: assumed shifts of the values in standard deviations."""

LARGER = (0.1, 0.25, 0.5, 0.9)
"""Bets of a share test: assumed increases, as fractions of the distance from the share to 1."""

UP = tuple(bet for bet, shift in enumerate(SHIFTS) if shift > 0)
"""Bets of SHIFTS on larger values; as many as in LARGER."""

_NORMAL = NormalDist()
_TINY = 2.0**-53


class Bag:
    """A sorted collection of values that returns the rank of each new value.

    Args:
        values: (n,) initial values, finite.
    """

    def __init__(self, values: Iterable[float] = ()) -> None:
        self.values = array("d", sorted(values))

    def rank(self, value: float, random: np.random.Generator) -> float:
        """Return the smoothed rank of a new value, in [0, 1], and add the value to the bag.

        The rank is 1 minus the conformal p-value: (number below + u (number equal + 1)) / (n + 1),
        with u uniform in [0, 1] to break ties. If all values, including the initial ones, are
        exchangeable, successive ranks are independent and uniform (Vovk et al. 2022), and
        independent of the bag as a set. Therefore a random half of a full bag can be removed
        without affecting this property.

        Args:
            value: finite.
            random: breaks ties and selects the values that are removed.
        """
        low, high = bisect_left(self.values, value), bisect_right(self.values, value)
        rank = (low + float(random.random()) * (high - low + 1)) / (len(self.values) + 1)
        self.values.insert(high, value)
        if len(self.values) > CAPACITY:
            # not `permutation`: it draws 32-bit words, and the saved state has no buffered half
            order = np.argsort(random.random(len(self.values)))
            self.values = array("d", np.sort(np.asarray(self.values)[order[: CAPACITY // 2]]))
        return rank


class Counts:
    """How often an event happened and did not, with the rank of each new outcome.

    Attributes:
        counts: number of images without and with the event.
    """

    def __init__(self) -> None:
        self.counts = [0, 0]

    def rank(self, happened: bool, random: np.random.Generator) -> float:
        """Return the smoothed rank of a new outcome among the earlier ones, and count it.

        As `Bag.rank` of the values 0 and 1, which needs no more memory than two numbers.

        Args:
            happened: whether the event happened.
            random: breaks ties.
        """
        low, equal = self.counts[0] if happened else 0, self.counts[happened]
        rank = (low + float(random.random()) * (equal + 1)) / (sum(self.counts) + 1)
        self.counts[happened] += 1
        return rank


def shift_bets(rank: float) -> list[float]:
    """Return, for each bet of SHIFTS, the log of the factor that its capital changes by.

    The bet on a shift d pays exp(d z - d^2 / 2), where z is the normal quantile of the rank: the
    likelihood ratio of N(d, 1) to N(0, 1). Its mean over uniform ranks is 1. Bets of both signs
    make the test two-sided.

    Args:
        rank: in [0, 1].
    """
    z = _NORMAL.inv_cdf(min(max(rank, _TINY), 1 - _TINY))
    return [shift * (z - shift / 2) for shift in SHIFTS]


def share_bets(happened: bool, share: float) -> list[float]:
    """Return, for each bet of LARGER, the log of the factor that its capital changes by.

    A bet on a probability q > share pays q / share if the event happened, else
    (1 - q) / (1 - share). The mean is at most 1 whenever the conditional probability of the event
    is at most `share`.

    Args:
        happened: whether the event happened.
        share: assumed maximum probability of the event, in (0, 1).
    """
    if happened:
        return [math.log(share + (1 - share) * part) - math.log(share) for part in LARGER]
    # q = share + (1 - share) part, so (1 - q) / (1 - share) = 1 - part
    return [math.log(1 - part) for part in LARGER]


class Jumper:
    """Capital spread over several bets and a reserve: the Simple Jumper with a decreasing rate.

    As in the Simple Jumper (Vovk et al. 2021), a share SWITCH of the staked capital is
    redistributed over all bets in each step. In addition there is a reserve that is not bet. In
    step k, a share 1 - log(QUIET + k - 1) / log(QUIET + k) of the reserve is staked. A change
    after k quiet steps therefore finds a stake of about 1 / (k log^2 k): a long quiet time costs
    about the logarithm of its length, and never the whole capital. (With a constant rate J only
    exp(-J k) of the reserve would be left.) For any rates fixed in advance the capital is a
    martingale if every bet is fair.

    Args:
        bets: number of bets.

    Attributes:
        steps: number of steps so far.
        log_capital, log_peak: log of the capital, and its maximum so far.
        reserve: share of the capital that is not bet.
        staked: share of the capital on each bet; together with `reserve` the sum is 1.
        rise: log factor that each bet has won since its last minimum (Page's CUSUM).
        start, start_when: number and `when` of the image at which that rise began.
    """

    def __init__(self, bets: int) -> None:
        self.steps = 0
        self.log_capital = 0.0
        self.log_peak = 0.0
        self.reserve = 1.0
        self.staked = [0.0] * bets
        self.rise = [0.0] * bets
        self.start = [0] * bets
        self.start_when: list[str | None] = [None] * bets

    def step(self, log_factors: Sequence[float], image: int, when: str | None) -> None:
        """Update the capital with the outcome of one image.

        Args:
            log_factors: (bets,) finite; log of the factor that each bet has won.
            image, when: number and `when` of the image; a possible start of a change.
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
        """Return number and `when` of the image at which the largest rise of the given bets began.

        For a single bet this is the maximum-likelihood change point: the last minimum of its log
        capital.

        Args:
            bets: indices of the bets to compare.
        """
        bet = max(bets, key=self.rise.__getitem__)
        return self.start[bet], self.start_when[bet]
