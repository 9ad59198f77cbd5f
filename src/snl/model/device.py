"""Which device computes, and in what precision."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
import torch.nn.functional as F

from snl.errors import SettingsError

CLEAR_GAIN = 1.2
"""bf16 is chosen on a CPU only where it is at least this many times as fast as fp32."""


def choose(name: str = "auto") -> torch.device:
    """`auto` (CUDA, else MPS, else CPU), `cpu`, `mps`, `cuda` or `cuda:N`.

    Raises:
        SettingsError: an unknown name, or a device that this machine does not offer.
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
    present = {
        "cpu": not device.index,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present[device.type]:
        raise SettingsError(f"device '{name}' is not available on this machine; use --device cpu")
    return device


def choose_all(names: str) -> list[str]:
    """Devices to share work among: several names of `choose` separated by commas, each checked;
    `auto`: every CUDA device, or what `choose` finds where there are not several.
    """
    if names == "auto" and torch.cuda.device_count() > 1:
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [str(choose(name.strip())) for name in names.split(",")]


def choose_precision(device: torch.device, wanted: str) -> str:
    """`fp32` or `bf16`: as wanted, or for `auto` what the device trains faster in.

    CUDA devices that have bf16 gain from it. On CPUs it depends on the instruction set, and the
    backward pass of a bf16 convolution can be several times slower than fp32, so it is measured.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and bf16_gain_on_cpu() >= CLEAR_GAIN else "fp32"


@cache
def bf16_gain_on_cpu() -> float:
    """How many times as fast a convolution's forward and backward pass is in bf16 as in fp32."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        shape = {"dtype": dtype, "requires_grad": True}
        x = torch.ones(8, 64, 32, 32, **shape).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        weight = torch.ones(64, 64, 3, 3, **shape)  # type: ignore[call-overload]
        runs = []
        for _ in range(5):
            began = time.perf_counter()
            F.conv2d(x, weight, padding=1).sum().backward()  # type: ignore[no-untyped-call]
            runs.append(time.perf_counter() - began)
        seconds[dtype] = min(runs)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context in which a network's forward pass runs in `fp32` or `bf16`."""
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
