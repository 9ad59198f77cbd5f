"""UniAD (You et al., arXiv 2206.03687): a transformer reproduces the merged teacher features.

Three measures keep it from copying its input: attention that skips a token's neighbourhood, a
learnable query in every decoder layer, and noise on the features in training. Sizes and rates are
the paper's. Its position embedding has a row and a column part there and one vector a position
here; merging and map are the teacher's and the map's (`teacher.merge`, `map.distance`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snl.model.base import DataInitialised, Student, StudentOutput, TeacherInfo
from snl.model.cram import initialised_crams, make_cram
from snl.model.transformer import grid
from snl.settings import CramSettings, Settings

WIDTH = 256
HEADS = 8
INNER = 1024
LAYERS = 4
DROPOUT = 0.1
JITTER = 20.0
"""alpha of the feature jitter."""
WINDOW = 7
"""Side of the masked neighbourhood on the paper's grid of 14 x 14, and the largest."""


def neighbour_mask(side: int) -> Tensor:
    """Which token may attend to which, on a grid of side x side.

    A token sees nothing of the square window around it. The window is half the grid wide as in the
    paper (7 of 14), but not wider than 7 and odd, so that on a small grid, too, some keys remain.

    Returns:
        bool (N, N), N = side^2: True where row (query) may attend to column (key).
    """
    # 2 * radius + 1 <= side / 2; a grid of one token has none
    radius = min(WINDOW // 2, (side - 2) // 4)
    place = torch.arange(side)
    near = (place[:, None] - place[None, :]).abs() <= radius  # (side, side)
    both = near[:, None, :, None] & near[None, :, None, :]  # (y, x, y', x')
    return ~both.reshape(side**2, side**2)


def jitter(x: Tensor) -> Tensor:
    """Tokens (B, N, C) with Gaussian noise of standard deviation alpha |x_i| / C on each."""
    length = x.square().sum(2, keepdim=True).sqrt()
    return x + torch.randn_like(x) * (JITTER / x.shape[2]) * length


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al., arXiv 1706.03762) under a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
        """Each (B, N, C), `allowed` bool (N, N), to (B, N, C)."""
        q, k, v = (
            layer(x).unflatten(2, (HEADS, -1)).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        dropout = DROPOUT if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)
        return self.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Dropout, sum and norm after a part of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.norm = nn.Dropout(DROPOUT), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, change: Tensor) -> Tensor:
        return self.norm(x + self.dropout(change))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """Masked self-attention and MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(), _mlp()
        self.sums = nn.ModuleList(Residual() for _ in range(2))

    def forward(self, x: Tensor, position: Tensor, allowed: Tensor) -> Tensor:
        """Tokens (B, N, C), position embedding (N, C), mask (N, N)."""
        x = self.sums[0](x, self.attention(x + position, x + position, x, allowed))
        return self.sums[1](x, self.mlp(x))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """The layer's own query looks at the encoder's output, then at the previous layer's.

    Args:
        tokens: N.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(tokens, WIDTH))
        self.encoded, self.previous, self.mlp = Attention(), Attention(), _mlp()
        self.sums = nn.ModuleList(Residual() for _ in range(3))

    def forward(self, x: Tensor, encoded: Tensor, position: Tensor, allowed: Tensor) -> Tensor:
        """Previous layer's and encoder's tokens (B, N, C), position embedding (N, C), mask."""
        q = self.query.expand_as(x)
        q = self.sums[0](q, self.encoded(q + position, encoded + position, encoded, allowed))
        q = self.sums[1](q, self.previous(q + position, x + position, x, allowed))
        return self.sums[2](q, self.mlp(q))  # type: ignore[no-any-return]


class UniAD(Student):
    """Projection, encoder, CRAM if there is to be one (it is not the paper's), decoder, projection.

    Args:
        channels: of the merged features.
        side: of their grid, which is square.
        cram: its form and K, or `none`.
    """

    allowed: Tensor

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
        """The one merged map (B, C, h, w) to the encoder's output (B, 256, h, w)."""
        (merged,) = teacher_features
        x = merged.flatten(2).transpose(1, 2)  # (B, N, C)
        x = self.narrow(jitter(x) if self.training else x)
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
        """The merged features to their reproduction; the images are not used."""
        code = self.cram(self.encode(features))
        x = encoded = code.flatten(2).transpose(1, 2)
        for layer in self.decoder:
            x = layer(x, encoded, self.position, self.allowed)
        return StudentOutput([grid(self.widen(self.norm(x)), code.shape[2:])])


def make_uniad(teacher: TeacherInfo, settings: Settings) -> Student:
    """Build the UniAD student for a teacher whose stages are merged into one."""
    (stage,) = teacher.stages
    student = UniAD(stage.channels, settings.image_size // stage.stride, settings.cram)
    student.stride = stage.stride
    return student


def _mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(WIDTH, INNER), nn.ReLU(inplace=True), nn.Dropout(DROPOUT), nn.Linear(INNER, WIDTH)
    )
