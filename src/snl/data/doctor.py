"""What is wrong with a data set, found before a training run and not after it."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from snl.data.catalog import Catalog, Record
from snl.data.images import load_mask, name_of, open_image, to_rgb
from snl.errors import ImageError

FEW_IMAGES = 10
"""Fewer training images of a product than this are worth a warning."""

ENOUGH_IMAGES = 60
"""Training images of all products of which a third, held back, gives the 19 scores that a
threshold at a false-alarm rate of 5 % takes: of n normal scores it is the 0.95 (n + 1)-th."""

_DARK_MEAN = 5.0
_FLAT_RANGE = 2
_SAME_ASPECT = 0.01
_SHOWN_PER_KIND = 5


@dataclass(frozen=True)
class Problem:
    """One thing to put right; with a problem of severity `error` results cannot be trusted."""

    severity: Literal["error", "warning"]
    where: str
    """A path below the root, or `product <name>`."""
    what: str
    """What is wrong and how to put it right, in one line."""
    kind: str
    """The same for all problems of one sort, to group them by."""


@dataclass(frozen=True)
class ProductCounts:
    """What there is of one product."""

    train_normal: int = 0
    train_anomalous: int = 0
    test_normal: int = 0
    test_anomalous: int = 0
    test_unlabelled: int = 0
    masks_known: int = 0
    """Anomalous test images with a mask."""
    smallest: tuple[int, int] | None = None
    """Width and height of the image with the fewest pixels; None where none could be read."""
    largest: tuple[int, int] | None = None
    modes: dict[str, int] = field(default_factory=dict)
    """Images per mode as stored (`RGB`, `L`, `I;16`, ...)."""


@dataclass(frozen=True)
class Diagnosis:
    """Everything that `diagnose` found."""

    catalog: Catalog
    problems: tuple[Problem, ...]
    counts: dict[str, ProductCounts]

    @property
    def ok(self) -> bool:
        """True where there is no error; warnings may remain."""
        return not any(problem.severity == "error" for problem in self.problems)


@dataclass(frozen=True)
class _Facts:
    """What looking into one image told."""

    record: Record
    digest: str | None = None
    size: tuple[int, int] | None = None
    mode: str | None = None
    problems: tuple[Problem, ...] = ()


def diagnose(
    catalog: Catalog,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """Decode every image and mask of a catalog and list what is wrong with them.

    `workers` threads decode, by default one per processor and at most 8; `progress` is called in
    the caller's thread with the numbers of images done and of all. No file is changed, and no
    exception is raised over a bad one: it becomes a problem.
    """
    facts: list[_Facts] = []
    total = len(catalog.records)
    threads = workers if workers is not None else min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        waiting = [pool.submit(_look_into, catalog, record) for record in catalog.records]
        try:
            for done, future in enumerate(as_completed(waiting), start=1):
                facts.append(future.result())
                if progress is not None:
                    progress(done, total)
        except BaseException:  # stop at once on Ctrl-C, not after the last image
            pool.shutdown(cancel_futures=True)
            raise
    facts.sort(key=lambda f: f.record.path.as_posix())
    counts = {product: _count(product, facts) for product in catalog.products}
    problems = [
        *(Problem("warning", str(catalog.root), note, "while reading") for note in catalog.notes),
        *(problem for product, c in counts.items() for problem in _check_product(product, c)),
        *_check_threshold(catalog, counts.values()),
        *(problem for f in facts for problem in f.problems),
        *_find_duplicates(catalog, facts),
        *_find_colliding_names(catalog),
    ]
    problems.sort(key=lambda problem: problem.severity != "error")
    return Diagnosis(catalog, tuple(problems), counts)


def format_diagnosis(diagnosis: Diagnosis) -> str:
    """The text that `snl doctor` prints: a table of the products, then problems by their kind."""
    catalog = diagnosis.catalog
    lines = [f"{catalog.root}: layout {catalog.layout}, {len(catalog.records)} images", ""]
    lines += _table(diagnosis.counts)
    for severity in ("error", "warning"):
        groups: dict[str, list[Problem]] = defaultdict(list)
        for problem in diagnosis.problems:
            if problem.severity == severity:
                groups[problem.kind].append(problem)
        if groups:
            lines += ["", f"{_number(sum(map(len, groups.values())), severity)}:"]
        for kind, problems in groups.items():
            lines.append(f"  {kind} ({len(problems)})")
            shown = problems[:_SHOWN_PER_KIND]
            lines += [f"    {problem.where}: {problem.what}" for problem in shown]
            if more := len(problems) - len(shown):
                lines.append(f"    and {more} more")
    if not diagnosis.problems:
        lines += ["", "no problems found"]
    return "\n".join(lines)


def to_dict(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as JSON can hold it."""
    return {
        "root": str(diagnosis.catalog.root),
        "layout": diagnosis.catalog.layout,
        "fingerprint": diagnosis.catalog.fingerprint(),
        "ok": diagnosis.ok,
        "products": {
            product: {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(c).items()}
            for product, c in diagnosis.counts.items()
        },
        "problems": [asdict(problem) for problem in diagnosis.problems],
    }


def _look_into(catalog: Catalog, record: Record) -> _Facts:
    where = catalog.relative(record.path)
    try:
        image = open_image(record.path)
        pixels = to_rgb(image, name_of(record.path))
    except ImageError as error:
        what = _without(record.path, error)
        return _Facts(record, problems=(Problem("error", where, what, "unreadable image"),))
    problems: list[Problem] = []
    low, high = int(pixels.min()), int(pixels.max())
    if high - low <= _FLAT_RANGE:
        what = f"all pixels are nearly equal ({low} to {high}); check the exposure, or remove it"
        problems.append(Problem("warning", where, what, "blank image"))
    elif (mean := float(pixels[::4, ::4].mean())) < _DARK_MEAN:
        what = f"is almost black (mean {mean:.1f} of 255); check the exposure"
        if image.mode.startswith("I"):
            what = f"is almost black (mean {mean:.1f} of 255); scale its values to full 16 bits"
        problems.append(Problem("warning", where, what, "dark image"))
    if record.mask:
        problems += _check_mask(catalog, record, image.size)
    return _Facts(record, _digest(record.path), image.size, image.mode, tuple(problems))


def _check_mask(catalog: Catalog, record: Record, size: tuple[int, int]) -> Iterator[Problem]:
    where = catalog.relative(record.mask[0])
    try:
        mask = load_mask(record.mask)
    except ImageError as error:
        yield Problem("error", where, _without(record.mask[0], error), "unreadable mask")
        return
    (height, width), (w, h) = mask.shape, size
    if (width, height) != size:
        same_aspect = abs((width * h) / (height * w) - 1) <= _SAME_ASPECT
        what = f"is {width} x {height} pixels but its image is {w} x {h}; "
        if same_aspect:
            what += "it will be resized, save it at the image's size to be exact"
            yield Problem("warning", where, what, "mask of another size")
        else:
            what += "it cannot fit, save it at the image's size"
            yield Problem("error", where, what, "mask of another shape")
    if not mask.any():
        what = "marks nothing though its image is anomalous; draw the defect, or remove the mask"
        yield Problem("warning", where, what, "empty mask")


def _count(product: str, facts: Iterable[_Facts]) -> ProductCounts:
    own = [f for f in facts if f.record.product == product]
    groups = Counter((f.record.split, f.record.label) for f in own)
    sizes = sorted((f.size for f in own if f.size), key=lambda s: (s[0] * s[1], s))
    modes = Counter(f.mode for f in own if f.mode)
    return ProductCounts(
        train_normal=groups["train", "normal"],
        train_anomalous=groups["train", "anomalous"],
        test_normal=groups["test", "normal"],
        test_anomalous=groups["test", "anomalous"],
        test_unlabelled=groups["test", None],
        masks_known=sum(bool(f.record.mask) for f in own if f.record.split == "test"),
        smallest=sizes[0] if sizes else None,
        largest=sizes[-1] if sizes else None,
        modes=dict(sorted(modes.items())),
    )


def _check_product(product: str, c: ProductCounts) -> Iterator[Problem]:
    where = f"product {product}"
    if c.train_normal == 0:
        what = "has no normal images to train on; add some, or leave the product out"
        yield Problem("error", where, what, "no training images")
    elif c.train_normal == 1:
        what = f"has one training image only; add more, {FEW_IMAGES} at least"
        yield Problem("error", where, what, "one training image")
    elif c.train_normal < FEW_IMAGES:
        what = f"has {c.train_normal} training images; {FEW_IMAGES} or more are advisable"
        yield Problem("warning", where, what, "few training images")
    if c.train_anomalous:
        what = f"{c.train_anomalous} anomalous images lie in train and are not used; move to test"
        yield Problem("warning", where, what, "anomalous training images")
    if c.test_anomalous == 0 or c.test_normal == 0:
        missing = [
            word
            for word, count in (("normal", c.test_normal), ("anomalous", c.test_anomalous))
            if count == 0
        ]
        what = f"has no {' and no '.join(missing)} test images, so no AUROC; add some to measure"
        yield Problem("warning", where, what, "incomplete test set")
    if c.test_unlabelled:
        what = f"{c.test_unlabelled} test images have no label and are not used; say what they are"
        yield Problem("warning", where, what, "unlabelled test images")
    if c.smallest != c.largest and c.smallest and c.largest:
        what = f"image sizes differ, {_size(c.smallest)} to {_size(c.largest)}; fine if on purpose"
        yield Problem("warning", where, what, "mixed sizes")
    if len(c.modes) > 1:
        what = f"colour modes differ, {_modes(c)}; make sure that one camera set-up took them all"
        yield Problem("warning", where, what, "mixed colour modes")


def _check_threshold(catalog: Catalog, counts: Iterable[ProductCounts]) -> Iterator[Problem]:
    total = sum(c.train_normal for c in counts)
    if 0 < total < ENOUGH_IMAGES:
        what = (
            f"{_number(total, 'normal training image')} in all; with a third held back, fewer than "
            "19 scores are too few for a threshold at a false-alarm rate of 5 %, so decisions will "
            f"be 'uncertain'; add normal images ({ENOUGH_IMAGES} in all), or allow more false "
            "alarms (snl inspect --rate)"
        )
        yield Problem("warning", str(catalog.root), what, "too few images for a threshold")


def _find_duplicates(catalog: Catalog, facts: Iterable[_Facts]) -> Iterator[Problem]:
    by_digest: dict[str, list[Record]] = defaultdict(list)
    for f in facts:
        if f.digest is not None:
            by_digest[f.digest].append(f.record)
    for same in by_digest.values():
        train = [r for r in same if r.split == "train" and r.label == "normal"]
        test = [r for r in same if r.split == "test"]
        for record in test if train else []:
            what = f"is the same as training image {catalog.relative(train[0].path)}; remove one"
            yield Problem("error", catalog.relative(record.path), what, "test image trained on")
        for record in train[1:]:
            what = f"is the same as {catalog.relative(train[0].path)}; remove one"
            where = catalog.relative(record.path)
            yield Problem("warning", where, what, "duplicate training image")
        opposite = {r.label: r for r in reversed(test)}
        if "normal" in opposite and "anomalous" in opposite:
            other = catalog.relative(opposite["anomalous"].path)
            where = catalog.relative(opposite["normal"].path)
            what = f"is normal here and anomalous as {other}; keep the right one"
            yield Problem("error", where, what, "contradictory labels")


def _find_colliding_names(catalog: Catalog) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for record in catalog.records:
        name = catalog.relative(record.path)
        key = unicodedata.normalize("NFC", name).casefold()
        if seen.setdefault(key, name) != name:
            what = f"differs from {seen[key]} in case only, one file on Windows; rename it"
            yield Problem("warning", name, what, "colliding names")


def _table(counts: dict[str, ProductCounts]) -> list[str]:
    rows = [("product", "train", "test normal", "anomalous", "masks", "pixels", "modes")]
    rows += [
        (
            product,
            str(c.train_normal),
            str(c.test_normal),
            str(c.test_anomalous),
            str(c.masks_known),
            _size(c.smallest)
            if c.smallest == c.largest
            else f"{_size(c.smallest)} to {_size(c.largest)}",
            _modes(c) or "-",
        )
        for product, c in counts.items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = range(1, 5)
    return [
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _size(size: tuple[int, int] | None) -> str:
    return "-" if size is None else f"{size[0]}x{size[1]}"


def _modes(c: ProductCounts) -> str:
    if len(c.modes) == 1:
        return next(iter(c.modes))
    return ", ".join(f"{mode} ({count})" for mode, count in c.modes.items())


def _number(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _without(path: Path, error: ImageError) -> str:
    """The message less the path that a problem names already."""
    return str(error).removeprefix(name_of(path)).strip()


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # gone since it was decoded
        return None
