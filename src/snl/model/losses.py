"""Distillation losses between one stage's teacher features T and student features S.

Every function takes T and S of shape (B, C, H, W), any float dtype, computes in float32 and
returns a scalar: the mean over the batch. N = H * W positions. Formulas: method notes of the
re-implementation (docs/method.md); the flattened cosine is RD4AD's (arXiv 2201.10703).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from snl.settings import LossSettings

_EPS = 1e-8

EASY_RISE = 0.2
"""Share of the steps after which the share of easy positions has its full size."""


def flat_cosine(t: Tensor, s: Tensor) -> Tensor:
    """1 - cos of the maps flattened to C * H * W (what RD4AD's code trains with). In 0..2."""
    return (1 - F.cosine_similarity(t.float().flatten(1), s.float().flatten(1), dim=1)).mean()


def squared_error(t: Tensor, s: Tensor) -> Tensor:
    """Mean over positions and channels of (T - S)^2 (UniAD, arXiv 2206.03687). At least 0."""
    return F.mse_loss(s.float(), t.float())


def channel_distillation(t: Tensor, s: Tensor) -> Tensor:
    """Mean over positions of 1 - cos(T(:, i), S(:, i)). In 0..2."""
    return (1 - F.cosine_similarity(t.float(), s.float(), dim=1)).mean()


def spatial_distillation(t: Tensor, s: Tensor, temperature: float = 1.0) -> Tensor:
    """Per channel, softmax over the N positions at a temperature tau, KL(T || S): summed over
    positions, averaged over channels, times tau squared. At least 0."""
    log_t = F.log_softmax(t.float().flatten(2) / temperature, dim=2)
    log_s = F.log_softmax(s.float().flatten(2) / temperature, dim=2)
    kl = (log_t.exp() * (log_t - log_s)).sum(2)  # (B, C)
    return kl.mean() * temperature**2


def intra_affinity(t: Tensor, s: Tensor) -> Tensor:
    """(1 / N) |A_S - A_T|_F with A = F'^T F', the N x N cosine affinities within an image.

    Where C < N, by C x C Grams of D = S' - T' and M = (S' + T') / 2, since A_S - A_T =
    M^T D + D^T M: the squared norm is 2 <M M^T, D D^T> + 2 <M D^T, D M^T>, which loses no digits
    where S is near T (as |A_S|^2 + |A_T|^2 - 2 <A_S, A_T> would). In 0..2.
    """
    t, s = _unit(t), _unit(s)
    n = t.shape[2]
    if t.shape[1] < n:
        m, d = (t + s) / 2, s - t
        cross = m @ d.transpose(1, 2)
        same = (m @ m.transpose(1, 2)) * (d @ d.transpose(1, 2))
        square = 2 * (same + cross * cross.transpose(1, 2)).sum((1, 2))
    else:
        square = (s.transpose(1, 2) @ s - t.transpose(1, 2) @ t).square().sum((1, 2))
    return (_root(square) / n).mean()


def inter_affinity_images(t: Tensor, s: Tensor) -> Tensor:
    """(1 / B) |G_S - G_T|_F with G the B x B cosine affinities of the pooled maps of the batch's
    images. In 0..2; 0 for a batch of one."""
    t = F.normalize(t.float().mean((2, 3)), dim=1, eps=_EPS)  # (B, C)
    s = F.normalize(s.float().mean((2, 3)), dim=1, eps=_EPS)
    return _root((s @ s.T - t @ t.T).square().sum()) / t.shape[0]


def inter_affinity_networks(t: Tensor, s: Tensor) -> Tensor:
    """(1 / N) |T'^T S' - T'^T T'|_F: affinities between the networks against those within the
    teacher, an N x N product. In 0..2.

    It equals |T'^T D|_F with D = S' - T', so where C < N: |T'^T D|^2 = <T'T'^T, D D^T>.
    """
    t, s = _unit(t), _unit(s)
    n = t.shape[2]
    d = s - t
    if t.shape[1] < n:
        square = ((t @ t.transpose(1, 2)) * (d @ d.transpose(1, 2))).sum((1, 2))
    else:
        square = (t.transpose(1, 2) @ d).square().sum((1, 2))
    return (_root(square) / n).mean()


def damp_easy(t: Tensor, s: Tensor, share: float, gradient: float) -> Tensor:
    """S unchanged in value; at the `share` of the batch's positions of least cosine distance to T,
    gradients that come back through it are multiplied by `gradient`.

    What is reproduced well already stops driving the training, so the student spends itself on
    hard normal positions and does not learn to copy everything. Hard mining by a quantile with
    a tenth of the gradient left is Dinomaly's (arXiv 2405.14325), there for one flattened cosine.
    """
    with torch.no_grad():
        error = 1 - F.cosine_similarity(t.float(), s.float(), dim=1)  # (B, H, W)
        rank = max(1, math.ceil(share * error.numel()))
        threshold = error.flatten().kthvalue(rank).values
        weight = torch.where(error <= threshold, gradient, 1.0).unsqueeze(1)
    fixed = s.detach()
    return fixed + (s - fixed) * weight


def distillation(
    teacher: Sequence[Tensor],
    student: Sequence[Tensor],
    settings: LossSettings,
    progress: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum over the terms that are switched on, each summed over the stages.

    Args:
        teacher, student: one (B, C, H, W) per stage.
        settings: weights, and how far easy positions are damped.
        progress: share of the steps done, in 0..1; the share of easy positions rises with it.

    Returns:
        The total (scalar, with gradient) and every term's unweighted size (detached scalars), by
        the names of the settings.
    """
    easy = settings.easy * min(1.0, progress / EASY_RISE)
    if easy > 0 and settings.easy_gradient < 1:
        student = [
            damp_easy(t, s, easy, settings.easy_gradient)
            for t, s in zip(teacher, student, strict=True)
        ]
    inter = inter_affinity_images if settings.inter_form == "images" else inter_affinity_networks
    table = {
        "flat": (settings.flat, flat_cosine),
        "mse": (settings.mse, squared_error),
        "channel": (settings.channel, channel_distillation),
        "spatial": (
            settings.spatial,
            lambda t, s: spatial_distillation(t, s, settings.temperature),
        ),
        "intra": (settings.intra, intra_affinity),
        "inter": (settings.inter, inter),
    }
    total = torch.zeros((), device=teacher[0].device)
    sizes = {}
    for name, (weight, term) in table.items():
        if weight > 0:
            value = sum((term(t, s) for t, s in zip(teacher, student, strict=True)), total * 0)
            sizes[name] = value.detach()
            total = total + weight * value
    return total, sizes


def _unit(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, N) with every position's vector of length 1."""
    return F.normalize(x.float().flatten(2), dim=1, eps=_EPS)


def _root(square: Tensor) -> Tensor:
    """Square root that is clamped at 0 and has a finite gradient there."""
    return (square.clamp_min(0) + 1e-12).sqrt()
