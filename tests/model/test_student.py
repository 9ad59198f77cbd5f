"""Both convolutional students: shapes for any teacher, inputs, gradients, and that they learn."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snl.model.base import Stage
from snl.model.cram import Cram
from snl.model.losses import distillation
from snl.model.network import Network
from snl.model.student import Block, ForwardStudent, ReverseStudent
from snl.settings import CramSettings, StudentSettings, resolve

TEACHERS: list[tuple[str, tuple[int, ...]]] = [
    ("resnet18", ()),
    ("mobilenetv3_small_050", ()),
    ("efficientnet_b0", ()),
    ("convnext_atto", ()),
    ("test_resnet", (1, 3)),  # strides 4 and 16 only
    ("test_resnet", (2,)),  # one stage
    ("test_resnet", (0, 2)),  # strides 2 and 8
    ("test_resnet", (0, 4)),  # strides 2 and 32
    ("resnet18", (3, 4)),  # 512 channels: blocks of the bottleneck type
]
METHODS = ["rd", "fd", "snl-rd", "snl-fd"]


def network_of(
    method: str, name: str = "test_resnet", stages: tuple[int, ...] = (), **overrides: Any
) -> Network:
    changes = {name.replace("__", "."): value for name, value in overrides.items()}
    return Network(
        resolve(
            method,
            overrides={
                "teacher.name": name,
                "teacher.stages": stages,
                "teacher.weights": "random",
                "image_size": 64,
                "cram.centres": 4,
                **changes,
            },
        )
    )


@cache
def images(batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def assert_fits(network: Network) -> None:
    """Shapes as the teacher's, and a gradient at every parameter."""
    features = network.teacher_features(images())
    outputs = network.student.train()(images(), features).features
    assert [o.shape for o in outputs] == [f.shape for f in features]
    torch.manual_seed(0)
    sum((o * torch.randn_like(o)).sum() for o in outputs).backward()  # type: ignore[union-attr]
    for name, parameter in network.student.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
    assert all(p.grad is None for p in network.teacher.parameters())


@pytest.mark.parametrize(("name", "stages"), TEACHERS)
@pytest.mark.parametrize("method", ["snl-rd", "snl-fd"])
def test_fits_every_teacher(method: str, name: str, stages: tuple[int, ...]) -> None:
    assert_fits(network_of(method, name, stages))


def test_fits_a_wide_teacher() -> None:
    """Stages of resnet50's widths, on narrow features: the teacher itself is not needed."""
    stages = [Stage(c, s) for c, s in ((256, 4), (512, 8), (1024, 16))]
    with torch.device("meta"):
        student = ReverseStudent(stages, StudentSettings(), CramSettings())
        features = [torch.empty(2, s.channels, 64 // s.stride, 64 // s.stride) for s in stages]
        outputs = student(None, features).features
        code = student.encode(features)
    assert [o.shape for o in outputs] == [f.shape for f in features]
    assert code.shape == (2, 2048, 2, 2)
    inner = {b.body[0][0].out_channels for b in student.modules() if isinstance(b, Block)}
    assert inner == {64, 128, 256, 512}  # a quarter of each width
    narrow = ReverseStudent([Stage(64, 4)], StudentSettings(), CramSettings())
    assert {b.body[0][0].out_channels for b in narrow.modules() if isinstance(b, Block)} == {
        64,
        128,
    }


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_gets_a_gradient(method: str) -> None:
    """After a first step: timm starts the last norm of a residual block at zero."""
    network = network_of(method)
    student = network.student.train()
    features = network.teacher_features(images(4))
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        total, _ = distillation(features, student(images(4), features), network.settings.loss)
        total.backward()
        optimizer.step()
    for name, p in student.named_parameters():
        assert p.grad is not None and float(p.grad.abs().max()) > 0, name


@pytest.mark.parametrize("place", ["deepest", "stages"])
@pytest.mark.parametrize("form", ["rebuild", "dense", "gate"])
def test_forward_cram_places(form: str, place: str) -> None:
    network = network_of("snl-fd", cram__form=form, cram__place=place)
    student = network.student
    assert isinstance(student, ForwardStudent)
    assert [isinstance(m, Cram) for m in student.cram] == (
        [True] * 3 if place == "stages" else [False, False, True]
    )
    assert_fits(network)
    student.eval()
    inputs = student.initialisation_inputs(images(), [])
    crams = [m for m in student.modules() if isinstance(m, Cram)]
    assert list(student.data_initialised()) == crams
    assert len(inputs) == len(crams)
    outputs = student(images(), []).features[-len(crams) :]
    for cram, x, y in zip(crams, inputs, outputs, strict=True):
        torch.testing.assert_close(cram(x), y)


@pytest.mark.parametrize("form", ["rebuild", "dense", "gate"])
def test_reverse_cram_is_on_the_bottleneck(form: str) -> None:
    network = network_of("snl-rd", cram__form=form)
    student = network.student.eval()
    assert isinstance(student, ReverseStudent) and isinstance(student.cram, Cram)
    features = network.teacher_features(images())
    (x,) = student.initialisation_inputs(None, features)
    assert list(student.data_initialised()) == [student.cram]
    deepest = network.teacher.stages[-1]
    side = 64 // deepest.stride // 2
    assert x.shape == (2, 2 * deepest.channels, side, side)
    seen: list[Tensor] = []
    student.cram.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    student(None, features)
    assert torch.equal(seen[0], x)


@pytest.mark.parametrize("method", ["rd", "fd"])
def test_plain_methods_have_no_cram(method: str) -> None:
    student = network_of(method).student
    assert not student.data_initialised()
    assert not any(isinstance(module, Cram) for module in student.modules())


def test_reverse_student_ignores_the_image() -> None:
    network = network_of("snl-rd").eval()
    features = network.teacher_features(images())
    outputs = [network.student(x, features).features for x in (images(), images(seed=1), None)]
    for other in outputs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outputs[0], other, strict=True))
    changed = [f + 1 for f in features]
    assert not torch.equal(network.student(None, changed).features[0], outputs[0][0])


def test_forward_student_uses_only_the_image() -> None:
    network = network_of("snl-fd").eval()
    with torch.no_grad():
        plain = network.student(images(), network.teacher_features(images())).features
        assert torch.equal(network.student(images(), []).features[0], plain[0])
        assert not torch.equal(network.student(images(seed=1), []).features[0], plain[0])


def test_every_teacher_stage_reaches_the_code() -> None:
    network = network_of("rd").eval()
    student = network.student
    assert isinstance(student, ReverseStudent)
    features = network.teacher_features(images())
    plain = student.encode(features)
    for i in range(len(features)):
        changed = [f + (1.0 if i == j else 0.0) for j, f in enumerate(features)]
        assert not torch.allclose(student.encode(changed), plain)


def test_forward_student_shares_no_weights_with_the_teacher() -> None:
    network = network_of("fd")
    assert isinstance(network.student, ForwardStudent)
    teacher, student = network.teacher.net.state_dict(), network.student.net.state_dict()
    assert teacher.keys() == student.keys()
    assert any(not torch.equal(teacher[k], student[k]) for k in teacher)
    shared = {p.data_ptr() for p in network.teacher.parameters()}
    assert not any(p.data_ptr() in shared for p in network.student.parameters())


@pytest.mark.parametrize(
    ("least", "size", "side"),
    [
        (0, 256, 8),  # halved once
        (4, 256, 4),
        (4, 128, 4),
        (4, 64, 2),  # at least once, whatever the number asks for
        (4, 512, 4),
        (4, 320, 5),  # the next half would be smaller than 4
        (4, 288, 9),  # 9 has no half
        (2, 256, 2),
        (1, 192, 3),
    ],
)
def test_size_of_the_code(least: int, size: int, side: int) -> None:
    network = network_of("snl-rd", image_size=size, student__bottleneck_size=least)
    assert isinstance(network.student, ReverseStudent)
    assert network.student.stride == size // side
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    features = network.teacher_features(images)
    assert network.student.encode(features).shape[-2:] == (side, side)
    outputs = network.student(None, features).features
    assert [x.shape for x in outputs] == [x.shape for x in features]


def test_a_small_code_has_a_gradient_at_every_parameter() -> None:
    network = network_of("snl-rd", student__bottleneck_size=1)
    assert network.student.stride == 64
    assert_fits(network)


@pytest.mark.parametrize("blocks", [(1,), (3,), (3, 4, 6), (1, 1, 1)])
def test_depth_of_the_decoder(blocks: tuple[int, ...]) -> None:
    network = network_of("rd", student__blocks=blocks, student__bottleneck_blocks=3)
    student = network.student
    assert isinstance(student, ReverseStudent)
    wanted = list(blocks) * 3 if len(blocks) == 1 else list(blocks)
    assert [len(stage) for stage in student.decoder] == wanted  # type: ignore[arg-type]
    assert len(student.embed) == 3
    assert_fits(network)


def test_output_is_rectified_as_the_teachers() -> None:
    for name, rectified in (("test_resnet", True), ("mobilenetv3_small_050", False)):
        network = network_of("rd", name).train()
        assert network.teacher.rectified == rectified
        outputs = network.student(None, network.teacher_features(images())).features
        assert all(bool((o >= 0).all()) == rectified for o in outputs)


@pytest.mark.parametrize("scale", ["same", "down", "up"])
@pytest.mark.parametrize("inner", [8, 16])
def test_block(scale: str, inner: int) -> None:
    x = torch.randn(2, 8, 6, 4)
    y = Block(8, 16, inner, scale)(x)
    factor = {"same": 1.0, "down": 0.5, "up": 2.0}[scale]
    assert y.shape == (2, 16, int(6 * factor), int(4 * factor)) and bool((y >= 0).all())
    assert bool((Block(8, 16, inner, scale, rectified=False)(x) < 0).any())
    assert isinstance(Block(16, 16, inner).shortcut, nn.Identity)


@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss(method: str) -> None:
    network = network_of(method)
    student = network.student.train()
    x = images(4)
    features = network.teacher_features(x)
    if network.settings.cram.form != "none":
        with torch.no_grad():
            (inputs,) = student.initialisation_inputs(x, features)
        (cram,) = student.data_initialised()
        assert isinstance(cram, Cram)
        cram.initialise(inputs.flatten(2).transpose(1, 2).flatten(0, 1), seed=0)
    frozen = [p.clone() for p in network.teacher.parameters()]
    optimizer = torch.optim.Adam(student.parameters(), lr=2e-3)
    losses = []
    for _ in range(15):
        total, _ = distillation(features, student(x, features), network.settings.loss)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    assert min(losses[-3:]) < 0.85 * losses[0]
    assert all(torch.equal(p, q) for p, q in zip(network.teacher.parameters(), frozen, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_images_of_a_batch_do_not_mix_at_inference(method: str) -> None:
    network = network_of(method).eval()
    with torch.no_grad():
        features = network.teacher_features(images())
        together = network.student(images(), features).features
        alone = network.student(images()[:1], [f[:1] for f in features]).features
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[:1], b, atol=1e-4, rtol=1e-4)
