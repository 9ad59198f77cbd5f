"""`snl_compact`: the small convolutional teacher whose weights are part of this package.

Plain 3 x 3 convolutions, each with batch norm and ReLU, in three stages of strides 4, 8 and 16; a
1 x 1 convolution computes every stage's features. All its layers can be fused and quantised. It
needs only PyTorch: importing timm takes longer than inspecting an image does. How its weights were
trained: docs/teacher.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

NAME = "snl_compact"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Normalisation of the images (RGB, 0..1)."""
WIDTHS = (24, 40, 96, 192)
"""Channels of the stem and of the three stages."""
DEPTHS = (2, 2, 3)
"""Convolutions per stage; the first has stride 2."""
FEATURES = (32, 64, 128)
"""Channels of the features of the three stages."""


class Compact(nn.Module):
    """Network from images (B, 3, H, W) to features at strides 4, 8 and 16.

    Args:
        features: channels of the three outputs.
    """

    def __init__(self, features: Sequence[int] = FEATURES) -> None:
        super().__init__()
        self.stem = _Layer(3, WIDTHS[0], stride=2)
        self.stages = nn.ModuleList()
        self.necks = nn.ModuleList()
        channels = WIDTHS[0]
        for width, depth, outputs in zip(WIDTHS[1:], DEPTHS, features, strict=True):
            layers = [_Layer(channels, width, stride=2)]
            layers += [_Layer(width, width) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(*layers))
            self.necks.append(nn.Conv2d(width, outputs, 1))
            channels = width

    def forward(self, x: Tensor, taken: Sequence[int] = (0, 1, 2)) -> list[Tensor]:
        """Return the features of the stages `taken`, shallow to deep.

        That of stage i is (B, C, H / s, W / s) with the stride s = 4 * 2^i.
        """
        x = self.stem(x)
        outputs = []
        for i, (stage, neck) in enumerate(zip(self.stages, self.necks, strict=True)):
            if i > max(taken):
                break
            x = stage(x)
            if i in taken:
                outputs.append(neck(x))
        return outputs


class CompactFeatures(nn.Module):
    """`Compact` with the interface and the tensor names of a features-only network of timm.

    Args:
        out_indices: stages whose features are returned; negative ones count from the last.

    Raises:
        IndexError: there is no such stage.
    """

    def __init__(self, out_indices: Sequence[int] = (0, 1, 2)) -> None:
        super().__init__()
        count = len(FEATURES)
        if not all(-count <= i < count for i in out_indices):
            raise IndexError(f"stages {tuple(out_indices)} of {count}")
        self.model = Compact()
        self.feature_info = FeatureInfo(out_indices)
        self._taken = [i % count for i in out_indices]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of the chosen stages, shallow to deep."""
        outputs: list[Tensor] = self.model(x, self._taken)
        return outputs


class FeatureInfo:
    """Channels and strides of the stages, as timm's class of this name describes them.

    Attributes:
        out_indices: chosen stages.
        info: facts of all stages.
    """

    def __init__(self, out_indices: Sequence[int]) -> None:
        self.out_indices = tuple(out_indices)
        self.info: list[dict[str, Any]] = [
            {"num_chs": channels, "reduction": 4 * 2**i, "module": f"stages.{i}"}
            for i, channels in enumerate(FEATURES)
        ]

    def channels(self) -> list[int]:
        """Return the channels of the chosen stages."""
        return [self.info[i]["num_chs"] for i in self.out_indices]

    def reduction(self) -> list[int]:
        """Return the strides of the chosen stages."""
        return [self.info[i]["reduction"] for i in self.out_indices]

    def module_name(self) -> list[str]:
        """Return the names of the modules of the chosen stages."""
        return [self.info[i]["module"] for i in self.out_indices]


class _Layer(nn.Module):
    """A 3 x 3 convolution with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H / stride, W / stride)."""
        result: Tensor = self.act(self.bn(self.conv(x)))
        return result
