"""`snl train --devices`: start one process for each device with PyTorch's elastic launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from snl.errors import SettingsError, TrainingError
from snl.temporary import temporary_folder

LAUNCHED = "SNL_LAUNCHED"
"""Set in the environment of the processes that `launch` starts, which leave it to `launch` to say
that one of them was lost."""


def parse_devices(text: str) -> list[str]:
    """Return the devices of a list such as `0,1` (GPUs) or `cpu,cpu`.

    Raises:
        SettingsError: not such a list, or GPUs that this machine does not have.
    """
    names = [name.strip().removeprefix("cuda:") for name in text.split(",")]
    if set(names) == {"cpu"}:
        return names
    if not all(name.isdecimal() for name in names) or len(set(names)) < len(names):
        raise SettingsError(
            f"--devices {text}: give numbers of GPUs such as 0,1, each once, or cpu,cpu"
        )
    count = torch.cuda.device_count()
    missing = [name for name in names if int(name) >= count]
    if missing:
        known = f"GPUs 0 to {count - 1}" if count else "no GPU"
        raise SettingsError(
            f"--devices {text}: there is no GPU {missing[0]}; this machine has {known}"
        )
    return names


def launch(arguments: Sequence[str], devices: Sequence[str]) -> int:
    """Run `snl` with the same arguments in one process for each device, and return the status.

    Args:
        arguments: of `snl`, of a training.
        devices: as `parse_devices` returns them.

    Raises:
        TrainingError: a process was lost.
    """
    os.environ.setdefault("LOGLEVEL", "CRITICAL")
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _silence()
    with temporary_folder("snl-launch") as logs, _environment(devices):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=len(devices),
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            monitor_interval=0.2,
            logs_specs=DefaultLogsSpecs(log_dir=str(logs)),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "snl", *arguments)
        except SignalException as stop:
            return 128 + int(stop.sigval)
        except ChildFailedError as error:
            return _status(error)
    return 0


def _status(error: object) -> int:
    """Return the exit status after a process failed.

    Raises:
        TrainingError: it was ended by a signal.
    """
    codes = {rank: f.exitcode for rank, f in error.failures.items()}  # type: ignore[attr-defined]
    explained = [code for _, code in sorted(codes.items()) if code > 0]
    stopped = {-signal.SIGTERM, -signal.SIGINT}  # by the launcher, where another one failed
    for rank, code in sorted(codes.items(), key=lambda item: item[1] in stopped):
        if code < 0 and not (code in stopped and explained):
            name = signal.Signals(-code).name
            why = "; was memory used up?" if name == "SIGKILL" else ""
            raise TrainingError(
                f"process {rank} of the training was ended by {name}{why}; the last checkpoint is "
                "kept: run the same command with --resume, if you like with other --devices"
            )
    return int(explained[0]) if explained else 2


def _silence() -> None:
    """Keep the launcher's own messages back: each failure has one line."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


@contextmanager
def _environment(devices: Sequence[str]) -> Iterator[None]:
    """Set what the processes inherit: their GPUs, or a share of the CPU's cores."""
    changes = {LAUNCHED: "1"}
    if devices[0] == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        threads = str(max(1, (cores or 1) // len(devices)))
        changes["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", threads)
    else:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        chosen = [visible[int(n)] if int(n) < len(visible) and visible[0] else n for n in devices]
        changes["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
