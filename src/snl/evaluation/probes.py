"""Interference between products: does what is no longer normal pass because products mix?

A network that has to know many products can become too tolerant: what is a bit of this product and
a bit of that one passes as normal. Two probes of the SNL paper (arXiv 2402.17091) show it, per pair
of products: Mixup (a blend of two normal images must score as anomalous) and CutPaste (a patch of
one product in an image of another must light up). Chance is 0.5; a network free of interference is
at 1. The paper's own protocol is not public; what is fixed here is this project's (docs/probes.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import islice, product
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from snl.data.catalog import Catalog, Record
from snl.data.stream import Loaded, batches, read
from snl.errors import DataError, ImageError, SettingsError
from snl.evaluation.composites import Images, cutpastes, mixups
from snl.evaluation.histogram import ScoreHistogram
from snl.evaluation.metrics import auroc
from snl.evaluation.probe_results import Cell, Interference
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
    """Probe every taught product (row) with every product of the data (column).

    Normal images come from the test split: blends, hosts and the normal side are then images that
    the network has never seen, and only the probe tells them apart. A product without any gives its
    training images, and `notes` says so. The normal side is the row's product alone: an inspector
    that was taught one product and one that was taught all then meet the very same images.

    Args:
        predictor: an `Inspector`, or anything of its shape. Its `products`, where it has them, are
            the rows; else all products are.
        data: a catalog, or a folder or manifest to read one from.
        products: those to probe, rows and columns; None: all.
        images: blends and patches per pair, and most images of a product they are made of (these
            are held in memory: size x size x 3 bytes each).
        share: weight of the row's product in a blend.
        seed: fixes what is drawn; a pair does not depend on the other products or on batches.
        batch_size: images per forward pass.
        progress: called with (done, total).

    Raises:
        DataError: fewer than two products, none that was taught, one without normal images.
        SettingsError: a number out of range.

    Example:
        >>> result = snl.probe(snl.load("parts.snl"), "parts/", images=4)
        >>> 0 <= result.summary("mixup")["mean"] <= 1
        True
    """
    _check(images, share, seed)
    catalog = data if isinstance(data, Catalog) else Catalog.read(data)
    columns = _columns(catalog, products)
    rows = _rows(catalog, columns, getattr(predictor, "products", None))
    records = {name: _normals(catalog, name) for name in columns}
    blended = {_blended(row, column, share): None for row, column in product(rows, columns)}
    chosen = {name: _choice(name, len(records[name]), images, seed) for name in columns}
    wanted = {n: range(len(records[n])) if n in rows else chosen[n] for n in columns}
    work = sum(map(len, wanted.values())) + images * (len(blended) + len(rows) * len(columns))
    step = _counter(work, progress)

    errors: list[ImageError] = []
    pools: dict[str, Images] = {}
    normal: dict[str, list[float]] = {}
    for name in columns:
        pools[name], normal[name] = _read_normals(
            predictor if name in rows else None,
            read([records[name][i].path for i in wanted[name]], predictor.image_size),
            {place for place, i in enumerate(wanted[name]) if i in chosen[name]},
            batch_size,
            errors,
        )
        if not len(pools[name]):
            raise DataError(
                f"{catalog.root}: no normal image drawn from '{name}' can be read; see what is "
                "wrong by snl doctor, or choose others by --products"
            )
        step(len(wanted[name]))
    blends: dict[tuple[str, str], list[float]] = {}
    for one, other in blended:
        rng = _rng(seed, "mixup", one, other)
        drawn = mixups(pools[one], None if one == other else pools[other], images, share, rng)
        blends[one, other] = _scores(predictor, drawn, batch_size)
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
        catalog.of(name)  # says what there is
    names = tuple(sorted(set(products or catalog.products)))
    if len(names) < 2:
        raise DataError(
            f"{catalog.root}: only one product to probe ('{names[0]}'), and interference is "
            "between two; give data or --products with more"
        )
    return names


def _rows(
    catalog: Catalog, columns: Sequence[str], taught: Sequence[str] | None
) -> tuple[str, ...]:
    rows = tuple(name for name in columns if taught is None or name in taught)
    if not rows:
        raise DataError(
            f"{catalog.root}: none of {', '.join(columns)} was taught to this inspector "
            f"({', '.join(taught or ())}); give data with a product that was"
        )
    return rows


def _normals(catalog: Catalog, name: str) -> tuple[Record, ...]:
    """Normal test images, those to train on where there are none."""
    records = catalog.of(name)
    test = tuple(record for record in records.test() if record.label == "normal")
    if not (test or records.train()):
        raise DataError(
            f"{catalog.root}: no normal images of '{name}'; put them into {name}/test/good, "
            "or choose others by --products"
        )
    return test or records.train()


def _notes(records: Mapping[str, Sequence[Record]], cells: Sequence[Cell]) -> Iterator[str]:
    trained = [name for name, of in records.items() if of[0].split == "train"]
    if trained:
        yield (
            f"no normal test images of {', '.join(trained)}: training images stand in, which the "
            "network may have learnt, and the figures flatter it"
        )
    bare = [f"{cell.row}, {cell.column}" for cell in cells if not cell.n_cutpaste]
    if bare:
        yield (
            f"no visible patch was found for {'; '.join(bare)}: their images hardly differ anywhere"
        )


def _read_normals(
    predictor: BatchModel | None,
    stream: Iterator[Loaded | ImageError],
    keep: Set[int],
    batch_size: int,
    errors: list[ImageError],
) -> tuple[Images, list[float]]:
    """Images to make probes of, those at the places `keep`, and the scores of all images (none
    without a predictor)."""
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
    """Pixel AUROC over all images together, and each image's score."""
    inside, outside = ScoreHistogram(), ScoreHistogram()
    scores: list[float] = []
    for group in _groups(pasted, batch_size):
        maps, found, *_ = predictor.predict(np.stack([image for image, _ in group]))
        for anomaly_map, (_, mask) in zip(maps, group, strict=True):
            inside.add(anomaly_map[mask])
            outside.add(anomaly_map[~mask])
        scores += found.tolist()
    return auroc(outside, inside), scores


def _blended(row: str, column: str, share: float) -> tuple[str, str]:
    """Whose images are blended for a pair: of even shares both orders have the same blends."""
    return (column, row) if share == 0.5 and column < row else (row, column)


def _choice(name: str, available: int, most: int, seed: int) -> list[int]:
    """Which of a product's images blends and patches are made of."""
    order = _rng(seed, "images", name).permutation(available)
    return sorted(order[:most].tolist())


def _rng(seed: int, *key: str) -> np.random.Generator:
    return np.random.default_rng([seed, *"\0".join(key).encode()])


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def _counter(total: int, progress: Callable[[int, int], None] | None) -> Callable[[int], None]:
    """What is called with the images of a step, and tells `progress` the sum."""
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total)

    return step
