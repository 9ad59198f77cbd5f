"""The one file: networks, preprocessing, prototypes, calibrations and facts about the training.

A safetensors file; the format and its checks are in `snl.files`. Calibrations are data beside the
network, the newest last, so that a change can be taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snl.decision.calibration import Calibration
from snl.decision.document import from_document, to_document
from snl.decision.products import Prototypes
from snl.errors import BundleError, SettingsError
from snl.files import load_tensors, save_tensors
from snl.model.network import Network
from snl.settings import Settings

KIND = "bundle"
_CALIBRATION, _CENTRES, _TRAINED = "calibration.", "prototypes", "trained_on"


@dataclass(frozen=True)
class Facts:
    """What is known of a trained inspector besides its weights; JSON values only."""

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
class Parts:
    """All that a bundle holds."""

    network: Network
    facts: Facts
    prototypes: Prototypes
    calibrations: Sequence[Calibration]
    """Oldest first; the last one holds."""
    trained_on: np.ndarray
    """uint64 (N,), content hashes of the training images."""


def save(path: str | Path, parts: Parts) -> None:
    """Write a bundle, by custom `*.snl`, whole or not at all."""
    network, facts = parts.network, parts.facts
    arrays = {name: v.detach().cpu().numpy() for name, v in network.state_dict().items()}
    arrays[_CENTRES], arrays[_TRAINED] = parts.prototypes.centres, parts.trained_on
    documents = []
    for number, calibration in enumerate(parts.calibrations):
        document, own = to_document(calibration)
        documents.append(document)
        arrays |= {f"{_CALIBRATION}{number}.{name}": value for name, value in own.items()}
    document = {
        "settings": network.settings.to_dict(),
        "preprocessing": {
            "image_size": network.settings.image_size,
            "resize": "whole image or tile to a square, bilinear with antialiasing",
            "channels": "RGB",
            "mean": list(network.teacher.mean),
            "std": list(network.teacher.std),
        },
        "products": facts.products,
        "prototypes": list(parts.prototypes.owners),
        "calibrations": documents,
        "data": facts.data,
        "training": facts.training,
        "map_range": list(facts.map_range),
    }
    save_tensors(path, arrays, KIND, document)


def load(path: str | Path) -> Parts:
    """Inverse of `save`; the network is on the CPU, in evaluation mode.

    Raises:
        BundleError: missing, damaged, foreign, newer, or not what its own settings describe.
    """
    arrays, document = load_tensors(path, KIND)
    try:
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
        preprocessing = document["preprocessing"]
        mean, std = (torch.tensor(preprocessing[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
        network = Network(settings)
        network.load_state_dict({name: torch.from_numpy(v) for name, v in arrays.items()})
        _check(prototypes, trained_on, facts.map_range, network.errors.centres.shape[1])
    except (SettingsError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError,
            RuntimeError) as error:  # fmt: skip
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:150]
        raise BundleError(
            f"{path}: its description and its weights do not fit together ({reason}); it was "
            "edited, or made by another version of snl or timm: train it again"
        ) from None
    network.mean.copy_(mean)
    network.std.copy_(std)
    return Parts(network.eval(), facts, prototypes, calibrations, trained_on)


def _check(
    prototypes: Prototypes, trained_on: np.ndarray, map_range: tuple[float, float], width: int
) -> None:
    """Of embeddings that are `width` numbers."""
    centres = prototypes.centres
    if centres.shape != (len(prototypes.owners), width) or not np.isfinite(centres).all():
        raise ValueError("the prototypes are damaged")
    if trained_on.dtype != np.uint64 or trained_on.ndim != 1:
        raise ValueError("the list of training images is damaged")
    if not np.isfinite(map_range).all():
        raise ValueError("the range of maps is damaged")
