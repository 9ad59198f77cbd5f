"""Converter of model files in format 2 (snl 0.1.0) to the sections of today's format."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from snl.runtime.sections import CALIBRATION, MODEL, NETWORK, TRAINING, Section
from snl.settings import RENAMED

_CALIBRATION_FIELDS = {
    "usual": "log_score_stats",
    "own_rates": "product_rates",
    "smallest": "min_region_area",
    "tail": "fit_tail",
    "made": "created",
    "why": "reason",
}


def is_format_2(document: Mapping[str, Any]) -> bool:
    """Return whether a file's document is of format 2, which had no sections."""
    return "sections" not in document and "calibrations" in document


def sections_of_format_2(
    document: Mapping[str, Any], arrays: Mapping[str, np.ndarray], network: str = ""
) -> dict[str, Section]:
    """Return the sections of a file of format 2.

    Args:
        document, arrays: as they are in the file.
        network: version of the network for files without its weights, the exported graphs.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: the document is damaged.
    """
    remaining = dict(arrays)
    prototypes, hashes = remaining.pop("prototypes"), remaining.pop("trained_on")
    versions: list[dict[str, Any]] = []
    tables: dict[str, np.ndarray] = {}
    for number, old in enumerate(document["calibrations"]):
        prefix = f"calibration.{number}."
        for name in [name for name in remaining if name.startswith(prefix)]:
            new = name[len(prefix) :].replace(".ignored", ".ignore_mask")
            tables[f"{number}.{new}"] = remaining.pop(name)
        tables[f"{number}.prototypes"] = prototypes
        versions.append({_CALIBRATION_FIELDS.get(key, key): value for key, value in old.items()})
    weights = {_weight_name(name): array for name, array in remaining.items()}
    network = network_version(weights) if weights else network
    for version in versions:
        version |= {
            "prototypes": document["prototypes"],
            "map_range": document["map_range"],
            "network": network,
        }
    model = {
        "settings": _settings(document["settings"]),
        "preprocessing": document["preprocessing"],
        "network": network,
        "plugins": [],
    }
    training = {key: document[key] for key in ("products", "data")}
    sections = {
        MODEL: Section(model),
        TRAINING: Section({**training, "facts": document["training"]}, {"hashes": hashes}),
        CALIBRATION: Section({"versions": versions}, tables),
    }
    return sections | ({NETWORK: Section({}, weights)} if weights else {})


def network_version(weights: Mapping[str, np.ndarray]) -> str:
    """Return the version of a network: 16 hex digits of the sha256 of its weights."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode() + array.tobytes())
    return digest.hexdigest()[:16]


def _weight_name(old: str) -> str:
    if old == "errors.level":
        return "statistics.normal_scores"
    return "statistics." + old.removeprefix("errors.") if old.startswith("errors.") else old


def _settings(old: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings under today's names."""
    new: dict[str, Any] = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in old.items()
    }
    for before, after in RENAMED.items():
        section, _, name = before.partition(".")
        if name in new.get(section, {}):
            new[section][after.partition(".")[2]] = new[section].pop(name)
    return new
