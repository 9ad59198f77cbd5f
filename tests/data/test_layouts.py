"""Folder trees: splits, labels, masks, and ambiguous names."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from snl.data.catalog import Catalog
from snl.data.pairing import images_in
from snl.errors import DataError
from tests import trees
from tests.data.catalogs import fails, summary, touch


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
    masks = {
        catalog_path.relative_to(tmp_path).as_posix(): (mask_known, mask)
        for catalog_path, mask_known, mask in (
            (r.path, r.mask_known, r.mask) for r in Catalog.read(tmp_path).test()
        )
    }
    mask = tmp_path / "bolt/ground_truth/dent/000_mask.png"
    assert masks["bolt/test/dent/000.png"] == (True, (mask,))
    assert masks["bolt/test/dent/001.png"] == (False, ())
    assert masks["plate/test/dent/000.png"] == (False, ())
    assert masks["plate/test/good/000.png"] == (True, ())


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


def test_folders_beside_the_products_are_noted(tmp_path: Path) -> None:
    trees.make_mvtec(tmp_path)
    touch(tmp_path, "previews/a.png", "licences/readme.txt")
    catalog = Catalog.read(tmp_path)
    assert catalog.products == ("bolt", "plate")
    assert len(catalog.notes) == 1 and "previews" in catalog.notes[0]


def test_anomalous_training_images_are_listed_but_in_no_split(tmp_path: Path) -> None:
    trees.make_mvtec(tmp_path)
    trees.save_part(tmp_path / "bolt/train/bad/000.png", 999, defect=True)
    catalog = Catalog.read(tmp_path)
    anomalous = [r for r in catalog.records if r.split == "train" and r.label == "anomalous"]
    assert [r.path.name for r in anomalous] == ["000.png"]
    assert anomalous[0] not in catalog.train() and anomalous[0] not in catalog.test()


def test_unlabelled_test_images_are_listed_but_not_test_images(tmp_path: Path) -> None:
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


def test_validation_is_the_test_set_if_there_is_no_other(tmp_path: Path) -> None:
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


def test_splits_above_products_are_refused(tmp_path: Path) -> None:
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
    records = summary(root, Catalog.read(root))
    assert list(records) == ["a.jpg", "b.PNG", "c.TiF"]
    assert set(records.values()) == {("washers", "train", "normal", "good")}


@pytest.mark.parametrize("good", ["good", "OK", "Normal", "Pass"])
@pytest.mark.parametrize("bad", ["bad", "NG", "nok", "Fail", "reject", "cracked_left"])
@pytest.mark.parametrize("inside", ["", "valve"])
def test_good_beside_bad(good: str, bad: str, inside: str, tmp_path: Path) -> None:
    root = tmp_path / "parts"
    base = f"{inside}/" if inside else ""
    product = inside or "parts"
    touch(root, *(f"{base}{good}/{n}.png" for n in range(5)), f"{base}{bad}/0.png")
    records = summary(root, Catalog.read(root))
    assert records[f"{base}{bad}/0.png"] == (product, "test", "anomalous", bad)
    goods = [v for k, v in records.items() if k.startswith(f"{base}{good}/")]
    assert Counter(goods) == {
        (product, "train", "normal", "good"): 4,
        (product, "test", "normal", "good"): 1,
    }


def test_loose_images_beside_a_folder_of_defects_are_normal(tmp_path: Path) -> None:
    touch(tmp_path, *(f"p/{n}.png" for n in range(10)), "p/defect/x.png")
    labels = Counter((r.split, r.label) for r in Catalog.read(tmp_path).records)
    assert labels == {("train", "normal"): 8, ("test", "normal"): 2, ("test", "anomalous"): 1}


def test_loose_images_beside_a_folder_of_normals_are_skipped_and_noted(tmp_path: Path) -> None:
    touch(tmp_path, "p/good/1.png", "p/good/2.png", "p/overview.png")
    catalog = Catalog.read(tmp_path)
    assert [r.path.name for r in catalog.records] == ["1.png", "2.png"]
    assert "overview.png" in catalog.notes[0]


def test_a_product_with_only_defects_has_no_training_images(tmp_path: Path) -> None:
    touch(tmp_path, "p/bad/1.png", "p/bad/2.png")
    catalog = Catalog.read(tmp_path)
    assert catalog.train() == () and len(catalog.test()) == 2


def test_the_held_out_fifth_does_not_depend_on_location_or_order(tmp_path: Path) -> None:
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


def test_masks_directly_in_the_mask_folder_need_a_single_kind_of_defect(tmp_path: Path) -> None:
    touch(tmp_path, "p/ok/1.png", "p/ok/2.png", "p/dent/0.png", "p/masks/0.png")
    (record,) = [r for r in Catalog.read(tmp_path).test() if r.label == "anomalous"]
    assert record.mask == (tmp_path / "p/masks/0.png",)
    touch(tmp_path, "p/stain/0.png")
    records = [r for r in Catalog.read(tmp_path).test() if r.label == "anomalous"]
    assert [(r.defect, r.mask_known) for r in records] == [("dent", False), ("stain", False)]


def test_nested_images_are_read_as_normal_and_noted(tmp_path: Path) -> None:
    touch(tmp_path, "p/2026-01/a.png", "p/2026-02/cam1/b.png")
    catalog = Catalog.read(tmp_path)
    assert [r.path.name for r in catalog.train()] == ["a.png", "b.png"]
    assert "2 images" in catalog.notes[0]


@pytest.mark.parametrize("layout", ["mvtec", "btad", "loco", "visa", "real-iad", "folders"])
def test_the_parent_folder_of_a_data_set_is_refused(layout: str, tmp_path: Path) -> None:
    trees.MAKERS[layout](tmp_path / "par" / "mv")
    assert f"give {tmp_path / 'par' / 'mv'} as the data set" in fails(tmp_path / "par")
    touch(tmp_path, "par/loupe/1.png")
    assert f"give {tmp_path / 'par' / 'mv'} as the data set" in fails(tmp_path / "par")
    if layout not in ("visa", "real-iad"):  # two levels above is refused as well
        assert f"give {tmp_path / 'par' / 'mv'} as the data set" in fails(tmp_path)


@pytest.mark.parametrize("name", ["train", "Test", "val", "ground_truth", "good", "BAD", "masks"])
def test_a_split_label_or_mask_folder_below_a_product_folder_is_refused(
    name: str, tmp_path: Path
) -> None:
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
def test_common_words_for_labels(good: str, bad: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"p/{good}/{n}.png" for n in range(5)), f"p/{bad}/0.png")
    labels = Counter((r.split, r.label) for r in Catalog.read(tmp_path).records)
    assert labels == {("train", "normal"): 4, ("test", "normal"): 1, ("test", "anomalous"): 1}
    touch(tmp_path, f"only/{bad}/0.png")
    assert Catalog.read(tmp_path).of("only").train() == ()


@pytest.mark.parametrize("word", ["pass", "hole", "Train", "val"])
def test_a_product_may_have_the_name_of_a_label(word: str, tmp_path: Path) -> None:
    touch(tmp_path, "bolt/1.png", "bolt/2.png", f"{word}/3.png", f"{word}/4.png")
    catalog = Catalog.read(tmp_path)
    assert catalog.products == tuple(sorted(["bolt", word]))
    assert len(catalog.train()) == 4
    if word in ("pass", "hole"):
        assert f"folder names {word} were read as products" in catalog.notes[0]


def test_labels_of_one_product_are_noted(tmp_path: Path) -> None:
    root = tmp_path / "bolt"
    touch(root, "ok/1.png", "ok/2.png", "ng/3.png", "blurred/4.png", "masks/ng/3.png")
    catalog = Catalog.read(root)
    assert catalog.products == ("bolt",)
    assert Counter(r.label for r in catalog.records) == {"normal": 2, "anomalous": 2}
    assert len(catalog.notes) == 1 and "ng, ok were read as labels" in catalog.notes[0]


def test_other_folders_beside_train_and_test_are_not_products(tmp_path: Path) -> None:
    touch(tmp_path / "bolt", "train/1.png", "train/2.png", "test/bad/3.png", "previews/4.png")
    catalog = Catalog.read(tmp_path / "bolt")
    assert catalog.products == ("bolt",) and len(catalog.records) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes only on Linux")
def test_a_product_whose_name_is_not_utf8(tmp_path: Path) -> None:
    touch(tmp_path, "bolt/1.png", "sp\udcfcle/1.png")
    message = fails(tmp_path)
    assert "'sp\\udcfcle'" in message and "rename it" in message


def test_images_in_lists_images_without_masks(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.PNG", "b/a/1.jpg", "b/c.png", "b.png", "notes.txt", ".cache/x.png")
    touch(tmp_path, "._b.png", "__MACOSX/b.png", "Ground_Truth/b.png", "b/masks/b/2.png")
    names = [p.relative_to(tmp_path).as_posix() for p in images_in(tmp_path)]
    assert names == ["b/2.PNG", "b/a/1.jpg", "b/c.png", "b.png"]
    assert [p.name for p in images_in(tmp_path / "Ground_Truth")] == ["b.png"]


def test_images_beside_products_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "bolt/1.png")
    message = fails(tmp_path)
    assert "a.png" in message and "bolt" in message


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_links_are_followed_but_not_in_cycles(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "1.png")
    root = tmp_path / "data"
    root.mkdir()
    (root / "p").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(root)
    (tmp_path / "elsewhere" / "broken.png").symlink_to(tmp_path / "gone.png")
    assert [r.path.name for r in Catalog.read(root).records] == ["1.png", "broken.png"]
