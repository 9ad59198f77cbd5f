"""p-values and thresholds from a product's own centre and the tail of all products' scores.

With few held-out images the threshold of a small false-alarm rate is one of the highest of them,
and so varies greatly from one draw of images to the next. Here a product's own images determine
only where its scores lie, which few images do well; how far normal scores reach above that is
learned from the images of all products. In detail, with z-scores of log scores (mean and standard
deviation of the product's training images) and the n held-out images of each product:

1. The centre of a product is Huber's M-estimate of location of its z-scores (Huber, Annals of
   Mathematical Statistics 35, 1964), so that an outlier hardly moves it.
2. The residual of a held-out image is its z-score minus the centre of the *other* images of its
   product: what a new image would have. The centre is uncertain, so the variance of a residual is
   1 + a / (n - 1) times that of a score; residuals are divided by its root, and multiplied by that
   of a new image, 1 + a / n.
3. A product's tail is the weighted sample of all residuals: its own images count 1 each, those of
   the other products `OTHERS` together. So its own images prevail where there are hundreds of them.
4. The p-value is the share of that sample, the new image counted, that lies above; between two
   residuals it is interpolated, so that 38 images allow 5 % and not only 1 in 39 or 2 in 39.

The rate is measured, not guaranteed: it holds for a product whose residuals are distributed like
those of the other products, and for any product as its own images become many.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property

import numpy as np

from snl.decision.conformal import Conformal, ParetoTail

OTHERS = 50.0
"""Weight, in images, of the residuals of all other products together."""
BEND = 1.5
"""Where Huber's estimate begins to bound an image's influence, in standard deviations."""
CENTRE_VARIANCE = 1.1
"""Variance of the centre, in units of that of the mean: Huber's estimate on Gaussian scores."""
_ITERATIONS = 100
_OTHERS = "\0others"
"""In place of the name of a product, which cannot contain the null character."""


class SharedTail(Conformal):
    """p-values and thresholds for one kind of value; see the module.

    Args:
        values, log_score_stats, tail: as for `Conformal`.
        conformal: products that are decided by their own images alone, as `Conformal` does. So are
            products without held-out images.

    >>> rng = np.random.default_rng(0)
    >>> values = {name: np.exp(rng.normal(size=20)) for name in ("bolt", "nut")}
    >>> shared = SharedTail(values, {"bolt": (0.0, 1.0), "nut": (0.0, 1.0)})
    >>> limit, basis = shared.threshold(0.05, "bolt")
    >>> basis, shared.p_value(limit, "bolt") > 0.05, shared.p_value(1.0001 * limit, "bolt") > 0.05
    ('shared tail', True, False)
    """

    def __init__(
        self,
        values: Mapping[str, np.ndarray],
        log_score_stats: Mapping[str, tuple[float, float]],
        tail: bool = False,
        conformal: Collection[str] = (),
    ) -> None:
        super().__init__(values, log_score_stats, tail)
        self.conformal = frozenset(conformal)
        self._tails: dict[str, _Tail | None] = {}
        self._centres: dict[str, float] = {}
        self._drawn_from: tuple[str, tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None

    def smallest_rate(self, product: str | None = None) -> float:
        """Return the smallest false-alarm rate that the images allow for a product; None: the
        smallest that is possible for every product."""
        if product is None:
            pooled = super().smallest_rate()
            tails = [self._tail(name) for name in self.values]
            return max((tail.smallest if tail else pooled for tail in tails), default=pooled)
        tail = self._tail(product)
        return tail.smallest if tail else super().smallest_rate(product)

    def p_value(self, value: float, product: str) -> float | None:
        """Return the share of normal images, in (0, 1], whose value is estimated to be at least as
        high; None: no image of any product was held out."""
        tail = self._tail(product)
        if tail is None:
            return super().p_value(value, product)
        residual = (self.standardise(value, product) - tail.centre) / tail.spread
        p = tail.above(residual)
        if p > tail.smallest or self._residual_fit is None:
            return p
        return min(p, self._residual_fit.above(residual))

    def p_value_from(self, value: float, product: str) -> str:
        """Return what the p-value rests on, in the words of `threshold`."""
        tail = self._tail(product)
        if tail is None:
            return super().p_value_from(value, product)
        p = self.p_value(value, product)
        return "shared tail" if p is None or p >= tail.smallest else "tail fit"

    def threshold(self, rate: float, product: str) -> tuple[float | None, str]:
        """Return the value above which a share `rate` of normal images is estimated to lie; None if
        there are too few images. The basis is `shared tail`, or as for `Conformal`."""
        tail = self._tail(product)
        if tail is None:
            return super().threshold(rate, product)
        basis = "shared tail"
        if rate >= tail.smallest:
            residual = tail.limit(rate)
        elif self._residual_fit is None:
            return None, basis
        else:
            basis, residual = "tail fit", max(self._residual_fit.limit(rate), tail.highest)

        def over(value: float) -> bool:
            p = self.p_value(value, product)
            return p is not None and p <= rate

        return self._largest(tail.centre + tail.spread * residual, product, over), basis

    def residuals(self, product: str) -> np.ndarray:
        """Return how far each held-out image lies above the centre of the others, float64 (n,), in
        standard deviations of training images and in the order of `values`; empty for n < 2."""
        z = self._standardise(self.values[product], product)
        return left_out_residuals(z, self._centre(product)) if len(z) else np.empty(0)

    def drawn_again(self, product: str, images: int, rng: np.random.Generator) -> SharedTail:
        """Return a copy for one product alone, with values drawn from these with replacement, as
        for a bootstrap.

        Args:
            product: that is decided by the shared tail. Its values are drawn; of every other
                product only the residuals are.
            images: how many values of the product are drawn, at least 1.
            rng: source of randomness.
        """
        values = rng.choice(self.values[product], images)
        stats = {product: self.log_score_stats[product]}
        copy = SharedTail({product: values}, stats, self.tail, self.conformal)
        others, first, count = self._others(product)
        drawn = others[first + (rng.random(len(others)) * count).astype(np.intp)]
        copy._residuals = {_OTHERS: drawn} | copy._residuals_of(product)
        return copy

    def _others(self, product: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the residuals of the other products (N,) and, for each of them, where those of its
        product begin and how many they are."""
        if self._drawn_from is None or self._drawn_from[0] != product:
            groups = [r for name, r in self._residuals.items() if name != product]
            counts = np.array([len(group) for group in groups], np.intp)
            first = np.repeat(np.cumsum(counts) - counts, counts)
            found = np.concatenate([np.empty(0), *groups]), first, np.repeat(counts, counts)
            self._drawn_from = product, found
        return self._drawn_from[1]

    def _centre(self, product: str) -> float:
        """Return the centre of a product's z-scores."""
        if product not in self._centres:
            self._centres[product] = centre(self._standardise(self.values[product], product))
        return self._centres[product]

    @cached_property
    def _residuals(self) -> dict[str, np.ndarray]:
        residuals: dict[str, np.ndarray] = {}
        for product in self.values:
            residuals |= self._residuals_of(product)
        return residuals

    def _residuals_of(self, product: str) -> dict[str, np.ndarray]:
        """Return a product's residuals, scaled to the spread of a score around its true centre."""
        count = len(self.values[product])
        return {product: self.residuals(product) / spread(count - 1)} if count > 1 else {}

    def _tail(self, product: str) -> _Tail | None:
        """Return a product's tail; None: it is decided as `Conformal` does."""
        if product not in self._tails:
            self._tails[product] = self._make_tail(product)
        return self._tails[product]

    def _make_tail(self, product: str) -> _Tail | None:
        values, total = self.values[product], sum(map(len, self._residuals.values()))
        if not len(values) or not total or product in self.conformal:
            return None
        own = self._residuals.get(product, np.empty(0))
        others = [r for name, r in self._residuals.items() if name != product]
        count = total - len(own)
        weight = min(1.0, OTHERS / count) if count else 0.0
        return _Tail(
            np.concatenate([own, *others]),
            np.concatenate([np.ones(len(own)), np.full(count, weight)]),
            self._centre(product),
            spread(len(values)),
        )

    @cached_property
    def _residual_fit(self) -> ParetoTail | None:
        if not self.tail:
            return None
        return ParetoTail.fit(np.sort(np.concatenate(list(self._residuals.values()))))


def spread(images: int) -> float:
    """Return the standard deviation of a score around a centre that was estimated from this many
    other images, at least 1, in those of a score around its true centre."""
    return float(np.sqrt(1 + CENTRE_VARIANCE / images))


class _Tail:
    """The weighted sample of residuals of one product around its centre.

    Args:
        residuals, weights: (N,), N >= 1.
        centre: of the product's z-scores.
        spread: see the function.

    Attributes:
        smallest: the smallest p-value.
        highest: the residual above which the p-value is the smallest.
    """

    def __init__(
        self, residuals: np.ndarray, weights: np.ndarray, centre: float, spread: float
    ) -> None:
        self.centre, self.spread = centre, spread
        order = np.argsort(residuals)
        values, weights = residuals[order], weights[order]
        new = float(weights.mean())  # the new image counts as the others do on average
        total = float(weights.sum()) + new
        above = np.cumsum(weights[::-1])[::-1]  # of each value and all higher ones
        self._values, first = np.unique(values, return_index=True)
        beyond = np.append(above[first][1:], 0.0)
        # equal values: the p-value of one of them, and that just above them
        self._at = (above[first] - weights[first] + new) / total
        self._after = (beyond + new) / total
        self.smallest = new / total
        self.highest = float(self._values[-1])

    def above(self, residual: float) -> float:
        """Return the p-value of a residual, in (0, 1]."""
        i = int(np.searchsorted(self._values, residual, side="left"))
        if i == len(self._values):
            return self.smallest
        if not i:
            return 1.0 if residual < self._values[0] else float(min(self._at[0], 1.0))
        low, high = self._values[i - 1], self._values[i]
        share = (residual - low) / (high - low)
        return float(self._after[i - 1] + share * (self._at[i] - self._after[i - 1]))

    def limit(self, rate: float) -> float:
        """Return about the residual at which the p-value falls to a rate."""
        i = int(np.argmax(self._after <= rate))  # the first value that is high enough
        if not i or self._at[i] > rate:
            return float(self._values[i])
        low, high = self._values[i - 1], self._values[i]
        drop = self._after[i - 1] - self._at[i]
        share = (self._after[i - 1] - rate) / drop if drop > 0 else 1.0
        return float(low + min(max(share, 0.0), 1.0) * (high - low))


def centre(z: np.ndarray) -> float:
    """Return Huber's M-estimate of location of z-scores (n,), n >= 1, whose scale is 1."""
    ordered = np.sort(z)  # np.median takes five times as long for so few values
    m = float(ordered[(len(z) - 1) // 2] + ordered[len(z) // 2]) / 2
    for _ in range(_ITERATIONS):
        # np.clip and np.mean take twice the time for so few values
        step = float(np.minimum(np.maximum(z - m, -BEND), BEND).sum()) / len(z)
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
