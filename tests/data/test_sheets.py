"""Manifests as spreadsheets and data frames write them."""
# ruff: noqa: E501

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from snl.data.catalog import Catalog
from tests.data.catalogs import fails, touch

PLAIN = "path,product,split,label,mask,defect\na.png,bolt,,0,,\nb.png,bolt,,1,b_gt.png,dent\n"
EXPECTED = [("a.png", "bolt", "normal", "good", ()), ("b.png", "bolt", "anomalous", "dent", ("b_gt.png",))]  # fmt: skip


def read(file: Path) -> list[tuple[Any, ...]]:
    return [
        (r.path.name, r.product, r.label, r.defect, tuple(m.name for m in r.mask))
        for r in Catalog.read(file).records
    ]


def write(root: Path, data: bytes | str, name: str = "m.csv") -> Path:
    root.mkdir(exist_ok=True)
    (root / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return root / name


DIALECTS: dict[str, bytes] = {
    "plain": PLAIN.encode(),
    "sep semicolon": b"sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n").encode(),
    "sep comma": b"sep=,\n" + PLAIN.encode(),
    "SEP tab": b"SEP=\t\n" + PLAIN.replace(",", "\t").encode(),
    "sep written tab": b"sep=\\t\n" + PLAIN.replace(",", "\t").encode(),
    "quoted sep and mark": b'\xef\xbb\xbf"sep=;"\n' + PLAIN.replace(",", ";").encode(),
    "sep with cells": b"sep=;;;;;\n" + PLAIN.replace(",", ";").encode(),
    "bar": PLAIN.replace(",", "|").encode(),
    "mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "utf-16": PLAIN.replace(",", "\t").encode("utf-16"),
    "utf-16-be": b"\xfe\xff" + PLAIN.replace(",", "\t").encode("utf-16-be"),
    "utf-16 without mark": PLAIN.encode("utf-16-le"),
    "old line ends": PLAIN.replace("\n", "\r").encode(),
    "trailing cells": PLAIN.replace("\n", ",,,\n").encode(),
    "trailing cells of rows": PLAIN.replace(",,0,,", ",,0,,, ,,").encode(),
    "short rows": PLAIN.replace(",,0,,", ",,0").encode(),
    "empty lines": b"\n\n" + PLAIN.replace("\n", "\n,,,,,\n\n").encode(),
    "quoted": ("\n".join(",".join(f'"{c}"' for c in line.split(",")) for line in PLAIN.splitlines())).encode(),
    "header": PLAIN.replace("path,product", " Path ,PRODUCT ").encode(),
    "index column": ("," + PLAIN.replace("\n", "\n7,").removesuffix("7,")).encode(),
    "missing values": PLAIN.replace(",,0,,", ",NaN,0,None,null").replace(",,1", ",N/A,1").encode(),
    "other missing": PLAIN.replace(",,0,,", ",-,0,#N/A,n/a").replace(",,1", ",<NA>,1").encode(),
    "numbers": PLAIN.replace(",,0,", ",,0.0,").replace(",,1,", ",,1.0,").encode(),
    "numbers with commas": PLAIN.replace(",", ";").replace(";0;", ";0,0;").replace(";1;", ";1,0;").encode(),
    "booleans": PLAIN.replace(",,0,", ",,FALSE,").replace(",,1,", ",,True,").encode(),
    "German booleans": PLAIN.replace(",,0,", ",,FALSCH,").replace(",,1,", ",,WAHR,").encode(),
    "words": PLAIN.replace(",,0,", ",,i. O.,").replace(",,1,", ",,n. i. O.,").encode(),
    "negations": PLAIN.replace(",,0,", ",,no defect,").replace(",,1,", ",,Not OK,").encode(),
    "spaces": PLAIN.replace(",bolt,", ", bolt\u00a0,").encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", DIALECTS)
def test_dialects(name: str, tmp_path: Path) -> None:
    assert read(write(tmp_path, DIALECTS[name])) == EXPECTED


def test_lines_are_counted_from_the_top_of_the_file(tmp_path: Path) -> None:
    text = "sep=;\n\npath;label\na.png;0\nb.png;perhaps\n"
    assert "line 5: unknown label 'perhaps'" in fails(write(tmp_path, text))


BAD: list[tuple[bytes | str, list[str]]] = [
    ("path,label\na.png,perhaps\n", ["line 2", "perhaps", "normal, good"]),
    ("path,label\na.png,2\n", ["line 2", "unknown label '2'"]),
    ("path,label\na.png,good and bad\n", ["line 2", "good and bad"]),
    ("path,label\na.png,yes\n", ["line 2", "yes"]),
    ("path,Path\na.png,b.png\n", ["2 columns 'path'"]),
    ("path,label,LABEL \na.png,0,1\n", ["2 columns 'label'"]),
    ("image;label\na.png;0\n", ["no column 'path'", "image, label"]),
    ("sep=;\n", ["no column 'path'", "none"]),
    ("\n\n\n", ["no column 'path'"]),
    ("path,label\na\0.png,0\n", ["line 2", "NUL"]),
    ('path,label\n"a.png,0\nb.png,0\n', ["m.csv", "quotation mark"]),
    (b"path\nschr\xe4g.png\n", ["UTF-8"]),
    (b"\xff\xfep\x00a", ["m.csv"]),
    (b"\xff\xfe" + "path\na".encode("utf-16-le") + b"\x00", ["UTF-8"]),
    (b"path\n" + b"a" * 5_000_000, ["m.csv", "line of more than"]),
    (b"p" * 5_000_000, ["m.csv", "line of more than"]),
    (b"path\n" + b"a" * 500_000, ["m.csv", "field larger"]),
    ("path,label\nNone,0\n", ["line 2", "path is empty"]),
    ("path,product\na.png,x,y\n", ["3 cells"]),
    ("path,split\na.png,later\n", ["line 2", "later"]),
]


@pytest.mark.parametrize(("data", "parts"), BAD, ids=range(len(BAD)))
def test_one_clear_line(data: bytes | str, parts: list[str], tmp_path: Path) -> None:
    message = fails(write(tmp_path, data))
    assert all(part in message for part in parts), message
    assert len(message) < 800 and message.isprintable()


CELLS: list[tuple[Any, Any]] = [
    (False, True),
    (0, 1),
    (0.0, 1.0),
    ("0", "1"),
    ("0.0", "1.0"),
    ("OK", "NG"),
]
CELLS += [("False", "TRUE"), (b"ok", b"nok"), ("good", "bad")]


@pytest.mark.parametrize(("normal", "anomalous"), CELLS)
@pytest.mark.parametrize("as_dictionary", [False, True])
def test_parquet_reads_the_values_of_csv(
    normal: Any, anomalous: Any, as_dictionary: bool, tmp_path: Path
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    column = pyarrow.array([normal, anomalous])
    if as_dictionary:
        column = column.dictionary_encode()
    table = pyarrow.table(
        {
            " Path": pyarrow.array(["a.png", "x\\b.png"], pyarrow.large_string()),
            "LABEL": column,
            "product": ["bolt", "bolt"],
            "mask": pyarrow.array([None, "b_gt.png"]),
            "defect": ["None", "dent"],
            "exposure": [{"a": 1}, {"a": 2}],
        }
    )
    parquet.write_table(table, tmp_path / "m.parquet")
    assert read(tmp_path / "m.parquet") == EXPECTED


def test_unusable_parquet_cells(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for content, part in (
        ({"path": ["a.png"], "label": [[1]]}, "row 1: label is a list"),
        ({"path": [None]}, "row 1: path is empty"),
        ({"path": ["a.png"], "label": [float("inf")]}, "unknown label 'inf'"),
        ({"path": ["a.png"], "PATH": ["b.png"]}, "2 columns 'path'"),
        ({"image": ["a.png"]}, "no column 'path'"),
    ):
        parquet.write_table(pyarrow.table(content), tmp_path / "m.parquet")
        assert part in fails(tmp_path / "m.parquet")


def test_a_mask_without_a_label(tmp_path: Path) -> None:
    for name, value in (("empty.png", 0), ("marked.png", 9)):
        tmp_path.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), value, np.uint8)).save(tmp_path / name)
    text = "path,mask\na.png,empty.png\nb.png,marked.png\nc.png,gone.png\nd.png,\n"
    records = Catalog.read(write(tmp_path, text)).records
    assert [r.label for r in records] == ["normal", "anomalous", "anomalous", "normal"]


def test_long_names_and_unlisted_images(tmp_path: Path) -> None:
    touch(tmp_path, "img/a.png", "img/b.png", "img/c.png", "other/d.png")
    long = "n" * 300 + ".png"
    file = write(tmp_path, f"path\nimg/a.png\nimg/{long}\n{long}/x.png\n")
    catalog = Catalog.read(file)
    assert len(catalog.records) == 3 and len(catalog.fingerprint()) == 64
    (note,) = catalog.notes
    assert "2 images in img (img/b.png, ...)" in note and "m.csv does not list them" in note
    file.rename(tmp_path / "manifest.csv")
    assert len(Catalog.read(tmp_path).notes) == 2


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(max_size=200))
def test_any_bytes_give_records_or_one_line(data: bytes, tmp_path: Path) -> None:
    file = write(tmp_path, b"path,label,mask\n" + data)
    try:
        Catalog.read(file)
    except Exception as error:
        assert type(error).__name__ == "DataError" and "\n" not in str(error)
