"""Checkpoints, from which an interrupted training continues with the same result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snl.errors import BundleError, TrainingError
from snl.files import load_tensors, save_tensors
from snl.model.network import Network

NAME = "checkpoint.safetensors"


def save(
    folder: Path,
    network: Network,
    optimizer: torch.optim.Optimizer,
    step: int,
    identity: dict[str, Any],
    seconds: float,
    precision: str,
    threads: int,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Write student, optimiser state and random state; the teacher never changes.

    Args:
        folder: of the run.
        network, optimizer: their state after the step.
        step: number of finished steps.
        identity: settings and data, which must be the same in a resumed run.
        seconds: training time so far.
        precision, threads: in use; a resumed run keeps them.
        record: loss and its terms in the step.
    """
    tensors = {f"student.{k}": v for k, v in network.student.state_dict().items()}
    tensors |= optimizer_tensors(optimizer)
    tensors["random"] = torch.get_rng_state()
    facts = {
        "step": step,
        "identity": identity,
        "seconds": seconds,
        "precision": precision,
        "threads": threads,
        "record": dict(record or {}),
    }
    arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
    save_tensors(folder / NAME, arrays, "checkpoint", facts)


Checkpoint = tuple[dict[str, np.ndarray], dict[str, Any]]
"""Arrays and facts, as `read` returns them."""


def read(folder: Path, identity: dict[str, Any]) -> Checkpoint:
    """Read a checkpoint.

    Args:
        folder: of the run.
        identity: settings and data of the run that continues.

    Raises:
        TrainingError: the checkpoint is damaged, or of other settings or data.
    """
    try:
        arrays, facts = load_tensors(folder / NAME, "checkpoint")
    except BundleError:
        raise TrainingError(
            f"{folder / NAME}: is damaged or of another version; start over with --overwrite"
        ) from None
    differing = differences(facts["identity"], identity)
    if differing:
        raise TrainingError(
            f"{folder}: the unfinished run has another {', '.join(differing)}; resume with the "
            "same settings and images, or start over with --overwrite"
        )
    return arrays, facts


def restore(
    found: Checkpoint, network: Network, optimizer: torch.optim.Optimizer
) -> tuple[int, float, str, dict[str, Any]]:
    """Load a checkpoint into the student, the optimiser and the random generator.

    Returns:
        Finished steps, training time in seconds, the precision, and the record of the last step.
    """
    arrays, facts = found
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    torch.set_rng_state(tensors.pop("random"))
    student = {k.removeprefix("student."): v for k, v in tensors.items() if k[:8] == "student."}
    network.student.load_state_dict(student)
    restore_optimizer(optimizer, tensors)
    record = dict(facts.get("record", {}))
    return int(facts["step"]), float(facts["seconds"]), str(facts["precision"]), record


def recorded_threads(folder: Path) -> int:
    """Return the number of CPU threads of an unfinished run; 0: unknown."""
    try:
        _, facts = load_tensors(folder / NAME, "checkpoint")
        return int(facts.get("threads", 0))
    except (BundleError, ValueError, TypeError):
        return 0  # `restore` raises the error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state as tensors by the names `optimizer.NUMBER.KEY`."""
    return {
        f"optimizer.{number}.{key}": torch.as_tensor(value)
        for number, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`; other tensors are ignored."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".", 2)
            state.setdefault(int(number), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def clear(folder: Path) -> None:
    """Remove the checkpoint, and incomplete files that a killed process left beside it."""
    for path in (folder / NAME, *folder.glob(f".{NAME}.*.tmp")):
        path.unlink(missing_ok=True)


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Return the dotted names of the values that differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        inner = [differences(old.get(k), new.get(k), f"{name}.{k}".strip(".")) for k in keys]
        return [difference for part in inner for difference in part]
    return [] if old == new else [f"{name} (was {_short(old)}, now {_short(new)})"]


def _short(value: Any) -> Any:
    """Return a value without most digits of a checksum."""
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else value
