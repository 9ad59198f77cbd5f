"""The table of a benchmark: mean and standard deviation over seeds, next to published results."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from snl.bench.published import COLUMNS, NOTE, Benchmark
from snl.evaluation.result import METRICS

HEADS = ("image AUROC", "pixel AUROC", "AUPRO")


def summarise(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return statistics of the metrics over seeds, in 0..1.

    Args:
        results: `Evaluation.to_dict` of every seed.

    Returns:
        `classes` (by name), `mean` (of the classes) and `pooled`. Each has all metrics, and each
        metric has `mean`, `std` (sample standard deviation; None for one seed) and `values` (by
        seed).
    """

    def over_seeds(tables: list[Mapping[str, Any]]) -> dict[str, Any]:
        return {metric: _statistics([table[metric] for table in tables]) for metric in METRICS}

    names = list(results[0]["products"])
    return {
        "classes": {name: over_seeds([r["products"][name] for r in results]) for name in names},
        "mean": over_seeds([r["mean"] for r in results]),
        "pooled": over_seeds([r["pooled"] for r in results]),
    }


def rows(summary: Mapping[str, Any], benchmark: Benchmark) -> list[list[str]]:
    """Return the cells of the table in percent, with published results for a whole benchmark."""
    table = [["class", *HEADS]]
    table += [[name, *_cells(values)] for name, values in summary["classes"].items()]
    table.append(["mean", *_cells(summary["mean"])])
    if not summary["partial"]:
        for row in benchmark.rows:
            table.append([f"mean: {row.method}", *(f"{value:.1f}" for value in row.values)])
    pooled = _cell(summary["pooled"]["image_auroc"])
    return [*table, ["pooled", pooled, "", ""]]


def text(summary: Mapping[str, Any], benchmark: Benchmark) -> str:
    """Return the table as aligned text, with title and notes."""
    head, *cells = rows(summary, benchmark)
    table = [head, *([name, *map(_aligned, values)] for name, *values in cells)]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    rule = "-" * max(map(len, lines))
    count = 1 + len(summary["classes"])
    body = [lines[0], rule, *lines[1:count], rule, *lines[count:-1], rule, lines[-1]]
    return "\n".join([_title(summary, benchmark), *body, *_notes(summary, benchmark)])


def markdown(summary: Mapping[str, Any], benchmark: Benchmark) -> str:
    """Return the table as a Markdown page, with title and notes."""
    table = rows(summary, benchmark)
    lines = [f"| {' | '.join(row)} |" for row in table]
    lines.insert(1, "|---" * len(table[0]) + "|")
    notes = "\n\n".join(_notes(summary, benchmark))
    return f"# {_title(summary, benchmark)}\n\n" + "\n".join(lines) + f"\n\n{notes}\n"


def _title(summary: Mapping[str, Any], benchmark: Benchmark) -> str:
    settings, seeds = summary["settings"], len(summary["seeds"])
    partial = " (PARTIAL)" if summary["partial"] else ""
    return (
        f"{benchmark.name}{partial}: {settings['method']}, preset {settings['preset']}, teacher "
        f"{settings['teacher']['name']}, {settings['image_size']} px, "
        f"{settings['training']['steps']} steps of {settings['training']['batch_size']}, "
        f"{seeds} seed{'s' * (seeds > 1)}"
    )


def _notes(summary: Mapping[str, Any], benchmark: Benchmark) -> list[str]:
    spread = "± is the sample standard deviation over seeds; " if len(summary["seeds"]) > 1 else ""
    notes = [
        f"Percent. {spread}one model for all classes, evaluated after its last step at the "
        "network's input size. pooled: one ranking of the images of all classes."
    ]
    if summary["partial"]:
        reasons = "; ".join(summary["partial"])
        notes.append(
            f"PARTIAL: {reasons}. Not comparable with published means, which are of all of "
            f"{benchmark.name}, so they are not shown."
        )
        return notes
    sources: dict[str, list[str]] = {}
    for row in benchmark.rows:
        sources.setdefault(row.source, []).append(row.method)
    methods = "; ".join(f"{', '.join(names)}: {source}" for source, names in sources.items())
    return [*notes, NOTE, f"Sources: {methods}."]


def _cells(table: Mapping[str, Any]) -> list[str]:
    return [_cell(table[metric]) for metric in COLUMNS]


def _cell(value: Mapping[str, Any]) -> str:
    if value["mean"] is None:
        return "-"
    spread = "" if value["std"] is None else f" ± {100 * value['std']:.1f}"
    return f"{100 * value['mean']:.1f}{spread}"


def _aligned(cell: str) -> str:
    """Pad a cell so that the decimal points of a column are aligned."""
    mean, sign, deviation = cell.partition(" ± ")
    return f"{mean:>5}{sign}{deviation:>4}" if sign else f"{mean:>5}"


def _statistics(values: list[float | None]) -> dict[str, Any]:
    defined = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(defined) if defined else None,
        "std": statistics.stdev(defined) if len(defined) > 1 else None,
        "values": values,
    }
