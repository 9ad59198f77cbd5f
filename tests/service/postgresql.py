"""A private PostgreSQL cluster: its own folder, no network, fsync on."""

from __future__ import annotations

import ctypes
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


def programs() -> Path | None:
    """The folder of initdb and postgres; None: they are not installed."""
    found = [Path(path).parent for path in (shutil.which("initdb"), shutil.which("pg_ctl")) if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((one for one in found if all((one / n).exists() for n in NEEDED)), None)


NEEDED = ("initdb", "postgres")


class Cluster:
    """A cluster that runs until `close`.

    Args:
        binaries: folder of the programs.
    """

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self.folder = Path(tempfile.mkdtemp(prefix="snl-pg-"))
        self.folder.chmod(0o755)
        self._user: dict[str, Any] = {"cwd": "/"}
        if os.geteuid() == 0:  # initdb refuses the administrator
            user = next(u for u in map(_user, ("postgres", "nobody")) if u is not None)
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._user |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()
        self._shared: str | None = None
        subprocess.run(
            [binaries / "initdb", "-D", self.folder / "data", "-A", "trust", "-U", "snl",
             "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True, capture_output=True, **self._user,
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        """Start the server, and wait for it."""
        settings = {
            "listen_addresses": "", "fsync": "on", "max_connections": "80",
            "recovery_init_sync_method": "syncfs",
        }  # fmt: skip
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self.folder / "data", "-k", self.folder,
                 *words],
                stdout=log, stderr=log, preexec_fn=_end_with_parent, **self._user,
            )  # fmt: skip
        end = time.monotonic() + 120
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                assert time.monotonic() < end, (self.folder / "log").read_text()
                time.sleep(0.02)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `fast`, or `immediate`, as after a crash."""
        if self._process is not None:
            self._process.send_signal(SIGNALS[mode])
            self._process.wait(30)
            self._process = None

    def close(self) -> None:
        """Stop the server and delete everything."""
        self.stop("immediate")
        shutil.rmtree(self.folder)

    def database(self) -> str:
        """Create a database and return its address for SQLAlchemy."""
        name = f"db{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://snl@/{name}?host={self.folder}"

    def emptied(self) -> str:
        """Return the address of a database whose tables are empty; faster than a new one."""
        if self._shared is None:
            self._shared = self.database()
        name = self._shared.partition("?")[0].rpartition("/")[2]
        found = self.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", name)
        tables = [table for (table,) in found if table != "alembic_version"]
        if tables:
            self.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY", name)
        return self._shared

    def execute(self, query: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a query without snl."""
        with psycopg.connect(
            host=str(self.folder), user="snl", dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(query)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []


def _end_with_parent() -> None:
    """Let the system end this process when the one that started it has ended, however."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, SIGNALS["immediate"])  # PR_SET_PDEATHSIG


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None
