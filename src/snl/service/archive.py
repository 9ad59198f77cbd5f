"""The format of backups: tables as JSON lines, and the files that their rows refer to.

    FILE.snlbackup (tar)            DIR
    about.json                      tables-TIME/*.jsonl.gz, names.txt.gz, drift/, manifest.json
    tables/*.jsonl.gz               models/*
    tables/names.txt.gz             files/ab/cd/*
    tables/drift/*.json
    models/*
    files/ab/cd/*
    manifest.json

`names.txt.gz` lists the files of `files` that rows refer to, in the order of the tar file.
`manifest.json` has counts and checksums, and is written last: without it a backup is not complete.
A tar file is written and read from the begin to the end in bounded memory, however many files it
has, and every system can open one; a zip file would need its directory of all files in memory.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from sqlalchemy import JSON, Column, Table

from snl.errors import SnlError
from snl.service.tables import Base, Utc

SUFFIX = ".snlbackup"
KIND, FORMAT = "snl backup", 1
ABOUT, MANIFEST, NAMES = "about.json", "manifest.json", "names.txt.gz"
TABLES = {f"{table.name}.jsonl.gz": table for table in Base.metadata.sorted_tables}
"""The tables by the names of their files, in an order in which rows find what they refer to."""
MODEL = re.compile(r"[0-9a-f]{64}\.(snl|onnx|xml|bin)")
DRIFT = re.compile(r"[0-9a-f]{32}\.json")
CHUNK = 2**20
_LONGEST = 2**28
"""Bytes of a line of a table; a longer one would fill the memory."""


@dataclass(frozen=True)
class Manifest:
    """What a backup has.

    Attributes:
        kind, format: of the file.
        snl: version of the program.
        tables_version: of the tables.
        created: when the snapshot was taken, in UTC.
        database: whose snapshot it is.
        rows: of each table.
        sha256: of each file beside those of `files`, by its path in the tar file.
        files: in the folder `files`.
        size: of these in bytes.
        absent: files that rows refer to and that are not in the backup, with the reason.
    """

    kind: str = KIND
    format: int = FORMAT
    snl: str = ""
    tables_version: str = ""
    created: str = ""
    database: str = ""
    rows: Mapping[str, int] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    files: int = 0
    size: int = 0
    absent: Mapping[str, str] = field(default_factory=dict)

    def about(self) -> str:
        """Return what a reader must know first, as JSON."""
        first = {name: getattr(self, name) for name in ("kind", "format", "snl", "created")}
        return json.dumps(first, indent=1) + "\n"

    def to_json(self) -> str:
        """Return all of it as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def read(cls, text: bytes, shown: Path) -> Manifest:
        """Return a manifest, or as much of it as `about` has.

        Raises:
            SnlError: it is damaged, of another program, or of a newer format.
        """
        try:
            value = json.loads(text)
            known = {one.name: value[one.name] for one in fields(cls) if one.name in value}
            manifest = cls(**known)
            if any(not isinstance(known[name], type(getattr(cls(), name))) for name in known):
                raise TypeError("a wrong type")
        except (ValueError, TypeError, RecursionError) as error:
            raise damaged(shown, "its manifest is not readable") from error
        if manifest.kind != KIND:
            raise not_ours(shown)
        if not isinstance(manifest.format, int) or manifest.format > FORMAT:
            raise SnlError(
                f"{shown}: the backup was made by a newer snl ({manifest.snl}); pip install -U "
                "snl-ad"
            )
        return manifest


def damaged(shown: Path, why: str) -> SnlError:
    """Return the error of a backup that cannot be trusted."""
    return SnlError(f"{shown}: the backup is damaged or not complete ({why}); use another one")


def not_ours(shown: Path) -> SnlError:
    """Return the error of a file or folder that is no backup."""
    return SnlError(f"{shown}: is not a backup; give a file or folder of snl backup")


# --- rows ---


def write_rows(path: Path, table: Table, rows: Iterable[Mapping[Any, Any]]) -> int:
    """Write the rows of a table, one in a line; return how many."""
    names, count = [column.name for column in table.columns], 0
    with _packed(path) as file:
        for row in rows:
            value = {name: row[name] for name in names}
            file.write(json.dumps(value, default=datetime.isoformat).encode() + b"\n")
            count += 1
    return count


def read_rows(path: Path, table: Table, shown: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table.

    Raises:
        SnlError: the file is damaged.
    """
    columns = {column.name: column for column in table.columns}
    for line in _lines(path, shown):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or row.keys() != columns.keys():
                raise ValueError("other columns")
            row = {name: _value(columns[name], value) for name, value in row.items()}
        except (ValueError, TypeError, RecursionError) as error:
            raise damaged(shown, f"the table {table.name} has a wrong row") from error
        yield row


def _value(column: Column[Any], value: Any) -> Any:
    """Return a value of a column, as the database takes it.

    Raises:
        ValueError, TypeError: it is not possible.
    """
    if isinstance(column.type, JSON) or (value is None and column.nullable):
        return value
    if isinstance(column.type, Utc):
        return datetime.fromisoformat(value)
    wanted = column.type.python_type
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise TypeError("another type")
    return value


def write_names(path: Path, names: Iterable[str]) -> int:
    """Write names of files, one in a line; return how many."""
    count = 0
    with _packed(path) as file:
        for name in names:
            file.write(name.encode() + b"\n")
            count += 1
    return count


def read_names(path: Path, shown: Path) -> Iterator[str]:
    """Yield names of files.

    Raises:
        SnlError: the file is damaged.
    """
    for line in _lines(path, shown):
        yield line.rstrip(b"\n").decode("ascii", "replace")


def _lines(path: Path, shown: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") as file:
            while line := file.readline(_LONGEST):
                if not line.endswith(b"\n"):
                    raise damaged(shown, f"{path.name} ends in the middle of a line")
                yield line
    except (OSError, EOFError) as error:  # gzip.BadGzipFile is an OSError
        raise damaged(shown, f"{path.name} cannot be unpacked") from error


@contextmanager
def _packed(path: Path) -> Iterator[IO[bytes]]:
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 5, raw, mtime=0) as file:
        yield file  # type: ignore[misc]  # it has all methods that are used


# --- copies ---


def copy(source: IO[bytes], target: IO[bytes] | None) -> tuple[str, int]:
    """Copy a file, or only read it; return its SHA-256 and its bytes."""
    digest, size = hashlib.sha256(), 0
    while part := source.read(CHUNK):
        digest.update(part)
        size += len(part)
        if target is not None:
            target.write(part)
    return digest.hexdigest(), size


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return copy(file, None)[0]
