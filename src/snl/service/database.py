"""The database of the store: how it is opened, and its tables brought to their newest version."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import alembic.script
from alembic.migration import MigrationContext
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from snl.dependencies import require
from snl.errors import SnlError

BUSY_SECONDS = 30
"""How long a write waits for another process that has locked an SQLite file."""
POSTGRESQL = {
    "client_encoding": "utf8",
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Parameters of connections, if the address has no others: a dead network ends them."""
_MIGRATING = 0x736E6C
"""Key of the lock that one process holds while it changes the tables."""
_alembic = threading.Lock()
"""Alembic is not made for several threads."""


class StoreError(SnlError):
    """The store cannot be read or written."""


def make_engine(url: str) -> Engine:
    """Return the engine of an address; nothing is opened yet.

    Raises:
        sqlalchemy.exc.ArgumentError, ImportError: it is not an address, or of another database.
        DependencyError: the driver of PostgreSQL is not installed.
    """
    parsed = make_url(url)
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed)
    arguments: dict[str, Any] = {}
    if parsed.drivername == "postgresql+psycopg":
        require(("psycopg",), "postgres", "A store in PostgreSQL")
        arguments = {name: value for name, value in POSTGRESQL.items() if name not in parsed.query}
    engine = create_engine(
        parsed, pool_pre_ping=True, pool_size=10, max_overflow=10, connect_args=arguments
    )
    if arguments:
        event.listen(engine, "connect", _without_nul)
    return engine


def migrate(connection: Connection) -> None:
    """Bring the tables to their newest version; of several processes, one does it.

    Raises:
        StoreError: they are of a newer one.
    """
    if connection.dialect.name == "postgresql":  # both locks hold until the commit
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
    elif connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    config = _config()
    config.attributes["connection"] = connection
    try:
        with _alembic:
            alembic.command.upgrade(config, "head")
    except alembic.util.CommandError as error:
        raise StoreError(
            f"the store was made by a newer version of snl ({error}): pip install -U snl-ad"
        ) from error
    connection.commit()


def newest_version() -> str:
    """Return the version of the tables that this snl uses."""
    return str(alembic.script.ScriptDirectory.from_config(_config()).get_current_head())


def version_of(connection: Connection) -> str | None:
    """Return the version of the tables of a database; None: it has none."""
    return MigrationContext.configure(connection).get_current_revision()


def reason(error: Exception) -> str:
    """Return the first line of an error, without the statement that failed."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    lines = str(cause).strip().splitlines()
    first = lines[0][:200] if lines else type(cause).__name__
    if isinstance(error, OperationalError) and "unable to open" in first:
        return f"{first}; check that its folder exists and can be written"
    return first


def _config() -> alembic.config.Config:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    return engine


def _without_nul(connection: Any, _: Any) -> None:
    """Let a connection replace what PostgreSQL cannot store as text, the character NUL."""
    from psycopg.adapt import Dumper

    class TextDumper(Dumper):
        oid = 25  # text

        def dump(self, obj: str) -> bytes:
            return obj.replace("\0", "\ufffd").encode("utf-8", "replace")

    connection.adapters.register_dumper(str, TextDumper)
