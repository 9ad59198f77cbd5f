"""Fit the statistics of the student's errors on normal images, after training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from snl.data.stream import batches, read
from snl.data.tiles import Source, samples
from snl.limits import MAX_PIXELS
from snl.model.anomaly import score
from snl.model.error_statistics import ErrorStatistics, embed, unit_difference
from snl.model.network import Network
from snl.registry import DISTANCES

MAX_FOR_CLUSTERS = 2048
MAX_FOR_MOMENTS = 256
"""Images or tiles used, evenly spread over all. Moments need fewer: every image has thousands of
positions, but only one score."""

Features = tuple[list[Tensor], list[Tensor]]


@torch.no_grad()
def fit_statistics(
    network: Network,
    paths: Sequence[Path],
    progress: Callable[[int, int], None] | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Replace the network's `statistics` by those of the training images.

    Images held out for calibration are not used: a threshold keeps its rate only if the scores it
    is computed from are exchangeable with new ones. That the student has seen the training images
    lowers all normal scores alike. Images that cannot be read are skipped.

    Args:
        network: trained, in evaluation mode, on its device.
        paths: training images; with `settings.tile` their tiles are used.
        progress: called with (done, total).
        max_pixels: largest allowed height times width of an image.
    """
    settings, tile = network.settings.map, network.settings.tile
    sampled = partial(samples, paths, tile, max_pixels=max_pixels)
    statistics = ErrorStatistics(network.teacher.stages, settings.normalisation_clusters)
    network.statistics = statistics.to(network.mean.device)
    passes: list[tuple[Callable[[Network, Iterator[Features]], None], Sequence[Source]]] = []
    if DISTANCES.get(settings.distance).statistics and settings.kind != "affinity":
        passes.append((_fit_moments, sampled(MAX_FOR_MOMENTS)))
    if settings.normalisation_clusters:
        passes.append((_fit_clusters, sampled(MAX_FOR_CLUSTERS)))
    done, total = 0, sum(len(sources) for _, sources in passes)

    def features(sources: Sequence[Source]) -> Iterator[Features]:
        nonlocal done
        stream = read(
            sources,
            network.settings.image_size,
            max_pixels=max_pixels,
            white_level=network.settings.white_level,
        )
        for group, pixels in batches(stream, 16, []):
            images = network.normalise(torch.from_numpy(pixels).to(network.mean.device))
            teacher = network.teacher_features(images)
            yield teacher, network.student(images, teacher).features
            done += len(group)
            if progress:
                progress(done, total)

    for fit, sources in passes:
        fit(network, features(sources))
    if progress and done < total:  # unreadable images
        progress(total, total)


def _fit_clusters(network: Network, stream: Iterator[Features]) -> None:
    """Clusters of embeddings and the mean score of each."""
    embeddings, scores = [], []
    for teacher, student in stream:
        embeddings.append(embed(teacher))
        scores.append(score(network.unnormalised(teacher, student), network.settings.map))
    if embeddings:
        seed = network.settings.training.seed
        network.statistics.set_clusters(torch.cat(embeddings), torch.cat(scores), seed)


def _fit_moments(network: Network, stream: Iterator[Features]) -> None:
    """Mean and standard deviation of every stage's differences, accumulated in float64."""
    sums = [torch.zeros(2, stage.channels, dtype=torch.float64) for stage in network.teacher.stages]
    counts = [0] * len(sums)
    for teacher, student in stream:
        for i, (t, s) in enumerate(zip(teacher, student, strict=True)):
            rows = unit_difference(t, s).transpose(0, 1).flatten(1).cpu().double()  # (C, B h w)
            sums[i] += torch.stack([rows.sum(1), rows.square().sum(1)])
            counts[i] += rows.shape[1]
    if not all(counts):  # no readable image: the moments keep their initial values
        return
    means = [total[0] / n for total, n in zip(sums, counts, strict=True)]
    deviations = [
        (total[1] / n - mean.square()).clamp_min(0).sqrt()
        for total, mean, n in zip(sums, means, counts, strict=True)
    ]
    network.statistics.set_moments(means, deviations)
