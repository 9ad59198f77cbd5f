"""Prepare a network for inference: batch norms folded, and optionally half precision."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from snl.model.adapters import Adapted
from snl.model.network import Network

_Convolution = nn.Conv2d | nn.ConvTranspose2d


@torch.no_grad()
def fused(network: Network) -> Network:
    """Return a faster copy in channels-last layout, with batch norms folded into convolutions.

    Its outputs differ by rounding only. Which norm follows which convolution is observed while an
    image is processed, so this works for any timm teacher and any student; a norm that follows
    another kind of module stays.
    """
    copied = copy.deepcopy(network).eval()
    producers: dict[int, tuple[_Convolution, Tensor]] = {}
    pairs: list[tuple[_Convolution, _BatchNorm]] = []
    calls: dict[nn.Module, int] = {}

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, _Convolution):
            # the tensor is kept, because the id of a released one could be used again
            producers[id(output)] = (module, output)
        elif id(inputs[0]) in producers:
            pairs.append((producers[id(inputs[0])][0], module))  # type: ignore[arg-type]

    observed = [m for m in copied.modules() if isinstance(m, _Convolution | _BatchNorm)]
    hooks = [module.register_forward_hook(record) for module in observed]
    side = copied.settings.image_size
    copied(torch.zeros(1, side, side, 3, dtype=torch.uint8, device=copied.mean.device))
    for hook in hooks:
        hook.remove()
    for convolution, norm in pairs:
        if calls[convolution] == calls[norm] == 1:
            _fold(convolution, norm)
    return copied.to(memory_format=torch.channels_last)


def halve(network: Network, dtype: torch.dtype) -> None:
    """Make teacher and student compute in `dtype` as under autocast, with weights cast once.

    Modules with the attribute `full_precision`, and everything after the features, stay in float32.
    """
    for part in (network.teacher, network.student):
        excluded = {
            id(inner)
            for module in part.modules()
            if getattr(module, "full_precision", False)
            for inner in module.modules()
        }
        for module in part.modules():
            if isinstance(module, _Convolution | nn.Linear) and id(module) not in excluded:
                module.to(dtype)
        part.forward = _autocast(part.forward, network.mean.device.type, dtype)  # type: ignore[method-assign]


def _autocast(forward: Callable[..., Any], kind: str, dtype: torch.dtype) -> Callable[..., Any]:
    """Return `forward` under an autocast of its own for every call: the object holds the state of
    the thread that entered it, so threads cannot share one."""

    def under_autocast(*inputs: Any) -> Any:
        with torch.autocast(kind, dtype):
            return forward(*inputs)

    return under_autocast


def _fold(convolution: _Convolution, norm: _BatchNorm) -> None:
    """Fold a norm into the convolution before it, and turn the norm into the identity.

    An activation that timm keeps inside the norm's module stays.
    """
    if norm.running_mean is None or norm.running_var is None:
        return
    weight, bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=isinstance(convolution, nn.ConvTranspose2d),
    )
    convolution.weight, convolution.bias = weight, bias
    adapted: Any = convolution
    if isinstance(adapted, Adapted):
        factors = (norm.running_var + norm.eps).rsqrt()
        adapted.scale(factors if norm.weight is None else norm.weight * factors)
    remaining = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
    norm.forward = nn.Sequential(*remaining).forward  # type: ignore[method-assign]
