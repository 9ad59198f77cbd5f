"""Anomaly map and score from the differences between teacher and student features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from snl.model.error_statistics import ErrorStatistics
from snl.registry import DISTANCES, SCORERS
from snl.settings import MapSettings

_DEFAULTS = MapSettings()


@dataclass(frozen=True)
class DistanceContext:
    """What a distance may need besides the features.

    Attributes:
        stage: number of the stage, from 0.
        statistics: of the errors on normal images; None: not fitted.
        settings: of the map; a plug-in finds its own by `settings.of(NAME)`.
    """

    stage: int = 0
    statistics: ErrorStatistics | None = None
    settings: MapSettings = field(default_factory=MapSettings)


def anomaly_map(
    teacher: Sequence[Tensor],
    student: Sequence[Tensor],
    size: tuple[int, int],
    sigma: float,
    settings: MapSettings = _DEFAULTS,
    statistics: ErrorStatistics | None = None,
) -> Tensor:
    """Return the weighted sum over stages of the distances, resized bilinearly and smoothed.

    Resizing and Gaussian smoothing are linear and separable; both together are one small matrix
    from either side. UniAD (arXiv 2206.03687) uses `l2` and, instead of the Gaussian, an average
    pool before the maximum; here all methods share the Gaussian.

    Args:
        teacher, student: features, one (B, C, h, w) per stage.
        size: (H, W) of the map.
        sigma: standard deviation of the Gaussian in pixels of the map; 0: no smoothing.
        settings: kind, distance and stage weights.
        statistics: of the errors on normal images, for distances that need them.

    Returns:
        float32 (B, H, W), at least 0, higher is more anomalous; not normalised by cluster.
    """
    total = torch.zeros((), device=teacher[0].device)
    weights = settings.stage_weights or (1.0,) * len(teacher)
    distance_of = DISTANCES.get(settings.distance).load()
    for stage, (t, s, weight) in enumerate(zip(teacher, student, weights, strict=True)):
        t, s = t.float(), s.float()
        distance = torch.zeros((), device=t.device)
        if settings.kind != "affinity":
            distance = distance + distance_of(t, s, DistanceContext(stage, statistics, settings))
        if settings.kind != "feature":
            distance = distance + affinity_difference(t, s)
        total = total + weight * smoothed(distance, size, sigma)
    return total


def smoothed(maps: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """Resize maps (B, h, w) to (B, H, W), bilinear, and smooth them by a Gaussian."""
    rows = smoothing(maps.shape[1], size[0], sigma, maps.device)
    columns = smoothing(maps.shape[2], size[1], sigma, maps.device)
    return rows @ maps @ columns.T


def cosine_distance(t: Tensor, s: Tensor, context: DistanceContext | None = None) -> Tensor:
    """Return 1 - cos of features (B, C, h, w) at every position, (B, h, w), in 0..2."""
    return 1 - F.cosine_similarity(t, s, dim=1)


def l2_distance(t: Tensor, s: Tensor, context: DistanceContext | None = None) -> Tensor:
    """Return the Euclidean norm of the difference of features (B, C, h, w), (B, h, w)."""
    squares: Tensor = (t - s).square().sum(1)
    return squares.sqrt()


def standardised_distance(t: Tensor, s: Tensor, context: DistanceContext) -> Tensor:
    """Return `ErrorStatistics.standardised` of features (B, C, h, w), (B, h, w)."""
    if context.statistics is None:
        raise ValueError("the distance 'standardised' needs the statistics of normal errors")
    return context.statistics.standardised(context.stage, t, s)


def affinity_difference(t: Tensor, s: Tensor) -> Tensor:
    """Return (B, h, w) from features (B, C, h, w): at every position i the norm over positions j of
    the difference of the cosine affinities, |A_S(i, :) - A_T(i, :)| / sqrt(N), in 0..2.

    With M = (S' + T') / 2 and D = S' - T', row i of A_S - A_T is m_i^T D + d_i^T M, so its square
    is m_i^T (D D^T) m_i + 2 m_i^T (D M^T) d_i + d_i^T (M M^T) d_i: C x C matrices, never N x N.
    """
    shape = t.shape
    t, s = (F.normalize(x.flatten(2), dim=1) for x in (t, s))  # (B, C, N)
    m, d = (t + s) / 2, s - t
    square = (m * (d @ d.transpose(1, 2) @ m)).sum(1)
    square = square + 2 * (m * (d @ m.transpose(1, 2) @ d)).sum(1)
    square = square + (d * (m @ m.transpose(1, 2) @ d)).sum(1)
    return (square.clamp_min(0) / t.shape[2]).sqrt().view(shape[0], *shape[2:])


def score(maps: Tensor, settings: MapSettings) -> Tensor:
    """Return the scores (B,) of maps (B, H, W) by the scorer of the settings."""
    scores: Tensor = SCORERS.get(settings.score).load()(maps, settings)
    return scores


def max_score(maps: Tensor, settings: MapSettings) -> Tensor:
    """Return the maximum (B,) of maps (B, H, W)."""
    return maps.flatten(1).amax(1)


def top_score(maps: Tensor, settings: MapSettings) -> Tensor:
    """Return the mean (B,) of the largest `top_share` of the pixels of maps (B, H, W)."""
    flat = maps.flatten(1)
    count = max(1, math.ceil(settings.top_share * flat.shape[1]))
    return flat.topk(count, dim=1).values.mean(1)


@lru_cache(maxsize=64)
def smoothing(length: int, size: int, sigma: float, device: torch.device | None = None) -> Tensor:
    """Return the matrix (size, length) that resizes a row or column of a map and smooths it.

    The matrices are cached on their device.
    """
    with torch.inference_mode(False), torch.no_grad():
        basis = torch.eye(length).view(length, length, 1)
        whole = gaussian(resize(basis, (size, 1)), sigma, columns=False)
        return whole[:, :, 0].T.contiguous().to(device)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (B, h, w) to (B, H, W), bilinear, pixel areas aligned."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps.unsqueeze(1), size, mode="bilinear", align_corners=False).squeeze(1)


def gaussian(maps: Tensor, sigma: float, *, columns: bool = True) -> Tensor:
    """Smooth maps (B, H, W) by a separable Gaussian, truncated at 4 sigma, edges as scipy's
    `reflect`; with `columns` False along the axis H only."""
    radius = int(4 * sigma + 0.5)
    if radius < 1:
        return maps
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=maps.device)
    kernel = torch.exp(-0.5 * (offsets / sigma).square())
    kernel = kernel / kernel.sum()
    x = maps.unsqueeze(1)
    if columns:
        x = F.conv2d(_mirror(x, radius, 3), kernel.view(1, 1, 1, -1))
    x = F.conv2d(_mirror(x, radius, 2), kernel.view(1, 1, -1, 1))
    return x.squeeze(1)


def _mirror(x: Tensor, radius: int, dim: int) -> Tensor:
    """Pad by mirroring with the edge pixel repeated (d c b a | a b c d | d c b a)."""
    n = x.shape[dim]
    index = torch.arange(-radius, n + radius, device=x.device) % (2 * n)
    return x.index_select(dim, torch.where(index < n, index, 2 * n - 1 - index))
