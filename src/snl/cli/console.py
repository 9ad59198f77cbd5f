"""Exit statuses, and messages on standard error. Imports nothing heavy."""

from __future__ import annotations

import sys
from contextlib import suppress

from snl.text import printable

OK, PROBLEMS, BAD_INPUT, INTERNAL, STOPPED = 0, 1, 2, 70, 130
"""Exit statuses: done; done, with problems found; wrong input; a defect of snl; Ctrl-C."""


def say(text: str, *, lines: bool = False) -> None:
    """Print a message on standard error; standard output holds only results.

    It takes one line, unless `lines` allows several.

    Nothing in the message controls the terminal (see `printable`), and a message that cannot be
    written is dropped.
    """
    if sys.stderr is None:  # closed: print would write to standard output instead
        return
    with suppress(OSError, ValueError):
        print(printable(text, lines=lines), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print a result for people on standard output, without characters that control a terminal."""
    print(printable(text, lines=True), flush=True)
