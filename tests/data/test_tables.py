"""Data sets with a list of files: manifests (CSV, Parquet), VisA and Real-IAD."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from snl.data.catalog import Catalog
from snl.errors import DependencyError
from tests import trees
from tests.data.catalogs import anomalous, by_path, expected, fails, normal, touch


def write(root: Path, text: str, encoding: str = "utf-8") -> Path:
    file = root / "lists" / "m.csv"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text.encode(encoding))
    return file


def test_parquet_reads_like_csv(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = trees.make_parquet(tmp_path)
    assert Catalog.read(path).records == by_path(expected("manifest", tmp_path))


def test_parquet_with_numbers_as_labels(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table(
        {
            "path": ["a.png", "b.png", "c.png", "d.png"],
            "label": [0.0, 1.0, None, float("nan")],
            "extra": [[1], [2], [3], [4]],
        }
    )
    parquet.write_table(table, tmp_path / "manifest.parquet")
    labels = [r.label for r in Catalog.read(tmp_path).records]
    assert labels == ["normal", "anomalous", "normal", "normal"]


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DependencyError, match=r"pip install 'snl-ad\[parquet\]'"):
        Catalog.read(tmp_path / "m.parquet")


def test_damaged_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "m.parquet").write_bytes(b"PAR1 and no more")
    assert "m.parquet" in fails(tmp_path / "m.parquet")


def test_windows_paths_bom_and_semicolons(tmp_path: Path) -> None:
    text = (
        "Path;Product;Split;Label;Mask;Defect\r\n"
        "..\\img\\a.png;bolt;Train;OK;;\r\n"
        "\r\n"
        '"..\\img\\b; c.png";bolt;TEST;NG;..\\gt\\b.png;Dent\r\n'
    )
    file = write(tmp_path, text, "utf-8-sig")
    assert Catalog.read(file).records == (
        normal(tmp_path / "img/a.png", "bolt", "train"),
        anomalous(tmp_path / "img/b; c.png", "bolt", "Dent", tmp_path / "gt/b.png"),
    )


def test_paths_outside_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "path\n../imgs/000.png\nsub/../001.png\n")
    touch(tmp_path, "imgs/000.png", "lists/001.png")
    catalog = Catalog.read(tmp_path / "imgs" / ".." / "lists" / "m.csv")
    assert catalog.root == file.parent
    paths = [r.path for r in catalog.records]
    assert paths == [tmp_path / "imgs/000.png", tmp_path / "lists/001.png"]
    assert [p.is_relative_to(catalog.root) for p in paths] == [False, True]
    assert catalog.relative(paths[0]) == paths[0].as_posix()
    monkeypatch.chdir(file.parent)
    relative = Catalog.read("m.csv")
    assert [relative.relative(r.path) for r in relative.records] == ["../imgs/000.png", "001.png"]
    assert relative.fingerprint() == catalog.fingerprint()


def test_one_file_with_two_spellings_is_a_duplicate(tmp_path: Path) -> None:
    message = fails(write(tmp_path, "path\na.png\n../lists/a.png\n"))
    assert "line 3" in message and "line 2" in message


def test_a_manifest_with_only_paths(tmp_path: Path) -> None:
    file = write(tmp_path, "path\nb.png\nsub/a.png\n")
    assert Catalog.read(file).records == (
        normal(file.parent / "b.png", "lists", "train"),
        normal(file.parent / "sub/a.png", "lists", "train"),
    )


def test_tabs_and_absolute_paths(tmp_path: Path) -> None:
    file = write(tmp_path, f"label\tpath\n0\t{tmp_path / 'x.png'}\n")
    assert Catalog.read(file).records == (normal(tmp_path / "x.png", "lists", "train"),)


@pytest.mark.parametrize(
    ("cells", "split", "label"),
    [
        (",,", "train", "normal"),
        (",good,", "train", "normal"),
        (",1,", "test", "anomalous"),
        (",,dent", "test", "anomalous"),
        (",,Good", "train", "normal"),
        ("train,,", "train", "normal"),
        ("test,,", "test", None),
        ("test,normal,", "test", "normal"),
        ("train,NG,", "train", "anomalous"),
        ("validation,ok,", "train", "normal"),
        ("val,defect,", "test", "anomalous"),
        ("testing,,scratch", "test", "anomalous"),
    ],
)
def test_defaults_for_empty_cells(
    cells: str, split: str, label: str | None, tmp_path: Path
) -> None:
    file = write(tmp_path, f"path,split,label,defect\na.png,{cells}\n")
    (record,) = Catalog.read(file).records
    assert (record.split, record.label) == (split, label)
    assert record.mask_known == (label == "normal")


def test_a_manifest_without_splits_has_a_fifth_held_out(tmp_path: Path) -> None:
    lines = [f"{n}.png,0" for n in range(10)] + ["x.png,1"]
    records = Catalog.read(write(tmp_path, "path,label\n" + "\n".join(lines))).records
    counts = Counter((r.split, r.label) for r in records)
    assert counts == {("train", "normal"): 8, ("test", "normal"): 2, ("test", "anomalous"): 1}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("image,label\na.png,0\n", ["m.csv", "'path'", "image, label"]),
        ("", ["m.csv", "'path'"]),
        ("path,label\na.png,0\nb.png,maybe\n", ["line 3", "label", "'maybe'", "anomalous"]),
        ("path,split\na.png,eval\n", ["line 2", "split", "'eval'", "train, test"]),
        ("path,label\n,0\n", ["line 2", "path is empty"]),
        ("path,label\na.png,0,zero\n", ["line 2", "3 cells"]),
        ("path\na.png\n.\\a.png\n", ["line 3", "line 2", "keep one"]),
        ("path,label\n", ["no images found"]),
        ("path\na\x00.png\n" + "b" * 140_000, ["m.csv"]),
    ],
)
def test_bad_manifests(text: str, parts: list[str], tmp_path: Path) -> None:
    message = fails(write(tmp_path, text))
    assert all(part in message for part in parts), message


def test_a_manifest_that_is_not_utf8(tmp_path: Path) -> None:
    assert "UTF-8" in fails(write(tmp_path, "path\nschräg.png\n", "latin-1"))


# --- VisA and Real-IAD -------------------------------------------------------------------------


def test_visa_with_windows_paths_gives_the_same_records(tmp_path: Path) -> None:
    trees.make_visa(tmp_path)
    before = Catalog.read(tmp_path).records
    file = tmp_path / "split_csv/1cls.csv"
    file.write_text(file.read_text().replace("/", "\\"))
    assert Catalog.read(tmp_path).records == before


def test_visa_without_its_list_is_split_by_name(tmp_path: Path) -> None:
    trees.make_visa(tmp_path)
    shutil.rmtree(tmp_path / "split_csv")
    catalog = Catalog.read(tmp_path)
    assert catalog.layout == "visa" and "1cls.csv" in catalog.notes[0]
    assert (len(catalog.train()), len(catalog.test())) == (10, 6)
    assert all(r.mask_known for r in catalog.test())
    assert Catalog.read(tmp_path / "plate").products == ("plate",)


def test_visa_with_a_missing_column(tmp_path: Path) -> None:
    trees.make_visa(tmp_path)
    file = tmp_path / "split_csv/1cls.csv"
    file.write_text(file.read_text().replace("object", "thing"))
    message = fails(tmp_path)
    assert "1cls.csv" in message and "'object'" in message and "thing" in message


@pytest.mark.parametrize("folder", ["realiad_512", "realiad_1024", "."])
@pytest.mark.parametrize("lists", ["realiad_jsons_sv", "realiad_jsons_fuiad_0.1", "."])
def test_real_iad_in_other_folders(folder: str, lists: str, tmp_path: Path) -> None:
    trees.make_real_iad(tmp_path)
    for product in trees.PRODUCTS:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / "realiad_256" / product).rename(tmp_path / folder / product)
        (tmp_path / lists).mkdir(exist_ok=True)
        file = tmp_path / "realiad_jsons" / f"{product}.json"
        content = json.loads(file.read_text())
        for entry in content["test"]:
            entry["image_path"] = entry["image_path"].replace("/", "\\")
        (tmp_path / lists / file.name).write_text(json.dumps(content))
        file.unlink()
    (tmp_path / "realiad_256").rmdir()
    (tmp_path / "realiad_jsons").rmdir()
    catalog = Catalog.read(tmp_path)
    assert catalog.layout == "real-iad" and len(catalog.records) == 16
    assert all(r.path.is_file() and all(m.is_file() for m in r.mask) for r in catalog.records)


def test_real_iad_products_without_images_are_skipped_and_noted(tmp_path: Path) -> None:
    trees.make_real_iad(tmp_path)
    shutil.rmtree(tmp_path / "realiad_256/plate")
    catalog = Catalog.read(tmp_path)
    assert catalog.products == ("bolt",) and "plate" in catalog.notes[0]


@pytest.mark.parametrize("text", ["{", "[]", '{"meta": {}, "train": [{}], "test": []}', "null"])
def test_a_broken_real_iad_list(text: str, tmp_path: Path) -> None:
    trees.make_real_iad(tmp_path)
    (tmp_path / "realiad_jsons/bolt.json").write_text(text)
    assert "bolt.json" in fails(tmp_path)
