"""The processes that train one model together, and what they tell each other.

Each of them, a rank, computes an equal part of every batch. What depends on the whole batch, the
statistics of batch normalisation, the quantile of hard mining, affinities between images, is
computed from the parts of all ranks, so that the result does not depend on their number.

A loss is the mean over a rank's part, and gradients are averaged over ranks: the average of the
ranks' losses is the loss of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from snl.errors import SnlError

T = TypeVar("T")


class FailedElsewhereError(SnlError):
    """The first rank failed, and tells the user why."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a training, and which of them this one is.

    Every method that exchanges something must be called by all ranks, in the same order.

    Attributes:
        rank, size: number of this process, and of all.
        local_rank, local_size: the same among those of this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and speaks to the user."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Return the rows of a batch of `count`, a multiple of `size`, that this rank computes."""
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def gather(self, x: Tensor) -> Tensor:
        """Return the rows of all ranks in order, from an equal number of each; differentiable."""
        return x if self.size == 1 else _Gather.apply(x, self)

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum over ranks; differentiable."""
        return x if self.size == 1 else _Sum.apply(x)

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean over ranks, without gradient."""
        if self.size == 1:
            return x
        total = x.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def largest(self, number: int) -> int:
        """Return the largest of the ranks' numbers."""
        if self.size == 1:
            return number
        value = torch.tensor(number)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def wait(self) -> None:
        """Return when all ranks have called this."""
        self.largest(0)

    def share(self, value: T) -> T:
        """Return the first rank's value, which can be pickled."""
        if self.size == 1:
            return value
        values = [value if self.is_first else None]
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]  # type: ignore[return-value]

    def collect(self, value: T) -> list[T]:
        """Return the values of all ranks, in order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def call_first(self, function: Callable[[], T]) -> T:
        """Return what `function` returns on the first rank, which alone calls it.

        Raises:
            FailedElsewhereError: it raised an exception there; the first rank raises that one.
        """
        if self.size == 1:
            return function()
        value: Any = None
        error: BaseException | None = None
        if self.is_first:
            try:
                value = function()
            except BaseException as caught:
                error = caught
        failed, value = self.share((error is not None, None if error else value))
        if error is not None:
            raise error
        if failed:
            raise FailedElsewhereError("the first process failed")
        return value  # type: ignore[no-any-return]

    def copy(self, module: nn.Module) -> None:
        """Give a module the parameters and buffers that it has on the first rank."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                dense = tensor.contiguous()
                dist.broadcast(dense, src=0)
                tensor.copy_(dense)


ALONE = Ranks()
"""The only process."""


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        own = x.contiguous()
        parts = [torch.empty_like(own) for _ in range(ranks.size)]
        dist.all_gather(parts, own)
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous()
        dist.all_reduce(total)
        return total[ctx.ranks.part(len(total))], None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total
