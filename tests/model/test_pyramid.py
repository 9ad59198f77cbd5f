"""The image pyramid, and the size of the bottleneck's code."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from snl.errors import SettingsError
from snl.model.losses import distillation
from snl.model.network import Network
from snl.model.student import PyramidStudent, ReverseStudent
from snl.settings import resolve


def network_of(method: str, size: int = 64, **changes: object) -> Network:
    overrides = {
        "teacher.name": "test_resnet",
        "teacher.weights": "random",
        "teacher.pyramid_levels": 2,
        "image_size": size,
        "cram.centres": 4,
        **changes,
    }
    return Network(resolve(method, overrides=overrides))


def images(size: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize("method", ["rd", "fd", "snl-rd", "snl-fd", "snl", "uniad"])
def test_every_method_has_a_student_for_each_level(method: str, levels: int) -> None:
    network = network_of(method, 128, **{"teacher.pyramid_levels": levels})
    features = network.teacher_features(images(128))
    one = network_of(method, 128, **{"teacher.pyramid_levels": 1})
    assert len(features) == levels * len(one.teacher.stages)
    output = network.student.train()(images(128), features)
    assert [x.shape for x in output.features] == [x.shape for x in features]
    for stage, feature in zip(network.teacher.stages, features, strict=True):
        assert feature.shape == (2, stage.channels, 128 // stage.stride, 128 // stage.stride)
    total, _ = distillation(features, output, network.settings.loss)
    total.backward()
    for name, parameter in network.student.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_a_level_is_the_teacher_on_the_reduced_image() -> None:
    network = network_of("rd", 128, **{"teacher.pyramid_levels": 3})
    features = network.teacher_features(images(128))
    for level, factor in enumerate((1, 0.5, 0.25)):
        reduced = F.interpolate(images(128), scale_factor=factor, mode="area")
        for expected, feature in zip(
            network.teacher.net(reduced), features[3 * level : 3 * level + 3], strict=True
        ):
            torch.testing.assert_close(feature, expected)


@pytest.mark.parametrize("method", ["rd", "fd"])
def test_levels_do_not_mix(method: str) -> None:
    network = network_of(method).eval()
    assert isinstance(network.student, PyramidStudent)
    features = network.teacher_features(images())
    other = [*features[:3], *network.teacher_features(images(seed=1))[3:]]
    before = network.student(images(), features).features
    after = network.student(images(), other).features
    for x, y in zip(before[:3], after[:3], strict=True):
        torch.testing.assert_close(x, y)
    same = [torch.equal(x, y) for x, y in zip(before[3:], after[3:], strict=True)]
    assert all(same) if method == "fd" else not any(same)


def test_the_map_is_the_sum_over_all_levels() -> None:
    network = network_of("rd").eval()
    features = network.teacher_features(images())
    outputs = network.student(images(), features).features
    whole = network.unnormalised(features, outputs)
    parts = []
    for weights in ((1.0, 1.0, 1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)):
        changed = network_of("rd", **{"map.stage_weights": weights}).eval()
        parts.append(changed.unnormalised(features, outputs))
        assert parts[-1].max() > 0
    torch.testing.assert_close(whole, parts[0] + parts[1])


@pytest.mark.parametrize(("levels", "size", "multiple"), [(2, 96, 64), (3, 192, 128)])
def test_sizes_that_a_level_cannot_halve_are_refused(levels: int, size: int, multiple: int) -> None:
    with pytest.raises(SettingsError, match=f"is {size}.*multiple of {multiple}$"):
        network_of("rd", size, **{"teacher.pyramid_levels": levels})


@pytest.mark.parametrize(
    ("least", "size", "sides"),
    [
        (0, 256, (8, 4)),  # halved once
        (4, 256, (4, 4)),
        (4, 128, (4, 2)),  # at least once, whatever the number asks for
        (4, 512, (4, 4)),
        (4, 320, (5, 5)),  # the next half would be smaller than 4
        (2, 256, (2, 2)),
        (3, 192, (3, 3)),
        (1, 192, (3, 3)),  # 3 has no half
    ],
)
def test_size_of_the_code(least: int, size: int, sides: tuple[int, int]) -> None:
    network = network_of("snl-rd", size, **{"student.bottleneck_size": least})
    features = network.teacher_features(images(size))
    assert isinstance(network.student, PyramidStudent)
    for level, side in enumerate(sides):
        student = network.student.levels[level]
        assert isinstance(student, ReverseStudent)
        code = student.encode(features[3 * level : 3 * level + 3])
        assert code.shape[-2:] == (side, side)
    outputs = network.student(None, features).features
    assert [x.shape for x in outputs] == [x.shape for x in features]
