"""The teacher: stages of any timm network, frozen, weights from hub or file, or a clear refusal."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from snl.errors import SettingsError, WeightsError
from snl.model.teacher import (
    Stage,
    Teacher,
    create,
    default_stages,
    load_weights,
    normalisation_of,
    stages_of,
)
from snl.settings import TeacherSettings

NETWORKS = ["resnet18", "mobilenetv3_small_050", "efficientnet_b0", "convnext_atto"]
CHANNELS = {
    "resnet18": (64, 128, 256),
    "resnet50": (256, 512, 1024),
    "wide_resnet50_2": (256, 512, 1024),
    "mobilenetv3_small_050": (8, 16, 24),
    "efficientnet_b0": (24, 40, 112),
    "convnext_atto": (40, 80, 160),
}


def teacher_of(name: str, stages: tuple[int, ...] = ()) -> Teacher:
    torch.manual_seed(0)
    return Teacher(TeacherSettings(name=name, stages=stages, weights="random"))


def full_network(name: str, seed: int = 5) -> nn.Module:
    """The whole timm network with its head, random weights and moved running statistics."""
    torch.manual_seed(seed)
    net: nn.Module = timm.create_model(name, pretrained=False)
    for buffer_name, buffer in net.named_buffers():
        if buffer_name.endswith(("running_mean", "running_var")):
            buffer.add_(torch.rand_like(buffer))
    return net.eval()


def images(size: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


# --- stages ---


@pytest.mark.parametrize("name", NETWORKS)
def test_default_stages_are_of_strides_4_8_16(name: str) -> None:
    teacher = teacher_of(name)
    assert teacher.stages == tuple(map(Stage, CHANNELS[name], (4, 8, 16)))
    shapes = [tuple(f.shape) for f in teacher(images())]
    assert shapes == [(2, c, 64 // s, 64 // s) for c, s in zip(CHANNELS[name], (4, 8, 16))]  # noqa: B905
    assert teacher.rectified == (name == "resnet18")


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_kept_behind_the_last_stage(name: str) -> None:
    """timm keeps three quarters of efficientnet_b0 without a use; features are the same."""
    teacher = teacher_of(name)
    parameters = list(teacher.parameters())
    for parameter in parameters:
        parameter.requires_grad_()
    total = sum((f.sum() for f in teacher(images())), torch.zeros(()))
    grads = torch.autograd.grad(total, parameters, allow_unused=True)
    assert not any(g is None for g in grads)
    whole = timm.create_model(name, features_only=True, out_indices=default_stages(name)).eval()
    whole.load_state_dict(teacher.net.state_dict(), strict=False)
    for a, b in zip(teacher(images()), whole(images()), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["resnet50", "wide_resnet50_2", "vgg11", "dla34", "hrnet_w18"])
def test_default_stages_by_description(name: str) -> None:
    """Large networks without their weights; `dla34` and `hrnet` count their outputs otherwise."""
    with torch.device("meta"):
        stages = stages_of(create(name, out_indices=default_stages(name)))
    assert [stage.stride for stage in stages] == [4, 8, 16]
    if name in CHANNELS:
        assert tuple(stage.channels for stage in stages) == CHANNELS[name]


@pytest.mark.parametrize(
    ("name", "indices", "strides"),
    [
        ("resnet18", (0,), [2]),
        ("resnet18", (1, 3), [4, 16]),
        ("resnet18", (2, 4), [8, 32]),
        ("resnet18", (0, 1, 2, 3, 4), [2, 4, 8, 16, 32]),
        ("convnext_atto", (0, 3), [4, 32]),
        ("efficientnet_b0", (1, 3), [4, 16]),
    ],
)
def test_chosen_stages(name: str, indices: tuple[int, ...], strides: list[int]) -> None:
    teacher = teacher_of(name, indices)
    assert [stage.stride for stage in teacher.stages] == strides
    for stage, f in zip(teacher.stages, teacher(images()), strict=True):
        assert f.shape == (2, stage.channels, 64 // stage.stride, 64 // stage.stride)


def refusal(name: str, stages: tuple[int, ...] = ()) -> str:
    with pytest.raises(SettingsError) as caught:
        teacher_of(name, stages)
    message = str(caught.value)
    assert "\n" not in message and message
    return message


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "convnext_atto"])
def test_stages_it_does_not_have_are_refused(name: str) -> None:
    message = refusal(name, (1, 9))
    assert name in message and "teacher.stages" in message


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_stages_out_of_order_or_twice_are_refused(name: str) -> None:
    assert "shallow to deep" in refusal(name, (3, 1))
    assert "shallow to deep" in refusal(name, (1, 1))


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnt18", "resnet18"),
        ("resnet19", "resnet18"),
        ("wide_resnet50_3", "wide_resnet50_2"),
        ("mobilenet_v3_small", "mobilenetv3_small"),
        ("", "timm.list_models()"),
        ("no such thing at all", "timm.list_models()"),
    ],
)
def test_unknown_name_is_refused_with_suggestions(name: str, near: str) -> None:
    message = refusal(name)
    assert f"no network '{name}'" in message and near in message


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "resnet18.nowhere"]
)
def test_networks_that_do_not_fit_are_refused(name: str) -> None:
    assert name in refusal(name)


def test_normalisation_travels_with_the_network() -> None:
    for name in ("resnet18", "inception_v3"):
        with torch.device("meta"):
            net = create(name)
        config = timm.get_pretrained_cfg(name)
        assert normalisation_of(net) == (tuple(config.mean), tuple(config.std))


# --- frozen ---


def test_frozen_whatever_the_parent_does() -> None:
    teacher = teacher_of("resnet18")
    parent = nn.ModuleList([teacher]).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    assert parent.training and not any(module.training for module in teacher.modules())
    features = teacher(3 * images() + 1)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any(f.requires_grad for f in features)
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name


# --- weights ---


def loaded(file: Path, name: str = "test_resnet", stages: tuple[int, ...] = ()) -> Teacher:
    teacher = teacher_of(name, stages)
    load_weights(teacher, TeacherSettings(name=name, stages=stages, weights=str(file)))
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
    own = loaded(file, name).net.state_dict()
    assert len(own) > 20 and all(torch.equal(v, source.state_dict()[k]) for k, v in own.items())


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
def test_weights_as_others_wrap_them(wrap: Any, tmp_path: Path) -> None:
    net = full_network("test_resnet")
    file = tmp_path / "net.pth"
    torch.save(wrap(net.state_dict()), file)
    assert_features_of(loaded(file), net)


def test_random_leaves_the_seeded_weights() -> None:
    teacher = teacher_of("test_resnet")
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    load_weights(teacher, TeacherSettings(name="test_resnet", weights="random"))
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
    assert "'hub'" in weights_refusal(tmp_path)  # a folder is no file either


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
        assert target.exists()  # it would have


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
    load_weights(teacher, TeacherSettings(name="test_resnet", weights="hub"))
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
def test_unreachable_hub_names_both_ways_out(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = teacher_of("test_resnet")

    def fail(name: str, **options: Any) -> nn.Module:
        raise error

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(WeightsError) as caught:
        load_weights(teacher, TeacherSettings(name="test_resnet", weights="hub"))
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    assert "network" in message and "--teacher-weights test_resnet.safetensors" in message


def test_offline_hub_for_real(tmp_path: Path) -> None:
    """An empty cache and no network: timm's own failure, in a process of its own."""
    code = """
from snl.errors import WeightsError
from snl.model.teacher import Teacher, load_weights
from snl.settings import TeacherSettings
settings = TeacherSettings(name="test_resnet", weights="hub")
try:
    load_weights(Teacher(settings), settings)
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


def test_standardise_fits_every_batch_norm_to_the_images() -> None:
    teacher = Teacher(TeacherSettings(name="test_resnet", stages=(1, 2), weights="random"))
    images = 3 * torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(1)) + 1
    teacher.standardise(images)
    seen: list[torch.Tensor] = []
    norms = [m for m in teacher.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        # what a batch norm puts out before its activation: weight 1, bias 0, so mean 0, variance 1
        norm.register_forward_hook(
            lambda m, i, o: seen.append(
                torch.nn.functional.batch_norm(i[0], m.running_mean, m.running_var, eps=m.eps)
            )
        )
    teacher(images)
    assert len(seen) == len(norms) > 0
    for output in seen:
        # running variances are unbiased ones, so a little apart from what the pass itself used
        assert output.mean((0, 2, 3)).abs().max() < 0.01
        assert (output.var((0, 2, 3)) - 1).abs().max() < 0.02
    assert not any(m.training for m in teacher.modules())
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    teacher(images * 2)
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())
