"""The result of checking a data set: problems and counts, as text and as JSON."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from snl.data.catalog import Catalog
from snl.data.reading import count_of as count_of
from snl.text import printable

_SHOWN_PER_KIND = 5


@dataclass(frozen=True)
class Problem:
    """One problem of a data set. With an `error`, results on the data set cannot be trusted."""

    severity: Literal["error", "warning"]
    where: str
    """A path relative to the root, or `product <name>`."""
    what: str
    """What is wrong and how to fix it, in one line."""
    kind: str
    """Name of the kind of problem, to group by."""


@dataclass(frozen=True)
class ProductCounts:
    """Numbers of images of one product, their sizes and colour modes."""

    train_normal: int = 0
    train_anomalous: int = 0
    test_normal: int = 0
    test_anomalous: int = 0
    test_unlabelled: int = 0
    masks_known: int = 0
    """Anomalous test images with a mask."""
    smallest: tuple[int, int] | None = None
    """Width and height of the image with the fewest pixels; None if no image is readable."""
    largest: tuple[int, int] | None = None
    modes: dict[str, int] = field(default_factory=dict)
    """Number of images by the mode they are stored in (`RGB`, `L`, `I;16`, ...)."""


@dataclass(frozen=True)
class Diagnosis:
    """The result of `diagnose`."""

    catalog: Catalog
    problems: tuple[Problem, ...]
    counts: dict[str, ProductCounts]

    @property
    def ok(self) -> bool:
        """True if there is no error; there may be warnings."""
        return not any(problem.severity == "error" for problem in self.problems)


def format_diagnosis(diagnosis: Diagnosis) -> str:
    """Return the text that `snl doctor` prints: a table of products, then problems by kind."""
    catalog = diagnosis.catalog
    lines = [
        f"{printable(catalog.root)}: layout {catalog.layout}, {len(catalog.records)} images"
        + _format_parts(catalog),
        "",
    ]
    lines += _format_table(diagnosis.counts)
    if catalog.split_note:
        lines += ["", printable(catalog.split_note)]
    for severity in ("error", "warning"):
        groups: dict[str, list[Problem]] = defaultdict(list)
        for problem in diagnosis.problems:
            if problem.severity == severity:
                groups[problem.kind].append(problem)
        if groups:
            lines += ["", f"{count_of(sum(map(len, groups.values())), severity)}:"]
        for kind, problems in groups.items():
            lines.append(f"  {kind} ({len(problems)})")
            shown = problems[:_SHOWN_PER_KIND]
            lines += [f"    {printable(f'{problem.where}: {problem.what}')}" for problem in shown]
            if more := len(problems) - len(shown):
                lines.append(f"    and {more} more")
    if not diagnosis.problems:
        lines += ["", "no problems found"]
    return "\n".join(lines)


def to_dict(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return the diagnosis as JSON-serialisable values."""
    return {
        "root": str(diagnosis.catalog.root),
        "layout": diagnosis.catalog.layout,
        "split": diagnosis.catalog.split_note or None,
        "fingerprint": diagnosis.catalog.fingerprint(),
        "ok": diagnosis.ok,
        "products": {
            product: {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(c).items()}
            for product, c in diagnosis.counts.items()
        },
        "problems": [asdict(problem) for problem in diagnosis.problems],
    }


def _format_parts(catalog: Catalog) -> str:
    sizes = Counter(record.part for record in catalog.records if record.part)
    if not sizes:
        return ""
    least, most = min(sizes.values()), max(sizes.values())
    views = str(least) if least == most else f"{least} to {most}"
    return f", {count_of(len(sizes), 'part')} with {views} images each"


def format_size(size: tuple[int, int] | None) -> str:
    """Return a width and height as `640x480`; `-` for None."""
    return "-" if size is None else f"{size[0]}x{size[1]}"


def format_modes(counts: ProductCounts) -> str:
    """Return the colour modes, with the number of images of each if there are several."""
    if len(counts.modes) == 1:
        return next(iter(counts.modes))
    return ", ".join(f"{mode} ({number})" for mode, number in counts.modes.items())


def _format_table(counts: dict[str, ProductCounts]) -> list[str]:
    rows = [("product", "train", "test normal", "anomalous", "masks", "pixels", "modes")]
    rows += [
        (
            product,
            str(c.train_normal),
            str(c.test_normal),
            str(c.test_anomalous),
            str(c.masks_known),
            format_size(c.smallest)
            if c.smallest == c.largest
            else f"{format_size(c.smallest)} to {format_size(c.largest)}",
            format_modes(c) or "-",
        )
        for product, c in counts.items()
    ]
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric_columns = range(1, 5)
    return [
        "  ".join(
            cell.rjust(width) if column in numeric_columns else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
