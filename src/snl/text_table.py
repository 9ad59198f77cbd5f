"""Format rows of text as an aligned table."""

from __future__ import annotations

from collections.abc import Sequence

from snl.text import printable


def aligned(rows: Sequence[Sequence[str]], last: int) -> str:
    """Return the rows as a text table; the first column is left-aligned, the others right-aligned.

    Args:
        rows: cells; the first row is the heading.
        last: number of rows at the end that are separated by a line, at least 1.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    separator = "-" * len(lines[0])
    return "\n".join([lines[0], separator, *lines[1:-last], separator, *lines[-last:]])
