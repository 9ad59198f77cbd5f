"""A calibration as JSON values and arrays, and back; damaged content is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from snl.data.roi import Roi
from snl.decision.calibration import CONFORMAL, RULES, Calibration, CalibrationSet, Rates, Retired
from snl.decision.products import Prototypes
from snl.decision.references import References
from snl.decision.sample import PEAKS
from snl.settings import MapSettings

_COLUMNS = ("scores", "distances", "peaks", "hashes", "neighbours")
"""The numbers of a calibration set. Their names, `names`, are among the JSON values."""
_SINCE_RULES = {"rule", "product_rules", "held_out"}


def to_document(calibration: Calibration) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the JSON values and arrays of a calibration; `scoring` is not among them."""
    arrays = {"prototypes": calibration.prototypes.centres}
    for i, (product, data) in enumerate(calibration.sets.items()):
        for column in _COLUMNS:
            arrays[f"{i}.{column}"] = getattr(data, column)
        if product in calibration.ignore_masks:
            arrays[f"{i}.ignore_mask"] = calibration.ignore_masks[product].astype(np.uint8)
    if calibration.references is not None:
        arrays["references"] = calibration.references.embeddings
        arrays["reference_scales"] = calibration.references.scales
    for i, one in enumerate(calibration.retired):
        for column in _COLUMNS:
            arrays[f"retired.{i}.{column}"] = getattr(one.data, column)
    rates = {k: dataclasses.asdict(v) for k, v in calibration.product_rates.items()}
    document = {
        "products": list(calibration.sets),
        "held_out": [data.names.tolist() for data in calibration.sets.values()],
        "log_score_stats": {k: list(v) for k, v in calibration.log_score_stats.items()},
        "prototypes": list(calibration.prototypes.owners),
        "references": list(calibration.references.owners) if calibration.references else None,
        "map_range": list(calibration.map_range),
        "network": calibration.network,
        "rates": dataclasses.asdict(calibration.rates),
        "product_rates": rates,
        "rule": calibration.rule,
        "product_rules": dict(calibration.product_rules),
        "mm_per_pixel": dict(calibration.mm_per_pixel),
        "min_region_area": dict(calibration.min_region_area),
        "tile": calibration.tile,
        "fit_tail": calibration.fit_tail,
        "created": calibration.created,
        "reason": calibration.reason,
    }
    if calibration.rois:
        document["rois"] = {name: roi.to_list() for name, roi in calibration.rois.items()}
    if calibration.retired:
        document["retired"] = [
            {"log_score_stats": list(one.log_score_stats), "conformal": one.conformal}
            for one in calibration.retired
        ]
    return document, arrays


def from_document(
    document: Mapping[str, Any], arrays: Mapping[str, np.ndarray], scoring: MapSettings
) -> Calibration:
    """Inverse of `to_document`.

    Args:
        document, arrays: as `to_document` returned them.
        scoring: settings of the network's map.

    Raises:
        LookupError, TypeError, ValueError, AttributeError, ArithmeticError, SettingsError: they are
            damaged.
    """
    if not document.keys() & _SINCE_RULES:
        # written before there were rules, when the conformal one was the only one
        document = {**document, "rule": CONFORMAL, "product_rules": {}, "held_out": None}
    products = [str(name) for name in document["products"]]
    _require(products and len(set(products)) == len(products), "list of products")
    remaining = dict(arrays)
    prototypes = Prototypes(remaining.pop("prototypes"), tuple(map(str, document["prototypes"])))
    _check_prototypes(prototypes, products)
    references = _references(document, remaining, products)
    if references is not None:
        valid = references.embeddings.shape[1] == prototypes.centres.shape[1]
        _require(valid, "array 'references'")
    sets, masks = {}, {}
    held_out = document["held_out"] or [None] * len(products)
    for i, (product, names) in enumerate(zip(products, held_out, strict=True)):
        columns = {column: remaining.pop(f"{i}.{column}") for column in _COLUMNS[:-1]}
        count = len(columns["scores"]) if columns["scores"].ndim else 0
        if references is not None or f"{i}.neighbours" in remaining:
            columns["neighbours"] = remaining.pop(f"{i}.neighbours")
        columns["names"] = np.array([str(n) for n in names or [""] * count], np.str_)
        sets[product] = _checked(CalibrationSet(**columns), product)
        if f"{i}.ignore_mask" in remaining:
            masks[product] = remaining.pop(f"{i}.ignore_mask") > 0
            mask = masks[product]
            valid = mask.ndim == 2 and mask.size and max(mask.shape) <= 8192 and not mask.all()
            _require(valid, f"mask of '{product}'")
    retired = _retired(document, remaining)
    _require(not remaining, f"array '{next(iter(remaining), '')}'")
    stats = {str(k): (float(v[0]), float(v[1])) for k, v in document["log_score_stats"].items()}
    _require(set(stats) == set(products), "table of log-score statistics")
    for product, (mean, deviation) in stats.items():
        valid = np.isfinite([mean, deviation]).all() and deviation > 0
        _require(valid, f"log-score statistics of '{product}'")
    product_rates = {str(k): Rates(**v) for k, v in document["product_rates"].items()}
    rule = str(document["rule"])
    product_rules = {str(k): str(v) for k, v in document["product_rules"].items()}
    _require({rule, *product_rules.values()} <= set(RULES), "rule of thresholds")
    rois = {str(k): Roi.from_list(v) for k, v in document.get("rois", {}).items()}
    mm_per_pixel = {str(k): float(v) for k, v in document["mm_per_pixel"].items()}
    min_region_area = {str(k): int(v) for k, v in document["min_region_area"].items()}
    by_product = {*product_rates, *product_rules, *rois, *mm_per_pixel, *min_region_area}
    _require(by_product <= set(products), "list of products")
    _require(all(0 < v < np.inf for v in mm_per_pixel.values()), "scale")
    _require(all(v >= 1 for v in min_region_area.values()), "smallest region")
    tile = int(document["tile"])
    _require(tile == 0 or 32 <= tile <= 8192, "tile size")
    low, high = map(float, document["map_range"])
    _require(np.isfinite([low, high]).all() and low < high, "range of maps")
    return Calibration(
        sets=sets,
        log_score_stats=stats,
        prototypes=prototypes,
        scoring=scoring,
        map_range=(low, high),
        network=str(document["network"]),
        rates=Rates(**document["rates"]),
        product_rates=product_rates,
        rule=rule,
        product_rules=product_rules,
        ignore_masks=masks,
        rois=rois,
        mm_per_pixel=mm_per_pixel,
        min_region_area=min_region_area,
        tile=tile,
        fit_tail=bool(document["fit_tail"]),
        created=str(document["created"]),
        reason=str(document["reason"]),
        references=references,
        retired=retired,
    )


def _retired(document: Mapping[str, Any], remaining: dict[str, np.ndarray]) -> tuple[Retired, ...]:
    """Take the measurements of removed products out of the remaining arrays."""
    retired = []
    for i, values in enumerate(document.get("retired", ())):
        columns = {column: remaining.pop(f"retired.{i}.{column}") for column in _COLUMNS}
        mean, deviation = map(float, values["log_score_stats"])
        _require(np.isfinite([mean, deviation]).all() and deviation > 0, "removed products")
        data = _checked(CalibrationSet(**columns), f"removed product {i}")
        retired.append(Retired(data, (mean, deviation), bool(values["conformal"])))
    return tuple(retired)


def _references(
    document: Mapping[str, Any], remaining: dict[str, np.ndarray], products: list[str]
) -> References | None:
    """Take the references out of the remaining arrays; None: the file has none."""
    owners = document.get("references")
    if owners is None:
        return None
    references = References(
        remaining.pop("references"),
        tuple(str(owner) for owner in owners),
        remaining.pop("reference_scales"),
    )
    embeddings, scales = references.embeddings, references.scales
    valid = embeddings.ndim == 2 and embeddings.shape[1] > 0 and embeddings.dtype.kind == "f"
    valid = valid and len(embeddings) == len(owners) and np.isfinite(embeddings).all()
    _require(valid, "array 'references'")
    _require(set(references.names) == set(products), "list of references")
    valid = scales.shape == (len(products), embeddings.shape[1]) and scales.dtype.kind == "f"
    _require(valid and np.isfinite(scales).all() and (scales > 0).all(), "scale of references")
    return references


def _check_prototypes(prototypes: Prototypes, products: list[str]) -> None:
    centres = prototypes.centres
    valid = centres.ndim == 2 and len(centres) == len(prototypes.owners) and centres.shape[1] > 0
    valid = valid and centres.dtype.kind == "f"
    _require(valid and np.isfinite(centres).all(), "array 'prototypes'")
    _require(set(prototypes.names) == set(products), "list of prototypes")


def _checked(data: CalibrationSet, product: str) -> CalibrationSet:
    """Check the arrays' types, shapes and values."""
    count = data.scores.shape[:1]
    shapes = {"scores": count, "distances": count, "peaks": (*count, PEAKS), "hashes": count}
    shapes["neighbours"] = count
    _require(data.names.shape == count, f"list of held-out images of '{product}'")
    for name, shape in shapes.items():
        array = getattr(data, name)
        kind = "u" if name == "hashes" else "f"
        valid = array.shape == shape and len(shape) > 0 and array.dtype.kind == kind
        _require(valid, f"array '{name}' of '{product}'")
    _require(data.hashes.dtype == np.uint64, f"array 'hashes' of '{product}'")
    for name in ("scores", "distances"):
        values = getattr(data, name)
        _require(
            np.isfinite(values).all() and (values >= 0).all(), f"array '{name}' of '{product}'"
        )
    measured = data.neighbours[~np.isnan(data.neighbours)]
    valid = np.isfinite(measured).all() and (measured > 0).all()
    _require(valid, f"array 'neighbours' of '{product}'")
    highest_first = (data.peaks[:, :-1] >= data.peaks[:, 1:]).all()
    _require(highest_first and (data.peaks < np.inf).all(), f"array 'peaks' of '{product}'")
    return data


def _require(valid: object, what: str) -> None:
    if not valid:
        raise ValueError(f"the {what} is damaged")
