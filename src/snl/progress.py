"""The progress bar of all commands that count images."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from snl.text import printable

INTERVAL = "SNL_PROGRESS_SECONDS"


def bar(title: str, unit: str = "image") -> Callable[[int, int], None]:
    """Return a function of (done, total) that shows a progress bar with rate and time left.

    The bar appears at the first call and is closed when `done` reaches `total`.
    """
    progress_bar: Any = None

    def update(done: int, total: int) -> None:
        nonlocal progress_bar
        if progress_bar is None:
            from tqdm import tqdm

            progress_bar = tqdm(
                desc=printable(title),
                unit=unit,
                total=total,
                dynamic_ncols=True,
                mininterval=interval(),
            )
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
