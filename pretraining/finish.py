"""From a run to the file of weights that the package ships."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from crops import Batches
from snl.files import load_tensors, save_tensors
from snl.model.compact import FEATURES, Compact
from tasks import SIZE, STAGES, normalise

BATCHES = 16
"""Of generated images, over which the principal axes are taken."""
WHITENING = 0.5
"""Every axis is divided by its standard deviation to this power: 0 leaves it, 1 whitens it."""
LICENCE = "Apache-2.0"


@torch.no_grad()
def finish(run: Path, output: Path) -> str:
    """Write the averaged network, its readings turned into the features that a student learns.

    The readings of each stage (what was regressed) are centred and rotated to their principal axes
    over generated images; the first of them are kept, half whitened. All of it is linear, so it is
    multiplied into the stage's 1 x 1 convolution.

    Args:
        run: folder of a finished run, or one of its files.
        output: safetensors file, float16, with provenance, licence and sha256 in its metadata.

    Returns:
        What share of the variance was kept, in words.
    """
    arrays, facts = load_tensors(run / "final.safetensors" if run.is_dir() else run, "pretraining")
    net = Compact(STAGES)
    own = {k[4:]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith("net.")}
    net.load_state_dict(own)
    net.eval()
    recipe = facts["recipe"]
    # the seed beside the run's: other images than those of the training
    stream = islice(Batches(recipe["seed"] + 1, 0, BATCHES, 48, SIZE), BATCHES)
    outputs = [net(normalise(images)) for (images,) in stream]
    state = {name: value for name, value in own.items() if not name.startswith("necks.")}
    told = []
    for number, kept in enumerate(FEATURES):
        readings = torch.cat([o[number].transpose(0, 1).flatten(1) for o in outputs], 1)
        turn, centre, share = principal_axes(readings, kept)
        weight = own[f"necks.{number}.weight"][:, :, 0, 0].double()
        bias = own[f"necks.{number}.bias"].double()
        state[f"necks.{number}.weight"] = (turn @ weight)[:, :, None, None]
        state[f"necks.{number}.bias"] = turn @ (bias - centre)
        told.append(f"{share:.1%} in {kept} axes of stage {number + 1}")
    half = {k: v.half().numpy() for k, v in state.items() if not k.endswith("batches_tracked")}
    provenance = {
        "network": "snl_compact",
        "made_by": "pretraining/pretrain.py of the project snl",
        "licence": LICENCE,
        "recipe": recipe,
        "images": facts["images"],
        "inputs": facts["inputs"],
        "features": list(FEATURES),
        "whitening": WHITENING,
    }
    save_tensors(output, half, "teacher", provenance)
    return f"{output}: variance kept: {', '.join(told)}"


def principal_axes(values: Tensor, kept: int) -> tuple[Tensor, Tensor, float]:
    """The matrix (kept, C) that turns centred values (C, n) to their first axes, half whitened,
    their centre (C,), and the share of the variance that is kept. Float64."""
    values = values.double()
    variance, axes = torch.linalg.eigh(torch.cov(values))
    variance, axes = variance.flip(0), axes.flip(1)
    scale = variance[:kept].clamp_min(1e-9).sqrt() ** -WHITENING
    share = float(variance[:kept].sum() / variance.sum())
    return (axes[:, :kept] * scale).T, values.mean(1), share
