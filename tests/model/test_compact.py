"""`snl_compact`: its size, its features, and that it takes the place of a timm network."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from timm.models import FeatureInfo as TimmInfo
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from snl.errors import SettingsError
from snl.model import compact
from snl.model.base import Stage
from snl.model.student import make_student
from snl.model.teacher import Teacher, create, default_stages
from snl.settings import TeacherSettings, resolve

CHANNELS = compact.FEATURES


def images(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_stages_at_strides_4_8_16() -> None:
    teacher = Teacher(TeacherSettings(name="snl_compact", weights="random"))
    assert default_stages("snl_compact") == (0, 1, 2)
    assert teacher.stages == tuple(map(Stage, CHANNELS, (4, 8, 16)))
    shapes = [tuple(f.shape) for f in teacher(images(96))]
    assert shapes == [(2, c, 96 // s, 96 // s) for c, s in zip(CHANNELS, (4, 8, 16), strict=True)]
    assert not teacher.rectified  # linear readings
    assert teacher.mean == (0.485, 0.456, 0.406) and teacher.std == (0.229, 0.224, 0.225)


def test_within_three_million_parameters_and_one_gflop() -> None:
    net = create("snl_compact").eval()
    assert sum(p.numel() for p in net.parameters()) <= 3_000_000
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 3, 256, 256))
    assert 0 < counter.get_total_flops() <= 1e9


def test_features_are_those_of_plain_convolutions() -> None:
    """Against the same arithmetic written with functions: 3 x 3 convolutions, batch norm, ReLU."""
    torch.manual_seed(3)
    net = create("snl_compact").eval()
    for name, buffer in net.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.add_(torch.rand_like(buffer))
    state = {k.removeprefix("model."): v.double() for k, v in net.state_dict().items()}

    def layer(x: Tensor, name: str, stride: int) -> Tensor:
        x = F.conv2d(x, state[f"{name}.conv.weight"], stride=stride, padding=1)
        mean, var, weight, bias = (
            state[f"{name}.bn.{k}"].view(-1, 1, 1)
            for k in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * weight + bias).clamp_min(0)

    x = layer(images().double(), "stem", 2)
    for number, depth in enumerate(compact.DEPTHS):
        for index in range(depth):
            x = layer(x, f"stages.{number}.{index}", 2 if index == 0 else 1)
        weight, bias = state[f"necks.{number}.weight"], state[f"necks.{number}.bias"]
        wanted = torch.einsum("oc,nchw->nohw", weight[:, :, 0, 0], x) + bias.view(-1, 1, 1)
        torch.testing.assert_close(net(images())[number].double(), wanted, rtol=1e-4, atol=1e-5)


def test_chosen_stages_are_the_same_features() -> None:
    torch.manual_seed(0)
    whole = create("snl_compact").eval()
    part = create("snl_compact", out_indices=(1, 2)).eval()
    part.load_state_dict(whole.state_dict())
    for a, b in zip(part(images()), whole(images())[1:], strict=True):
        assert torch.equal(a, b)


def test_it_is_described_as_timm_describes_its_networks() -> None:
    """Against timm's own wrapper of a network with three stages of these channels."""
    info = [
        {"num_chs": c, "reduction": s, "module": f"stages.{i}", "index": i}
        for i, (c, s) in enumerate(zip(CHANNELS, (4, 8, 16), strict=True))
    ]
    for indices in ((0, 1, 2), (1, 2), (0,), (-2, -1)):
        theirs = TimmInfo([dict(one) for one in info], indices)
        net = create("snl_compact", out_indices=indices)
        ours = net.feature_info
        assert ours.out_indices == theirs.out_indices
        assert ours.channels() == theirs.channels() == [f.shape[1] for f in net(images())]
        assert ours.reduction() == theirs.reduction()
        assert ours.module_name() == theirs.module_name()
    for missing in ((0, 5), (-4,)):
        with pytest.raises(SettingsError, match=r"0 \(stride 4\), 1 \(stride 8\), 2"):
            Teacher(TeacherSettings(name="snl_compact", weights="random", stages=missing))


def test_without_timm() -> None:
    """A network of the default teacher is built, and computes, without importing timm."""
    program = (
        "import sys, torch, snl\n"
        "from snl.model.network import Network\n"
        "network = Network(snl.resolve('snl', 'compact', {'image_size': 64})).eval()\n"
        "network(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))\n"
        "print([name for name in ('timm', 'torchvision', 'torch._dynamo') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_students_are_built_from_it() -> None:
    teacher = Teacher(TeacherSettings(name="snl_compact", weights="random"))
    for method in ("snl-rd", "snl-fd"):
        settings = resolve(method, overrides={"teacher.stages": (0, 1, 2), "image_size": 64})
        student = make_student(teacher.info, settings)
        features = teacher(images())
        shapes = [tuple(f.shape) for f in student(images(), features).features]
        assert shapes == [tuple(f.shape) for f in features]
