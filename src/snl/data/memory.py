"""Give freed memory back to the operating system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Give the memory of freed images back to the operating system, where the C library keeps it.

    Pillow holds a decoded image in blocks of 16 MB. After the first image glibc no longer returns
    such blocks by itself, but keeps them for the thread that freed them: without this call every
    decoding thread would hold on to its largest image.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    """Return `malloc_trim` of glibc; None: another C library, which has none."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # TypeError: Windows
        return None
    return trim
