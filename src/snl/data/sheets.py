"""Read tables as spreadsheets and data frames write them: CSV in several dialects, and Parquet.

Both formats give the same rows of text: `1`, `1.0`, `1,0` and a Parquet integer are the same cell,
and so are `TRUE` and a Parquet boolean, or an empty cell, `NaN`, `None` and a missing value.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeVar

from snl.data.listing import shown
from snl.errors import DataError, DependencyError

_T = TypeVar("_T")

_SEPARATORS = ",;\t|"
_LONGEST_LINE = 4_000_000
"""Characters of a line; a longer one is not from a table of files."""

_MISSING = frozenset({"", "none", "nan", "null", "nil", "nat", "<na>", "#n/a", "#na", "#nv"})
_MISSING_VALUES = _MISSING | {"n/a", "na", "n.a.", "-", "--", "?"}
_NAMES = frozenset({"path", "product", "part"})
"""Columns of names, where `NA` and `-` may be meant."""
_BOOLEANS = {
    **dict.fromkeys(("wahr", "vrai", "vero", "verdadero", "verdadeiro", "waar", "prawda"), "true"),
    **dict.fromkeys(("falsch", "faux", "falso", "onwaar", "fałsz"), "false"),
}
"""What spreadsheets in other languages write for TRUE and FALSE."""


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    location: str
    """File and line, for messages."""
    cells: Mapping[str, str]
    """Text by column, `""` for missing cells."""

    def get(self, column: str) -> str:
        """Return a cell, `""` if it is missing."""
        return self.cells.get(column, "")


@dataclass(frozen=True)
class Columns:
    """The columns that a table may have and those that it must have."""

    known: Sequence[str]
    required: Sequence[str] = ("path",)
    renamed: Mapping[str, str] | None = None
    """Names in the file by which columns are known here: `{"image": "path"}`."""

    def name(self, text: str) -> str:
        """Return the name of a column for what the file calls it, without case and spaces."""
        key = " ".join(text.replace("\ufeff", "").split()).lower()
        return (self.renamed or {}).get(key, key)

    def check(self, file: Path, names: Sequence[str]) -> None:
        """Raise DataError if a column is missing or is there twice."""
        original = {new: old for old, new in (self.renamed or {}).items()}
        for name in self.required:
            if name not in names:
                existing = ", ".join(original.get(n, n) for n in names if n) or "none"
                raise DataError(
                    f"{shown(file)} has no column '{original.get(name, name)}' (columns: "
                    f"{shown(existing)[:300]}); add the name to the first line"
                )
        for name in self.known:
            if names.count(name) > 1:
                raise DataError(
                    f"{shown(file)} has {names.count(name)} columns '{original.get(name, name)}'; "
                    "keep one of them"
                )


def read_rows(file: Path, columns: Columns) -> Iterator[Row]:
    """Yield the rows of a CSV or Parquet file, without empty ones.

    Raises:
        DataError: the file cannot be read, or a column is missing or repeated.
        DependencyError: the file is Parquet and pyarrow is not installed.
    """
    rows = _parquet_rows if file.suffix.lower() == ".parquet" else _csv_rows
    return rows(file, columns)


def cell_text(value: object, column: str) -> str:
    """Return the text of a cell of any type; all spellings of a value give the same text.

    >>> [cell_text(value, "label") for value in (1, 1.0, "1,0", True, None, "NaN", " ok ")]
    ['1', '1', '1', 'true', '', '', 'ok']
    """
    if value is None or value != value:  # data frames write an empty cell as NaN
        return ""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    text = str(value).strip().strip("\ufeff\u200b\u00a0 ")
    if isinstance(value, bool):
        text = text.lower()
    if text.casefold() in (_MISSING if column in _NAMES else _MISSING_VALUES):
        return ""
    if column in ("label", "split"):
        text = _BOOLEANS.get(text.casefold(), text)
    is_number = not isinstance(value, str) or column == "label"
    if is_number and (number := re.fullmatch(r"\+?(-?\d{1,15})[.,]0*", text)):
        return number[1]
    return text


def _csv_rows(file: Path, columns: Columns) -> Iterator[Row]:
    try:
        with file.open(encoding=_encoding(file), newline="") as stream:
            lines = _Lines(stream, file)
            separator, skipped = _separator(lines)
            reader = csv.reader(lines, delimiter=separator)
            header = next((cells for cells in reader if any(map(str.strip, cells))), [])
            names = [columns.name(cell) for cell in header]
            columns.check(file, names)
            for cells in reader:
                location = f"{shown(file)}, line {reader.line_num + skipped}"
                if not any(map(str.strip, cells)):
                    continue
                if any(map(str.strip, cells[len(names) :])):
                    raise DataError(
                        f"{location}: {len(cells)} cells but {len(names)} columns; put cells that "
                        f"contain '{separator}' in double quotes"
                    )
                yield _row(location, zip(names, cells, strict=False), columns)
    except UnicodeError as error:
        raise DataError(f"{shown(file)} is not UTF-8 text; save it as 'CSV UTF-8'") from error
    except csv.Error as error:
        raise DataError(
            f"{shown(file)} cannot be read as CSV ({error}); export it again"
        ) from error


def _row(location: str, cells: Iterable[tuple[str, object]], columns: Columns) -> Row:
    row: dict[str, str] = {}
    for name, value in cells:
        if name not in columns.known:
            continue
        if isinstance(value, list | dict | tuple):
            raise DataError(f"{location}: {name} is a {type(value).__name__}; write text instead")
        text = cell_text(value, name)
        if "\0" in text or "\n" in text or "\r" in text:
            raise DataError(
                f"{location}: {name} contains a line break or a NUL character; check that every "
                "quotation mark is closed"
            )
        row[name] = text
    return Row(location, row)


class _Lines:
    """The lines of a stream, of limited length; the first one can be looked at."""

    def __init__(self, stream: TextIO, file: Path) -> None:
        self._stream, self._file = stream, file
        self._waiting: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self._waiting:
            return self._waiting.pop()
        line = self._stream.readline(_LONGEST_LINE)
        if len(line) >= _LONGEST_LINE:
            raise DataError(
                f"{shown(self._file)} has a line of more than {_LONGEST_LINE} characters; it is no "
                "table of files"
            )
        if not line:
            raise StopIteration
        return line

    def first(self) -> str:
        """Return the next line that is not empty without consuming it."""
        line = next((line for line in self if line.strip()), "")
        self._waiting.append(line)
        return line

    def skip(self) -> None:
        """Leave out the next line."""
        next(self, "")


def _separator(lines: _Lines) -> tuple[str, int]:
    """Return the separator, and how many lines were skipped: the line `sep=;` of spreadsheets."""
    first = lines.first()
    if stated := re.fullmatch(r'"?sep=(\\t|.)"?[;,\t\s]*', first.strip("\r\n"), re.IGNORECASE):
        lines.skip()
        return ("\t" if stated[1] == "\\t" else stated[1]), 1
    return max(_SEPARATORS, key=first.count), 0


def _encoding(file: Path) -> str:
    """Return the encoding by the first bytes: UTF-8 or UTF-16."""
    with file.open("rb") as stream:
        start = stream.read(512)
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # Without a mark, every other byte of Latin text in UTF-16 is zero.
    for encoding, zeros in (("utf-16-le", start[1::2]), ("utf-16-be", start[0::2])):
        if len(zeros) > 3 and zeros.count(0) > len(zeros) / 2:
            return encoding
    return "utf-8-sig"


def _parquet_rows(file: Path, columns: Columns) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DependencyError(
            f"{shown(file)}: reading Parquet needs pyarrow; run: pip install 'snl-ad[parquet]'"
        ) from error
    failures: tuple[type[Exception], ...] = (OSError, ValueError, pyarrow.ArrowException)
    names = _attempt(file, failures, lambda: list(parquet.read_schema(file).names))
    columns.check(file, [columns.name(name) for name in names])
    used = [name for name in names if columns.name(name) in columns.known]
    table = _attempt(file, failures, lambda: parquet.read_table(file, columns=used).to_pylist())
    for number, row in enumerate(table, start=1):
        cells = [(columns.name(name), value) for name, value in row.items()]
        yield _row(f"{shown(file)}, row {number}", cells, columns)


def _attempt(file: Path, failures: tuple[type[Exception], ...], read: Callable[[], _T]) -> _T:
    try:
        return read()
    except failures as error:
        reason = shown(" ".join(str(error).split()))[:300]
        raise DataError(
            f"{shown(file)} cannot be read as Parquet ({reason}); export it again"
        ) from error
