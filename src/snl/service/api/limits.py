"""How often a client may ask, and how slowly it may speak."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from anyio import CapacityLimiter
from uvicorn.protocols.http.h11_impl import H11Protocol

from snl.service.batching import FullError

HEADER_SECONDS = 10.0
"""Within which the head of a request must have come."""
EVENTS = "/v1/events"
"""Path of the stream of events."""
MOST_CLIENTS = 10_000
"""Clients that are remembered; those that asked last."""


class RateLimit:
    """Token buckets, one for each client.

    Args:
        rate: requests per second that a client may send; 0: any number.
        burst: requests that may come at once.
        now: clock in seconds that never goes back.
    """

    def __init__(self, rate: float, burst: int, now: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self._now = rate, max(1, burst), now
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Take one request of a client; return 0, or the seconds after which it may ask again."""
        if self.rate <= 0:
            return 0.0
        now = self._now()
        left, last = self._clients.pop(client, (float(self.burst), now))
        left = min(float(self.burst), left + (now - last) * self.rate)
        allowed = left >= 1
        self._clients[client] = (left - 1 if allowed else left, now)
        if len(self._clients) > MOST_CLIENTS:
            self._clients.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self.rate


class Admission:
    """Bounds the images that are being worked on; used by the event loop alone.

    Args:
        limit: images at a time.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.inside = limit, 0
        self.threads = CapacityLimiter(limit)
        """For the threads that work on them: a waiting image needs one."""

    def check(self, images: int = 1) -> None:
        """Check that there is room.

        Raises:
            FullError: there is not.
        """
        if self.inside and self.inside + images > self.limit:
            raise FullError("the server is busy; try again later")

    @contextmanager
    def admitted(self, images: int) -> Iterator[None]:
        """Count images during the block.

        Raises:
            FullError: there is no room for them.
        """
        self.check(images)
        self.inside += images
        try:
            yield
        finally:
            self.inside -= images


class Protocol(H11Protocol):
    """HTTP/1.1 that closes connections on which no complete request head comes in time."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start to wait for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Read data, and wait for the rest of a head that is not complete."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._forget()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Finish the request that is served; a stream of events, which has no end, is cut."""
        super().shutdown()
        if self.cycle is not None and self.scope["path"] == EVENTS:
            self.transport.close()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()  # a request is being served; its body has a limit of its own
        elif self._patience is None:
            self._patience = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _forget(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
