"""Drift of the live inspections, by model version.

The monitors are fed with what is in the store: after a restart they go on where their saved state
ends, so a crash changes nothing.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import select

from snl.decision.inspection import Verdict
from snl.errors import SnlError
from snl.files import write_text
from snl.monitoring import baseline
from snl.monitoring.drift import Drift, DriftMonitor
from snl.service.models import Models
from snl.service.store import Store
from snl.service.tables import InspectionRow

log = logging.getLogger("snl.service")

EVERY = 200
"""Inspections between two saves of the state."""
PAGE = 1000


class DriftWatch:
    """Feeds a drift monitor for every active version.

    Args:
        store: of the inspections.
        models: whose active versions are watched.
        folder: of the states.
    """

    def __init__(self, store: Store, models: Models, folder: Path) -> None:
        self.store, self.models, self.folder = store, models, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._monitors: dict[str, _Watched] = {}
        for name in models.names():
            self._watched(models.active(name).id)

    def watch(self, row: InspectionRow) -> None:
        """Take an inspection into account that was just stored."""
        try:
            with self._lock:
                known = row.model in self._monitors
                watched = self._watched(row.model)
                if known:  # otherwise it was read from the store just now
                    watched.add(row)
        except SnlError as error:
            log.warning("drift of inspection %s: %s", row.id, error)

    def status(self, name: str = "") -> dict[str, Drift]:
        """Return the drift of the products of a model's active version.

        Raises:
            ModelError: there is no such model.
        """
        with self._lock:
            return self._watched(self.models.active(name).id).monitor.status()

    def reset(self, name: str, product: str | None) -> None:
        """Acknowledge an alarm: start a product, or all, from the baseline again.

        Raises:
            SnlError: there is no such model or product.
        """
        with self._lock:
            watched = self._watched(self.models.active(name).id)
            watched.monitor.reset(product)
            watched.save()

    def close(self) -> None:
        """Save the states."""
        with self._lock:
            for watched in self._monitors.values():
                with suppress(SnlError):  # it is made again from the store
                    watched.save()

    def _watched(self, id: str) -> _Watched:
        """Return the monitor of a version, brought up to date with the store."""
        watched = self._monitors.get(id)
        if watched is None:
            watched = _Watched(self.folder / f"{id}.json", self.models.read(id).calibration)
            while rows := self._rows_after(id, watched.last):
                for row in rows:
                    watched.add(row)
            self._monitors[id] = watched
        return watched

    def _rows_after(self, id: str, last: str) -> list[InspectionRow]:
        query = (
            select(InspectionRow)
            .where(InspectionRow.model == id, InspectionRow.id > last)
            .order_by(InspectionRow.id)
            .limit(PAGE)
        )
        with self.store.reading() as session:
            return list(session.scalars(query))


class _Watched:
    """A monitor with the last inspection that it has seen."""

    def __init__(self, path: Path, calibration: Any) -> None:
        self.path, self.calibration = path, calibration
        self.monitor, self.last, self._unsaved = baseline.start(calibration), "", 0
        with suppress(OSError, ValueError, KeyError, TypeError, SnlError):
            state = json.loads(path.read_text(encoding="utf-8"))
            self.monitor, self.last = DriftMonitor.from_dict(state["monitor"]), str(state["last"])

    def add(self, row: InspectionRow) -> None:
        baseline.watch(self.monitor, self.calibration, verdict(row.result), row.id)
        self.last = max(self.last, row.id)
        self._unsaved += 1
        if self._unsaved >= EVERY:
            self.save()

    def save(self) -> None:
        state = {"last": self.last, "monitor": self.monitor.to_dict()}
        write_text(self.path, json.dumps(state) + "\n", durable=True)
        self._unsaved = 0


def verdict(result: Mapping[str, Any]) -> Verdict:
    """Return the verdict of an inspection that was stored as JSON."""
    return Verdict(**{name: result[name] for name in Verdict.__dataclass_fields__})
