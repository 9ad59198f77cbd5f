"""The one file that training writes: the networks, and what is known beside them.

A safetensors file; the format and its checks are in `snl.files`. Calibrations are data beside the
network, the newest last, so that a change can be taken back.
"""

from __future__ import annotations

from pathlib import Path

import torch

from snl.errors import BundleError, SettingsError
from snl.files import load_tensors, save_tensors
from snl.model.network import Network
from snl.runtime import model_metadata as beside
from snl.runtime.model_metadata import Known

KIND = "bundle"


def save(path: str | Path, network: Network, known: Known) -> None:
    """Write a bundle, by custom `*.snl`, whole or not at all."""
    document, arrays = beside.write(known)
    arrays |= {name: v.detach().cpu().numpy() for name, v in network.state_dict().items()}
    save_tensors(path, arrays, KIND, document)


def load(path: str | Path) -> tuple[Network, Known]:
    """Inverse of `save`; the network is on the CPU, in evaluation mode.

    Raises:
        BundleError: missing, damaged, foreign, newer, or not what its own settings describe.
    """
    arrays, document = load_tensors(path, KIND)
    try:
        known = beside.read(document, arrays)
        network = Network(known.settings)
        network.load_state_dict({name: torch.from_numpy(v) for name, v in arrays.items()})
        if known.prototypes.centres.shape[1] != network.statistics.centres.shape[1]:
            raise ValueError("the prototypes are damaged")
    except (SettingsError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError,
            RuntimeError) as error:  # fmt: skip
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:150]
        raise BundleError(
            f"{path}: its description and its weights do not fit together ({reason}); it was "
            "edited, or made by another version of snl or timm: train it again"
        ) from None
    for name in ("mean", "std"):
        getattr(network, name).copy_(torch.tensor(getattr(known, name)).view(1, 3, 1, 1))
    return network.eval(), known
