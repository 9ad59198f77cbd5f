"""What `snl inspect` says to people at its end: a line for each of few images, a table of many."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snl.decision.inspection import Inspection

FEW = 10
"""Up to so many images are listed one by one."""
MOST_WORST = 5
"""Of more images, so many of the most unusual are listed."""
_DECISIONS = ("normal", "uncertain", "anomalous", "unknown product")
_RANKS = {"anomalous": 0, "unknown product": 0, "uncertain": 1, "normal": 2}
UNKNOWN_ROW = "(unknown)"
"""Row of the table for images of no known product."""
STDOUT = Path("-")
"""`--json -`: standard output."""


def for_people(json: Path | None, csv: Path | None) -> bool:
    """Return whether the results are shown as text: they go to a file, or standard output is a
    terminal, which JSON lines would flood."""
    if json is not None:
        return json != STDOUT
    if csv is not None:
        return True
    return sys.stdout is not None and sys.stdout.isatty()


class Terminal:
    """Takes results that are only summarised."""

    option, broken = "standard output", False

    def add(self, result: Inspection, record: dict[str, object]) -> None:
        """Do nothing: the summary counts."""

    def close(self, complete: bool) -> None:
        """Do nothing."""

    def summary(self) -> str | None:
        """Return nothing."""
        return None


class Summary:
    """Counts results by product and decision, and keeps the most unusual ones."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._worst: list[tuple[int, float, float, str]] = []

    def add(self, result: Inspection) -> None:
        """Count a result."""
        name = UNKNOWN_ROW if result.decision == "unknown product" else result.product
        self._counts[name][result.decision] += 1
        p = 1.0 if result.p_value is None else result.p_value
        rank = _RANKS[result.decision]
        self._worst.append((rank, p, -(result.calibrated or 0.0), _line(result)))
        if len(self._worst) > 4 * FEW:
            self._worst = sorted(self._worst)[:FEW]

    def lines(self, shown: bool, sorted_out: bool, written: bool) -> Iterator[str]:
        """Yield what there is to say.

        Args:
            shown: overlays were written.
            sorted_out: rejects were copied or moved.
            written: all results were written to a file.
        """
        total = sum(sum(counts.values()) for counts in self._counts.values())
        if not total:
            return
        worst = [line for *_, line in sorted(self._worst)]
        if total <= FEW:
            yield from worst
        else:
            yield self._table()
            yield f"the {MOST_WORST} most unusual:"
            yield from (f"  {line}" for line in worst[:MOST_WORST])
        flagged = total - sum(counts["normal"] for counts in self._counts.values())
        if not flagged:
            return
        advice = [] if shown else ["--out DIR shows where"]
        advice += [] if sorted_out else ["--copy-rejects DIR collects the images"]
        if not written:
            advice.append("--csv FILE or --json FILE writes all results")
        if advice:
            yield f"next: {', '.join(advice)}"

    def _table(self) -> str:
        from snl.text_table import aligned

        def row(name: str, counts: Counter[str]) -> list[str]:
            total = sum(counts.values())
            flagged = total - counts["normal"]
            share = f"{100 * flagged / total:.1f} %"
            return [name, str(total), *(str(counts[one]) for one in _DECISIONS), share]

        def worst_first(item: tuple[str, Counter[str]]) -> tuple[float, str]:
            name, counts = item
            return -(1 - counts["normal"] / sum(counts.values())), name

        both: Counter[str] = Counter()
        for counts in self._counts.values():
            both.update(counts)
        heading = ["product", "images", *_DECISIONS, "flagged"]
        rows = [row(*item) for item in sorted(self._counts.items(), key=worst_first)]
        return aligned([heading, *rows, row("all", both)], 1)


def _line(result: Inspection) -> str:
    """Return a result in one line."""
    name = Path(result.path).name if result.path else "image"
    if result.decision == "unknown product":
        return f"{name}: unknown product, nearest {result.recognised}"
    text = f"{name}: {result.decision}, {result.product}, score {result.score:.3g}"
    if result.threshold is not None:
        text += f" (threshold {result.threshold:.3g})"
    if result.p_value is not None:
        text += f", as unusual as 1 in {max(1, round(1 / result.p_value))} normal images"
    return text
