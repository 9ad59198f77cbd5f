"""The reverse student of a vision transformer: a noisy bottleneck and transformer blocks.

After Dinomaly (Guo et al., arXiv 2405.14325): the mean of the teacher's features passes an MLP
whose dropout is the noise, then as many blocks as the teacher's stages average. Attention is
linear: it cannot focus on a token's own position, so that an anomaly is not simply copied.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snl.model.base import DataInitialised, Stage, Student, StudentOutput
from snl.model.cram import initialised_crams, make_cram
from snl.model.whole_batch import WholeBatchDropout
from snl.settings import CramSettings

DROPOUT = 0.2
"""Dropout of the bottleneck (as in Dinomaly)."""
HEAD = 64
"""Minimum number of channels of an attention head."""
MLP = 4
"""Ratio of inner to outer width of an MLP."""


class LinearAttention(nn.Module):
    """Linear attention: y_i = phi(q_i) sum_j phi(k_j)^T v_j / (phi(q_i) sum_j phi(k_j)^T), with
    phi(x) = elu(x) + 1 (Katharopoulos et al., arXiv 2006.16236). Its time is linear in the number
    of tokens.

    Args:
        channels: C of the tokens.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = next(n for n in range(max(channels // HEAD, 1), 0, -1) if channels % n == 0)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens (B, N, C); the shape stays."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = (
            F.elu(q) + 1,
            (F.elu(k) + 1) / x.shape[1],
        )  # (B, heads, N, d); sums over j become means
        mass = q @ k.sum(2).unsqueeze(-1)  # (B, heads, N, 1), above 0
        y = q @ (k.transpose(2, 3) @ v) / mass
        return self.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class TransformerBlock(nn.Module):
    """Attention and MLP with pre-normalisation and residual connections.

    Args:
        channels: C of the tokens.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(channels), LinearAttention(channels))
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, MLP * channels),
            nn.GELU(),
            nn.Linear(MLP * channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens (B, N, C); the shape stays."""
        x = x + self.attention(x)
        return x + self.mlp(x)  # type: ignore[no-any-return]


def grid(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """Return tokens (B, N, C), in row order, as features (B, C, h, w) of this size."""
    # not len: an export keeps the number of images variable
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *size)


class TransformerStudent(Student):
    """Bottleneck, CRAM, decoder.

    Args:
        stages: of the teacher, all of the same width and stride.
        depths: teacher blocks averaged in every stage, shallow to deep; the decoder has as many.
        cram: form and number of centres of CRAM, or the form `none`.
    """

    def __init__(self, stages: Sequence[Stage], depths: Sequence[int], cram: CramSettings) -> None:
        super().__init__()
        channels = stages[0].channels
        self.stride = stages[-1].stride
        self.bottleneck = nn.Sequential(
            WholeBatchDropout(DROPOUT),
            nn.Linear(channels, MLP * channels),
            nn.GELU(),
            WholeBatchDropout(DROPOUT),
            nn.Linear(MLP * channels, channels),
            WholeBatchDropout(DROPOUT),
        )
        self.decoder = nn.ModuleList(  # mirrors the teacher's stages, deepest first
            nn.ModuleList(TransformerBlock(channels) for _ in range(depth))
            for depth in reversed(depths)
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.cram = make_cram(channels, cram)

    def encode(self, teacher_features: Sequence[Tensor]) -> Tensor:
        """Return the bottleneck's output (B, C, h, w) for the teacher features of all stages."""
        fused = torch.stack(list(teacher_features)).mean(0)
        return self.bottleneck(fused.movedim(1, 3)).movedim(3, 1)  # type: ignore[no-any-return]

    def data_initialised(self) -> list[DataInitialised]:
        """Return CRAM, if there is one."""
        return initialised_crams(self.cram)

    def initialisation_inputs(
        self, images: Tensor | None, features: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the bottleneck's output, which is CRAM's input."""
        return [self.encode(features)]

    def forward(self, images: Tensor | None, features: Sequence[Tensor]) -> StudentOutput:
        """Return the reproductions of the teacher features; the images are not used."""
        code = self.cram(self.encode(features))
        x = code.flatten(2).transpose(1, 2)  # (B, N, C)
        outputs = []
        for group in self.decoder:
            tokens = []
            for block in group:  # type: ignore[attr-defined]
                x = block(x)
                tokens.append(x)
            outputs.append(grid(torch.stack(tokens).mean(0), code.shape[2:]))
        return StudentOutput(outputs[::-1])
