"""How certain a threshold is: the interval of its true rate, images that stand alone, and new
normal images that lie further from their product than the held-out ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from snl.decision.calibration import Calibration

LEVEL = 0.95
"""Share of calibrations whose true rate lies in the interval."""
_DRAWS = 100
ALONE, GAP = 4.0, 0.5
"""A held-out image stands alone from this many standard deviations above the centre of the others,
if at least this share of that lies between it and the next lower image (Dixon's r10; Dixon, Annals
of Mathematical Statistics 21, 1950)."""
CHANCE, LEAST = 0.001, 5
"""Images lie further away if that would be chance with at most this probability; the fewest images
that are compared."""


@dataclass(frozen=True)
class Alone:
    """A held-out image that lies far above all others of its product.

    Attributes:
        name: folder and name of the file, or empty.
        row: in the calibration set.
        score, next_score: of the image, and of the highest one below it.
        threshold, threshold_without: of anomalous, with and without the image; None: too few.
    """

    name: str
    row: int
    score: float
    next_score: float
    threshold: float | None
    threshold_without: float | None


@dataclass(frozen=True)
class Further:
    """New normal images that lie further from their product than the held-out ones.

    Attributes:
        product: that they show.
        images: how many.
        distance, held_out: median distances to the nearest prototype, of the new and of the
            held-out images.
        p_value: one-sided, of the Mann-Whitney test.
    """

    product: str
    images: int
    distance: float
    held_out: float
    p_value: float

    def __str__(self) -> str:
        return (
            f"{self.product}: {self.images} normal images lie further from the product than the "
            f"held-out ones do (median distance {self.distance:.3g} instead of "
            f"{self.held_out:.3g}, p {self.p_value:.1g}): light, camera or parts have changed "
            "since the training images were taken"
        )


def true_rate_interval(
    calibration: Calibration, product: str, rate: float, images: int | None = None
) -> tuple[float, float] | None:
    """Return the range of true rates of 95 % of calibrations like this one.

    For a threshold that is guaranteed by the product's own n images it is exact: with
    k = floor(rate (n + 1)) the true rate has a beta distribution, Beta(k, n + 1 - k). For the
    shared tail it is that of the rates of thresholds from other draws of all held-out images, drawn
    with replacement (bootstrap; Efron, Annals of Statistics 7, 1979), an estimate: it does not
    contain that the product's tail may differ from that of the others. None: the threshold rests on
    something else, or there is none.

    Args:
        calibration: in force.
        product: a known one.
        rate: nominal.
        images: how many held-out images to suppose; None: as many as there are.
    """
    count = len(calibration.sets[product])
    supposed = count if images is None else images
    scores = calibration.scores
    threshold, basis = scores.threshold(rate, product)
    if threshold is None:
        return None
    if basis == "product":
        from scipy.special import betaincinv  # scipy.stats takes a second to import

        allowed = int(rate * (supposed + 1) + 1e-9)
        levels = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        ends = betaincinv(allowed, supposed + 1 - allowed, levels)
        return float(ends[0]), float(ends[1])
    if basis != "shared tail" or count < 3:
        return None
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(_DRAWS):
        limit, _ = scores.drawn_again(product, supposed, rng).threshold(rate, product)
        p = scores.p_value(limit, product) if limit is not None else None
        rates.append(p if p is not None else 0.0)
    low, high = np.quantile(rates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def stand_alone(calibration: Calibration, product: str) -> list[Alone]:
    """Return the held-out images of a product that lie far above all others, highest first.

    At most one in five images, so that a second kind of normal part is not called an outlier.
    """
    data = calibration.sets[product]
    if len(data) < 5:
        return []
    rate = calibration.rates_for(product).anomalous
    found: list[Alone] = []
    left = np.arange(len(data))
    while len(found) < len(data) // 5:
        scores = data.scores[left]
        residuals = calibration.with_sets({product: data.select(left)}).scores.residuals(product)
        highest, gap = float(residuals[-1]), _gap(scores, calibration, product)
        if highest < ALONE or gap < GAP:
            break
        top = int(left[scores.argmax()])
        left = left[left != top]
        without = calibration.with_sets({product: data.select(left)})
        found.append(
            Alone(
                str(data.names[top]),
                top,
                float(data.scores[top]),
                float(data.scores[left].max()),
                calibration.scores.threshold(rate, product)[0],
                without.scores.threshold(rate, product)[0],
            )
        )
    return found


def lie_further(calibration: Calibration, distances: Mapping[str, np.ndarray]) -> list[Further]:
    """Return the products whose new normal images lie further away than the held-out ones.

    Such images tell that the calibration is not of the images that are inspected now, even where
    their scores are as before. The test is that of Mann and Whitney (Annals of Mathematical
    Statistics 18, 1947).

    Args:
        calibration: in force.
        distances: by product, (n,) of new normal images to the nearest prototype.
    """
    from scipy.stats import mannwhitneyu

    found = []
    for product, new in distances.items():
        held = calibration.sets[product].distances
        if min(len(new), len(held)) < LEAST:
            continue
        p = float(mannwhitneyu(new, held, alternative="greater").pvalue)
        if p <= CHANCE:
            medians = float(np.median(new)), float(np.median(held))
            found.append(Further(product, len(new), *medians, p))
    return found


def _gap(scores: np.ndarray, calibration: Calibration, product: str) -> float:
    """Return which share of the reach of log scores, from median to maximum, is the last gap."""
    z = np.sort([calibration.scores.standardise(float(s), product) for s in scores])
    reach = float(z[-1] - np.median(z))
    return float(z[-1] - z[-2]) / reach if reach > 0 else 0.0
