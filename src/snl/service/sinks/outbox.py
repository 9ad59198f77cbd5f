"""The sinks of a service, and the outbox: events that are stored with the inspection.

An event is committed in the transaction of its inspection, so neither is there without the other.
It is deleted after its sink has it. Nothing is dropped: while a receiver is away, the outbox grows,
and the status says by how much.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import delete, func, select, update

from snl.errors import PluginError, SettingsError, SnlError
from snl.service.connectors import Rows
from snl.service.events import event_json, inspection_event
from snl.service.ids import new_id
from snl.service.policy import Policy
from snl.service.sinks.base import DeliveryError, Event, Sink, SinkSettings
from snl.service.sinks.courier import Backoff, Courier
from snl.service.sinks.kinds import Plan, one_line, plan
from snl.service.store import NotThereError, Store, audit
from snl.service.tables import ConnectorRow, InspectionRow, OutboxRow

CLOSE_SECONDS = 5.0
"""How long the deliveries that run may take when the service stops."""
SAMPLE = 100
"""Events whose size is looked at."""


@dataclass(frozen=True)
class SinkStatus:
    """A sink as it is now.

    Attributes:
        name, kind: of the sink.
        configured: whether it is in the configuration file.
        settings: without secrets.
        state: see `Courier.state`; `absent`: there are events, but no longer a sink.
        waiting: events that are not delivered yet.
        dead: events that were refused for good.
        bytes: about how large the events are together.
        oldest: time of the event that has waited longest.
        last_error: why the last one of the failed deliveries since the start failed.
        last_delivery: time, since the start.
    """

    name: str
    kind: str
    configured: bool
    settings: Mapping[str, Any]
    state: str
    waiting: int
    dead: int
    bytes: int
    oldest: datetime | None
    last_error: str
    last_delivery: datetime | None


@dataclass
class _Entry:
    """A sink that is there, whether or not it can be made."""

    kind: str
    configured: bool
    plan: Plan | None
    filters: SinkSettings
    courier: Courier


class Sinks:
    """The sinks of a service.

    Args:
        store: of their events, and of the sinks that were set up through the API.
        configured: sinks of the configuration file, `kind` and settings by name. They may reach
            anything; a sink of the API with the same name is not used.
        policy: what sinks of the API may reach.
        backoff: waiting times while a receiver is away.

    Raises:
        SettingsError, PluginError: a sink of the configuration file is wrong.
    """

    def __init__(
        self,
        store: Store,
        configured: Mapping[str, Mapping[str, Any]] | None = None,
        policy: Policy | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.store, self.policy, self.backoff = store, policy or Policy(), backoff
        self._rows = Rows(store, "sink")
        self._changing = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        paused = self._rows.paused()
        made: dict[str, tuple[Plan, Sink]] = {}
        for name, given in (configured or {}).items():
            one = plan(name, given, None)
            made[name] = one, one.make()
        for name, (one, sink) in made.items():
            self._entries[name] = self._started(name, one, sink, True, name in paused)
        for row in self._rows.all():
            if row.name not in made:
                self._entries[row.name] = self._restored(row, row.name in paused)

    # --- events ---

    def events_of(self, row: InspectionRow) -> list[OutboxRow]:
        """Return the events of an inspection: one for each sink that wants it."""
        names = [
            name
            for name, entry in list(self._entries.items())
            if entry.filters.wants(row.decision, row.product)
        ]
        body = inspection_event(row) if names else ""
        return [
            OutboxRow(
                sink=name, inspection=row.id, body=body, created=row.created, attempts=0, error="",
                dead=False,
            )
            for name in names
        ]  # fmt: skip

    def wake(self) -> None:
        """Deliver now: there are new events in the store."""
        for entry in list(self._entries.values()):
            entry.courier.wake()

    def close(self) -> None:
        """Stop; what waits is delivered after the next start."""
        for entry in self._entries.values():
            entry.courier.stop()
        end = time.monotonic() + CLOSE_SECONDS
        for entry in self._entries.values():
            entry.courier.join(max(0.0, end - time.monotonic()))

    # --- what there is ---

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return by sink how many events wait, and how many are dead letters."""
        return {name: (waiting, dead) for name, (waiting, dead, _) in self._counts().items()}

    def status(self) -> list[SinkStatus]:
        """Return all sinks by name."""
        return [self._status(name, *found) for name, found in sorted(self._counts().items())]

    def one(self, name: str) -> SinkStatus:
        """Return a sink.

        Raises:
            NotThereError: there is none.
        """
        counts = self._counts()
        if name not in counts:
            raise NotThereError(f"there is no sink {name[:100]}")
        return self._status(name, *counts[name])

    def dead(self, name: str, after: int = 0, most: int = 100) -> Sequence[OutboxRow]:
        """Return dead letters of a sink, oldest first, after the one with the id `after`.

        Raises:
            NotThereError: there is no such sink.
        """
        self.one(name)
        query = select(OutboxRow).where(OutboxRow.sink == name, OutboxRow.dead.is_(True))
        query = query.where(OutboxRow.id > after).order_by(OutboxRow.id).limit(most)
        with self.store.reading() as session:
            return session.scalars(query).all()

    # --- changes ---

    def put(self, name: str, kind: str, settings: Mapping[str, Any], who: str) -> SinkStatus:
        """Add a sink, or replace one; what waits for it is delivered to the new one.

        Raises:
            SettingsError: a setting is wrong or not allowed, or it is in the configuration file.
            PluginError: its kind cannot be used.
        """
        with self._changing:
            self._check_not_configured(name)
            given = {**settings, "kind": kind}
            one = plan(name, given, self.policy)
            sink = one.make()
            try:
                self._rows.put(name, given, one.shown(), who)
            except BaseException:
                sink.close()
                raise
            before = self._entries.get(name)
            if before is None:
                self._entries[name] = self._started(name, one, sink, False, False)
            else:
                before.courier.replace(sink)
                self._entries[name] = _Entry(kind, False, one, one.settings, before.courier)
        return self.one(name)

    def delete(self, name: str, who: str, *, discard: bool = False) -> None:
        """Remove a sink.

        Args:
            name: of the sink.
            who: wants it.
            discard: whether events that were not delivered are deleted.

        Raises:
            NotThereError: there is none.
            SettingsError: it is in the configuration file, or events wait.
        """
        with self._changing:
            self._check_not_configured(name)
            entry = self._entries.pop(name, None)
            try:
                found = self.one(name) if entry is None else None
                waiting, dead, _ = self._counts().get(name, (0, 0, None))
                if (waiting or dead) and not discard:
                    raise SettingsError(
                        f"sink {name}: {waiting} events wait and {dead} are dead letters; deliver "
                        "them first, or give discard=true to delete them"
                    )
                if found is None:
                    self._rows.delete(name, who)
            except BaseException:
                if entry is not None:
                    self._entries[name] = entry
                raise
            if entry is not None:
                entry.courier.stop()
            if waiting or dead:
                self._change(name, "discard", who, delete(OutboxRow).where(OutboxRow.sink == name))

    def pause(self, name: str, on: bool, who: str) -> SinkStatus:
        """Pause a sink, also after a restart, or let it go on.

        Raises:
            NotThereError: there is none.
        """
        entry = self._entry(name)
        self._rows.note(name, "pause" if on else "resume", who, on)
        entry.courier.pause(on)
        return self.one(name)

    def test(self, name: str, who: str) -> None:
        """Send an event of the type `test`, beside what waits; a file gets no line.

        Raises:
            NotThereError: there is no such sink.
            DeliveryError: it would not get events now.
        """
        entry = self._entry(name)
        if entry.plan is None:
            raise DeliveryError(entry.courier.last_error)
        id, now = new_id(), datetime.now(UTC).isoformat().replace("+00:00", "Z")
        event = Event(id, event_json(id, "test", now, sink=name))
        self._rows.note(name, "test", who)
        try:
            sink = entry.plan.make()
            try:
                sink.test(event)
            finally:
                sink.close()
        except SnlError as error:
            raise DeliveryError(str(error)) from None
        except Exception as error:  # a sink of somebody else may raise anything
            raise DeliveryError(f"the sink has a defect ({one_line(error)})") from None

    def retry_dead(self, name: str, who: str) -> int:
        """Let the dead letters of a sink wait again, before what came later; return how many.

        Raises:
            NotThereError: there is no such sink.
        """
        entry = self._entry(name)
        query = update(OutboxRow).where(OutboxRow.sink == name, OutboxRow.dead.is_(True))
        count = self._change(name, "retry dead", who, query.values(dead=False))
        entry.courier.try_now()
        return count

    def delete_dead(self, name: str, who: str) -> int:
        """Delete the dead letters of a sink; return how many.

        Raises:
            NotThereError: there is no such sink.
        """
        self.one(name)
        query = delete(OutboxRow).where(OutboxRow.sink == name, OutboxRow.dead.is_(True))
        return self._change(name, "delete dead", who, query)

    # --- how ---

    def _entry(self, name: str) -> _Entry:
        try:
            return self._entries[name]
        except KeyError:
            raise NotThereError(f"there is no sink {name[:100]}") from None

    def _check_not_configured(self, name: str) -> None:
        entry = self._entries.get(name)
        if entry is not None and entry.configured:
            raise SettingsError(f"sink {name} is in the configuration file; change it there")

    def _started(self, name: str, one: Plan, sink: Sink, configured: bool, paused: bool) -> _Entry:
        courier = Courier(self.store, name, sink, paused=paused, backoff=self.backoff)
        return _Entry(one.kind, configured, one, one.settings, courier)

    def _restored(self, row: ConnectorRow, paused: bool) -> _Entry:
        """Return a sink of the store; one that cannot be made keeps its events."""
        one: Plan | None = None
        try:
            one = plan(row.name, {**row.settings, "kind": row.kind}, self.policy)
            return self._started(row.name, one, one.make(), False, paused)
        except (SettingsError, PluginError) as error:
            courier = Courier(
                self.store, row.name, None, error=str(error), paused=paused, backoff=self.backoff
            )
        filters = SinkSettings() if one is None else one.settings
        if one is None:
            with suppress(ValidationError):
                known = {n: v for n, v in row.settings.items() if n in SinkSettings.model_fields}
                filters = SinkSettings.model_validate(known)
        return _Entry(row.kind, False, one, filters, courier)

    def _change(self, name: str, action: str, who: str, query: Any) -> int:
        """Change events, with an audit row; return how many."""
        with self.store.writing() as session:
            count = int(session.execute(query).rowcount)  # type: ignore[attr-defined]
            session.add(audit(who, f"sink {action}", name, {"events": count}))
        return count

    def _counts(self) -> dict[str, tuple[int, int, int | None]]:
        """Return by sink how many events wait, how many are dead, and the id of the oldest."""
        row = OutboxRow
        query = select(row.sink, row.dead, func.count(), func.min(row.id))
        with self.store.reading() as session:
            found = session.execute(query.group_by(row.sink, row.dead)).all()
        counts: dict[str, tuple[int, int, int | None]] = dict.fromkeys(
            list(self._entries), (0, 0, None)
        )
        for name, is_dead, count, first in found:
            waiting, dead, oldest = counts.get(name, (0, 0, None))
            counts[name] = (waiting, count, oldest) if is_dead else (count, dead, first)
        return counts

    def _status(self, name: str, waiting: int, dead: int, first: int | None) -> SinkStatus:
        entry = self._entries.get(name)
        size, oldest = 0, None
        if waiting or dead:
            query = select(func.length(OutboxRow.body).label("size")).where(OutboxRow.sink == name)
            some = query.limit(SAMPLE).subquery()
            with self.store.reading() as session:
                size = round(float(session.scalar(select(func.avg(some.c.size))) or 0.0))
                if first is not None:
                    when = select(OutboxRow.created).where(OutboxRow.id == first)
                    oldest = session.scalar(when)
        return SinkStatus(
            name=name,
            kind=entry.kind if entry else "",
            configured=entry is not None and entry.configured,
            settings=entry.plan.shown() if entry and entry.plan else {},
            state=entry.courier.state if entry else "absent",
            waiting=waiting,
            dead=dead,
            bytes=size * (waiting + dead),
            oldest=oldest,
            last_error=entry.courier.last_error if entry else "",
            last_delivery=entry.courier.last_delivery if entry else None,
        )
