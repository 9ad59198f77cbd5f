"""Several processes train one model: how they find each other, and how they are started."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
import torch.distributed as dist

from snl.errors import SettingsError, TrainingError
from snl.model.ranks import ALONE, FailedElsewhereError, Ranks


class LostError(TrainingError):
    """Another process of the training ended or cannot be reached."""


_TIMEOUT = datetime.timedelta(hours=12)
"""How long ranks wait for the first one, which alone reads white levels and calibrates. A process
that ends is noticed at once, since its connections close."""
_LOST = ("connection closed by peer", "connection reset", "broken pipe", "gloo", "nccl")


def is_started_by_torchrun() -> bool:
    """Return whether this process is one of several that torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def is_first() -> bool:
    """Return whether this process writes files and speaks to the user."""
    return os.environ.get("RANK", "0") == "0" or not is_started_by_torchrun()


def is_restarted() -> bool:
    """Return whether torchrun has started the processes again after one was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") or 0) > 0


def device_name(name: str) -> str:
    """Return the device of this process: with `auto` or `cuda` a GPU of its own, where it is one of
    several."""
    if name not in ("auto", "cuda") or not is_started_by_torchrun():
        return name
    if not torch.cuda.is_available():
        return "cpu" if name == "auto" else name
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= torch.cuda.device_count():
        raise SettingsError(
            f"{os.environ.get('LOCAL_WORLD_SIZE')} processes were started for "
            f"{torch.cuda.device_count()} GPUs; start one for each GPU"
        )
    return f"cuda:{local}"


@contextmanager
def joined(batch_size: int) -> Iterator[Ranks]:
    """Connect the processes that torchrun started, by gloo for the CPU's tensors and NCCL for a
    GPU's; without torchrun there is one process.

    Args:
        batch_size: of the whole batch.

    Raises:
        SettingsError: the batch cannot be divided equally.
        LostError: another process was lost.
    """
    if not is_started_by_torchrun():
        yield ALONE
        return
    ranks = Ranks(*(int(os.environ[name]) for name in (
        "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))  # fmt: skip
    if batch_size % ranks.size:
        if not ranks.is_first:
            raise FailedElsewhereError("the first process says why")
        raise SettingsError(
            f"a batch of {batch_size} cannot be divided among {ranks.size} processes; set "
            f"--batch-size to a multiple of {ranks.size}"
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=_TIMEOUT)
        yield ranks
    except RuntimeError as error:
        if not is_lost(error):
            raise
        raise LostError(
            "another process of this training ended or cannot be reached; the checkpoint is kept: "
            "run the same command with --resume"
        ) from error
    finally:
        with suppress(Exception):  # after a loss there is nobody to say goodbye to
            dist.destroy_process_group()


def is_lost(error: RuntimeError) -> bool:
    """Return whether an error means that another process is gone."""
    if isinstance(error, dist.DistBackendError | dist.DistNetworkError | dist.DistStoreError):
        return True
    text = str(error).lower()
    return any(words in text for words in _LOST)
