"""The one file: networks, preprocessing, calibration scores and every fact about the training.

A safetensors file; the format and its checks are in `snl.files`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snl.errors import BundleError, SettingsError
from snl.files import load_tensors, save_tensors
from snl.model.network import Network
from snl.settings import Settings

KIND = "bundle"


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


def save(
    path: str | Path, network: Network, facts: Facts, calibration: Mapping[str, np.ndarray]
) -> None:
    """Write a bundle, whole or not at all.

    Args:
        path: by custom `*.snl`.
        network: trained.
        facts: about it.
        calibration: scores (n,) of held-back normal images by product.
    """
    arrays = {name: v.detach().cpu().numpy() for name, v in network.state_dict().items()}
    for number, scores in enumerate(calibration.values()):
        arrays[f"calibration.{number}"] = np.asarray(scores, dtype=np.float32)
    document = {
        "settings": network.settings.to_dict(),
        "preprocessing": {
            "image_size": network.settings.image_size,
            "resize": "whole image to a square, bilinear with antialiasing",
            "channels": "RGB",
            "mean": list(network.teacher.mean),
            "std": list(network.teacher.std),
        },
        "products": facts.products,
        "calibration": list(calibration),
        "data": facts.data,
        "training": facts.training,
        "map_range": list(facts.map_range),
    }
    save_tensors(path, arrays, KIND, document)


def load(path: str | Path) -> tuple[Network, Facts, dict[str, np.ndarray]]:
    """Inverse of `save`; the network is on the CPU, in evaluation mode.

    Raises:
        BundleError: missing, damaged, foreign, newer, or not what its own settings describe.
    """
    arrays, document = load_tensors(path, KIND)
    try:
        settings = Settings.from_dict(document["settings"])
        names = document["calibration"]
        calibration = {name: arrays.pop(f"calibration.{i}") for i, name in enumerate(names)}
        low, high = map(float, document["map_range"])
        facts = Facts(
            {str(k): int(v) for k, v in document["products"].items()},
            dict(document["data"]),
            dict(document["training"]),
            (low, high),
        )
        preprocessing = document["preprocessing"]
        mean, std = (torch.tensor(preprocessing[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
        network = Network(settings)
        network.load_state_dict({name: torch.from_numpy(v) for name, v in arrays.items()})
    except (SettingsError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:150]
        raise BundleError(
            f"{path}: its description and its weights do not fit together ({reason}); it was "
            "edited, or made by another version of snl or timm: train it again"
        ) from None
    network.mean.copy_(mean)
    network.std.copy_(std)
    return network.eval(), facts, calibration
