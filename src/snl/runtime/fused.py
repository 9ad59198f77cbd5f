"""A network made ready for inference alone: batch norms folded, and half precision if asked for."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from snl.model.network import Network

_Convolution = nn.Conv2d | nn.ConvTranspose2d


@torch.no_grad()
def fused(network: Network) -> Network:
    """A copy that gives the same up to rounding, faster: channels last, batch norms folded.

    Which norm follows which convolution is seen by looking on while an image passes, so any
    teacher of timm and any student will do; a norm that follows something else stays.
    """
    fast = copy.deepcopy(network).eval()
    made: dict[int, tuple[_Convolution, Tensor]] = {}
    pairs: list[tuple[_Convolution, _BatchNorm]] = []
    calls: dict[nn.Module, int] = {}

    def seen(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, _Convolution):
            made[id(output)] = (module, output)  # the tensor is kept, so that its id is its own
        elif id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], module))  # type: ignore[arg-type]

    watched = [m for m in fast.modules() if isinstance(m, _Convolution | _BatchNorm)]
    hooks = [module.register_forward_hook(seen) for module in watched]
    side = fast.settings.image_size
    fast(torch.zeros(1, side, side, 3, dtype=torch.uint8, device=fast.mean.device))
    for hook in hooks:
        hook.remove()
    for convolution, norm in pairs:
        if calls[convolution] == calls[norm] == 1:
            _fold(convolution, norm)
    return fast.to(memory_format=torch.channels_last)


def halve(network: Network, dtype: torch.dtype) -> None:
    """Make teacher and student compute in `dtype` as under autocast, with weights cast once.

    Modules with `full_precision` and everything after the features stay in float32.
    """
    for part in (network.teacher, network.student):
        kept = {
            id(inner)
            for module in part.modules()
            if getattr(module, "full_precision", False)
            for inner in module.modules()
        }
        for module in part.modules():
            if isinstance(module, _Convolution | nn.Linear) and id(module) not in kept:
                module.to(dtype)
        kind = network.mean.device.type
        part.forward = torch.autocast(kind, dtype)(part.forward)  # type: ignore[method-assign]


def _fold(convolution: _Convolution, norm: _BatchNorm) -> None:
    """Put the norm into the convolution, and make the norm do nothing; an activation that timm
    keeps in the norm's module stays."""
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
    _idle(norm)


def _idle(norm: _BatchNorm) -> None:
    rest = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
    norm.forward = nn.Sequential(*rest).forward  # type: ignore[method-assign]
