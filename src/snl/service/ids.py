"""Identifiers that grow with time, so that rows are in the order in which they came."""

from __future__ import annotations

import secrets
import threading
import time
from datetime import datetime

_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """Return 32 hex digits: microseconds since 1970, and a random part.

    Identifiers of a process always grow, also where the clock is set back.
    """
    global _last
    with _lock:
        _last = max(time.time_ns() // 1000, _last + 1)
        return f"{_last:016x}{secrets.token_hex(8)}"


def continue_after(id: str) -> None:
    """Let identifiers grow beyond one of an earlier process, whose clock may have been ahead."""
    global _last
    with _lock:
        _last = max(_last, int(id[:16], 16))


def first_id(time: datetime) -> str:
    """Return the smallest identifier that `new_id` makes at a time."""
    return f"{max(0, int(time.timestamp() * 1e6)):016x}"
