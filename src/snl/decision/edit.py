"""Changes of a calibration. Every function returns a new calibration and leaves the old one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from snl.decision.calibration import CONFORMAL, RULES, Calibration, CalibrationSet, Retired
from snl.decision.fit import timestamp
from snl.decision.inspection import NORMAL, Verdict
from snl.errors import DataError, SettingsError

MAX_UNCERTAIN_RATE = 0.2
"""Reported misses raise a product's rate of uncertain to at most this."""


def edit(calibration: Calibration, reason: str, **changes: Any) -> Calibration:
    """Return a copy with some fields changed, as a new version.

    The reasons of several edits since the version in use are joined, see `combine`.
    """
    return dataclasses.replace(calibration, created=timestamp(), reason=reason, **changes)


def combine(before: Calibration, edits: Iterable[Calibration]) -> Calibration:
    """Return the last of several successive edits as one version whose reason names all of them.

    Args:
        before: calibration that the first edit started from; returned if there are no edits.
        edits: each made from the one before.
    """
    versions = list(edits)
    if not versions:
        return before
    reasons = dict.fromkeys(version.reason for version in versions)
    return dataclasses.replace(versions[-1], reason=", ".join(reasons))


def is_same(one: Calibration, other: Calibration) -> bool:
    """Return whether two calibrations decide alike: only their times and reasons may differ."""
    ignored = ("created", "reason", "sets", "ignore_masks", "prototypes", "references", "retired")
    names = [f.name for f in dataclasses.fields(one) if f.name not in ignored]
    if any(getattr(one, name) != getattr(other, name) for name in names):
        return False
    if one.sets.keys() != other.sets.keys() or one.ignore_masks.keys() != other.ignore_masks.keys():
        return False
    if len(one.retired) != len(other.retired):
        return False
    columns = [f.name for f in dataclasses.fields(CalibrationSet)]
    pairs = [(one.prototypes.centres, other.prototypes.centres)]
    if (one.references is None) != (other.references is None):
        return False
    if one.references is not None and other.references is not None:
        pairs.append((one.references.embeddings, other.references.embeddings))
    pairs += [(one.ignore_masks[k], other.ignore_masks[k]) for k in one.ignore_masks]
    pairs += [
        (getattr(images, column), getattr(other.sets[product], column))
        for product, images in one.sets.items()
        for column in columns
    ]
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


def set_rates(
    calibration: Calibration, product: str | None = None, **rates: float | None
) -> Calibration:
    """Change the false-alarm rates of one product, or of all that have none of their own.

    Args:
        calibration: to change.
        product: None: all products.
        rates: `anomalous`, `uncertain`, `unknown`, `regions`; None: unchanged.

    Raises:
        SettingsError: an unknown product, or rates that contradict each other or are not possible.
    """
    calibration.check_product(product)
    new = calibration.rates_for(product).changed(**rates)
    if rates.get("anomalous") is not None or rates.get("uncertain") is not None:
        calibration.check_rates(new, product)
    if product:
        return edit(calibration, "rates", product_rates={**calibration.product_rates, product: new})
    return edit(calibration, "rates", rates=new)


def set_rule(calibration: Calibration, rule: str, product: str | None = None) -> Calibration:
    """Set how thresholds follow from held-out images, of one product or of all.

    Args:
        calibration: to change.
        rule: one of `snl.decision.calibration.RULES`.
        product: None: all products, also those that had a rule of their own.

    Raises:
        SettingsError: an unknown rule or product, or a rule that does not allow the rates in force.
    """
    calibration.check_product(product)
    if rule not in RULES:
        raise SettingsError(f"rule '{rule}': choose of {', '.join(RULES)}")
    if product:
        rules = {**calibration.product_rules, product: rule}
        changed = edit(calibration, f"rule {rule}", product_rules=rules)
    else:
        changed = edit(calibration, f"rule {rule}", rule=rule, product_rules={})
    changed.check_rates(changed.rates_for(product), product)
    return changed


def leave_out(
    calibration: Calibration, names: Sequence[str], product: str | None = None
) -> Calibration:
    """Remove held-out images, which no threshold is computed from afterwards.

    Args:
        calibration: to change.
        names: of files, as `CalibrationSet.names`, or only their last part.
        product: whose images they are; None: any.

    Raises:
        SettingsError: an unknown product; no held-out image has such a name, or several have.
    """
    calibration.check_product(product)
    sets = dict(calibration.sets)
    for name in names:
        found = [
            (owner, row)
            for owner, data in sets.items()
            for row, known in enumerate(data.names.tolist())
            if product in (None, owner) and known and (known == name or known.endswith("/" + name))
        ]
        if len(found) != 1:
            many = ", ".join(f"{sets[p].names[row]} of '{p}'" for p, row in found[:4])
            raise SettingsError(
                f"{name}: several held-out images have this name: {many}; give folder and "
                "name, and the product: snl calibrate FILE --leave-out NAME --product PRODUCT"
                if found
                else f"{name}: no held-out image has this name; snl calibrate FILE names those "
                "that stand alone"
            )
        owner, row = found[0]
        sets[owner] = sets[owner].select(np.arange(len(sets[owner])) != row)
    return edit(calibration, f"{len(names)} held-out images left out", sets=sets)


def set_ignore_mask(calibration: Calibration, product: str, mask: np.ndarray | None) -> Calibration:
    """Set the pixels of a product's images that never count.

    The held-out images keep their scores until they are measured again. Those scores can only be
    too high, so the false-alarm rate can only be lower than stated.

    Args:
        calibration: to change.
        product: name of a known product.
        mask: bool (size, size); None: no mask.

    Raises:
        SettingsError: an unknown product.
        DataError: the mask ignores everything.
    """
    calibration.check_product(product)
    masks = dict(calibration.ignore_masks)
    masks.pop(product, None)
    if mask is not None:
        if mask.all():
            raise DataError(f"the mask of '{product}' ignores every pixel; white is ignored")
        masks[product] = mask
    return edit(calibration, f"ignore mask of {product}", ignore_masks=masks)


def set_product_values(
    calibration: Calibration, field: str, values: Mapping[str, float | int]
) -> Calibration:
    """Set `mm_per_pixel` or `min_region_area` of some products.

    Raises:
        SettingsError: an unknown product, or a value that is not above 0.
    """
    for product, value in values.items():
        calibration.check_product(product)
        if not 0 < value < float("inf"):
            raise SettingsError(f"{field} of '{product}' is {value}; give a number above 0")
    return edit(calibration, field, **{field: {**getattr(calibration, field), **values}})


def remove_product_value(calibration: Calibration, field: str, product: str) -> Calibration:
    """Remove `mm_per_pixel` or `min_region_area` of a product, which may have none.

    Raises:
        SettingsError: an unknown product.
    """
    calibration.check_product(product)
    left = {name: value for name, value in getattr(calibration, field).items() if name != product}
    return edit(calibration, f"no {field}", **{field: left})


def set_calibration_sets(
    calibration: Calibration,
    sets: Mapping[str, CalibrationSet],
    *,
    add: bool = False,
    reason: str = "new normal images",
) -> Calibration:
    """Replace the calibration sets of some products, or add to them.

    Args:
        calibration: to change.
        sets: by product; an image that occurs twice counts once.
        add: keep the images that are there.
        reason: of the new version.
    """
    empty = CalibrationSet.empty()
    merged = {
        product: (calibration.sets[product] if add else empty).merge(new.unique())
        for product, new in sets.items()
    }
    return edit(calibration, reason, sets={**calibration.sets, **merged})


def remove_products(calibration: Calibration, products: Sequence[str]) -> Calibration:
    """Remove products; the decisions about the others do not change, see `Retired`.

    Raises:
        SettingsError: an unknown product, or no product would remain.
    """
    removed = list(dict.fromkeys(products))
    for product in removed:
        calibration.check_product(product)
    left = [name for name in calibration.products if name not in removed]
    if not left:
        raise SettingsError(
            f"{', '.join(removed)}: an inspector has at least one product; delete the file to "
            "remove the last one"
        )

    def others(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name not in removed}

    retired = tuple(
        Retired(
            dataclasses.replace(
                data,
                scores=calibration.raised_scores(name),
                hashes=np.zeros_like(data.hashes),
                names=np.full(len(data), "", np.str_),
            ),
            calibration.log_score_stats[name],
            calibration.rule_for(name) == CONFORMAL,
        )
        for name in removed
        for data in [calibration.sets[name]]
    )
    references = calibration.references
    return edit(
        calibration,
        f"removed {', '.join(removed)}",
        sets=others(calibration.sets),
        log_score_stats=others(calibration.log_score_stats),
        prototypes=calibration.prototypes.select(left),
        references=None if references is None else references.select(left),
        retired=(*calibration.retired, *retired),
        **{
            name: others(getattr(calibration, name))
            for name in (
                *("product_rates", "product_rules", "ignore_masks", "rois"),
                *("mm_per_pixel", "min_region_area"),
            )
        },
    )


ROUNDING = 1 + 1e-4
"""A rate is raised to a missed image's p-value times this: in a batch of another size its score is
rounded differently."""


def raise_uncertain_rates(
    calibration: Calibration, missed: Iterable[Verdict], largest: float = MAX_UNCERTAIN_RATE
) -> tuple[Calibration, list[bool]]:
    """Raise the rates of uncertain of the products concerned until missed images are uncertain.

    Scores of anomalous images do not enter the calibration: the guarantee is the same one, for a
    larger rate.

    Args:
        calibration: to change.
        missed: verdicts on anomalous images that were called normal.
        largest: rate of uncertain that is not exceeded.

    Returns:
        The new calibration (the same one if nothing changes), and for every image whether it is
        caught now.
    """
    rates = dict(calibration.product_rates)
    caught = []
    for verdict in missed:
        p = verdict.p_value
        possible = verdict.decision != NORMAL or (p is not None and p <= largest)
        caught.append(possible)
        if verdict.decision == NORMAL and possible and p is not None:
            current = rates.get(verdict.product, calibration.rates)
            needed = min(p * ROUNDING, largest)
            rates[verdict.product] = current.changed(uncertain=max(current.uncertain, needed))
    if rates == calibration.product_rates:
        return calibration, caught
    return edit(calibration, f"{len(caught)} missed images", product_rates=rates), caught
