"""p-values and thresholds from normal images that training did not see: split conformal prediction.

With n values of a product's held-out normal images, p(x) = (1 + #{i: x_i >= x}) / (n + 1), and a
new normal image has p <= alpha with probability at most alpha, whatever the law of the values
(Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005, section 2.4). No p-value is
below 1 / (n + 1), so a smaller false-alarm rate cannot be promised by the product's images alone.
There the images of all products together decide: logarithms of values, less their product's mean,
over its deviation, form one sample of N, which promises rates down to 1 / (N + 1) over all
products together. Mean and deviation are those of the training images, so that held-out and new
images owe them equally little. Below 1 / (N + 1) nothing is promised, unless a tail is fitted,
which is a guess and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

PRIOR = 10.0
"""Images that the products' typical deviation counts for beside a product's own."""
TAIL_SHARE, TAIL_LEAST = 0.2, 50
"""A tail is fitted to this share of the standardised values, of at least so many."""
LEAST_SHAPE = -0.5
"""Of a tail; below it maximum likelihood fails (Smith, Biometrika 72, 1985), and would have the
tail end at the highest value."""
_TINY = 1e-12
_MOST = float(np.finfo(np.float32).max)


class Conformal:
    """Values of held-out normal images by product, and what they say of a new one.

    >>> values = {"bolt": np.arange(1.0, 20.0)}
    >>> law = Conformal(values, usual(values))
    >>> law.p_value(19.5, "bolt"), law.threshold(0.05, "bolt")
    (0.05, (19.0, 'product'))

    Args:
        values: (n,) by product, n from 0 up, float32 numbers of at least 0.
        usual: mean and deviation of the logarithm by product, see `usual`.
        tail: whether rates below what N images can promise come from a fitted tail.
    """

    def __init__(
        self,
        values: Mapping[str, np.ndarray],
        usual: Mapping[str, tuple[float, float]],
        tail: bool = False,
    ) -> None:
        self.values = {k: np.sort(np.asarray(v, np.float64)) for k, v in values.items()}
        self.usual = usual
        self.tail = tail

    def least_rate(self, product: str | None = None) -> float:
        """The smallest false-alarm rate that the images of a product (None: of all) can promise."""
        if product is None:
            return 1 / (1 + sum(map(len, self.values.values())))
        return 1 / (1 + len(self.values[product]))

    def standardise(self, value: float, product: str) -> float:
        """The calibrated value: how many deviations its logarithm lies over the product's mean."""
        return float(self._standardise(np.array([value], np.float64), product)[0])

    def p_value(self, value: float, product: str) -> float | None:
        """The share of normal images of the product that are at least as high, in (0, 1].

        Its own images' p-value; where all of them are lower, that of all products together if it
        is smaller. So `p_value <= rate` and `value > threshold(rate)` are one statement. None: no
        image was held out at all.
        """
        if not len(self._pooled):
            return None
        own = self.values[product]
        higher = len(own) - int(np.searchsorted(own, value, side="left"))
        p = (1 + higher) / (1 + len(own))
        if higher:
            return p
        return min(p, self._pooled_p(self.standardise(value, product)))

    def threshold(self, rate: float, product: str) -> tuple[float | None, str]:
        """The value above which at most a share `rate` of normal images lie, and who promises it.

        Returns:
            The threshold and `product`, `all products` or `tail fit`; None where the rate is
            less than they can promise.
        """
        own = self.values[product]
        allowed = _allowed(rate, len(own))
        if allowed >= 1:
            return float(own[len(own) - allowed]), "product"
        limit, basis = self._pooled_threshold(rate)
        if limit is None:
            return None, basis
        return max([self._raw(limit, product), *own[-1:].tolist()]), basis

    def _pooled_threshold(self, rate: float) -> tuple[float | None, str]:
        pooled = self._pooled
        allowed = _allowed(rate, len(pooled))
        if allowed >= 1 and len(pooled):
            return float(pooled[len(pooled) - allowed]), "all products"
        if self._fit is None:
            return None, "all products"
        from scipy.stats import genpareto

        start, share, shape, scale = self._fit
        value = start + genpareto.isf(min(rate / share, 1.0), shape, scale=scale)
        return max(float(value), float(pooled[-1])), "tail fit"

    def _pooled_p(self, z: float) -> float:
        pooled = self._pooled
        higher = len(pooled) - int(np.searchsorted(pooled, z, side="left"))
        p = (1 + higher) / (1 + len(pooled))
        if higher or self._fit is None:
            return p
        from scipy.stats import genpareto

        start, share, shape, scale = self._fit
        return min(p, max(share * float(genpareto.sf(z - start, shape, scale=scale)), _TINY))

    def _raw(self, limit: float, product: str) -> float:
        """The largest float32 number whose calibrated value is at most `limit`: rounding must not
        part threshold and p-value."""
        mean, deviation = self.usual[product]
        logarithm = mean + deviation * limit
        if logarithm > np.log(_MOST) - 1e-3:
            return _MOST

        def over(value: float) -> bool:
            return self.standardise(value, product) > limit

        if over(0.0):
            return -_TINY
        value = np.float32(np.exp(logarithm))
        while over(float(value)):
            value = np.nextafter(value, np.float32(-1))
        while not over(float(above := np.nextafter(value, np.float32(_MOST)))):
            value = above
        return float(value)

    def _standardise(self, values: np.ndarray, product: str) -> np.ndarray:
        mean, deviation = self.usual[product]
        found: np.ndarray = (np.log(np.maximum(values, _TINY)) - mean) / deviation
        return found

    @cached_property
    def _pooled(self) -> np.ndarray:
        """Standardised values of all products, sorted."""
        each = [self._standardise(values, product) for product, values in self.values.items()]
        return np.sort(np.concatenate([np.empty(0), *each]))

    @cached_property
    def _fit(self) -> tuple[float, float, float, float] | None:
        """Start, share of values beyond it, shape and scale of a generalised Pareto tail (Pickands,
        Annals of Statistics, 1975), by maximum likelihood; None: not wanted, or too few values
        that differ."""
        pooled = self._pooled
        if not self.tail or len(pooled) < TAIL_LEAST:
            return None
        from scipy.stats import genpareto

        count = int(np.ceil(TAIL_SHARE * len(pooled)))
        start = float(pooled[-count - 1])
        beyond = pooled[-count:] - start
        if len(np.unique(beyond)) <= count // 2:
            return None
        shape, _, scale = genpareto.fit(beyond, floc=0)
        if shape < LEAST_SHAPE:
            shape, _, scale = genpareto.fit(beyond, fc=LEAST_SHAPE, floc=0)
        return start, count / (len(pooled) + 1), float(shape), float(scale)


def usual(values: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Mean and deviation of the logarithm of positive values (n,), n at least 1, by product; where
    n is small the deviation leans on the median of the products' deviations."""
    logs = {name: np.log(np.maximum(v, _TINY).astype(np.float64)) for name, v in values.items()}
    several = [v.std(ddof=1) for v in logs.values() if len(v) > 1]
    typical = max(float(np.median(several)), 1e-6) if several else 1.0
    found = {}
    for name, v in logs.items():
        squares = PRIOR * typical**2 + np.square(v - v.mean()).sum()
        found[name] = (float(v.mean()), float(np.sqrt(squares / (PRIOR + len(v) - 1))))
    return found


def _allowed(rate: float, count: int) -> int:
    """The largest k for which k / (count + 1), rounded as p-values are, is at most the rate."""
    k = int(rate * (count + 1))
    if (k + 1) / (count + 1) <= rate:
        return k + 1
    return k - (k / (count + 1) > rate)
