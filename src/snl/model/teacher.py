"""The frozen teacher: any timm network that returns feature maps, or the built-in `snl_compact`."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snl.dependencies import require
from snl.errors import SettingsError
from snl.model import compact
from snl.model.base import Stage, TeacherInfo
from snl.settings import TeacherSettings

DEFAULT_STRIDES = (4, 8, 16)


@dataclass(frozen=True)
class Arrangement:
    """Mapping from the outputs of a network to stages.

    Attributes:
        stages: the resulting stages.
        groups: for every stage, the indices of the outputs that are averaged, before merging.
        merged: whether the stages are concatenated to one.
    """

    stages: tuple[Stage, ...]
    groups: tuple[tuple[int, ...], ...]
    merged: bool

    def __call__(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the features of the stages from the outputs (B, C, h, w), shallow to deep."""
        means = [
            outputs[group[0]]
            if len(group) == 1
            else torch.stack([outputs[i] for i in group]).mean(0)
            for group in self.groups
        ]
        return [concatenate(means)] if self.merged else means


class Teacher(nn.Module):
    """Feature maps of chosen stages of a network that is never trained.

    Args:
        settings: network name and stages; `snl.model.weights.load` loads the weights.

    Attributes:
        stages: `Stage` of every output, shallow to deep.
        depths: for a vision transformer, the number of blocks averaged in every stage; else empty.
        size: the only image side in pixels that the network accepts; None: any multiple of its
            stride.
        mean, std: input normalisation of the pretraining, RGB in 0..1.
        rectified: whether the features end in a ReLU, so that the student's should too.

    Raises:
        SettingsError: unknown network, no feature maps, or missing stages.
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
            strides = strides_of(settings.name)
            raise SettingsError(
                f"setting 'teacher.stages' is {indices}; '{settings.name}' has "
                f"{', '.join(f'{i} (stride {stride})' for i, stride in strides.items())}"
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
        """Return the facts that a student is built from."""
        return TeacherInfo(self.stages, self.rectified, self.depths)

    def train(self, mode: bool = True) -> Teacher:
        """Keep evaluation mode: running statistics of a frozen network must not change."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return one (B, C, H / stride, W / stride) per stage of normalised images (B, 3, H, W)."""
        return self.arrangement(self.net(images))

    @torch.no_grad()
    def standardise(self, images: Tensor) -> None:
        """Set the statistics of all batch norms from normalised images (B, 3, H, W).

        For untrained weights only: with the initial statistics, the features of different
        positions are nearly equal.
        """
        norms = [m for m in self.net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            norm.train()
        self.net(images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()

    @torch.no_grad()
    def _probe(self, name: str) -> tuple[int | None, bool]:
        """Check the shapes of the features with one pass, on a small image if possible.

        Returns:
            The only image side that the network accepts (None: any), and whether the features are
            rectified.
        """
        side = 2 * self.stages[-1].stride
        fixed = None
        rng = torch.Generator().manual_seed(0)
        try:
            outputs = self.net(torch.randn(2, 3, side, side, generator=rng))
        except (RuntimeError, ValueError, AssertionError) as error:
            try:
                fixed = side = fixed_size(name) or side
                outputs = self.net(torch.randn(2, 3, side, side, generator=rng))
            except (RuntimeError, ValueError, AssertionError):
                raise SettingsError(
                    f"timm network '{name}' does not accept an image of {side} x {side} pixels "
                    f"({error}); choose a convolutional network or a plain ViT, which accept any "
                    "size"
                ) from None
        for stage, output in zip(stages_of(self.net), outputs, strict=True):
            expected = (2, stage.channels, side // stage.stride, side // stage.stride)
            if tuple(output.shape) != expected:
                raise SettingsError(
                    f"a stage of '{name}' has the shape {tuple(output.shape)}, but timm describes "
                    f"{expected}; choose a network whose feature maps are B x C x H x W"
                )
        return fixed, all(bool((output >= 0).all()) for output in outputs)


def create(name: str, **options: Any) -> nn.Module:
    """Return the features-only network of this name, without pretrained weights.

    Raises:
        SettingsError: neither this package nor timm can build it.
        DependencyError: timm is missing.
    """
    if name == compact.NAME:
        return _built(name, lambda: compact.CompactFeatures(**options))
    otherwise = "; exports (snl export) and the built-in teacher do without it"
    require(("torchvision", "timm"), "train", f"the network '{name}'", otherwise)
    import timm

    if not timm.is_model(name):
        known = [compact.NAME, *timm.list_models()]
        close = difflib.get_close_matches(name.split(".")[0], known, 5)
        hint = (
            f"similar names: {', '.join(close)}" if close else "timm.list_models() lists the names"
        )
        raise SettingsError(f"timm has no network '{name}'; {hint}")
    options |= {"pretrained": False, "features_only": True}
    net = _built(name, lambda: _any_size(name, **options))
    # the EfficientNet and MobileNet families keep and run the blocks after the last stage
    parent, _, last = _info(net).module_name()[-1].rpartition(".")
    blocks = getattr(net, "blocks", None)
    if parent == "blocks" and isinstance(blocks, nn.Sequential):
        net.blocks = blocks[: int(last) + 1]
    return net


def _built(name: str, make: Callable[[], nn.Module]) -> nn.Module:
    """Return a network.

    Raises:
        SettingsError: it cannot be built, or has not all stages that are asked for.
    """
    try:
        net = make()
        _info(net).module_name()
    except (RuntimeError, ValueError, IndexError, AssertionError, TypeError) as error:
        raise SettingsError(
            f"network '{name}' cannot be built with these settings: {error}"
        ) from None
    return net


def _any_size(name: str, **options: Any) -> Any:
    """Return timm's network. One for a fixed size gets a position embedding that is resized for
    every image, if it supports that."""
    import timm

    if not fixed_size(name):
        return timm.create_model(name, **options)
    try:
        return timm.create_model(name, dynamic_img_size=True, **options)
    except TypeError:
        return timm.create_model(name, **options)


def fixed_size(name: str) -> int:
    """Return the only image side in pixels that timm allows for a network; 0: timm states none."""
    if name == compact.NAME:
        return 0
    import timm

    config = timm.get_pretrained_cfg(name)
    return int(config.input_size[-1]) if config is not None and config.fixed_input_size else 0


def default_stages(name: str) -> tuple[int, ...]:
    """Return timm `out_indices` of the default stages.

    These are the stages of strides 4, 8 and 16 (the deepest of equal strides); for a uniform
    network the middle two thirds of its blocks, as in Dinomaly (arXiv 2405.14325).

    Raises:
        SettingsError: no stage has one of these strides.
    """
    net = create(name)
    if uniform(net):
        count = len(_info(net).info)
        return tuple(range(count // 6, count - count // 6))
    strides = _strides(net)
    chosen = [
        max(i for i, s in strides.items() if s == stride)
        for stride in DEFAULT_STRIDES
        if stride in strides.values()
    ]
    if not chosen:
        raise SettingsError(
            f"'{name}' has no stage of stride 4, 8 or 16 (it has {[*strides.values()]}); "
            "set teacher.stages=0,1,..."
        )
    return tuple(chosen)


def strides_of(name: str) -> dict[int, int]:
    """Return the stride of every timm `out_index` of a network; the indices need not start at 0."""
    return _strides(create(name))


def _strides(net: nn.Module) -> dict[int, int]:
    info = _info(net)
    if uniform(net):  # by default timm returns the last three
        return {i: int(entry["reduction"]) for i, entry in enumerate(info.info)}
    return dict(zip(info.out_indices, (stage.stride for stage in stages_of(net)), strict=True))


def uniform(net: nn.Module) -> bool:
    """Whether all blocks have the same width and stride, as in a vision transformer."""
    kinds = {(entry["reduction"], entry["num_chs"]) for entry in _info(net).info}
    return len(kinds) == 1 and len(_info(net).info) > 1


def arrange(net: nn.Module, settings: TeacherSettings) -> Arrangement:
    """Return how the settings map a network's outputs to stages.

    The outputs of a uniform network are divided into consecutive groups of equal size (deeper
    groups are one larger if the number is not divisible), and the mean of each group is a stage:
    the loose, grouped reproduction of Dinomaly (arXiv 2405.14325).
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
    """Concatenate features (B, C_i, h_i, w_i), shallow to deep, to (B, sum of C_i, h, w).

    All are resized to the size of the last one (UniAD, arXiv 2206.03687): bilinear, pixel areas
    aligned, without smoothing first.
    """
    size = stages[-1].shape[-2:]
    return torch.cat(
        [x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear") for x in stages],
        1,
    )


def stages_of(net: nn.Module) -> tuple[Stage, ...]:
    """Return channels and strides from timm's `feature_info`.

    Raises:
        SettingsError: a stride is not the previous one times a power of two (1 included).
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
                "list them shallow to deep, each stride a power of two times the previous one"
            )
    return stages


def _info(net: nn.Module) -> Any:
    """timm's `FeatureInfo`."""
    return net.feature_info


def normalisation_of(net: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation (RGB, 0..1) of the network's pretraining."""
    if isinstance(net, compact.CompactFeatures):
        return compact.MEAN, compact.STD
    from timm.data.config import resolve_data_config

    config: dict[str, Any] = resolve_data_config({}, model=net)  # type: ignore[no-untyped-call]
    return tuple(map(float, config["mean"])), tuple(map(float, config["std"]))
