"""From the differences between teacher and student features to the anomaly map and the score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from snl.model.error_statistics import NormalErrors
from snl.settings import MapSettings

_PLAIN = MapSettings()


def anomaly_map(
    teacher: Sequence[Tensor],
    student: Sequence[Tensor],
    size: tuple[int, int],
    sigma: float,
    settings: MapSettings = _PLAIN,
    errors: NormalErrors | None = None,
) -> Tensor:
    """Weighted sum over stages of the distances, each bilinear to `size`, then a Gaussian; the two
    are linear and separable, so together they are one small matrix from either side.

    UniAD (arXiv 2206.03687) takes `l2` and, instead of the Gaussian, an average pool before the
    maximum that is the score; both are local means, and here all methods share the Gaussian.

    Args:
        teacher, student: one (B, C, h, w) per stage.
        size: (H, W) of the map.
        sigma: of the Gaussian in pixels of the map; 0: none.
        settings: kind, distance and stage weights.
        errors: statistics on normal images, for the distance `standardised`.

    Returns:
        (B, H, W) float32, at least 0, higher is more abnormal; not divided by a level.
    """
    total = torch.zeros((), device=teacher[0].device)
    rows_to, columns_to = size
    weights = settings.stage_weights or (1.0,) * len(teacher)
    for stage, (t, s, weight) in enumerate(zip(teacher, student, weights, strict=True)):
        t, s = t.float(), s.float()
        distance = torch.zeros((), device=t.device)
        if settings.kind != "affinity":
            if settings.distance == "standardised":
                if errors is None:
                    raise ValueError(
                        "the distance 'standardised' needs the errors on normal images"
                    )
                distance = distance + errors.standardised(stage, t, s)
            else:
                distance = distance + difference(t, s, settings.distance)
        if settings.kind != "feature":
            distance = distance + affinity_difference(t, s)
        rows = smoothing(distance.shape[1], rows_to, sigma).to(distance)
        columns = smoothing(distance.shape[2], columns_to, sigma).to(distance)
        total = total + weight * (rows @ distance @ columns.T)
    return total


def difference(t: Tensor, s: Tensor, distance: str) -> Tensor:
    """Features (B, C, h, w) of teacher and student to their distances (B, h, w): `cosine`: 1 - cos,
    in 0..2; `l2`: Euclidean norm of the difference, at least 0."""
    if distance == "l2":
        squares: Tensor = (t - s).square().sum(1)
        return squares.sqrt()
    return 1 - F.cosine_similarity(t, s, dim=1)


def affinity_difference(t: Tensor, s: Tensor) -> Tensor:
    """(B, C, h, w) to (B, h, w): at every position i the norm over positions j of the difference of
    the cosine affinities, |A_S(i, :) - A_T(i, :)| / sqrt(N), in 0..2.

    With M = (S' + T') / 2 and D = S' - T', row i of A_S - A_T is m_i^T D + d_i^T M, so its square
    is m_i^T (D D^T) m_i + 2 m_i^T (D M^T) d_i + d_i^T (M M^T) d_i: C x C Grams, never N x N.
    """
    shape = t.shape
    t, s = (F.normalize(x.flatten(2), dim=1) for x in (t, s))  # (B, C, N)
    m, d = (t + s) / 2, s - t
    square = (m * (d @ d.transpose(1, 2) @ m)).sum(1)
    square = square + 2 * (m * (d @ m.transpose(1, 2) @ d)).sum(1)
    square = square + (d * (m @ m.transpose(1, 2) @ d)).sum(1)
    return (square.clamp_min(0) / t.shape[2]).sqrt().view(shape[0], *shape[2:])


def score(maps: Tensor, settings: MapSettings) -> Tensor:
    """(B, H, W) to (B,): the maximum, or the mean of the largest `top_share` of the pixels."""
    flat = maps.flatten(1)
    if settings.score == "max":
        return flat.amax(1)
    count = max(1, math.ceil(settings.top_share * flat.shape[1]))
    return flat.topk(count, dim=1).values.mean(1)


@lru_cache(maxsize=64)
def smoothing(length: int, size: int, sigma: float) -> Tensor:
    """(size, length): a row or column of a map brought to `size`, then smoothed, as one matrix."""
    with torch.inference_mode(False), torch.no_grad():
        basis = torch.eye(length).view(length, length, 1)
        whole = gaussian(resize(basis, (size, 1)), sigma, columns=False)
        return whole[:, :, 0].T.contiguous()


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h, w) to (B, H, W), bilinear, pixel areas aligned."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps.unsqueeze(1), size, mode="bilinear", align_corners=False).squeeze(1)


def gaussian(maps: Tensor, sigma: float, *, columns: bool = True) -> Tensor:
    """Separable Gaussian of (B, H, W), cut at 4 sigma, edges reflected as scipy's `reflect`;
    without `columns` along the axis H alone."""
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
