"""Every problem added to a valid data set is reported; a valid data set has none."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from snl.data.catalog import LAYOUTS, Catalog
from snl.data.diagnosis import Diagnosis, format_diagnosis, to_dict
from snl.data.doctor import diagnose
from tests import trees

TOO_FEW = "too few images for a threshold"


@pytest.fixture
def valid(tmp_path: Path) -> Path:
    """A data set without problems: one product, 12 training images, 3 + 3 test images, masks."""
    base = tmp_path / "data" / "bolt"
    for n in range(12):
        trees.save_part(base / "train" / "good" / f"{n:03}.png", n)
    for n in range(3):
        trees.save_part(base / "test" / "good" / f"{n:03}.png", 100 + n)
        trees.save_part(base / "test" / "dent" / f"{n:03}.png", 200 + n, defect=True)
        trees.save_mask(base / "ground_truth" / "dent" / f"{n:03}_mask.png", 200 + n)
    return base.parent


def check(root: Path) -> Diagnosis:
    return diagnose(Catalog.read(root))


def listed(diagnosis: Diagnosis) -> list[tuple[str, str, str]]:
    """Return all problems except "too few images for a threshold", which must be among them."""
    assert all("\n" not in p.what for p in diagnosis.problems)
    problems = [(p.severity, p.kind, p.where) for p in diagnosis.problems]
    total = sum(c.train_normal for c in diagnosis.counts.values())
    if 0 < total < 60:
        problems.remove(("warning", TOO_FEW, str(diagnosis.catalog.root)))
    assert all(kind != TOO_FEW for _, kind, _ in problems)
    return problems


def mask(valid: Path, n: int = 0) -> Path:
    return valid / "bolt" / "ground_truth" / "dent" / f"{n:03}_mask.png"


def train(valid: Path, n: int) -> Path:
    return valid / "bolt" / "train" / "good" / f"{n:03}.png"


def save(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path)


def test_a_valid_data_set_has_no_problems(valid: Path) -> None:
    diagnosis = check(valid)
    assert listed(diagnosis) == [] and diagnosis.ok
    counts = diagnosis.counts["bolt"]
    assert (counts.train_normal, counts.test_normal, counts.test_anomalous) == (12, 3, 3)
    assert (counts.masks_known, counts.train_anomalous, counts.test_unlabelled) == (3, 0, 0)
    assert counts.smallest == counts.largest == (48, 40)
    assert counts.modes == {"RGB": 18}
    assert [p.kind for p in diagnosis.problems] == [TOO_FEW]


def test_a_threshold_needs_60_training_images_of_all_products(valid: Path) -> None:
    for n in range(12, 59):
        trees.save_part(valid / "plate" / "train" / "good" / f"{n:03}.png", 1000 + n)
    for n in range(3):
        trees.save_part(valid / "plate" / "test" / "good" / f"{n:03}.png", 300 + n)
        trees.save_part(valid / "plate" / "test" / "dent" / f"{n:03}.png", 400 + n, defect=True)
    (problem,) = check(valid).problems
    assert (problem.severity, problem.kind, problem.where) == ("warning", TOO_FEW, str(valid))
    assert "59 normal" in problem.what and "'uncertain'" in problem.what
    assert "60 in total" in problem.what
    assert "snl inspect --rate" in problem.what
    trees.save_part(valid / "plate" / "train" / "good" / "059.png", 1059)
    diagnosis = check(valid)
    assert diagnosis.problems == ()
    assert "no problems found" in format_diagnosis(diagnosis)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_generated_trees_of_every_layout_have_no_error(layout: str, tmp_path: Path) -> None:
    diagnosis = check(trees.MAKERS[layout](tmp_path))
    assert diagnosis.ok
    assert {kind for _, kind, _ in listed(diagnosis)} == {"few training images"}


def test_unreadable_images_and_masks(valid: Path) -> None:
    train(valid, 0).write_bytes(b"")
    train(valid, 1).write_bytes(train(valid, 1).read_bytes()[:-300])
    mask(valid, 0).write_bytes(b"no mask")
    diagnosis = check(valid)
    assert listed(diagnosis) == [
        ("error", "unreadable mask", "bolt/ground_truth/dent/000_mask.png"),
        ("error", "unreadable image", "bolt/train/good/000.png"),
        ("error", "unreadable image", "bolt/train/good/001.png"),
    ]
    assert not diagnosis.ok
    assert diagnosis.problems[1].what.startswith("is empty (0 bytes);")


def test_missing_files_of_a_manifest(tmp_path: Path) -> None:
    given = trees.make_manifest(tmp_path)
    (tmp_path / "images/bolt/000.png").unlink()
    (tmp_path / "masks/plate/bad_0.png").unlink()
    errors = [p for p in check(given).problems if p.severity == "error"]
    assert [(p.kind, p.where) for p in errors] == [
        ("unreadable image", "images/bolt/000.png"),
        ("unreadable mask", "masks/plate/bad_0.png"),
    ]
    assert all("does not exist" in p.what for p in errors)


def test_duplicates(valid: Path) -> None:
    shutil.copy(train(valid, 3), train(valid, 50))
    shutil.copy(train(valid, 4), valid / "bolt/test/good/leak.png")
    shutil.copy(valid / "bolt/test/good/000.png", valid / "bolt/test/dent/same.png")
    assert sorted(listed(check(valid))) == [
        ("error", "contradictory labels", "bolt/test/good/000.png"),
        ("error", "test image trained on", "bolt/test/good/leak.png"),
        ("warning", "duplicate training image", "bolt/train/good/050.png"),
    ]


def test_masks_of_other_sizes_and_empty_masks(valid: Path) -> None:
    save(mask(valid, 0), np.full((80, 96), 255, np.uint8))
    save(mask(valid, 1), np.full((48, 40), 255, np.uint8))
    save(mask(valid, 2), np.zeros((40, 48), np.uint8))
    diagnosis = check(valid)
    assert listed(diagnosis) == [
        ("error", "mask of another shape", "bolt/ground_truth/dent/001_mask.png"),
        ("warning", "mask of another size", "bolt/ground_truth/dent/000_mask.png"),
        ("warning", "mask of most of the image", "bolt/ground_truth/dent/000_mask.png"),
        ("warning", "empty mask", "bolt/ground_truth/dent/002_mask.png"),
    ]
    assert "40 x 48 pixels but its image is 48 x 40" in diagnosis.problems[0].what


def test_a_mask_is_compared_with_the_upright_image(valid: Path) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    path = valid / "bolt/test/dent/000.png"
    Image.open(path).save(path, exif=tags)
    kinds = [(kind, where) for _, kind, where in listed(check(valid))]
    assert ("mask of another shape", "bolt/ground_truth/dent/000_mask.png") in kinds


@pytest.mark.parametrize(
    ("kept", "severity", "kind"),
    [
        (0, "error", "no training images"),
        (1, "error", "too few training images"),
        (3, "error", "too few training images"),
        (4, "warning", "few training images"),
        (9, "warning", "few training images"),
    ],
)
def test_too_few_training_images(kept: int, severity: str, kind: str, valid: Path) -> None:
    for n in range(kept, 12):
        train(valid, n).unlink()
    assert listed(check(valid)) == [(severity, kind, "product bolt")]


@pytest.mark.parametrize("gone", ["good", "dent"])
def test_incomplete_test_sets(gone: str, valid: Path) -> None:
    shutil.rmtree(valid / "bolt/test" / gone)
    diagnosis = check(valid)
    expected = [("warning", "incomplete test set", "product bolt")]
    if gone == "dent":  # the masks are still there
        expected.insert(0, ("warning", "while reading", str(valid)))
        assert "3 mask files" in diagnosis.problems[0].what
    assert listed(diagnosis) == expected
    (incomplete,) = [p for p in diagnosis.problems if p.kind == "incomplete test set"]
    assert ("no normal" in incomplete.what) == (gone == "good")


def test_normal_images_alone_are_enough(valid: Path) -> None:
    for folder in ("test", "ground_truth"):
        shutil.rmtree(valid / "bolt" / folder)
    assert listed(check(valid)) == []


def test_copies_do_not_end_up_on_both_sides_of_the_split(tmp_path: Path) -> None:
    for n in range(30):
        trees.save_part(tmp_path / "bolt/good" / f"{n:03}.png", n)
    for n in range(3):
        trees.save_part(tmp_path / "bolt/bad" / f"{n}.png", 500 + n, defect=True)
    tested = {r.path.name for r in Catalog.read(tmp_path).test() if r.label == "normal"}
    assert len(tested) == 6
    for n in range(30):  # each image has a copy, and one of them a second one
        shutil.copy(tmp_path / "bolt/good" / f"{n:03}.png", tmp_path / "bolt/good" / f"x{n:03}.png")
    shutil.copy(tmp_path / "bolt/good/000.png", tmp_path / "bolt/good/y.png")
    diagnosis = check(tmp_path)
    assert "test image trained on" not in {problem.kind for problem in diagnosis.problems}
    catalog = diagnosis.catalog
    now = {r.path.name for r in catalog.test() if r.label == "normal"}
    assert {name.removeprefix("x") for name in now} - {"y.png"} == tested, "the choice has changed"
    text = format_diagnosis(diagnosis)
    assert f"{len(now)} of 61 normal images of bolt are not trained on" in text
    assert "training.test_share" in text and to_dict(diagnosis)["split"] in text


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.2, 6), (0.5, 15)])
def test_the_share_of_test_images_is_a_setting(share: float, count: int, tmp_path: Path) -> None:
    for n in range(30):
        trees.save_part(tmp_path / "bolt/good" / f"{n:03}.png", n)
    trees.save_part(tmp_path / "bolt/bad/0.png", 500, defect=True)
    catalog = Catalog.read(tmp_path, test_share=share)
    normal = [record for record in catalog.test() if record.label == "normal"]
    assert len(normal) == count and len(catalog.train()) == 30 - count
    fifth = {r.path for r in Catalog.read(tmp_path).test()}
    assert share < 0.2 or fifth <= {r.path for r in catalog.test()}, "larger shares contain smaller"
    assert bool(catalog.split_note) is bool(count)


def test_images_that_are_not_used(valid: Path) -> None:
    trees.save_part(valid / "bolt/train/dent/000.png", 900, defect=True)
    trees.save_part(valid / "bolt/test/what.png", 901)
    assert listed(check(valid)) == [
        ("warning", "anomalous training images", "product bolt"),
        ("warning", "unlabelled test images", "product bolt"),
    ]


def test_mixed_sizes_and_modes(valid: Path) -> None:
    image = trees.draw(77)[0]
    save(train(valid, 0), np.ascontiguousarray(image[:, :, 0]))
    save(train(valid, 1), image[:20])
    diagnosis = check(valid)
    assert listed(diagnosis) == [
        ("warning", "mixed sizes", "product bolt"),
        ("warning", "mixed colour modes", "product bolt"),
    ]
    assert "48x20 to 48x40" in diagnosis.problems[0].what
    assert "L (1), RGB (17)" in diagnosis.problems[1].what
    assert "48x20 to 48x40" in format_diagnosis(diagnosis)


def test_dark_and_blank_images(valid: Path) -> None:
    image = trees.draw(78)[0]
    save(train(valid, 0), np.full_like(image, 200))
    save(train(valid, 1), (image // 32).astype(np.uint8))
    assert listed(check(valid)) == [
        ("warning", "blank image", "bolt/train/good/000.png"),
        ("warning", "dark image", "bolt/train/good/001.png"),
    ]


@pytest.mark.parametrize(("factor", "level"), [(4, "1023 (10 bits)"), (16, "4095 (12 bits)")])
def test_16_bit_images_that_use_fewer_bits_are_explained(
    factor: int, level: str, tmp_path: Path
) -> None:
    for n in range(12):
        deep = trees.draw(n)[0][:, :, 0].astype(np.uint16) * factor
        (tmp_path / "p").mkdir(exist_ok=True)
        save(tmp_path / "p" / f"{n}.png", deep)
    problems = check(tmp_path).problems
    (found,) = [p for p in problems if p.kind == "unused sample range"]
    assert found.severity == "warning" and "product" in found.where
    assert level in found.what and "--set white_level=N" in found.what
    assert not [p for p in problems if p.kind in ("dark image", "blank image")]


def test_16_bit_images_that_use_16_bits_or_state_fewer_are_no_problem(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for n in range(6):
        grey = trees.draw(n)[0][:, :, 0].astype(np.uint16)
        save(tmp_path / "p" / f"full-{n}.png", grey * 257)
        head = b"P5 %d %d 4095\n" % grey.shape[::-1]
        (tmp_path / "p" / f"{n}.pgm").write_bytes(head + (grey * 16).astype(">u2").tobytes())
    problems = check(tmp_path).problems
    kinds = {p.kind for p in problems}
    assert not kinds & {"unused sample range", "dark image", "clipped samples"}


def test_names_that_collide_on_windows(tmp_path: Path) -> None:
    lines = ["path", *(f"{n}.png" for n in range(12)), "Part.png", "part.PNG"]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    problems = [p for p in check(tmp_path / "m.csv").problems if p.kind == "colliding names"]
    assert [p.where for p in problems] == ["part.PNG"]
    assert "Part.png" in problems[0].what


def test_notes_of_the_catalog_are_warnings(valid: Path) -> None:
    trees.save_part(valid / "previews" / "a.png", 1)
    assert [p.kind for p in check(valid).problems] == ["while reading", TOO_FEW]


def test_text_groups_problems_and_shortens_long_lists(valid: Path) -> None:
    for n in range(8):
        train(valid, n).write_bytes(b"")
    text = format_diagnosis(check(valid))
    lines = text.splitlines()
    header = next(line for line in lines if line.startswith("product"))
    row = next(line for line in lines if line.startswith("bolt"))
    for column, value in (
        ("train", "12"),
        ("test normal", "3"),
        ("anomalous", "3"),
        ("masks", "3"),
    ):
        end = header.index(column) + len(column)
        assert row[:end].endswith(f" {value}")
    assert row.endswith("48x40   RGB") and "layout mvtec, 18 images" in lines[0]
    assert "8 errors:" in lines and "  unreadable image (8)" in lines
    assert sum("0 bytes" in line for line in lines) == 5 and "    and 3 more" in lines


def test_errors_come_first(valid: Path) -> None:
    shutil.rmtree(valid / "bolt/test/good")
    train(valid, 5).write_bytes(b"")
    text = format_diagnosis(check(valid))
    assert 0 < text.index("1 error:") < text.index("2 warnings:")


def test_as_json(valid: Path) -> None:
    train(valid, 5).write_bytes(b"")
    diagnosis = check(valid)
    content = to_dict(diagnosis)
    assert json.loads(json.dumps(content)) == content
    assert content["ok"] is False and content["layout"] == "mvtec"
    assert content["products"]["bolt"]["largest"] == [48, 40]
    assert content["problems"][0]["severity"] == "error"
    assert content["fingerprint"] == diagnosis.catalog.fingerprint()


def test_the_number_of_threads_changes_nothing(valid: Path) -> None:
    train(valid, 2).write_bytes(b"")
    shutil.copy(train(valid, 3), train(valid, 50))
    catalog = Catalog.read(valid)
    assert diagnose(catalog, workers=1) == diagnose(catalog, workers=4)


def test_progress_is_reported_in_the_callers_thread(valid: Path) -> None:
    calls: list[tuple[int, int, int]] = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total, threading.get_ident()))

    diagnose(Catalog.read(valid), progress=progress)
    assert calls == [(n, 18, threading.get_ident()) for n in range(1, 19)]


def test_an_interruption_stops_the_check(valid: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        diagnose(Catalog.read(valid), progress=interrupt)


def test_inverted_masks(valid: Path) -> None:
    inverted = 255 - np.asarray(Image.open(mask(valid, 0)))
    save(mask(valid, 0), inverted)
    diagnosis = check(valid)
    assert listed(diagnosis) == [
        ("warning", "mask of most of the image", "bolt/ground_truth/dent/000_mask.png")
    ]
    assert "inverted" in diagnosis.problems[1].what or "inverted" in diagnosis.problems[0].what


def test_blurred_masks_and_heat_maps(valid: Path) -> None:
    picture = Image.open(mask(valid, 0)).filter(ImageFilter.GaussianBlur(2))
    picture.save(mask(valid, 0))
    ramp = np.linspace(0, 0.4, 40 * 48, dtype=np.float32).reshape(40, 48)
    ramp[ramp < 0.3] = 0
    tiff = mask(valid, 1).with_suffix(".tif")
    mask(valid, 1).unlink()
    save(tiff, ramp)
    ids = np.zeros((40, 48), np.uint8)
    ids[5:9, 3:20] = np.arange(1, 5)[:, None]  # class ids are no values in between
    save(mask(valid, 2), ids)
    diagnosis = check(valid)
    assert listed(diagnosis) == [
        ("warning", "mask of many values", "bolt/ground_truth/dent/000_mask.png"),
        ("warning", "mask of many values", "bolt/ground_truth/dent/001_mask.tif"),
    ]


def test_a_mask_with_compression_artefacts_is_fine(valid: Path) -> None:
    for n in range(3):
        picture = Image.open(mask(valid, n))
        picture.save(mask(valid, n).with_suffix(".jpg"), quality=75)
        mask(valid, n).unlink()
    assert listed(check(valid)) == []
