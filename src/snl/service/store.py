"""The store: a database that keeps what was acknowledged.

SQLite by default (write-ahead log, every commit on the disk before it counts), PostgreSQL by its
address. New rows are written by one thread, which commits whatever waits at once (group commit): a
request is answered after its row is on the disk, and one disk write serves many requests.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Select, func, or_, select, text, update
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as NoConnectionError
from sqlalchemy.orm import Session, sessionmaker

from snl.errors import SnlError
from snl.service.database import StoreError as StoreError
from snl.service.database import make_engine, migrate, reason
from snl.service.ids import continue_after
from snl.service.tables import AuditRow, InspectionRow, ModelRow, OutboxRow, ReviewRow, TokenRow

QUEUE_DECISIONS = {"alarm": "anomalous", "uncertain": "uncertain", "unknown": "unknown product"}
"""Decision of the queues that have a single one."""
UNUSUAL_P = 0.15
"""Normal images of at most this p-value are worth a look: a missed defect is likeliest there."""
MOST_TOGETHER = 256
"""Rows of one commit."""


class NotThereError(SnlError):
    """What a request names does not exist."""


class LastAdminError(SnlError):
    """Without this token nobody could manage the service."""


class DuplicateError(SnlError):
    """A row with the same idempotency key is there already."""


@dataclass(frozen=True)
class Filter:
    """Which inspections are listed; None or empty: any.

    Attributes:
        product, decision: their values.
        review: verdict of the last review, or `none`: not reviewed.
        since, until: times; `until` itself is not included.
        after: id of the last inspection of the page before.
        newest_first: the order.
        model: name of a model, or id of one of its versions.
        part: physical part.
        queue: what waits for a review: `open` (everything but normal images), a key of
            QUEUE_DECISIONS, or `unusual` (normal images of at most UNUSUAL_P).
        unseen: only alarms that nobody has seen or reviewed.
    """

    product: str = ""
    decision: str = ""
    review: str = ""
    since: datetime | None = None
    until: datetime | None = None
    after: str = ""
    newest_first: bool = True
    model: str = ""
    part: str = ""
    queue: str = ""
    unseen: bool = False

    def select(self) -> Select[Any]:
        """Return the query."""
        row = InspectionRow
        query = select(row).order_by(row.id.desc() if self.newest_first else row.id)
        if self.queue or self.unseen:
            query = query.where(row.review.is_(None))
        if self.queue == "unusual":
            query = query.where(row.decision == "normal", row.p_value <= UNUSUAL_P)
        elif self.queue or self.unseen:
            query = query.where(text("decision <> 'normal'"))  # as the index has it
        if self.queue in QUEUE_DECISIONS:
            query = query.where(row.decision == QUEUE_DECISIONS[self.queue])
        if self.unseen:
            query = query.where(row.seen.is_(None))
        if self.product:
            query = query.where(row.product == self.product)
        if self.decision:
            query = query.where(row.decision == self.decision)
        if self.model:
            versions = select(ModelRow.id).where(ModelRow.name == self.model)
            query = query.where(or_(row.model == self.model, row.model.in_(versions)))
        if self.part:
            query = query.where(row.part == self.part)
        if self.review:
            none = self.review == "none"
            query = query.where(row.review.is_(None) if none else row.review == self.review)
        if self.since is not None:
            query = query.where(row.created >= self.since)
        if self.until is not None:
            query = query.where(row.created < self.until)
        if self.after:
            query = query.where(row.id < self.after if self.newest_first else row.id > self.after)
        return query


class Store:
    """A database with the tables of `snl.service.tables`, brought to their newest version.

    Args:
        url: as SQLAlchemy takes it; `sqlite:///FILE` or `postgresql+psycopg://...`.

    Raises:
        StoreError: it cannot be opened.
    """

    def __init__(self, url: str) -> None:
        try:
            self.engine = make_engine(url)
            self._shown = self.engine.url.render_as_string(hide_password=True)
            with self.engine.connect() as connection:
                migrate(connection)
        except (ArgumentError, DBAPIError, ImportError) as error:
            raise StoreError(f"the store cannot be opened: {reason(error)}") from error
        self._session = sessionmaker(self.engine, expire_on_commit=False)
        with self.reading() as session:
            if (newest := session.scalar(select(func.max(InspectionRow.id)))) is not None:
                continue_after(newest)
        self.events_of: Callable[[InspectionRow], Sequence[OutboxRow]] = lambda row: ()
        """Returns the events of an inspection, which are stored in the same transaction."""
        self.changed: Callable[[str, str], None] = lambda kind, id: None
        """Called after a change with an audit row: the first word of its action, and subject."""
        self._waiting: queue.Queue[tuple[InspectionRow, Future[None]] | None] = queue.Queue()
        self._writer = threading.Thread(target=self._write, name="snl-store", daemon=True)
        self._writer.start()

    def __repr__(self) -> str:
        return f"Store({self._shown})"

    # --- inspections ---

    def add(self, row: InspectionRow) -> Future[None]:
        """Write an inspection; the future is done when it is on the disk.

        It fails with `DuplicateError`, or with `StoreError` where nothing was written.
        """
        future: Future[None] = Future()
        self._waiting.put((row, future))
        return future

    def inspection(self, id: str) -> InspectionRow | None:
        """Return an inspection; None: there is none."""
        with self.reading() as session:
            return session.get(InspectionRow, id)

    def by_key(self, key: str) -> InspectionRow | None:
        """Return the inspection of an idempotency key; None: there is none."""
        with self.reading() as session:
            query = select(InspectionRow).where(InspectionRow.idempotency_key == key)
            return session.scalars(query).one_or_none()

    def list(self, which: Filter, most: int) -> Sequence[InspectionRow]:
        """Return at most `most` inspections."""
        with self.reading() as session:
            return session.scalars(which.select().limit(most)).all()

    def counts(self, since: datetime | None = None) -> dict[tuple[str, str], int]:
        """Return the number of inspections by product and decision."""
        row = InspectionRow
        query = select(row.product, row.decision, func.count()).group_by(row.product, row.decision)
        if since is not None:
            query = query.where(row.created >= since)
        with self.reading() as session:
            found = session.execute(query).all()
            return {(product, decision): count for product, decision, count in found}

    # --- reviews ---

    def review(self, review: ReviewRow) -> bool:
        """Add a review, with an audit row; False: there is no such inspection."""
        with self.writing() as session:
            row = session.get(InspectionRow, review.inspection)
            if row is None:
                return False
            row.review = review.verdict
            row.seen = row.seen or review.created
            details = {"verdict": review.verdict, "note": review.note}
            session.add_all([review, audit(review.who, "review", review.inspection, details)])
            return True

    def undo_review(self, inspection: str, who: str) -> ReviewRow | None:
        """Withdraw the last review that is in force, with an audit row.

        It stays in the history.

        Returns:
            The review that was withdrawn; None: there is none.
        """
        with self.writing() as session:
            row = session.get(InspectionRow, inspection)
            query = select(ReviewRow).where(
                ReviewRow.inspection == inspection, ReviewRow.withdrawn.is_(None)
            )
            valid = session.scalars(query.order_by(ReviewRow.id)).all()
            if row is None or not valid:
                return None
            row.review = valid[-2].verdict if len(valid) > 1 else None
            valid[-1].withdrawn = datetime.now(UTC)
            details = {"verdict": valid[-1].verdict, "by": valid[-1].who}
            session.add(audit(who, "review undo", inspection, details))
            return valid[-1]

    def see(self, ids: Sequence[str], who: str) -> int:
        """Remember that somebody has seen alarms, with an audit row; return how many are new."""
        row = InspectionRow
        with self.writing() as session:
            query = update(row).where(row.id.in_(ids), row.seen.is_(None))
            count = int(session.execute(query.values(seen=datetime.now(UTC))).rowcount)  # type: ignore[attr-defined]
            if count:
                session.add(audit(who, "seen", ids[0], {"inspections": count}))
            return count

    def reviews(self, inspection: str) -> Sequence[ReviewRow]:
        """Return the reviews of an inspection, oldest first."""
        with self.reading() as session:
            query = select(ReviewRow).where(ReviewRow.inspection == inspection)
            return session.scalars(query.order_by(ReviewRow.id)).all()

    def audits(self, after: int, most: int) -> Sequence[AuditRow]:
        """Return at most `most` audit rows, newest first, before the row `after` (0: all)."""
        query = select(AuditRow).order_by(AuditRow.id.desc()).limit(most)
        if after:
            query = query.where(AuditRow.id < after)
        with self.reading() as session:
            return session.scalars(query).all()

    # --- tokens ---

    def tokens(self) -> Sequence[TokenRow]:
        """Return all tokens, oldest first."""
        with self.reading() as session:
            return session.scalars(select(TokenRow).order_by(TokenRow.created)).all()

    def token(self, id: str) -> TokenRow | None:
        """Return a token; None: there is none."""
        with self.reading() as session:
            return session.get(TokenRow, id)

    def add_token(self, token: TokenRow, who: str) -> None:
        """Add a token, with an audit row."""
        with self.writing() as session:
            details = {"name": token.name, "role": token.role}
            session.add_all([token, audit(who, "token create", token.id, details)])

    def revoke(self, id: str, who: str, *, keep_admin: bool = False) -> bool:
        """Revoke a token, with an audit row; False: there is none, or it was revoked before.

        Args:
            id: of the token.
            who: revokes it.
            keep_admin: refuse to revoke the last one with the role admin.

        Raises:
            LastAdminError: it is the last one.
        """
        admins = select(TokenRow.id).where(TokenRow.role == "admin", TokenRow.revoked.is_(None))
        with self.writing() as session:
            # two requests that revoke one another's: here the second one waits (PostgreSQL)
            session.execute(admins.order_by(TokenRow.id).with_for_update())
            token = session.get(TokenRow, id)
            if token is None or token.revoked is not None:
                return False
            token.revoked = datetime.now(UTC)
            session.add(audit(who, "token revoke", id, {"name": token.name}))
            session.flush()  # here it waits with SQLite
            if keep_admin and token.role == "admin" and session.scalars(admins).first() is None:
                raise LastAdminError(
                    "this is the last token with the role admin, and nobody could manage the "
                    "service without it; create another one first"
                )
            return True

    # --- the database itself ---

    def check(self) -> None:
        """Check that the store can be read.

        Raises:
            StoreError: it cannot.
        """
        with self.reading() as session:
            session.execute(select(1))

    def close(self) -> None:
        """Write what waits, and close the database."""
        self._waiting.put(None)
        self._writer.join()
        self.engine.dispose()

    def _write(self) -> None:
        """Commit what waits, until `close`."""
        while (first := self._waiting.get()) is not None:
            group, last = [first], False
            while len(group) < MOST_TOGETHER:
                try:
                    more = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                    break
                group.append(more)
            self._commit(group)
            if last:
                return

    def _commit(self, group: Sequence[tuple[InspectionRow, Future[None]]]) -> None:
        """Write a group in one transaction; if that fails, each of its rows on its own."""
        try:
            with self.writing() as session:
                for row, _ in group:
                    session.add_all([row, *self.events_of(row)])
        except Exception as error:  # the thread must live, and every request gets an answer
            if len(group) > 1:
                for one in group:
                    self._commit([one])
                return
            self._settle(*group[0], error)
            return
        for _, future in group:
            future.set_result(None)

    def _settle(self, row: InspectionRow, future: Future[None], error: Exception) -> None:
        """Complete the future of a row whose commit failed, or lost its connection at the end."""
        with suppress(StoreError):
            if self.inspection(row.id) is not None:
                future.set_result(None)
                return
        if isinstance(error.__cause__, IntegrityError):
            error = DuplicateError("an inspection with this idempotency key exists")
        future.set_exception(error)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session for queries.

        Raises:
            StoreError: the database cannot be used now.
        """
        with _explained(), self._session() as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Yield a session whose changes are committed with the block, or not at all.

        Raises:
            StoreError: the database cannot be used now, or refuses a change.
        """
        changes: list[tuple[str, str]] = []
        with _explained(), self._session.begin() as session:
            yield session
            changes += [
                (row.action.split()[0], row.subject)
                for row in session.new
                if isinstance(row, AuditRow)
            ]
        for change in changes:
            self.changed(*change)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn an error of the database into a StoreError."""
    try:
        yield
    except (DBAPIError, NoConnectionError) as error:
        raise StoreError(f"the store cannot be used now: {reason(error)}") from error


def audit(who: str, action: str, subject: str, details: dict[str, Any] | None = None) -> AuditRow:
    """Return an audit row of this moment."""
    return AuditRow(
        created=datetime.now(UTC), who=who, action=action, subject=subject, details=details or {}
    )


def sqlite_url(folder: Path) -> str:
    """Return the address of the SQLite file in a folder."""
    return f"sqlite:///{folder / 'snl.db'}"
