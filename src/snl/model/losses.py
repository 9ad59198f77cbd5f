"""Distillation losses between one stage's teacher features T and student features S.

Every loss function takes T and S of shape (B, C, H, W), any float dtype, computes in float32 and
returns a scalar, the mean over the batch. N = H * W is the number of positions; T' and S' are T and
S with every position's vector normalised to length 1. The formulas are in docs/method.md; the
global cosine is RD4AD's (arXiv 2201.10703). No gradient flows to the teacher.

The terms that use T' and S' share them. Where automatic differentiation would need more matrix
products than the derivative itself, the derivative is written out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from snl.model.base import StudentOutput
from snl.model.ranks import ALONE, Ranks
from snl.registry import LOSSES, Part
from snl.settings import LossSettings

_EPS = 1e-8

MINING_RAMP = 0.2
"""Share of the steps over which the share of easy positions rises to its full value."""


def global_cosine(t: Tensor, s: Tensor) -> Tensor:
    """Return 1 - cos of the features flattened to C * H * W, as RD4AD's code trains. In 0..2."""
    return (1 - F.cosine_similarity(t.float().flatten(1), s.float().flatten(1), dim=1)).mean()


def squared_error(t: Tensor, s: Tensor) -> Tensor:
    """Return the mean over positions and channels of (T - S)^2 (UniAD, arXiv 2206.03687)."""
    return F.mse_loss(s.float(), t.float())


def channel_distillation(t: Tensor, s: Tensor) -> Tensor:
    """Return the mean over positions of 1 - cos(T(:, i), S(:, i)). In 0..2."""
    return _channel(_unit(t), _unit(s))


def _channel(t: Tensor, s: Tensor) -> Tensor:
    return 1 - (t * s).sum(1).mean()


def spatial_distillation(t: Tensor, s: Tensor, temperature: float = 1.0) -> Tensor:
    """Return KL(T || S) of every channel's softmax over the N positions at temperature tau, summed
    over positions, averaged over channels, times tau squared. At least 0."""
    log_t = F.log_softmax(t.float().flatten(2) / temperature, dim=2)
    log_s = F.log_softmax(s.float().flatten(2) / temperature, dim=2)
    kl = (log_t.exp() * (log_t - log_s)).sum(2)  # (B, C)
    return kl.mean() * temperature**2


def intra_affinity(t: Tensor, s: Tensor) -> Tensor:
    """Return (1 / N) |A_S - A_T|_F, A = F'^T F' the N x N cosine affinities within an image.

    In 0..2. Where C < N, no N x N matrix is computed, see `_AffinityChange`.
    """
    return _intra(_unit(t), _unit(s))


def _intra(t: Tensor, s: Tensor) -> Tensor:
    return (_root(_AffinityChange.apply(t, s)) / t.shape[2]).mean()


class _AffinityChange(torch.autograd.Function):
    """|S'^T S' - T'^T T'|_F^2 of every image: two (B, C, N) to (B,).

    Where C < N, it is computed from C x C Gram matrices of D = S' - T' and M = (S' + T') / 2: the
    difference is M^T D + D^T M, so its squared norm is 2 <M M^T, D D^T> + 2 <M D^T, D M^T>. This
    loses no digits where S is near T, as |A_S|^2 + |A_T|^2 - 2 <A_S, A_T> would. The derivative
    with respect to S', 4 S' (S'^T S' - T'^T T'), follows from the same matrices by S' = M + D / 2.
    """

    @staticmethod
    def forward(ctx: Any, t: Tensor, s: Tensor) -> Tensor:
        if t.shape[1] >= t.shape[2]:
            change = torch.baddbmm(t.transpose(1, 2) @ t, s.transpose(1, 2), s, beta=-1)
            ctx.save_for_backward(s, change)
            return change.square().sum((1, 2))
        m, d = (t + s) / 2, s - t
        mm, dd = m @ m.transpose(1, 2), d @ d.transpose(1, 2)
        md = m @ d.transpose(1, 2)
        ctx.save_for_backward(m, d, mm, dd, md)
        return 2 * (mm * dd + md * md.transpose(1, 2)).sum((1, 2))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        times = 4 * gradient.view(-1, 1, 1)
        if len(ctx.saved_tensors) == 2:
            s, change = ctx.saved_tensors
            return None, s @ (change * times)
        m, d, mm, dd, md = ctx.saved_tensors
        along_d = (mm + md.transpose(1, 2) / 2) * times
        along_m = (md + dd / 2) * times
        return None, torch.baddbmm(along_d @ d, along_m, m)


def inter_affinity_images(t: Tensor, s: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Return (1 / B) |G_S - G_T|_F, G the B x B cosine affinities of the pooled features of the
    images of all ranks.

    In 0..2; 0 for a batch of one.
    """
    t = ranks.gather(F.normalize(t.float().mean((2, 3)), dim=1, eps=_EPS))  # (B, C)
    s = ranks.gather(F.normalize(s.float().mean((2, 3)), dim=1, eps=_EPS))
    return _root((s @ s.T - t @ t.T).square().sum()) / t.shape[0]


def inter_affinity_networks(t: Tensor, s: Tensor) -> Tensor:
    """Return (1 / N) |T'^T S' - T'^T T'|_F: affinities between the networks against those within
    the teacher. In 0..2.

    It equals |T'^T D|_F / N with D = S' - T'; where C < N, |T'^T D|^2 = <T'T'^T, D D^T>.
    """
    return _inter_networks(_unit(t), _unit(s))


def _inter_networks(t: Tensor, s: Tensor) -> Tensor:
    n = t.shape[2]
    d = s - t
    if t.shape[1] < n:
        square = ((t @ t.transpose(1, 2)) * (d @ d.transpose(1, 2))).sum((1, 2))
    else:
        square = (t.transpose(1, 2) @ d).square().sum((1, 2))
    return (_root(square) / n).mean()


def scale_gradient(x: Tensor, factor: Tensor) -> Tensor:
    """Return `x` itself; gradients that flow back through it are multiplied by `factor`.

    Args:
        x: (B, C, H, W).
        factor: (B, 1, H, W) or broadcastable.
    """
    same = x.view_as(x)
    if same.requires_grad:
        same.register_hook(lambda back: back * factor.to(back.dtype))  # type: ignore[no-untyped-call]
    return same


def easy_factor(t: Tensor, s: Tensor, share: float, factor: float, ranks: Ranks = ALONE) -> Tensor:
    """Return the gradient factor of every position for hard mining, (B, 1, H, W).

    It is `factor` at the `share` of the positions of the whole batch with the smallest cosine
    distance between T and S, and 1 elsewhere. Positions with equal errors get the same factor, so
    fewer than the share are reduced where errors are equal, and none where all are. Positions that
    are already reproduced well no longer dominate the training, so the student learns hard normal
    positions instead of copying everything. Hard mining by a quantile, with a tenth of the gradient
    left, is Dinomaly's (arXiv 2405.14325), there for one flattened cosine.
    """
    with torch.no_grad():
        error = 1 - F.cosine_similarity(t.float(), s.float(), dim=1)  # (B, H, W)
        errors = ranks.gather(error).flatten()
        easy = max(1, math.ceil(share * errors.numel()))
        # the first error that is not easy: where many are equal, none of them is called easy
        threshold = errors.kthvalue(min(easy + 1, errors.numel())).values
        return torch.where(error < threshold, factor, 1.0).unsqueeze(1)


class StageFeatures:
    """Features of both networks at one stage, as loss terms use them.

    Attributes:
        teacher, student: float32 (B, C, H, W).
        ranks: that have a part of the batch each.
    """

    def __init__(self, teacher: Tensor, student: Tensor, ranks: Ranks = ALONE) -> None:
        self.teacher, self.student, self.ranks = teacher, student, ranks

    @cached_property
    def units(self) -> tuple[Tensor, Tensor]:
        """T' and S', (B, C, N), every position's vector normalised to length 1."""
        return _unit(self.teacher), _unit(self.student)


@dataclass(frozen=True)
class BatchFeatures:
    """Features of all stages, as a plug-in's loss of the scope `batch` receives them.

    Attributes:
        stages: shallow to deep.
        output: everything the student returned.
        progress: share of the training steps done, in 0..1.
    """

    stages: Sequence[StageFeatures]
    output: StudentOutput
    progress: float


def global_cosine_term(stage: StageFeatures, settings: LossSettings) -> Tensor:
    """Return `global_cosine` of a stage."""
    return global_cosine(stage.teacher, stage.student)


def mse_term(stage: StageFeatures, settings: LossSettings) -> Tensor:
    """Return `squared_error` of a stage."""
    return squared_error(stage.teacher, stage.student)


def channel_term(stage: StageFeatures, settings: LossSettings) -> Tensor:
    """Return `channel_distillation` of a stage."""
    return _channel(*stage.units)


def spatial_term(stage: StageFeatures, settings: LossSettings) -> Tensor:
    """Return `spatial_distillation` of a stage."""
    return spatial_distillation(stage.teacher, stage.student, settings.spatial_temperature)


def intra_term(stage: StageFeatures, settings: LossSettings) -> Tensor:
    """Return `intra_affinity` of a stage."""
    return _intra(*stage.units)


def inter_term(stage: StageFeatures, settings: LossSettings) -> Tensor:
    """Return `inter_affinity_networks` or `inter_affinity_images` of a stage."""
    if settings.inter_form == "networks":
        return _inter_networks(*stage.units)
    return inter_affinity_images(stage.teacher, stage.student, stage.ranks)


def distillation(
    targets: Sequence[Tensor],
    output: StudentOutput,
    settings: LossSettings,
    progress: float = 1.0,
    weights: Sequence[Tensor] | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum of all loss terms that are switched on.

    Args:
        targets: teacher features, one (B, C, H, W) per stage.
        output: of the student; its own losses are added with weight 1.
        settings: weights of the terms, and hard mining.
        progress: share of the training steps done, in 0..1; the share of easy positions rises with
            it.
        weights: gradient factors of the positions, one (B, 1, H, W) per stage; None: 1.
        ranks: that have a part of the batch each; the mean of their totals is that of the batch.

    Returns:
        The total (scalar, with gradient), and the unweighted value of every term (detached
        scalars), summed over the stages, by the names of the settings.
    """
    share = settings.hard_mining * min(1.0, progress / MINING_RAMP)
    mining = share > 0 and settings.hard_mining_factor < 1
    stages = []
    for i, (t, s) in enumerate(zip(targets, output.features, strict=True)):
        t, s = t.float(), s.float()
        if mining:
            s = scale_gradient(s, easy_factor(t, s, share, settings.hard_mining_factor, ranks))
        if weights is not None:
            s = scale_gradient(s, weights[i])
        stages.append(StageFeatures(t, s, ranks))
    terms = _active(settings)
    total = torch.zeros((), device=targets[0].device)
    sums = {part.name: total.clone() for part, _, _ in terms}
    functions = [(part, own, part.load()) for part, _, own in terms]
    for stage in stages:
        for part, own, function in functions:
            if part.scope == "stage":
                sums[part.name] = sums[part.name] + function(stage, own)
    for part, own, function in functions:
        if part.scope == "batch":
            sums[part.name] = function(BatchFeatures(stages, output, progress), own)
    for part, weight, _ in terms:
        total = total + weight * sums[part.name]
    for name, value in output.losses.items():
        total, sums[name] = total + value, value
    return total, {name: value.detach() for name, value in sums.items()}


def _active(settings: LossSettings) -> list[tuple[Part, float, Any]]:
    """Registered term, weight and settings of every term whose weight is above 0."""
    terms = [(LOSSES.get(n), float(getattr(settings, n)), settings) for n in LOSSES.builtin()]
    terms += [(LOSSES.get(n), float(own.weight), own) for n, own in settings.plugins.items()]
    return [term for term in terms if term[1] > 0]


def _unit(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, N), every position's vector normalised to length 1."""
    units: Tensor = _Units.apply(x.float().flatten(2))
    return units


class _Units(torch.autograd.Function):
    """(B, C, N) divided by the vectors' lengths along C, each clamped to at least `_EPS`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(_EPS)
        units: Tensor = x / length
        ctx.save_for_backward(units, length)
        return units

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        units, length = ctx.saved_tensors
        along = (gradient * units).sum(1, keepdim=True)
        along = torch.where(length > _EPS, along, 0)
        return torch.addcmul(gradient, units, along, value=-1).div_(length)


def _root(square: Tensor) -> Tensor:
    """Square root, clamped at 0, with a finite gradient there."""
    return (square.clamp_min(0) + 1e-12).sqrt()
