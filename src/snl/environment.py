"""The environment that snl runs in: versions, CPU, devices, and which optional extras are complete.

Every package is imported inside a guard, because an installed package may still fail: a missing
shared library, an incompatible version of another package, a half-finished installation. Nothing
heavy is imported at module level.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
import platform
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from snl import __version__

DISTRIBUTION = "snl-ad"
PACKAGES = (
    *("numpy", "scipy", "pillow", "torch", "torchvision", "timm", "onnxruntime", "openvino"),
    *("onnx", "nncf", "av", "pyarrow", "matplotlib"),
)
"""Packages that are always reported, in this order; the other requirements follow."""
NEEDED_FOR = {
    "train": "snl train, demo and bench; snl inspect of a .snl bundle",
    "runtime": "snl inspect of .onnx files (ONNX Runtime)",
    "openvino": "snl inspect of .xml files (OpenVINO)",
    "export": "snl export (ONNX; int8)",
    "video": "snl inspect of videos, network streams and cameras",
    "parquet": "manifests in Parquet format",
    "plots": "snl probe --picture",
    "remote": "images at addresses such as s3://, and many images (snl inspect -o)",
    "ray": "a Ray cluster (snl inspect --ray)",
    "service": "the HTTP server (snl serve, token, backup, restore)",
    "postgres": "a store of the service in PostgreSQL",
    "client": "snl.Client, which talks to it",
    "pretrain": "pretraining of the teacher (pretraining/)",
    "tensorboard": "snl train --tensorboard",
    "docs": "the documentation site (make docs)",
    "dev": "tests and development",
}
"""What an extra of pyproject.toml is needed for."""

_NOT_IMPORTED = ("docs", "dev")
"""Packages that only these extras need are not imported; their version is enough."""
_MODULES = {
    "paho-mqtt": "paho",
    "pillow": "PIL",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
}
"""Module names that differ from the name of the distribution."""
_CPU_FEATURES = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512_f", "avx512f"),
    "AVX-512 VNNI": ("avx512_vnni",),
    "AVX-512 bf16": ("avx512_bf16",),
    "AMX": ("amx_tile",),
    "AMX bf16": ("amx_bf16",),
    "AMX int8": ("amx_int8",),
    "Arm bf16": ("arm_bf16", "bf16"),
    "Arm SVE": ("sve",),
}
"""Features that matter for inference speed, with their names in `torch.cpu.get_capabilities`."""

Progress = Callable[[int, int], None] | None


@dataclass(frozen=True)
class Requirement:
    """A requirement of this distribution.

    Attributes:
        name: of the required distribution, in lower case.
        minimum: smallest version, or an empty text.
        extra: the extra it belongs to, or an empty text for one that is always needed.
    """

    name: str
    minimum: str
    extra: str


@dataclass(frozen=True)
class Package:
    """A package as it is installed.

    Attributes:
        name: of the distribution.
        version: None if it is not installed or has no version.
        status: `ok`, `missing`, `broken` (importing it fails) or `too old`.
        error: why importing it fails, or which version is needed, in one line.
        needed_by: `snl` and extras that require it.
    """

    name: str
    version: str | None
    status: str
    error: str = ""
    needed_by: Sequence[str] = ()


def describe_environment(progress: Progress = None) -> dict[str, Any]:
    """Return versions, CPU, devices, packages and extras as JSON values; this takes seconds.

    Args:
        progress: called with (done, total) while packages are imported.

    Returns:
        `snl`, `python`, `os`, `cpu`, `packages`, `devices`, `extras`, and `problems`, a list of
        one-line texts: packages that are needed and missing, too old, or cannot be imported.
    """
    requirements = read_requirements()
    packages = check_packages(requirements, progress)
    problems = [
        f"{p.name} {p.status}: {p.error}"
        for p in packages.values()
        if p.status in ("broken", "too old")
    ]
    problems += [
        f"{r.name} is missing, snl needs it: pip install {DISTRIBUTION}"
        for r in requirements
        if not r.extra and packages[r.name].status == "missing"
    ]
    if not requirements:
        problems.append(
            f"{DISTRIBUTION} is not installed as a package, so its requirements are unknown: "
            f"pip install {DISTRIBUTION}"
        )
    devices: dict[str, Any] = {}
    for name, list_devices in (
        ("torch", _torch_devices),
        ("openvino", _openvino_devices),
        ("onnxruntime", _onnxruntime_providers),
    ):
        devices[name] = None
        if packages[name].status in ("ok", "too old"):
            devices[name], error = _guarded(list_devices)
            if error:
                problems.append(f"{name} cannot list its devices: {_one_line(error)}")
    torch_works = packages["torch"].status in ("ok", "too old")
    cpu, error = _guarded(lambda: _cpu(torch_works))
    if error:
        problems.append(f"the CPU cannot be described: {_one_line(error)}")
    return {
        "snl": __version__,
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
        },
        "os": platform.platform(),
        "cpu": cpu or _cpu(False),
        "packages": [asdict(package) for package in packages.values()],
        "devices": devices,
        "extras": check_extras(requirements, packages),
        "problems": problems,
    }


def read_requirements(lines: Iterable[str] | None = None) -> list[Requirement]:
    """Return the requirements of the installed distribution, which come from pyproject.toml.

    Args:
        lines: requirements to parse instead, such as `torch>=2.10; extra == 'train'`.

    Returns:
        An empty list if snl is not installed as a distribution.
    """
    if lines is None:
        try:
            lines = importlib.metadata.requires(DISTRIBUTION) or []
        except importlib.metadata.PackageNotFoundError:
            return []
    requirements = []
    for line in lines:
        name = re.match(r"\s*([\w.-]+)", line)
        specifier, _, marker = line.partition(";")
        minimum = re.search(r">=\s*([\w.]+)", specifier)
        extra = re.search(r"extra\s*==\s*['\"]([\w.-]+)['\"]", marker)
        if name:
            requirements.append(
                Requirement(
                    name[1].lower(), minimum[1] if minimum else "", extra[1] if extra else ""
                )
            )
    return requirements


def check_packages(
    requirements: Sequence[Requirement], progress: Progress = None
) -> dict[str, Package]:
    """Return `PACKAGES` and all requirements by name, each with its version and status.

    Packages are imported, except those that only the extras `docs` and `dev` need.
    """
    minima = dict.fromkeys(PACKAGES, "")
    imported = set(PACKAGES)
    for requirement in requirements:
        if requirement.extra not in _NOT_IMPORTED:
            imported.add(requirement.name)
        if _numbers(requirement.minimum) >= _numbers(minima.get(requirement.name, "")):
            minima[requirement.name] = requirement.minimum
    packages = {}
    names = sorted(minima, key=lambda name: name not in imported)  # stable: the order stays
    for number, name in enumerate(names, 1):
        package = _check_package(name, minima[name], name in imported)
        needed_by = [r.extra or "snl" for r in requirements if r.name == name]
        packages[name] = replace(package, needed_by=needed_by)
        if progress:
            progress(number, len(names))
    return packages


def check_extras(
    requirements: Sequence[Requirement], packages: dict[str, Package]
) -> list[dict[str, Any]]:
    """Return every extra as JSON values: requirements, whether it is complete, pip command."""
    extras: dict[str, list[dict[str, Any]]] = {}
    for requirement in requirements:
        if requirement.extra:
            package = packages[requirement.name]
            extras.setdefault(requirement.extra, []).append(
                {
                    "name": requirement.name,
                    "minimum": requirement.minimum,
                    "version": package.version,
                    "status": package.status,
                }
            )
    order = {name: number for number, name in enumerate(NEEDED_FOR)}
    return [
        {
            "name": name,
            "needed_for": NEEDED_FOR.get(name, ""),
            "complete": all(entry["status"] == "ok" for entry in extras[name]),
            "requirements": extras[name],
            "install": f"pip install '{DISTRIBUTION}[{name}]'",
        }
        for name in sorted(extras, key=lambda name: (order.get(name, len(order)), name))
    ]


def _check_package(name: str, minimum: str, imported: bool) -> Package:
    """Return the version and the status of one package."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = None
    if imported:
        module_name = _MODULES.get(name, name.replace("-", "_"))
        module, error = _guarded(lambda: importlib.import_module(module_name))
        if error:
            absent = isinstance(error, ModuleNotFoundError) and error.name == module_name
            if absent and version is None:
                return Package(name, None, "missing")
            return Package(name, version, "broken", _one_line(error))
        if version is None:  # such as onnxruntime, which has other names with CUDA
            text = getattr(module, "__version__", None)
            version = None if text is None else str(text)
    elif version is None:
        return Package(name, None, "missing")
    if version and minimum and _numbers(version) < _numbers(minimum):
        return Package(name, version, "too old", f"version {minimum} or newer is needed")
    return Package(name, version, "ok")


def _guarded(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Return the function's result and None, or None and its error.

    Whatever a package prints or warns while it is imported is dropped.
    """
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            return function(), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a broken package may raise anything, SystemExit included
        return None, error


def _one_line(error: BaseException) -> str:
    """Return the error's class and message in one line of at most 200 characters of message."""
    message = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, `2.10.0+cpu` as (2, 10, 0)."""
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in leading[0].split(".")) if leading else ()


def _cpu(torch_works: bool) -> dict[str, Any]:
    """Return name, cores and, from PyTorch, the features of the CPU."""
    cores = os.cpu_count() or 1
    affinity = getattr(os, "sched_getaffinity", None)
    cpu: dict[str, Any] = {
        "name": _cpu_name(),
        "cores": cores,
        "usable_cores": len(affinity(0)) if affinity else cores,
        "capability": None,
        "features": None,
    }
    if torch_works:
        import torch

        cpu["capability"] = torch.backends.cpu.get_cpu_capability()
        reader = getattr(torch.cpu, "get_capabilities", None)
        if reader is not None:
            present = {name for name, value in reader().items() if value is True}
        else:
            checks = {
                "avx2": "_is_avx2_supported",
                "avx512_f": "_is_avx512_supported",
                "avx512_vnni": "_is_vnni_supported",
                "avx512_bf16": "_is_avx512_bf16_supported",
                "amx_tile": "_is_amx_tile_supported",
            }
            present = {k for k, name in checks.items() if getattr(torch.cpu, name, bool)()}
        cpu["features"] = [name for name, keys in _CPU_FEATURES.items() if present & set(keys)]
    return cpu


def _cpu_name() -> str:
    """Return the model name of the CPU."""
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return " ".join(value.split())
    return platform.processor() or platform.machine()


def _torch_devices() -> list[dict[str, Any]]:
    import torch

    devices: list[dict[str, Any]] = [{"device": "cpu", "name": "", "memory_bytes": None}]
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            devices.append(
                {
                    "device": f"cuda:{number}",
                    "name": properties.name,
                    "memory_bytes": int(properties.total_memory),
                }
            )
    if torch.backends.mps.is_available():
        devices.append({"device": "mps", "name": "", "memory_bytes": None})
    return devices


def _openvino_devices() -> list[dict[str, Any]]:
    import openvino

    core = openvino.Core()
    return [
        {"device": device, "name": str(core.get_property(device, "FULL_DEVICE_NAME")).strip()}
        for device in core.available_devices
    ]


def _onnxruntime_providers() -> list[dict[str, Any]]:
    import onnxruntime

    return [{"device": name, "name": ""} for name in onnxruntime.get_available_providers()]
