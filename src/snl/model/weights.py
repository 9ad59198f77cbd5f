"""Where a teacher's weights come from: this package, timm's hub, or a file."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snl.errors import BundleError, WeightsError
from snl.files import load_tensors
from snl.model.teacher import Teacher
from snl.settings import TeacherSettings


def load(teacher: Teacher, settings: TeacherSettings) -> None:
    """Fill the teacher with the weights that `settings.weights` names.

    `pretrained` are those that belong to the network: of `snl_compact` the ones in this package,
    of any other timm's (its hub; its cache serves offline). `random` leaves the seeded initial
    values, anything else is a file: .safetensors, or a .pth that torch reads with `weights_only`.

    Raises:
        WeightsError: hub not reachable, file missing, unreadable or not of this network.
    """
    if settings.weights == "random":
        return
    if settings.weights != "pretrained":
        state = _file_state(settings.weights)
    elif in_package(settings):
        state = _package_state(settings)
    else:
        state = _hub_state(settings)
    _assign(teacher.net, state, settings)


def in_package(settings: TeacherSettings) -> bool:
    """Whether the network's own weights come with this package, so that no network is needed."""
    return settings.name.isidentifier() and _package_file(settings.name).is_file()


def _package_file(name: str) -> Path:
    return Path(__file__).parent / f"{name}.safetensors"


def _package_state(settings: TeacherSettings) -> dict[str, Tensor]:
    try:
        arrays, _ = load_tensors(_package_file(settings.name), "teacher")
    except BundleError:
        raise WeightsError(
            f"the weights of '{settings.name}' in this installation are damaged; install snl "
            "again: pip install --force-reinstall snl-ad"
        ) from None
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _hub_state(settings: TeacherSettings) -> dict[str, Tensor]:
    import timm

    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.CRITICAL)  # its client tells every retry; the error below says it once
    try:
        full = timm.create_model(settings.name, pretrained=True)
    except Exception as error:  # the hub's client raises a dozen kinds
        reason = textwrap.shorten(str(error) or "no answer", 110)
        raise WeightsError(
            f"pretrained weights of '{settings.name}' could not be fetched ({reason}). Ways out: "
            "connect this machine to the network once (timm keeps what it fetched), give a file: "
            f"--teacher-weights {settings.name}.safetensors, or take the built-in teacher: "
            "--teacher snl_compact"
        ) from None
    finally:
        log.setLevel(level)
    return dict(full.state_dict())


def _file_state(file: str) -> dict[str, Tensor]:
    path = Path(file)
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such weights file; give a .safetensors or .pth file, or 'pretrained' or "
            "'random'"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: Any = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise many kinds
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else "no reason"
        raise WeightsError(
            f"{path}: cannot be read as weights ({reason}); it must be a .safetensors file, or a "
            ".pth holding nothing but tensors (no pickled objects)"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()
    ):
        raise WeightsError(f"{path}: holds no table of tensors; save a state_dict there")
    return dict(loaded)


def _assign(net: nn.Module, state: Mapping[str, Tensor], settings: TeacherSettings) -> None:
    """Copy by name. timm's feature wrappers write `blocks_0` for `blocks.0` and may prefix
    `model.`, so names are compared without dots; layers that the stages do not need are left."""
    given = {key.removeprefix("module.").replace(".", "_"): v for key, v in state.items()}
    matched, missing = {}, []
    for key, own in net.state_dict().items():
        plain = key.replace(".", "_")
        value = given.get(plain, given.get(plain.removeprefix("model_")))
        if value is not None and value.shape == own.shape:
            matched[key] = value.to(own.dtype)
        elif not key.endswith("num_batches_tracked"):
            missing.append(key if value is None else f"{key} (shape {tuple(value.shape)})")
    if missing:
        raise WeightsError(
            f"weights '{settings.weights}' are not of '{settings.name}': {len(missing)} of "
            f"{len(net.state_dict())} tensors missing or of another shape, first {missing[0]}; "
            "give the network the file was made for by --teacher NAME"
        )
    net.load_state_dict(matched, strict=False)
    if not all(bool(torch.isfinite(v).all()) for v in net.state_dict().values()):
        raise WeightsError(f"weights '{settings.weights}' hold values that are not finite numbers")
