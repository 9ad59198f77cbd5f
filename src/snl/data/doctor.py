"""Check a data set before a training run: decode every file and list what is wrong."""

from __future__ import annotations

import hashlib
import math
import os
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from snl.data.bands import bands
from snl.data.budget import DECODED_BYTES, Budget
from snl.data.catalog import Catalog
from snl.data.diagnosis import (
    Diagnosis,
    Problem,
    ProductCounts,
    count_of,
    format_modes,
    format_size,
)
from snl.data.doctor_masks import check_masks
from snl.data.images import name_of
from snl.data.records import Record
from snl.data.rois import with_rois
from snl.data.samples import FULL_SCALE
from snl.data.upright import Decoded, decoded
from snl.data.white_level import SampleRange, bits_of, level_of, sample_range
from snl.errors import ImageError
from snl.limits import MAX_PIXELS, MIN_IMAGES

FEW_IMAGES = 10
"""A product with fewer training images gets a warning."""

ENOUGH_IMAGES = 60
"""Training images, of all products together, that are enough for a threshold.

A third of them is held out for calibration. At a false-alarm rate of 5 % the threshold is the
0.95 (n + 1)-th of n scores, which exists from n = 19 on."""

_DARK_MEAN = 5.0
"""Mean pixel value (0 to 255) below which an image is almost black."""
_FLAT_RANGE = 2
"""Largest difference of pixel values (0 to 255) in a blank image."""


@dataclass(frozen=True)
class _CheckedImage:
    """The result of checking one image and its masks; fields are None for an unreadable image."""

    record: Record
    digest: str | None = None
    size: tuple[int, int] | None = None
    mode: str | None = None
    problems: tuple[Problem, ...] = ()


def diagnose(
    catalog: Catalog,
    *,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    seconds: float = math.inf,
    progress: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """Decode every image and mask of a catalog and return the problems found.

    No file is changed. An unreadable file is a problem in the result, not an exception.

    Args:
        catalog: the data set.
        workers: number of decoding threads; None: one per processor, at most 8. Large images are
            decoded one after another.
        max_pixels: largest allowed height times width of an image; larger ones are problems.
        seconds: after which no further image is begun; the result is about those that were checked.
        progress: called in the caller's thread with (images done, images in total).

    Raises:
        DataError: regions of interest that are not inside their images, or differ within a product.
    """
    checked: list[_CheckedImage] = []
    end = time.monotonic() + seconds
    catalog = replace(catalog, records=with_rois(catalog.records, {}, max_pixels=max_pixels))
    total = len(catalog.records)
    normals = [record for record in catalog.train() if record.label == "normal"]
    found = sample_range(normals, max_pixels=max_pixels, workers=workers)
    threads = workers if workers is not None else min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        budget = Budget(DECODED_BYTES)
        futures = [
            pool.submit(_check_next, catalog, record, number, budget, (max_pixels, found.level))
            for number, record in enumerate(catalog.records)
        ]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                checked.append(future.result())
                if progress is not None:
                    progress(done, total)
                if time.monotonic() > end:
                    budget.close()
                    pool.shutdown(cancel_futures=True)
                    break
        except BaseException:  # on Ctrl-C stop at once, not after the last image
            budget.close()
            pool.shutdown(cancel_futures=True)
            raise
    checked.sort(key=lambda image: image.record.path.as_posix())
    counts = {product: _count(product, checked) for product in catalog.products}
    problems = [
        *(Problem("warning", str(catalog.root), note, "while reading") for note in catalog.notes),
        *(problem for product, c in counts.items() for problem in _check_product(product, c)),
        *_check_threshold(catalog, counts.values()),
        *_check_sample_range(catalog, found),
        *(problem for image in checked for problem in image.problems),
        *_find_duplicates(catalog, checked),
        *_find_colliding_names(catalog),
    ]
    problems.sort(key=lambda problem: problem.severity != "error")
    return Diagnosis(catalog, tuple(problems), counts)


def _check_next(
    catalog: Catalog, record: Record, number: int, budget: Budget, limits: tuple[int, int]
) -> _CheckedImage:
    """Check the image with this number when the budget admits it."""
    try:
        return _check_image(catalog, record, *limits, lambda size, _: budget.admit(number, size))
    finally:
        budget.settle(number)


def _check_image(
    catalog: Catalog,
    record: Record,
    max_pixels: int,
    white_level: int,
    admit: Callable[[int, int], None],
) -> _CheckedImage:
    where = catalog.relative(record.path)
    try:
        with decoded(
            record.path, max_pixels=max_pixels, white_level=white_level, admit=admit
        ) as image:
            (height, width), mode = image.size, image.mode
            low, high, mean = _brightness(image)
            remarks = image.remarks
    except ImageError as error:
        what = _without_path(record.path, error)
        return _CheckedImage(record, problems=(Problem("error", where, what, "unreadable image"),))
    problems = [Problem("warning", where, text, "clipped samples") for text in remarks]
    if high - low <= _FLAT_RANGE:
        what = f"all pixels are nearly equal ({low} to {high}); check the exposure, or remove it"
        problems.append(Problem("warning", where, what, "blank image"))
    elif mean < _DARK_MEAN:
        what = f"is almost black (mean {mean:.1f} of 255); check the exposure"
        problems.append(Problem("warning", where, what, "dark image"))
    if record.roi is not None:
        try:
            record.roi.window((height, width))
        except ImageError as error:
            what = str(error).removeprefix("the image given ")
            problems.append(Problem("error", where, what, "outside the region of interest"))
    if record.mask:
        problems += check_masks(catalog, record, (width, height), max_pixels)
    return _CheckedImage(record, _digest(record.path), (width, height), mode, tuple(problems))


def _brightness(image: Decoded) -> tuple[int, int, float]:
    """Return lowest and highest pixel value, and the mean of every fourth row and column."""
    lows, highs, total, count = [], [], 0, 0
    for first, last in bands(image.size):
        rows = image.rows(first, last)
        lows.append(int(rows.min()))
        highs.append(int(rows.max()))
        sample = rows[-first % 4 :: 4, ::4]
        total += int(sample.sum(dtype=np.int64))
        count += sample.size
    return min(lows), max(highs), total / count


def _count(product: str, checked: Iterable[_CheckedImage]) -> ProductCounts:
    images = [image for image in checked if image.record.product == product]
    groups = Counter((image.record.split, image.record.label) for image in images)
    sizes = sorted((image.size for image in images if image.size), key=lambda s: (s[0] * s[1], s))
    modes = Counter(image.mode for image in images if image.mode)
    return ProductCounts(
        train_normal=groups["train", "normal"],
        train_anomalous=groups["train", "anomalous"],
        test_normal=groups["test", "normal"],
        test_anomalous=groups["test", "anomalous"],
        test_unlabelled=groups["test", None],
        masks_known=sum(bool(i.record.mask) for i in images if i.record.split == "test"),
        smallest=sizes[0] if sizes else None,
        largest=sizes[-1] if sizes else None,
        modes=dict(sorted(modes.items())),
    )


def _check_product(product: str, c: ProductCounts) -> Iterator[Problem]:
    where = f"product {product}"
    if c.train_normal == 0:
        what = "has no normal training images; add some, or remove the product"
        yield Problem("error", where, what, "no training images")
    elif c.train_normal < MIN_IMAGES:
        what = (
            f"has {count_of(c.train_normal, 'training image')}; {MIN_IMAGES} are needed to begin, "
            f"and {FEW_IMAGES} or more are recommended"
        )
        yield Problem("error", where, what, "too few training images")
    elif c.train_normal < FEW_IMAGES:
        what = f"has {c.train_normal} training images; {FEW_IMAGES} or more are recommended"
        yield Problem("warning", where, what, "few training images")
    if c.train_anomalous:
        what = (
            f"{c.train_anomalous} anomalous images in train are not used; move them to test to "
            "evaluate on them"
        )
        yield Problem("warning", where, what, "anomalous training images")
    # products with training images alone are the usual case: nothing is to be measured
    if (c.test_anomalous == 0) != (c.test_normal == 0):
        missing = [
            word
            for word, count in (("normal", c.test_normal), ("anomalous", c.test_anomalous))
            if count == 0
        ]
        what = f"has no {' and no '.join(missing)} test images; add some to measure its AUROC"
        yield Problem("warning", where, what, "incomplete test set")
    if c.test_unlabelled:
        what = f"{c.test_unlabelled} test images have no label and are not used; add labels"
        yield Problem("warning", where, what, "unlabelled test images")
    if c.smallest != c.largest and c.smallest and c.largest:
        what = (
            f"image sizes differ, {format_size(c.smallest)} to {format_size(c.largest)}; check "
            "that this is intended"
        )
        yield Problem("warning", where, what, "mixed sizes")
    if len(c.modes) > 1:
        what = f"colour modes differ, {format_modes(c)}; check that one camera set-up took them all"
        yield Problem("warning", where, what, "mixed colour modes")


def _check_threshold(catalog: Catalog, counts: Collection[ProductCounts]) -> Iterator[Problem]:
    total = sum(c.train_normal for c in counts)
    if 0 < total < ENOUGH_IMAGES:
        held = sum(min(c.train_normal // 3, 20) for c in counts)
        rate = math.ceil(100 / (held + 1)) / 100
        more = f", or allow more false alarms (snl inspect --rate {rate:g})" if held else ""
        what = (
            f"{count_of(total, 'normal training image')} in total; with a third held out, fewer "
            "than 19 scores are not enough for a threshold at a false-alarm rate of 5 %, so "
            f"decisions will be 'uncertain'; add normal images ({ENOUGH_IMAGES} in total){more}"
        )
        yield Problem("warning", str(catalog.root), what, "too few images for a threshold")


def _check_sample_range(catalog: Catalog, found: SampleRange) -> Iterator[Problem]:
    for product, highest in found.highest.items():
        if level_of(highest) == FULL_SCALE:
            continue
        what = (
            f"images have more than 8 bits and use values up to {highest} only; their files do not "
            f"say what is white, so training takes the white level {bits_of(found.level)} for all "
            "products; choose another one with snl train --set white_level=N"
        )
        yield Problem("warning", f"product {product}", what, "unused sample range")


def _find_duplicates(catalog: Catalog, checked: Iterable[_CheckedImage]) -> Iterator[Problem]:
    by_digest: dict[str, list[Record]] = defaultdict(list)
    for image in checked:
        if image.digest is not None:
            by_digest[image.digest].append(image.record)
    for identical in by_digest.values():
        train = [r for r in identical if r.split == "train" and r.label == "normal"]
        test = [r for r in identical if r.split == "test"]
        for record in test if train else []:
            what = f"is identical to training image {catalog.relative(train[0].path)}; remove one"
            yield Problem("error", catalog.relative(record.path), what, "test image trained on")
        for record in train[1:]:
            what = f"is identical to {catalog.relative(train[0].path)}; remove one"
            where = catalog.relative(record.path)
            yield Problem("warning", where, what, "duplicate training image")
        first_by_label = {r.label: r for r in reversed(test)}
        if "normal" in first_by_label and "anomalous" in first_by_label:
            other = catalog.relative(first_by_label["anomalous"].path)
            where = catalog.relative(first_by_label["normal"].path)
            what = f"is labelled normal but its copy {other} anomalous; keep the correct one"
            yield Problem("error", where, what, "contradictory labels")


def _find_colliding_names(catalog: Catalog) -> Iterator[Problem]:
    names: dict[str, str] = {}
    for record in catalog.records:
        name = catalog.relative(record.path)
        key = unicodedata.normalize("NFC", name).casefold()
        if names.setdefault(key, name) != name:
            what = (
                f"differs from {names[key]} only in case, so both are the same file on Windows; "
                "rename it"
            )
            yield Problem("warning", name, what, "colliding names")


def _without_path(path: Path, error: ImageError) -> str:
    """Return the message without the path, which the problem has as `where`."""
    return str(error).removeprefix(name_of(path)).strip()


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # deleted after it was decoded
        return None
