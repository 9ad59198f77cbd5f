"""Memory of normal patches: how far a patch of an image lies from every patch seen in training.

The student's error measures how badly a feature is reproduced; a student that generalises
reproduces some anomalies, too. The memory does not generalise: it compares with patches that exist.
The distance to the nearest patch of a coreset is PatchCore's (Roth et al., arXiv 2106.08265,
sections 3.1 to 3.3). Different here: the deepest stage alone, its principal components, one memory
of fixed size for all products, and a factor of the student's map (`snl.model.network`) instead of a
map of its own.
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
COMPONENTS = 32
"""Principal components of a patch that are kept, at the most."""
_SCALED = 4096
"""About as many patches, evenly spread, give the scale of the distances."""
_EPS = 1e-6


class PatchMemory(nn.Module):
    """Principal components (M, D) of the patch features of normal images, D at most `COMPONENTS`.

    Until `remember` is called, there is one patch, zero.

    Args:
        channels: C, the channels of the deepest stage.
        size: the largest M.
    """

    patches: Tensor
    centre: Tensor
    axes: Tensor
    scale: Tensor

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        kept = min(channels, COMPONENTS)
        self.register_buffer("patches", torch.zeros(1, kept))
        self.register_buffer("centre", torch.zeros(channels))
        self.register_buffer("axes", torch.eye(channels, kept))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """Return the novelty (B, h, w), at least `FLOOR`, of features (B, C, h, w) of the deepest
        stage: the distance to the nearest patch, relative to that of a normal patch."""
        batch, _, height, width = features.shape
        rows = (patch_features(features) - self.centre) @ self.axes
        distance = nearest_distance(rows, self.patches) / self.scale
        return (distance.square() + FLOOR**2).sqrt().view(batch, height, width)

    @torch.no_grad()
    def remember(self, rows: Tensor, count: int) -> None:
        """Replace the patches by a coreset of normal patches.

        Args:
            rows: patch features (N, C), N at least 1.
            count: patches to keep; at most `size` and N - 1 are kept, at least one.
        """
        length = rows.square().sum(1).mean().sqrt()
        self.centre.copy_(rows.mean(0))
        rows = rows - self.centre
        self.axes.copy_(principal_axes(rows, self.axes.shape[1]))
        rows = rows @ self.axes
        chosen = coreset(rows, max(1, min(count, self.size, len(rows) - 1)))
        self.patches = rows[chosen]
        others = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        others[chosen] = False
        # of the patches left out, because those in the memory have no distance to it
        left_out = rows[others][:: max(1, len(rows) // _SCALED)].unsqueeze(0)
        typical = nearest_distance(left_out, self.patches).mean() if left_out.numel() else 0
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
    """Return the patch features (B, h w, C), float32, of features (B, C, h, w): the mean over 3 x 3
    positions; those outside of the image count as zero, so that patches at an edge differ less."""
    return F.avg_pool2d(features.float(), 3, 1, 1).flatten(2).transpose(1, 2)


def principal_axes(rows: Tensor, count: int) -> Tensor:
    """Return the axes (C, count) of the largest variance of centred rows (N, C)."""
    covariance = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64, device=rows.device)
    for chunk in torch.split(rows, 2**16):
        covariance += chunk.T.double() @ chunk.double()
    vectors: Tensor = torch.linalg.eigh(covariance.cpu()).eigenvectors
    return vectors.flip(1)[:, :count].to(rows)


def nearest_distance(rows: Tensor, patches: Tensor) -> Tensor:
    """Return the Euclidean distance (B, N) of rows (B, N, D) to the nearest of the patches (M, D).

    The matrices of an export must not be expanded to the batch: OpenVINO then computes other parts
    of an int8 graph wrongly.
    """
    best: Tensor | None = None
    for start in range(0, len(patches), _CHUNK):
        chunk = patches[start : start + _CHUNK]
        # |x - c|^2 - |x|^2; the rows are centred, so that little is lost by cancellation
        part = F.linear(rows, -2 * chunk, chunk.square().sum(1)).amin(2)
        best = part if best is None else torch.minimum(best, part)
    assert best is not None
    return (best + rows.square().sum(2)).clamp_min(0).sqrt()


def coreset(rows: Tensor, count: int) -> Tensor:
    """Return the indices (count,) of rows (N, D) chosen greedily (k-centre greedy): the first is
    the farthest from the origin, each other one the farthest from those before it."""
    squares = rows.square().sum(1)
    nearest = torch.full_like(squares, torch.inf)
    chosen = torch.empty(count, dtype=torch.long, device=rows.device)
    # in place: thousands of temporary tensors between kept ones would fragment the memory
    distance = torch.empty_like(squares)
    for i in range(count):
        chosen[i] = nearest.argmax() if i else squares.argmax()
        last = chosen[i : i + 1]
        torch.mv(rows, rows.index_select(0, last)[0], out=distance)
        distance.mul_(-2).add_(squares).add_(squares.index_select(0, last))
        torch.minimum(nearest, distance, out=nearest)
        nearest.index_fill_(0, last, -1)
    return chosen
