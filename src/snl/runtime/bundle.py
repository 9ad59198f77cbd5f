"""The file that training writes: the network's weights and everything besides, as named sections.

It is a safetensors file; `snl.files` has the format and its checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from snl.errors import PluginError, SettingsError
from snl.model.adapters import groups_in
from snl.model.network import Network
from snl.runtime.bundle_file import damaged, read_sections, write_sections
from snl.runtime.metadata import ModelMetadata, from_sections, to_sections
from snl.runtime.sections import NETWORK, Section


def save(path: str | Path, network: Network, metadata: ModelMetadata) -> None:
    """Write a bundle, conventionally `*.snl`; the file is complete or not there."""
    weights = {name: v.detach().cpu().numpy() for name, v in network.state_dict().items()}
    write_sections(path, {NETWORK: Section({}, weights), **to_sections(metadata)}, metadata)


def load(path: str | Path) -> tuple[Network, ModelMetadata]:
    """Inverse of `save`; the network is on the CPU, in evaluation mode.

    Raises:
        BundleError: missing, damaged, foreign, of a newer format, or settings and weights that do
            not fit each other.
        PluginError: a plug-in that the network needs is not installed.
    """
    sections = read_sections(path)
    try:
        metadata = from_sections(sections)
        network = Network(metadata.settings)
        weights = sections[NETWORK].arrays
        if (groups := groups_in(weights)) > 1:
            network.resize_groups(groups, len(weights["router.gates"]))
        _check_weights(weights, network)
        network.load_state_dict({name: torch.from_numpy(v) for name, v in weights.items()})
        width = network.statistics.centres.shape[1]
        if metadata.calibrations[-1].prototypes.centres.shape[1] != width:
            raise ValueError("the prototypes are damaged")
    except PluginError as error:
        raise PluginError(f"{path}: {error}") from None
    except (SettingsError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError,
            RecursionError, RuntimeError) as error:  # fmt: skip
        raise damaged(path, error) from None
    for name in ("mean", "std"):
        getattr(network, name).copy_(torch.tensor(getattr(metadata, name)).view(1, 3, 1, 1))
    return network.eval(), metadata


def check_finite(weights: Mapping[str, np.ndarray]) -> None:
    """Check the values of a network's weights, of its error statistics and of its memory.

    Raises:
        ValueError: a value that is not finite, or statistics that would make results so.
    """
    for name, array in weights.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"the weights '{name}' are not finite")
        key = name.rpartition(".")[2]
        scales = key.startswith("deviation") or key in ("spread", "normal_scores")
        if name.startswith("statistics.") and scales and not (array > 0).all():
            raise ValueError(f"the error statistics '{key}' are not above 0")
        if name == "memory.scales" and not (array > 0).all():
            raise ValueError("the memory's scale is not above 0")
        if name == "router.groups" and not ((array >= 0) & (array < groups_in(weights))).all():
            raise ValueError("the router names groups that the network does not have")
        if name == "memory.banks" and "memory.scales" in weights:
            count = len(weights["memory.scales"])
            if not ((array >= 0) & (array < count)).all():
                raise ValueError("the memory's gates name banks that it does not have")


def _check_weights(weights: Mapping[str, np.ndarray], network: Network) -> None:
    """Check values and types of weights.

    Raises:
        ValueError: a value that is not finite, or a type that is not the network's.
    """
    check_finite(weights)
    for name, tensor in network.state_dict().items():
        if name in weights and torch.from_numpy(weights[name]).dtype != tensor.dtype:
            raise ValueError(f"the weights '{name}' are {weights[name].dtype}")
