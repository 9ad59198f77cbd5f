"""Kind 3: manifests as spreadsheets write them; CSV and Parquet accept the same values."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from functools import partial as bind
from typing import Any

import numpy as np

from tests.hostile import checks
from tests.hostile.attempt import Attempt, Command, Outcome, Result, refused, right
from tests.hostile.site import Site
from tests.trees import save_mask, save_part

COLUMNS = ("path", "product", "split", "label", "mask", "defect")
Rows = list[dict[str, Any]]

LABELS: dict[str, tuple[Any, Any]] = {
    "words": ("normal", "anomalous"),
    "good-bad": ("good", "bad"),
    "ok-ng": ("OK", "NG"),
    "0-1": ("0", "1"),
    "0.0-1.0": ("0.0", "1.0"),
    "0,0-1,0": ("0,0", "1,0"),
    "false-true": ("False", "True"),
    "FALSE-TRUE": ("FALSE", "TRUE"),
    "FALSCH-WAHR": ("FALSCH", "WAHR"),
    "upper": ("NORMAL", "ANOMALOUS"),
    "quoted-spaces": (" normal ", " anomalous "),
    "00-01": ("0.00", "1.00"),
    "1e0": ("0e0", "1e0"),
}
"""Labels of normal and anomalous images, as text."""
EMPTY = ("", "None", "none", "nan", "NaN", "NULL", "null", "N/A", "#N/A", "<NA>", "NA", " ")
"""What programs write into empty cells."""


def attempts(seed: int) -> Iterator[Attempt]:
    """Yield all attempts of this kind."""
    yield from _csv(seed)
    yield from _parquet()
    yield from _refused()


def _rows() -> Rows:
    rows: Rows = []
    for n in range(4):
        rows.append({"path": f"images/{n}.png", "split": "train", "label": 0})
    for n in range(2):
        rows.append({"path": f"images/ok{n}.png", "split": "test", "label": 0})
    for n in range(2):
        row = {"path": f"images/bad{n}.png", "split": "test", "label": 1}
        rows.append({**row, "mask": f"masks/bad{n}.png", "defect": "dent"})
    return [{"product": "bolt", "mask": "", "defect": "", **row} for row in rows]


def _write_images(site: Site, rows: Rows) -> None:
    for n, row in enumerate(rows):
        save_part(site / "data" / row["path"], n, defect=bool(row["label"]))
        if row["mask"]:
            save_mask(site / "data" / row["mask"], n)


def _as_written(_: Site, result: Result) -> str | None:
    """Check labels, splits and masks of the eight images."""
    records = result.value["records"]
    for row in _rows():
        found = records.get(row["path"])
        wanted = {
            "label": "anomalous" if row["label"] else "normal",
            "split": row["split"],
            "product": "bolt",
            "masks": [row["mask"]] if row["mask"] else [],
        }
        if found != wanted:
            return f"{row['path']}: {found}, should be {wanted}"
    return None if len(records) == 8 else f"{len(records)} images of 8"


def _attempt(
    name: str,
    text: Callable[[Rows], bytes],
    expected: tuple[Outcome, ...] = (right(_as_written),),
    *,
    fast: bool = False,
) -> Attempt:
    def make(site: Site) -> Command:
        rows = _rows()
        _write_images(site, rows)
        (site / "data/parts.csv").write_bytes(text(rows))
        return checks.catalog_of(site / "data/parts.csv")

    return Attempt(f"csv-{name}", 3, make, expected, fast=fast)


def to_csv(
    rows: Rows,
    *,
    separator: str = ",",
    labels: tuple[Any, Any] = ("normal", "anomalous"),
    empty: str = "",
    columns: tuple[str, ...] = COLUMNS,
    end: str = "\r\n",
    trailing: int = 0,
    first: str = "",
    blank_rows: int = 0,
    quoting: int = csv.QUOTE_MINIMAL,
) -> str:
    """Return the text of a table in one of many dialects."""
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerow([*columns, *[""] * trailing])
    for row in rows:
        cells = {**row, "label": labels[row["label"]]}
        values = [cells[c.strip().lower()] or empty for c in columns]
        writer.writerow([*values, *[empty] * trailing])
    for _ in range(blank_rows):
        stream.write(separator * (len(columns) - 1) + end)
    return first + stream.getvalue()


def _csv(seed: int) -> Iterator[Attempt]:
    or_refused = (right(_as_written), refused())
    for name, labels in LABELS.items():
        loose = name in ("0,0-1,0", "FALSCH-WAHR", "1e0", "00-01")
        fast = name == "0.0-1.0"

        def text(rows: Rows, labels: Any = labels) -> bytes:
            return to_csv(rows, labels=labels, separator=";").encode()

        yield _attempt(f"labels-{name}", text, or_refused if loose else _RIGHT, fast=fast)
    for number, empty in enumerate(EMPTY):

        def blank(rows: Rows, empty: str = empty) -> bytes:
            return to_csv(rows, empty=empty).encode()

        strict = empty in ("", "None", " ", "nan", "NaN")
        yield _attempt(
            f"empty-{number:02}", blank, _RIGHT if strict else or_refused, fast=number == 1
        )
    for separator, word in ((",", "comma"), (";", "semicolon"), ("\t", "tab"), ("|", "bar")):
        strict = separator != "|"
        for first in ("", f"sep={separator}\r\n", f'"sep={separator}"\r\n', "\r\n"):
            names = {0: "plain", 1: "sep", 2: "sep-quoted", 3: "blank-line"}
            which = ["", f"sep={separator}\r\n", f'"sep={separator}"\r\n', "\r\n"].index(first)

            def dialect(rows: Rows, separator: str = separator, first: str = first) -> bytes:
                return to_csv(rows, separator=separator, first=first).encode()

            expected = _RIGHT if strict and which < 2 else or_refused
            name = f"{word}-{names[which]}"
            yield _attempt(name, dialect, expected, fast=name == "semicolon-sep")

        def tail(rows: Rows, separator: str = separator) -> bytes:
            return to_csv(rows, separator=separator, trailing=3, blank_rows=4).encode()

        yield _attempt(
            f"{word}-trailing-cells", tail, _RIGHT if strict else or_refused, fast=strict
        )
    for codec in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "utf-32"):

        def coded(rows: Rows, codec: str = codec) -> bytes:
            return to_csv(rows, separator="\t").encode(codec)

        strict = codec.startswith("utf-8") or codec == "cp1252"
        yield _attempt(f"codec-{codec}", coded, _RIGHT if strict else or_refused)

        def umlauts(rows: Rows, codec: str = codec) -> bytes:
            rows = [{**row, "defect": "Käfer" if row["label"] else ""} for row in rows]
            return to_csv(rows, separator="\t").encode(codec)

        strict = codec.startswith("utf-8")
        yield _attempt(f"codec-{codec}-umlauts", umlauts, _RIGHT if strict else or_refused)
    variants: dict[str, Callable[[Rows], str]] = {
        "unix-lines": lambda rows: to_csv(rows, end="\n"),
        "mac-lines": lambda rows: to_csv(rows, end="\r"),
        "all-quoted": lambda rows: to_csv(rows, quoting=csv.QUOTE_ALL),
        "upper-columns": lambda rows: to_csv(rows, columns=tuple(c.upper() for c in COLUMNS)),
        "spaced-columns": lambda rows: to_csv(rows, columns=tuple(f" {c} " for c in COLUMNS)),
        "other-order": lambda rows: to_csv(rows, columns=COLUMNS[::-1]),
        "no-last-newline": lambda rows: to_csv(rows).rstrip(),
        "backslashes": lambda rows: to_csv(
            [{**r, "path": r["path"].replace("/", "\\")} for r in rows]
        ),
        "dot-slash": lambda rows: to_csv([{**r, "path": "./" + r["path"]} for r in rows]),
        "ragged": lambda rows: to_csv(rows).replace(",,\r\n", "\r\n"),
        "unnamed-index": lambda rows: "\r\n".join(
            f"{'' if n == 0 else n},{line}" for n, line in enumerate(to_csv(rows).splitlines())
        ),
        "comment-column": lambda rows: to_csv(rows).replace("defect\r\n", "defect,comment\r\n"),
    }
    for name, variant in variants.items():
        loose = name in ("mac-lines",)

        def varied(rows: Rows, variant: Any = variant) -> bytes:
            return str(variant(rows)).encode()

        yield _attempt(name, varied, or_refused if loose else _RIGHT)
    rng = np.random.default_rng([seed, 30])
    for number in range(30):
        choice = {
            "separator": str(rng.choice([",", ";", "\t"])),
            "labels": LABELS[str(rng.choice(["words", "ok-ng", "0-1", "0.0-1.0", "false-true"]))],
            "empty": str(rng.choice(["", "None", "nan"])),
            "end": str(rng.choice(["\r\n", "\n"])),
            "trailing": int(rng.integers(0, 3)),
            "blank_rows": int(rng.integers(0, 3)),
            "quoting": int(rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        }
        choice["first"] = f"sep={choice['separator']}\r\n" if rng.integers(2) else ""
        codec = str(rng.choice(["utf-8", "utf-8-sig"]))

        def mixed(rows: Rows, choice: Any = choice, codec: str = codec) -> bytes:
            return to_csv(rows, **choice).encode(codec)

        yield _attempt(f"mixed-{number:02}", mixed)


_RIGHT = (right(_as_written),)


def _parquet() -> Iterator[Attempt]:
    """The same values with the types of data frames."""
    kinds: dict[str, Callable[[list[int]], Any]] = {
        "int": lambda v: v,
        "float": lambda v: [float(x) for x in v],
        "bool": lambda v: [bool(x) for x in v],
        "text-0-1": lambda v: [str(x) for x in v],
        "text-0.0-1.0": lambda v: [f"{x}.0" for x in v],
        "text-True": lambda v: [str(bool(x)) for x in v],
        "words": lambda v: ["anomalous" if x else "normal" for x in v],
        "text-spaces": lambda v: [f" {'NG' if x else 'OK'} " for x in v],
    }
    for name, convert in kinds.items():
        for empty_name, empty in (
            ("null", None),
            ("text-none", "None"),
            ("blank", ""),
            ("nan", "nan"),
        ):
            make = bind(_parquet_file, convert=convert, empty=empty)
            fast = (name, empty_name) == ("text-0.0-1.0", "text-none")
            yield Attempt(f"parquet-{name}-{empty_name}", 3, make, _RIGHT, fast=fast)


def _parquet_file(site: Site, convert: Callable[[list[int]], Any], empty: str | None) -> Command:
    import pyarrow
    import pyarrow.parquet as parquet

    rows = _rows()
    _write_images(site, rows)
    table = {c: [row[c] or empty for row in rows] for c in COLUMNS if c != "label"}
    table["label"] = convert([row["label"] for row in rows])
    parquet.write_table(pyarrow.table(table), site / "data/parts.parquet")
    return checks.catalog_of(site / "data/parts.parquet")


def _refused() -> Iterator[Attempt]:
    """Tables that mean nothing are refused in one line that names the line or column."""
    cases: dict[str, tuple[str, bytes]] = {
        "empty": ("a.csv", b""),
        "only-sep": ("a.csv", b"sep=;\r\n"),
        "only-header": ("a.csv", b"path;label\r\n"),
        "no-path": ("a.csv", b"file;label\r\nx.png;good\r\n"),
        "unknown-label": ("a.csv", b"path;label\r\nx.png;maybe\r\n"),
        "label-2": ("a.csv", b"path;label\r\nx.png;2\r\n"),
        "label-0.5": ("a.csv", b"path;label\r\nx.png;0.5\r\n"),
        "repeated": ("a.csv", b"path;label\r\nx.png;0\r\nx.png;1\r\n"),
        "too-many-cells": ("a.csv", b"path;label\r\nx.png;0;more;words\r\n"),
        "binary": ("a.csv", bytes(range(256)) * 8),
        "nul": ("a.csv", b"path;label\r\nx\0.png;0\r\n"),
        "huge-cell": ("a.csv", b"path;label\r\n" + b"x" * 200_000 + b";0\r\n"),
        "open-quote": ("a.csv", b'path;label\r\n"x.png;0\r\n' * 3),
        "image-called-csv": ("a.csv", b"\x89PNG\r\n\x1a\n" + b"\0" * 50),
        "not-parquet": ("a.parquet", b"path;label\r\nx.png;0\r\n"),
        "cut-parquet": ("a.parquet", b"PAR1" + b"\0" * 30 + b"PAR1"),
        "unknown-split": ("a.csv", b"path;split\r\nx.png;someday\r\n"),
        "empty-path": ("a.csv", b"path;label\r\n;1\r\n"),
        "xlsx-called-csv": ("a.csv", b"PK\x03\x04" + bytes(range(200, 256)) * 9),
        "duplicate-column": ("a.csv", b"path;label;label\r\nx.png;0;1\r\n"),
    }
    for name, (file, data) in cases.items():

        def make(site: Site, file: str = file, data: bytes = data) -> Command:
            (site / file).write_bytes(data)
            return Command(["doctor", file, "--quiet"])

        yield Attempt(f"manifest-{name}", 3, make, (refused(r"a\.\w+"),), fast=name == "label-0.5")

    def escape(site: Site) -> Command:
        rows = _rows()
        _write_images(site, rows)
        text = to_csv([{**r, "path": f"../data/{r['path']}"} for r in rows])
        (site / "data/parts.csv").write_text(text)
        return Command(["doctor", "data/parts.csv", "--quiet"])

    yield Attempt("manifest-outside", 3, escape, (right(status=(0, 1)), refused()))

    def missing(site: Site) -> Command:
        _write_images(site, _rows())
        (site / "data/images/0.png").unlink()
        (site / "data/parts.csv").write_text(to_csv(_rows()))
        return Command(["doctor", "data/parts.csv", "--quiet"])

    yield Attempt("manifest-missing-image", 3, missing, (right(None, r"0\.png", status=(1,)),))
