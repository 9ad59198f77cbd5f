"""Weights of a teacher: from the package, the hub or a file; errors for unsuitable ones."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from snl.errors import WeightsError
from snl.files import load_tensors
from snl.model import weights
from snl.model.teacher import Teacher
from snl.runtime import bundle
from snl.settings import TeacherSettings
from tests.model.test_teacher import NETWORKS, full_network, images, teacher_of

# --- files ---


def loaded(file: Path, name: str = "test_resnet", stages: tuple[int, ...] = ()) -> Teacher:
    teacher = teacher_of(name, stages)
    weights.load(teacher, TeacherSettings(name=name, stages=stages, weights=str(file)))
    return teacher


def assert_features_of(teacher: Teacher, net: nn.Module) -> None:
    """Every teacher feature is one of the full network's intermediate maps."""
    x = images()
    with torch.no_grad():
        maps = net.forward_intermediates(x, intermediates_only=True)  # type: ignore[operator]
        for feature in teacher(x):
            same = [m for m in maps if m.shape == feature.shape]
            assert any(torch.allclose(m, feature, atol=1e-5, rtol=1e-4) for m in same)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_of_a_full_checkpoint(name: str, suffix: str, tmp_path: Path) -> None:
    net = full_network(name)
    file = tmp_path / f"net{suffix}"
    if suffix == ".pth":
        torch.save(net.state_dict(), file)
    else:
        save_file(net.state_dict(), file)
    assert_features_of(loaded(file, name), net)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_a_features_only_checkpoint(name: str, tmp_path: Path) -> None:
    torch.manual_seed(7)
    source = timm.create_model(name, features_only=True)
    file = tmp_path / "features.safetensors"
    save_file(source.state_dict(), file)
    state = loaded(file, name).net.state_dict()
    assert len(state) > 20 and all(torch.equal(v, source.state_dict()[k]) for k, v in state.items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s},
        lambda s: {"model": s, "epoch": 3},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}, "epoch": 3},
        lambda s: {k: v.double() if v.is_floating_point() else v for k, v in s.items()},
        lambda s: {k: v for k, v in s.items() if "num_batches" not in k and "fc." not in k},
        lambda s: {**s, "fc.weight": torch.zeros(3, 5), "ema": torch.zeros(1)},
    ],
    ids=["state_dict", "model", "module.", "both", "float64", "bare", "other head"],
)
def test_weights_in_common_wrappers(wrap: Any, tmp_path: Path) -> None:
    net = full_network("test_resnet")
    file = tmp_path / "net.pth"
    torch.save(wrap(net.state_dict()), file)
    assert_features_of(loaded(file), net)


def test_random_leaves_the_seeded_weights() -> None:
    teacher = teacher_of("test_resnet")
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    weights.load(teacher, TeacherSettings(name="test_resnet", weights="random"))
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def weights_refusal(file: Path, name: str = "test_resnet") -> str:
    with pytest.raises(WeightsError) as caught:
        loaded(file, name)
    message = str(caught.value)
    assert "\n" not in message and str(file) in message
    return message


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_missing_file(suffix: str, tmp_path: Path) -> None:
    assert "no such weights file" in weights_refusal(tmp_path / f"none{suffix}")
    assert "'pretrained'" in weights_refusal(tmp_path)  # a folder is no file either


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin", ""])
@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"not weights", b"PK\x03\x04broken"])
def test_corrupt_file(suffix: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"bad{suffix}"
    file.write_bytes(content)
    assert ".safetensors" in weights_refusal(file)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_truncated_file(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"net{suffix}"
    state = full_network("mobilenetv3_small_050").state_dict()
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert "cannot be read" in weights_refusal(file, "mobilenetv3_small_050")


class Attack:
    """Unpickling it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("writer", ["torch", "torch legacy", "pickle"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".safetensors", ""])
def test_a_pickled_object_is_refused_and_not_run(writer: str, suffix: str, tmp_path: Path) -> None:
    target, file = tmp_path / "executed", tmp_path / f"evil{suffix}"
    content = {"state_dict": {"conv1.weight": torch.zeros(1)}, "extra": Attack(target)}
    if writer == "pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=writer == "torch")
    assert "cannot be read as weights" in weights_refusal(file)
    assert not target.exists()
    if writer == "pickle":
        pickle.loads(file.read_bytes())
        assert target.exists()  # unpickling does run it


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(3),
        [torch.zeros(3)],
        {"conv1.weight": 3},
        {"state_dict": [torch.zeros(3)]},
        {0: torch.zeros(3), 1: torch.zeros(3)},
        {"state_dict": {None: torch.zeros(3)}},
        5,
        None,
    ],
    ids=["tensor", "list", "number", "wrapped list", "int keys", "None key", "int", "None"],
)
def test_no_table_of_tensors(content: Any, tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    torch.save(content, file)
    assert "table of tensors" in weights_refusal(file)


def test_weights_of_another_network(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    save_file(full_network("mobilenetv3_small_050").state_dict(), file)
    message = weights_refusal(file)
    assert "not of 'test_resnet'" in message and "--teacher" in message
    wide = {k: v.repeat(2, *[1] * (v.ndim - 1)) if v.ndim else v for k, v in full_state().items()}
    save_file(wide, file)
    assert "shape" in weights_refusal(file)


def full_state() -> dict[str, Tensor]:
    return dict(full_network("test_resnet").state_dict())


def test_an_empty_table(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    torch.save({}, file)
    assert "not of 'test_resnet'" in weights_refusal(file)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value: float, tmp_path: Path) -> None:
    state = full_state()
    state["layer2.0.conv1.weight"].view(-1)[7] = value
    file = tmp_path / "net.safetensors"
    save_file(state, file)
    assert "finite" in weights_refusal(file)
    state = full_state()
    state["fc.weight"].view(-1)[7] = value  # a layer that is not used
    save_file(state, file)
    loaded(file)


# --- hub ---


def test_hub_weights_are_those_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, net = teacher_of("test_resnet"), full_network("test_resnet")

    def fetch(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        assert (name, pretrained, options) == ("test_resnet", True, {})
        return net

    monkeypatch.setattr(timm, "create_model", fetch)
    weights.load(teacher, TeacherSettings(name="test_resnet", weights="pretrained"))
    assert_features_of(teacher, net)


@pytest.mark.parametrize(
    "error",
    [
        OSError("We couldn't connect\nto the hub.\nCheck your connection."),
        RuntimeError("No pretrained weights exist for resnet18"),
        KeyError("x"),
        ConnectionError(),
        ValueError("x" * 5000),
    ],
)
def test_unreachable_hub_names_the_remedies(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = teacher_of("test_resnet")

    def fail(name: str, **options: Any) -> nn.Module:
        raise error

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(WeightsError) as caught:
        weights.load(teacher, TeacherSettings(name="test_resnet", weights="pretrained"))
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    assert "network" in message and "--teacher-weights test_resnet.safetensors" in message
    assert "--teacher snl_compact" in message


def test_offline_hub_for_real(tmp_path: Path) -> None:
    """An empty cache and no network: timm's real failure, in a subprocess."""
    code = """
from snl.errors import WeightsError
from snl.model import weights
from snl.model.teacher import Teacher
from snl.settings import TeacherSettings
settings = TeacherSettings(name="test_resnet", weights="pretrained")
try:
    weights.load(Teacher(settings), settings)
except WeightsError as error:
    print("REFUSED", error)
"""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "TORCH_HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("REFUSED")]
    assert done.returncode == 0 and len(lines) == 1, done.stderr
    assert "--teacher-weights test_resnet.safetensors" in lines[0]


# --- package ---


def test_the_package_file_is_small_and_names_its_origin() -> None:
    file = weights._package_file("snl_compact")
    assert file.stat().st_size <= 6_000_000
    arrays, facts = load_tensors(file, "teacher")  # checks the sha256 over everything
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float16)}
    assert facts["licence"] == "Apache-2.0"
    assert facts["made_by"] and facts["recipe"]["seed"] == 0 and facts["images"] > 0
    assert "BSD-3-Clause" in facts["inputs"]["teacher"]
    assert "public domain" in facts["inputs"]["photographs"]


def test_pretrained_of_the_package() -> None:
    settings = TeacherSettings(name="snl_compact", weights="pretrained")
    assert weights.in_package(settings)
    assert not weights.in_package(TeacherSettings(name="resnet18"))
    assert not weights.in_package(TeacherSettings(name="hf-hub:someone/snl_compact"))
    assert not weights.in_package(TeacherSettings(name="../model/snl_compact"))
    teacher = Teacher(settings)
    before = [f.clone() for f in teacher(images())]
    weights.load(teacher, settings)
    arrays, _ = load_tensors(weights._package_file("snl_compact"), "teacher")
    state = {k.removeprefix("net.model."): v for k, v in teacher.state_dict().items()}
    for name, array in arrays.items():
        assert torch.equal(state[name], torch.from_numpy(array).float()), name
    assert all(not torch.equal(a, b) for a, b in zip(before, teacher(images()), strict=True))


def test_a_damaged_package_file_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(weights._package_file("snl_compact").read_bytes())
    content[-1000] ^= 1
    (tmp_path / "snl_compact.safetensors").write_bytes(content)
    monkeypatch.setattr(weights, "_package_file", lambda name: tmp_path / f"{name}.safetensors")
    settings = TeacherSettings(name="snl_compact", weights="pretrained")
    with pytest.raises(WeightsError, match="damaged; install snl again"):
        weights.load(Teacher(settings), settings)


def test_training_without_options_needs_no_network(parts: Path, tmp_path: Path) -> None:
    """The command in a process without any network connection."""
    code = """
import socket, sys
def refuse(*arguments, **options):
    raise OSError("no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from snl.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    output = tmp_path / "parts.snl"
    small = ["--image-size", "64", "--steps", "2", "--batch-size", "4", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", code, "train", str(parts), "-o", str(output), *small],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "with snl_compact at 64 px" in done.stderr
    network, _ = bundle.load(output)
    assert network.settings.teacher.name == "snl_compact"
    assert network.settings.teacher.weights == "pretrained"
