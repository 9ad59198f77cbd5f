"""Thresholds from the scores of normal images that training did not see.

Split conformal prediction (Vovk et al., Algorithmic Learning in a Random World, 2005): with n held
back normal scores, the k-th smallest, k = ceil((n + 1)(1 - alpha)), is exceeded by a new normal
image with probability at most alpha. With n scores the smallest rate that can be promised is
1 / (n + 1); there is no extrapolation below it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

DEFAULT_RATE = 0.05


def conformal_threshold(scores: np.ndarray, rate: float = DEFAULT_RATE) -> float | None:
    """The score above which at most a share `rate` of normal images lie.

    Args:
        scores: (n,) of normal images that training did not see.
        rate: false-alarm rate in 0..1.

    Returns:
        The threshold, or None where n is too small for the rate (n < 1 / rate - 1).
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    k = math.ceil(round((len(ordered) + 1) * (1 - rate), 9))
    return float(ordered[k - 1]) if 1 <= k <= len(ordered) else None


def threshold(
    scores: Mapping[str, np.ndarray], product: str | None = None, rate: float = DEFAULT_RATE
) -> tuple[float | None, str]:
    """Threshold of one product where its own scores suffice for the rate, of all pooled else.

    Returns:
        The threshold (None: too few scores even pooled) and whose scores gave it: `product` or
        `all products`.
    """
    if product is not None and product in scores:
        own = conformal_threshold(scores[product], rate)
        if own is not None:
            return own, "product"
    pooled = np.concatenate([np.empty(0), *scores.values()])
    return conformal_threshold(pooled, rate), "all products"
