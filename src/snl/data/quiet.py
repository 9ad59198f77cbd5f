"""Ignore Pillow's warnings while images are read, in any number of threads."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

_MODULES = r"PIL\b"
_lock = Lock()
_users = 0


@contextmanager
def without_warnings() -> Iterator[None]:
    """Ignore warnings that Pillow's modules raise, during the `with` block.

    `warnings.catch_warnings` is not safe with several threads, because each one restores what it
    found. Here the first thread adds one filter, which concerns Pillow alone, and the last one
    removes it.
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            warnings.filterwarnings("ignore", module=_MODULES)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _remove()


def _remove() -> None:
    filters: Any = warnings.filters
    for entry in list(filters):
        if entry[0] == "ignore" and getattr(entry[3], "pattern", entry[3]) == _MODULES:
            filters.remove(entry)
            return
