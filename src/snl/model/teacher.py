"""The frozen teacher: any timm network that offers feature maps, or our own `snl_compact`."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snl.errors import SettingsError
from snl.model.base import Stage, TeacherInfo
from snl.settings import TeacherSettings

DEFAULT_STRIDES = (4, 8, 16)


@dataclass(frozen=True)
class Arrangement:
    """How the outputs of a network become stages.

    Attributes:
        stages: that come out.
        groups: positions of the outputs that each stage is the mean of, before merging.
        merged: whether the stages are joined into one.
    """

    stages: tuple[Stage, ...]
    groups: tuple[tuple[int, ...], ...]
    merged: bool

    def __call__(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Outputs (B, C, h, w), shallow to deep, to the features of the stages."""
        means = [
            outputs[g[0]] if len(g) == 1 else torch.stack([outputs[i] for i in g]).mean(0)
            for g in self.groups
        ]
        return [concatenate(means)] if self.merged else means


class Teacher(nn.Module):
    """Feature maps of chosen stages, never trained.

    Args:
        settings: network name and stages. `snl.model.weights.load` reads the weights.

    Attributes:
        stages: `Stage` of every output, shallow to deep.
        depths: of a vision transformer, how many blocks are behind every stage; else empty.
        size: the one image side in pixels that the network takes; None: any multiple of its stride.
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
        self.arrangement = arrange(self.net, settings)
        self.stages = self.arrangement.stages
        depths = tuple(map(len, self.arrangement.groups)) if uniform(self.net) else ()
        self.depths = (sum(depths),) if depths and self.arrangement.merged else depths
        self.mean, self.std = normalisation_of(self.net)
        self.requires_grad_(False).eval()
        self.size, self.rectified = self._probe(settings.name)

    @property
    def info(self) -> TeacherInfo:
        """What a student needs to know of this teacher."""
        return TeacherInfo(self.stages, self.rectified, self.depths)

    def train(self, mode: bool = True) -> Teacher:
        """Stays in evaluation mode: running statistics of a frozen network never move."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) to one (B, C, H / stride, W / stride) per stage."""
        return self.arrangement(self.net(images))

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
    def _probe(self, name: str) -> tuple[int | None, bool]:
        """One pass, a small one if it can be: checks the promised shapes, sees whether only one
        size of image is taken and whether features are rectified."""
        side = 2 * self.stages[-1].stride
        only = None
        rng = torch.Generator().manual_seed(0)
        try:
            outputs = self.net(torch.randn(2, 3, side, side, generator=rng))
        except (RuntimeError, ValueError, AssertionError) as error:
            try:
                only = side = fixed_size(name) or side
                outputs = self.net(torch.randn(2, 3, side, side, generator=rng))
            except (RuntimeError, ValueError, AssertionError):
                raise SettingsError(
                    f"timm network '{name}' takes no image of {side} x {side} pixels ({error}); "
                    "choose a convolutional network or a plain ViT, which take any size"
                ) from None
        for stage, output in zip(stages_of(self.net), outputs, strict=True):
            wanted = (2, stage.channels, side // stage.stride, side // stage.stride)
            if tuple(output.shape) != wanted:
                raise SettingsError(
                    f"a stage of '{name}' gives {tuple(output.shape)} where its description says "
                    f"{wanted}; choose a network whose feature maps are B x C x H x W"
                )
        return only, all(bool((output >= 0).all()) for output in outputs)


def create(name: str, **options: Any) -> nn.Module:
    """`timm.create_model` of a features-only network without pretrained weights, its refusals as
    SettingsError."""
    import timm

    import snl.model.compact  # noqa: F401 - timm then knows `snl_compact`

    if not timm.is_model(name):
        close = difflib.get_close_matches(name.split(".")[0], timm.list_models(), 5)
        hint = f"near it: {', '.join(close)}" if close else "timm.list_models() has the names"
        raise SettingsError(f"timm has no network '{name}'; {hint}")
    options |= {"pretrained": False, "features_only": True}
    try:
        net = _any_size(name, options) if fixed_size(name) else timm.create_model(name, **options)
    except (RuntimeError, ValueError, IndexError, AssertionError, TypeError) as error:
        raise SettingsError(f"timm network '{name}' cannot be built that way: {error}") from None
    # the EfficientNet and MobileNet families keep and run what lies behind the last stage
    parent, _, last = _info(net).module_name()[-1].rpartition(".")
    blocks = getattr(net, "blocks", None)
    if parent == "blocks" and isinstance(blocks, nn.Sequential):
        net.blocks = blocks[: int(last) + 1]
    return net


def _any_size(name: str, options: dict[str, Any]) -> Any:
    """The network with a position embedding that is brought to the size of every image, where it
    has one that can be."""
    import timm

    try:
        return timm.create_model(name, dynamic_img_size=True, **options)
    except TypeError:
        return timm.create_model(name, **options)


def fixed_size(name: str) -> int:
    """Side in pixels of the only image that a network says it takes; 0: it says nothing so."""
    import timm

    config = timm.get_pretrained_cfg(name)
    return int(config.input_size[-1]) if config is not None and config.fixed_input_size else 0


def default_stages(name: str) -> tuple[int, ...]:
    """timm `out_indices` of the stages of strides 4, 8, 16 (the deepest where several match); of a
    uniform network the middle two thirds of its blocks, as Dinomaly (arXiv 2405.14325)."""
    net = create(name)
    if uniform(net):
        count = len(_info(net).info)
        return tuple(range(count // 6, count - count // 6))
    strides = _strides(net)
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
    return _strides(create(name))


def _strides(net: nn.Module) -> dict[int, int]:
    info = _info(net)
    if uniform(net):  # timm's default there are the last three
        return {i: int(entry["reduction"]) for i, entry in enumerate(info.info)}
    return dict(zip(info.out_indices, (stage.stride for stage in stages_of(net)), strict=True))


def uniform(net: nn.Module) -> bool:
    """Whether all blocks give features of one width at one stride, as a vision transformer's."""
    kinds = {(entry["reduction"], entry["num_chs"]) for entry in _info(net).info}
    return len(kinds) == 1 and len(_info(net).info) > 1


def arrange(net: nn.Module, settings: TeacherSettings) -> Arrangement:
    """The stages that the settings make of a network's outputs.

    A uniform network's outputs are cut into consecutive groups of equal size (the deeper ones one
    larger where that does not come out even), each group's mean is a stage: the loose, grouped
    reproduction of Dinomaly (arXiv 2405.14325).
    """
    outputs = stages_of(net)
    count = len(outputs)
    number = min(settings.block_groups, count) if uniform(net) else count
    cuts = [i * count // number for i in range(number + 1)]
    groups = tuple(tuple(range(first, end)) for first, end in itertools.pairwise(cuts))
    stages = tuple(outputs[group[0]] for group in groups)
    if settings.merge == "concatenate":
        stages = (Stage(sum(stage.channels for stage in stages), stages[-1].stride),)
    return Arrangement(stages, groups, settings.merge == "concatenate")


def concatenate(stages: Sequence[Tensor]) -> Tensor:
    """Features (B, C_i, h_i, w_i), shallow to deep, to (B, sum of C_i, h, w) at the last one's size
    (UniAD, arXiv 2206.03687): bilinear, pixel areas aligned, no smoothing before."""
    size = stages[-1].shape[-2:]
    return torch.cat(
        [x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear") for x in stages],
        1,
    )


def stages_of(net: nn.Module) -> tuple[Stage, ...]:
    """Channels and strides as timm's `feature_info` states them; strides must not fall.

    Raises:
        SettingsError: a stage that is not at a power of two times its predecessor's stride.
    """
    info = _info(net)
    stages = tuple(
        Stage(int(c), int(r)) for c, r in zip(info.channels(), info.reduction(), strict=True)
    )
    for shallow, deep in itertools.pairwise(stages):
        ratio = deep.stride / shallow.stride
        if ratio < 1 or not math.log2(ratio).is_integer():
            raise SettingsError(
                f"stages of strides {[s.stride for s in stages]} cannot be mirrored; "
                "list them shallow to deep, each at a power of two times the one before"
            )
    return stages


def _info(net: nn.Module) -> Any:
    """timm's `FeatureInfo`."""
    return net.feature_info


def normalisation_of(net: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (RGB, 0..1) of the network's own pretraining."""
    from timm.data.config import resolve_data_config

    config: dict[str, Any] = resolve_data_config({}, model=net)  # type: ignore[no-untyped-call]
    return tuple(map(float, config["mean"])), tuple(map(float, config["std"]))
