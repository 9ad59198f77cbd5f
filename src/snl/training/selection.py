"""Which images are trained on, which are held out, and what product each shows."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from snl.data.catalog import Catalog
from snl.data.records import Record
from snl.data.stream import batches, read
from snl.decision.products import find_groups
from snl.errors import DataError, ImageError
from snl.model.error_statistics import embed
from snl.model.network import Network
from snl.settings import Settings, TrainingSettings


def split(catalog: Catalog, settings: Settings) -> tuple[list[Record], list[Record]]:
    """Normal training records, and those of them that are held out for calibration.

    Each product gives its share or `holdout_least`, whichever is more, chosen by the seed; of a
    product with few images no more than a third goes for the sake of `holdout_least`, and two
    always stay for training.

    Raises:
        DataError: there are no normal training images.
    """
    used: list[Record] = []
    held: list[Record] = []
    for product in catalog.products:
        records = [r for r in catalog.train() if r.product == product]
        count = _held_back(len(records), settings.training)
        seed = [settings.training.seed, zlib.crc32(product.encode())]
        chosen = set(np.random.default_rng(seed).permutation(len(records))[:count].tolist())
        for number, record in enumerate(records):
            (held if number in chosen else used).append(record)
    if not used:
        raise DataError(
            f"{catalog.root}: no normal training images (layout '{catalog.layout}'); put them into "
            "<product>/train/good, or see what was found by snl doctor"
        )
    return used, held


def group(
    catalog: Catalog, network: Network, progress: Callable[[int, int], None] | None = None
) -> Catalog:
    """A catalog without product names, one product all in all, parted by what the teacher sees.

    Args:
        catalog: of any number of products; of several it comes back as it is.
        network: with its teacher's weights; not trained yet.
        progress: called with (done, total).

    Returns:
        The training images as products `NAME 1` (the largest group), `NAME 2`, ...; as one
        product still where no groups are clear, see `snl.decision.products.find_groups`. The
        other images keep their product.
    """
    records = catalog.train()
    if len({record.product for record in records}) != 1:
        return catalog
    kept, embeddings = _embeddings(network, [record.path for record in records], progress)
    if not kept:
        return catalog
    labels = find_groups(embeddings, network.settings.training.seed)
    if labels.max() == 0:
        return catalog
    names = {records[i].path: f"{records[i].product} {k + 1}" for i, k in zip(kept, labels.tolist(),
                                                                          strict=True)}  # fmt: skip
    first = f"{records[0].product} 1"  # of images that cannot be read, which training will tell
    training = set(records)
    return replace(
        catalog,
        records=tuple(
            replace(r, product=names.get(r.path, first)) if r in training else r
            for r in catalog.records
        ),
    )


def format_groups(catalog: Catalog) -> str:
    """The groups and their sizes, in words."""
    counts = Counter(record.product for record in catalog.train())
    each = ", ".join(f"'{name}' ({count} images)" for name, count in counts.most_common())
    return f"no product names: {len(counts)} groups of images are told apart: {each}"


@torch.no_grad()
def _embeddings(
    network: Network, paths: Sequence[Path], progress: Callable[[int, int], None] | None
) -> tuple[list[int], np.ndarray]:
    """Numbers of the images that can be read, and their embeddings (M, D)."""
    kept: list[int] = []
    rows: list[np.ndarray] = []
    errors: list[ImageError] = []
    for loaded, pixels in batches(read(paths, network.settings.image_size), 16, errors):
        images = network.normalise(torch.from_numpy(pixels).to(network.mean.device))
        rows.append(embed(network.teacher_features(images)).cpu().numpy())
        kept += [item.index for item in loaded]
        if progress:
            progress(len(kept) + len(errors), len(paths))
    return kept, np.concatenate(rows) if rows else np.empty((0, 1), np.float32)


def _held_back(count: int, settings: TrainingSettings) -> int:
    """How many of a product's `count` normal images are held out."""
    if not settings.holdout:
        return 0
    least = min(settings.holdout_min, count // 3)
    return max(min(max(round(settings.holdout * count), least), count - 2), 0)
