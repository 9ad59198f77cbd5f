"""Progress of long work: a bar on a terminal, now and then a line where it is written to a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from snl.text import printable

if TYPE_CHECKING:
    from tqdm import tqdm

INTERVAL = "SNL_PROGRESS_SECONDS"
_COLUMNS, _ROWS = 120, 20
"""Size of a terminal that does not know it, as one in a container may not."""
_LINE = "{desc}: {percentage:.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


def new_bar(
    title: str, unit: str, total: int, *, initial: int = 0, quiet: bool = False
) -> tqdm[Any]:
    """Return a progress bar with rate and time left; without a terminal it writes lines.

    Args:
        title: what is being done.
        unit: of what is counted.
        total: how much there is to do.
        initial: how much of it was done before.
        quiet: show nothing.
    """
    from tqdm import tqdm

    lines = not sys.stderr.isatty()
    sized = not lines and _has_size()
    seconds = interval()
    return tqdm(
        desc=printable(title),
        unit=unit,
        total=total,
        initial=initial,
        disable=quiet,
        dynamic_ncols=sized,
        ncols=None if sized or lines else _COLUMNS,
        nrows=None if sized else _ROWS,
        mininterval=seconds,
        delay=seconds if lines else 0,  # what is done sooner needs no line
        file=_Lines(sys.stderr) if lines else None,
        bar_format=_LINE if lines else None,
    )


def bar(title: str, unit: str = "image") -> Callable[[int, int], None]:
    """Return a function of (done, total) that shows a progress bar.

    The bar appears at the first call and is closed when `done` reaches `total`.
    """
    progress_bar: tqdm[Any] | None = None

    def update(done: int, total: int) -> None:
        nonlocal progress_bar
        if progress_bar is None:
            progress_bar = new_bar(title, unit, total)
        progress_bar.update(done - progress_bar.n)
        if done >= total:
            progress_bar.close()

    return update


def interval() -> float:
    """Return the seconds between updates of a bar: short on a terminal, long in a log file.

    A program that shows the progress sets the environment variable SNL_PROGRESS_SECONDS.
    """
    with suppress(ValueError):
        return max(0.1, float(os.environ.get(INTERVAL, "")))
    return 0.2 if sys.stderr.isatty() else 10.0


def _has_size() -> bool:
    """Return whether standard error is a terminal that knows its size."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return False


class _Lines:
    """A file for tqdm that writes each state of a bar as a line of its own."""

    def __init__(self, file: TextIO) -> None:
        self._file, self.encoding = file, file.encoding

    def write(self, text: str) -> None:
        if line := text.strip():
            self._file.write(line + "\n")

    def flush(self) -> None:
        self._file.flush()
