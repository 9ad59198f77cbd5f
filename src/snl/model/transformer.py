"""The reverse student of a vision transformer: a noisy bottleneck and transformer blocks.

After Dinomaly (Guo et al., arXiv 2405.14325): the mean of the teacher's features through an MLP
whose dropout is the noise, then as many blocks as the teacher's features come from. Their attention
is linear: it cannot focus on a token's own place, so an anomaly is not simply passed on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snl.model.base import DataInitialised, Stage, Student, StudentOutput
from snl.model.cram import initialised_crams, make_cram
from snl.settings import CramSettings

DROPOUT = 0.2
"""Of the bottleneck (Dinomaly's)."""
HEAD = 64
"""Least channels of an attention head."""
MLP = 4
"""Inner to outer width of an MLP."""


class LinearAttention(nn.Module):
    """y_i = phi(q_i) sum_j phi(k_j)^T v_j / (phi(q_i) sum_j phi(k_j)^T), phi(x) = elu(x) + 1
    (Katharopoulos et al., arXiv 2006.16236), time linear in the number of tokens.

    Args:
        channels: C of the tokens.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = next(n for n in range(max(channels // HEAD, 1), 0, -1) if channels % n == 0)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) to the same shape."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = F.elu(q) + 1, (F.elu(k) + 1) / x.shape[1]  # (B, heads, N, d); sums become means
        mass = q @ k.sum(2).unsqueeze(-1)  # (B, heads, N, 1), above 0
        y = q @ (k.transpose(2, 3) @ v) / mass
        return self.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class TransformerBlock(nn.Module):
    """Attention and MLP, each on normalised tokens and added to them.

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
        """Tokens (B, N, C) to the same shape."""
        x = x + self.attention(x)
        return x + self.mlp(x)  # type: ignore[no-any-return]


def grid(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """Tokens (B, N, C), row by row, to (B, C, h, w) of this size."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *size)


class TransformerStudent(Student):
    """Bottleneck, CRAM, decoder.

    Args:
        stages: the teacher's, all of one width.
        depths: teacher blocks behind every stage, shallow to deep; the decoder has as many.
        cram: its form and K, or `none`.
    """

    def __init__(self, stages: Sequence[Stage], depths: Sequence[int], cram: CramSettings) -> None:
        super().__init__()
        channels = stages[0].channels
        self.stride = stages[-1].stride
        self.bottleneck = nn.Sequential(
            nn.Dropout(DROPOUT),
            nn.Linear(channels, MLP * channels),
            nn.GELU(),
            nn.Dropout(DROPOUT),
            nn.Linear(MLP * channels, channels),
            nn.Dropout(DROPOUT),
        )
        self.decoder = nn.ModuleList(  # the teacher's stages mirrored, deepest first
            nn.ModuleList(TransformerBlock(channels) for _ in range(depth))
            for depth in reversed(depths)
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.cram = make_cram(channels, cram)

    def encode(self, teacher_features: Sequence[Tensor]) -> Tensor:
        """Teacher features of all stages to the bottleneck's code (B, C, h, w)."""
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
        """Teacher features to their reproductions; the images are not used."""
        code = self.cram(self.encode(features))
        x = code.flatten(2).transpose(1, 2)  # (B, N, C)
        outputs = []
        for group in self.decoder:
            kept = []
            for block in group:  # type: ignore[attr-defined]
                x = block(x)
                kept.append(x)
            outputs.append(grid(torch.stack(kept).mean(0), code.shape[2:]))
        return StudentOutput(outputs[::-1])
