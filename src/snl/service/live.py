"""Tells listeners what happens in the service, as it happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[str, str], None]
"""Takes a kind of event and the id of what it is about; must return at once."""


class Feed:
    """Distributes events to listeners, from any thread.

    An event is a hint to look: whoever missed one finds the same in the store. Kinds:
    `inspection` (id of a new one), and the first word of the action of an audit row, such as
    `review` or `promote` (its subject).
    """

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._lock = threading.Lock()

    def publish(self, kind: str, id: str) -> None:
        """Tell all listeners."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener(kind, id)

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Tell a listener too, during the block."""
        with self._lock:
            self._listeners.add(listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.discard(listener)
