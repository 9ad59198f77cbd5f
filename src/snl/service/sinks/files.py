"""The sinks `jsonl` and `csv`: every event is a line at the end of a file."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from snl.errors import SettingsError
from snl.files import sync_folder
from snl.service.policy import Policy
from snl.service.sinks.base import DeliveryError, Event, SinkSettings, allowed_path
from snl.text import csv_line

log = logging.getLogger("snl.service")

COLUMNS = (
    *("id", "created", "name", "part", "product", "decision", "score", "p_value"),
    *("model", "network", "calibration"),
)
"""Columns of a CSV file, as the API names them."""


class FileSettings(SinkSettings):
    """Settings of a file.

    Attributes:
        path: absolute path of the file; its folder has to exist.
    """

    path: str = Field(min_length=1, max_length=1000)


class _FileSink:
    """Appends lines; they are on the disk when `deliver` returns.

    The file is opened for every call, so that it may be moved away at any time.
    """

    Settings: ClassVar[type[SinkSettings]] = FileSettings
    batch: ClassVar[int] = 100
    suffix: ClassVar[str]
    header: ClassVar[bytes] = b""

    def __init__(self, settings: FileSettings, policy: Policy | None) -> None:
        self.settings, self._policy = settings, policy
        if not settings.path.lower().endswith(self.suffix):
            raise SettingsError(f"path: give a file whose name ends with {self.suffix}")
        self._path()

    def line(self, event: Event) -> bytes:
        """Return the line of an event."""
        raise NotImplementedError

    def deliver(self, events: Sequence[Event]) -> None:
        """Append a line for each event."""
        self._append([self.line(event) for event in events])

    def test(self, event: Event) -> None:
        """Find out whether the file can be written; no line is added."""
        self._append([])

    def close(self) -> None:
        """The file is closed already."""

    def _path(self) -> Path:
        return allowed_path(self.settings.path, self._policy)

    def _append(self, lines: Sequence[bytes]) -> None:
        try:
            path = self._path()  # again: a folder may have become a link to elsewhere
        except SettingsError as error:
            raise DeliveryError(str(error)) from None
        is_new = not path.exists()
        # no waiting for the reader of a pipe
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)
        try:
            file = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o644)
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise DeliveryError(f"{self.settings.path} is not a regular file")
                self._write(file, lines)
                os.fsync(file)
            finally:
                os.close(file)
            if is_new:
                sync_folder(path.parent)
        except OSError as error:
            raise DeliveryError(
                f"{self.settings.path} cannot be written ({error.strerror})"
            ) from None

    def _write(self, file: int, lines: Sequence[bytes]) -> None:
        """Write lines after the complete ones; after an error the file is as before."""
        size = self._repaired(file, lines)
        content = b"".join(lines) if size else self.header + b"".join(lines)
        try:
            written = 0
            while written < len(content):
                written += os.write(file, content[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(file, size)
            raise

    def _repaired(self, file: int, lines: Sequence[bytes]) -> int:
        """Return the size of a file, whose last line is complete afterwards.

        A crash may have cut a line of ours. Its event was not delivered then, so it is one of
        `lines`: the beginning is removed and the whole line written. What is not a beginning of
        ours is of somebody else, and only gets the end of a line.
        """
        size = os.fstat(file).st_size
        if self.header and size:
            begin = _read(file, 0, len(self.header))
            if size < len(self.header) and self.header.startswith(begin):
                os.ftruncate(file, 0)
                return 0
            if begin != self.header:
                raise DeliveryError(
                    f"{self.settings.path} has other columns; move it away, or give another path"
                )
        longest = max((len(line) for line in lines), default=0)
        tail = _read(file, max(0, size - longest - 1), longest + 1)
        if not size or tail.endswith(b"\n") or not lines:
            return size
        cut = tail.rpartition(b"\n")[2]
        if any(line.startswith(cut) for line in lines):
            log.warning("%s: a line that was cut is written again", self.settings.path)
            os.ftruncate(file, size - len(cut))
            return size - len(cut)
        os.write(file, b"\n")
        return size + 1


class JsonLinesSink(_FileSink):
    """Appends the events as JSON."""

    suffix: ClassVar[str] = ".jsonl"

    def line(self, event: Event) -> bytes:
        """Return the body of an event."""
        return event.body.encode() + b"\n"


class CsvSink(_FileSink):
    """Appends the most important values as rows of a table."""

    suffix: ClassVar[str] = ".csv"
    header: ClassVar[bytes] = csv_line(COLUMNS)

    def line(self, event: Event) -> bytes:
        """Return the row of an event."""
        return csv_line(event.inspection.get(column) for column in COLUMNS)


def _read(file: int, offset: int, size: int) -> bytes:
    """Read from an offset, whatever the position of the file is."""
    os.lseek(file, offset, os.SEEK_SET)
    content = b""
    while len(content) < size and (part := os.read(file, size - len(content))):
        content += part
    return content
