"""Share of anomalous images that are detected: by the decisions, and at most by the scores.

The decisions use thresholds from held-out normal images. The thresholds here are quantiles of the
scores of the *test* normals, so they know the labels of the test images: no threshold on the score
of a product detects more with as few false alarms on these images, and no calibration can know it.
What is missing at the quantile is missing in the scores; the rest is up to calibration and rates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from snl.decision.inspection import ANOMALOUS, UNCERTAIN, UNKNOWN
from snl.evaluation.image_score import ImageScore
from snl.text_table import aligned

RATES = {"at_1": 0.01, "at_5": 0.05}
"""Shares of the normal test images of a product that may be false alarms, by the name of their
attribute."""
MAX_ROWS = 40
"""A table with kinds of defects is printed unasked if it has no more rows."""


@dataclass(frozen=True)
class QuantileThreshold:
    """The smallest threshold that allows a share of false alarms on the normal test images.

    Attributes:
        threshold: a score of a normal test image; scores strictly above are false alarms or
            detections. None for all products together: each has its own.
        false_alarms: number of normal test images above it. Less than the share allows where
            scores are equal.
        resolved: whether the share allows at least one false alarm. If not, there are fewer than
            1 / share normal images, and the threshold is the highest normal score: what is detected
            is detected without any false alarm on these images. For all products: whether it is so
            for each.
    """

    threshold: float | None
    false_alarms: int
    resolved: bool


@dataclass(frozen=True)
class Detected:
    """Shares of anomalous images, 0..1; None where undefined.

    Attributes:
        n: number of images.
        decided: called anomalous by the decisions; None without images or calibration.
        uncertain, unknown: called uncertain, or an unknown product: not passed as normal either.
        at_1, at_5: with a score strictly above the threshold of their product at 1 % and 5 % false
            alarms; None without images, or without normal test images of the product.
        n_compared: number of images that `at_1` and `at_5` rest on: those of products with normal
            test images.
    """

    n: int
    decided: float | None
    uncertain: float | None
    unknown: float | None
    at_1: float | None
    at_5: float | None
    n_compared: int


@dataclass(frozen=True)
class ProductRates:
    """False alarms and detections of one product, or of all of them.

    Attributes:
        n_normal: number of normal test images.
        false_alarms: share of them that the decisions call anomalous; None without normal images
            or calibration.
        at_1, at_5: thresholds at 1 % and 5 % false alarms; None without normal test images.
        anomalous: of all anomalous images.
        kinds: of each kind of defect, by name; empty text where the data set does not name it.
            Empty for all products together: equal names may stand for different defects.
    """

    n_normal: int
    false_alarms: float | None
    at_1: QuantileThreshold | None
    at_5: QuantileThreshold | None
    anomalous: Detected
    kinds: Mapping[str, Detected] = field(default_factory=dict)


@dataclass(frozen=True)
class DetectionRates:
    """What decisions and scores detect.

    Attributes:
        products: by name.
        overall: of all images, each compared with the threshold of its own product.
    """

    products: Mapping[str, ProductRates]
    overall: ProductRates

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values, with the names of the attributes."""
        return asdict(self)


def quantile_threshold(normal: ArrayLike, rate: float) -> QuantileThreshold | None:
    """Return the smallest threshold with at most a share of the normal scores strictly above it.

    Nothing is interpolated: of n scores, at most k = floor(rate * n) may be above, so it is the
    (k + 1)-th highest score.

    Args:
        normal: (n,) scores of normal test images, compared as float32.
        rate: the share, at least 0 and below 1.

    Returns:
        The threshold; None without scores.
    """
    scores = np.sort(np.asarray(normal, np.float32).ravel())
    if not scores.size:
        return None
    allowed = int(rate * scores.size + 1e-9)  # 0.07 * 100 is 7.000000000000001, 0.29 * 100 below 29
    threshold = scores[scores.size - 1 - allowed]
    above = int(np.count_nonzero(scores > threshold))
    return QuantileThreshold(float(threshold), above, allowed > 0)


def detection_rates(scores: Iterable[ImageScore]) -> DetectionRates:
    """Return what decisions and scores detect, by product and by kind of defect."""
    by_product: dict[str, list[ImageScore]] = defaultdict(list)
    for image in scores:
        by_product[image.product].append(image)
    products: dict[str, ProductRates] = {}
    every: list[_Compared] = []
    for name in sorted(by_product):
        images = by_product[name]
        normal = [image.score for image in images if image.label == "normal"]
        thresholds = {key: quantile_threshold(normal, rate) for key, rate in RATES.items()}
        compared = [_compare(image, thresholds) for image in images]
        products[name] = _rates(compared, thresholds, by_kind=True)
        every += compared
    return DetectionRates(products, _rates(every, _sums(products.values()), by_kind=False))


@dataclass(frozen=True)
class _Compared:
    """An image, and whether its score is above the thresholds of its product, by key of RATES;
    empty without thresholds."""

    image: ImageScore
    above: Mapping[str, bool]


def _compare(image: ImageScore, thresholds: Mapping[str, QuantileThreshold | None]) -> _Compared:
    limits = {k: t.threshold for k, t in thresholds.items() if t and t.threshold is not None}
    return _Compared(image, {k: bool(np.float32(image.score) > t) for k, t in limits.items()})


def _rates(
    images: Sequence[_Compared],
    thresholds: Mapping[str, QuantileThreshold | None],
    *,
    by_kind: bool,
) -> ProductRates:
    normal = [c for c in images if c.image.label == "normal"]
    anomalous = [c for c in images if c.image.label == "anomalous"]
    kinds: dict[str, list[_Compared]] = defaultdict(list)
    for compared in anomalous if by_kind else ():
        defect = compared.image.defect
        kinds["" if defect == "good" else defect].append(compared)
    return ProductRates(
        n_normal=len(normal),
        false_alarms=_decided(normal, ANOMALOUS),
        at_1=thresholds["at_1"],
        at_5=thresholds["at_5"],
        anomalous=_detected(anomalous),
        kinds={name: _detected(kinds[name]) for name in sorted(kinds)},
    )


def _detected(images: Sequence[_Compared]) -> Detected:
    compared = [c.above for c in images if c.above]
    return Detected(
        n=len(images),
        decided=_decided(images, ANOMALOUS),
        uncertain=_decided(images, UNCERTAIN),
        unknown=_decided(images, UNKNOWN),
        at_1=_share([above["at_1"] for above in compared]),
        at_5=_share([above["at_5"] for above in compared]),
        n_compared=len(compared),
    )


def _decided(images: Sequence[_Compared], decision: str) -> float | None:
    verdicts = [c.image.verdict for c in images]
    return _share([v.decision == decision for v in verdicts if v is not None])


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _sums(products: Iterable[ProductRates]) -> dict[str, QuantileThreshold | None]:
    """Return the false alarms of all products, each at its own threshold."""
    sums: dict[str, QuantileThreshold | None] = {}
    rates = list(products)
    for key in RATES:
        known = [t for t in (getattr(product, key) for product in rates) if t is not None]
        alarms, resolved = sum(t.false_alarms for t in known), all(t.resolved for t in known)
        sums[key] = QuantileThreshold(None, alarms, resolved) if known else None
    return sums


def format_detection_rates(
    rates: DetectionRates, kinds: bool | None = None, products: Sequence[str] | None = None
) -> str:
    """Return the rates as aligned text, in percent; `-` where a rate is undefined.

    Args:
        rates: what is shown.
        kinds: with a row for each kind of defect; None: if there are at most MAX_ROWS rows. A
            product has such rows only if at least one kind has a name.
        products: that have rows; None: all.
    """
    names = rates.products if products is None else products
    chosen = {name: rates.products[name] for name in names if name in rates.products}
    named = {n: p.kinds if any(p.kinds) else {} for n, p in chosen.items()}
    kind_rows = sum(map(len, named.values()))
    shown = kind_rows + len(named) <= MAX_ROWS if kinds is None else kinds
    rows = [["detection", "normal", "false alarms %", "anomalous", "detected %", "uncertain %",
             "unknown %", "at most, 1 % FA", "at most, 5 % FA"]]  # fmt: skip
    for name, product in [*chosen.items(), ("all products", rates.overall)]:
        normal = [str(product.n_normal), _percent(product.false_alarms)]
        rows.append([name, *normal, *_cells(product.anomalous, product)])
        if shown and product is not rates.overall:
            rows += [
                [f"- {kind or '(kind not named)'}", "", "", *_cells(detected, product)]
                for kind, detected in named[name].items()
            ]
    return "\n".join([aligned(rows, last=1), *_notes(rates, 0 if shown else kind_rows)])


def _notes(rates: DetectionRates, hidden: int) -> list[str]:
    """Return the lines below the table; `hidden` is the number of rows that it leaves out."""
    lines = [
        "at most: share above the quantile of the normal test images (FA: false alarms) of the "
        "product. It",
        "needs the labels of the test images: an upper bound at that rate, not a calibration.",
    ]
    for key, rate in RATES.items():
        if any(_marked(product.anomalous, product, key) for product in rates.products.values()):
            lines.append(
                f"*: fewer than {round(1 / rate)} normal test images cannot resolve "
                f"{100 * rate:g} %; without any false alarm instead"
            )
    if rates.overall.anomalous.n_compared < rates.overall.anomalous.n:
        lines.append("all products, at most: without products that have no normal test images")
    if hidden:
        lines.append(f"{hidden} rows by kind of defect: snl evaluate --kinds, or --json")
    return lines


def _cells(detected: Detected, product: ProductRates) -> list[str]:
    limits = [
        ("*" if _marked(detected, product, key) else "") + _percent(getattr(detected, key))
        for key in RATES
    ]
    decided = (detected.decided, detected.uncertain, detected.unknown)
    return [str(detected.n), *map(_percent, decided), *limits]


def _marked(detected: Detected, product: ProductRates, key: str) -> bool:
    """Return whether a share is without false alarms because its rate cannot be resolved."""
    threshold: QuantileThreshold | None = getattr(product, key)
    return getattr(detected, key) is not None and threshold is not None and not threshold.resolved


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
