"""Files by their content: images and predictions, written once, never half."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from snl.errors import SnlError
from snl.files import sync_folder

FOLDERS = tuple(f"{number:02x}" for number in range(256))
"""Names of the folders of the first level, each with a lock of its own."""
_NAME = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """A file: its name, its size in bytes, and when it was written, in seconds since 1970."""

    name: str
    bytes: int
    written: float


@dataclass(frozen=True)
class Usage:
    """How many files there are, and their bytes."""

    files: int
    bytes: int


class Blobs:
    """A folder of files that are named by the SHA-256 of their content.

    A file is complete and on the disk before it has its name, so a name that is in the store can be
    read, also after a crash. Names come from the content alone: nothing that a client sends reaches
    the file system as a name.

    Args:
        folder: created if it is missing.

    Raises:
        SnlError: it cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._incoming = folder / "incoming"
        self._locks = {name: threading.Lock() for name in FOLDERS}
        self._held: dict[str, int] = {}
        """How many blocks of `keeping` have put each name."""
        self._usage: dict[str, Usage] = {}
        """Of each folder that was listed."""
        try:
            self._incoming.mkdir(parents=True, exist_ok=True)
            for left in self._incoming.iterdir():  # of a process that was killed
                left.unlink(missing_ok=True)
        except OSError as error:
            raise SnlError(
                f"{folder}: cannot be used ({error.strerror}); give another --data"
            ) from error

    def path(self, name: str) -> Path:
        """Return the file of a name, which may be missing.

        Raises:
            ValueError: it is no name of a blob.
        """
        return blob_path(self.folder, name)

    @contextmanager
    def incoming(self, content: bytes) -> Iterator[Path]:
        """Write content to a temporary file for the `with` block.

        Raises:
            OSError: the disk is full, for example.
        """
        path = self._incoming / secrets.token_hex(16)
        try:
            with path.open("wb") as file:
                file.write(content)
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def keeping(self) -> Iterator[Callable[[bytes], str]]:
        """Yield a function that stores content and returns its name.

        When it returns, the file survives a crash, and `delete` leaves it alone until the block
        ends: commit the row that uses it in the block. The function raises OSError if the disk is
        full, for example; nothing is stored then.
        """
        names: list[str] = []

        def put(content: bytes) -> str:
            name = hashlib.sha256(content).hexdigest()
            with self._locks[name[:2]]:
                self._held[name] = self._held.get(name, 0) + 1
                names.append(name)
                self._write(name, content)
            return name

        try:
            yield put
        finally:
            for name in names:
                with self._locks[name[:2]]:
                    self._held[name] -= 1
                    if not self._held[name]:
                        del self._held[name]

    def get(self, name: str) -> bytes | None:
        """Return the content of a name; None: it is not there."""
        try:
            return self.path(name).read_bytes()
        except (FileNotFoundError, ValueError):
            return None

    def delete(self, name: str, is_used: Callable[[str], bool]) -> bool:
        """Delete a file unless it is used; return whether it was deleted.

        Args:
            name: of the file.
            is_used: whether a row of the store uses it. It is asked while the same content cannot
                be put, and after the rows of earlier blocks of `keeping` were committed.

        Raises:
            OSError: it cannot be deleted.
        """
        path = self.path(name)
        with self._locks[name[:2]]:
            if name in self._held or is_used(name):
                return False
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                return False
            self._count(name, -1, -size)
        return True

    # --- how much there is ---

    def entries(self, folder: str) -> list[Entry]:
        """List the files of a folder, one of FOLDERS, and count them.

        Raises:
            OSError: it cannot be read.
        """
        found = []
        with self._locks[folder]:
            for inner in _scan(self.folder / folder):
                for entry in _scan(Path(inner.path)) if inner.is_dir() else ():
                    if _NAME.fullmatch(entry.name):
                        stat = entry.stat()
                        found.append(Entry(entry.name, stat.st_size, stat.st_mtime))
            self._usage[folder] = Usage(len(found), sum(one.bytes for one in found))
        return found

    def usage(self) -> Usage | None:
        """Return how much there is; None: not all folders were listed yet."""
        if len(self._usage) < len(FOLDERS):
            return None
        each = list(self._usage.values())
        return Usage(sum(one.files for one in each), sum(one.bytes for one in each))

    def _count(self, name: str, files: int, size: int) -> None:
        """Change the numbers of a folder, whose lock is held."""
        if (now := self._usage.get(name[:2])) is not None:
            self._usage[name[:2]] = Usage(now.files + files, now.bytes + size)

    def _write(self, name: str, content: bytes) -> None:
        """Write a file if it is missing; the lock of its folder is held."""
        target = self.path(name)
        if target.is_file():
            return
        temporary = self._incoming / secrets.token_hex(16)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            new_folder = not target.parent.is_dir()
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(target)
            self._count(name, 1, len(content))
            sync_folder(target.parent)
            if new_folder:
                sync_folder(target.parent.parent)
                sync_folder(self.folder)
        finally:
            temporary.unlink(missing_ok=True)


def blob_path(folder: Path, name: str) -> Path:
    """Return the file of a name in a folder of blobs.

    Raises:
        ValueError: it is no name of a blob.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("not the name of a blob")
    return folder / name[:2] / name[2:4] / name


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder; nothing if it is missing."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
