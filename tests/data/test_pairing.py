"""Masks beside images and in mask folders: never images, found under every usual name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snl.data.catalog import Catalog
from snl.data.pairing import image_names, images_in, mask_targets
from snl.data.records import Record
from tests import trees
from tests.data.catalogs import touch

EMPTY = np.zeros((trees.HEIGHT, trees.WIDTH), np.uint8)


def part(path: Path, seed: int = 0, *, defect: bool = False) -> None:
    trees.save_part(path, seed, defect=defect)


def mask(path: Path, *, empty: bool = False) -> None:
    if empty:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(EMPTY).save(path)
    else:
        trees.save_mask(path, 200)


def labelme(path: Path, *shapes: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"imageWidth": trees.WIDTH, "imageHeight": trees.HEIGHT, "shapes": list(shapes)}
    path.write_text(json.dumps(content))


SHAPE = {"shape_type": "rectangle", "points": [[3, 4], [9, 12]], "label": "dent"}


def by_name(catalog: Catalog) -> dict[str, Record]:
    return {catalog.relative(r.path): r for r in catalog.records}


BESIDE = [
    ("x.png", "x_GT.png"),
    ("Part0.jpg", "Part0_label.bmp"),
    ("e.jpg", "e.png"),
    ("x.png", "x_mask.png"),
    ("x.png", "mask_x.png"),
    ("x.bmp", "x-mask.png"),
    ("x.png", "x.mask.png"),
    ("x2.png", "x2GT.png"),
    ("x.tif", "X_MASK.TIF"),
    ("x.png", "x_seg.png"),
    ("x.png", "x ground truth.png"),
    ("x.png", "x_mask_1.png"),
    ("im_7.png", "gt-im_7.png"),
    ("x.png", "x (mask).png"),
    ("7_img.png", "7_mask.png"),
    ("x.png", "x.png_mask.png"),
    ("x.png", "x.json"),
]


@pytest.mark.parametrize(("image", "mask_name"), BESIDE)
@pytest.mark.parametrize("folder", ["p", "p/good", "p/train/good", "p/test"])
def test_a_mask_beside_its_image_is_no_image(
    image: str, mask_name: str, folder: str, tmp_path: Path
) -> None:
    base = tmp_path / folder
    for n in range(3):
        part(base / f"other{n}.png", n)
    part(base / image, 200, defect=True)
    if mask_name.endswith(".json"):
        labelme(base / mask_name, SHAPE)
    else:
        mask(base / mask_name)
    catalog = Catalog.read(tmp_path)
    records = by_name(catalog)
    assert f"{folder}/{mask_name}" not in records and len(records) == 4
    record = records[f"{folder}/{image}"]
    assert (record.split, record.label) == ("test", "anomalous")
    assert record.mask == (base / mask_name,) and record.mask_known
    (note,) = [n for n in catalog.notes if "marked pixels" in n]
    assert image in note and "1 image (" in note
    assert base / mask_name not in images_in(tmp_path)


@pytest.mark.parametrize("mask_name", ["x_GT.png", "x.bmp", "mask_x.png", "x.json"])
@pytest.mark.parametrize(("folder", "split"), [("p", "train"), ("p/test", "test")])
def test_an_empty_mask_says_normal(mask_name: str, folder: str, split: str, tmp_path: Path) -> None:
    part(tmp_path / folder / "x.png")
    if mask_name.endswith(".json"):
        labelme(tmp_path / folder / mask_name)
    else:
        mask(tmp_path / folder / mask_name, empty=True)
    catalog = Catalog.read(tmp_path)
    (record,) = catalog.records
    assert (record.label, record.mask, record.split) == ("normal", (), split)
    assert catalog.notes == ()


def test_masks_beside_anomalous_images(tmp_path: Path) -> None:
    for n in range(3):
        part(tmp_path / f"p/train/{n}.png", n)
        part(tmp_path / f"p/test/bad/{n}.png", 200 + n, defect=True)
        mask(tmp_path / f"p/test/bad/{n}_GT.png")
    catalog = Catalog.read(tmp_path)
    anomalous = [r for r in catalog.records if r.label == "anomalous"]
    assert [r.mask[0].name for r in anomalous] == ["0_GT.png", "1_GT.png", "2_GT.png"]
    assert catalog.notes == ()


def test_a_mask_that_cannot_be_read_does_not_say_normal(tmp_path: Path) -> None:
    touch(tmp_path, "p/a.png", "p/b.png", "p/b_GT.png")
    records = by_name(Catalog.read(tmp_path))
    assert list(records) == ["p/a.png", "p/b.png"]
    assert records["p/b.png"].label == "anomalous"


def test_pictures_are_no_masks(tmp_path: Path) -> None:
    names = ["e.jpg", "e.png", "box.png", "box_label.png", "mask.png", "gt.png", "part_mask_9.png"]
    for n, name in enumerate(names):
        part(tmp_path / "p" / name, n)
    catalog = Catalog.read(tmp_path)
    assert sorted(r.path.name for r in catalog.train()) == sorted(names)
    (note,) = catalog.notes
    assert "e.jpg and e.png" in note


FOLDER_NAMES = ["masks", "ground_truth", "GT", "Ground Truth", "labels", "segmentation", "Masken"]
IN_FOLDER = [
    "0.png",
    "0_mask.png",
    "0_label.bmp",
    "0_gt.png",
    "0_GT.tif",
    "0-mask.png",
    "mask_0.png",
]
IN_FOLDER += ["0_labels.png", "0_seg.png", "0.jpg.png", "0.BMP", "0.json", "0_mask_0.png"]


@pytest.mark.parametrize("name", IN_FOLDER)
@pytest.mark.parametrize("folder", ["bad", "."])
def test_names_in_mask_folders(name: str, folder: str, tmp_path: Path) -> None:
    for n in range(3):
        part(tmp_path / f"p/good/{n}x.png", n)
    part(tmp_path / "p/bad/0.jpg", 200, defect=True)
    path = tmp_path / "p/masks" / folder / name
    labelme(path, SHAPE) if name.endswith(".json") else mask(path)
    catalog = Catalog.read(tmp_path)
    (record,) = [r for r in catalog.records if r.label == "anomalous"]
    assert record.mask == (path,) and catalog.notes == ()


@pytest.mark.parametrize("folder", FOLDER_NAMES)
@pytest.mark.parametrize("place", ["p", "p/test", "p/test/bad"])
def test_names_and_places_of_mask_folders(folder: str, place: str, tmp_path: Path) -> None:
    stem = "Img_7"
    part(tmp_path / "p/train/good/1.png")
    part(tmp_path / f"p/test/bad/{stem}.png", 200, defect=True)
    path = tmp_path / place / folder / "img_7.PNG"
    mask(path)
    catalog = Catalog.read(tmp_path)
    (record,) = [r for r in catalog.records if r.label == "anomalous"]
    assert record.mask == (path,) and len(catalog.records) == 2 and catalog.notes == ()


def test_a_mask_folder_beside_images_without_labels(tmp_path: Path) -> None:
    for n in range(4):
        part(tmp_path / f"p/{n}.png", n, defect=n > 1)
        mask(tmp_path / f"p/masks/{n}.png", empty=n < 2)
    catalog = Catalog.read(tmp_path)
    labels = {r.path.name: r.label for r in catalog.records}
    assert labels == dict(zip(["0.png", "1.png"], ["normal"] * 2, strict=True)) | dict.fromkeys(
        ["2.png", "3.png"], "anomalous"
    )
    assert len(catalog.train()) == 1
    assert ["2 images" in note for note in catalog.notes] == [True]


def test_images_and_masks_side_by_side_below_a_kind(tmp_path: Path) -> None:
    part(tmp_path / "p/good/images/1.png")
    part(tmp_path / "p/good/images/2.png", 1)
    part(tmp_path / "p/bad/images/1.png", 200, defect=True)
    mask(tmp_path / "p/bad/masks/1.png")
    catalog = Catalog.read(tmp_path)
    assert len(catalog.records) == 3 and catalog.notes == ()
    assert [r.mask[0].parent.name for r in catalog.records if r.mask] == ["masks"]


def test_mask_folders_beside_products(tmp_path: Path) -> None:
    for product in ("bolt", "nut"):
        for n in range(3):
            part(tmp_path / product / f"{n}.png", n, defect=n == 2)
        mask(tmp_path / "masks" / product / "2.png")
    catalog = Catalog.read(tmp_path)
    assert catalog.products == ("bolt", "nut")
    assert {r.path.name for r in catalog.records if r.label == "anomalous"} == {"2.png"}


def test_masks_that_fit_no_image_are_counted(tmp_path: Path) -> None:
    trees.make_mvtec(tmp_path)
    folder = tmp_path / "bolt/ground_truth/dent"
    (folder / "001_mask.png").rename(folder / "one_mask.png")
    for n in range(3):
        mask(folder / f"9{n}_mask.png")
    (note,) = Catalog.read(tmp_path).notes
    assert "4 mask files in bolt/ground_truth" in note and "fit no image" in note
    assert "1 anomalous image" in note and "001.png" in note


@pytest.mark.parametrize("name", ["mask", "masks", "gt", "Ground Truth", "labels"])
@pytest.mark.parametrize("same_names", [True, False])
def test_a_product_with_the_name_of_a_mask_folder(
    name: str, same_names: bool, tmp_path: Path
) -> None:
    for n in range(3):
        part(tmp_path / f"bolt/{n}.png", n)
        part(tmp_path / name / f"{n if same_names else n + 50}.png", 10 + n)
    catalog = Catalog.read(tmp_path)
    assert catalog.products == tuple(sorted(["bolt", name]))
    assert len(catalog.train()) == 6
    assert any(f"folder {name} was read as a product" in note for note in catalog.notes)
    assert len(images_in(tmp_path)) == 6


def test_a_structured_product_with_the_name_of_a_mask_folder(tmp_path: Path) -> None:
    trees.make_mvtec(tmp_path, ("bolt", "mask"))
    catalog = Catalog.read(tmp_path)
    assert catalog.products == ("bolt", "mask") and catalog.notes == ()
    assert Catalog.read(tmp_path / "mask").products == ("mask",)


def test_a_folder_of_masks_without_images_is_reported(tmp_path: Path) -> None:
    for n in range(3):
        part(tmp_path / f"bolt/{n}.png", n)
        mask(tmp_path / f"masks/other{n}.png")
    catalog = Catalog.read(tmp_path)
    assert catalog.products == ("bolt",)
    assert ["3 mask files in masks" in note for note in catalog.notes] == [True]


def test_targets_and_names() -> None:
    assert list(mask_targets("a_mask_2")) == ["a_2", "a"]
    assert list(mask_targets("IMG-1-Mask")) == ["img-1"]
    assert list(mask_targets("unmask")) == list(mask_targets("label")) == []
    assert image_names(Path("A_rgb.png")) == ["a_rgb", "a_rgb.png", "a"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are files on Unix only")
def test_pipes_are_not_opened(tmp_path: Path) -> None:
    part(tmp_path / "p/x.png")
    part(tmp_path / "p/y.png", 1)
    for name in ("z.png", "x_GT.png", "x.bmp", "x.json"):
        os.mkfifo(tmp_path / "p" / name)
    (tmp_path / "p/masks").mkdir()
    os.mkfifo(tmp_path / "p/masks/y.png")
    catalog = Catalog.read(tmp_path)
    assert [r.path.name for r in catalog.train()] == ["x.png", "y.png"]
    assert any("not regular files" in note for note in catalog.notes)
    assert [p.name for p in images_in(tmp_path)] == ["x.png", "y.png"]
