"""UniAD (You et al., arXiv 2206.03687): a transformer reproduces the merged teacher features.

Three measures prevent it from copying its input: attention that masks a token's neighbourhood, a
learnable query in every decoder layer, and noise on the features in training. Sizes and rates are
those of the paper. The paper's position embedding has a row and a column part; here it is one
vector per position. Merging and distance are settings (`teacher.merge`, `map.distance`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snl.model.base import DataInitialised, Student, StudentOutput, TeacherInfo
from snl.model.cram import cram_settings, initialised_crams, make_cram
from snl.model.ranks import ALONE, Ranks
from snl.model.transformer import grid
from snl.model.whole_batch import WholeBatchDropout, own_rows
from snl.settings import CramSettings, Settings

WIDTH = 256
"""Channels of the tokens."""
HEADS = 8
INNER = 1024
"""Inner width of an MLP."""
LAYERS = 4
"""Number of encoder layers, and of decoder layers."""
DROPOUT = 0.1
JITTER = 20.0
"""Scale alpha of the feature jitter."""
WINDOW = 7
"""Side of the masked neighbourhood on the paper's 14 x 14 grid; also the maximum."""


def neighbour_mask(side: int) -> Tensor:
    """Return which token may attend to which, on a grid of side x side.

    The square window around a token is masked. As in the paper (7 of 14), it is half as wide as the
    grid, but odd and at most 7, so that every token has keys on small grids too.

    Returns:
        bool (N, N), N = side^2: True where row (query) may attend to column (key).
    """
    # 2 * radius + 1 <= side / 2; a grid of one token has none
    radius = min(WINDOW // 2, (side - 2) // 4)
    position = torch.arange(side)
    near = (position[:, None] - position[None, :]).abs() <= radius  # (side, side)
    both = near[:, None, :, None] & near[None, :, None, :]  # (y, x, y', x')
    return ~both.reshape(side**2, side**2)


def jitter(x: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Return tokens (B, N, C) plus Gaussian noise of standard deviation alpha |x_i| / C."""
    length = x.square().sum(2, keepdim=True).sqrt()
    draw = partial(torch.randn, dtype=x.dtype, device=x.device)
    noise = own_rows(draw, x.shape, ranks)
    return x + noise * (JITTER / x.shape[2]) * length


class Attention(nn.Module):
    """Masked multi-head attention (Vaswani et al., arXiv 1706.03762)."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.dropout = WholeBatchDropout(DROPOUT)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
        """Return (B, N, C) from query, key and value (B, N, C) and the mask, bool (N, N)."""
        q, k, v = (
            layer(x).unflatten(2, (HEADS, -1)).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        if self.training and self.dropout.ranks.size > 1:
            affinities = (q @ k.transpose(2, 3)) * q.shape[3] ** -0.5
            affinities = affinities.masked_fill(~allowed, float("-inf")).softmax(3)
            y = self.dropout(affinities) @ v
        else:
            dropout = DROPOUT if self.training else 0.0
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)
        return self.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Dropout, residual sum and norm after a part of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.norm = WholeBatchDropout(DROPOUT), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, change: Tensor) -> Tensor:
        return self.norm(x + self.dropout(change))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """Masked self-attention and MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(), _mlp()
        self.sums = nn.ModuleList(Residual() for _ in range(2))

    def forward(self, x: Tensor, position: Tensor, allowed: Tensor) -> Tensor:
        """Return tokens (B, N, C) from tokens, position embedding (N, C) and mask (N, N)."""
        x = self.sums[0](x, self.attention(x + position, x + position, x, allowed))
        return self.sums[1](x, self.mlp(x))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Attention of a learnable query to the encoder's output, then to the previous layer's output.

    Args:
        tokens: their number N.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(tokens, WIDTH))
        self.encoded, self.previous, self.mlp = Attention(), Attention(), _mlp()
        self.sums = nn.ModuleList(Residual() for _ in range(3))

    def forward(self, x: Tensor, encoded: Tensor, position: Tensor, allowed: Tensor) -> Tensor:
        """Return tokens (B, N, C) from those of the previous layer and of the encoder, the position
        embedding (N, C) and the mask (N, N)."""
        q = self.query.expand_as(x)
        q = self.sums[0](q, self.encoded(q + position, encoded + position, encoded, allowed))
        q = self.sums[1](q, self.previous(q + position, x + position, x, allowed))
        return self.sums[2](q, self.mlp(q))  # type: ignore[no-any-return]


class UniAD(Student):
    """Projection, encoder, optionally CRAM (not part of the paper), decoder, projection.

    Args:
        channels: of the merged features.
        side: of their square grid.
        cram: form and number of centres of CRAM, or the form `none`.
    """

    allowed: Tensor
    ranks: Ranks = ALONE

    def __init__(self, channels: int, side: int, cram: CramSettings) -> None:
        super().__init__()
        tokens = side**2
        self.position = nn.Parameter(torch.empty(tokens, WIDTH))
        self.narrow, self.widen = nn.Linear(channels, WIDTH), nn.Linear(WIDTH, channels)
        self.encoder = nn.ModuleList(EncoderLayer() for _ in range(LAYERS))
        self.decoder = nn.ModuleList(DecoderLayer(tokens) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        self.cram = make_cram(WIDTH, cram)
        self.register_buffer("allowed", neighbour_mask(side), persistent=False)

    def encode(self, teacher_features: Sequence[Tensor]) -> Tensor:
        """Return the encoder's output (B, 256, h, w) for the merged features, one (B, C, h, w)."""
        (merged,) = teacher_features
        x = merged.flatten(2).transpose(1, 2)  # (B, N, C)
        x = self.narrow(jitter(x, self.ranks) if self.training else x)
        for layer in self.encoder:
            x = layer(x, self.position, self.allowed)
        return grid(x, merged.shape[2:])

    def data_initialised(self) -> list[DataInitialised]:
        """Return CRAM, if there is one."""
        return initialised_crams(self.cram)

    def initialisation_inputs(
        self, images: Tensor | None, features: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the encoder's output, which is CRAM's input."""
        return [self.encode(features)]

    def forward(self, images: Tensor | None, features: Sequence[Tensor]) -> StudentOutput:
        """Return the reproduction of the merged features; the images are not used."""
        code = self.cram(self.encode(features))
        x = encoded = code.flatten(2).transpose(1, 2)
        for layer in self.decoder:
            x = layer(x, encoded, self.position, self.allowed)
        return StudentOutput([grid(self.widen(self.norm(x)), code.shape[2:])])


def make_uniad(teacher: TeacherInfo, settings: Settings) -> Student:
    """Build the UniAD student for a teacher whose stages are merged into one."""
    (stage,) = teacher.stages
    student = UniAD(stage.channels, settings.image_size // stage.stride, cram_settings(settings))
    student.stride = stage.stride
    return student


def _mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(WIDTH, INNER),
        nn.ReLU(inplace=True),
        WholeBatchDropout(DROPOUT),
        nn.Linear(INNER, WIDTH),
    )
