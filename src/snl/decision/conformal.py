"""p-values and thresholds from normal images held out from training: split conformal prediction.

With n values of a product's held-out normal images, p(x) = (1 + #{i: x_i >= x}) / (n + 1). A new
normal image has p <= alpha with probability at most alpha, whatever the distribution of the values
(Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005, section 2.4). No p-value is
below 1 / (n + 1), so the product's images alone cannot guarantee a smaller false-alarm rate. For
smaller rates the images of all products are pooled: the z-scores of their log scores (mean and
standard deviation per product) form one sample of size N, which guarantees rates down to
1 / (N + 1) over all products together. The means and standard deviations come from training images,
so that held-out and new images are equally independent of them. Below 1 / (N + 1) nothing is
guaranteed; a fitted tail, if wanted, extrapolates, and the result says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

PRIOR = 10.0
"""Weight, in images, of the products' median standard deviation against a product's own images."""
TAIL_SHARE, TAIL_MINIMUM = 0.2, 50
"""A tail is fitted to this share of the pooled z-scores, if there are at least this many."""
SMALLEST_SHAPE = -0.5
"""Lower limit for the shape of a tail. Below it maximum likelihood fails (Smith, Biometrika 72,
1985): the tail would end at the highest value."""
_TINY = 1e-12
_MOST = float(np.finfo(np.float32).max)


class Conformal:
    """p-values and thresholds for one kind of value, from held-out normal images by product.

    >>> values = {"bolt": np.arange(1.0, 20.0)}
    >>> conformal = Conformal(values, log_score_stats(values))
    >>> conformal.p_value(19.5, "bolt"), conformal.threshold(0.05, "bolt")
    (0.05, (19.0, 'product'))

    Args:
        values: (n,) for each product, n >= 0: float32 numbers of at least 0.
        log_score_stats: mean and standard deviation of the log value by product, as the function
            `log_score_stats` returns them.
        tail: whether a fitted tail gives thresholds for rates below 1 / (N + 1).
    """

    def __init__(
        self,
        values: Mapping[str, np.ndarray],
        log_score_stats: Mapping[str, tuple[float, float]],
        tail: bool = False,
    ) -> None:
        self.values = {k: np.sort(np.asarray(v, np.float64)) for k, v in values.items()}
        self.log_score_stats = log_score_stats
        self.tail = tail

    def smallest_rate(self, product: str | None = None) -> float:
        """Return the smallest false-alarm rate that the images of a product allow; None: the
        smallest that is possible for every product."""
        if product is None:
            return 1 / (1 + sum(map(len, self.values.values())))
        return 1 / (1 + len(self.values[product]))

    def standardise(self, value: float, product: str) -> float:
        """Return the z-score of the log value, by the product's mean and standard deviation."""
        return float(self._standardise(np.array([value], np.float64), product)[0])

    def p_value(self, value: float, product: str) -> float | None:
        """Return the p-value of a value, in (0, 1]: small where few normal images are as high.

        It comes from the product's images. If all of them are lower, the pooled p-value of all
        products is used where that is smaller. So `p_value <= rate` and `value > threshold(rate)`
        are equivalent. None: no image of any product was held out.
        """
        if not len(self._pooled):
            return None
        values = self.values[product]
        higher = len(values) - int(np.searchsorted(values, value, side="left"))
        p = (1 + higher) / (1 + len(values))
        if higher:
            return p
        return min(p, self._pooled_p(self.standardise(value, product)))

    def p_value_from(self, value: float, product: str) -> str:
        """Return what the p-value rests on, in the words of `threshold`."""
        values = self.values[product]
        p = self.p_value(value, product)
        if p is None or p >= 1 / (1 + len(values)):
            return "product"
        return "all products" if p >= 1 / (1 + len(self._pooled)) else "tail fit"

    def threshold(self, rate: float, product: str) -> tuple[float | None, str]:
        """Return the threshold for a false-alarm rate, and which images it is based on.

        Returns:
            The value above which at most a share `rate` of normal images lie, or None if the
            images cannot guarantee the rate; its basis: `product`, `all products` or `tail fit`.
        """
        values = self.values[product]
        allowed = _allowed(rate, len(values))
        if allowed >= 1:
            return float(values[len(values) - allowed]), "product"
        limit, basis = self._pooled_threshold(rate)
        if limit is None:
            return None, basis
        return max([self._raw(limit, product), *values[-1:].tolist()]), basis

    def _pooled_threshold(self, rate: float) -> tuple[float | None, str]:
        pooled = self._pooled
        allowed = _allowed(rate, len(pooled))
        if allowed >= 1 and len(pooled):
            return float(pooled[len(pooled) - allowed]), "all products"
        if self._fit is None:
            return None, "all products"
        return max(self._fit.limit(rate), float(pooled[-1])), "tail fit"

    def _pooled_p(self, z: float) -> float:
        pooled = self._pooled
        higher = len(pooled) - int(np.searchsorted(pooled, z, side="left"))
        p = (1 + higher) / (1 + len(pooled))
        return p if higher or self._fit is None else min(p, self._fit.above(z))

    def _raw(self, limit: float, product: str) -> float:
        """Return the largest float32 number whose z-score is at most `limit`, exactly, so that
        rounding does not make threshold and p-value disagree."""

        def over(value: float) -> bool:
            return self.standardise(value, product) > limit

        return self._largest(limit, product, over)

    def _largest(self, limit: float, product: str, over: Callable[[float], bool]) -> float:
        """Return the largest float32 number for which `over`, which is monotone, does not hold. It
        is near the z-score `limit`."""
        mean, deviation = self.log_score_stats[product]
        logarithm = mean + deviation * limit
        if logarithm > np.log(_MOST) - 1e-3:
            return _MOST
        if over(0.0):
            return -_TINY
        value = np.float32(np.exp(logarithm))
        while over(float(value)):
            value = np.nextafter(value, np.float32(-1))
        while not over(float(above := np.nextafter(value, np.float32(_MOST)))):
            value = above
        return float(value)

    def _standardise(self, values: np.ndarray, product: str) -> np.ndarray:
        mean, deviation = self.log_score_stats[product]
        z: np.ndarray = (np.log(np.maximum(values, _TINY)) - mean) / deviation
        return z

    @cached_property
    def _pooled(self) -> np.ndarray:
        """z-scores of all products together, sorted."""
        z = [self._standardise(values, product) for product, values in self.values.items()]
        return np.sort(np.concatenate([np.empty(0), *z]))

    @cached_property
    def _fit(self) -> ParetoTail | None:
        return ParetoTail.fit(self._pooled) if self.tail else None


@dataclass(frozen=True)
class ParetoTail:
    """A generalised Pareto tail (Pickands, Annals of Statistics, 1975).

    Attributes:
        start: value from which it describes the distribution.
        share: of the distribution that lies beyond.
        shape, scale: of the generalised Pareto distribution.
    """

    start: float
    share: float
    shape: float
    scale: float

    @classmethod
    def fit(cls, values: np.ndarray) -> ParetoTail | None:
        """Fit the highest values of a sorted sample (n,) by maximum likelihood; None: too few
        distinct ones."""
        if len(values) < TAIL_MINIMUM:
            return None
        from scipy.stats import genpareto

        count = int(np.ceil(TAIL_SHARE * len(values)))
        start = float(values[-count - 1])
        beyond = values[-count:] - start
        if len(np.unique(beyond)) <= count // 2:
            return None
        shape, _, scale = genpareto.fit(beyond, floc=0)
        if shape < SMALLEST_SHAPE:
            shape, _, scale = genpareto.fit(beyond, fc=SMALLEST_SHAPE, floc=0)
        return cls(start, count / (len(values) + 1), float(shape), float(scale))

    def above(self, value: float) -> float:
        """Return the share of the distribution above a value beyond the start, above 0."""
        from scipy.stats import genpareto

        beyond = genpareto.sf(value - self.start, self.shape, scale=self.scale)
        return max(self.share * float(beyond), _TINY)

    def limit(self, rate: float) -> float:
        """Return the value above which a share `rate` of the distribution lies."""
        from scipy.stats import genpareto

        beyond = genpareto.isf(min(rate / self.share, 1.0), self.shape, scale=self.scale)
        return self.start + float(beyond)


def log_score_stats(values: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Compute mean and standard deviation of the logarithm of values, by product.

    The standard deviation is shrunk towards the median of all products, which counts as PRIOR
    images, in the logarithm.

    Args:
        values: (n,) for each product, n >= 1, not negative.
    """
    logs = {name: np.log(np.maximum(v, _TINY).astype(np.float64)) for name, v in values.items()}
    deviations = {name: v.std(ddof=1) for name, v in logs.items() if len(v) > 1}
    known = [d for d in deviations.values() if d > 0]
    typical = max(float(np.median(known)), 1e-6) if known else 1.0
    stats = {}
    for name, v in logs.items():
        # in the geometric mean: a product with a narrow distribution keeps it
        own = max(float(deviations.get(name, typical)), 1e-3 * typical)
        share = (len(v) - 1) / (PRIOR + len(v) - 1)
        stats[name] = (float(v.mean()), float(typical ** (1 - share) * own**share))
    return stats


def _allowed(rate: float, count: int) -> int:
    """Return the largest k with k / (count + 1) <= rate, rounded as p-values are."""
    k = int(rate * (count + 1))
    if (k + 1) / (count + 1) <= rate:
        return k + 1
    return k - (k / (count + 1) > rate)
