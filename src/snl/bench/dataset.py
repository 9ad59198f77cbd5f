"""The images of a published data set, checked: everything that its protocol needs is there."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

from snl.bench.published import BENCHMARKS, Benchmark
from snl.data.catalog import Catalog
from snl.data.records import Record
from snl.errors import DataError

FOUND = "found"
"""Instead of class names: the classes that exist in the folder."""
KINDS = ("training", "normal test", "anomalous test")


def read_benchmark(benchmark: Benchmark, root: Path, classes: tuple[str, ...] = ()) -> Catalog:
    """Return the images of the selected classes.

    Args:
        benchmark: the data set.
        root: its folder.
        classes: names; empty: all of the benchmark; `found`: those that exist.

    Raises:
        DataError: another layout, missing classes, a class without what the protocol needs.
    """
    catalog = Catalog.read(root)
    _check_layout(benchmark, root, catalog)
    existing = [name for name in benchmark.classes if name in catalog.products]
    if not existing:
        raise DataError(_no_classes(benchmark, root, catalog.products))
    selected = _selected(benchmark, root, classes, existing)
    records = tuple(record for record in catalog.records if record.product in selected)
    others = [product for product in catalog.products if product not in selected]
    notes = (f"left out: {', '.join(others)}",) if others else ()
    result = replace(catalog, records=records, notes=notes)
    for product, counts in count_images(result).items():
        _check_class(root, product, counts, [r for r in result.test() if r.product == product])
    return result


def count_images(catalog: Catalog) -> dict[str, list[int]]:
    """Return, by class, the numbers of training, normal test and anomalous test images."""
    counts = {name: [0, 0, 0] for name in catalog.products}
    for record in catalog.train():
        counts[record.product][0] += 1
    for record in catalog.test():
        counts[record.product][2 if record.label == "anomalous" else 1] += 1
    return counts


def partial_reasons(benchmark: Benchmark, counts: dict[str, list[int]]) -> list[str]:
    """Return why results are not comparable with published ones; empty if they are.

    Args:
        benchmark: the data set.
        counts: see `count_images`.
    """
    if len(counts) < len(benchmark.classes):
        return [f"{len(counts)} of {len(benchmark.classes)} classes ({', '.join(counts)})"]
    totals = [sum(column) for column in zip(*counts.values(), strict=True)]
    return [
        f"{total} {kind} images where {benchmark.name} has {published}"
        for total, published, kind in zip(totals, benchmark.images, KINDS, strict=True)
        if total != published
    ]


def _check_layout(benchmark: Benchmark, root: Path, catalog: Catalog) -> None:
    if catalog.layout not in benchmark.layouts:
        example = "bottle/train/good" if benchmark.name == "MVTec AD" else "split_csv/1cls.csv"
        raise DataError(
            f"{root}: is not laid out as {benchmark.name} (found layout '{catalog.layout}'); give "
            f"the folder that has {example}"
        )
    if catalog.layout == "visa" and not (catalog.root / "split_csv" / "1cls.csv").is_file():
        raise DataError(
            f"{root}: split_csv/1cls.csv is missing, so the published split is not known; it comes "
            "with the data set"
        )


def _no_classes(benchmark: Benchmark, root: Path, products: tuple[str, ...]) -> str:
    """Return the message about a folder without any class of the benchmark."""
    others = [key for key, b in BENCHMARKS.items() if set(b.classes) & set(products)]
    hint = (
        f"snl bench {others[0]} takes them"
        if others
        else f"it needs {', '.join(benchmark.classes)}"
    )
    return (
        f"{root}: has none of the classes of {benchmark.name} (found {', '.join(products[:5])}); "
        f"{hint}"
    )


def _selected(
    benchmark: Benchmark, root: Path, classes: tuple[str, ...], existing: list[str]
) -> list[str]:
    """Return the names of the classes to use, of those that exist."""
    if classes == (FOUND,):
        return existing
    for name in classes:
        if name not in benchmark.classes:
            near = difflib.get_close_matches(name, benchmark.classes, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(benchmark.classes)}"
            raise DataError(f"'{name}' is not a class of {benchmark.name}; {hint}")
    selected = classes or benchmark.classes
    missing = [name for name in selected if name not in existing]
    if missing:
        raise DataError(
            f"{root}: {len(missing)} of {len(selected)} classes of {benchmark.name} missing: "
            f"{', '.join(missing)}; add them, or use --classes found for those that exist (a "
            "partial table, not comparable with published ones)"
        )
    return list(selected)


def _check_class(root: Path, product: str, counts: list[int], test: list[Record]) -> None:
    """Check that a class has images of every kind, and a mask for every anomalous image."""
    for kind, count in zip(KINDS, counts, strict=True):
        if not count:
            raise DataError(f"{root}: class {product} has no {kind} images; download it again")
    unmasked = [record for record in test if not record.mask_known]
    if unmasked:
        raise DataError(
            f"{root}: {len(unmasked)} anomalous test images of class {product} have no mask "
            f"({unmasked[0].path.name}, ...); download it again"
        )
