"""Folders that say normal or defect in other words are labels; where it is not clear, an error."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from snl.data.catalog import Catalog
from tests.data.catalogs import fails, touch


def fill(root: Path, *folders: str, count: int = 5) -> Path:
    touch(root, *(f"{folder}/{n}.png" for folder in folders for n in range(count)))
    return root


def labels(catalog: Catalog) -> dict[str, set[tuple[str, str | None]]]:
    """Return the splits and labels by folder."""
    found: dict[str, set[tuple[str, str | None]]] = {}
    for record in catalog.records:
        folder = catalog.relative(record.path.parent)
        found.setdefault(folder, set()).add((record.split, record.label))
    return found


PAIRS = [
    ("good parts", "bad parts"),
    ("OK_images", "NG_images"),
    ("Good-1", "Bad-1"),
    ("gute Teile", "schlechte Teile"),
    ("i. O.", "n. i. O."),
    ("bonnes", "mauvaises"),
    ("sans défaut", "avec défaut"),
    ("buoni", "difettosi"),
    ("buenas", "defectuosas"),
    ("boas", "reprovadas"),
    ("goed", "fout"),
    ("dobre", "wadliwe"),
    ("dobré", "vadné"),
    ("iyi", "kusurlu"),
    ("годные", "брак"),
    ("良品", "不良品"),
    ("正常", "异常"),
    ("양품", "불량품"),
    ("not_defective", "defective"),
    ("no defect", "defect"),
    ("defect-free", "defects"),
    ("OK_machine7", "NG_machine7"),
    ("bracket_ok", "bracket_ng"),
    ("good", "bent corner, cracked"),
]


@pytest.mark.parametrize(("good", "bad"), PAIRS)
@pytest.mark.parametrize("inside", ["", "valve/"])
def test_labels_in_other_words(good: str, bad: str, inside: str, tmp_path: Path) -> None:
    root = fill(tmp_path / "parts", f"{inside}{good}", f"{inside}{bad}")
    catalog = Catalog.read(root)
    inside = "valve/" if inside else ""
    assert catalog.products == ((inside or "parts").strip("/"),)
    found = labels(catalog)
    assert found[f"{inside}{good}"] == {("train", "normal"), ("test", "normal")}
    assert found[f"{inside}{bad}"] == {("test", "anomalous")}


@pytest.mark.parametrize(("good", "bad"), PAIRS)
def test_labels_in_other_words_in_train_and_test(good: str, bad: str, tmp_path: Path) -> None:
    root = fill(tmp_path, f"p/train/{good}", f"p/train/{bad}", f"p/test/{good}", f"p/test/{bad}")
    assert labels(Catalog.read(root)) == {
        f"p/train/{good}": {("train", "normal")},
        f"p/train/{bad}": {("train", "anomalous")},
        f"p/test/{good}": {("test", "normal")},
        f"p/test/{bad}": {("test", "anomalous")},
    }


def test_a_normal_word_in_test_is_no_defect(tmp_path: Path) -> None:
    names = ["OK_parts", "not_defective", "Gehaeuse ok", "gut 2", "dent", "no cracks"]
    root = fill(tmp_path, "p/train", *(f"p/test/{name}" for name in names))
    catalog = Catalog.read(root)
    found = {k.removeprefix("p/test/"): v for k, v in labels(catalog).items() if "test" in k}
    assert [name for name, v in found.items() if v == {("test", "anomalous")}] == ["dent"]
    assert any("Gehaeuse ok" in note for note in catalog.notes)


@pytest.mark.parametrize("parent", ["p", "p/train", "p/test"])
def test_a_normal_word_in_the_name_of_a_defect_is_noted(parent: str, tmp_path: Path) -> None:
    root = fill(tmp_path, f"{parent}/good", f"{parent}/pass_through")
    (note,) = [n for n in Catalog.read(root).notes if "word for normal" in n]
    assert f"{parent}/pass_through" in note


def test_unlabelled_folders_are_used_nowhere(tmp_path: Path) -> None:
    root = fill(tmp_path, "p/train/good", "p/test/good", "p/test/unsorted")
    assert labels(Catalog.read(root))["p/test/unsorted"] == {("test", None)}
    plain = Catalog.read(fill(tmp_path / "plain", "q/good", "q/mixed"))
    assert labels(plain) == {"q/good": {("train", "normal")}, "q/mixed": {("test", None)}}
    only = Catalog.read(fill(tmp_path / "only", "q/day1", "q/unsorted"))
    assert labels(only) == {"q/day1": {("train", "normal")}, "q/unsorted": {("test", None)}}
    beside = Catalog.read(fill(tmp_path / "beside", "bolt", "unlabelled"))
    assert beside.products == ("bolt",) and "no labels" in beside.notes[0]


def test_splits_in_other_words(tmp_path: Path) -> None:
    root = fill(tmp_path, "p/Train images/ok", "p/Test-Set/OK_1", "p/Test-Set/NG_1")
    assert labels(Catalog.read(root)) == {
        "p/Train images/ok": {("train", "normal")},
        "p/Test-Set/OK_1": {("test", "normal")},
        "p/Test-Set/NG_1": {("test", "anomalous")},
    }
    root = fill(tmp_path / "other", "p/train_good", "p/test_good", "p/test_bad")
    assert labels(Catalog.read(root)) == {
        "p/train_good": {("train", "normal")},
        "p/test_good": {("test", "normal")},
        "p/test_bad": {("test", "anomalous")},
    }


@pytest.mark.parametrize(
    "names",
    [
        ("bolt", "bad"),
        ("bolt", "NG_images"),
        ("bolt", "bolt_scratched"),
        ("bolt", "defects"),
        ("good", "blurred"),
        ("OK parts", "verschliffen"),
        ("bolt_ok", "nut_ok", "nut_ng"),
        ("good_bad", "bolt"),
        ("positive", "negative"),
        ("bolt", "broken"),
        ("bolt", "不良品"),
    ],
)
def test_ambiguous_folders_in_the_root_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    message = fails(fill(tmp_path, *names))
    assert any(name in message for name in names) and "good" in message


@pytest.mark.parametrize("names", [("bad", "batch2"), ("crack", "cam1"), ("good_bad", "ok")])
@pytest.mark.parametrize("parent", ["p", "p/train"])
def test_ambiguous_folders_in_a_product_are_refused(
    names: tuple[str, str], parent: str, tmp_path: Path
) -> None:
    message = fails(fill(tmp_path, *(f"{parent}/{name}" for name in names), "q"))
    assert names[0] in message and "good" in message


@pytest.mark.parametrize("inside", ["p/good/bad", "p/train/good/NG_images", "p/train/day1/defects"])
def test_defects_below_normal_images_are_refused(inside: str, tmp_path: Path) -> None:
    assert Path(inside).name in fails(
        fill(tmp_path, "p/good" if "/good/" in inside else "p", inside)
    )


@pytest.mark.parametrize(
    "names",
    [
        ("toothbrush", "metal_nut"),
        ("crack_tester", "bolt"),
        ("broken_teeth_gear", "good_year_tyre"),
        ("good_year_tyre", "bolt"),
        ("hole", "bolt"),
        ("io_module", "bolt"),
        ("0", "1", "A"),
    ],
)
def test_products_with_ambiguous_names(names: tuple[str, ...], tmp_path: Path) -> None:
    catalog = Catalog.read(fill(tmp_path, *names))
    assert catalog.products == tuple(sorted(names))
    assert len(catalog.train()) == 5 * len(names)
    if {"crack_tester", "broken_teeth_gear", "hole"} & set(names):
        assert any("were read as products" in note for note in catalog.notes)


def test_a_folder_with_labels_inside_is_a_product(tmp_path: Path) -> None:
    root = fill(
        tmp_path, "hole/good", "hole/bad", "bad_ischl_bottle/ok", "crack/train", "crack/test/ok"
    )
    catalog = Catalog.read(root)
    assert catalog.products == ("bad_ischl_bottle", "crack", "hole")
    assert catalog.notes == ()


def test_the_layout_of_mvtec_ad_2_with_private_images(tmp_path: Path) -> None:
    root = fill(
        tmp_path,
        "can/train/good",
        "can/validation/good",
        "can/test_public/good",
        "can/test_public/bad",
        "can/test_private",
        "can/test_private_mixed",
    )
    touch(root, *(f"can/test_public/ground_truth/bad/{n}_mask.png" for n in range(5)))
    catalog = Catalog.read(root)
    assert catalog.layout == "mvtec-ad-2"
    assert Counter((r.split, r.label) for r in catalog.records) == {
        ("train", "normal"): 10,
        ("test", "normal"): 5,
        ("test", "anomalous"): 5,
    }
    assert all(r.mask for r in catalog.records if r.label == "anomalous")
    assert len(catalog.notes) == 2 and all("no labels" in note for note in catalog.notes)
    assert Catalog.read(root / "can").records == catalog.records


def test_folders_above_products_that_say_defect_are_noted(tmp_path: Path) -> None:
    """A folder of known defects that is given as data, or one product of it."""
    touch(tmp_path / "known defects", *(f"{p}/{n}.png" for p in ("nut", "can") for n in range(3)))
    for data in (tmp_path / "known defects", tmp_path / "known defects" / "nut"):
        notes = [n for n in Catalog.read(data).notes if "say defect" in n]
        assert notes and all("3 images" in note for note in notes)
    touch(tmp_path / "rejects" / "good parts", *(f"nut/{n}.png" for n in range(3)))
    assert not Catalog.read(tmp_path / "rejects" / "good parts").notes


def test_names_of_training_images_that_say_defect_are_noted(tmp_path: Path) -> None:
    touch(tmp_path, *(f"p/OK_{n}.png" for n in range(3)), "p/NG_1.png", "p/n.i.O. 2.png")
    (note,) = [n for n in Catalog.read(tmp_path).notes if "say defect" in n]
    assert "NG_1.png" in note
