"""The sources of a service: those of the configuration, and those set up through the API."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from snl.errors import SettingsError, SnlError
from snl.service.connectors import Rows, shown
from snl.service.models import Models
from snl.service.policy import Policy
from snl.service.sources.base import KINDS, Source, SourceSettings
from snl.service.sources.runner import STOP_SECONDS, Runner, Status
from snl.service.store import NotThereError, Store
from snl.service.tables import InspectionRow
from snl.service.upload import Upload

log = logging.getLogger("snl.service")


@dataclass(frozen=True)
class Described:
    """A source as it is shown.

    Attributes:
        name: of the source.
        kind: such as `folder`.
        settings: without secrets.
        configured: whether it is of the configuration file, and cannot be changed here.
        status: what it does.
    """

    name: str
    kind: str
    settings: dict[str, Any]
    configured: bool
    status: Status


@dataclass
class _Entry:
    kind: str
    settings: dict[str, Any]
    configured: bool
    runner: Runner


class Sources:
    """Runs the sources of a service, each in a thread.

    Args:
        store: of their rows and of the inspections.
        models: that inspect.
        inspect: stores an inspection, as `Service.inspect`.
        configured: `kind` and settings by name, of the configuration file.
        policy: what sources that come through the API may reach.

    Raises:
        SettingsError: a source of the configuration is wrong.
    """

    def __init__(
        self,
        store: Store,
        models: Models,
        inspect: Callable[[Upload], InspectionRow],
        configured: Mapping[str, Mapping[str, Any]],
        policy: Policy,
    ) -> None:
        self.store, self.models, self.policy = store, models, policy
        self._inspect = inspect
        self._rows = Rows(store, "source")
        self._changing = threading.RLock()
        self._entries = {name: self._entry(name, given, None) for name, given in configured.items()}
        for row in self._rows.all():
            if row.name in self._entries:
                log.warning("source %s: the one of the configuration file counts", row.name)
                continue
            given = {"kind": row.kind, **row.settings}
            try:
                self._entries[row.name] = self._entry(row.name, given, policy)
            except SnlError as error:
                self._entries[row.name] = self._broken(row.name, row.kind, error)

    def start(self) -> None:
        """Start all sources but those that a person has paused."""
        paused = self._rows.paused()
        for name, entry in self._entries.items():
            if name in paused:
                entry.runner.status.state = "paused"
            elif entry.runner.status.state != "failed":
                entry.runner.start()

    def list(self) -> list[Described]:
        """Return the sources by name."""
        entries = sorted(self._entries.items(), key=lambda one: one[0])
        return [_described(name, entry) for name, entry in entries]

    def get(self, name: str) -> Described:
        """Return a source.

        Raises:
            NotThereError: there is none of this name.
        """
        return _described(name, self._known(name))

    # --- what people do ---

    def put(self, name: str, given: Mapping[str, Any], who: str) -> Described:
        """Add a source, or replace one, and start it unless it is paused.

        Args:
            name: of the source.
            given: `kind` and settings.
            who: wants it.

        Raises:
            SettingsError: it is wrong, not allowed, or of the configuration file.
            PluginError: there is no such kind.
        """
        with self._changing:
            before = self._entries.get(name)
            if before is not None:
                self._check_own(name, before)
            entry = self._entry(name, given, self.policy)
            self._rows.put(name, given, entry.settings, who)
            if before is not None:
                before.runner.stop()
            self._entries[name] = entry
            if name in self._rows.paused():
                entry.runner.status.state = "paused"
            else:
                entry.runner.start()
            return self.get(name)

    def remove(self, name: str, who: str) -> None:
        """Stop a source, and forget it.

        Raises:
            NotThereError: there is none of this name.
            SettingsError: it is of the configuration file.
        """
        with self._changing:
            entry = self._known(name)
            self._check_own(name, entry)
            self._rows.delete(name, who)
            del self._entries[name]
            entry.runner.stop()

    def start_again(self, name: str, who: str) -> Described:
        """Start a source that is paused, has ended, has failed, or waits to be opened again.

        Raises:
            NotThereError: there is none of this name.
            SettingsError: it runs, or its settings are wrong.
        """
        with self._changing:
            entry = self._known(name)
            if entry.runner.status.state == "running":
                raise SettingsError(f"source {name} is running")
            entry.runner.make().close()
            entry.runner.stop()
            self._rows.note(name, "start", who, paused=False)
            entry.runner.start()
            return self.get(name)

    def pause(self, name: str, who: str) -> Described:
        """Pause a source until somebody resumes it, also over a restart of the service.

        Raises:
            NotThereError: there is none of this name.
        """
        with self._changing:
            runner = self._known(name).runner
            self._rows.note(name, "pause", who, paused=True)
            runner.stop()
            runner.status.state, runner.status.error = "paused", ""
            return self.get(name)

    def resume(self, name: str, who: str) -> Described:
        """Let a paused source run again.

        Raises:
            NotThereError: there is none of this name.
            SettingsError: it is not paused.
        """
        with self._changing:
            runner = self._known(name).runner
            if runner.status.state != "paused":
                raise SettingsError(f"source {name} is {runner.status.state}, not paused")
            self._rows.note(name, "resume", who, paused=False)
            runner.start()
            return self.get(name)

    def trigger(self, name: str, who: str) -> Described:
        """Take one image now, with a camera or stream whose trigger is manual.

        Raises:
            NotThereError: there is none of this name.
            SettingsError: it takes no trigger now.
        """
        self._known(name).runner.trigger()
        self._rows.note(name, "trigger", who)
        return self.get(name)

    def close(self) -> None:
        """Stop all sources; images that are being inspected are finished."""
        with self._changing:
            runners = [entry.runner for entry in self._entries.values()]
            for runner in runners:
                runner.signal()
            end = time.monotonic() + STOP_SECONDS
            for runner in runners:
                runner.stop(max(0.0, end - time.monotonic()))

    # --- how ---

    def _entry(self, name: str, given: Mapping[str, Any], policy: Policy | None) -> _Entry:
        """Return a source that does not run yet, after checking its settings."""
        kind, settings = KINDS.settings(name, given)
        assert isinstance(settings, SourceSettings)
        made = KINDS.get(kind)

        def make() -> Source:
            source: Source = made(name, settings, policy)
            return source

        make()
        runner = Runner(name, make, self._inspect, self.store, self.models)
        return _Entry(kind, shown(settings), policy is None, runner)

    def _broken(self, name: str, kind: str, error: SnlError) -> _Entry:
        """Return a source of the table that cannot run now, such as one of another package."""

        def make() -> Source:
            raise error

        runner = Runner(name, make, self._inspect, self.store, self.models)
        runner.status.state, runner.status.error = "failed", str(error)
        log.warning("source %s: %s", name, error)
        return _Entry(kind, {}, False, runner)

    def _known(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise NotThereError(f"there is no source {name[:100]}")
        return entry

    def _check_own(self, name: str, entry: _Entry) -> None:
        if entry.configured:
            raise SettingsError(
                f"source {name} is of the configuration file of the service; change it there"
            )


def _described(name: str, entry: _Entry) -> Described:
    status = replace(entry.runner.status)
    return Described(name, entry.kind, entry.settings, entry.configured, status)
