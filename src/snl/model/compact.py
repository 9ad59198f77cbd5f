"""`snl_compact`: the small convolutional teacher whose weights are part of this package.

Plain 3 x 3 convolutions, each with batch norm and ReLU, in three stages of strides 4, 8 and 16; a
1 x 1 convolution computes every stage's features. All its layers can be fused and quantised. It is
registered with timm, so it is created and described like every other timm network. How its weights
were trained: docs/teacher.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.layers import ConvNormAct  # type: ignore[attr-defined]
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

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
        in_chans: channels of the image.
    """

    def __init__(
        self, features: Sequence[int] = FEATURES, in_chans: int = 3, **_: Any
    ) -> None:  # timm also passes num_classes, but there is no classifier
        super().__init__()
        self.num_classes = 0
        self.stem = ConvNormAct(in_chans, WIDTHS[0], 3, stride=2)
        self.stages = nn.ModuleList()
        self.necks = nn.ModuleList()
        channels = WIDTHS[0]
        for width, depth, outputs in zip(WIDTHS[1:], DEPTHS, features, strict=True):
            layers = [ConvNormAct(channels, width, 3, stride=2)]
            layers += [ConvNormAct(width, width, 3) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(*layers))
            self.necks.append(nn.Conv2d(width, outputs, 1))
            channels = width
        self.feature_info = [
            {"num_chs": c, "reduction": 4 * 2**i, "module": f"stages.{i}"}
            for i, c in enumerate(features)
        ]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of all three stages: (B, C, H / 4, W / 4), ... / 8, ... / 16."""
        return self.forward_intermediates(x)

    def forward_intermediates(
        self, x: Tensor, indices: int | list[int] | None = None, **_: Any
    ) -> list[Tensor]:
        """Return the features of the stages `indices`, shallow to deep (timm's interface)."""
        taken, deepest = feature_take_indices(len(self.stages), indices)
        x = self.stem(x)
        outputs = []
        for i, (stage, neck) in enumerate(zip(self.stages, self.necks, strict=True)):
            if i > deepest:
                break
            x = stage(x)
            if i in taken:
                outputs.append(neck(x))
        return outputs


default_cfgs = generate_default_cfgs(
    {
        "snl_compact": {
            "url": "",
            "input_size": (3, 256, 256),
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "interpolation": "bilinear",
            "license": "apache-2.0",
        }
    }
)


@register_model
def snl_compact(pretrained: bool = False, **options: Any) -> nn.Module:
    """Build the network; timm calls this for the name `snl_compact`."""
    net: nn.Module = build_model_with_cfg(
        Compact,
        "snl_compact",
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2), "feature_cls": "getter"},
        **options,
    )
    return net
