"""What false-alarm rates cost on reviewed images. Nothing here changes a calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from snl.data.records import Record
from snl.decision.calibration import Calibration
from snl.decision.costs import BestRate, Costs, Operation, best_rate, operation, rounded_up
from snl.errors import DataError, SettingsError
from snl.runtime.inspector import Inspector
from snl.runtime.measure import measure_usable

LEAST_FITTED = 1e-4
"""A fitted tail gives any rate; smaller ones than this are not proposed."""
CHANCE = 0.01
"""Observed false alarms are noted if so many of them have at most this probability."""

Note = Callable[[str], None]
Progress = Callable[[int, int], None] | None


@dataclass(frozen=True)
class Reviewed:
    """Reviewed images of one product that are neither trained on nor held out.

    Attributes:
        anomalous, normal: p-values (n,) of the images with this label, float64.
    """

    anomalous: np.ndarray
    normal: np.ndarray


@dataclass(frozen=True)
class ProductCosts:
    """The best rate of a product, or one for all products.

    Attributes:
        product: None: all products.
        defects, normals: numbers of reviewed images.
        present: at the rate in force, with the share of normal images that this rate allows with
            the present number of held-out images; None: no decision is possible at this rate.
        present_rate: the rate in force; None: several.
        result: the rate with the lowest expected cost.
        rate: to set with `snl calibrate --rate`: `result.best.rate`, rounded up.
        unchanged: whether it decides as the rate in force does.
        false_alarms: number of reviewed normal images that are called anomalous at it.
        surprising: whether these are more than chance explains.
    """

    product: str | None
    defects: int
    normals: int
    present: Operation | None
    present_rate: float | None
    result: BestRate
    rate: float
    unchanged: bool
    false_alarms: int
    surprising: bool


def reviewed_p_values(
    inspector: Inspector,
    records: Sequence[Record],
    *,
    progress: Progress = None,
    note: Note = lambda text: None,
) -> dict[str, Reviewed]:
    """Return the p-values of reviewed images by product, each judged as its own product.

    Normal images that the network was trained on, or that are held out, are left out: their
    p-values say nothing about new images. So are copies.

    Args:
        inspector: computes the predictions.
        records: reviewed images with their labels; those without a label are left out.
        progress: called with (done, total).
        note: called with a sentence about everything that is left out.

    Raises:
        DataError: an image that is labelled normal and anomalous, an anomalous one that is trained
            on or held out as a normal image, one of an unknown product, or no image is left.
    """
    calibration = inspector.calibration
    unknown = sorted({record.product for record in records} - set(calibration.products))
    if unknown:
        raise DataError(
            f"product '{unknown[0]}' is not known to this inspector; known: "
            f"{', '.join(calibration.products)}: give folders of these names, or --product NAME"
        )
    fresh = _fresh(inspector, [r for r in records if r.label is not None], note)
    if len(fresh) < len(records):
        unlabelled = sum(record.label is None for record in records)
        if unlabelled:
            note(f"{unlabelled} of {len(records)} images have no label; left out")
    labels = {str(record.path): record.label for record in fresh}
    sample = measure_usable(inspector.predictor, calibration, fresh, note, progress)
    if not len(sample):
        raise DataError(
            "no reviewed image is left; give labelled images that are neither trained on nor held "
            "out, for example <product>/good and <product>/bad"
        )
    values: dict[str, dict[str, list[float]]] = {}
    for path, product, score in zip(sample.paths, sample.products, sample.scores, strict=True):
        p = calibration.scores.p_value(float(score), product)
        if p is None:
            raise DataError(
                "no normal image is held out, so there are no false-alarm rates to compare; add "
                "some with snl calibrate FILE NORMALS --add"
            )
        of_product = values.setdefault(product, {"normal": [], "anomalous": []})
        of_product[str(labels[path])].append(p)
    return {
        product: Reviewed(np.array(found["anomalous"]), np.array(found["normal"]))
        for product, found in sorted(values.items())
    }


def compare_costs(
    calibration: Calibration, reviewed: dict[str, Reviewed], costs: Costs
) -> list[ProductCosts]:
    """Return the best rate of every product with reviewed defects, then that of all of them.

    Args:
        calibration: that the p-values are from.
        reviewed: p-values by product.
        costs: of wrong decisions.

    Raises:
        DataError: no defect was reviewed.
        SettingsError: the calibration allows no rate.
    """
    products = _with_defects(reviewed)
    rows = [_of_products(calibration, {p: reviewed[p]}, costs) for p in products]
    if len(products) > 1:
        rows.append(_of_products(calibration, {p: reviewed[p] for p in products}, costs))
    return rows


def share_of_defects(reviewed: dict[str, Reviewed]) -> float:
    """Return the share of reviewed images that are anomalous.

    Raises:
        DataError: all images have the same label.
    """
    _with_defects(reviewed)
    anomalous = sum(len(images.anomalous) for images in reviewed.values())
    normal = sum(len(images.normal) for images in reviewed.values())
    if not normal:
        raise DataError(
            "all reviewed images are anomalous, so they do not tell how rare defects are; give the "
            "share of defective parts with --defect-share"
        )
    return anomalous / (anomalous + normal)


def _with_defects(reviewed: dict[str, Reviewed]) -> list[str]:
    """Return the products with reviewed defects.

    Raises:
        DataError: there are none.
    """
    products = [product for product, images in reviewed.items() if len(images.anomalous)]
    if not products:
        raise DataError(
            "none of the reviewed images is labelled anomalous, so no rate misses anything; add "
            "images of defects, for example in <product>/bad"
        )
    return products


def smallest_rate(calibration: Calibration, product: str) -> float:
    """Return the smallest rate that the calibration can deliver for a product.

    Raises:
        SettingsError: it can deliver none.
    """
    scores = calibration.scores
    known = {scores.smallest_rate(product), scores.smallest_rate()}
    if calibration.fit_tail:
        known.add(LEAST_FITTED)
    for rate in sorted(known):
        if 0 < rate < 1 and calibration.can_decide(rate, product):
            return rate
    raise SettingsError(
        f"no false-alarm rate is possible for '{product}', because no normal image is held out; "
        "add some with snl calibrate FILE NORMALS --add"
    )


def allowed_share(calibration: Calibration, rate: float, product: str) -> float | None:
    """Return the share of normal images above the threshold of a rate: the largest p-value that is
    not above the rate; None: there is no threshold.

    With 20 held-out images, 5 % and 9 % are the same threshold, which 1 of 21 normal images exceed.
    """
    threshold, _ = calibration.scores.threshold(rate, product)
    if threshold is None:
        return None
    above = float(np.nextafter(np.float32(max(threshold, 0.0)), np.float32(np.inf)))
    p = calibration.scores.p_value(above, product)
    return rate if p is None or p > rate else p


def _of_products(
    calibration: Calibration, reviewed: dict[str, Reviewed], costs: Costs
) -> ProductCosts:
    """Return the best rate for all of the products given."""
    names = list(reviewed)
    defects = [images.anomalous for images in reviewed.values()]
    normal = np.concatenate([images.normal for images in reviewed.values()])
    smallest = max(smallest_rate(calibration, name) for name in names)
    counts = [len(calibration.sets[name]) for name in names]
    normals = sum(counts) or sum(map(len, calibration.sets.values()))

    def shares(rate: float) -> list[float | None]:
        return [allowed_share(calibration, rate, name) for name in names]

    def mean_share(rate: float) -> float:
        allowed = [share or 0.0 for share in shares(rate)]
        return float(np.average(allowed, weights=[len(p_values) for p_values in defects]))

    # a p-value of a single product is already the share that it allows
    share_at = mean_share if len(names) > 1 else float
    result = best_rate(defects, costs, smallest, normals, share_at=share_at)
    wanted = shares(result.best.rate)

    def is_same(other: float) -> bool:
        found = [np.sum(p <= other) == np.sum(p <= result.best.rate) for p in defects]
        return all(found) and _alike(shares(other), wanted)

    rate = rounded_up(result.best.rate, is_same)
    rates = [calibration.rates_for(name).anomalous for name in names]
    present = [allowed_share(calibration, r, n) for r, n in zip(rates, names, strict=True)]
    alarms = int(np.sum(normal <= result.best.rate))
    return ProductCosts(
        product=names[0] if len(names) == 1 else None,
        defects=sum(map(len, defects)),
        normals=len(normal),
        present=_present(defects, present, costs),
        present_rate=rates[0] if len(set(rates)) == 1 else None,
        result=result,
        rate=rate,
        unchanged=_alike(present, wanted),
        false_alarms=alarms,
        surprising=_surprising(alarms, len(normal), result.best.rate),
    )


def _present(
    defects: Sequence[np.ndarray], shares: Sequence[float | None], costs: Costs
) -> Operation | None:
    """Return what to expect with these shares of normal images called anomalous, by product; the
    products count by their number of defects."""
    total = sum(map(len, defects))
    rate = found = 0.0
    for p_values, share in zip(defects, shares, strict=True):
        if share is None:
            return None
        one = operation(p_values, costs, share)
        rate += len(p_values) / total * share
        found += len(p_values) / total * one.found
    return Operation(rate, found, costs.per_part(rate, 1 - found))


def _alike(shares: Sequence[float | None], others: Sequence[float | None]) -> bool:
    """Return whether shares differ by at most 1 %."""
    return all(
        one is not None and other is not None and abs(one - other) <= 0.01 * other
        for one, other in zip(shares, others, strict=True)
    )


def _surprising(alarms: int, total: int, rate: float) -> bool:
    """Return whether so many false alarms are improbable at a false-alarm rate."""
    from scipy.stats import binom

    return alarms > 0 and float(binom.sf(alarms - 1, total, rate)) <= CHANCE


def _fresh(inspector: Inspector, records: Sequence[Record], note: Note) -> list[Record]:
    """Return each image once, without those that were trained on or are held out."""
    held = inspector.calibration.held_out
    trained = set(inspector.training.hashes.tolist())
    first: dict[int, Record] = {}
    fresh, counts = [], {"were trained on": 0, "are held out": 0, "are copies of another one": 0}
    for record in records:
        try:
            content = inspector.training.content_hash(record.path)
        except (OSError, ValueError):
            fresh.append(record)  # its decoding says what is wrong
            continue
        other = first.setdefault(content, record)
        if other.label != record.label:
            raise DataError(
                f"{record.path} is labelled {record.label}, and the same image {other.path} "
                f"{other.label}; leave out one of them"
            )
        known = "were trained on" if content in trained else "are held out"
        if content in trained or content in held:
            if record.label == "anomalous":
                what = f"held out as a normal image of {held.get(content)}"
                if content in trained:
                    what = "among the normal images that were trained on"
                raise DataError(
                    f"{record.path} is labelled anomalous but is {what}; correct its label, or "
                    "leave it out"
                )
            counts[known] += 1
        elif other is not record:
            counts["are copies of another one"] += 1
        else:
            fresh.append(record)
    for what, count in counts.items():
        if count:
            note(f"{count} of {len(records)} reviewed images {what}; left out")
    return fresh
