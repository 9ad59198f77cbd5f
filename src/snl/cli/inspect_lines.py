"""Sinks of `snl inspect` that write a line for each result: JSON lines, CSV tables, parts."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from snl.errors import SnlError

if TYPE_CHECKING:
    from snl.decision.inspection import Inspection

    Record = dict[str, Any]

_MOST_WAITING = 64 * 2**20
"""Bytes of lines that are kept while the file cannot be written."""


class Stdout:
    """One JSON line for each result, on standard output."""

    option = "standard output"

    def __init__(self) -> None:
        self.broken = False
        self.closed_by_reader = False

    def add(self, result: Inspection, record: Record) -> None:
        """Print the record."""
        import json

        line = json.dumps(record, allow_nan=False)
        try:
            if sys.stdout is None:
                raise SnlError("standard output is closed; write to a file with --json OUT")
            print(line, flush=True)
        except (OSError, ValueError) as error:
            self.broken = True
            _drop_stdout()
            self.closed_by_reader = isinstance(error, BrokenPipeError)
            if self.closed_by_reader:
                raise SnlError("its reader has closed it") from None
            reason = getattr(error, "strerror", None) or error
            raise SnlError(f"cannot be written ({reason}); write to a file with --json") from None
        except SnlError:
            self.broken = True
            raise

    def close(self, complete: bool) -> None:
        """Do nothing: every line was flushed."""

    def summary(self) -> str | None:
        """Return nothing: the user sees it."""
        return None


class JsonLines:
    """One JSON line for each result, in a file.

    An existing file is replaced when the first result comes: a run that fails before it leaves the
    earlier results. From then on every line is in the file as soon as its image is inspected. Lines
    that cannot be written (the disk is full) are tried again with the next one and at the end.
    """

    option, broken, unit = "--json", False, "inspections"

    def __init__(self, path: Path, heading: bytes = b"") -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._waiting = heading
        self._count = 0
        self._lost = 0

    def add(self, result: Inspection, record: Record) -> None:
        """Write the record as a line."""
        self.write(record)

    def line(self, record: Record) -> bytes:
        """Return a record as a line."""
        import json

        return json.dumps(record, allow_nan=False).encode() + b"\n"

    def write(self, record: Record) -> None:
        """Write any record as a line."""
        line = self.line(record)
        self._count += 1
        if len(self._waiting) + len(line) > _MOST_WAITING:
            self._lost += 1
        else:
            self._waiting += line
        self._flush()

    def close(self, complete: bool) -> None:
        """Write what is left; without results an existing file is left as it is."""
        try:
            new = complete and not self._count and not self._path.exists()
            if new or (self._count and self._waiting):
                self._flush()
            if self._lost:
                raise SnlError(f"{self._path}: {self._lost} results could not be written")
        finally:
            if self._file is not None:
                with suppress(OSError):  # a device
                    os.fsync(self._file.fileno())
                self._file.close()

    def summary(self) -> str | None:
        """Return the number of lines."""
        kept = ", left as it was" if not self._count else ""
        unit = self.unit.removesuffix("s") if self._count == 1 else self.unit
        return f"{self._count} {unit}: {self._path}{kept}"

    def _flush(self) -> None:
        """Write all lines that wait, whole, or none of them."""
        from snl.files import not_writable

        try:
            if self._file is None or _is_deleted(self._file):
                self._open()
            elif self._waiting:
                _append(self._file, self._waiting)
        except BrokenPipeError as error:
            self.broken = True
            raise SnlError(f"{self._path}: nobody reads it any more ({error.strerror})") from None
        except OSError as error:
            raise not_writable(self._path, error) from None
        self._waiting = b""

    def _open(self) -> None:
        """Replace the file by one with the lines so far."""
        from snl.files import atomic, is_device, open_device, real_path

        if is_device(self._path):
            if self._file is None:
                self._file = open_device(self._path)
            _append(self._file, self._waiting)
            return
        before = b""
        if self._file is not None:  # somebody deleted it; it can still be read
            self._file.seek(0)
            before = self._file.read()
        with atomic(self._path) as temporary:
            temporary.write_bytes(before + self._waiting)
        if self._file is not None:
            self._file.close()
        self._file = real_path(self._path).open("a+b", buffering=0)


class PartLines(JsonLines):
    """One JSON line for each part, in a file; its lines are written as those of images."""

    option, unit = "--parts", "parts"

    def add(self, result: Inspection, record: Record) -> None:
        """Do nothing: parts are added by `add_part`."""

    def add_part(self, record: Record) -> None:
        """Write the record of a part as a line."""
        self.write(record)


class Table(JsonLines):
    """One row for each result, in a CSV file; written as the lines of JSON are."""

    option, unit = "--csv", "rows"

    def __init__(self, path: Path) -> None:
        from snl.kinds import TABLE_COLUMNS
        from snl.text import csv_line

        self._columns, self._csv_line = TABLE_COLUMNS, csv_line
        super().__init__(path, csv_line(TABLE_COLUMNS))

    def line(self, record: Record) -> bytes:
        """Return a record as a row; the region is the one with the highest peak."""
        regions = record["regions"]
        first = regions[0] if regions else {}
        x, y, width, height = first.get("box", [None] * 4)
        cells = {
            **record,
            **{"x": x, "y": y, "width": width, "height": height, "area": first.get("area")},
            "regions": len(regions),
            "remarks": "; ".join(record["remarks"]),
        }
        return self._csv_line(cells.get(column) for column in self._columns)


def _is_deleted(file: IO[bytes]) -> bool:
    return os.fstat(file.fileno()).st_nlink == 0


def _append(file: IO[bytes], content: bytes) -> None:
    """Append bytes to an unbuffered file, or leave it as it was.

    Raises:
        OSError: there is no space for all of them.
    """
    before = os.fstat(file.fileno()).st_size
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[file.write(rest) or 0 :]
    except OSError:
        with suppress(OSError):  # a device
            file.truncate(before)
        raise


def _drop_stdout() -> None:
    """Send what is still buffered nowhere, so that Python does not fail on it at exit."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
