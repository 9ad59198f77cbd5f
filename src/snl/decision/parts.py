"""One decision for a part that several images show.

The p-value of a part with V views is min(1, V * the smallest p-value of its views): Bonferroni's
inequality. A normal part has p <= alpha with probability at most alpha, however the views depend on
each other, in two cases:

- Each view is a product of its own, and its p-values are valid.
- The views are images of one product, and whole parts are held out, each with V images, m parts
  with n = mV images in all. If k of them have an image whose score is at least the highest score of
  the new part, then V * p = V (1 + number of such images) / (n + 1) >= (1 + k) / (m + 1), which is
  the p-value of the highest score among whole parts. So views of one part need not be independent
  among the held-out images either.

The smallest p-value of a part is V / (n + 1): a rate alpha needs V / alpha - 1 held-out images, of
the product or of all products together. A calibration by the highest scores of held-out parts would
need 1 / alpha - 1 parts, but a calibration does not store which images show one part.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from snl.decision.calibration import Calibration, Rates, images_needed
from snl.decision.inspection import ANOMALOUS, NORMAL, UNCERTAIN, UNKNOWN, Verdict


@dataclass(frozen=True)
class PartDecision:
    """The decision on one part, and what it is based on.

    Attributes:
        part: its name; for an image that belongs to no part, the image's.
        decision: `anomalous` if the p-value is at most the rate; else `unknown product` if a view
            is; else `uncertain` if the p-value is at most the uncertain rate, or if nothing else
            can be said: a view could not be read, or has too few held-out images; else `normal`.
        p_value: see the module; views of unknown products count for V only. None: no view of a
            known product, or no held-out image.
        rate, uncertain_rate: the smallest ones of the products that the views show.
        score: highest calibrated score of a view; None: no view could be read.
        worst: name of the view with the smallest p-value; the highest calibrated score among equal
            ones.
        views: name and verdict of every image that was read.
        unreadable: number of images that could not be read.
    """

    part: str
    decision: str
    p_value: float | None
    rate: float
    uncertain_rate: float
    score: float | None
    worst: str | None
    views: tuple[tuple[str, Verdict], ...] = field(repr=False)
    unreadable: int = 0

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the products that the views show, sorted."""
        return tuple(sorted({verdict.product for _, verdict in self.views}))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, with a short list of the views."""
        return {
            "part": self.part,
            "decision": self.decision,
            "p_value": self.p_value,
            "rate": self.rate,
            "uncertain_rate": self.uncertain_rate,
            "score": self.score,
            "worst": self.worst,
            "products": list(self.products),
            "unreadable": self.unreadable,
            "views": [
                {
                    "path": name,
                    "product": verdict.product,
                    "decision": verdict.decision,
                    "p_value": verdict.p_value,
                    "calibrated": verdict.calibrated,
                }
                for name, verdict in self.views
            ],
        }


def decide_part(
    part: str,
    views: Sequence[tuple[str, Verdict]],
    calibration: Calibration,
    rates: Rates | None = None,
    unreadable: int = 0,
) -> PartDecision:
    """Decide on one part by the verdicts on its views; see `PartDecision`.

    Args:
        part: its name.
        views: name and verdict of each image that was read, of any products.
        calibration: by which the verdicts were made.
        rates: instead of those of the calibration.
        unreadable: number of images of the part that could not be read.
    """
    in_force = [rates or calibration.rates_for(verdict.product) for _, verdict in views]
    in_force = in_force or [rates or calibration.rates]
    rate = min(each.anomalous for each in in_force)
    uncertain_rate = min(each.uncertain for each in in_force)
    known = [(name, v) for name, v in views if v.decision != UNKNOWN and v.p_value is not None]
    worst = min(known, key=lambda view: (view[1].p_value, -view[1].calibrated), default=None)
    p = None
    if worst is not None and worst[1].p_value is not None:
        # 12 digits, because rounding must not separate V * p from a rate that it equals
        p = min(1.0, float(f"{len(views) * worst[1].p_value:.12g}"))
    if p is not None and p <= rate:
        decision = ANOMALOUS
    elif any(verdict.decision == UNKNOWN for _, verdict in views):
        decision = UNKNOWN
    elif p is None or unreadable or p <= uncertain_rate:
        decision = UNCERTAIN
    else:
        products = {verdict.product for _, verdict in views}
        sufficient = all(allows(calibration, rate, len(views), product) for product in products)
        decision = NORMAL if sufficient else UNCERTAIN
    return PartDecision(
        part=part,
        decision=decision,
        p_value=p,
        rate=rate,
        uncertain_rate=uncertain_rate,
        score=max((verdict.calibrated for _, verdict in views), default=None),
        worst=worst[0] if worst else None,
        views=tuple(views),
        unreadable=unreadable,
    )


def allows(calibration: Calibration, rate: float, views: int, product: str) -> bool:
    """Return whether the held-out images suffice to call a part anomalous by a view of a product.

    Args:
        calibration: with the held-out images.
        rate: false-alarm rate of parts.
        views: number of views of the part.
        product: that the view shows.
    """
    share = rate / views * (1 + 1e-12)  # not to be rounded below what the images just allow
    return calibration.scores.threshold(share, product)[0] is not None


def part_images_needed(rate: float, views: int) -> int:
    """Return how many held-out images a rate of parts needs."""
    return images_needed(rate / views)


class PartTracker:
    """Decides on each part as soon as all its images have been seen, in whatever order they come.

    Only verdicts of parts that are not complete are kept.

    Args:
        parts: the part of each image, in the order of the images; empty: a part of its own.
        names: of the images.
        calibration: by which the verdicts are made.
        rates: instead of those of the calibration.
    """

    def __init__(
        self,
        parts: Sequence[str],
        names: Sequence[str],
        calibration: Calibration,
        rates: Rates | None = None,
    ) -> None:
        self._names = names
        self._keys: list[str | int] = [part or number for number, part in enumerate(parts)]
        self._missing = Counter(self._keys)
        self._views: dict[str | int, list[tuple[str, Verdict]]] = defaultdict(list)
        self._unreadable: Counter[str | int] = Counter()
        self._calibration, self._rates = calibration, rates
        self._next = 0

    def add(self, index: int, verdict: Verdict) -> list[PartDecision]:
        """Return the decisions on the parts that are complete with the next image.

        Args:
            index: of the image, larger than before; images that are left out were not readable.
            verdict: on it.
        """
        decided = self._leave_out(index)
        key = self._keys[index]
        self._views[key].append((self._names[index], verdict))
        self._next = index + 1
        return decided + self._seen(key)

    def finish(self) -> list[PartDecision]:
        """Return the decisions on the remaining parts after the last image."""
        return self._leave_out(len(self._keys))

    @property
    def waiting(self) -> int:
        """Number of parts that are not decided."""
        return len(self._missing)

    def _leave_out(self, end: int) -> list[PartDecision]:
        decided = []
        for key in self._keys[self._next : end]:
            self._unreadable[key] += 1
            decided += self._seen(key)
        self._next = max(self._next, end)
        return decided

    def _seen(self, key: str | int) -> list[PartDecision]:
        self._missing[key] -= 1
        if self._missing[key]:
            return []
        del self._missing[key]
        name = key if isinstance(key, str) else self._names[key]
        views, unreadable = self._views.pop(key, []), self._unreadable.pop(key, 0)
        return [decide_part(name, views, self._calibration, self._rates, unreadable)]
