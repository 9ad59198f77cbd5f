"""Results of interference probes: a value for each pair of products, as numbers and as text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

MEASURES = {
    "mixup": "image AUROC of blends against the normal images of the row's product",
    "cutpaste": "pixel AUROC of patches of the column's product in images of the row's",
    "cutpaste_image": "image AUROC of images with such a patch against the row's normal images",
}


@dataclass(frozen=True)
class Cell:
    """Values of one pair of products. The same product twice is a control, not interference.

    Attributes:
        row: product of the normal side, and of the images that patches are pasted into.
        column: product that is blended in, or that patches are taken from.
        mixup, cutpaste, cutpaste_image: see MEASURES, 0..1; None if no blend or patch was possible.
        n_mixup, n_cutpaste: number of blends, and of images with a patch, that were measured.
    """

    row: str
    column: str
    mixup: float | None
    cutpaste: float | None
    cutpaste_image: float | None
    n_mixup: int
    n_cutpaste: int


@dataclass(frozen=True)
class Interference:
    """Results of all probes.

    Attributes:
        rows: products of the inspector.
        columns: products they are probed with.
        cells: one for each row and column, row by row.
        normals: by row: `split` and number `n` of the images on the normal side.
        settings: arguments of the probes: images, share, seed.
        notes: what a reader of the figures must know, one sentence each.
        skipped: errors of images that could not be read.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]
    normals: dict[str, dict[str, Any]]
    settings: dict[str, Any]
    notes: tuple[str, ...]
    skipped: tuple[str, ...]

    def table(self, measure: str) -> np.ndarray:
        """Return one of MEASURES as float64 (rows, columns), NaN where there is no value."""
        values = [np.nan if v is None else v for v in (getattr(c, measure) for c in self.cells)]
        return np.array(values).reshape(len(self.rows), len(self.columns))

    def worst(self, measure: str) -> Cell | None:
        """Return the pair of two different products with the lowest value, the first of equals."""
        return min(self._pairs(measure), key=lambda cell: getattr(cell, measure), default=None)

    def summary(self, measure: str) -> dict[str, Any]:
        """Return `mean` and `worst` over pairs of two different products, their number `n_pairs`,
        and the mean of the controls `same_product`. None where there is no value."""
        worst = self.worst(measure)
        return {
            "measure": MEASURES[measure],
            "mean": _mean(getattr(cell, measure) for cell in self._pairs(measure)),
            "worst": worst
            and {"row": worst.row, "column": worst.column, "value": getattr(worst, measure)},
            "n_pairs": len(self._pairs(measure)),
            "same_product": _mean(getattr(c, measure) for c in self.cells if c.row == c.column),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: a summary of each measure, every pair, settings and counts."""
        return {
            **{measure: self.summary(measure) for measure in MEASURES},
            "rows": list(self.rows),
            "columns": list(self.columns),
            "pairs": [asdict(cell) for cell in self.cells],
            "normals": self.normals,
            "settings": self.settings,
            "notes": list(self.notes),
        }

    def _pairs(self, measure: str) -> list[Cell]:
        return [c for c in self.cells if c.row != c.column and getattr(c, measure) is not None]


def format_probes(result: Interference) -> str:
    """Return the tables of Mixup and CutPaste in percent, aligned, with a summary line each."""
    parts = []
    for measure in ("mixup", "cutpaste"):
        parts += [f"{measure}: {MEASURES[measure]}", *_matrix(result, measure)]
        parts += [_summary_line(result, measure), ""]
    image = _summary_line(result, "cutpaste_image")
    return "\n".join([*parts, f"cutpaste, {MEASURES['cutpaste_image']}: {image}"])


def percent(value: float | None) -> str:
    """Return a share as a percentage with one decimal, or `-` where there is no value."""
    return "-" if value is None or np.isnan(value) else f"{100 * value:.1f}"


def _matrix(result: Interference, measure: str) -> list[str]:
    """Return the table as lines of equal length. Where the columns' names would be too wide they
    are replaced by numbers, and a line lists them."""
    heads, legend = list(result.columns), []
    if sum(max(len(head), 5) + 2 for head in heads) > 90:
        heads = [str(number) for number in range(1, len(heads) + 1)]
        legend = [
            "columns: " + ", ".join(f"{i} {c}" for i, c in zip(heads, result.columns, strict=True))
        ]
    rows = [["", *heads]]
    for name, values in zip(result.rows, result.table(measure), strict=True):
        rows.append([name, *(percent(value) for value in values)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        *legend,
        *(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        ),
    ]


def _summary_line(result: Interference, measure: str) -> str:
    summary = result.summary(measure)
    worst = summary["worst"]
    where = f" ({worst['row']}, {worst['column']})" if worst else ""
    return (
        f"mean {percent(summary['mean'])} over {summary['n_pairs']} pairs, "
        f"worst {percent(worst and worst['value'])}{where}, "
        f"same product {percent(summary['same_product'])}"
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
