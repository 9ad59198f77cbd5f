"""Every layout is found, read exactly, and refused in one clear line where it is broken."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from snl.data.catalog import LAYOUTS, Catalog, Record
from snl.data.layouts import images_in
from snl.errors import DataError, DependencyError
from tests import trees


def normal(path: Path, product: str, split: str) -> Record:
    return Record(path, product, split, "normal", (), True, "good")  # type: ignore[arg-type]


def anomalous(path: Path, product: str, defect: str, *masks: Path) -> Record:
    return Record(path, product, "test", "anomalous", masks, bool(masks), defect)


def by_path(records: list[Record]) -> tuple[Record, ...]:
    return tuple(sorted(records, key=lambda record: record.path.as_posix()))


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))


def summary(root: Path, catalog: Catalog) -> dict[str, tuple[str, str, str | None, str]]:
    return {
        r.path.relative_to(root).as_posix(): (r.product, r.split, r.label, r.defect)
        for r in catalog.records
    }


def fails(root: Path, layout: str = "auto") -> str:
    with pytest.raises(DataError) as caught:
        Catalog.read(root, layout)
    message = str(caught.value)
    assert "\n" not in message
    return message


def expected(layout: str, root: Path) -> list[Record]:
    """The records of the trees, written out from what each data set's description says."""
    records: list[Record] = []
    for product in ("01", "02") if layout == "btad" else trees.PRODUCTS:
        p = root / product
        if layout in ("mvtec", "mpdd"):
            kind = {"mvtec": "dent", "mpdd": "parts_mismatch"}[layout]
            records += [
                *(normal(p / f"train/good/00{n}.png", product, "train") for n in range(4)),
                *(normal(p / f"test/good/00{n}.png", product, "test") for n in range(2)),
                *(
                    anomalous(
                        p / f"test/{kind}/00{n}.png",
                        product,
                        kind,
                        p / f"ground_truth/{kind}/00{n}_mask.png",
                    )
                    for n in range(2)
                ),
            ]
        elif layout == "btad":
            image, mask = ("bmp", "png") if product == "01" else ("png", "bmp")
            records += [
                *(normal(p / f"train/ok/000{n}.{image}", product, "train") for n in range(4)),
                *(normal(p / f"test/ok/000{n}.{image}", product, "test") for n in range(2)),
                *(
                    anomalous(
                        p / f"test/ko/000{n}.{image}",
                        product,
                        "ko",
                        p / f"ground_truth/ko/000{n}.{mask}",
                    )
                    for n in range(2)
                ),
            ]
        elif layout == "loco":
            records += [
                *(normal(p / f"train/good/00{n}.png", product, "train") for n in range(3)),
                normal(p / "validation/good/000.png", product, "train"),
                *(normal(p / f"test/good/00{n}.png", product, "test") for n in range(2)),
            ]
            for kind in ("logical_anomalies", "structural_anomalies"):
                masks = [p / f"ground_truth/{kind}/000/00{n}.png" for n in range(2)]
                records.append(anomalous(p / f"test/{kind}/000.png", product, kind, *masks))
        elif layout == "visa":
            images = p / "Data/Images"
            records += [
                *(normal(images / f"Normal/000{n}.JPG", product, "train") for n in range(4)),
                *(normal(images / f"Normal/000{n}.JPG", product, "test") for n in (4, 5)),
                *(
                    anomalous(
                        images / f"Anomaly/00{n}.JPG",
                        product,
                        "",
                        p / f"Data/Masks/Anomaly/00{n}.png",
                    )
                    for n in range(2)
                ),
            ]
        elif layout == "real-iad":
            q = root / "realiad_256" / product
            for n in range(6):
                path = q / f"OK/S000{n}/{product}_000{n}_OK_C1.jpg"
                records.append(normal(path, product, "train" if n < 4 else "test"))
            for n in range(2):
                stem = f"NG/BX/S000{n}/{product}_000{n}_NG_BX_C1"
                records.append(anomalous(q / f"{stem}.jpg", product, "BX", q / f"{stem}.png"))
        elif layout == "manifest":
            images = root / "images" / product
            records += [
                *(normal(images / f"00{n}.png", product, "train") for n in range(4)),
                *(normal(images / f"00{n}.png", product, "test") for n in (4, 5)),
                *(
                    anomalous(
                        images / f"bad_{n}.png",
                        product,
                        "dent",
                        root / f"masks/{product}/bad_{n}.png",
                    )
                    for n in range(2)
                ),
            ]
        else:
            # Fixed by SHA-256 of the names: sha256sum of `OK/000.jpg`, ... smallest two.
            held_out = {"OK/008.jpg", "OK/002.jpg"}
            for n in range(10):
                name = f"OK/00{n}.jpg"
                split = "test" if name in held_out else "train"
                records.append(normal(p / name, product, split))
            for n in range(2):
                mask = p / f"masks/NG/00{n}.png"
                records.append(anomalous(p / f"NG/00{n}.jpg", product, "NG", mask))
    return records


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised_and_read_exactly(layout: str, tmp_path: Path) -> None:
    given = trees.MAKERS[layout](tmp_path / "data")
    by_name, found = Catalog.read(given, layout), Catalog.read(given)
    assert by_name.records == by_path(expected(layout, tmp_path / "data"))
    assert by_name.layout == layout
    assert found.layout == ("mvtec" if layout == "mpdd" else layout)
    assert found.records == by_name.records
    assert found.notes == ()
    assert found.root == tmp_path / "data"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_file_of_a_tree_exists(layout: str, tmp_path: Path) -> None:
    catalog = Catalog.read(str(trees.MAKERS[layout](tmp_path)))
    files = [path for record in catalog.records for path in (record.path, *record.mask)]
    assert len(files) > 15
    assert all(path.is_file() for path in files)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_train_and_test_and_products(layout: str, tmp_path: Path) -> None:
    catalog = Catalog.read(trees.MAKERS[layout](tmp_path))
    assert catalog.products == (("01", "02") if layout == "btad" else ("bolt", "plate"))
    assert Counter((r.product, r.label) for r in catalog.test()) == {
        (product, label): 2 for product in catalog.products for label in ("normal", "anomalous")
    }
    assert all(r.label == "normal" and r.split == "train" for r in catalog.train())
    assert len(catalog.train()) == (16 if layout == "folders" else 8)
    one = catalog.of(catalog.products[0])
    assert one.products == catalog.products[:1]
    assert one.layout == catalog.layout and len(one.records) * 2 == len(catalog.records)


@pytest.mark.parametrize("layout", ["manifest", "visa", "real-iad", "loco", "btad", "mvtec"])
def test_a_tree_of_another_layout_is_refused_by_name(layout: str, tmp_path: Path) -> None:
    message = fails(trees.make_flat(tmp_path), layout)
    assert str(tmp_path) in message
    assert layout in message or "manifest" in message


def test_an_override_wins_over_what_is_found(tmp_path: Path) -> None:
    trees.make_mvtec(tmp_path)
    (tmp_path / "manifest.csv").write_text("path\nbolt/train/good/000.png\n")
    assert Catalog.read(tmp_path).layout == "manifest"
    assert len(Catalog.read(tmp_path).records) == 1
    assert len(Catalog.read(tmp_path, "MVTec").records) == 16


def test_real_iad_by_another_spelling(tmp_path: Path) -> None:
    assert Catalog.read(trees.make_real_iad(tmp_path), "Real_IAD").layout == "real-iad"


# --- folder trees ------------------------------------------------------------------------------


def test_one_product_given_directly(tmp_path: Path) -> None:
    catalog = Catalog.read(trees.make_one_product(tmp_path))
    assert (catalog.layout, catalog.products) == ("mvtec", ("bolt",))
    assert (len(catalog.train()), len(catalog.test())) == (4, 4)


def test_the_current_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trees.make_one_product(tmp_path))
    catalog = Catalog.read(".")
    assert catalog.products == ("bolt",)
    assert catalog.records[0].path.is_file()


def test_a_missing_mask_is_unknown_and_not_empty(tmp_path: Path) -> None:
    trees.make_mvtec(tmp_path)
    (tmp_path / "bolt/ground_truth/dent/001_mask.png").unlink()
    shutil.rmtree(tmp_path / "plate/ground_truth")
    known = {
        catalog_path.relative_to(tmp_path).as_posix(): (mask_known, mask)
        for catalog_path, mask_known, mask in (
            (r.path, r.mask_known, r.mask) for r in Catalog.read(tmp_path).test()
        )
    }
    mask = tmp_path / "bolt/ground_truth/dent/000_mask.png"
    assert known["bolt/test/dent/000.png"] == (True, (mask,))
    assert known["bolt/test/dent/001.png"] == (False, ())
    assert known["plate/test/dent/000.png"] == (False, ())
    assert known["plate/test/good/000.png"] == (True, ())


def test_masks_without_a_suffix_and_nested_ones(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "p/train/good/0.png",
        "p/test/cut/0.jpg",
        "p/test/cut/line2/0.jpg",
        "p/ground_truth/cut/0.png",
        "p/ground_truth/cut/line2/0_mask.png",
    )
    masks = {r.path: r.mask for r in Catalog.read(tmp_path).test()}
    gt = tmp_path / "p/ground_truth/cut"
    assert masks == {
        tmp_path / "p/test/cut/0.jpg": (gt / "0.png",),
        tmp_path / "p/test/cut/line2/0.jpg": (gt / "line2/0_mask.png",),
    }


def test_what_lies_beside_the_products_is_noted(tmp_path: Path) -> None:
    trees.make_mvtec(tmp_path)
    touch(tmp_path, "previews/a.png", "licences/readme.txt")
    catalog = Catalog.read(tmp_path)
    assert catalog.products == ("bolt", "plate")
    assert len(catalog.notes) == 1 and "previews" in catalog.notes[0]


def test_anomalous_training_images_are_kept_but_not_trained_on(tmp_path: Path) -> None:
    trees.make_mvtec(tmp_path)
    trees.save_part(tmp_path / "bolt/train/bad/000.png", 999, defect=True)
    catalog = Catalog.read(tmp_path)
    odd = [r for r in catalog.records if r.split == "train" and r.label == "anomalous"]
    assert [r.path.name for r in odd] == ["000.png"]
    assert odd[0] not in catalog.train() and odd[0] not in catalog.test()


def test_unlabelled_test_images_are_recorded_but_not_measured_on(tmp_path: Path) -> None:
    touch(tmp_path, "p/train/1.png", "p/train/2.png", "p/test/3.png", "p/test/bad/4.png")
    catalog = Catalog.read(tmp_path)
    assert summary(tmp_path, catalog) == {
        "p/train/1.png": ("p", "train", "normal", "good"),
        "p/train/2.png": ("p", "train", "normal", "good"),
        "p/test/3.png": ("p", "test", None, ""),
        "p/test/bad/4.png": ("p", "test", "anomalous", "bad"),
    }
    assert [r.path.name for r in catalog.test()] == ["4.png"]
    assert not catalog.records[0].mask_known


def test_validation_stands_in_for_a_missing_test_set(tmp_path: Path) -> None:
    touch(tmp_path, "p/Train/good/1.png", "p/val/good/2.png", "p/val/scuffed/3.png")
    with pytest.raises(DataError):
        Catalog.read(tmp_path, "btad")
    touch(tmp_path, "q/train/good/1.png", "q/val/good/2.png", "q/val/bad/4.png", "q/test/ok/3.png")
    splits = {k: v[1] for k, v in summary(tmp_path, Catalog.read(tmp_path)).items()}
    assert splits == {
        "p/Train/good/1.png": "train",
        "p/val/good/2.png": "test",
        "p/val/scuffed/3.png": "test",
        "q/train/good/1.png": "train",
        "q/val/good/2.png": "train",
        "q/val/bad/4.png": "test",
        "q/test/ok/3.png": "test",
    }


def test_split_before_product_is_refused_and_not_misread(tmp_path: Path) -> None:
    touch(tmp_path, "train/bolt/good/1.png", "test/bolt/good/2.png", "test/bolt/bad/3.png")
    assert "bolt" in fails(tmp_path)


# --- plain folders -----------------------------------------------------------------------------


def test_flat_folders_are_all_normal(tmp_path: Path) -> None:
    catalog = Catalog.read(trees.make_flat(tmp_path))
    assert catalog.layout == "folders"
    assert len(catalog.train()) == len(catalog.records) == 8
    assert catalog.products == ("bolt", "plate")


def test_images_directly_in_the_root_are_one_product(tmp_path: Path) -> None:
    root = tmp_path / "washers"
    touch(
        root, "a.jpg", "b.PNG", "c.TiF", "notes.txt", ".hidden.png", "Thumbs.db", "__MACOSX/a.jpg"
    )
    found = summary(root, Catalog.read(root))
    assert list(found) == ["a.jpg", "b.PNG", "c.TiF"]
    assert set(found.values()) == {("washers", "train", "normal", "good")}


@pytest.mark.parametrize("good", ["good", "OK", "Normal", "Pass"])
@pytest.mark.parametrize("bad", ["bad", "NG", "nok", "Fail", "reject", "cracked_left"])
@pytest.mark.parametrize("inside", ["", "valve"])
def test_good_beside_bad(good: str, bad: str, inside: str, tmp_path: Path) -> None:
    root = tmp_path / "parts"
    base = f"{inside}/" if inside else ""
    product = inside or "parts"
    touch(root, *(f"{base}{good}/{n}.png" for n in range(5)), f"{base}{bad}/0.png")
    found = summary(root, Catalog.read(root))
    assert found[f"{base}{bad}/0.png"] == (product, "test", "anomalous", bad)
    goods = [v for k, v in found.items() if k.startswith(f"{base}{good}/")]
    assert Counter(goods) == {
        (product, "train", "normal", "good"): 4,
        (product, "test", "normal", "good"): 1,
    }


def test_loose_images_beside_a_folder_of_defects_are_normal(tmp_path: Path) -> None:
    touch(tmp_path, *(f"p/{n}.png" for n in range(10)), "p/defect/x.png")
    labels = Counter((r.split, r.label) for r in Catalog.read(tmp_path).records)
    assert labels == {("train", "normal"): 8, ("test", "normal"): 2, ("test", "anomalous"): 1}


def test_loose_images_beside_a_folder_of_normals_are_left_out_and_noted(tmp_path: Path) -> None:
    touch(tmp_path, "p/good/1.png", "p/good/2.png", "p/overview.png")
    catalog = Catalog.read(tmp_path)
    assert [r.path.name for r in catalog.records] == ["1.png", "2.png"]
    assert "overview.png" in catalog.notes[0]


def test_only_defects_leave_nothing_to_train_on(tmp_path: Path) -> None:
    touch(tmp_path, "p/bad/1.png", "p/bad/2.png")
    catalog = Catalog.read(tmp_path)
    assert catalog.train() == () and len(catalog.test()) == 2


def test_the_held_out_fifth_does_not_depend_on_place_or_order(tmp_path: Path) -> None:
    names = [f"ok/{n:04}.png" for n in range(53)]
    touch(tmp_path / "one" / "p", *names, "ng/0.png")
    touch(tmp_path / "two" / "x" / "p", *reversed(names), "ng/0.png")

    def held_out(root: Path) -> list[str]:
        records = Catalog.read(root).test()
        return [r.path.name for r in records if r.label == "normal"]

    one, two = held_out(tmp_path / "one"), held_out(tmp_path / "two" / "x")
    assert one == two and len(one) == 10
    touch(tmp_path / "one" / "p", "ok/9999.png")
    assert len(set(held_out(tmp_path / "one")) ^ set(one)) <= 2


def test_masks_directly_in_their_folder_only_where_one_kind_owns_them(tmp_path: Path) -> None:
    touch(tmp_path, "p/ok/1.png", "p/ok/2.png", "p/dent/0.png", "p/masks/0.png")
    (record,) = [r for r in Catalog.read(tmp_path).test() if r.label == "anomalous"]
    assert record.mask == (tmp_path / "p/masks/0.png",)
    touch(tmp_path, "p/stain/0.png")
    records = [r for r in Catalog.read(tmp_path).test() if r.label == "anomalous"]
    assert [(r.defect, r.mask_known) for r in records] == [("dent", False), ("stain", False)]


def test_nested_images_are_taken_as_normal_and_noted(tmp_path: Path) -> None:
    touch(tmp_path, "p/2026-01/a.png", "p/2026-02/cam1/b.png")
    catalog = Catalog.read(tmp_path)
    assert [r.path.name for r in catalog.train()] == ["a.png", "b.png"]
    assert "2 images" in catalog.notes[0]


@pytest.mark.parametrize("layout", ["mvtec", "btad", "loco", "visa", "real-iad", "folders"])
def test_a_folder_above_the_data_set_is_refused(layout: str, tmp_path: Path) -> None:
    trees.MAKERS[layout](tmp_path / "par" / "mv")
    assert f"give {tmp_path / 'par' / 'mv'} as the data set" in fails(tmp_path / "par")
    touch(tmp_path, "par/loupe/1.png")
    assert f"give {tmp_path / 'par' / 'mv'} as the data set" in fails(tmp_path / "par")
    if layout not in ("visa", "real-iad"):  # two levels are too many as well
        assert f"give {tmp_path / 'par' / 'mv'} as the data set" in fails(tmp_path)


@pytest.mark.parametrize("name", ["train", "Test", "val", "ground_truth", "good", "BAD", "masks"])
def test_a_split_label_or_mask_below_a_product_is_refused(name: str, tmp_path: Path) -> None:
    touch(tmp_path, f"p/cam1/{name}/1.png", "p/cam2/2.png")
    message = fails(tmp_path)
    assert f"{tmp_path / 'p' / 'cam1'} has a folder {name}" in message
    (tmp_path / "p/cam1" / name / "1.png").unlink()
    assert len(Catalog.read(tmp_path).train()) == 1


def test_products_below_a_split_are_refused_without_a_test_set(tmp_path: Path) -> None:
    touch(tmp_path, "train/bolt/good/1.png", "train/bolt/good/2.png")
    assert "put products first, as bolt/train/..." in fails(tmp_path)


@pytest.mark.parametrize("good", ["i.O", "IO", "Gut", "Gutteile", "accepted"])
@pytest.mark.parametrize("bad", ["n.i.O.", "NIO", "schlecht", "Schlechtteil", "Ausschuß", "scrap"])
def test_words_of_plants(good: str, bad: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"p/{good}/{n}.png" for n in range(5)), f"p/{bad}/0.png")
    labels = Counter((r.split, r.label) for r in Catalog.read(tmp_path).records)
    assert labels == {("train", "normal"): 4, ("test", "normal"): 1, ("test", "anomalous"): 1}
    touch(tmp_path, f"only/{bad}/0.png")
    assert Catalog.read(tmp_path).of("only").train() == ()


@pytest.mark.parametrize("word", ["pass", "hole", "Train", "val"])
def test_a_product_named_as_a_label_is_a_product(word: str, tmp_path: Path) -> None:
    touch(tmp_path, "bolt/1.png", "bolt/2.png", f"{word}/3.png", f"{word}/4.png")
    catalog = Catalog.read(tmp_path)
    assert catalog.products == tuple(sorted(["bolt", word]))
    assert len(catalog.train()) == 4
    if word in ("pass", "hole"):
        assert f"folder names {word} were taken as products" in catalog.notes[0]


def test_labels_of_one_product_are_noted(tmp_path: Path) -> None:
    root = tmp_path / "bolt"
    touch(root, "ok/1.png", "ok/2.png", "ng/3.png", "blurred/4.png", "masks/ng/3.png")
    catalog = Catalog.read(root)
    assert catalog.products == ("bolt",)
    assert Counter(r.label for r in catalog.records) == {"normal": 2, "anomalous": 2}
    assert len(catalog.notes) == 1 and "ng, ok were taken as labels" in catalog.notes[0]


def test_other_folders_beside_train_and_test_are_no_products(tmp_path: Path) -> None:
    touch(tmp_path / "bolt", "train/1.png", "train/2.png", "test/bad/3.png", "previews/4.png")
    catalog = Catalog.read(tmp_path / "bolt")
    assert catalog.products == ("bolt",) and len(catalog.records) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 there")
def test_a_product_whose_name_is_not_utf8(tmp_path: Path) -> None:
    touch(tmp_path, "bolt/1.png", "sp\udcfcle/1.png")
    message = fails(tmp_path)
    assert "'sp\\udcfcle'" in message and "rename it" in message


def test_images_in_a_folder_for_inspection(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.PNG", "b/a/1.jpg", "b/c.png", "b.png", "notes.txt", ".cache/x.png")
    touch(tmp_path, "._b.png", "__MACOSX/b.png", "Ground_Truth/b.png", "b/masks/b/2.png")
    names = [p.relative_to(tmp_path).as_posix() for p in images_in(tmp_path)]
    assert names == ["b/2.PNG", "b/a/1.jpg", "b/c.png", "b.png"]
    assert [p.name for p in images_in(tmp_path / "Ground_Truth")] == ["b.png"]


def test_images_beside_products_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "bolt/1.png")
    message = fails(tmp_path)
    assert "a.png" in message and "bolt" in message


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "1.png")
    root = tmp_path / "data"
    root.mkdir()
    (root / "p").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(root)
    (tmp_path / "elsewhere" / "broken.png").symlink_to(tmp_path / "gone.png")
    assert [r.path.name for r in Catalog.read(root).records] == ["1.png", "broken.png"]


# --- manifests ---------------------------------------------------------------------------------


def write(root: Path, text: str, encoding: str = "utf-8") -> Path:
    file = root / "lists" / "m.csv"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text.encode(encoding))
    return file


def test_parquet_reads_as_csv_does(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    given = trees.make_parquet(tmp_path)
    assert Catalog.read(given).records == by_path(expected("manifest", tmp_path))


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


def test_paths_that_lead_out_of_the_root_are_not_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, "path\n../imgs/000.png\nsub/../001.png\n")
    touch(tmp_path, "imgs/000.png", "lists/001.png")
    catalog = Catalog.read(tmp_path / "imgs" / ".." / "lists" / "m.csv")
    assert catalog.root == file.parent
    paths = [r.path for r in catalog.records]
    assert paths == [tmp_path / "imgs/000.png", tmp_path / "lists/001.png"]
    assert [p.is_relative_to(catalog.root) for p in paths] == [False, True]
    assert catalog.relative(paths[0]) == paths[0].as_posix()
    monkeypatch.chdir(file.parent)
    here = Catalog.read("m.csv")
    assert [here.relative(r.path) for r in here.records] == ["../imgs/000.png", "001.png"]
    assert here.fingerprint() == catalog.fingerprint()


def test_one_file_under_two_spellings_is_listed_twice(tmp_path: Path) -> None:
    message = fails(write(tmp_path, "path\na.png\n../lists/a.png\n"))
    assert "line 3" in message and "line 2" in message


def test_only_paths(tmp_path: Path) -> None:
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
def test_what_follows_from_cells_left_empty(
    cells: str, split: str, label: str | None, tmp_path: Path
) -> None:
    file = write(tmp_path, f"path,split,label,defect\na.png,{cells}\n")
    (record,) = Catalog.read(file).records
    assert (record.split, record.label) == (split, label)
    assert record.mask_known == (label == "normal")


def test_a_manifest_without_splits_holds_out_a_fifth(tmp_path: Path) -> None:
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


def test_visa_with_windows_paths_reads_the_same(tmp_path: Path) -> None:
    trees.make_visa(tmp_path)
    before = Catalog.read(tmp_path).records
    file = tmp_path / "split_csv/1cls.csv"
    file.write_text(file.read_text().replace("/", "\\"))
    assert Catalog.read(tmp_path).records == before


def test_visa_without_its_list_is_shared_out(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("place", ["realiad_512", "realiad_1024", "."])
@pytest.mark.parametrize("lists", ["realiad_jsons_sv", "realiad_jsons_fuiad_0.1", "."])
def test_real_iad_in_other_places(place: str, lists: str, tmp_path: Path) -> None:
    trees.make_real_iad(tmp_path)
    for product in trees.PRODUCTS:
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / "realiad_256" / product).rename(tmp_path / place / product)
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


def test_real_iad_products_without_images_are_left_out_and_noted(tmp_path: Path) -> None:
    trees.make_real_iad(tmp_path)
    shutil.rmtree(tmp_path / "realiad_256/plate")
    catalog = Catalog.read(tmp_path)
    assert catalog.products == ("bolt",) and "plate" in catalog.notes[0]


@pytest.mark.parametrize("text", ["{", "[]", '{"meta": {}, "train": [{}], "test": []}', "null"])
def test_a_broken_real_iad_list(text: str, tmp_path: Path) -> None:
    trees.make_real_iad(tmp_path)
    (tmp_path / "realiad_jsons/bolt.json").write_text(text)
    assert "bolt.json" in fails(tmp_path)


# --- what is no data set -----------------------------------------------------------------------


def test_no_data_set(tmp_path: Path) -> None:
    touch(tmp_path, "file.txt", "docs/readme.md")
    assert "does not exist" in fails(tmp_path / "nothing")
    assert "file.txt" in fails(tmp_path / "file.txt")
    assert "file.txt" in fails(tmp_path / "file.txt", "mvtec")
    assert "no images found" in fails(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "no images found" in fails(tmp_path / "empty")


def test_an_unknown_layout_or_product_names_the_known(tmp_path: Path) -> None:
    trees.make_flat(tmp_path)
    message = fails(tmp_path, "mvtek")
    assert "did you mean mvtec?" in message and "real-iad" in message
    with pytest.raises(DataError, match=r"did you mean plate\?"):
        Catalog.read(tmp_path).of("plates")


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are others there")
def test_a_folder_that_may_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("snl.data.layouts.os.scandir", refuse)
    assert "Permission denied" in fails(tmp_path)


# --- fingerprint -------------------------------------------------------------------------------


def test_the_fingerprint_is_that_of_every_copy(tmp_path: Path) -> None:
    one = Catalog.read(trees.make_mvtec(tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "elsewhere" / "two")
    two = Catalog.read(tmp_path / "elsewhere" / "two")
    assert one.fingerprint() == two.fingerprint()
    assert len(one.fingerprint()) == 64


def test_the_fingerprint_changes_with_what_is_trained_on_only(tmp_path: Path) -> None:
    root = trees.make_mvtec(tmp_path)
    seen = {Catalog.read(root).fingerprint()}
    (root / "bolt/test/good/000.png").unlink()
    assert Catalog.read(root).fingerprint() in seen
    for change in range(3):
        if change == 0:
            with (root / "bolt/train/good/000.png").open("ab") as file:
                file.write(b"x")
        elif change == 1:
            (root / "bolt/train/good/001.png").rename(root / "bolt/train/good/101.png")
        else:
            (root / "plate").rename(root / "disc")
        fingerprint = Catalog.read(root).fingerprint()
        assert fingerprint not in seen
        seen.add(fingerprint)


def test_the_fingerprint_of_missing_files(tmp_path: Path) -> None:
    with (tmp_path / "m.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path"], ["gone.png"], ["/nowhere/gone2.png"]])
    assert len(Catalog.read(tmp_path / "m.csv").fingerprint()) == 64
