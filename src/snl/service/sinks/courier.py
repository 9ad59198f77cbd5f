"""The thread that delivers the events of one sink."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import delete, select, update

from snl.errors import SnlError
from snl.service.sinks.base import DeliveryError, Event, Sink
from snl.service.sinks.kinds import one_line
from snl.service.store import Store
from snl.service.tables import OutboxRow

log = logging.getLogger("snl.service")

POLL_SECONDS = 2.0
"""How often the store is asked for events, if nobody says that there are new ones."""


@dataclass(frozen=True)
class Backoff:
    """Waiting before an event is sent again: it doubles from the first time to the last.

    Attributes:
        first, last: in seconds.
    """

    first: float = 1.0
    last: float = 60.0

    def seconds(self, failures: int) -> float:
        """Return the waiting time after a number of failures, with jitter."""
        longest = min(self.last, self.first * 2.0 ** min(failures, 30))
        return max(self.first, longest * random.uniform(0.5, 1.0))


class Courier:
    """Delivers the events of a sink in the order of their ids, each at least once.

    An event is deleted after the sink has it. One that fails is tried again before any other is;
    one that is refused for good becomes a dead letter, and the next one follows.

    Args:
        store: of the events.
        name: of the sink.
        sink: that gets them; it belongs to the courier. None: it could not be made.
        error: why it could not be made.
        paused: whether it waits for `resume`.
        backoff: waiting times.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        sink: Sink | None,
        *,
        error: str = "",
        paused: bool = False,
        backoff: Backoff | None = None,
    ) -> None:
        self.store, self.name, self.backoff = store, name, backoff or Backoff()
        self.last_error = error
        self.last_delivery: datetime | None = None
        self._sink, self._next = sink, sink
        self._paused, self._closed = paused, False
        self._failures = 0
        self._again = 0.0
        self._delivered: list[int] = []
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"snl-sink-{name}", daemon=True)
        self._thread.start()

    @property
    def state(self) -> str:
        """`running`, `retrying` (the last try failed), `paused`, or `failed` (it is not made)."""
        if self._paused:
            return "paused"
        if self._next is None:
            return "failed"
        return "retrying" if self._failures else "running"

    def wake(self) -> None:
        """There are new events."""
        self._wake.set()

    def pause(self, on: bool) -> None:
        """Pause, or go on and try at once."""
        self._paused = on
        self.try_now()

    def replace(self, sink: Sink) -> None:
        """Deliver to another sink, after the delivery that runs."""
        self._next = sink
        self.try_now()

    def try_now(self) -> None:
        """Do not wait for the next try."""
        self._again = 0.0
        self._wake.set()

    def stop(self) -> None:
        """Stop after the delivery that runs."""
        self._closed = True
        self._wake.set()

    def join(self, seconds: float) -> None:
        """Wait until it has stopped; what is delivered later is delivered again by the next one."""
        self._thread.join(seconds)

    # --- the thread ---

    def _run(self) -> None:
        while True:
            self._wake.clear()  # before anything is looked at, so that no change is missed
            if self._closed:
                break
            if self._next is not self._sink:
                self._close_sink()
                self._sink, self._failures = self._next, 0
            wait = self._again - time.monotonic()
            if self._sink is None or self._paused:
                wait = POLL_SECONDS
            elif wait <= 0:
                if self._go_on(self._sink):
                    continue
                wait = self._again - time.monotonic() if self._failures else POLL_SECONDS
            if wait > 0:
                self._wake.wait(wait)
        self._close_sink()

    def _go_on(self, sink: Sink) -> bool:
        """Take a step; return whether there may be more to do at once."""
        try:
            return self._step(sink)
        except SnlError as error:  # of the store
            self._fail(str(error))
        except Exception as error:  # the thread must live
            log.exception("sink %s", self.name)
            self._fail(one_line(error))
        return False

    def _step(self, sink: Sink) -> bool:
        """Deliver what waits, at most a batch; return whether there may be more.

        Raises:
            StoreError: the store cannot be used now.
        """
        self._forget()
        rows = self._rows(sink.batch)
        if not rows:
            self._failures = 0
            return False
        error = _deliver(sink, [Event(row.inspection, row.body) for row in rows])
        done = len(rows) if error is None else min(error.done, len(rows) - 1)
        if done:
            self._delivered += [row.id for row in rows[:done]]
            self.last_delivery = datetime.now(UTC)
            self._failures = 0
            self._forget()
        if error is None:
            return True
        if error.permanent:
            self.last_error, self._failures = str(error), 0
            log.warning("sink %s: inspection %s: %s", self.name, rows[done].inspection, error)
        else:
            self._fail(str(error), error.retry_after)
        self._note(rows[done].id, error)
        return error.permanent

    def _rows(self, most: int) -> Sequence[OutboxRow]:
        query = select(OutboxRow).where(OutboxRow.sink == self.name, OutboxRow.dead.is_(False))
        with self.store.reading() as session:
            return session.scalars(query.order_by(OutboxRow.id).limit(most)).all()

    def _forget(self) -> None:
        """Delete what was delivered; if that fails, it is not delivered again."""
        if self._delivered:
            with self.store.writing() as session:
                session.execute(delete(OutboxRow).where(OutboxRow.id.in_(self._delivered)))
            self._delivered = []

    def _note(self, id: int, error: DeliveryError) -> None:
        values = {"error": str(error)[:1000], "dead": error.permanent}
        query = update(OutboxRow).where(OutboxRow.id == id)
        with self.store.writing() as session:
            session.execute(query.values(attempts=OutboxRow.attempts + 1, **values))

    def _fail(self, reason: str, seconds: float | None = None) -> None:
        """Wait before the next try: as long as the receiver asks for, or longer each time."""
        if not self._failures or reason != self.last_error:
            log.warning("sink %s: %s; it is tried again", self.name, reason)
        self.last_error = reason
        self._failures += 1
        wait = self.backoff.seconds(self._failures)
        self._again = time.monotonic() + (wait if seconds is None else max(wait, seconds))

    def _close_sink(self) -> None:
        if self._sink is not None:
            try:
                self._sink.close()
            except Exception:  # it is not used any more
                log.exception("sink %s", self.name)


def _deliver(sink: Sink, events: Sequence[Event]) -> DeliveryError | None:
    """Deliver events; return why not all of them."""
    try:
        sink.deliver(events)
    except DeliveryError as error:
        return error
    except Exception as error:  # a sink of somebody else may raise anything
        log.exception("a sink has a defect")
        return DeliveryError(f"the sink has a defect ({one_line(error)})")
    return None
