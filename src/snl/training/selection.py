"""Split of the normal images into training and held-out ones, and groups of similar images."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from snl.data.catalog import Catalog
from snl.data.records import Record
from snl.data.stream import Loaded, batches, read
from snl.decision.products import find_groups
from snl.errors import DataError, ImageError
from snl.limits import MAX_PIXELS, MIN_IMAGES
from snl.model.error_statistics import embed
from snl.model.network import Network
from snl.settings import Settings, TrainingSettings


def check_numbers(records: Iterable[Record]) -> None:
    """Check that every product has enough normal images to begin with.

    Raises:
        DataError: one has fewer than `MIN_IMAGES`.
    """
    counts = Counter(record.product for record in records)
    few = {name: count for name, count in counts.items() if count < MIN_IMAGES}
    if few:
        product, count = next(iter(few.items()))
        others = f" (and {len(few) - 1} more products)" if len(few) > 1 else ""
        raise DataError(
            f"product '{product}'{others} has {count} normal image{'s' if count > 1 else ''}; "
            f"{MIN_IMAGES} are needed to begin, and 20 or more for decisions"
        )


def split(catalog: Catalog, settings: Settings) -> tuple[list[Record], list[Record]]:
    """Divide the normal training records into those for training and the held-out ones.

    Of every product the share `holdout` is held out for calibration, but at least `holdout_min`
    images. For the sake of this minimum at most a third of a product's images is held out, and two
    images always remain for training. The seed determines the choice.

    Where images have a part, whole parts are held out, of all products that they are in: no view
    of a held-out part is trained on. The numbers of images are then approximate.

    Raises:
        DataError: there are no normal training images.
    """
    used: list[Record] = []
    held: list[Record] = []
    if any(record.part for record in catalog.train()):
        units = _held_out_parts(catalog.train(), settings.training)
        for record in catalog.train():
            (held if _unit(record) in units else used).append(record)
        return used, held
    for product in catalog.products:
        records = [r for r in catalog.train() if r.product == product]
        count = held_out_count(len(records), settings.training)
        seed = [settings.training.seed, zlib.crc32(product.encode())]
        chosen = set(np.random.default_rng(seed).permutation(len(records))[:count].tolist())
        for number, record in enumerate(records):
            (held if number in chosen else used).append(record)
    if not used:
        raise DataError(
            f"{catalog.root}: no normal training images (layout '{catalog.layout}'); put them into "
            "<product>/train/good, or see the report of snl doctor"
        )
    return used, held


def _held_out_parts(records: Sequence[Record], settings: TrainingSettings) -> set[str | Path]:
    """Return the parts whose images are held out; see `split`.

    Of each product, parts are taken in random order until the number of its held-out images is as
    close to `held_out_count` as whole parts allow; at least one is taken if two images remain.
    Parts that show no product dealt with before come first, so that those keep their numbers.
    """
    of_part: dict[str | Path, Counter[str]] = {}
    for record in records:
        of_part.setdefault(_unit(record), Counter())[record.product] += 1
    totals = Counter(record.product for record in records)
    held: Counter[str] = Counter()
    chosen: set[str | Path] = set()
    done: set[str] = set()
    for product in sorted(totals):
        wanted = held_out_count(totals[product], settings)
        parts = sorted((part for part, products in of_part.items() if products[product]), key=str)
        rng = np.random.default_rng([settings.seed, zlib.crc32(product.encode())])
        order = [parts[number] for number in rng.permutation(len(parts))]
        for part in sorted(order, key=lambda part: bool(done & of_part[part].keys())):
            views = of_part[part]
            if part in chosen or any(totals[p] - held[p] - views[p] < 2 for p in views):
                continue
            missing = wanted - held[product]
            if missing <= 0 or (held[product] and 2 * missing < views[product]):
                break
            chosen.add(part)
            held.update(views)
        done.add(product)
    return chosen


def _unit(record: Record) -> str | Path:
    """Return what is held out together: a part, or an image that belongs to none."""
    return record.part or record.path


def group(
    catalog: Catalog,
    network: Network,
    progress: Callable[[int, int], None] | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Catalog:
    """Return the catalog with its single product divided into groups of similar images.

    Args:
        catalog: returned unchanged if it has several products.
        network: with its teacher's weights; not trained yet.
        progress: called with (done, total).
        max_pixels: largest allowed height times width of an image.

    Returns:
        A catalog whose training images are the products `NAME 1` (the largest group), `NAME 2`,
        ...; the catalog itself if no groups are clearly separate, see
        `snl.decision.products.find_groups`. Other images keep their product.
    """
    records = catalog.train()
    if len({record.product for record in records}) != 1:
        return catalog
    stream = read(
        [record.source for record in records],
        network.settings.image_size,
        max_pixels=max_pixels,
        white_level=network.settings.white_level,
    )
    readable, embeddings = embeddings_of(network, stream, len(records), progress)
    if not readable:
        return catalog
    labels = find_groups(embeddings, network.settings.training.seed)
    if labels.max() == 0:
        return catalog
    product = records[0].product
    names = {
        records[index].path: f"{product} {label + 1}"
        for index, label in zip(readable, labels.tolist(), strict=True)
    }
    first = f"{product} 1"  # for unreadable images, which training reports
    training = set(records)
    return replace(
        catalog,
        records=tuple(
            replace(r, product=names.get(r.path, first)) if r in training else r
            for r in catalog.records
        ),
    )


def format_groups(catalog: Catalog) -> str:
    """Return a sentence with the groups and their sizes."""
    counts = Counter(record.product for record in catalog.train())
    each = ", ".join(f"'{name}' ({count} images)" for name, count in counts.most_common())
    return f"no product names: {len(counts)} groups of similar images: {each}"


@torch.no_grad()
def embeddings_of(
    network: Network,
    stream: Iterator[Loaded | ImageError],
    total: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[int], np.ndarray]:
    """Return the indices of the readable images of a stream, and their embeddings (M, D).

    Args:
        network: with its teacher's weights.
        stream: images, and errors of those that cannot be read.
        total: number of both.
        progress: called with (done, total).
    """
    readable: list[int] = []
    rows: list[np.ndarray] = []
    errors: list[ImageError] = []
    for loaded, pixels in batches(stream, 16, errors):
        images = network.normalise(torch.from_numpy(pixels).to(network.mean.device))
        rows.append(embed(network.teacher_features(images)).cpu().numpy())
        readable += [item.index for item in loaded]
        if progress:
            progress(len(readable) + len(errors), total)
    return readable, np.concatenate(rows) if rows else np.empty((0, 1), np.float32)


def held_out_count(count: int, settings: TrainingSettings) -> int:
    """Return how many of a product's `count` normal images are held out."""
    if not settings.holdout:
        return 0
    minimum = min(settings.holdout_min, count // 3)
    return max(min(max(round(settings.holdout * count), minimum), count - 2), 0)
