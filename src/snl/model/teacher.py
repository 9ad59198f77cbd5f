"""The frozen teacher: any timm network that offers feature maps, or our own `snl_compact`."""

from __future__ import annotations

import difflib
import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snl.errors import SettingsError
from snl.settings import TeacherSettings

DEFAULT_STRIDES = (4, 8, 16)


@dataclass(frozen=True)
class Stage:
    """One feature map of a network: its channels and its stride in input pixels."""

    channels: int
    stride: int


class Teacher(nn.Module):
    """Feature maps of chosen stages, never trained.

    Args:
        settings: network name and stages. Weights are not read here but by `snl.weights.load`.

    Attributes:
        stages: `Stage` of every output, shallow to deep.
        mean, std: the input normalisation that belongs to the weights, RGB in 0..1.
        rectified: whether the features end in a ReLU, so that the student's should too.

    Raises:
        SettingsError: unknown network, no feature maps, or stages it does not have.
    """

    def __init__(self, settings: TeacherSettings) -> None:
        super().__init__()
        indices = settings.stages or default_stages(settings.name)
        if any(deep <= shallow for shallow, deep in itertools.pairwise(indices)):
            raise SettingsError(
                f"setting 'teacher.stages' is {indices}; list them shallow to deep, each once"
            )
        try:
            self.net = create(settings.name, out_indices=indices)
        except SettingsError:
            known = strides_of(settings.name)
            raise SettingsError(
                f"setting 'teacher.stages' is {indices}; '{settings.name}' has "
                f"{', '.join(f'{i} (stride {stride})' for i, stride in known.items())}"
            ) from None
        self.stages = stages_of(self.net)
        self.mean, self.std = normalisation_of(self.net)
        self.requires_grad_(False).eval()
        self.rectified = self._probe(settings.name)

    def train(self, mode: bool = True) -> Teacher:
        """Stays in evaluation mode: running statistics of a frozen network never move."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) to one (B, C, H / stride, W / stride) per stage."""
        return list(self.net(images))

    @torch.no_grad()
    def standardise(self, images: Tensor) -> None:
        """Set the statistics of all batch norms from normalised images (B, 3, H, W).

        For untrained weights only: their initial statistics belong to no data, and the features
        of different places are then nearly alike.
        """
        norms = [m for m in self.net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over what is seen
            norm.train()
        self.net(images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()

    @torch.no_grad()
    def _probe(self, name: str) -> bool:
        """One small pass: checks the promised shapes, sees whether features are rectified."""
        side = 2 * max(stage.stride for stage in self.stages)
        rng = torch.Generator().manual_seed(0)
        try:
            outputs = self.net(torch.randn(2, 3, side, side, generator=rng))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise SettingsError(
                f"timm network '{name}' takes no image of {side} x {side} pixels ({error}); "
                "choose a convolutional network, which takes any size"
            ) from None
        for stage, output in zip(self.stages, outputs, strict=True):
            wanted = (2, stage.channels, side // stage.stride, side // stage.stride)
            if tuple(output.shape) != wanted:
                raise SettingsError(
                    f"a stage of '{name}' gives {tuple(output.shape)} where its description says "
                    f"{wanted}; choose a network whose feature maps are B x C x H x W"
                )
        return all(bool((output >= 0).all()) for output in outputs)


def create(name: str, **options: Any) -> nn.Module:
    """`timm.create_model` of a features-only network without pretrained weights, its refusals as
    SettingsError."""
    import timm

    import snl.model.compact  # noqa: F401 - timm then knows `snl_compact`

    if not timm.is_model(name):
        close = difflib.get_close_matches(name.split(".")[0], timm.list_models(), 5)
        hint = f"near it: {', '.join(close)}" if close else "timm.list_models() has the names"
        raise SettingsError(f"timm has no network '{name}'; {hint}")
    try:
        net: nn.Module = timm.create_model(name, pretrained=False, features_only=True, **options)
    except (RuntimeError, ValueError, IndexError, AssertionError, TypeError) as error:
        raise SettingsError(f"timm network '{name}' cannot be built that way: {error}") from None
    # the EfficientNet and MobileNet families keep and run what lies behind the last stage
    parent, _, last = net.feature_info.module_name()[-1].rpartition(".")  # type: ignore[operator, union-attr]
    if parent == "blocks" and isinstance(getattr(net, parent, None), nn.Sequential):
        net.blocks = net.blocks[: int(last) + 1]  # type: ignore[index]
    return net


def default_stages(name: str) -> tuple[int, ...]:
    """timm `out_indices` of the stages of strides 4, 8, 16 (the deepest where several match)."""
    strides = strides_of(name)
    chosen = [
        max(i for i, s in strides.items() if s == wanted)
        for wanted in DEFAULT_STRIDES
        if wanted in strides.values()
    ]
    if not chosen:
        raise SettingsError(
            f"'{name}' has no stage of stride 4, 8 or 16 (it has {[*strides.values()]}); "
            "name its stages by teacher.stages=0,1,..."
        )
    return tuple(chosen)


def strides_of(name: str) -> dict[int, int]:
    """timm `out_indices` of a network, which need not start at 0, and the strides there."""
    net = create(name)
    indices: tuple[int, ...] = net.feature_info.out_indices  # type: ignore[assignment, union-attr]
    return dict(zip(indices, (stage.stride for stage in stages_of(net)), strict=True))


def stages_of(net: nn.Module) -> tuple[Stage, ...]:
    """Channels and strides as timm's `feature_info` states them; strides must not fall.

    Raises:
        SettingsError: a stage that is not at a power of two times its predecessor's stride.
    """
    info = net.feature_info
    stages = tuple(
        Stage(int(c), int(r))
        for c, r in zip(info.channels(), info.reduction(), strict=True)  # type: ignore[operator, union-attr]
    )
    for shallow, deep in itertools.pairwise(stages):
        ratio = deep.stride / shallow.stride
        if ratio < 1 or not math.log2(ratio).is_integer():
            raise SettingsError(
                f"stages of strides {[s.stride for s in stages]} cannot be mirrored; "
                "list them shallow to deep, each at a power of two times the one before"
            )
    return stages


def normalisation_of(net: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (RGB, 0..1) of the network's own pretraining."""
    from timm.data.config import resolve_data_config

    config: dict[str, Any] = resolve_data_config({}, model=net)  # type: ignore[no-untyped-call]
    return tuple(map(float, config["mean"])), tuple(map(float, config["std"]))
