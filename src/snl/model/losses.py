"""Distillation losses between one stage's teacher features T and student features S.

Every function takes T and S of shape (B, C, H, W), any float dtype, computes in float32 and
returns a scalar: the mean over the batch. N = H * W positions; T' and S' have every position's
vector at length 1. Formulas: method notes of the re-implementation (docs/method.md); the flattened
cosine is RD4AD's (arXiv 2201.10703). No gradient goes to the teacher.

Terms that are made of T' and S' share them, and where automatic differentiation would multiply
more matrices than the derivative needs, the derivative is written out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from snl.settings import LossSettings

_Term = Callable[[Tensor, Tensor], Tensor]
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
    return _channel(_unit(t), _unit(s))


def _channel(t: Tensor, s: Tensor) -> Tensor:
    return 1 - (t * s).sum(1).mean()


def spatial_distillation(t: Tensor, s: Tensor, temperature: float = 1.0) -> Tensor:
    """Per channel, softmax over the N positions at a temperature tau, KL(T || S): summed over
    positions, averaged over channels, times tau squared. At least 0."""
    log_t = F.log_softmax(t.float().flatten(2) / temperature, dim=2)
    log_s = F.log_softmax(s.float().flatten(2) / temperature, dim=2)
    kl = (log_t.exp() * (log_t - log_s)).sum(2)  # (B, C)
    return kl.mean() * temperature**2


def intra_affinity(t: Tensor, s: Tensor) -> Tensor:
    """(1 / N) |A_S - A_T|_F with A = F'^T F', the N x N cosine affinities within an image. In 0..2.

    Where C < N no N x N matrix is made, see `_AffinityChange`.
    """
    return _intra(_unit(t), _unit(s))


def _intra(t: Tensor, s: Tensor) -> Tensor:
    return (_root(_AffinityChange.apply(t, s)) / t.shape[2]).mean()


class _AffinityChange(torch.autograd.Function):
    """|S'^T S' - T'^T T'|_F^2 of every image: (B, C, N) twice to (B,).

    Where C < N, by C x C Grams of D = S' - T' and M = (S' + T') / 2, since the difference is
    M^T D + D^T M: its squared norm is 2 <M M^T, D D^T> + 2 <M D^T, D M^T>, which loses no digits
    where S is near T (as |A_S|^2 + |A_T|^2 - 2 <A_S, A_T> would). The derivative by S' is
    4 S' (S'^T S' - T'^T T'), of the same Grams by S' = M + D / 2.
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
    return _inter_networks(_unit(t), _unit(s))


def _inter_networks(t: Tensor, s: Tensor) -> Tensor:
    n = t.shape[2]
    d = s - t
    if t.shape[1] < n:
        square = ((t @ t.transpose(1, 2)) * (d @ d.transpose(1, 2))).sum((1, 2))
    else:
        square = (t.transpose(1, 2) @ d).square().sum((1, 2))
    return (_root(square) / n).mean()


def damp_easy(t: Tensor, s: Tensor, share: float, gradient: float) -> Tensor:
    """S itself; at the `share` of the batch's positions of least cosine distance to T, gradients
    that come back through it are multiplied by `gradient`.

    What is reproduced well already stops driving the training, so the student spends itself on
    hard normal positions and does not learn to copy everything. Hard mining by a quantile with
    a tenth of the gradient left is Dinomaly's (arXiv 2405.14325), there for one flattened cosine.
    """
    with torch.no_grad():
        error = 1 - F.cosine_similarity(t.float(), s.float(), dim=1)  # (B, H, W)
        rank = max(1, math.ceil(share * error.numel()))
        threshold = error.flatten().kthvalue(rank).values
        weight = torch.where(error <= threshold, gradient, 1.0).unsqueeze(1)
    same = s.view_as(s)
    if same.requires_grad:
        same.register_hook(lambda back: back * weight.to(back.dtype))  # type: ignore[no-untyped-call]
    return same


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
    damped = easy > 0 and settings.easy_gradient < 1
    networks = settings.inter_form == "networks"
    inter = _on_units(_inter_networks) if networks else _on_features(inter_affinity_images)
    spatial = partial(spatial_distillation, temperature=settings.temperature)
    table = {
        "flat": (settings.flat, _on_features(flat_cosine)),
        "mse": (settings.mse, _on_features(squared_error)),
        "channel": (settings.channel, _on_units(_channel)),
        "spatial": (settings.spatial, _on_features(spatial)),
        "intra": (settings.intra, _on_units(_intra)),
        "inter": (settings.inter, inter),
    }
    total = torch.zeros((), device=teacher[0].device)
    sums = {name: total.clone() for name, (weight, _) in table.items() if weight > 0}
    for t, s in zip(teacher, student, strict=True):
        t, s = t.float(), s.float()
        if damped:
            s = damp_easy(t, s, easy, settings.easy_gradient)
        stage = _Stage(t, s)
        for name in sums:
            sums[name] = sums[name] + table[name][1](stage)
    for name, value in sums.items():
        total = total + table[name][0] * value
    return total, {name: value.detach() for name, value in sums.items()}


class _Stage:
    """Features of both networks, float32 (B, C, H, W), with what several terms make of them."""

    def __init__(self, t: Tensor, s: Tensor) -> None:
        self.features = t, s

    @cached_property
    def units(self) -> tuple[Tensor, Tensor]:
        t, s = self.features
        return _unit(t), _unit(s)


def _on_features(term: _Term) -> Callable[[_Stage], Tensor]:
    return lambda stage: term(*stage.features)


def _on_units(term: _Term) -> Callable[[_Stage], Tensor]:
    return lambda stage: term(*stage.units)


def _unit(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, N) with every position's vector of length 1."""
    units: Tensor = _Units.apply(x.float().flatten(2))
    return units


class _Units(torch.autograd.Function):
    """(B, C, N) over the lengths of the vectors along C, which are taken for `_EPS` at least."""

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
    """Square root that is clamped at 0 and has a finite gradient there."""
    return (square.clamp_min(0) + 1e-12).sqrt()
