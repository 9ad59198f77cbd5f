"""What is known beside the network, and how it is written down: the same in every kind of file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from snl.decision.calibration import Calibration
from snl.decision.products import Prototypes
from snl.decision.serialise import from_document, to_document
from snl.settings import Settings

_CALIBRATION, _CENTRES, _TRAINED = "calibration.", "prototypes", "trained_on"


@dataclass(frozen=True)
class Facts:
    """What is known of a training; JSON values only."""

    products: dict[str, int]
    """Normal training images per product."""
    data: dict[str, Any]
    """Root's name, layout, fingerprint and number of images of the training data."""
    training: dict[str, Any]
    """Steps, seconds, speed, last losses, device, software versions, skipped images."""
    map_range: tuple[float, float]
    """Map values at which colours begin and end: the 99th percentile of the pixels of a median
    normal image, and twice the largest score of a normal image."""


@dataclass(frozen=True)
class Known:
    """All that an inspector needs but the network itself."""

    settings: Settings
    facts: Facts
    prototypes: Prototypes
    calibrations: Sequence[Calibration]
    """Oldest first; the last one holds."""
    trained_on: np.ndarray
    """uint64 (N,), content hashes of the training images."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of the network's input channels; the network itself normalises."""


def write(known: Known) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """JSON values and arrays."""
    arrays = {_CENTRES: known.prototypes.centres, _TRAINED: known.trained_on}
    documents = []
    for number, calibration in enumerate(known.calibrations):
        document, own = to_document(calibration)
        documents.append(document)
        arrays |= {f"{_CALIBRATION}{number}.{name}": value for name, value in own.items()}
    return {
        "settings": known.settings.to_dict(),
        "preprocessing": {
            "image_size": known.settings.image_size,
            "resize": "whole image or tile to a square, bilinear with antialiasing",
            "channels": "RGB",
            "mean": list(known.mean),
            "std": list(known.std),
        },
        "products": known.facts.products,
        "prototypes": list(known.prototypes.owners),
        "calibrations": documents,
        "data": known.facts.data,
        "training": known.facts.training,
        "map_range": list(known.facts.map_range),
    }, arrays


def read(document: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> Known:
    """Inverse of `write`; takes its own out of `arrays` and leaves what else there is.

    Raises:
        SettingsError, KeyError, TypeError, ValueError, AttributeError: it is damaged.
    """
    settings = Settings.from_dict(document["settings"])
    low, high = map(float, document["map_range"])
    facts = Facts(
        {str(k): int(v) for k, v in document["products"].items()},
        dict(document["data"]),
        dict(document["training"]),
        (low, high),
    )
    prototypes = Prototypes(arrays.pop(_CENTRES), tuple(map(str, document["prototypes"])))
    trained_on = arrays.pop(_TRAINED)
    calibrations = []
    for number, described in enumerate(document["calibrations"]):
        prefix = f"{_CALIBRATION}{number}."
        own = {n[len(prefix) :]: arrays.pop(n) for n in list(arrays) if n.startswith(prefix)}
        calibrations.append(from_document(described, own))
    names = {frozenset(facts.products), frozenset(prototypes.names)}
    names |= {frozenset(calibration.products) for calibration in calibrations}
    if len(names) > 1 or not calibrations:
        raise ValueError("products, prototypes and calibration name different products")
    centres = prototypes.centres
    whole = centres.ndim == 2 and len(centres) == len(prototypes.owners)
    if not whole or not np.isfinite(centres).all():
        raise ValueError("the prototypes are damaged")
    if trained_on.dtype != np.uint64 or trained_on.ndim != 1:
        raise ValueError("the list of training images is damaged")
    if not np.isfinite(facts.map_range).all():
        raise ValueError("the range of maps is damaged")
    mean, std = (tuple(map(float, document["preprocessing"][k])) for k in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3:
        raise ValueError("mean and std are not of three channels")
    return Known(settings, facts, prototypes, calibrations, trained_on, mean, std)
