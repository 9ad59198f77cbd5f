"""Stop on Ctrl-C, SIGTERM and SIGHUP: all three raise `Stopped`, at a moment that loses nothing.

A scheduler or a service manager sends SIGTERM, a terminal that closes sends SIGHUP. Python's own
reaction to them ends the process at once, without its `finally` blocks.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_PAUSE = 1.0
"""Seconds after a signal in which others are ignored: service managers send two at once."""


class Stopped(KeyboardInterrupt):
    """The process was asked to stop.

    Args:
        number: of the signal.
        message: what was done so far, for the user.
    """

    def __init__(self, number: int, message: str = "stopped") -> None:
        super().__init__(message)
        self.number = number

    @property
    def status(self) -> int:
        """The exit status that shells use for a process ended by the signal: 130, 143 or 129."""
        return 128 + self.number


class _State:
    """What the handlers of this process know."""

    installed = False
    deferred = 0
    """Blocks of `deferred` that run."""
    pending = 0
    """The signal that came in such a block."""
    last = -_PAUSE
    """When `Stopped` was raised."""
    process = 0
    """The process that installed them."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` in the block when one of the signals comes; afterwards all is as before.

    SIGHUP stays ignored where it is (nohup). Without effect in threads other than the main thread,
    which signals do not reach.
    """
    if _State.installed or threading.current_thread() is not threading.main_thread():
        yield
        return
    ignored = {n for n in SIGNALS[2:] if signal.getsignal(n) is signal.SIG_IGN}
    before = {n: signal.getsignal(n) for n in SIGNALS if n not in ignored}
    hook = sys.unraisablehook
    repeated: list[tuple[threading.Timer, int]] = []

    def unraisable(found: Any) -> None:
        """Repeat a signal that came inside a destructor, where exceptions are dropped."""
        if isinstance(found.exc_value, Stopped):
            _State.last = -_PAUSE
            number = found.exc_value.number
            again = threading.Timer(0.01, os.kill, (os.getpid(), number))
            again.daemon = True
            repeated.append((again, number))
            again.start()
        else:
            hook(found)

    _State.installed, _State.pending, _State.last = True, 0, -_PAUSE
    _State.process = os.getpid()
    try:
        sys.unraisablehook = unraisable
        for number in before:
            signal.signal(number, _handle)
        yield
        for again, number in repeated:
            if again.is_alive():  # the block has ended before the signal came again
                raise Stopped(number)
    finally:
        for again, _ in repeated:
            again.cancel()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        sys.unraisablehook = hook
        _State.installed = False


@contextmanager
def deferred() -> Iterator[Callable[[], int]]:
    """Let the block finish before a signal stops the process; a second signal stops at once.

    Yields:
        A function that returns the number of the signal that came, or 0.

    Raises:
        Stopped: after the block, if a signal came and the block raised nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    with stoppable():
        _State.deferred += 1
        try:
            yield lambda: _State.pending
        finally:
            _State.deferred -= 1
            number = 0 if _State.deferred else _take()
        if number:
            raise Stopped(number)


def _take() -> int:
    """Return the signal that came in the block, and forget it."""
    number, _State.pending = _State.pending, 0
    if number:
        _State.last = time.monotonic()
    return number


def _handle(number: int, frame: object) -> None:
    if os.getpid() != _State.process:  # forked by a library, which wants to end it
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    if time.monotonic() - _State.last < _PAUSE:
        return
    if _State.deferred and not _State.pending:
        _State.pending = number
        _State.last = time.monotonic()
        return
    _State.last = time.monotonic()
    raise Stopped(number)
