"""Fit what a trained network knows of normal images besides its student: the statistics of the
student's errors, and the memory of patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from snl.data.roi import Readable
from snl.data.stream import batches, read
from snl.data.tiles import Source, samples
from snl.limits import MAX_PIXELS
from snl.model.adapters import grouped
from snl.model.anomaly import score
from snl.model.error_statistics import ErrorStatistics, embed, unit_difference
from snl.model.memory import Bank, bank_of, patch_features
from snl.model.network import Network
from snl.registry import DISTANCES
from snl.training.similar_products import ProductGroups

MAX_FOR_CLUSTERS = 2048
MAX_FOR_MOMENTS = 256
MAX_FOR_MEMORY = 4096
"""Images or tiles used, evenly spread over all (for the memory: over those of a bank). Moments need
fewer: every image has thousands of positions, but only one score. More products have clusters in
proportion, and need more scores."""
PATCHES_PER_REMEMBERED = 32
"""Patches of the images for each one in the memory, at the least. With most of its patches in the
memory a training image would look far more normal than a new one."""
MAX_CANDIDATES = 2**18
"""Patches from which those in the memory are chosen; of more, as many of every image at random."""

Features = tuple[Tensor, list[Tensor]]
"""Normalised images, and the teacher's features."""


@torch.no_grad()
def fit_statistics(
    network: Network,
    paths: Sequence[Readable],
    progress: Callable[[int, int], None] | None = None,
    *,
    groups: ProductGroups | None = None,
    added: int = 0,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Replace the network's `statistics` and `memory` by those of the training images.

    Images held out for calibration are not used: a threshold keeps its rate only if the scores it
    is computed from are exchangeable with new ones. That the student has seen the training images
    lowers all normal scores alike. Images that cannot be read are skipped.

    Args:
        network: trained, in evaluation mode, on its device.
        paths: training images; with `settings.tile` their tiles are used.
        progress: called with (done, total).
        groups: of similar products, each with a bank of the memory; None: one bank for all images.
        added: group of products that were added to the network: only its statistics are replaced,
            and the memory stays. 0: those of all.
        max_pixels: largest allowed height times width of an image.
    """
    with grouped(torch.tensor(added, device=network.mean.device) if added else None):
        _fit_all(network, paths, progress, groups, added, max_pixels)


def _fit_all(
    network: Network,
    paths: Sequence[Readable],
    progress: Callable[[int, int], None] | None,
    groups: ProductGroups | None,
    added: int,
    max_pixels: int,
) -> None:
    settings, tile = network.settings.map, network.settings.tile
    sampled = partial(samples, side=tile, max_pixels=max_pixels)
    if not added:
        network.statistics = network.empty_statistics()
        network.memory = network.empty_memory()
    statistics = network.statistics.of(added)
    passes: list[tuple[Callable[[Network, Iterator[Features]], None], Sequence[Source]]] = []
    if DISTANCES.get(settings.distance).statistics and settings.kind != "affinity":
        passes.append(
            (partial(_fit_moments, statistics=statistics), sampled(paths, most=MAX_FOR_MOMENTS))
        )
    if not added and network.memory is not None:
        banks: list[Bank | None] = []
        for chosen in groups.paths if groups else [paths]:
            sources = sampled(chosen, most=MAX_FOR_MEMORY)
            passes.append((partial(_fit_bank, banks=banks, count=len(sources)), sources))
        passes.append((partial(_set_banks, banks=banks, groups=groups), ()))
    if settings.normalisation_clusters:  # last: of the scores as they will be
        most = network.settings.sized(MAX_FOR_CLUSTERS)
        passes.append((partial(_fit_clusters, statistics=statistics), sampled(paths, most=most)))
    done, total = 0, sum(len(sources) for _, sources in passes)

    def count(images: int) -> None:
        nonlocal done
        done += images
        if progress:
            progress(done, total)

    for fit, sources in passes:
        fit(network, _features(network, sources, max_pixels, count))
    if progress and done < total:  # unreadable images
        progress(total, total)


@torch.no_grad()
def bank_for(
    network: Network,
    paths: Sequence[Readable],
    most: int,
    per_remembered: int,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Bank | None:
    """Return a bank of patches of images, one of `per_remembered` and at most `most`; None: none of
    the images can be read."""
    sources = samples(paths, network.settings.tile, MAX_FOR_MEMORY, max_pixels=max_pixels)
    banks: list[Bank | None] = []
    stream = _features(network, sources, max_pixels, lambda images: None)
    _fit_bank(network, stream, banks, len(sources), most, per_remembered)
    return banks[0]


def _features(
    network: Network, sources: Sequence[Source], max_pixels: int, count: Callable[[int], None]
) -> Iterator[Features]:
    """Yield normalised images and their features; `count` is called with numbers of images."""
    stream = read(
        sources,
        network.settings.image_size,
        max_pixels=max_pixels,
        white_level=network.settings.white_level,
    )
    for group, pixels in batches(stream, 16, []):
        images = network.normalise(torch.from_numpy(pixels).to(network.mean.device))
        yield images, network.teacher_features(images)
        count(len(group))


def _fit_clusters(
    network: Network, stream: Iterator[Features], statistics: ErrorStatistics
) -> None:
    """Clusters of embeddings and the mean score of each."""
    embeddings, scores = [], []
    for images, teacher in stream:
        embeddings.append(embed(teacher))
        student = network.student(images, teacher).features
        scores.append(score(network.unnormalised(teacher, student), network.settings.map))
    if embeddings:
        seed = network.settings.training.seed
        statistics.set_clusters(torch.cat(embeddings), torch.cat(scores), seed)


def _fit_bank(
    network: Network,
    stream: Iterator[Features],
    banks: list[Bank | None],
    count: int,
    most: int | None = None,
    per_remembered: int = PATCHES_PER_REMEMBERED,
) -> None:
    """Add a bank of the patches of the deepest stage of `count` images; None without images."""
    generator = torch.Generator().manual_seed(network.settings.training.seed)
    candidates = -(-MAX_CANDIDATES // max(count, 1))
    rows, patches = [], 0
    for _, teacher in stream:
        for found in patch_features(teacher[-1]):
            drawn = torch.randperm(len(found), generator=generator)[:candidates].to(found.device)
            rows.append(found[drawn])
            patches += len(found)
    most = network.settings.map.memory if most is None else most
    size = min(most, patches // per_remembered)
    banks.append(bank_of(torch.cat(rows), size) if rows else None)


def _set_banks(
    network: Network, _: Iterator[Features], banks: list[Bank | None], groups: ProductGroups | None
) -> None:
    """Put the banks into the memory, those without images and their gates left out."""
    found = {number: bank for number, bank in enumerate(banks) if bank is not None}
    if not found or network.memory is None:
        return
    gates, owners = (groups.gates, groups.owners) if groups else (network.memory.gates, (0,))
    kept = [row for row, owner in enumerate(owners) if owner in found]
    places = {number: place for place, number in enumerate(found)}
    network.memory.set_banks(
        list(found.values()), gates[kept], [places[owners[row]] for row in kept]
    )


def _fit_moments(network: Network, stream: Iterator[Features], statistics: ErrorStatistics) -> None:
    """Mean and standard deviation of every stage's differences, accumulated in float64."""
    sums = [torch.zeros(2, stage.channels, dtype=torch.float64) for stage in network.teacher.stages]
    counts = [0] * len(sums)
    for images, teacher in stream:
        student = network.student(images, teacher).features
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
    statistics.set_moments(means, deviations)
