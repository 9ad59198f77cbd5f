"""Sources for tests: a real service, and a stand-in whose inspections fail as a test wants."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from snl.errors import ImageError
from snl.service.policy import Policy
from snl.service.service import Service
from snl.service.sources import folder, runner
from snl.service.sources.manager import Sources
from snl.service.store import Store
from snl.service.tables import AuditRow, InspectionRow
from snl.service.upload import Upload
from tests.service.receivers import inspection_row


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits between attempts."""
    monkeypatch.setattr(runner, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(runner, "MOST_SECONDS", 0.4)
    monkeypatch.setattr(folder, "PATIENCE_SECONDS", 0.6)


class Inspect:
    """Stands for `Service.inspect` with a real store: whatever is not text is an image.

    Attributes:
        errors: raised by the next inspections, one each.
        during: called while an image is inspected.
        seen: uploads, in their order.
        hold: cleared: inspections wait for it.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.errors: list[Exception] = []
        self.during = lambda: None
        self.seen: list[Upload] = []
        self.hold = threading.Event()
        self.hold.set()

    def __call__(self, upload: Upload) -> InspectionRow:
        self.seen.append(upload)
        self.during()
        self.hold.wait(20)
        if self.errors:
            raise self.errors.pop(0)
        if not upload.content or upload.content.isascii():
            raise ImageError("this is no image")
        row = inspection_row(
            idempotency_key=upload.key, client=upload.client, name=upload.name, part=upload.part,
            product=upload.product or "bolt", image=hashlib.sha256(upload.content).hexdigest(),
        )  # fmt: skip
        self.store.add(row).result()
        return row


@contextmanager
def running(
    service: Service, configured: Mapping[str, Mapping[str, Any]], inspect: Any = None
) -> Iterator[Sources]:
    """Run sources of a service for the block."""
    inspect = inspect or service.inspect
    sources = Sources(service.store, service.models, inspect, configured, Policy())
    sources.start()
    try:
        yield sources
    finally:
        sources.close()


def rows(store: Store, source: str) -> list[InspectionRow]:
    """Return the inspections of a source, oldest first."""
    query = select(InspectionRow).where(InspectionRow.client == f"source:{source}")
    with store.reading() as session:
        return list(session.scalars(query.order_by(InspectionRow.id)))


def names(store: Store, source: str) -> list[str]:
    """Return the names of the images of a source, sorted."""
    return sorted(row.name for row in rows(store, source))


def actions(store: Store, subject: str) -> list[str]:
    """Return the audited actions on a source, oldest first."""
    query = select(AuditRow).where(AuditRow.subject == subject).order_by(AuditRow.id)
    with store.reading() as session:
        return [row.action for row in session.scalars(query)]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
