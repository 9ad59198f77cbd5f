"""Vision transformers as teachers: groups of blocks, sizes, and the transformer student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import snl
from snl.errors import SettingsError
from snl.model import weights
from snl.model.base import Batch, Stage, TeacherInfo
from snl.model.cram import Cram
from snl.model.network import Network
from snl.model.student import ForwardStudent, make_student
from snl.model.teacher import Teacher, default_stages
from snl.model.transformer import LinearAttention, TransformerStudent
from snl.settings import CramSettings, TeacherSettings, resolve
from snl.training.loop import make_optimizer, train_step
from tests.conftest import TINY

FAMILIES = {
    "vit_small_patch16_224": 16,
    "vit_small_patch14_dinov2": 14,
    "vit_small_patch14_reg4_dinov2": 14,
    "vit_base_patch16_clip_224": 16,
    "deit3_small_patch16_224": 16,
    "vit_small_patch16_dinov3": 16,
    "eva02_tiny_patch14_224": 14,
    "beit_base_patch16_224": 16,
}
METHODS = ["rd", "fd", "snl-rd", "snl-fd"]


def teacher_of(name: str = "test_vit", **settings: Any) -> Teacher:
    torch.manual_seed(0)
    return Teacher(TeacherSettings(name=name, weights="random", **settings))


def network_of(method: str, name: str = "test_vit", size: int = 64, **overrides: Any) -> Network:
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    changes |= {"teacher.name": name, "teacher.stages": changes.get("teacher.stages", ())}
    fixed = {"image_size": size, "cram.centres": 4}
    return Network(resolve(method, overrides={**TINY, **fixed, **changes}))


def images(size: int = 64, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


# --- teachers ---


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(name: str) -> None:
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    teacher = teacher_of(name, stages=(0, 1))
    stride, size = FAMILIES[name], teacher.size or 112
    assert teacher.size == (224 if name.startswith("beit") else None)
    assert [stage.stride for stage in teacher.stages] == [stride] * 2
    assert teacher.depths == (1, 1) and not teacher.rectified
    for stage, feature in zip(teacher.stages, teacher(images(size)), strict=True):
        assert feature.shape == (2, stage.channels, size // stride, size // stride)


@pytest.mark.parametrize(
    ("name", "first", "last"), [("test_vit", 1, 4), ("vit_tiny_patch16_224", 2, 9)]
)
def test_default_is_the_middle_two_thirds_in_two_groups(name: str, first: int, last: int) -> None:
    assert default_stages(name) == tuple(range(first, last + 1))
    teacher = teacher_of(name)
    half = (last + 1 - first) // 2
    assert teacher.depths == (half, half) and len(teacher.stages) == 2


@pytest.mark.parametrize(
    "name", ["test_vit", "test_vit3", "vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2"]
)
def test_features_are_means_of_the_networks_blocks(name: str, tmp_path: Path) -> None:
    """Against the whole network of a checkpoint, at another image size."""
    torch.manual_seed(5)
    whole = timm.create_model(name, dynamic_img_size=True).eval()
    save_file(whole.state_dict(), tmp_path / "net.safetensors")
    settings = TeacherSettings(
        name=name, stages=(0, 1, 3, 4, 5), weights=str(tmp_path / "net.safetensors")
    )
    teacher = Teacher(settings)
    weights.load(teacher, settings)
    x = images(112)
    with torch.no_grad():
        blocks = whole.forward_intermediates(x, intermediates_only=True)
        got = teacher(x)
    for feature, group in zip(got, ((0, 1), (3, 4, 5)), strict=True):
        wanted = sum(blocks[i].double() for i in group) / len(group)
        torch.testing.assert_close(feature.double(), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("groups", "depths"), [(1, (5,)), (2, (2, 3)), (3, (1, 2, 2)), (5, (1,) * 5), (9, (1,) * 5)]
)
def test_number_of_groups(groups: int, depths: tuple[int, ...]) -> None:
    teacher = teacher_of(stages=(0, 1, 2, 3, 4), block_groups=groups)
    assert teacher.depths == depths and teacher.stages == (Stage(64, 16),) * len(depths)
    assert len(teacher(images())) == len(depths)


def test_block_groups_have_no_effect_on_other_networks() -> None:
    teacher = Teacher(TeacherSettings(name="resnet18", weights="random", block_groups=1))
    assert len(teacher.stages) == 3 and teacher.depths == ()


def test_merged() -> None:
    separate, merged = teacher_of(), teacher_of(merge="concatenate")
    assert merged.stages == (Stage(128, 16),) and merged.depths == (4,)
    assert torch.equal(merged(images())[0], torch.cat(separate(images()), 1))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit_small_patch14_dinov2", 256, "multiple of 14"),
        ("test_vit", 72, "multiple of 16"),
        ("cait_xxs24_224", 256, "--image-size 224"),
        ("swin_tiny_patch4_window7_224", 224, "B x C x H x W"),
    ],
)
def test_unsuitable_networks_and_sizes_are_refused(name: str, size: int, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        network_of("snl-rd", name, size)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_missing_blocks_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"teacher\.stages.*5 \(stride 16\)"):
        teacher_of(stages=(1, 6))


# --- the student ---


def test_linear_attention_formula() -> None:
    torch.manual_seed(0)
    attention = LinearAttention(128)
    assert attention.heads == 2
    x = torch.randn(2, 5, 128)
    joint = (x.double() @ attention.qkv.weight.double().T + attention.qkv.bias).detach().numpy()
    wanted = np.zeros((2, 5, 128))
    for b in range(2):
        for head in range(2):
            part = slice(64 * head, 64 * head + 64)
            q, k, v = (joint[b, :, 128 * i : 128 * i + 128][:, part] for i in range(3))
            q, k = (np.where(m > 0, m + 1, np.exp(m)) for m in (q, k))  # elu + 1
            for i in range(5):
                share = np.array([q[i] @ k[j] for j in range(5)])
                wanted[b, i, part] = share / share.sum() @ v
    weight, bias = (p.detach().double().numpy() for p in attention.out.parameters())
    np.testing.assert_allclose(attention(x).detach().numpy(), wanted @ weight.T + bias, atol=1e-5)


@pytest.mark.parametrize("channels", [64, 96, 192, 384, 448, 200])
def test_heads_divide_the_channels(channels: int) -> None:
    assert channels % LinearAttention(channels).heads == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("merge", ["none", "concatenate"])
def test_student_fits_and_every_parameter_learns(method: str, merge: str) -> None:
    network = network_of(method, teacher__merge=merge)
    features = network.teacher_features(images())
    outputs = network.student.train()(images(), features).features
    kind = TransformerStudent if method.endswith("rd") else ForwardStudent
    assert isinstance(network.student, kind)
    assert [o.shape for o in outputs] == [f.shape for f in features]
    sum((o.square().sum() for o in outputs), torch.zeros(())).backward()
    for name, parameter in network.student.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name


def test_decoder_mirrors_the_teacher() -> None:
    """As many blocks as the teacher's; the first group's mean is the deepest stage's."""
    student = TransformerStudent((Stage(64, 16),) * 2, (2, 3), CramSettings()).eval()
    assert student.stride == 16
    assert [len(group) for group in student.decoder] == [3, 2]  # type: ignore[arg-type]
    seen: list[Tensor] = []
    for group in student.decoder:
        for block in group:  # type: ignore[attr-defined]
            block.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        shallow, deep = student(None, [torch.randn(2, 64, 3, 4) for _ in range(2)]).features
    for output, blocks in ((deep, seen[:3]), (shallow, seen[3:])):
        for y in range(3):
            for x in range(4):
                tokens = [block[:, 4 * y + x] for block in blocks]
                torch.testing.assert_close(output[:, :, y, x], sum(tokens) / len(tokens))


def test_bottleneck_receives_the_mean_with_noise() -> None:
    student = TransformerStudent((Stage(64, 16),) * 2, (1, 1), CramSettings())
    a, b = torch.randn(1, 64, 2, 2), torch.randn(1, 64, 2, 2)
    assert not torch.equal(student.train().encode([a, b]), student.encode([a, b]))
    student.eval()
    torch.testing.assert_close(student.encode([a, b]), student.encode([(a + b) / 2] * 2))


@pytest.mark.parametrize("form", ["rebuild", "dense", "gate"])
def test_cram_is_on_the_bottleneck(form: str) -> None:
    network = network_of("snl-rd", cram__form=form)
    student = network.student.eval()
    assert isinstance(student, TransformerStudent) and isinstance(student.cram, Cram)
    features = network.teacher_features(images())
    (x,) = student.initialisation_inputs(None, features)
    assert list(student.data_initialised()) == [student.cram]
    assert x.shape == (2, 64, 4, 4)
    seen: list[Tensor] = []
    student.cram.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    student(None, features)
    assert torch.equal(seen[0], x)


@pytest.mark.parametrize("method", [*METHODS, "uniad"])
def test_training_lowers_the_loss(method: str) -> None:
    network = network_of(method, "test_vit", cram__form="none")
    network.student.train()
    x = images(batch=4)
    features = network.teacher_features(x)
    optimizer = make_optimizer(network.student, network.settings.training)
    batch = Batch(x, features, features)
    losses = [train_step(network, optimizer, batch, i)["loss"] for i in range(12)]
    assert min(losses[-3:]) < 0.8 * losses[0]


def test_forward_student_has_the_teachers_architecture() -> None:
    network = network_of("fd", "vit_tiny_patch16_224")
    assert isinstance(network.student, ForwardStudent)
    student, teacher = network.student.net.state_dict(), network.teacher.net.state_dict()
    assert {k: v.shape for k, v in student.items()} == {k: v.shape for k, v in teacher.items()}
    assert any(not torch.equal(student[k], teacher[k]) for k in student)


def test_convolutional_teachers_get_convolutional_students() -> None:
    settings = resolve("rd", overrides=TINY)
    student = make_student(TeacherInfo((Stage(64, 16),)), settings)
    assert not isinstance(student, TransformerStudent)
    assert not any(isinstance(module, nn.LayerNorm) for module in student.modules())


@pytest.mark.parametrize(
    ("method", "name", "size"),
    [
        ("snl-rd", "test_vit", 64),
        ("snl-fd", "test_vit", 64),
        ("uniad", "test_vit", 64),
        ("snl-rd", "vit_small_patch14_reg4_dinov2", 112),
    ],
)
def test_bundle_gives_the_same_maps(
    parts: Path, tmp_path: Path, method: str, name: str, size: int
) -> None:
    changes = {**TINY, "teacher.name": name, "teacher.stages": (), "image_size": size}
    changes |= {"training.steps": 2, "cram.centres": 4}
    file = tmp_path / "a.snl"
    trained = snl.train(parts, output=file, method=method, overrides=changes, quiet=True)
    assert trained.network.settings.teacher.stages == default_stages(name)  # written out
    x = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    for a, b in zip(trained.predict(x)[:3], snl.load(file).predict(x)[:3], strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all()
