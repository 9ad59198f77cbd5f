"""From the differences between teacher and student features to the anomaly map and the score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from snl.settings import MapSettings


def anomaly_map(
    teacher: Sequence[Tensor],
    student: Sequence[Tensor],
    size: tuple[int, int],
    sigma: float,
    distance: str = "cosine",
) -> Tensor:
    """Sum over stages of the distance over channels, each bilinear to `size`, then a Gaussian.

    UniAD (arXiv 2206.03687) takes `l2` and, instead of the Gaussian, an average pool before the
    maximum that is the score; both are local means, and here all methods share the Gaussian.

    Args:
        teacher, student: one (B, C, h, w) per stage.
        size: (H, W) of the map.
        sigma: of the Gaussian in pixels of the map; 0: none.
        distance: `cosine`: 1 - cos, in 0..2; `l2`: Euclidean norm of the difference, at least 0.

    Returns:
        (B, H, W) float32, higher is more abnormal.
    """
    total = torch.zeros((), device=teacher[0].device)
    for t, s in zip(teacher, student, strict=True):
        total = total + resize(difference(t.float(), s.float(), distance), size)
    return gaussian(total, sigma)


def difference(t: Tensor, s: Tensor, distance: str) -> Tensor:
    """Features (B, C, h, w) of teacher and student to their distances (B, h, w)."""
    if distance == "l2":
        squares: Tensor = (t - s).square().sum(1)
        return squares.sqrt()
    return 1 - F.cosine_similarity(t, s, dim=1)


def score(maps: Tensor, settings: MapSettings) -> Tensor:
    """(B, H, W) to (B,): the maximum, or the mean of the largest `top_share` of the pixels."""
    flat = maps.flatten(1)
    if settings.score == "max":
        return flat.amax(1)
    count = max(1, math.ceil(settings.top_share * flat.shape[1]))
    return flat.topk(count, dim=1).values.mean(1)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h, w) to (B, H, W), bilinear, pixel areas aligned."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps.unsqueeze(1), size, mode="bilinear", align_corners=False).squeeze(1)


def gaussian(maps: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian of (B, H, W), cut at 4 sigma, edges reflected as scipy's `reflect`."""
    radius = int(4 * sigma + 0.5)
    if radius < 1:
        return maps
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=maps.device)
    kernel = torch.exp(-0.5 * (offsets / sigma).square())
    kernel = kernel / kernel.sum()
    x = maps.unsqueeze(1)
    x = F.conv2d(_mirror(x, radius, 3), kernel.view(1, 1, 1, -1))
    x = F.conv2d(_mirror(x, radius, 2), kernel.view(1, 1, -1, 1))
    return x.squeeze(1)


def _mirror(x: Tensor, radius: int, dim: int) -> Tensor:
    """Pad by mirroring with the edge pixel repeated (d c b a | a b c d | d c b a)."""
    n = x.shape[dim]
    index = torch.arange(-radius, n + radius, device=x.device) % (2 * n)
    return x.index_select(dim, torch.where(index < n, index, 2 * n - 1 - index))
