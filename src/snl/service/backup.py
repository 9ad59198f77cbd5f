"""Back up a service while it runs: one snapshot of all tables, and the files they refer to.

Files are never changed, and a file is deleted only after its rows say so: a file that is missing
when it is copied was deleted by the retention since the snapshot, which is noted.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from sqlalchemy import Connection, select, union
from sqlalchemy.exc import ArgumentError, DBAPIError

from snl import __version__
from snl.errors import SnlError
from snl.files import atomic, is_device, not_writable
from snl.locks import locked
from snl.service import archive
from snl.service.archive import Manifest
from snl.service.blobs import blob_path
from snl.service.database import StoreError, make_engine, newest_version, reason, version_of
from snl.service.store import sqlite_url
from snl.service.tables import InspectionRow, ModelRow, SetImageRow
from snl.temporary import temporary_folder

Progress = Callable[[int, int], None]
ROWS = 500
"""Rows that are read from the database at a time."""
_PIECE = 2**16
"""Bytes that a stream gets at a time."""


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        manifest: of the backup.
        copied: files that were not there before.
    """

    manifest: Manifest
    copied: int

    def absent(self, why: str) -> int:
        """Return how many files are not in the backup because they were `deleted` or `damaged`."""
        return sum(one == why for one in self.manifest.absent.values())


def back_up(
    target: Path, data: Path, url: str | None = None, progress: Progress | None = None
) -> Report:
    """Write a backup of a service, which may run; an earlier one is replaced as a whole, or stays.

    Args:
        target: a new or earlier file that ends in `.snlbackup`, or a folder. In a folder, files
            that are there already are not copied again, and earlier backups stay.
        data: folder of the service.
        url: of its store, if it is not in the folder.
        progress: is called with the files that are done, and all.

    Raises:
        StoreError: the store cannot be read, or has tables of another version.
        SnlError: there is no service in the folder, or the target cannot be written.
    """
    if not data.is_dir() or (url is None and not (data / "snl.db").is_file()):
        raise SnlError(f"{data}: holds no service; give the --data (and --store) of snl serve")
    if data.resolve() in (target.resolve(), *target.resolve().parents):
        raise SnlError(f"{target}: is inside of {data} and would be lost with it; choose another")
    is_file = _check_target(target)
    try:
        with ExitStack() as stack:
            if is_file:
                target.parent.mkdir(parents=True, exist_ok=True)
                work = stack.enter_context(temporary_folder("snl-backup", target.parent))
            else:
                target.mkdir(parents=True, exist_ok=True)
                busy = "another snl backup writes to this folder; wait for it"
                stack.enter_context(locked(target / "backup", busy))
                work = stack.enter_context(temporary_folder("tables", target))
            manifest = _dump(data, url, work)
            if is_file:
                with atomic(target, durable=True) as temporary:
                    if not target.exists():
                        temporary.chmod(0o600)  # tables have settings of sinks, and reviews
                    with tarfile.open(temporary, "w") as tar:
                        return _fill(_Tar(tar, manifest), data, work, manifest, progress)
            report = _fill(_Folder(target), data, work, manifest, progress)
            if hasattr(os, "sync"):
                os.sync()  # one for all files
            work.rename(target / f"tables-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}")
            return report
    except OSError as error:
        raise not_writable(target, error) from error


def write_backup(stream: BinaryIO, data: Path, url: str | None = None) -> Report:
    """Write a backup of a service, which may run, to a stream: the file that `back_up` makes.

    Only the tables need room, in a temporary folder inside of `data`; little memory is used.

    Args:
        stream: it is only written, from the begin to the end.
        data: folder of the service.
        url: of its store, if it is not in the folder.

    Raises:
        StoreError: the store cannot be read, or has tables of another version.
        SnlError: a file of the service cannot be read.
        OSError: of the stream, or the disk is full.
    """
    with temporary_folder("backup", data) as work:
        manifest = _dump(data, url, work)
        with tarfile.open(fileobj=stream, mode="w|", bufsize=_PIECE) as tar:
            return _fill(_Tar(tar, manifest), data, work, manifest, None)


def _check_target(target: Path) -> bool:
    """Return whether the backup is one file.

    Raises:
        SnlError: something else is there.
    """
    if target.is_dir():
        inside = {path.name for path in target.iterdir() if not path.name.startswith(".")}
        ours = {"files", "models"}
        if any(name not in ours and not name.startswith("tables-") for name in inside):
            raise SnlError(f"{target}: holds other files; give a new or empty folder")
        return False
    if not target.exists():
        return target.suffix == archive.SUFFIX
    if is_device(target) or target.suffix != archive.SUFFIX:
        raise SnlError(f"{target}: give a folder, or the name of a file with {archive.SUFFIX}")
    if target.stat().st_size:
        try:
            with tarfile.open(target, "r:") as tar:
                first = tar.next()
        except (OSError, tarfile.TarError):
            first = None
        if first is None or first.name != archive.ABOUT:
            raise SnlError(f"{target}: is another file, not a backup; choose another name")
    return True


# --- tables ---


def _dump(data: Path, url: str | None, work: Path) -> Manifest:
    """Write all tables, and the names of the files they refer to, as of one moment.

    Raises:
        StoreError: they cannot be read, or are of another version.
    """
    drift = work / "drift"
    drift.mkdir()
    for path in sorted((data / "drift").glob("*.json")):  # before the tables: it can only lag
        if archive.DRIFT.fullmatch(path.name):
            shutil.copyfile(path, drift / path.name)
    rows = {}
    try:
        with _snapshot(url or sqlite_url(data)) as connection:
            created = datetime.now(UTC)
            if (version := version_of(connection)) != newest_version():
                raise StoreError(
                    "the store has tables of another version; start snl serve of this version once"
                )
            for name, table in archive.TABLES.items():
                query = select(table).order_by(*table.primary_key.columns)
                found = connection.execution_options(yield_per=ROWS).execute(query).mappings()
                rows[table.name] = archive.write_rows(work / name, table, found)
            archive.write_names(work / archive.NAMES, _names(connection))
            database = connection.dialect.name
    except (ArgumentError, DBAPIError, ImportError) as error:
        raise StoreError(f"the store cannot be read: {reason(error)}") from error
    files = sorted(path for path in work.rglob("*") if path.is_file())
    return Manifest(
        snl=__version__,
        tables_version=version,
        created=created.isoformat(timespec="seconds"),
        database=database,
        rows=rows,
        sha256={f"tables/{one.relative_to(work).as_posix()}": archive.sha256_of(one)
                for one in files},
    )  # fmt: skip


@contextmanager
def _snapshot(url: str) -> Iterator[Connection]:
    """Yield a connection that sees the store as of its first query."""
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN")  # the driver begins only before changes
            else:
                connection = connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            yield connection
    finally:
        engine.dispose()


def _names(connection: Connection) -> Iterator[str]:
    """Yield the names of all files that rows refer to, each once."""
    row = InspectionRow
    names = union(
        select(row.image.label("name")).where(row.bytes > 0),
        select(row.prediction).where(row.bytes > 0),
        select(SetImageRow.image),
    )
    query = names.order_by("name")
    yield from connection.execution_options(yield_per=ROWS).execute(query).scalars()


# --- files ---


class _Target(Protocol):
    """Where a backup is written."""

    def has(self, path: str, size: int | None) -> int | None:
        """Return the bytes of a file that is there already; None: it is to be added.

        Args:
            path: in the backup.
            size: of the source in bytes; None: the source is gone.
        """

    def add(self, path: str, source: Path | bytes) -> None:
        """Add a file."""

    def finish(self, work: Path, manifest: Manifest) -> None:
        """Add the manifest."""


def _fill(
    target: _Target, data: Path, work: Path, manifest: Manifest, progress: Progress | None
) -> Report:
    """Write all files, and the manifest at the end."""
    for path in manifest.sha256:
        target.add(path, work / path.removeprefix("tables/"))
    copy = _Copy(target)
    copy.models(data / "models", work)
    shown = work / archive.NAMES
    total = sum(1 for _ in archive.read_names(shown, shown))
    for done, name in enumerate(archive.read_names(shown, shown), 1):
        copy.blob(data / "files", name)
        if progress is not None:
            progress(done, total)
    manifest = replace(
        manifest,
        sha256={**manifest.sha256, **copy.sha256},
        files=copy.files,
        size=copy.size,
        absent=copy.absent,
    )
    target.finish(work, manifest)
    return Report(manifest, copy.copied)


@dataclass
class _Copy:
    """Copies files to a target, and counts them."""

    target: _Target
    files: int = 0
    size: int = 0
    copied: int = 0
    sha256: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def models(self, folder: Path, work: Path) -> None:
        """Copy the files of all versions of models."""
        name = f"{ModelRow.__tablename__}.jsonl.gz"
        rows = archive.read_rows(work / name, archive.TABLES[name], work)
        names = {str(row["file"]) for row in rows}
        names |= {f"{name[:-4]}.bin" for name in names if name.endswith(".xml")}
        for name in sorted(filter(archive.MODEL.fullmatch, names)):
            path = folder / name
            try:
                size = path.stat().st_size
                self.sha256[f"models/{name}"] = archive.sha256_of(path)
            except FileNotFoundError:
                self.absent[name] = "missing"
                continue
            except OSError as error:
                raise _not_readable(path, error) from error
            if self.target.has(f"models/{name}", size) is None:
                self.target.add(f"models/{name}", path)

    def blob(self, folder: Path, name: str) -> None:
        """Copy an image or a prediction."""
        try:
            source = blob_path(folder, name)
        except ValueError:
            self.absent[name] = "damaged"
            return
        inside = f"files/{name[:2]}/{name[2:4]}/{name}"
        try:
            size: int | None = source.stat().st_size
        except FileNotFoundError:
            size = None
        there = self.target.has(inside, size)
        if there is None:
            try:
                content = source.read_bytes()
            except FileNotFoundError:
                self.absent[name] = "deleted"
                return
            except OSError as error:
                raise _not_readable(source, error) from error
            if hashlib.sha256(content).hexdigest() != name:
                self.absent[name] = "damaged"
                return
            self.target.add(inside, content)
            self.copied += 1
            there = len(content)
        self.files += 1
        self.size += there


def _not_readable(path: Path, error: OSError) -> SnlError:
    return SnlError(f"{path}: cannot be read ({error.strerror or error}); check its disk")


class _Tar:
    """A tar file."""

    def __init__(self, tar: tarfile.TarFile, manifest: Manifest) -> None:
        self._tar = tar
        self._time = datetime.fromisoformat(manifest.created).timestamp()
        self.add(archive.ABOUT, manifest.about().encode())

    def has(self, path: str, size: int | None) -> int | None:
        """Return None: the file is new."""
        return None

    def add(self, path: str, source: Path | bytes) -> None:
        """Add a file."""
        info = tarfile.TarInfo(path)
        info.mode, info.mtime = 0o600, self._time
        if isinstance(source, bytes):
            info.size = len(source)
            self._tar.addfile(info, io.BytesIO(source))
        else:
            with source.open("rb") as file:
                info.size = os.fstat(file.fileno()).st_size
                self._tar.addfile(info, file)
        self._tar.members.clear()  # type: ignore[attr-defined]  # it would list all in memory

    def finish(self, work: Path, manifest: Manifest) -> None:
        """Add the manifest."""
        self.add(archive.MANIFEST, manifest.to_json().encode())


class _Folder:
    """A folder that several backups share. The tables are in it already."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, path: str, size: int | None) -> int | None:
        """Return the bytes of a complete file that an earlier backup has."""
        target = self._folder / path
        try:
            found = target.stat().st_size
        except FileNotFoundError:
            return None
        # otherwise the source or the copy is damaged
        is_good = size in (None, found) or archive.sha256_of(target) == target.name
        return found if is_good else None

    def add(self, path: str, source: Path | bytes) -> None:
        """Add a file of `models` or `files`; it is complete, or not there."""
        if path.startswith("tables/"):
            return
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.part")
        if isinstance(source, bytes):
            temporary.write_bytes(source)
        else:
            shutil.copyfile(source, temporary)
        temporary.replace(target)

    def finish(self, work: Path, manifest: Manifest) -> None:
        """Add the manifest to the tables."""
        (work / archive.MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
