"""The teacher: stages of any timm network, frozen; errors for unsuitable networks."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from snl.errors import SettingsError
from snl.model.base import Stage
from snl.model.teacher import (
    Teacher,
    create,
    default_stages,
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
def test_layers_after_the_last_stage_are_removed(name: str) -> None:
    """timm keeps three quarters of efficientnet_b0 unused; the features stay the same."""
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
    """Large networks without weights; `dla34` and `hrnet` number their outputs differently."""
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


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "resnet18.nowhere"])
def test_networks_that_do_not_fit_are_refused(name: str) -> None:
    assert name in refusal(name)


def test_normalisation_is_the_networks() -> None:
    for name in ("resnet18", "inception_v3"):
        with torch.device("meta"):
            net = create(name)
        config = timm.get_pretrained_cfg(name)
        assert normalisation_of(net) == (tuple(config.mean), tuple(config.std))


# --- frozen ---


def test_frozen_in_a_parent_in_training_mode() -> None:
    teacher = teacher_of("resnet18")
    parent = nn.ModuleList([teacher]).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    assert parent.training and not any(module.training for module in teacher.modules())
    features = teacher(3 * images() + 1)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any(f.requires_grad for f in features)
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_standardise_fits_every_batch_norm_to_the_images() -> None:
    teacher = Teacher(TeacherSettings(name="test_resnet", stages=(1, 2), weights="random"))
    images = 3 * torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(1)) + 1
    teacher.standardise(images)
    outputs: list[torch.Tensor] = []
    norms = [m for m in teacher.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        # the output of a batch norm before its activation: weight 1, bias 0, so mean 0, variance 1
        norm.register_forward_hook(
            lambda m, i, o: outputs.append(
                torch.nn.functional.batch_norm(i[0], m.running_mean, m.running_var, eps=m.eps)
            )
        )
    teacher(images)
    assert len(outputs) == len(norms) > 0
    for output in outputs:
        # running variances are unbiased, so they differ slightly from those that the pass used
        assert output.mean((0, 2, 3)).abs().max() < 0.01
        assert (output.var((0, 2, 3)) - 1).abs().max() < 0.02
    assert not any(m.training for m in teacher.modules())
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    teacher(images * 2)
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())
