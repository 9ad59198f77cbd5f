"""Restore a service from a backup, all of it or nothing, and check backups."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Integer, Table, func, insert, select, text
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError

from snl.errors import SnlError
from snl.files import not_writable
from snl.locks import locked
from snl.service import archive
from snl.service.archive import Manifest, damaged
from snl.service.database import StoreError, make_engine, migrate, reason
from snl.service.store import sqlite_url
from snl.service.tables import Base
from snl.service.unpack import Progress, Unpacked, unpack
from snl.signals import deferred
from snl.temporary import temporary_folder

ROWS = 1000
"""Rows that are inserted at a time."""
_WRONG = (IntegrityError, DataError)
"""Errors of a database that refuses a row."""
_IGNORED = ("lost+found",)
"""What an empty file system has."""


def check(backup: Path, progress: Progress | None = None) -> Manifest:
    """Read a whole backup, and return what it has.

    Args:
        backup: file or folder.
        progress: is called with the files that are done, and all.

    Raises:
        SnlError: it is damaged, not complete, of a newer snl, or no backup.
    """
    with tempfile.TemporaryDirectory(prefix="snl-check-") as folder:
        unpacked = unpack(backup, Path(folder), None, progress)
        for name, table in archive.TABLES.items():
            rows = archive.read_rows(unpacked.tables / name, table, backup)
            unpacked.check_count(table.name, sum(1 for _ in rows))
    return unpacked.manifest


def restore(
    backup: Path, data: Path, url: str | None = None, progress: Progress | None = None
) -> Manifest:
    """Make a service from a backup; if it fails or is interrupted, nothing was made.

    Args:
        backup: file or folder; of a folder with several backups, the newest, or one of its
            `tables-` folders.
        data: folder of the new service; missing or empty.
        url: of its store, if it is not to be in the folder; empty. The store that was backed up may
            have been of another kind.
        progress: is called with the files that are done, and all.

    Raises:
        SnlError: the backup is damaged, not complete, of a newer snl, or no backup; or the folder
            or the store is not empty or cannot be written.
    """
    if not backup.exists():
        raise archive.not_ours(backup)
    is_new = not data.exists()
    try:
        with locked(data, "snl serve uses this folder; stop it, or give another --data"):
            data.mkdir(parents=True, exist_ok=True)
            try:
                with temporary_folder("restore", data) as work:
                    return _restore(backup, data, work, url, progress)
            except BaseException:
                if is_new:
                    with suppress(OSError):
                        data.rmdir()
                raise
    except OSError as error:
        raise not_writable(data, error) from error


def _restore(
    backup: Path, data: Path, work: Path, url: str | None, progress: Progress | None
) -> Manifest:
    left = [path for path in data.iterdir() if path != work and path.name not in _IGNORED]
    if left:
        raise SnlError(f"{data}: is not empty (it has {left[0].name}); give a new or empty --data")
    new = work / "new"
    new.mkdir()
    with _opened(url or sqlite_url(new)) as engine:
        with engine.connect() as connection:
            _check_empty(connection)
        unpacked = unpack(backup, work, new, progress)
        if (drift := unpacked.tables / "drift").is_dir():
            shutil.copytree(drift, new / "drift")
        with engine.connect() as connection:
            _load(connection, unpacked)
            with deferred(), _moving(new, data) as move:
                if url is not None:
                    move()
                connection.commit()
                if url is None:  # with the database, when it is closed
                    connection.close()
                    engine.dispose()
                    move()
    return unpacked.manifest


@contextmanager
def _moving(new: Path, data: Path) -> Iterator[Callable[[], None]]:
    """Yield a function that moves all files to their place; if the block fails, they go back."""
    moved: list[Path] = []

    def move() -> None:
        if hasattr(os, "sync"):
            os.sync()  # one for all files
        for path in sorted(new.iterdir()):  # the database, snl.db, is the last one
            target = data / path.name
            path.rename(target)
            moved.append(target)

    try:
        yield move
    except BaseException:
        for path in reversed(moved):
            path.rename(new / path.name)
        raise


# --- the database ---


@contextmanager
def _opened(url: str) -> Iterator[Engine]:
    """Yield the engine of a store with the newest tables.

    Raises:
        StoreError: it cannot be used.
    """
    try:
        engine = make_engine(url)
        try:
            with engine.connect() as connection:
                migrate(connection)
            yield engine
        finally:
            engine.dispose()
    except (ArgumentError, DBAPIError, ImportError) as error:
        raise StoreError(f"the new store cannot be used: {reason(error)}") from error


def _check_empty(connection: Connection) -> None:
    """Check that no table has a row.

    Raises:
        StoreError: one has.
    """
    for table in Base.metadata.sorted_tables:
        if connection.execute(select(text("1")).select_from(table).limit(1)).first() is not None:
            raise StoreError(
                f"the store is not empty (the table {table.name} has rows); give an empty --store"
            )


def _load(connection: Connection, unpacked: Unpacked) -> None:
    """Insert all rows.

    Raises:
        SnlError: the backup is damaged, or the store is not empty.
    """
    tables, postgresql = archive.TABLES, connection.dialect.name == "postgresql"
    if postgresql:  # a server that already uses the store waits
        names = ", ".join(table.name for table in tables.values())
        connection.exec_driver_sql(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
        _check_empty(connection)
    for name, table in tables.items():
        rows, count = archive.read_rows(unpacked.tables / name, table, unpacked.shown), 0
        while batch := [_fitted(row, table, unpacked) for row in islice(rows, ROWS)]:
            count += len(batch)
            try:
                connection.execute(insert(table), batch)
            except _WRONG as error:
                why = f"the table {table.name} has rows that are not possible"
                raise damaged(unpacked.shown, why) from error
        unpacked.check_count(table.name, count)
        for column in table.primary_key.columns if postgresql else ():
            if isinstance(column.type, Integer):  # the next row gets the next number
                sequence = func.pg_get_serial_sequence(table.name, column.name)
                if connection.scalar(select(sequence)) is not None:
                    last = select(func.max(column)).scalar_subquery()
                    connection.execute(
                        select(func.setval(sequence, func.coalesce(last, 1), last.is_not(None)))
                    )


def _fitted(row: dict[str, Any], table: Table, unpacked: Unpacked) -> dict[str, Any]:
    """Return a row as it is inserted: without files that the backup does not have.

    Raises:
        SnlError: it is not possible.
    """
    if table.name == "inspections":
        names = {str(row["image"]), str(row["prediction"])}
        if not names.isdisjoint(unpacked.manifest.absent):
            row["bytes"] = 0
    if table.name == "models" and not archive.MODEL.fullmatch(str(row["file"])):
        raise damaged(unpacked.shown, "a model has no possible name of a file")
    return row
