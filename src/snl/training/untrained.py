"""The network before it is trained: its teacher's weights, and what is fitted to the images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from snl.data.roi import Readable
from snl.data.stream import batches, read
from snl.data.tiles import samples
from snl.limits import MAX_PIXELS
from snl.model import weights
from snl.model.network import Network
from snl.model.teacher import Teacher, default_stages
from snl.settings import Settings

STANDARDISE_SAMPLE = 64
"""Images or tiles by which an untrained teacher is standardised."""


def untrained(settings: Settings, note: Callable[[str], None]) -> Network:
    """The network with the teacher's weights and an untrained student.

    Its settings name the teacher's stages, so that a bundle never depends on a default, and the
    weights by the name of their file, not by its place.
    """
    stages = settings.teacher.stages or default_stages(settings.teacher.name)
    settings = settings.replace({"teacher.stages": stages})
    network = Network(settings)
    if settings.teacher.weights == "pretrained" and not weights.in_package(settings.teacher):
        note(
            f"weights of '{settings.teacher.name}': from timm's cache on this machine, or "
            "downloaded once (without a network connection this fails after a minute)"
        )
    weights.load(network.teacher, settings.teacher)
    file = Path(settings.teacher.weights).name
    network.settings = network.settings.replace({"teacher.weights": file})
    return network


def standardise(network: Network, paths: Sequence[Readable], max_pixels: int = MAX_PIXELS) -> None:
    """Fit an untrained teacher's normalisation layers to a sample of the training images."""
    sources = samples(paths, network.settings.tile, STANDARDISE_SAMPLE, max_pixels=max_pixels)
    stream = read(
        sources,
        network.settings.image_size,
        max_pixels=max_pixels,
        white_level=network.settings.white_level,
    )
    for _, pixels in batches(stream, STANDARDISE_SAMPLE, []):
        images = network.normalise(torch.from_numpy(pixels).to(network.mean.device))
        network.teacher.standardise(images)


def fingerprint(teacher: Teacher) -> str:
    """Return the sha256 of the teacher's weights, before they are fitted to any data."""
    digest = hashlib.sha256()
    for name, value in sorted(teacher.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
