"""Retention: images and predictions are deleted beyond a size or an age; inspections stay.

The oldest go first. Three steps make sure that no file is deleted that somebody needs: rows are
marked as without files (`bytes` = 0) and committed; then a file is deleted only if no other row
uses it; and files that were put for rows that are not committed yet are left alone (`Blobs`).
A crash between the steps leaves files without rows, which the daily search removes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from snl.errors import SnlError
from snl.service.blobs import FOLDERS, Blobs
from snl.service.ids import first_id
from snl.service.shadow import Shadows
from snl.service.store import Store, audit
from snl.service.tables import InspectionRow, JobRow, SetImageRow, SettingRow

log = logging.getLogger("snl.service")

EVERY_SECONDS = 60
SEARCH_SECONDS = 24 * 3600
"""Time between two searches of files without rows, and how old these must be."""
BATCH = 200
"""Inspections of one transaction."""
_SETTING = "retention"
"""Name of the row of the limits."""


@dataclass(frozen=True)
class Limits:
    """How much is kept: bytes of all files, and days of each; None: any number."""

    keep_bytes: int | None = None
    keep_days: float | None = None


@dataclass(frozen=True)
class Storage:
    """What is stored, and what limits it.

    Attributes:
        files: images and predictions; None: they are being counted.
        bytes: of these.
        inspections: whose files are kept.
        oldest: time of the oldest of these.
        protected: those of these that are never deleted, because nobody has reviewed the alarm, or
            a job needs them.
        keep_bytes, keep_days: limits; None: none.
        limits_from: `configuration`, or `api`: they were set while the service ran.
        problem: why a limit cannot be met; empty: it can.
    """

    files: int | None
    bytes: int | None
    inspections: int
    oldest: datetime | None
    protected: int
    keep_bytes: int | None
    keep_days: float | None
    limits_from: str
    problem: str


class Retention:
    """Deletes what limits do not allow to keep, in a thread.

    Args:
        store, blobs: of the inspections.
        shadows: that may need their files.
        keep_bytes: of all files; None: any number.
        keep_days: age of files; None: any.

    Limits that were set with `limit` are in the store and come before these, also after a restart.
    """

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        shadows: Shadows,
        keep_bytes: int | None = None,
        keep_days: float | None = None,
    ) -> None:
        self.store, self.blobs, self.shadows = store, blobs, shadows
        self._configured = Limits(keep_bytes, keep_days)
        self._stored = self._read()
        if self._stored not in (None, self._configured):
            log.warning(
                "retention: the limits that were set through the API count, not those of the "
                "configuration; DELETE /v1/storage/limits ends that"
            )
        self._changing = threading.Lock()
        self.problem = ""
        self._searched = -float("inf")
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="snl-retention", daemon=True)

    def start(self) -> None:
        """Begin: now, and every minute."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the transaction that runs."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        return self._configured if self._stored is None else self._stored

    def limit(self, limits: Limits | None, who: str, why: str = "") -> None:
        """Change the limits at once, with an audit row; they stay after a restart.

        Args:
            limits: None: those of the configuration again.
            who, why: for the audit.
        """
        with self._changing:
            with self.store.writing() as session:
                if limits is not None:
                    now = datetime.now(UTC)
                    row = SettingRow(name=_SETTING, value=vars(limits), created=now, who=who)
                    session.merge(row)
                elif (stored := session.get(SettingRow, _SETTING)) is not None:
                    session.delete(stored)
                shown = vars(self._configured if limits is None else limits)
                action = "retention reset" if limits is None else "retention change"
                session.add(audit(who, action, "storage", {**shown, "why": why}))
            self._stored = limits
        self._wake.set()

    def _read(self) -> Limits | None:
        """Return the limits that the store has."""
        with self.store.reading() as session:
            row = session.get(SettingRow, _SETTING)
        return None if row is None else Limits(**row.value)

    def storage(self) -> Storage:
        """Return what is stored, and what limits it."""
        row, usage, limits = InspectionRow, self.blobs.usage(), self.limits
        kept = select(func.count()).where(row.bytes > 0)
        with self.store.reading() as session:
            count = session.scalars(kept).one()
            free = session.scalars(kept.where(self._is_free(session))).one()
            first = select(row.created).where(row.bytes > 0).order_by(row.id).limit(1)
            oldest = session.scalars(first).first()
        return Storage(
            None if usage is None else usage.files,
            None if usage is None else usage.bytes,
            count,
            oldest,
            count - free,
            limits.keep_bytes,
            limits.keep_days,
            "configuration" if self._stored is None else "api",
            self.problem,
        )

    def run(self) -> None:
        """Do all that is due.

        Raises:
            StoreError, OSError: it could not be done; it is tried again in the next round.
        """
        if time.monotonic() - self._searched >= SEARCH_SECONDS:
            self._search()
        with self.store.reading() as session:  # what comes meanwhile is for the next round
            newest = session.scalars(select(func.max(InspectionRow.id))).one() or ""
        limits = self.limits
        if limits.keep_days is not None:
            limit = datetime.now(UTC) - timedelta(days=limits.keep_days)
            self._meet_age(limits, min(first_id(limit), newest))
        if limits.keep_bytes is not None:
            self._meet_size(limits, limits.keep_bytes, newest)
        else:
            self.problem = ""

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self.run()
            except (SnlError, OSError) as error:
                log.warning("retention: %s", error)
            except Exception:  # the thread must live
                log.exception("retention")
            if not self._stop.is_set():
                self._wake.wait(EVERY_SECONDS)

    def _goes_on(self, limits: Limits) -> bool:
        """Return whether these limits are still to be met."""
        return not self._stop.is_set() and self.limits is limits

    def _meet_age(self, limits: Limits, last: str) -> None:
        """Delete files of inspections up to an id."""
        after = ""
        while self._goes_on(limits) and (rows := self._page(after, last)):
            after = rows[-1].id
            self._drop(rows)

    def _meet_size(self, limits: Limits, limit: int, newest: str) -> None:
        """Delete the oldest files until the rest has at most so many bytes."""
        after = ""
        while self._goes_on(limits):
            usage = self.blobs.usage()
            if usage is None or usage.bytes <= limit:
                self.problem = ""
                return
            rows = self._page(after, newest)
            if not rows:
                self._complain(usage.bytes, limit)
                return
            chosen, freed = [], 0
            for row in rows:
                if freed >= usage.bytes - limit:
                    break
                chosen.append(row)
                freed += row.bytes
            after = chosen[-1].id
            self._drop(chosen)

    def _complain(self, size: int, limit: int) -> None:
        text = (
            f"{size / 1e9:.3g} GB of images and maps are stored and {limit / 1e9:.3g} GB allowed, "
            "but nothing more may be deleted: the rest belongs to alarms that nobody has reviewed, "
            "to sets, or to what runs; review the alarms, or raise the limit"
        )
        if not self.problem:
            log.warning("retention: %s", text)
        self.problem = text

    def _page(self, after: str, last: str) -> Sequence[Any]:
        """Return the oldest inspections after an id, up to another, that may lose their files."""
        row = InspectionRow
        query = select(row.id, row.bytes).where(row.bytes > 0, row.id > after, row.id <= last)
        with self.store.reading() as session:
            query = query.where(self._is_free(session)).order_by(row.id).limit(BATCH)
            return session.execute(query).all()

    def _is_free(self, session: Session) -> ColumnElement[bool]:
        """Return the condition that files may be deleted: not of an alarm that nobody has reviewed,
        and not needed by a job that recalibrates with reviewed inspections."""
        row = InspectionRow
        free = or_(row.decision == "normal", row.review.is_not(None))
        jobs = select(JobRow).where(JobRow.state.in_(("queued", "running")))
        products = [
            job.settings.get("product") for job in session.scalars(jobs)
            if job.settings.get("reviewed")
        ]  # fmt: skip
        if products:
            free &= or_(row.review.is_(None), row.product.not_in(products))
        return free

    def _drop(self, rows: Sequence[Any]) -> None:
        """Mark inspections as without files, and delete the files that no other row uses."""
        needed = self.shadows.needed()
        ids = [row.id for row in rows if row.id not in needed]
        row = InspectionRow
        with self.store.writing() as session:
            mark = (
                update(row)
                .where(row.id.in_(ids), row.bytes > 0, self._is_free(session))
                .values(bytes=0)
                .returning(row.image, row.prediction)
                .execution_options(synchronize_session=False)
            )
            marked = session.execute(mark).all()
        deleted = sum(
            self.blobs.delete(name, self._is_used) for name in {n for pair in marked for n in pair}
        )
        if marked:
            log.info("retention: %d inspections, %d files deleted", len(marked), deleted)

    def _is_used(self, name: str) -> bool:
        """Return whether a row needs a file."""
        return bool(self._used([name]))

    def _used(self, names: Sequence[str]) -> set[str]:
        """Return the files among these that a row needs."""
        row, one = InspectionRow, SetImageRow
        queries = (
            select(row.image).where(row.image.in_(names), row.bytes > 0),
            select(row.prediction).where(row.prediction.in_(names), row.bytes > 0),
            select(one.image).where(one.image.in_(names)),
        )
        with self.store.reading() as session:
            return {name for query in queries for name in session.scalars(query.distinct())}

    def _search(self) -> None:
        """Count all files, and delete those that were left without a row."""
        limit = time.time() - SEARCH_SECONDS
        deleted = 0
        for folder in FOLDERS:
            if self._stop.is_set():
                return
            old = [one.name for one in self.blobs.entries(folder) if one.written < limit]
            for start in range(0, len(old), BATCH):
                names = old[start : start + BATCH]
                left = set(names) - self._used(names)
                deleted += sum(self.blobs.delete(name, self._is_used) for name in left)
        self._searched = time.monotonic()
        if deleted:
            log.info("retention: %d files without an inspection deleted", deleted)
