"""A part of every kind as a plug-in defines them, and a helper that registers them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
import torch
from torch import Tensor

from snl.errors import PluginError
from snl.model.anomaly import DistanceContext
from snl.model.base import Student, StudentOutput, TeacherInfo
from snl.model.losses import BatchFeatures, StageFeatures
from snl.registry import (
    register_distance,
    register_loss,
    register_scorer,
    register_student,
)
from snl.settings import MapSettings, Range, Settings


@dataclass(frozen=True)
class PartSettings:
    """One field of every type that settings can have."""

    weight: float = 0.0
    power: Annotated[float, Range(0, 4)] = 2.0
    count: Annotated[int, Range(1, 9)] = 3
    sizes: tuple[int, ...] = (1, 2)
    form: Literal["plain", "signed"] = "plain"
    note: str = "text"
    centred: bool = False


def stage_loss(stage: StageFeatures, settings: PartSettings) -> Tensor:
    return (stage.teacher - stage.student).abs().pow(settings.power).mean()


def batch_loss(batch: BatchFeatures, settings: PartSettings) -> Tensor:
    code = batch.output.auxiliary["code"]
    return batch.progress * settings.power * len(batch.stages) * code.square().sum()


class Doubling(Student):
    """Returns the features times `power`."""

    def __init__(self, teacher: TeacherInfo, settings: Settings) -> None:
        super().__init__()
        self.teacher_info = teacher
        self.stride = teacher.stages[-1].stride
        self.factor = torch.nn.Parameter(torch.tensor(settings.student.of("doubling").power))

    def forward(self, images: Tensor, features: Sequence[Tensor]) -> StudentOutput:
        return StudentOutput([self.factor * x for x in features])


def power_distance(t: Tensor, s: Tensor, context: DistanceContext) -> Tensor:
    power: float = context.settings.of("power_distance").power
    return (t - s).abs().pow(power).sum(1) + context.stage


def shifted_distance(t: Tensor, s: Tensor, context: DistanceContext) -> Tensor:
    """Uses the fitted moments."""
    assert context.statistics is not None
    mean: Tensor = getattr(context.statistics, f"mean{context.stage}")
    return (t - s).abs().sum(1) + mean.square().sum()


def quantile_score(maps: Tensor, settings: MapSettings) -> Tensor:
    return maps.flatten(1).quantile(settings.of("quantile_score").power / 4, dim=1)


def no_settings_score(maps: Tensor, settings: MapSettings) -> Tensor:
    return -maps.flatten(1).amin(1)


KINDS: dict[str, tuple[Callable[..., Any], Any, str]] = {
    "loss": (register_loss, stage_loss, "loss"),
    "student": (register_student, Doubling, "student"),
    "distance": (register_distance, power_distance, "map"),
    "scorer": (register_scorer, quantile_score, "map"),
}
CHOICE = {
    "student": "student.architecture",
    "distance": "map.distance",
    "scorer": "map.score",
}


def target_of(part: Any) -> str:
    return f"{part.__module__}:{part.__qualname__}"


def register(kind: str, name: str = "fresh", way: str = "settings", **options: Any) -> None:
    """Register the part of this kind by a decorator on its settings or on its function."""
    decorator, part, _ = KINDS[kind]
    if way == "settings":
        result = decorator(name, implementation=target_of(part), **options)(PartSettings)
        assert result is PartSettings
    else:
        assert decorator(name, settings=PartSettings, **options)(part) is part


def refusal(call: Callable[[], Any], kind: type[Exception] = PluginError) -> str:
    """Return the one-line message of the error that the call raises."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert message and "\n" not in message
    return message
