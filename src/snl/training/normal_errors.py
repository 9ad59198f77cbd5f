"""After training: the student's errors on normal images, as the map's settings ask for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from snl.data.stream import batches, read
from snl.model.anomaly import score
from snl.model.network import Network
from snl.model.normal_errors import NormalErrors, embed, unit_difference

MOST_IMAGES = 2048
"""Images looked at for the levels; of more, evenly spread ones."""

Features = tuple[list[Tensor], list[Tensor]]


@torch.no_grad()
def fit_errors(
    network: Network,
    used: Sequence[Path],
    held: Sequence[Path],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make the network's `errors` anew, for its settings.

    The moments come from the images held back from training, or, where none of them can be read,
    from the training images; the levels from both, since every kind of image should be among them.
    Images that cannot be read are left out; the training images and the thresholds tell of them.

    Args:
        network: trained, in evaluation mode, on its device.
        used: the training images.
        held: normal images that the student was not trained on.
        progress: called with (done, total).
    """
    settings = network.settings.map
    network.errors = NormalErrors(network.teacher.stages, settings.levels).to(network.mean.device)
    step = math.ceil((len(used) + len(held)) / MOST_IMAGES)
    unseen, both = held[::step], [*used[::step], *held[::step]]
    passes = []
    if settings.distance == "standardised":
        passes.append((_fit_moments, unseen or both))
    if settings.levels:
        passes.append((_fit_levels, both))
    done, total = 0, sum(len(paths) for _, paths in passes)

    def features(paths: Sequence[Path]) -> Iterator[Features]:
        nonlocal done
        for group, pixels in batches(read(paths, network.settings.image_size), 16, []):
            images = network.normalise(torch.from_numpy(pixels).to(network.mean.device))
            teacher = network.teacher_features(images)
            yield teacher, network.student(images, teacher)
            done += len(group)
            if progress:
                progress(done, total)

    for fit, paths in passes:
        if not fit(network, features(paths)) and paths is not both:
            total += len(both) - len(paths)
            fit(network, features(both))
    if progress and done < total:  # unreadable ones
        progress(total, total)


def _fit_levels(network: Network, stream: Iterator[Features]) -> bool:
    """Centres of images and the scores of maps near them; whether there was any image."""
    embeddings, scores = [], []
    for teacher, student in stream:
        embeddings.append(embed(teacher))
        scores.append(score(network.undivided(teacher, student), network.settings.map))
    if embeddings:
        seed = network.settings.training.seed
        network.errors.set_levels(torch.cat(embeddings), torch.cat(scores), seed)
    return bool(embeddings)


def _fit_moments(network: Network, stream: Iterator[Features]) -> bool:
    """Mean and standard deviation of every stage's differences, summed up in float64; whether
    there was any image."""
    sums = [torch.zeros(2, stage.channels, dtype=torch.float64) for stage in network.teacher.stages]
    counts = [0] * len(sums)
    for teacher, student in stream:
        for i, (t, s) in enumerate(zip(teacher, student, strict=True)):
            rows = unit_difference(t, s).transpose(0, 1).flatten(1).cpu().double()  # (C, B h w)
            sums[i] += torch.stack([rows.sum(1), rows.square().sum(1)])
            counts[i] += rows.shape[1]
    if not all(counts):
        return False
    means = [total[0] / n for total, n in zip(sums, counts, strict=True)]
    deviations = [
        (total[1] / n - mean.square()).clamp_min(0).sqrt()
        for total, mean, n in zip(sums, means, counts, strict=True)
    ]
    network.errors.set_moments(means, deviations)
    return True
