"""`snl calibrate`: each change affects only what it names, and can be undone."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import snl
from snl.cli.main import main
from snl.decision import edit
from snl.decision.calibration import Rates
from snl.files import content_hash, load_tensors
from snl.runtime.predictor import Predictor
from tests.decision.calibrations import assert_same
from tests.trees import draw_varied, save_varied

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def file(calibrated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(calibrated, tmp_path / "parts.snl"))


@pytest.fixture
def calibrate(file: Path, calibrated: Path) -> Callable[..., snl.Inspector]:
    """Run the command on `file`, check its status and that only the calibration changed."""
    original = load_tensors(calibrated, "bundle")[0]
    fixed = {name for name in original if not name.startswith("calibration/")}
    assert any(name.startswith("network/") for name in fixed)

    def run(*words: object, status: int = 0) -> snl.Inspector:
        assert main(["calibrate", str(file), *map(str, words), "--quiet"]) == status
        arrays = load_tensors(file, "bundle")[0]
        assert {name for name in arrays if not name.startswith("calibration/")} == fixed
        for name in fixed:
            np.testing.assert_array_equal(arrays[name], original[name])
        return snl.load(file, "cpu")

    return run


Calibrate = Callable[..., snl.Inspector]


def make_normals(root: Path, count: int, first: int = 4000, products: str = "bolt plate") -> Path:
    for product in products.split():
        for n in range(count):
            save_varied(root / product / f"{n:03}.png", first + n, product=product)
    return root


def scores_of(inspector: snl.Inspector, folder: Path, product: str) -> list[float]:
    return [r.score for r in inspector.inspect(sorted(folder.glob("*.png")), product)]


def close(scores: np.ndarray, wanted: list[float]) -> None:
    np.testing.assert_allclose(np.sort(scores), np.sort(wanted), rtol=1e-4)


# --- what is printed ---


def test_after_a_change_only_what_changed_is_printed(
    calibrate: Calibrate, file: Path, tmp_path: Path, capsys: Capture
) -> None:
    def printed(*words: object) -> list[str]:
        calibrate(*words)
        return capsys.readouterr().out.splitlines()

    *table, last = printed("--rate", 0.06, "--product", "bolt")
    assert [line.split()[0] for line in table[2:]] == ["bolt"]
    assert last == "snl calibrate FILE without a change says more"
    assert printed("--mm-per-pixel", "bolt=0.5") == [last]
    assert printed("--undo") == [last]
    new = make_normals(tmp_path / "new", 3, 8000, "plate")
    lines = printed(new, "--add")
    assert any(line.startswith("plate") for line in lines)
    bolt = [line for line in lines if "1 other product move by at most" in line
            or line.startswith("bolt")]  # fmt: skip
    assert len(bolt) == 1, lines
    equal = printed("--rate", 0.3)
    assert sum("thresholds are equal" in line for line in equal) == 1
    assert any(line.startswith("note: plate: both thresholds") for line in equal)
    full = printed()
    assert any(line.startswith("true rate: ") for line in full) and len(full) > len(equal)


# --- without a change ---


def test_without_a_change_the_calibration_is_printed_and_nothing_is_written(
    file: Path, capsys: Capture
) -> None:
    before, when = file.read_bytes(), file.stat().st_mtime_ns
    assert main(["calibrate", str(file)]) == 0
    assert (file.read_bytes(), file.stat().st_mtime_ns) == (before, when)
    output = capsys.readouterr()
    lines = output.out.splitlines()
    inspector = snl.load(file, "cpu")
    for product in ("bolt", "plate"):
        row = next(line for line in lines if line.startswith(product)).split()
        limit = inspector.threshold(product)
        assert row[1:4] == ["20", "0.025", f"{limit:.4g}"]
        assert row[5:10] == ["shared", "tail", "0.05", "/", "0.1"] and row[-1] == "%"
    assert "40 held-out images, rates from 0.025 up" in output.out
    assert "(training); 0 before it" in output.out and output.err == ""


# --- normal images ---


def test_new_normal_images_replace_those_of_their_products(
    file: Path, calibrate: Calibrate, tmp_path: Path
) -> None:
    before = snl.load(file, "cpu").calibration
    folder = make_normals(tmp_path / "normals", 30, products="bolt")
    inspector = calibrate(folder)
    bolt, plate = (inspector.calibration.sets[name] for name in ("bolt", "plate"))
    assert (len(bolt), len(plate)) == (30, 20)
    np.testing.assert_array_equal(plate.scores, before.sets["plate"].scores)
    close(bolt.scores, scores_of(inspector, folder / "bolt", "bolt"))
    files = sorted((folder / "bolt").glob("*.png"))
    assert set(bolt.hashes.tolist()) == {content_hash(path) for path in files}
    results = inspector.inspect(files, "bolt")
    close(bolt.distances, [result.distance for result in results])
    assert inspector.calibration.log_score_stats == before.log_score_stats
    # with --product the folder's name does not matter
    renamed = folder / "bolt"
    again = calibrate(renamed, "--product", "plate", "--force")
    assert len(again.calibration.sets["plate"]) == 30
    np.testing.assert_array_equal(again.calibration.sets["bolt"].scores, bolt.scores)


def test_images_added_twice_count_once(calibrate: Calibrate, tmp_path: Path) -> None:
    folder = make_normals(tmp_path / "normals", 5)
    shutil.copy(folder / "bolt" / "000.png", folder / "bolt" / "twin.png")
    inspector = calibrate(folder, "--add")
    assert {k: len(n) for k, n in inspector.calibration.sets.items()} == {
        "bolt": 25,
        "plate": 25,
    }
    again = calibrate(folder, "--add")
    assert_same(
        inspector.calibration,
        dataclasses.replace(
            again.calibration,
            created=inspector.calibration.created,
            reason=inspector.calibration.reason,
        ),
    )
    replaced = calibrate(folder)
    assert len(replaced.calibration.sets["bolt"]) == 5


def test_training_images_are_skipped(
    calibrate: Calibrate, varied: Path, tmp_path: Path, file: Path, capsys: Capture
) -> None:
    # per product 40 training images, half of them held out, and 20 normal test images
    inspector = calibrate(varied)
    assert {len(n) for n in inspector.calibration.sets.values()} == {40}
    assert "40 of 120 images were trained on; skipped" in capsys.readouterr().err
    held = set(np.concatenate([n.hashes for n in inspector.calibration.sets.values()]).tolist())
    assert not held & set(inspector.training.hashes.tolist())


def test_a_product_without_a_usable_image_keeps_its_calibration(
    calibrate: Calibrate, varied: Path, tmp_path: Path, file: Path, capsys: Capture
) -> None:
    before = snl.load(file, "cpu")
    known = set(before.training.hashes.tolist())
    folder = make_normals(tmp_path / "normals", 4, products="plate")
    (folder / "bolt").mkdir()
    for path in (varied / "bolt" / "train" / "good").glob("*.png"):
        if content_hash(path) in known:
            shutil.copy(path, folder / "bolt" / path.name)
    inspector = calibrate(folder)
    output = capsys.readouterr().err
    assert "bolt: no image is left" in output and "bolt: 0" not in output
    assert {k: len(n) for k, n in inspector.calibration.sets.items()} == {"bolt": 20, "plate": 4}
    untouched = file.read_bytes()
    shutil.rmtree(folder / "plate")
    assert main(["calibrate", str(file), str(folder), "--quiet"]) == 2
    assert "no normal image is left to calibrate with" in capsys.readouterr().err
    assert file.read_bytes() == untouched


def test_unreadable_images_are_skipped_and_reported(
    calibrate: Calibrate, tmp_path: Path, capsys: Capture
) -> None:
    folder = make_normals(tmp_path / "normals", 3)
    (folder / "bolt" / "torn.png").write_bytes(b"\x89PNG\r\n")
    inspector = calibrate(folder)
    assert len(inspector.calibration.sets["bolt"]) == 3
    assert "torn.png" in capsys.readouterr().err


# --- rates ---


def test_rates_of_all_products_and_of_one(calibrate: Calibrate) -> None:
    inspector = calibrate("--rate", "0.2", "--product", "bolt")
    calibration = inspector.calibration
    assert calibration.rates == Rates() and calibration.rates_for("plate") == Rates()
    assert calibration.rates_for("bolt") == Rates(0.2, 0.2)
    assert inspector.threshold("bolt") == calibration.scores.threshold(0.2, "bolt")[0]
    inspector = calibrate(
        *("--rate", 0.15, "--uncertain-rate", 0.25, "--unknown-rate", 0.1, "--regions-rate", 0.5)
    )
    assert inspector.calibration.rates == Rates(0.15, 0.25, 0.1, 0.5)
    assert inspector.calibration.rates_for("bolt") == Rates(0.2, 0.2)  # its own rates stay
    assert len(inspector.calibrations) == 3
    inspector = calibrate("--rule", "conformal", "--product", "bolt")
    scores = np.sort(calibration.sets["bolt"].scores)
    assert inspector.threshold("bolt") == scores[-4]  # 4 of 21 are at most 0.2
    assert inspector.calibration.rule_for("plate") == "shared-tail"
    assert "bolt" not in calibrate("--rule", "shared-tail").calibration.product_rules


def test_a_held_out_image_is_left_out_by_its_name(calibrate: Calibrate, file: Path) -> None:
    before = snl.load(file, "cpu").calibration.sets["bolt"]
    name = str(before.names[3])
    assert name.startswith("good/") and len(set(before.names.tolist())) == len(before)
    for words in ((name,), (f"bolt/{name}", "--product", "bolt"), (name, "--product", "nut")):
        after = calibrate("--leave-out", *words, status=2)  # of two products, of none
        assert len(after.calibration.sets["bolt"]) == len(before)
    after = calibrate("--leave-out", name, "--product", "bolt")
    assert name not in after.calibration.sets["bolt"].names.tolist()
    assert len(after.calibration.sets["bolt"]) == len(before) - 1


def test_inspection_uses_the_rates_in_force(calibrate: Calibrate, file: Path) -> None:
    image = draw_varied(4100)[0]
    p = snl.load(file, "cpu").inspect(image, "bolt").p_value
    assert p is not None
    below, above = max(p - 0.01, 0.06), min(p + 0.01, 0.94)
    assert calibrate("--rate", above).inspect(image, "bolt").decision == "anomalous"
    inspector = calibrate("--rate", 0.05, "--uncertain-rate", above)
    assert inspector.inspect(image, "bolt").decision == ("uncertain" if p > 0.05 else "anomalous")
    inspector = calibrate("--rate", 0.05, "--uncertain-rate", below)
    if p > 0.06:
        assert inspector.inspect(image, "bolt").decision == "normal"


def test_a_tail_is_fitted_only_on_request(
    calibrate: Calibrate, tmp_path: Path, file: Path, capsys: Capture
) -> None:
    calibrate(make_normals(tmp_path / "normals", 30))
    before = file.read_bytes()
    assert main(["calibrate", str(file), "--rate", "0.001"]) == 2
    assert "0.001 needs 999 held-out normal images; there are 60 of all" in capsys.readouterr().err
    assert file.read_bytes() == before
    inspector = calibrate("--rate", "0.001", "--tail", "fit")
    assert "an estimate, not a guarantee" in capsys.readouterr().out
    result = inspector.inspect(draw_varied(1)[0], "bolt")
    assert result.threshold_from == "tail fit" and result.threshold is not None
    # a fitted tail ends at or above the largest value of all products, which one product has
    beyond = []
    for product, normals in inspector.calibration.sets.items():
        threshold = inspector.threshold(product)
        assert threshold is not None and threshold >= normals.scores.max()
        beyond.append(threshold > normals.scores.max())
    assert any(beyond)
    inspector = calibrate("--rate", "0.05", "--tail", "none")
    assert inspector.inspect(draw_varied(1)[0], "bolt").threshold_from == "shared tail"


# --- feedback ---


def test_false_alarms_are_added_to_the_calibration_set(
    file: Path, calibrate: Calibrate, tmp_path: Path, capsys: Capture
) -> None:
    inspector = calibrate("--rule", "conformal")
    paths = [save_varied(tmp_path / f"{n}.png", 5000 + n) for n in range(60)]
    results = inspector.inspect(paths, "bolt")
    flagged = [r for r in results if r.decision == "anomalous"][:2]
    assert flagged
    names = [str(r.path) for r in flagged]
    after = calibrate("--false-alarms", *names, "--product", "bolt")
    normals = after.calibration.sets
    assert len(normals["bolt"]) == 20 + len(flagged) and len(normals["plate"]) == 20
    assert {content_hash(name) for name in names} <= set(normals["bolt"].hashes.tolist())
    for result in after.inspect(names, "bolt"):
        higher = sum(r.score >= result.score - 1e-4 for r in flagged)
        assert result.p_value == pytest.approx((1 + higher) / (21 + len(flagged)))
        assert result.decision != "anomalous"
    again = calibrate("--false-alarms", *names, "--product", "bolt")
    assert len(again.calibration.sets["bolt"]) == 20 + len(flagged)  # each once
    output = capsys.readouterr().err
    assert f"{names[0]}: normal image of bolt from now on, p " in output


def test_a_false_alarm_that_a_miss_makes_uncertain_is_named(
    file: Path, calibrate: Calibrate, tmp_path: Path, capsys: Capture
) -> None:
    inspector = snl.load(file, "cpu")
    paths = [save_varied(tmp_path / f"{n}.png", 5000 + n) for n in range(80)]
    results = inspector.inspect(paths, "bolt")
    normals = [(r.p_value or 0, str(r.path)) for r in results if r.decision == "normal"]
    likely = max(p for p in normals if p[0] <= 0.17)
    alarm = min(normals)
    words = ["--false-alarms", alarm[1], "--product", "bolt"]
    alone = calibrate(*words).inspect(alarm[1], "bolt").decision
    assert alone == "normal" and "still" not in capsys.readouterr().err
    calibrate("--undo")
    both = calibrate(*words, "--misses", likely[1])
    said = capsys.readouterr().err
    assert both.inspect(alarm[1], "bolt").decision == "uncertain"
    rate = both.calibration.rates_for("bolt").uncertain
    assert f"{alarm[1]}: still uncertain, p " in said and f" at the rate {rate:.2g}" in said


def test_false_alarms_that_are_training_images_are_skipped(
    file: Path, varied: Path, tmp_path: Path, capsys: Capture
) -> None:
    known = set(snl.load(file, "cpu").training.hashes.tolist())
    trained = next(p for p in varied.rglob("train/good/*.png") if content_hash(p) in known)
    fresh = save_varied(tmp_path / "fresh.png", 5000)
    before = file.read_bytes()
    assert main(["calibrate", str(file), "--false-alarms", str(trained)]) == 2
    assert file.read_bytes() == before
    capsys.readouterr()
    assert main(["calibrate", str(file), "--false-alarms", str(trained), str(fresh)]) == 0
    output = capsys.readouterr().err
    assert "1 of 2 images were trained on" in output
    assert f"{fresh}: normal image" in output and f"{trained}: normal image" not in output


def test_misses_raise_the_uncertain_rate_of_their_product_only(
    file: Path, calibrate: Calibrate, tmp_path: Path, capsys: Capture
) -> None:
    inspector = snl.load(file, "cpu")
    paths = [save_varied(tmp_path / f"{n}.png", 5000 + n) for n in range(80)]
    results = inspector.inspect(paths, "bolt")
    near = max(
        (r for r in results if r.p_value is not None and 0.1 < r.p_value <= 0.2),
        key=lambda r: r.p_value or 0,
    )
    far = next(r for r in results if r.p_value is not None and r.p_value > 0.3)
    assert near.decision == far.decision == "normal" and near.p_value is not None

    before = file.read_bytes()
    calibrate("--misses", far.path, "--product", "bolt", status=1)
    said = capsys.readouterr().err
    assert "would take a rate above 0.2; not caught" in said
    assert "its map is highest at " in said and "% of normal images reach that" in said
    assert "nothing was changed" in said
    assert "what may catch the missed ones" in said and "snl evaluate FILE DATA" in said
    assert file.read_bytes() == before  # nothing was changed, so there is nothing to undo

    after = calibrate("--misses", far.path, near.path, "--product", "bolt", status=1)
    output = capsys.readouterr().err
    assert f"{near.path}: bolt, p {near.p_value:.2g}: caught from now on" in output
    old, new = inspector.calibration, after.calibration
    assert new.rates == old.rates and new.rates_for("plate") == old.rates
    raised = new.rates_for("bolt").uncertain
    # the command processes another batch, in which the score is rounded differently
    assert raised == pytest.approx(near.p_value * edit.ROUNDING, rel=1e-5)
    assert new.rates_for("bolt") == dataclasses.replace(old.rates, uncertain=raised)
    for name, normals in old.sets.items():  # no score of an anomalous image is added
        np.testing.assert_array_equal(normals.scores, new.sets[name].scores)
    assert after.inspect(str(near.path), "bolt").decision == "uncertain"
    assert after.inspect(str(far.path), "bolt").decision == "normal"
    # an image that is uncertain already changes nothing
    size = len(after.calibrations)
    assert len(calibrate("--misses", near.path, "--product", "bolt").calibrations) == size


# --- ignore masks, scales, regions ---


def test_a_defect_under_the_ignore_mask_does_not_count(
    calibrate: Calibrate, file: Path, tmp_path: Path
) -> None:
    image, defect = draw_varied(2007, defect=True)
    ys, xs = np.nonzero(defect)
    white = np.zeros((400, 480), np.uint8)  # ten times the size of the images, which are 40 x 48
    # with a margin, because the novelty of a patch reaches to its neighbours
    top, bottom = max(ys.min() - 16, 0) * 10, (ys.max() + 17) * 10
    left, right = max(xs.min() - 16, 0) * 10, (xs.max() + 17) * 10
    white[top:bottom, left:right] = 255
    Image.fromarray(white).save(tmp_path / "label=1.png")
    before = snl.load(file, "cpu")
    seen = before.inspect(image, "bolt")
    assert seen.decision == "anomalous" and seen.regions

    inspector = calibrate("--ignore", f"bolt={tmp_path / 'label=1.png'}")
    now = inspector.inspect(image, "bolt")
    assert now.score < seen.score and now.decision != "anomalous"
    inside = np.zeros(image.shape[:2], bool)
    inside[top // 10 + 1 : bottom // 10 - 1, left // 10 + 1 : right // 10 - 1] = True
    assert (now.anomaly_map[inside] == 0).all()
    y, x = now.to_dict()["peak"][::-1]
    assert not inside[y, x]
    far = np.ones_like(inside)
    far[max(top // 10 - 2, 0) : bottom // 10 + 2, max(left // 10 - 2, 0) : right // 10 + 2] = False
    np.testing.assert_allclose(now.anomaly_map[far], seen.anomaly_map[far], rtol=1e-4)
    assert not any(inside[r.peak_at[1], r.peak_at[0]] for r in now.regions)
    # the other product and the held-out scores are unchanged
    other = before.inspect(image, "plate").score
    assert inspector.inspect(image, "plate").score == pytest.approx(other)
    old = before.calibration.sets["bolt"].scores
    np.testing.assert_array_equal(inspector.calibration.sets["bolt"].scores, old)

    # new normal images are measured without the ignored pixels
    folder = make_normals(tmp_path / "normals", 20, products="bolt")
    plain = scores_of(before, folder / "bolt", "bolt")
    inspector = calibrate(folder)
    close(
        inspector.calibration.sets["bolt"].scores,
        scores_of(inspector, folder / "bolt", "bolt"),
    )
    assert (inspector.calibration.sets["bolt"].scores <= np.max(plain) + 1e-4).all()
    inspector = calibrate("--ignore", "none", "--product", "bolt")
    assert not inspector.calibration.ignore_masks
    unmasked = inspector.inspect(image, "bolt")
    np.testing.assert_allclose(unmasked.anomaly_map, seen.anomaly_map, rtol=1e-5)
    assert unmasked.decision == "anomalous"


def test_scale_and_smallest_region(calibrate: Calibrate, file: Path) -> None:
    image = draw_varied(2003, defect=True)[0]
    seen = snl.load(file, "cpu").inspect(image, "bolt")
    area = seen.regions[0].area
    assert seen.regions[0].area_mm2 is None
    inspector = calibrate("--mm-per-pixel", "bolt=0.5", "--smallest", f"bolt={area}")
    found = inspector.inspect(image, "bolt").regions
    assert [r.area for r in found] == [r.area for r in seen.regions if r.area >= area]
    assert found[0].area_mm2 == pytest.approx(area * 0.25)
    inspector = calibrate("--smallest", area + 1, "--product", "bolt")
    assert all(r.area > area for r in inspector.inspect(image, "bolt").regions)
    assert inspector.calibration.mm_per_pixel == {"bolt": 0.5}


# --- tiles ---


def test_a_tile_size_needs_normal_images_of_all_products(
    calibrate: Calibrate, file: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = make_normals(tmp_path / "normals", 6)
    before = file.read_bytes()
    for words, message in (
        ([], "give NORMALS of all products"),
        ([folder / "bolt", "--product", "bolt"], "NORMALS has none of plate"),
        ([folder, "--add"], "leave out --add"),
    ):
        assert main(["calibrate", str(file), "--tile", "32", "--quiet", *map(str, words)]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
        assert file.read_bytes() == before
    inspector = calibrate(folder, "--tile", "32")
    assert inspector.tile == 32 and len(inspector.calibrations) == 2
    for product in ("bolt", "plate"):
        close(
            inspector.calibration.sets[product].scores,
            scores_of(inspector, folder / product, product),
        )
    whole = calibrate("--undo")
    assert whole.tile == 0
    assert calibrate("--tile", "0").tile == 0  # no change
    assert len(snl.load(file, "cpu").calibrations) == 1


# --- versions ---


def decisions(inspector: snl.Inspector) -> list[str]:
    images = [draw_varied(seed, defect=seed % 3 == 0)[0] for seed in range(4200, 4212)]
    results = [inspector.inspect(image, p) for image in images for p in (None, "bolt", "plate")]
    return [json.dumps(result.to_dict()) for result in results]


def test_one_command_is_one_version_that_undo_takes_back(
    file: Path, calibrate: Calibrate, tmp_path: Path, capsys: Capture
) -> None:
    inspector = snl.load(file, "cpu")
    first, before = inspector.calibration, decisions(inspector)
    Image.fromarray(np.eye(40, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    folder = make_normals(tmp_path / "normals", 25)
    changed = calibrate(
        *(folder, "--add", "--rate", 0.2, "--uncertain-rate", 0.3, "--tail", "fit"),
        *("--ignore", f"bolt={tmp_path / 'mask.png'}", "--mm-per-pixel", "plate=2"),
        *("--smallest", "bolt=3", "--false-alarms", save_varied(tmp_path / "x.png", 5001)),
    )
    assert len(changed.calibrations) == 2
    reason = changed.calibration.reason
    edits = ("ignore mask of bolt", "mm_per_pixel", "min_region_area", "new normal images")
    assert reason == ", ".join((*edits, "false alarms", "tail", "rates"))
    assert decisions(changed) != before
    said = capsys.readouterr().err
    share = changed.calibration.ignore_masks["bolt"].mean()
    assert f"bolt: {100 * share:.1f} % of the image is ignored" in said and share > 0
    assert "25 of them new" in said
    back = calibrate("--undo")
    output = capsys.readouterr()
    assert f"undone: {reason}" in output.err
    for change in ("false-alarm rate 0.2 -> 0.05", "tail fitted -> as measured",
                   "bolt: no ignore mask", "plate: mm per pixel 2.0 -> none"):  # fmt: skip
        assert change in output.err
    assert len(back.calibrations) == 1
    assert_same(back.calibration, first)
    assert decisions(back) == before
    untouched = file.read_bytes()
    assert main(["calibrate", str(file), "--undo"]) == 2
    assert "nothing to undo" in capsys.readouterr().err
    assert file.read_bytes() == untouched


def test_undo_takes_back_one_version_at_a_time(calibrate: Calibrate) -> None:
    for rate in (0.06, 0.07, 0.08):
        calibrate("--rate", rate)
    assert [calibrate("--undo").rates.anomalous for _ in range(3)] == [0.07, 0.06, 0.05]


def test_output_leaves_the_input_file_unchanged(file: Path, tmp_path: Path) -> None:
    before = file.read_bytes()
    out = tmp_path / "new" / "other.snl"
    assert main(["calibrate", str(file), "--rate", "0.2", "-o", str(out)]) == 0
    assert file.read_bytes() == before
    assert snl.load(out, "cpu").rates.anomalous == 0.2
    assert main(["calibrate", str(out), "--undo", "-o", str(tmp_path / "back.snl")]) == 0
    assert snl.load(out, "cpu").rates.anomalous == 0.2
    assert snl.load(tmp_path / "back.snl", "cpu").rates.anomalous == 0.05
    assert main(["calibrate", str(file), "-o", str(tmp_path / "copy.snl")]) == 0
    assert (tmp_path / "copy.snl").read_bytes() == before


# --- errors leave the file unchanged ---


@pytest.mark.parametrize("moment", ["measure", "save", "full disk"])
def test_an_interruption_leaves_the_file_unchanged(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, moment: str
) -> None:
    folder = make_normals(tmp_path / "normals", 4)
    before = file.read_bytes()
    files = sorted(tmp_path.rglob("*"))
    stopped: type[BaseException] = KeyboardInterrupt

    def stop(*_: object) -> None:
        raise OSError(28, "No space left on device") if moment == "full disk" else stopped

    if moment == "measure":
        monkeypatch.setattr(Predictor, "predict", stop)
    else:
        monkeypatch.setattr(os, "fsync", stop)
    status = main(["calibrate", str(file), str(folder), "--quiet"])
    assert status == (2 if moment == "full disk" else 130)
    assert file.read_bytes() == before and sorted(tmp_path.rglob("*")) == files
    output = capsys.readouterr()
    assert "Traceback" not in output.err and output.out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rate", "0"], "between 0 and 1"),
        (["--rate", "1"], "between 0 and 1"),
        (["--rate", "nan"], "between 0 and 1"),
        (["--rate", "-1"], "between 0 and 1"),
        (["--rate", "some"], "is not a rate"),
        (["{normals}", "more"], "unrecognized arguments: more"),
        (["--rate", "0.1", "{normals}", "more"], "unrecognized arguments"),
        (["--rate", "0.1", "--no"], "unrecognized arguments: --no"),
        (["--uncertain-rate", "0.01"], "give as much or more"),
        (["--unknown-rate", "2"], "between 0 and 1"),
        (["--regions-rate", "0"], "between 0 and 1"),
        (["--rate", "0.02"], "0.02 needs 49 held-out normal images; there are 40 of all"),
        (["--rate", "0.01", "--product", "bolt"], "20 of 'bolt' and 40 of all products"),
        (["--rate", "0.1", "--product", "nut"], "product 'nut' is not known to this inspector"),
        (["--product", "nut"], "product 'nut' is not known to this inspector"),
        (["--tail", "maybe"], "invalid choice"),
        (["--add"], "--add has nothing to add"),
        (["{missing}"], "does not exist"),
        (["{missing}", "--product", "bolt"], "no normal image is left"),
        (["{empty}"], "no images found"),
        (["{empty}", "--product", "bolt"], "no images in this folder"),
        (["{others}"], "product 'nut' is not known to this inspector; known: bolt, plate"),
        (["{text}", "--product", "bolt"], "no normal image is left"),
        (["--false-alarms", "{missing}"], "missing"),
        (["--false-alarms", "{text}"], "notes.txt"),
        (["--false-alarms", "{empty}"], "no images in this folder"),
        (["--misses", "{missing}"], "missing"),
        (["--misses", "{text}", "--product", "bolt"], "notes.txt"),
        (["--ignore", "{white}"], "write --ignore PRODUCT=VALUE"),
        (["--ignore", "bolt="], "write --ignore PRODUCT=VALUE"),
        (["--ignore", "nut={white}"], "product 'nut' is not known to this inspector"),
        (["--ignore", "bolt={white}"], "everything would be ignored"),
        (["--ignore", "bolt={missing}"], "missing"),
        (["--ignore", "bolt={text}"], "notes.txt"),
        (["--ignore", "bolt={picture}"], "is a picture, not a mask"),
        (["--mm-per-pixel", "bolt=0"], " number in 1"),
        (["--mm-per-pixel", "bolt=inf"], " number in 1"),
        (["--mm-per-pixel", "bolt=nan"], " number in 1"),
        (["--mm-per-pixel", "bolt=wide"], " number in 1"),
        (["--mm-per-pixel", "nut=1"], "product 'nut' is not known to this inspector"),
        (["--mm-per-pixel", "0.1"], "write --mm-per-pixel PRODUCT=VALUE"),
        (["--smallest", "bolt=0"], " number in 1"),
        (["--smallest", "bolt=1.5"], " number in 1"),
        (["--smallest", "bolt=-3"], " number in 1"),
        (["--tile", "5", "{normals}"], "must be in 32..8192"),
        (["--tile", "99999", "{normals}"], "must be in 0..8192"),
        (["--tile", "-5"], "must be in 0..8192"),
        (["--undo"], "nothing to undo"),
        (["--undo", "--rate", "0.1"], "leave out --rate"),
        (["{normals}", "--undo"], "leave out NORMALS"),
        (["-o", "{empty}"], "is a folder"),
        (["--rate", "0.1", "-o", "{image}/x.snl"], "cannot be written"),
        (["--false-alarms", "{image}", "-o", "{image}"], "would overwrite what is read"),
        (["{normals}", "--rate", "0.1", "--device", "cuda:99"], "not available"),
        # valid options before a wrong one are not applied
        (["--smallest", "bolt=3", "--rate", "0.1", "--misses", "{missing}"], "missing"),
        (["{normals}", "--rate", "0.0001"], "held-out normal images"),
    ],
)
def test_wrong_input_is_reported_in_one_line_and_changes_nothing(
    file: Path, tmp_path: Path, capsys: Capture, words: list[str], message: str
) -> None:
    places = {
        "missing": tmp_path / "missing",
        "empty": tmp_path / "empty",
        "text": tmp_path / "notes.txt",
        "white": tmp_path / "white.png",
        "image": save_varied(tmp_path / "image.png", 5000),
        "picture": save_varied(tmp_path / "picture.png", 5001),
        "normals": make_normals(tmp_path / "normals", 2),
        "others": tmp_path / "others",
    }
    places["empty"].mkdir()
    places["text"].write_text("no image")
    Image.fromarray(np.full((9, 9), 255, np.uint8)).save(places["white"])
    save_varied(places["others"] / "nut" / "0.png", 1)
    save_varied(places["others"] / "bolt" / "0.png", 1)
    before, image = file.read_bytes(), places["image"].read_bytes()
    try:
        status = main(["calibrate", str(file), *(w.format(**places) for w in words), "--quiet"])
    except SystemExit as stop:  # from argparse
        status = int(stop.code or 0)
    output = capsys.readouterr()
    assert status == 2, output
    last = output.err.strip().splitlines()[-1]
    assert "error: " in last and message in last, output.err
    assert "Traceback" not in output.err and output.out == ""
    assert file.read_bytes() == before and places["image"].read_bytes() == image
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_missing_file_creates_no_folder(tmp_path: Path, capsys: Capture) -> None:
    assert main(["calibrate", str(tmp_path / "no" / "parts.snl"), "--rate", "0.1"]) == 2
    assert "no such file" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_closed_pipe_does_not_prevent_the_change(file: Path) -> None:
    command = [sys.executable, "-m", "snl", "calibrate", str(file), "--rate", "0.25"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    output = process.stderr.read()
    assert process.wait(60) == 0 and b"Traceback" not in output
    assert snl.load(file, "cpu").rates.anomalous == 0.25
