"""A calibration as JSON values and arrays, for a bundle, and back; what is damaged is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from snl.decision.calibration import PEAKS, Calibration, Normals, Rates


def to_document(calibration: Calibration) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """JSON values and arrays, for a bundle."""
    arrays: dict[str, np.ndarray] = {}
    for i, (product, normals) in enumerate(calibration.normals.items()):
        for f in dataclasses.fields(normals):
            arrays[f"{i}.{f.name}"] = getattr(normals, f.name)
        if product in calibration.ignored:
            arrays[f"{i}.ignored"] = calibration.ignored[product].astype(np.uint8)
    document = {
        "products": list(calibration.normals),
        "usual": {k: list(v) for k, v in calibration.usual.items()},
        "rates": dataclasses.asdict(calibration.rates),
        "own_rates": {k: dataclasses.asdict(v) for k, v in calibration.own_rates.items()},
        "mm_per_pixel": dict(calibration.mm_per_pixel),
        "smallest": dict(calibration.smallest),
        "tile": calibration.tile,
        "tail": calibration.tail,
        "made": calibration.made,
        "why": calibration.why,
    }
    return document, arrays


def from_document(document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Calibration:
    """Inverse of `to_document`.

    Raises:
        LookupError, TypeError, ValueError, AttributeError, ArithmeticError, SettingsError: it is
            damaged.
    """
    products = [str(name) for name in document["products"]]
    rest = dict(arrays)
    normals, ignored = {}, {}
    for i, product in enumerate(products):
        fields = {f.name: rest.pop(f"{i}.{f.name}") for f in dataclasses.fields(Normals)}
        normals[product] = _checked(Normals(**fields), product)
        if f"{i}.ignored" in rest:
            ignored[product] = rest.pop(f"{i}.ignored") > 0
            _need(ignored[product].ndim == 2 and ignored[product].size, f"mask of '{product}'")
    _need(not rest, f"array '{next(iter(rest), '')}'")
    usual = {str(k): (float(v[0]), float(v[1])) for k, v in document["usual"].items()}
    _need(set(usual) == set(products), "table of usual scores")
    for product, (mean, deviation) in usual.items():
        _need(np.isfinite([mean, deviation]).all() and deviation > 0, f"usual score of '{product}'")
    own_rates = {str(k): Rates(**v) for k, v in document["own_rates"].items()}
    mm_per_pixel = {str(k): float(v) for k, v in document["mm_per_pixel"].items()}
    smallest = {str(k): int(v) for k, v in document["smallest"].items()}
    _need({*own_rates, *mm_per_pixel, *smallest} <= set(products), "list of products")
    _need(all(0 < v < np.inf for v in mm_per_pixel.values()), "scale")
    _need(all(v >= 1 for v in smallest.values()), "smallest region")
    tile = int(document["tile"])
    _need(tile == 0 or 32 <= tile <= 8192, "size of tiles")
    return Calibration(
        normals,
        usual,
        Rates(**document["rates"]),
        own_rates,
        ignored,
        mm_per_pixel,
        smallest,
        tile,
        bool(document["tail"]),
        str(document["made"]),
        str(document["why"]),
    )


def _checked(normals: Normals, product: str) -> Normals:
    """Arrays of the right kinds and shapes, with numbers in them."""
    count = normals.scores.shape[:1]
    for name, shape in {
        "scores": count, "distances": count, "peaks": (*count, PEAKS), "hashes": count
    }.items():  # fmt: skip
        array = getattr(normals, name)
        _need(
            array.shape == shape and len(shape) > 0 and array.dtype.kind in "fu",
            f"array '{name}' of '{product}'",
        )
    _need(normals.hashes.dtype == np.uint64, f"array 'hashes' of '{product}'")
    for name in ("scores", "distances"):
        _need(np.isfinite(getattr(normals, name)).all(), f"array '{name}' of '{product}'")
    highest_first = (normals.peaks[:, :-1] >= normals.peaks[:, 1:]).all()
    _need(highest_first and (normals.peaks < np.inf).all(), f"array 'peaks' of '{product}'")
    return normals


def _need(fine: object, what: str) -> None:
    if not fine:
        raise ValueError(f"the {what} is damaged")
