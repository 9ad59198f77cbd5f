"""Choice of device and precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from snl.errors import SettingsError


def choose(name: str = "auto") -> torch.device:
    """Return the device of a name.

    Args:
        name: `auto` (CUDA, else MPS, else CPU), `cpu`, `mps`, `cuda` or `cuda:N`.

    Raises:
        SettingsError: an unknown name, or a device that this machine does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise SettingsError(f"unknown device '{name}'; use auto, cpu, cuda, cuda:N or mps")
    available = {
        "cpu": not device.index,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available[device.type]:
        raise SettingsError(f"device '{name}' is not available on this machine; use --device cpu")
    return device


def choose_all(names: str) -> list[str]:
    """Return the devices that work is divided among.

    Args:
        names: names for `choose`, separated by commas; `auto`: all CUDA devices, or with fewer than
            two the result of `choose`.

    Raises:
        SettingsError: as `choose`.
    """
    if names == "auto" and torch.cuda.device_count() > 1:
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [str(choose(name.strip())) for name in names.split(",")]


def choose_precision(device: torch.device, precision: str) -> str:
    """Return `fp32` or `bf16`: the precision itself, or for `auto` the one that suits the device.

    `auto` is bf16 on CUDA devices and CPUs with bf16 arithmetic and fp32 elsewhere. It depends on
    the hardware alone, not on a measurement, so the same command on the same machine always trains
    in the same precision.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Whether the CPU has bf16 matrix instructions (AVX512-BF16 or AMX)."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in checks)


@contextmanager
def cpu_threads(threads: int) -> Iterator[int]:
    """Run the block with this number of PyTorch's CPU threads; 0: leave the number as it is.

    The number belongs to the whole process and is restored afterwards. The block receives the
    number that is in use.
    """
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context in which a network's forward pass runs in `fp32` or `bf16`."""
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
