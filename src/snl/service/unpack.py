"""Read a backup: every file is checked against its checksum, and copied where it is wanted."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from snl.errors import SnlError
from snl.service import archive
from snl.service.archive import Manifest, damaged
from snl.service.database import newest_version

Progress = Callable[[int, int], None]
_FILES = re.compile(r"files/[0-9a-f]{2}/[0-9a-f]{2}/(?P<name>[0-9a-f]{64})")


@dataclass
class Unpacked:
    """A backup whose files were read and whose checksums are right.

    Attributes:
        shown: the backup, for messages.
        tables: folder of the tables.
        manifest: of the backup.
    """

    shown: Path
    tables: Path
    manifest: Manifest

    def check_count(self, table: str, count: int) -> None:
        """Check the number of rows of a table.

        Raises:
            SnlError: it differs from the manifest's.
        """
        if self.manifest.rows.get(table) != count:
            raise damaged(self.shown, f"the table {table} has another number of rows")


def unpack(backup: Path, work: Path, new: Path | None, progress: Progress | None) -> Unpacked:
    """Read a backup, and copy its files.

    Args:
        backup: file or folder.
        work: temporary folder, for tables.
        new: gets the folders `models` and `files`; None: they are only read.
        progress: is called with the files that are done, and all.

    Raises:
        SnlError: it is damaged, not complete, of a newer snl, or no backup.
        OSError: files cannot be written.
    """
    if backup.is_dir():
        return _unpack_folder(backup, new, progress)
    if not backup.is_file():
        raise archive.not_ours(backup)
    try:
        backup.open("rb").close()
    except OSError as error:
        raise SnlError(f"{backup}: cannot be read ({error.strerror})") from error
    return _unpack_tar(backup, work, new, progress)


@dataclass
class _Reading:
    """Counts and checks what was read."""

    shown: Path
    progress: Progress | None
    files: int = 0
    size: int = 0
    total: int = 0
    sha256: dict[str, str] = field(default_factory=dict)

    def take(self, path: str, source: IO[bytes], target: Path | None) -> None:
        """Read a file of the backup, and copy it if it has a target.

        Raises:
            SnlError: it is damaged.
        """
        if target is None:
            digest, size = archive.copy(source, None)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                digest, size = archive.copy(source, file)
        if (blob := _FILES.fullmatch(path)) is None:
            self.sha256[path] = digest
            return
        if digest != blob["name"]:
            raise damaged(self.shown, f"the content of {path} has changed")
        self.files += 1
        self.size += size
        if self.progress is not None:
            self.progress(self.files, self.total)

    def check(self, manifest: Manifest, absent: set[str]) -> None:
        """Check what was read against the manifest.

        Raises:
            SnlError: the backup is damaged or not complete.
        """
        needed = {f"tables/{name}" for name in (*archive.TABLES, archive.NAMES)}
        wrong = sorted(
            path for path in {*manifest.sha256, *self.sha256, *needed}
            if self.sha256.get(path) is None or manifest.sha256.get(path) != self.sha256[path]
        )  # fmt: skip
        if wrong:
            raise damaged(self.shown, f"{wrong[0]} is missing or has changed")
        if not absent <= manifest.absent.keys():
            missing = min(absent - manifest.absent.keys())
            raise damaged(self.shown, f"the file {missing} is missing")
        if (self.files, self.size) != (manifest.files, manifest.size):
            raise damaged(self.shown, "it has another number of files than it says")
        if self.progress is not None and self.files < self.total:
            self.progress(self.total, self.total)


def _check_versions(manifest: Manifest, shown: Path) -> None:
    if manifest.tables_version != newest_version():
        raise SnlError(
            f"{shown}: the backup has tables of another version; restore it with snl "
            f"{manifest.snl}, and then update"
        )


def _unpack_folder(backup: Path, new: Path | None, progress: Progress | None) -> Unpacked:
    """See `unpack`."""
    tables = backup
    if not (backup / archive.MANIFEST).is_file():
        found = sorted(path.parent for path in backup.glob(f"tables-*/{archive.MANIFEST}"))
        if not found:
            raise archive.not_ours(backup)
        tables = found[-1]
    manifest = Manifest.read((tables / archive.MANIFEST).read_bytes(), tables)
    _check_versions(manifest, tables)
    reading = _Reading(tables, progress, total=manifest.files)
    root, absent = tables.parent, set[str]()
    for path in manifest.sha256:
        kind = _kind(path)
        if kind is None:
            raise damaged(tables, f"{path[:80]} does not belong to a backup")
        source = tables / path.removeprefix("tables/") if kind == "tables" else root / path
        target = new / path if new is not None and kind == "models" else None
        if not _take(reading, path, source, target):
            raise damaged(tables, f"{path} is missing")
    for name in archive.read_names(tables / archive.NAMES, tables):
        path = f"files/{name[:2]}/{name[2:4]}/{name}"
        if name in manifest.absent:
            absent.add(name)
        elif _kind(path) is None or not _take(
            reading, path, root / path, None if new is None else new / path
        ):
            raise damaged(tables, f"the file {name[:80]} is missing")
    reading.check(manifest, absent)
    return Unpacked(tables, tables, manifest)


def _take(reading: _Reading, path: str, source: Path, target: Path | None) -> bool:
    """Read a file of a folder; return whether it is there."""
    try:
        file = source.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise SnlError(f"{source}: cannot be read ({error.strerror})") from error
    with file:
        reading.take(path, file, target)
    return True


def _kind(path: str) -> str | None:
    """Return the kind of a file of a backup by its path; None: it belongs to none."""
    first, _, name = path.partition("/")
    if first == "tables" and (name in archive.TABLES or name == archive.NAMES):
        return "tables"
    if first == "tables" and name.startswith("drift/"):
        return "tables" if archive.DRIFT.fullmatch(name.removeprefix("drift/")) else None
    if first == "models" and archive.MODEL.fullmatch(name):
        return "models"
    return "files" if _FILES.fullmatch(path) else None


def _unpack_tar(backup: Path, work: Path, new: Path | None, progress: Progress | None) -> Unpacked:
    """See `unpack`."""
    tables, reading = work / "tables", _Reading(backup, progress)
    try:
        with tarfile.open(backup, "r:") as tar:
            members = _members(tar)
            first = next(members, None)
            if first is None or first[0] != archive.ABOUT:
                raise archive.not_ours(backup)
            Manifest.read(first[1].read(archive.CHUNK), backup)
            manifest, absent = _unpack_members(members, reading, tables, new)
    except tarfile.TarError as error:
        if reading.sha256:
            raise damaged(backup, "it ends too early") from error
        raise archive.not_ours(backup) from error
    reading.check(manifest, absent)
    return Unpacked(backup, tables, manifest)


def _unpack_members(
    members: Iterator[tuple[str, IO[bytes]]], reading: _Reading, tables: Path, new: Path | None
) -> tuple[Manifest, set[str]]:
    """Read the files of a tar file; return its manifest, and the names of files that it lacks."""
    shown, absent = reading.shown, set[str]()
    names: Iterator[str] = iter(())
    for path, source in members:
        if path == archive.MANIFEST:
            manifest = Manifest.read(source.read(), shown)
            _check_versions(manifest, shown)
            return manifest, absent.union(names)
        kind = _kind(path)
        if kind is None or path in reading.sha256:
            raise damaged(shown, f"{path[:80]} does not belong to it")
        if kind == "tables":
            target = tables / path.removeprefix("tables/")
            reading.take(path, source, target)
            if target.name == archive.NAMES:
                reading.total = sum(1 for _ in archive.read_names(target, shown))
                names = archive.read_names(target, shown)
            continue
        if kind == "files":
            for name in names:
                if name == path.rpartition("/")[2]:
                    break
                absent.add(name)
            else:
                raise damaged(shown, f"{path} is not in its list of files")
        reading.take(path, source, None if new is None else new / path)
    raise damaged(shown, "its end is missing")


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the files of a tar file with their paths, in bounded memory."""
    while (member := tar.next()) is not None:
        source = tar.extractfile(member) if member.isreg() and not member.issparse() else None
        if source is None:
            raise tarfile.ReadError("not a regular file")
        yield member.name, source
        tar.members.clear()  # type: ignore[attr-defined]  # it would list all in memory
