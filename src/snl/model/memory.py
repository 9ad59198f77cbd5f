"""Memory of normal patches: how far a patch of an image lies from every patch seen in training.

The student's error measures how badly a feature is reproduced; a student that generalises
reproduces some anomalies, too. The memory does not generalise: it compares with patches that exist.
The distance to the nearest patch of a coreset is PatchCore's (Roth et al., arXiv 2106.08265,
sections 3.1 to 3.3), here of the deepest stage alone, with one memory of fixed size for all
products, and as a factor of the student's map (`snl.model.network`), not as a map of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLOOR = 0.1
"""Novelty of a patch that is in the memory."""
_CHUNK = 1024
"""Patches compared at a time: bounds the memory of the distances to every patch."""
_PROJECTED = 32
"""Dimensions of the random projection in which a coreset is chosen."""
_EPS = 1e-6


class PatchMemory(nn.Module):
    """Patch features (M, C) of normal images; one patch, zero, until `remember` is called.

    Args:
        channels: C, the channels of the deepest stage.
        size: the largest M.
    """

    patches: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("patches", torch.zeros(1, channels))
        self.register_buffer("centre", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """Return the novelty (B, h, w), at least `FLOOR`, of features (B, C, h, w) of the deepest
        stage: the distance to the nearest patch, relative to that of a normal patch."""
        batch, _, height, width = features.shape
        rows = patch_features(features)
        distance = nearest_distance(rows - self.centre, self.patches) / self.scale
        return (distance.square() + FLOOR**2).sqrt().view(batch, height, width)

    @torch.no_grad()
    def remember(self, rows: Tensor, count: int, seed: int) -> None:
        """Replace the patches by a coreset of normal patches.

        Args:
            rows: patch features (N, C), N at least 1.
            count: patches to keep; at most `size` and N - 1 are kept, at least one.
            seed: of the random projection.
        """
        length = rows.square().sum(1).mean().sqrt()
        self.centre.copy_(rows.mean(0))
        rows = rows - self.centre
        chosen = coreset(rows, max(1, min(count, self.size, len(rows) - 1)), seed)
        self.patches = rows[chosen]
        others = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        others[chosen] = False
        # of the patches left out, because those in the memory have no distance to it
        typical = nearest_distance(rows[others], self.patches).mean() if bool(others.any()) else 0
        self.scale.fill_(max(float(typical), 1e-3 * float(length), _EPS))

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any
    ) -> None:
        """Take as many patches as are stored, up to `size`; other shapes are refused as usual."""
        stored = state_dict.get(f"{prefix}patches")
        if stored is not None and stored.ndim == 2 and 1 <= len(stored) <= self.size:
            self.patches = self.patches.new_zeros(len(stored), self.patches.shape[1])
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def patch_features(features: Tensor) -> Tensor:
    """Return the patch features (B h w, C), float32, of features (B, C, h, w): the mean over 3 x 3
    positions, at the edges over those that exist."""
    pooled = F.avg_pool2d(features.float(), 3, 1, 1, count_include_pad=False)
    return pooled.permute(0, 2, 3, 1).flatten(0, 2)


def nearest_distance(rows: Tensor, patches: Tensor) -> Tensor:
    """Return the Euclidean distance (N,) of rows (N, C) to the nearest of the patches (M, C)."""
    best = None
    for chunk in torch.split(patches, _CHUNK):
        # |x - c|^2 - |x|^2; the rows are centred, so that little is lost by cancellation
        part = torch.addmm(chunk.square().sum(1), rows, chunk.T, alpha=-2).amin(1)
        best = part if best is None else torch.minimum(best, part)
    assert best is not None
    return (best + rows.square().sum(1)).clamp_min(0).sqrt()


def coreset(rows: Tensor, count: int, seed: int) -> Tensor:
    """Return the indices (count,) of rows (N, C) chosen greedily: each is the farthest from those
    before it (k-centre greedy, in a random projection as in PatchCore). The first one is the
    farthest from the mean."""
    generator = torch.Generator().manual_seed(seed)
    projection = torch.randn(rows.shape[1], _PROJECTED, generator=generator).to(rows)
    points = rows @ projection / _PROJECTED**0.5
    squares = points.square().sum(1)
    nearest = torch.full_like(squares, torch.inf)
    chosen = torch.empty(count, dtype=torch.long, device=rows.device)
    # in place: thousands of temporary tensors between kept ones would fragment the memory
    distance = torch.empty_like(squares)
    for i in range(count):
        chosen[i] = nearest.argmax() if i else squares.argmax()
        last = chosen[i : i + 1]
        torch.mv(points, points.index_select(0, last)[0], out=distance)
        distance.mul_(-2).add_(squares).add_(squares.index_select(0, last))
        torch.minimum(nearest, distance, out=nearest)
        nearest.index_fill_(0, last, -1)
    return chosen
