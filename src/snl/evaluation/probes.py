"""Interference between products: do mixtures of products pass as normal?

A network trained on many products can become too tolerant, so that a mixture of two products passes
as normal. Two probes of the SNL paper (arXiv 2402.17091) measure this for each pair of products:
Mixup (a blend of two normal images must score as anomalous) and CutPaste (a patch of one product in
an image of another must stand out in the anomaly map). Chance is 0.5; without interference the
value is 1. The protocol of the paper is not public; this project's is in docs/probes.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import islice, product
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from snl.data.catalog import Catalog
from snl.data.records import Record
from snl.data.stream import Loaded, batches, read
from snl.errors import DataError, ImageError, SettingsError
from snl.evaluation.composites import Images, cutpastes, mixups
from snl.evaluation.histogram import ScoreHistogram
from snl.evaluation.metrics import auroc
from snl.evaluation.probe_results import Cell, Interference
from snl.limits import MAX_PIXELS
from snl.runtime.predictor import BatchModel

IMAGES, SHARE = 20, 0.5

T = TypeVar("T")


def probe(
    predictor: BatchModel,
    data: Catalog | str | Path,
    *,
    products: Sequence[str] | None = None,
    images: int = IMAGES,
    share: float = SHARE,
    seed: int = 0,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Interference:
    """Measure interference between every known product (row) and every product of the data
    (column).

    Normal images come from the test split, so the network has seen neither the images that are
    blended or pasted nor those on the normal side. If a product has none, its training images are
    used, and `notes` says so. The normal side is the row's product alone: an inspector of one
    product and an inspector of all products are measured on the same images.

    Args:
        predictor: an `Inspector`, or an object with the same methods. Rows are its `products`; all
            products of the data if it has no such attribute.
        data: a catalog, or a folder or manifest to read one from.
        products: the rows and columns; None: all.
        images: number of blends and of patches per pair, at least 1; also the maximum number of
            images of a product that they are made of, which are held in memory (size x size x 3
            bytes each).
        share: weight of the row's product in a blend, between 0 and 1.
        seed: seed of all random draws, at least 0. The value of a pair depends neither on the other
            products nor on the batch size.
        batch_size: images per forward pass.
        progress: callback (done, total), in images.

    Raises:
        DataError: there are fewer than two products, no known one, or one without normal images.
        SettingsError: a number is out of range.

    Example:
        >>> result = snl.probe(snl.load("parts.snl"), "parts/", images=4)
        >>> 0 <= result.summary("mixup")["mean"] <= 1
        True
    """
    _check(images, share, seed)
    catalog = Catalog.for_model(data, predictor)
    columns = _columns(catalog, products)
    rows = _rows(catalog, columns, getattr(predictor, "products", None))
    records = {name: _normals(catalog, name) for name in columns}
    blended = {_blended(row, column, share): None for row, column in product(rows, columns)}
    chosen = {name: _choice(name, len(records[name]), images, seed) for name in columns}
    indices = {n: range(len(records[n])) if n in rows else chosen[n] for n in columns}
    work = sum(map(len, indices.values())) + images * (len(blended) + len(rows) * len(columns))
    step = _counter(work, progress)
    max_pixels = getattr(predictor, "max_pixels", MAX_PIXELS)

    errors: list[ImageError] = []
    pools: dict[str, Images] = {}
    normal: dict[str, list[float]] = {}
    for name in columns:
        pools[name], normal[name] = _read_normals(
            predictor if name in rows else None,
            read(
                [records[name][i].source for i in indices[name]],
                predictor.image_size,
                max_pixels=max_pixels,
                white_level=getattr(predictor, "white_level", 0),
            ),
            {position for position, i in enumerate(indices[name]) if i in chosen[name]},
            batch_size,
            errors,
        )
        if not len(pools[name]):
            raise DataError(
                f"{catalog.root}: no normal image drawn from '{name}' can be read (for example: "
                f"{errors[-1]}); restore them, or choose other products by --products"
            )
        step(len(indices[name]))
    blends: dict[tuple[str, str], list[float]] = {}
    for first, second in blended:
        rng = _rng(seed, "mixup", first, second)
        partners = None if first == second else pools[second]
        drawn = mixups(pools[first], partners, images, share, rng)
        blends[first, second] = _scores(predictor, drawn, batch_size)
        step(images)
    cells = []
    for row, column in product(rows, columns):
        rng = _rng(seed, "cutpaste", row, column)
        pasted = cutpastes(pools[row], pools[column], images, rng)
        localized, scores = _localized(predictor, pasted, batch_size)
        mixed = blends[_blended(row, column, share)]
        cells.append(
            Cell(
                row=row,
                column=column,
                mixup=auroc(normal[row], mixed),
                cutpaste=localized,
                cutpaste_image=auroc(normal[row], scores),
                n_mixup=len(mixed),
                n_cutpaste=len(scores),
            )
        )
        step(images)
    return Interference(
        rows=rows,
        columns=columns,
        cells=tuple(cells),
        normals={r: {"split": records[r][0].split, "n": len(normal[r])} for r in rows},
        settings={"images": images, "share": share, "seed": seed},
        notes=tuple(_notes({r: records[r] for r in rows}, cells)),
        skipped=tuple(str(error) for error in errors),
    )


def _check(images: int, share: float, seed: int) -> None:
    if images < 1:
        raise SettingsError(f"images is {images}; it must be at least 1")
    if not 0 < share < 1:
        raise SettingsError(f"the share in a blend is {share}; it must be between 0 and 1")
    if seed < 0:
        raise SettingsError(f"seed is {seed}; it must be at least 0")


def _columns(catalog: Catalog, products: Sequence[str] | None) -> tuple[str, ...]:
    for name in products or ():
        catalog.of(name)  # its error lists the products
    names = tuple(sorted(set(products or catalog.products)))
    if len(names) < 2:
        raise DataError(
            f"{catalog.root}: only one product to probe ('{names[0]}'), but interference is "
            "between two; give data or --products with at least two"
        )
    return names


def _rows(catalog: Catalog, columns: Sequence[str], known: Sequence[str] | None) -> tuple[str, ...]:
    rows = tuple(name for name in columns if known is None or name in known)
    if not rows:
        raise DataError(
            f"{catalog.root}: none of {', '.join(columns)} is one of this inspector's "
            f"products ({', '.join(known or ())}); give data that includes one of them"
        )
    return rows


def _normals(catalog: Catalog, name: str) -> tuple[Record, ...]:
    """Return the normal test images of a product; the training images if it has none."""
    records = catalog.of(name)
    test = tuple(record for record in records.test() if record.label == "normal")
    if not (test or records.train()):
        raise DataError(
            f"{catalog.root}: no normal images of '{name}'; put them into {name}/test/good, "
            "or choose other products by --products"
        )
    return test or records.train()


def _notes(records: Mapping[str, Sequence[Record]], cells: Sequence[Cell]) -> Iterator[str]:
    trained = [name for name, images in records.items() if images[0].split == "train"]
    if trained:
        yield (
            f"no normal test images of {', '.join(trained)}: training images are used instead, "
            "which the network may have learnt, so the figures look better than they are"
        )
    unchanged = [f"{cell.row}, {cell.column}" for cell in cells if not cell.n_cutpaste]
    if unchanged:
        yield f"no visible patch was found for {'; '.join(unchanged)}: their images hardly differ"


def _read_normals(
    predictor: BatchModel | None,
    stream: Iterator[Loaded | ImageError],
    keep: Set[int],
    batch_size: int,
    errors: list[ImageError],
) -> tuple[Images, list[float]]:
    """Return the images with an index in `keep`, to make probes of, and the scores of all images
    (none without a predictor). The errors of unreadable images are appended to `errors`."""
    kept: list[Images] = []
    scores: list[float] = []
    for group, pixels in batches(stream, batch_size, errors):
        kept += [loaded.pixels for loaded in group if loaded.index in keep]
        if predictor is not None:
            scores += predictor.predict(pixels)[1].tolist()
    return np.array(kept, np.uint8), scores


def _scores(predictor: BatchModel, drawn: Iterable[Images], batch_size: int) -> list[float]:
    return [
        score
        for group in _groups(drawn, batch_size)
        for score in predictor.predict(np.stack(group))[1].tolist()
    ]


def _localized(
    predictor: BatchModel,
    pasted: Iterable[tuple[Images, NDArray[np.bool_]]],
    batch_size: int,
) -> tuple[float | None, list[float]]:
    """Return the pixel AUROC over all images together, and the score of each image."""
    inside, outside = ScoreHistogram(), ScoreHistogram()
    scores: list[float] = []
    for group in _groups(pasted, batch_size):
        maps, group_scores, *_ = predictor.predict(np.stack([image for image, _ in group]))
        for anomaly_map, (_, mask) in zip(maps, group, strict=True):
            inside.add(anomaly_map[mask])
            outside.add(anomaly_map[~mask])
        scores += group_scores.tolist()
    return auroc(outside, inside), scores


def _blended(row: str, column: str, share: float) -> tuple[str, str]:
    """Return the pair whose blends are used: with equal shares both orders have the same blends."""
    return (column, row) if share == 0.5 and column < row else (row, column)


def _choice(name: str, available: int, most: int, seed: int) -> list[int]:
    """Return the indices of the images of a product that blends and patches are made of."""
    order = _rng(seed, "images", name).permutation(available)
    return sorted(order[:most].tolist())


def _rng(seed: int, *key: str) -> np.random.Generator:
    return np.random.default_rng([seed, *"\0".join(key).encode()])


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def _counter(total: int, progress: Callable[[int, int], None] | None) -> Callable[[int], None]:
    """Return a function that adds up the images of each step and reports the sum to `progress`."""
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total)

    return step
