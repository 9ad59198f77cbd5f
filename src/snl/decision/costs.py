"""The false-alarm rate with the lowest expected cost per part, from p-values of reviewed defects.

    cost(rate) = defect_share * missed(rate) * miss + (1 - defect_share) * rate * false_alarm

`missed` is the share of reviewed defects whose p-value is above the rate. The rate itself is the
nominal one, which the calibration bounds, not the share of reviewed normal images that are called
anomalous: those are often reviewed because they were flagged, so they are no sample of production.
Between two p-values of defects only the second term changes and it rises, so the minimum is at one
of them, or at the smallest rate that the calibration allows: those are the candidates.

The interval of the best rate is a bootstrap over images, stratified by label: the reviewed defects
are drawn with replacement (Efron and Tibshirani, An Introduction to the Bootstrap, 1993), and the
held-out normal images have the random weights of the Bayesian bootstrap (Rubin, Annals of
Statistics 9, 1981). With these weights the true rate at a nominal rate r of n images has the
distribution Beta(r (n + 1), (1 - r) (n + 1)), as it has for split conformal prediction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from snl.errors import SettingsError

REPLICATES = 1000
"""Bootstrap samples."""
PERCENTILES = (0.05, 0.95)
"""Ends of the interval of the best rate."""
WIDE = 4.0
"""An interval is wide if its upper end is more than this many times its lower end."""
FLAT = 1.05
"""Rates whose cost is at most this many times the lowest one are practically as good."""
MOST_COST = 1e12
"""Largest cost."""
_FACTORS = (1, 2, 4, 8, 16)
_TIE = 1 + 1e-12
_CELLS = 2**20  # of the arrays of one part of the bootstrap

_Number = TypeVar("_Number", float, np.ndarray)


@dataclass(frozen=True)
class Costs:
    """What wrong decisions cost, in any unit, and how often parts are defective.

    Attributes:
        miss: cost of a defective part that is not called anomalous.
        false_alarm: cost of a normal part that is called anomalous.
        defect_share: share of defective parts in production, between 0 and 1.

    Raises:
        SettingsError: a cost that is not a number above 0, or a share that is none.

    >>> Costs(miss=100.0, false_alarm=1.0, defect_share=0.01).per_part(0.05, 0.2)
    0.2495
    """

    miss: float
    false_alarm: float
    defect_share: float

    def __post_init__(self) -> None:
        for name, value in (("a miss", self.miss), ("a false alarm", self.false_alarm)):
            if not 0 < value <= MOST_COST:
                raise SettingsError(
                    f"the cost of {name} is {value:g}; give a number above 0, at most "
                    f"{MOST_COST:g} (only the ratio of the two costs decides)"
                )
        if not 0 < self.defect_share < 1:
            raise SettingsError(
                f"the share of defective parts is {self.defect_share:g}; give a number between 0 "
                "and 1, without 0 and 1"
            )

    def per_part(self, rate: _Number, missed: _Number) -> _Number:
        """Return the expected cost per part.

        Args:
            rate: share of normal parts that are called anomalous.
            missed: share of defective parts that are not.
        """
        share = self.defect_share
        return share * missed * self.miss + (1 - share) * rate * self.false_alarm


@dataclass(frozen=True)
class Operation:
    """What to expect at a false-alarm rate.

    Attributes:
        rate: the false-alarm rate.
        found: share of the reviewed defects that are called anomalous, in 0..1.
        cost: expected cost per part.
    """

    rate: float
    found: float
    cost: float


@dataclass(frozen=True)
class BestRate:
    """The rate with the lowest expected cost, and how certain it is.

    Attributes:
        best: at this rate.
        interval: 5th and 95th percentile of the best rate; it always contains the best rate.
        flat: lowest and highest candidate around the best rate up to which the cost is at most 5 %
            higher.
        more_defects: about how many more reviewed defects would make a wide interval narrow
            (`WIDE`); 0: it is narrow; None: no number up to 15 times the present one would.
    """

    best: Operation
    interval: tuple[float, float]
    flat: tuple[float, float]
    more_defects: int | None


def operation(p_values: np.ndarray, costs: Costs, rate: float) -> Operation:
    """Return what to expect at a rate.

    Args:
        p_values: (D,) of reviewed defects, D >= 1.
        costs: of wrong decisions.
        rate: false-alarm rate, in 0..1.
    """
    found = float(np.mean(p_values <= rate))
    return Operation(rate, found, float(costs.per_part(rate, 1 - found)))


def candidate_rates(p_values: np.ndarray, smallest: float) -> np.ndarray:
    """Return the rates at which the expected cost can have its minimum, sorted, float64 (M,).

    Args:
        p_values: (D,) of reviewed defects.
        smallest: the smallest rate that the calibration allows, below 1.
    """
    p = np.asarray(p_values, np.float64)
    return np.unique(np.append(p[(p >= smallest) & (p < 1)], smallest))


def best_rate(
    groups: Sequence[np.ndarray],
    costs: Costs,
    smallest: float,
    normals: int,
    seed: int = 0,
    share_at: Callable[[float], float] = lambda rate: rate,
) -> BestRate:
    """Return the rate with the lowest expected cost; of several equal ones the highest.

    The highest, because defects that nobody has reviewed yet are likely to be harder than those
    that somebody noticed, so the share of misses is rather too low than too high.

    Args:
        groups: p-values (D_g,) of reviewed defects by product. All defects count alike; the
            bootstrap draws from each group as many as it has.
        costs: of wrong decisions.
        smallest: the smallest rate that the calibration allows, below 1.
        normals: number n of held-out images that the p-values come from.
        seed: of the bootstrap.
        share_at: share of normal images that a rate really allows, never decreasing. A p-value of
            a product is its own share; a rate for several products may allow less in some.

    Raises:
        ValueError: there is no defect, or no possible rate.

    >>> p = np.array([0.01, 0.01, 0.02, 0.2])
    >>> best_rate([p], Costs(100.0, 1.0, 0.01), smallest=0.001, normals=1000).best.rate
    0.2
    >>> best_rate([p], Costs(10.0, 1.0, 0.01), smallest=0.001, normals=1000).best.rate
    0.02
    """
    p_values = np.concatenate([np.empty(0), *groups])
    if not len(p_values) or not 0 < smallest < 1:
        raise ValueError("no reviewed defects, or no possible rate")
    rates = candidate_rates(p_values, smallest)
    found = np.searchsorted(np.sort(p_values), rates, side="right") / len(p_values)
    shares = np.array([share_at(float(rate)) for rate in rates])
    expected = costs.per_part(shares, 1 - found)
    n = int(_lowest(expected[None])[0])
    best = Operation(float(rates[n]), float(found[n]), float(expected[n]))
    widths = (
        (factor, _interval(groups, costs, rates, shares, normals, factor, seed, best.rate))
        for factor in _FACTORS
    )
    _, interval = next(widths)
    more: int | None = 0
    if _is_wide(interval):
        enough = (factor for factor, limits in widths if not _is_wide(limits))
        more = next(((factor - 1) * len(p_values) for factor in enough), None)
    return BestRate(best, interval, _flat(rates, expected, n), more)


def rounded_up(rate: float, is_same: Callable[[float], bool]) -> float:
    """Return the shortest number from the rate up, of 2 to 6 digits, that decides in the same way.

    Args:
        rate: between 0 and 1.
        is_same: whether a higher rate decides as `rate` does. If none is found, `rate` is returned.

    >>> rounded_up(1 / 21, lambda rate: rate < 2 / 21)
    0.048
    """
    for digits in range(2, 7):
        unit = 10.0 ** (math.floor(math.log10(rate)) - digits + 1)
        value = float(f"{math.ceil(rate / unit - 1e-9) * unit:.{digits}g}")
        if rate <= value < 1 and is_same(value):
            return value
    return rate


def _flat(rates: np.ndarray, expected: np.ndarray, best: int) -> tuple[float, float]:
    """Return the ends of the run of candidates around the best one that cost hardly more."""
    worse = np.flatnonzero(expected > FLAT * expected[best])
    below, above = worse[worse < best], worse[worse > best]
    first = int(below[-1]) + 1 if len(below) else 0
    last = int(above[0]) - 1 if len(above) else len(rates) - 1
    return float(rates[first]), float(rates[last])


def _is_wide(interval: tuple[float, float]) -> bool:
    return interval[1] > WIDE * interval[0]


def _lowest(expected: np.ndarray) -> np.ndarray:
    """Return the last column with the lowest value of every row, (B,)."""
    tied = expected <= _TIE * expected.min(1, keepdims=True)
    columns: np.ndarray = expected.shape[1] - 1 - np.argmax(tied[:, ::-1], axis=1)
    return columns


def _interval(
    groups: Sequence[np.ndarray],
    costs: Costs,
    rates: np.ndarray,
    shares: np.ndarray,
    normals: int,
    factor: int,
    seed: int,
    best: float,
) -> tuple[float, float]:
    """Return the interval of the best rate with `factor` times as many reviewed defects."""
    rng = np.random.default_rng(seed)
    size = len(rates)
    total = factor * sum(map(len, groups))
    # of each group, how many defects are found from each candidate on; last: at none of them
    first = [
        np.bincount(np.searchsorted(rates, group, side="left"), minlength=size + 1)
        for group in groups
        if len(group)
    ]
    gaps = np.diff(shares, prepend=0.0, append=1.0) * (normals + 1)
    chosen = []
    part = max(1, min(REPLICATES, _CELLS // size))
    for start in range(0, REPLICATES, part):
        count = min(part, REPLICATES - start)
        drawn = np.zeros((count, size + 1), np.int64)
        for counts in first:
            number = int(counts.sum())
            drawn += rng.multinomial(factor * number, counts / number, count)
        weights = rng.standard_gamma(gaps, (count, size + 1))
        true = np.cumsum(weights, axis=1)
        true /= np.maximum(true[:, -1:], np.finfo(float).tiny)
        missed = 1 - np.cumsum(drawn, axis=1)[:, :-1] / total
        chosen.append(rates[_lowest(costs.per_part(true[:, :-1], missed))])
    low, high = np.quantile(np.concatenate(chosen), PERCENTILES, method="inverted_cdf")
    return min(float(low), best), max(float(high), best)
