"""One progress bar for everything that counts images."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def bar(title: str, unit: str = "image") -> Callable[[int, int], None]:
    """A bar with rate and time left as a function of (done, total); it closes itself at the end."""
    shown: Any = None  # made when there is something to show

    def show(done: int, total: int) -> None:
        nonlocal shown
        if shown is None:
            from tqdm import tqdm

            shown = tqdm(
                desc=title, unit=unit, total=total, dynamic_ncols=True, mininterval=interval()
            )
        shown.update(done - shown.n)
        if done >= total:
            shown.close()

    return show


def interval() -> float:
    """Seconds between updates: often on a terminal, seldom in a log file."""
    return 0.2 if sys.stderr.isatty() else 10.0
