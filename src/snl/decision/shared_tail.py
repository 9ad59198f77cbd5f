"""p-values and thresholds from a product's own centre and the tail of all products' scores.

With few held-out images the threshold of a small false-alarm rate is one of the highest of them, and
so varies greatly from one draw of images to the next. Here a product's own images determine only
where its scores lie, which few images do well; how far normal scores reach above that is learned from
the images of all products. In detail, with z-scores of log scores (mean and standard deviation of the
product's training images) and the n held-out images of each product:

1. The centre of a product is Huber's M-estimate of location of its z-scores (Huber, Annals of
   Mathematical Statistics 35, 1964), so that an outlier hardly moves it.
2. The residual of a held-out image is its z-score minus the centre of the *other* images of its
   product: what a new image would have. Its spread is 1 + a / (n - 1) times that of one score, since
   the centre is uncertain, too; residuals are divided by the square root of that and multiplied by
   that of a new image, 1 + a / n.
3. A product's tail is the weighted sample of all residuals: its own images count 1 each, those of the
   other products `OTHERS` together. So the own images prevail where there are hundreds of them.
4. The p-value is the share of that sample, the new image counted, that lies above; between two
   residuals it is interpolated, so that 38 images allow 5 % and not only 1 in 39 or 2 in 39.

The rate is measured, not guaranteed: it holds for a product whose residuals are distributed like those
of the other products, and approaches the truth for any product as its own images become many.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from snl.decision.conformal import Conformal

OTHERS = 50.0
"""Weight, in images, of the residuals of all other products together."""
BEND = 1.5
"""Where Huber's estimate begins to bound an image's influence, in standard deviations."""
CENTRE_VARIANCE = 1.1
"""Variance of the centre, in units of that of the mean: Huber's estimate on Gaussian scores."""
_ITERATIONS = 100


class SharedTail(Conformal):
    """p-values and thresholds for one kind of value; see the module. For the arguments see
    `Conformal`, which decides for products without held-out images.

    >>> rng = np.random.default_rng(0)
    >>> values = {name: np.exp(rng.normal(size=20)) for name in ("bolt", "nut")}
    >>> shared = SharedTail(values, {"bolt": (0.0, 1.0), "nut": (0.0, 1.0)})
    >>> limit, basis = shared.threshold(0.05, "bolt")
    >>> basis, shared.p_value(limit, "bolt") > 0.05, shared.p_value(1.0001 * limit, "bolt") > 0.05
    ('shared tail', True, False)
    """

    def smallest_rate(self, product: str | None = None) -> float:
        """Return the smallest false-alarm rate that the images allow for a product; None: for any
        product."""
        names = [product] if product else list(self.values)
        rates = [self._tails[name].smallest for name in names if name in self._tails]
        return min(rates) if rates else super().smallest_rate(product)

    def p_value(self, value: float, product: str) -> float | None:
        """Return the share of normal images, in (0, 1], whose value is estimated to be at least as
        high; None: no image of any product was held out."""
        tail = self._tails.get(product)
        if tail is None:
            return super().p_value(value, product)
        p = tail.above(self.standardise(value, product))
        if p > tail.smallest or self._fit is None:
            return p
        return min(p, self._pooled_p(self.standardise(value, product)))

    def threshold(self, rate: float, product: str) -> tuple[float | None, str]:
        """Return the value above which a share `rate` of normal images is estimated to lie; None if
        there are too few images. The basis is `shared tail`, or as for `Conformal`."""
        tail = self._tails.get(product)
        if tail is None:
            return super().threshold(rate, product)
        if rate >= tail.smallest:
            return self._highest(tail.limit(rate), rate, product), "shared tail"
        limit, basis = self._pooled_threshold(rate)
        if basis != "tail fit" or limit is None:
            return None, "shared tail"
        return self._highest(max(limit, tail.highest), rate, product), basis

    def centre(self, product: str) -> float | None:
        """Return the centre of a product's scores as a z-score; None: no image was held out."""
        tail = self._tails.get(product)
        return tail.centre if tail else None

    def _highest(self, limit: float, rate: float, product: str) -> float:
        """Return the largest float32 number whose p-value exceeds the rate; it is about at z-score
        `limit`. So `p_value <= rate` and `value > threshold` are equivalent."""

        def over(value: float) -> bool:
            p = self.p_value(value, product)
            return p is not None and p <= rate

        return self._largest(limit, product, over)

    @cached_property
    def _tails(self) -> dict[str, _Tail]:
        scores = {name: self._standardise(v, name) for name, v in self.values.items() if len(v)}
        centres = {name: centre(z) for name, z in scores.items()}
        residuals = {
            name: left_out_residuals(z, centres[name])
            / np.sqrt(1 + CENTRE_VARIANCE / max(len(z) - 1, 1))
            for name, z in scores.items()
        }
        total = sum(map(len, residuals.values()))
        tails = {}
        for name, own in residuals.items():
            others = [r for other, r in residuals.items() if other != name]
            count = total - len(own)
            weight = min(1.0, OTHERS / count) if count else 0.0
            sample = np.concatenate([own, *others])
            if not len(sample):
                continue
            weights = np.concatenate([np.ones(len(own)), np.full(count, weight)])
            spread = float(np.sqrt(1 + CENTRE_VARIANCE / len(scores[name])))
            tails[name] = _Tail(sample * spread, weights, centres[name])
        return tails


class _Tail:
    """The weighted sample of residuals of one product around its centre.

    Attributes:
        centre: of the product's z-scores.
        smallest: the smallest p-value.
        highest: the z-score above which the p-value is the smallest.
    """

    def __init__(self, residuals: np.ndarray, weights: np.ndarray, centre: float) -> None:
        order = np.argsort(residuals)
        self.centre = centre
        values, weights = residuals[order] + centre, weights[order]
        # a new image counts as much as an image of the sample does, weighted by its weight
        new = float(np.square(weights).sum() / weights.sum())
        total = float(weights.sum()) + new
        above = np.cumsum(weights[::-1])[::-1]  # of each value and all higher ones
        self._values, first = np.unique(values, return_index=True)
        beyond = np.append(above[first][1:], 0.0)
        # equal values: the p-value of one of them, and that just above them
        self._at = (above[first] - weights[first] + new) / total
        self._after = (beyond + new) / total
        self.smallest = new / total
        self.highest = float(self._values[-1])

    def above(self, z: float) -> float:
        """Return the p-value of a z-score, in (0, 1]."""
        i = int(np.searchsorted(self._values, z, side="left"))
        if i == len(self._values):
            return self.smallest
        if not i:
            return 1.0 if z < self._values[0] else float(min(self._at[0], 1.0))
        low, high = self._values[i - 1], self._values[i]
        share = (z - low) / (high - low)
        return float(self._after[i - 1] + share * (self._at[i] - self._after[i - 1]))

    def limit(self, rate: float) -> float:
        """Return about the z-score at which the p-value falls to a rate."""
        i = int(np.argmax(self._after <= rate))  # the first value that is high enough
        if not i or self._at[i] > rate:
            return float(self._values[i])
        low, high = self._values[i - 1], self._values[i]
        drop = self._after[i - 1] - self._at[i]
        share = (self._after[i - 1] - rate) / drop if drop > 0 else 1.0
        return float(low + min(max(share, 0.0), 1.0) * (high - low))


def centre(z: np.ndarray) -> float:
    """Return Huber's M-estimate of location of z-scores (n,), n >= 1, whose scale is 1."""
    m = float(np.median(z))
    for _ in range(_ITERATIONS):
        step = float(np.clip(z - m, -BEND, BEND).mean())
        m += step
        if abs(step) < 1e-9:
            break
    return m


def left_out_residuals(z: np.ndarray, m: float) -> np.ndarray:
    """Return each z-score minus the centre of the others, to first order; empty for n = 1.

    Without image i the estimate moves by -psi(z_i - m) / sum_j psi'(z_j - m), j other than i.
    """
    if len(z) < 2:
        return np.empty(0)
    d = z - m
    inside = (np.abs(d) <= BEND).astype(np.float64)
    slopes = np.maximum(inside.sum() - inside, 1.0)
    moved: np.ndarray = d + np.clip(d, -BEND, BEND) / slopes
    return moved
