"""Loading a teacher's weights from this package, timm's hub, or a file."""

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
    """Load the weights that `settings.weights` names into the teacher.

    Args:
        teacher: changed in place.
        settings: `weights` is `pretrained` (`snl_compact`: part of this package; other networks:
            timm's hub, or its cache when offline), `random` (the seeded initial values stay), or a
            file: .safetensors, or a .pth that torch reads with `weights_only`.

    Raises:
        WeightsError: the hub cannot be reached, or the file is missing, unreadable or of another
            network.
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
    """Whether the pretrained weights are part of this package, so that nothing is downloaded."""
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
    log.setLevel(logging.CRITICAL)  # its client logs every retry; the error below reports it once
    try:
        full = timm.create_model(settings.name, pretrained=True)
    except Exception as error:  # the hub's client raises many kinds of errors
        reason = textwrap.shorten(str(error) or "no answer", 110)
        raise WeightsError(
            f"pretrained weights of '{settings.name}' could not be downloaded ({reason}); connect "
            "this machine to the network once (timm keeps the download), give a file: "
            f"--teacher-weights {settings.name}.safetensors, or use the built-in teacher: "
            "--teacher snl_compact"
        ) from None
    finally:
        log.setLevel(level)
    return dict(full.state_dict())


def _file_state(file: str) -> dict[str, Tensor]:
    path = Path(file)
    if not path.is_file():
        raise WeightsError(
            f"{path}: there is no such weights file; give a .safetensors or .pth file, "
            "'pretrained' or 'random'"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: Any = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise many kinds of errors
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else "no reason"
        raise WeightsError(
            f"{path}: cannot be read as weights ({reason}); it must be a .safetensors file, or a "
            ".pth that contains only tensors (no pickled objects)"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()
    ):
        raise WeightsError(f"{path}: contains no table of tensors; save a state_dict in it")
    return dict(loaded)


def _assign(net: nn.Module, state: Mapping[str, Tensor], settings: TeacherSettings) -> None:
    """Copy the tensors by name.

    timm's feature wrappers write `blocks_0` for `blocks.0` and may prefix `model.`, so names are
    compared without dots. Tensors of layers that the stages do not need are ignored.
    """
    available = {key.removeprefix("module.").replace(".", "_"): v for key, v in state.items()}
    matched, missing = {}, []
    for key, current in net.state_dict().items():
        name = key.replace(".", "_")
        value = available.get(name, available.get(name.removeprefix("model_")))
        if value is not None and value.shape == current.shape:
            matched[key] = value.to(current.dtype)
        elif not key.endswith("num_batches_tracked"):
            missing.append(key if value is None else f"{key} (shape {tuple(value.shape)})")
    if missing:
        raise WeightsError(
            f"weights '{settings.weights}' are not of '{settings.name}': {len(missing)} of "
            f"{len(net.state_dict())} tensors are missing or have another shape, first "
            f"{missing[0]}; name the network of the file by --teacher NAME"
        )
    net.load_state_dict(matched, strict=False)
    if not all(bool(torch.isfinite(v).all()) for v in net.state_dict().values()):
        raise WeightsError(
            f"weights '{settings.weights}' contain values that are not finite; give another file"
        )
