"""Layers whose result depends on the whole batch, of which every rank has a part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from snl.model.ranks import ALONE, Ranks


class WholeBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` with the statistics of all ranks' parts, on CPUs and GPUs.

    PyTorch's `SyncBatchNorm` runs on GPUs alone. Mean and variance are computed one after the
    other, because the mean of squares minus the square of the mean loses digits.
    """

    ranks: Ranks = ALONE

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W); in evaluation mode by the running statistics."""
        if not self.training or self.ranks.size == 1:
            return super().forward(input)
        x = input.float()
        count = x.numel() // x.shape[1] * self.ranks.size
        mean = self.ranks.sum(x.sum((0, 2, 3))) / count
        centred = x - mean.view(1, -1, 1, 1)
        variance = self.ranks.sum(centred.square().sum((0, 2, 3))) / count
        if self.track_running_stats and self.running_mean is not None:
            self._track(mean.detach(), variance.detach() * (count / max(count - 1, 1)))
        y = centred * (variance + self.eps).rsqrt().view(1, -1, 1, 1)
        if self.weight is not None:
            y = y * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return y.to(input.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:
            share = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


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
