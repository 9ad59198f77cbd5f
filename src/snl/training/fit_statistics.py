"""After training: the student's errors on normal images, as the map's settings ask for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from snl.data.stream import batches, read
from snl.data.tiles import Source, samples
from snl.model.anomaly import score
from snl.model.error_statistics import NormalErrors, embed, unit_difference
from snl.model.network import Network

MOST_FOR_LEVELS = 2048
MOST_FOR_MOMENTS = 256
"""Images, or tiles, looked at; of more, evenly spread ones. Each gives thousands of positions, but
has one level."""

Features = tuple[list[Tensor], list[Tensor]]


@torch.no_grad()
def fit_errors(
    network: Network,
    paths: Sequence[Path],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make the network's `errors` anew, for its settings, from the training images.

    The images held back for thresholds have no part in it: a threshold holds its rate only if the
    scores that it is made from owe nothing to their own images. That the student knows the training
    images lowers every level alike. Images that cannot be read are left out.

    Args:
        network: trained, in evaluation mode, on its device.
        paths: the training images; with `settings.tile` it is their tiles that are looked at.
        progress: called with (done, total).
    """
    settings, tile = network.settings.map, network.settings.tile
    network.errors = NormalErrors(network.teacher.stages, settings.levels).to(network.mean.device)
    passes: list[tuple[Callable[[Network, Iterator[Features]], None], Sequence[Source]]] = []
    if settings.distance == "standardised" and settings.kind != "affinity":
        passes.append((_fit_moments, samples(paths, tile, MOST_FOR_MOMENTS)))
    if settings.levels:
        passes.append((_fit_levels, samples(paths, tile, MOST_FOR_LEVELS)))
    done, total = 0, sum(len(some) for _, some in passes)

    def features(some: Sequence[Source]) -> Iterator[Features]:
        nonlocal done
        for group, pixels in batches(read(some, network.settings.image_size), 16, []):
            images = network.normalise(torch.from_numpy(pixels).to(network.mean.device))
            teacher = network.teacher_features(images)
            yield teacher, network.student(images, teacher)
            done += len(group)
            if progress:
                progress(done, total)

    for fit, some in passes:
        fit(network, features(some))
    if progress and done < total:  # unreadable ones
        progress(total, total)


def _fit_levels(network: Network, stream: Iterator[Features]) -> None:
    """Centres of images and the scores of maps near them."""
    embeddings, scores = [], []
    for teacher, student in stream:
        embeddings.append(embed(teacher))
        scores.append(score(network.undivided(teacher, student), network.settings.map))
    if embeddings:
        seed = network.settings.training.seed
        network.errors.set_levels(torch.cat(embeddings), torch.cat(scores), seed)


def _fit_moments(network: Network, stream: Iterator[Features]) -> None:
    """Mean and standard deviation of every stage's differences, summed up in float64."""
    sums = [torch.zeros(2, stage.channels, dtype=torch.float64) for stage in network.teacher.stages]
    counts = [0] * len(sums)
    for teacher, student in stream:
        for i, (t, s) in enumerate(zip(teacher, student, strict=True)):
            rows = unit_difference(t, s).transpose(0, 1).flatten(1).cpu().double()  # (C, B h w)
            sums[i] += torch.stack([rows.sum(1), rows.square().sum(1)])
            counts[i] += rows.shape[1]
    if not all(counts):  # no image could be read: the moments stay as they are
        return
    means = [total[0] / n for total, n in zip(sums, counts, strict=True)]
    deviations = [
        (total[1] / n - mean.square()).clamp_min(0).sqrt()
        for total, mean, n in zip(sums, means, counts, strict=True)
    ]
    network.errors.set_moments(means, deviations)
