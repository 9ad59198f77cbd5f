"""Files by their content: images and predictions, written once, never half."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snl.errors import SnlError

_NAME = re.compile("[0-9a-f]{64}")


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
        if not _NAME.fullmatch(name):
            raise ValueError("not the name of a blob")
        return self.folder / name[:2] / name[2:4] / name

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

    def put(self, content: bytes) -> str:
        """Store content and return its name; when it returns, the file survives a crash.

        Raises:
            OSError: the disk is full, for example; nothing is stored then.
        """
        name = hashlib.sha256(content).hexdigest()
        target = self.path(name)
        if target.is_file():
            return name
        temporary = self._incoming / secrets.token_hex(16)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            new_folder = not target.parent.is_dir()
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(target)
            _sync(target.parent)
            if new_folder:
                _sync(target.parent.parent)
                _sync(self.folder)
        finally:
            temporary.unlink(missing_ok=True)
        return name

    def get(self, name: str) -> bytes | None:
        """Return the content of a name; None: it is not there."""
        try:
            return self.path(name).read_bytes()
        except (FileNotFoundError, ValueError):
            return None


def _sync(folder: Path) -> None:
    """Write a folder's entries to the disk, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
