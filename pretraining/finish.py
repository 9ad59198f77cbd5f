"""Convert a pretraining run to the weights file that the package ships."""

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
"""Batches of generated images from which the principal axes are computed."""
WHITENING = 0.5
"""Every axis is divided by its standard deviation to this power: 0: no change, 1: whitening."""
LICENCE = "Apache-2.0"


@torch.no_grad()
def finish(run: Path, output: Path) -> str:
    """Write the averaged network with its outputs reduced to the features that a student learns.

    The outputs of each stage are centred and rotated to their principal axes over generated
    images; the first axes are kept and partly whitened (WHITENING). This is a linear map, so it is
    merged into the 1 x 1 convolution of the stage.

    Args:
        run: folder of a finished run, or one of its files.
        output: safetensors file, float16, with provenance, licence and sha256 in its metadata.

    Returns:
        A line of text with the output path and the fraction of variance kept per stage.
    """
    arrays, facts = load_tensors(run / "final.safetensors" if run.is_dir() else run, "pretraining")
    net = Compact(STAGES)
    weights = {k[4:]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith("net.")}
    net.load_state_dict(weights)
    net.eval()
    recipe = facts["recipe"]
    # Another seed than that of the run: these images were not used for training.
    stream = islice(Batches(recipe["seed"] + 1, 0, BATCHES, 48, SIZE), BATCHES)
    outputs = [net(normalise(images)) for (images,) in stream]
    state = {name: value for name, value in weights.items() if not name.startswith("necks.")}
    summary = []
    for number, kept in enumerate(FEATURES):
        outputs_of_stage = torch.cat([o[number].transpose(0, 1).flatten(1) for o in outputs], 1)
        projection, centre, share = principal_axes(outputs_of_stage, kept)
        weight = weights[f"necks.{number}.weight"][:, :, 0, 0].double()
        bias = weights[f"necks.{number}.bias"].double()
        state[f"necks.{number}.weight"] = (projection @ weight)[:, :, None, None]
        state[f"necks.{number}.bias"] = projection @ (bias - centre)
        summary.append(f"{share:.1%} in {kept} axes of stage {number + 1}")
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
    return f"{output}: variance kept: {', '.join(summary)}"


def principal_axes(values: Tensor, kept: int) -> tuple[Tensor, Tensor, float]:
    """Return the projection of values (C, n) to their first principal axes, partly whitened.

    Returns:
        The projection matrix for centred values, (kept, C), the mean of the values, (C,), and the
        fraction of the variance that is kept; all float64.
    """
    values = values.double()
    variance, axes = torch.linalg.eigh(torch.cov(values))
    variance, axes = variance.flip(0), axes.flip(1)
    scale = variance[:kept].clamp_min(1e-9).sqrt() ** -WHITENING
    share = float(variance[:kept].sum() / variance.sum())
    return (axes[:, :kept] * scale).T, values.mean(1), share
