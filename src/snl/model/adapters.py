"""Weights of a student's own for products that were added to a trained network.

Training a student further changes what it does on the products that it knows. Instead, its weights
stay, and every addition gets an adapter beside each convolution and linear layer:

    y = W x + up_g down_g x + b_g

where `W x` is the layer's output, `down_g` and `up_g` are 1 x 1 convolutions to and from a few
channels (of every n-th pixel where the layer has a stride of n), and g is the group of the image: 0
for the products of the first training, which has no adapter, and one more for every addition. These
are parallel residual adapters (Rebuffi et al., arXiv 1803.10082) of low rank (LoRA, Hu et al.,
arXiv 2106.09685). The group follows from the image's embedding (`Router`), so the student's output
for the earlier products stays the same in every bit, and neither time nor memory of an image grows
with the number of additions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RANK = 16
"""Channels between `down` and `up`."""
_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_PARTS = ("down", "up", "bias")

_groups: ContextVar[Tensor | None] = ContextVar("groups", default=None)
"""Group (B,) of every image that is being processed; None: the first one."""


@contextmanager
def grouped(groups: Tensor | None) -> Iterator[None]:
    """Process images of these groups, (B,) or a scalar for all of them; None: of the first one."""
    token = _groups.set(groups)
    try:
        yield
    finally:
        _groups.reset(token)


def current_groups() -> Tensor | None:
    """Return the groups of the images that are being processed; None: all are of the first one."""
    return _groups.get()


def chosen(stacked: Tensor, groups: Tensor) -> Tensor:
    """Return the rows (B, ...) of values (G, ...) for the groups of images, (B,); of a scalar, one
    row (1, ...)."""
    return stacked[groups.reshape(-1)]


class Router(nn.Module):
    """The group of an image: that of the nearest gate, an embedding of normal images.

    Args:
        width: E, the width of an embedding.
        gates: Q, their number.
    """

    gates: Tensor
    groups: Tensor

    def __init__(self, width: int, gates: int = 1) -> None:
        super().__init__()
        self.register_buffer("gates", torch.zeros(gates, width))
        self.register_buffer("groups", torch.zeros(gates, dtype=torch.long))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the groups (B,) of embeddings (B, E)."""
        apart = (embeddings.unsqueeze(1) - self.gates).square().sum(2)
        return self.groups[apart.argmin(1)]

    @torch.no_grad()
    def set_gates(self, gates: Tensor, groups: Tensor) -> None:
        """Replace the gates (Q, E), and their groups (Q,)."""
        self.gates, self.groups = gates.to(self.gates), groups.to(self.groups)


class Adapted(nn.Module):
    """A layer with adapters, mixed into the layer's class; see `adapt`.

    Its input is (B, C, H, W), or (B, ..., C) for a linear layer.
    """

    adapter_down: Tensor
    """(G, R, inputs); group 0 is zero."""
    adapter_up: Tensor
    """(G, outputs, R)."""
    adapter_bias: Tensor
    """(G, outputs)."""
    new_down: nn.Parameter | None
    """The adapter that is being trained, for all images, without the dimension G."""
    new_up: nn.Parameter | None
    new_bias: nn.Parameter | None

    def forward(self, x: Tensor) -> Tensor:
        groups = current_groups()
        if self.new_down is not None:
            assert self.new_up is not None and self.new_bias is not None
            return self._trained(x, self.new_up, self.new_down, self.new_bias)
        y: Tensor = super().forward(x)
        if groups is None or self.adapter_down.shape[0] == 1:
            return y
        parts = (self.adapter_down, self.adapter_up, self.adapter_bias)
        down, up, bias = (chosen(part, groups) for part in parts)
        return y + self._change(x, y, down, up, bias)

    def _change(self, x: Tensor, y: Tensor, down: Tensor, up: Tensor, bias: Tensor) -> Tensor:
        """Return what adapters, one for each image, add to the output `y` for an input `x`."""
        layer: Any = self  # mixed into the class of a layer
        if isinstance(layer, nn.Linear):
            flat = x.flatten(1, -2)  # (B, N, inputs)
            return (flat @ down.mT @ up.mT + bias.unsqueeze(1)).view(y.shape)
        step = layer.stride[0]
        if isinstance(layer, nn.ConvTranspose2d):
            narrow = _project(x, down)
            if step > 1:
                narrow = F.interpolate(narrow, scale_factor=float(step), mode="nearest")
        else:
            x = x[:, :, ::step, ::step] if step > 1 else x
            narrow = _project(x[:, :, : y.shape[2], : y.shape[3]], down)
        return _project(narrow, up) + bias[:, :, None, None]

    def _trained(self, x: Tensor, up: Tensor, down: Tensor, bias: Tensor) -> Tensor:
        """Return the output with the adapter that is being trained, for all images.

        It is the layer with other weights, which is faster than a sum.
        """
        layer: Any = self
        weight, change = layer.weight, up @ down  # (outputs, inputs)
        total = bias if layer.bias is None else layer.bias + bias
        if isinstance(layer, nn.Linear):
            return F.linear(x, weight + change, total)
        if layer.groups > 1:
            y: Tensor = super().forward(x)
            return y + self._change(x, y, down[None], up[None], bias[None])
        if isinstance(layer, nn.ConvTranspose2d):  # nearest: the same at all positions
            weight = weight + change.T[:, :, None, None]
            return F.conv_transpose2d(x, weight, total, layer.stride)
        row, column = layer.padding  # of the pixel that a stride keeps
        height, width = layer.kernel_size
        place = (column, width - 1 - column, row, height - 1 - row)
        weight = weight + F.pad(change[:, :, None, None], place)
        return layer._conv_forward(x, weight, total)  # type: ignore[no-any-return]

    @torch.no_grad()
    def resize(self, groups: int) -> None:
        """Make room for a number of groups; new adapters are zero."""
        for part in _PARTS:
            old: Tensor = getattr(self, f"adapter_{part}")
            more = old.new_zeros(max(groups - len(old), 0), *old.shape[1:])
            setattr(self, f"adapter_{part}", torch.cat([old[:groups], more]))

    @torch.no_grad()
    def begin(self, generator: torch.Generator) -> None:
        """Begin the training of the last group's adapter."""
        inputs = self.adapter_down.shape[2]
        down = torch.randn(self.adapter_down.shape[1:], generator=generator) / math.sqrt(inputs)
        self.new_down = nn.Parameter(down.to(self.adapter_down))
        self.new_up = nn.Parameter(torch.zeros_like(self.adapter_up[-1]))
        self.new_bias = nn.Parameter(torch.zeros_like(self.adapter_bias[-1]))

    @torch.no_grad()
    def finish(self) -> None:
        """Take what was trained over as the adapter of the last group, at half precision."""
        for part in _PARTS:
            trained: Tensor = getattr(self, f"new_{part}")
            getattr(self, f"adapter_{part}")[-1] = trained.half().float()
            setattr(self, f"new_{part}", None)

    @torch.no_grad()
    def scale(self, factors: Tensor) -> None:
        """Multiply what the adapters add by factors (outputs,)."""
        self.adapter_up = self.adapter_up * factors.view(1, -1, 1)
        self.adapter_bias = self.adapter_bias * factors

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        """Store the adapter of every group on its own, at half precision; that of group 0 is zero.
        So what two versions of a network share is equal."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for part in _PARTS:
            stacked = destination.pop(f"{prefix}adapter_{part}")
            for group in range(1, len(stacked)):
                destination[f"{prefix}adapter_{part}.{group}"] = stacked[group].half()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        for part in _PARTS:
            own: Tensor = getattr(self, f"adapter_{part}")
            keys = [f"{prefix}adapter_{part}.{group}" for group in range(1, len(own))]
            rows = [state_dict.pop(key) for key in keys]  # KeyError: a file that is damaged
            state_dict[f"{prefix}adapter_{part}"] = torch.stack(
                [torch.zeros_like(own[0]), *(row.to(own) for row in rows)]
            )
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def _project(x: Tensor, weights: Tensor) -> Tensor:
    """Return the 1 x 1 convolution of images (B, C, H, W) with weights (B or 1, D, C) each."""
    height, width = x.shape[2:]
    rows = x.permute(0, 2, 3, 1).flatten(1, 2) @ weights.mT  # channels last, without a copy
    return rows.view(-1, height, width, rows.shape[2]).permute(0, 3, 1, 2)


@cache
def _class(kind: type[nn.Module]) -> type[nn.Module]:
    return type(f"Adapted{kind.__name__}", (Adapted, kind), {})


def adapt(student: nn.Module, groups: int) -> None:
    """Give every convolution and linear layer of a student adapters for a number of groups.

    The names of its weights stay.
    """
    layer: Any
    for layer in student.modules():
        if isinstance(layer, _LAYERS) and not isinstance(layer, Adapted):
            inputs, outputs = _widths(layer)
            kind: Any = type(layer)
            layer.__class__ = _class(kind)  # type: ignore[assignment]
            shapes = ((RANK, inputs), (outputs, RANK), (outputs,))
            for part, shape in zip(_PARTS, shapes, strict=True):
                layer.register_buffer(f"adapter_{part}", layer.weight.new_zeros(1, *shape))
                layer.register_parameter(f"new_{part}", None)
    for layer in layers(student):
        layer.resize(groups)


def layers(student: nn.Module) -> list[Adapted]:
    """Return the layers with adapters."""
    return [layer for layer in student.modules() if isinstance(layer, Adapted)]


def groups_in(weights: Mapping[str, Any]) -> int:
    """Return the number of groups that the weights of a network are for."""
    numbers = [
        int(name.rpartition(".")[2])
        for name in weights
        if ".adapter_down." in name and name.rpartition(".")[2].isdecimal()
    ]
    return 1 + max(numbers, default=0)


@contextmanager
def training(student: nn.Module, seed: int) -> Iterator[None]:
    """Train the adapter of the last group in the `with` block, and nothing else.

    Without an error, what was trained is taken over.

    Args:
        student: with adapters.
        seed: of their initial values.
    """
    generator = torch.Generator().manual_seed(seed)
    trainable = [p for p in student.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    for layer in layers(student):
        layer.begin(generator)
    try:
        yield
        for layer in layers(student):
            layer.finish()
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def _widths(layer: nn.Module) -> tuple[int, int]:
    """Return the numbers of input and output channels of a layer."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    return layer.in_channels, layer.out_channels
