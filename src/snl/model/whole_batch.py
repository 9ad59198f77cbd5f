"""Layers that work on the whole batch when every rank has only a part of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from snl.model.ranks import ALONE, Ranks


class WholeBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` with the statistics of all ranks' parts, on CPUs and GPUs.

    PyTorch's `SyncBatchNorm` runs on GPUs alone.
    """

    ranks: Ranks = ALONE

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W); in evaluation mode by the running statistics."""
        if not self.training or self.ranks.size == 1:
            return super().forward(input)
        ones = input.new_ones(input.shape[1], dtype=torch.float32)
        weight, bias = (self.weight, self.bias) if self.affine else (ones, 0 * ones)
        y, mean, variance = _Normalised.apply(input.float(), weight, bias, self.eps, self.ranks)
        if self.track_running_stats and self.running_mean is not None:
            count = input.numel() // input.shape[1] * self.ranks.size
            self._track(mean, variance * (count / max(count - 1, 1)))
        return y.to(input.dtype)  # type: ignore[no-any-return]

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:
            share = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class _Normalised(torch.autograd.Function):
    """Batch normalisation with one exchange between ranks forwards and one backwards.

    Means and sums of squares of the parts are combined as by Chan et al. (1979), which loses no
    digits where the mean is large. The derivative is that of batch normalisation, with sums over
    all ranks.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, ranks: Ranks
    ) -> tuple[Tensor, Tensor, Tensor]:
        own = x.numel() // x.shape[1]
        part = torch.var_mean(x, (0, 2, 3), correction=0)
        variances, means = ranks.gather(torch.stack(part)[None]).unbind(1)  # (ranks, C)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        scale = (variance + eps).rsqrt()
        normal = (x - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1)
        ctx.save_for_backward(normal, weight, scale)
        ctx.ranks, ctx.count = ranks, own * ranks.size
        ctx.mark_non_differentiable(mean, variance)
        y = torch.addcmul(bias.view(1, -1, 1, 1), normal, weight.view(1, -1, 1, 1))
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor, *_: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        normal, weight, scale = ctx.saved_tensors
        own = torch.stack([gradient.sum((0, 2, 3)), (gradient * normal).sum((0, 2, 3))])
        along = (ctx.ranks.sum(own) / ctx.count).view(2, 1, -1, 1, 1)
        change = gradient - along[0] - normal * along[1]
        return change * (weight * scale).view(1, -1, 1, 1), own[1], own[0], None, None


class WholeBatchDropout(nn.Dropout):
    """Dropout whose zeros depend on an image's place in the whole batch, not on the rank."""

    ranks: Ranks = ALONE

    def forward(self, input: Tensor) -> Tensor:
        """Set a share `p` of the values (B, ...) to zero, in training mode."""
        if not self.training or self.p == 0:
            return input
        kept = 1 - self.p
        empty = partial(torch.empty, dtype=input.dtype, device=input.device)
        mask = own_rows(lambda shape: empty(shape).bernoulli_(kept), input.shape, self.ranks)
        return input * mask.div_(kept)


def own_rows(draw: Callable[[Sequence[int]], Tensor], shape: Sequence[int], ranks: Ranks) -> Tensor:
    """Return a rank's rows of random values for the whole batch.

    All ranks' generators are in the same state and draw the same values.

    Args:
        draw: returns random values of a shape.
        shape: (B, ...) of the rank's part.
        ranks: of the batch.
    """
    count = shape[0] * ranks.size
    return draw((count, *shape[1:]))[ranks.part(count)]


def join(module: nn.Module, ranks: Ranks) -> None:
    """Let the layers of a module, in place, work with the parts of all ranks."""
    for layer in module.modules():
        if ranks.size > 1 and type(layer) is nn.BatchNorm2d:
            layer.__class__ = WholeBatchNorm2d
        if hasattr(layer, "ranks"):
            layer.ranks = ranks  # type: ignore[assignment]


def leave(module: nn.Module) -> None:
    """Undo `join`."""
    for layer in module.modules():
        if hasattr(layer, "ranks"):
            layer.ranks = ALONE  # type: ignore[assignment]
        if type(layer) is WholeBatchNorm2d:
            layer.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
