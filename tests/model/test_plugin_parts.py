"""Registered parts at work: losses in the sum, a student, a distance and a scorer in a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from snl.model.anomaly import anomaly_map, score
from snl.model.base import StudentOutput
from snl.model.error_statistics import ErrorStatistics
from snl.model.losses import distillation
from snl.model.network import Network
from snl.registry import register_distance, register_loss
from snl.settings import LossSettings, resolve
from snl.training.fit_statistics import fit_statistics
from tests.conftest import TINY
from tests.plugin_parts import (
    Doubling,
    PartSettings,
    batch_loss,
    register,
    shifted_distance,
)

pytestmark = pytest.mark.usefixtures("no_parts_remain")


def features(seed: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=rng) for shape in ((2, 3, 4, 4), (2, 5, 2, 2))]


def test_losses_of_both_scopes() -> None:
    """A loss per stage is summed over the stages, a loss per batch is computed once."""
    register("loss", "per_stage")
    register_loss("per_batch", settings=PartSettings, scope="batch")(batch_loss)
    teacher, student = features(0), features(1)
    student = [s.requires_grad_() for s in student]
    code = torch.tensor([1.0, -2.0], requires_grad=True)
    settings = resolve(
        "rd",
        overrides={
            "loss.global_cosine": 0,
            "loss.per_stage.weight": 0.5,
            "loss.per_stage.power": 3,
            "loss.per_batch.weight": 2,
            "loss.per_batch.power": 1.5,
        },
    ).loss
    output = StudentOutput(student, {"code": code})
    total, terms = distillation(teacher, output, settings, 0.25)
    arrays = [
        (t.double().numpy(), s.detach().double().numpy())
        for t, s in zip(teacher, student, strict=True)
    ]
    per_stage = sum((np.abs(t - s) ** 3).mean() for t, s in arrays)
    per_batch = 0.25 * 1.5 * 2 * 5.0
    assert {k: float(v) for k, v in terms.items()} == pytest.approx(
        {"per_stage": per_stage, "per_batch": per_batch}, rel=1e-5
    )
    assert float(total.detach()) == pytest.approx(0.5 * per_stage + 2 * per_batch, rel=1e-5)
    total.backward()
    for (t, s), tensor in zip(arrays, student, strict=True):
        expected = 0.5 * 3 * (s - t) ** 2 * np.sign(s - t) / s.size
        np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert code.grad is not None
    np.testing.assert_allclose(code.grad.numpy(), 2 * 0.25 * 1.5 * 2 * 2 * np.array([1, -2]))


def test_a_loss_of_weight_zero_is_not_computed() -> None:
    register_loss("per_batch", settings=PartSettings, scope="batch")(batch_loss)
    settings = LossSettings(channel=1.0, plugins={"per_batch": PartSettings()})
    _, terms = distillation(features(0), StudentOutput(features(1)), settings)  # has no "code"
    assert list(terms) == ["channel"]


def network_of(**changes: Any) -> Network:
    overrides = {name.replace("__", "."): value for name, value in changes.items()}
    return Network(resolve("rd", overrides={**TINY, **overrides})).eval()


def pixels() -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))


@torch.no_grad()
def test_student_distance_and_scorer_in_a_network() -> None:
    register("student", "doubling")
    register("distance", "power_distance")
    register("scorer", "quantile_score", way="function")
    network = network_of(
        student__architecture="doubling",
        student__doubling__power=2,
        map__distance="power_distance",
        map__power_distance__power=1,
        map__score="quantile_score",
        map__quantile_score__power=2,
        map__sigma=0,
    )
    student = network.student
    assert isinstance(student, Doubling) and student.teacher_info == network.teacher.info
    assert student.data_initialised() == () and student.initialisation_inputs(pixels(), []) == []
    maps, scores, _ = network(pixels())
    teacher = network.teacher_features(network.normalise(pixels()))
    # |T - 2 T| = |T|, plus the number of the stage
    resized = [
        torch.nn.functional.interpolate(t.abs().sum(1, keepdim=True) + i, (64, 64), mode="bilinear")
        for i, t in enumerate(teacher)
    ]
    expected = sum(resized)[:, 0]  # type: ignore[index]
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores, expected.flatten(1).median(1).values, rtol=1e-2, atol=1e-2)


def test_distance_receives_stage_statistics_and_settings() -> None:
    register_distance("shifted_distance", statistics=True)(shifted_distance)
    network = network_of(map__distance="shifted_distance")
    statistics = ErrorStatistics(network.teacher.stages, 0)
    channels = [stage.channels for stage in network.teacher.stages]
    statistics.set_moments(
        [torch.full((c,), float(i + 1)) for i, c in enumerate(channels)],
        [torch.ones(c) for c in channels],
    )
    shape = [torch.zeros(1, c, 2, 2) for c in channels]
    got = anomaly_map(shape, shape, (2, 2), 0.0, network.settings.map, statistics)
    expected = sum(c * (i + 1) ** 2 for i, c in enumerate(channels))
    torch.testing.assert_close(got, torch.full((1, 2, 2), float(expected)))


@pytest.mark.parametrize("statistics", [False, True])
def test_moments_are_fitted_for_distances_that_need_them(parts: Path, statistics: bool) -> None:
    register_distance("shifted_distance", statistics=statistics)(shifted_distance)
    network = network_of(map__distance="shifted_distance")
    fit_statistics(network, sorted(parts.glob("*/train/good/*.png")))
    assert bool(network.statistics.mean0.any()) == statistics


def test_scorer_receives_the_map_settings() -> None:
    register("scorer", "quantile_score")
    maps = torch.arange(101.0).view(1, 1, 101)
    for power, expected in ((0, 0.0), (1, 25.0), (4, 100.0)):
        settings = resolve(
            overrides={"map.score": "quantile_score", "map.quantile_score.power": power}
        ).map
        assert float(score(maps, settings)) == pytest.approx(expected)
