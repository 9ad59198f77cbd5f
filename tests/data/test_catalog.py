"""Every layout is recognised and read exactly; errors have one clear line; fingerprints."""

from __future__ import annotations

import csv
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from snl.data.catalog import LAYOUTS, Catalog
from snl.errors import DataError
from tests import trees
from tests.data.catalogs import by_path, expected, fails, touch


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised_and_read_exactly(layout: str, tmp_path: Path) -> None:
    path = trees.MAKERS[layout](tmp_path / "data")
    by_name, detected = Catalog.read(path, layout), Catalog.read(path)
    assert by_name.records == by_path(expected(layout, tmp_path / "data"))
    assert by_name.layout == layout
    assert detected.layout == ("mvtec" if layout == "mpdd" else layout)
    assert detected.records == by_name.records
    assert detected.notes == ()
    assert detected.root == tmp_path / "data"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_file_of_a_tree_exists(layout: str, tmp_path: Path) -> None:
    catalog = Catalog.read(str(trees.MAKERS[layout](tmp_path)))
    files = [path for record in catalog.records for path in (record.path, *record.mask)]
    assert len(files) > 15
    assert all(path.is_file() for path in files)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_products_and_splits(layout: str, tmp_path: Path) -> None:
    catalog = Catalog.read(trees.MAKERS[layout](tmp_path))
    assert catalog.products == (("01", "02") if layout == "btad" else ("bolt", "plate"))
    assert Counter((r.product, r.label) for r in catalog.test()) == {
        (product, label): 2 for product in catalog.products for label in ("normal", "anomalous")
    }
    assert all(r.label == "normal" and r.split == "train" for r in catalog.train())
    assert len(catalog.train()) == (16 if layout == "folders" else 8)
    part = catalog.of(catalog.products[0])
    assert part.products == catalog.products[:1]
    assert part.layout == catalog.layout and len(part.records) * 2 == len(catalog.records)


@pytest.mark.parametrize("layout", ["manifest", "visa", "real-iad", "loco", "btad", "mvtec"])
def test_a_tree_of_another_layout_is_refused_by_name(layout: str, tmp_path: Path) -> None:
    message = fails(trees.make_flat(tmp_path), layout)
    assert str(tmp_path) in message
    assert layout in message or "manifest" in message


def test_a_given_layout_overrides_detection(tmp_path: Path) -> None:
    trees.make_mvtec(tmp_path)
    (tmp_path / "manifest.csv").write_text("path\nbolt/train/good/000.png\n")
    assert Catalog.read(tmp_path).layout == "manifest"
    assert len(Catalog.read(tmp_path).records) == 1
    assert len(Catalog.read(tmp_path, "MVTec").records) == 16


def test_real_iad_by_another_spelling(tmp_path: Path) -> None:
    assert Catalog.read(trees.make_real_iad(tmp_path), "Real_IAD").layout == "real-iad"


def test_paths_without_a_data_set(tmp_path: Path) -> None:
    touch(tmp_path, "file.txt", "docs/readme.md")
    assert "does not exist" in fails(tmp_path / "nothing")
    assert "file.txt" in fails(tmp_path / "file.txt")
    assert "file.txt" in fails(tmp_path / "file.txt", "mvtec")
    assert "no images found" in fails(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "no images found" in fails(tmp_path / "empty")


def test_an_unknown_layout_or_product_gets_suggestions(tmp_path: Path) -> None:
    trees.make_flat(tmp_path)
    message = fails(tmp_path, "mvtek")
    assert "did you mean mvtec?" in message and "real-iad" in message
    with pytest.raises(DataError, match=r"did you mean plate\?"):
        Catalog.read(tmp_path).of("plates")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("snl.data.listing.os.scandir", refuse)
    assert "Permission denied" in fails(tmp_path)


# --- fingerprint -------------------------------------------------------------------------------


def test_a_copy_has_the_same_fingerprint(tmp_path: Path) -> None:
    original = Catalog.read(trees.make_mvtec(tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "elsewhere" / "two")
    copy = Catalog.read(tmp_path / "elsewhere" / "two")
    assert original.fingerprint() == copy.fingerprint()
    assert len(original.fingerprint()) == 64


def test_the_fingerprint_changes_only_with_training_images(tmp_path: Path) -> None:
    root = trees.make_mvtec(tmp_path)
    fingerprints = {Catalog.read(root).fingerprint()}
    (root / "bolt/test/good/000.png").unlink()
    assert Catalog.read(root).fingerprint() in fingerprints
    for change in range(3):
        if change == 0:
            with (root / "bolt/train/good/000.png").open("ab") as file:
                file.write(b"x")
        elif change == 1:
            (root / "bolt/train/good/001.png").rename(root / "bolt/train/good/101.png")
        else:
            (root / "plate").rename(root / "disc")
        fingerprint = Catalog.read(root).fingerprint()
        assert fingerprint not in fingerprints
        fingerprints.add(fingerprint)


def test_the_fingerprint_of_missing_files(tmp_path: Path) -> None:
    with (tmp_path / "m.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path"], ["gone.png"], ["/nowhere/gone2.png"]])
    assert len(Catalog.read(tmp_path / "m.csv").fingerprint()) == 64
