"""Adding products: what is known afterwards, what stays, undoing it, going on after a kill."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import snl
from snl.errors import DataError, SettingsError, SnlError, TrainingError
from snl.files import load_tensors
from snl.runtime import bundle
from snl.settings import TrainingSettings
from snl.training.addition import Addition, half_and_half
from tests.conftest import TINY, Run
from tests.trees import save_striped, save_varied

NEW = "gear"


@pytest.fixture(scope="module")
def gears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Normal images of a product that `calibrated` does not know."""
    folder = tmp_path_factory.mktemp("gears")
    for n in range(30):
        save_striped(folder / f"{n:03}.png", n)
    return folder


@pytest.fixture(scope="module")
def added(calibrated: Path, gears: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`calibrated` with gears."""
    path = tmp_path_factory.mktemp("added") / "more.snl"
    snl.add(calibrated, gears, product=NEW, output=path, steps=12, device="cpu", quiet=True)
    return path


# --- what is known afterwards ---


def test_the_new_product_is_recognised_and_decided(added: Path, tmp_path: Path) -> None:
    inspector = snl.load(added, "cpu")
    assert inspector.products == ("bolt", NEW, "plate")
    normal = [save_striped(tmp_path / f"{n}.png", 500 + n) for n in range(20)]
    marked = [save_striped(tmp_path / f"bad{n}.png", 600 + n, defect=True) for n in range(10)]
    results = inspector.inspect(normal)
    assert {result.product for result in results} == {NEW}
    assert sum(result.decision == "anomalous" for result in results) <= 4
    found = inspector.inspect(marked, NEW)
    assert min(r.score for r in found) > max(r.score for r in results)
    assert {result.decision for result in found} == {"anomalous"}


def test_what_the_teacher_alone_determines_stays(added: Path, calibrated: Path) -> None:
    before, after = (snl.load(path, "cpu").calibration for path in (calibrated, added))
    known = [owner in before.products for owner in after.prototypes.owners]
    np.testing.assert_array_equal(after.prototypes.centres[known], before.prototypes.centres)
    assert before.references is not None and after.references is not None
    for product in before.products:
        old, new = before.sets[product], after.sets[product]
        assert sorted(old.hashes.tolist()) == sorted(new.hashes.tolist())
        order = np.argsort(old.hashes)[np.argsort(np.argsort(new.hashes))]
        np.testing.assert_array_equal(new.neighbours, old.neighbours[order])
        np.testing.assert_array_equal(new.names, old.names[order])
        assert (new.distances <= old.distances[order]).all()
    assert after.network != before.network


def test_earlier_products_keep_their_images_and_counts(added: Path, calibrated: Path) -> None:
    before, after = snl.load(calibrated, "cpu"), snl.load(added, "cpu")
    assert after.training.products == {**before.training.products, NEW: 15}
    assert set(before.training.hashes.tolist()) < set(after.training.hashes.tolist())
    rehearsal = after.metadata.rehearsal
    assert rehearsal is not None and rehearsal.products == set(after.products)
    facts = after.training.facts
    assert facts["additions"][0]["products"] == [NEW] and facts["additions"][0]["steps"] == 12


def test_the_map_range_rates_and_masks_continue(
    calibrated: Path, gears: Path, tmp_path: Path
) -> None:
    from snl.decision.edit import set_ignore_mask, set_product_values, set_rates

    inspector = snl.load(calibrated, "cpu")
    mask = np.zeros((8, 8), bool)
    mask[:2] = True
    calibration = set_rates(inspector.calibration, "bolt", anomalous=0.2)
    calibration = set_ignore_mask(calibration, "bolt", mask)
    inspector.recalibrate(set_product_values(calibration, "mm_per_pixel", {"plate": 0.5}))
    inspector.save(tmp_path / "a.snl")
    after = snl.add(
        tmp_path / "a.snl", gears, product=NEW, quick=True, device="cpu", quiet=True
    ).calibration
    assert after.rates_for("bolt").anomalous == 0.2 and after.mm_per_pixel == {"plate": 0.5}
    np.testing.assert_array_equal(after.ignore_masks["bolt"], mask)


def test_images_that_were_held_out_calibrate_and_are_not_trained_on(added: Path) -> None:
    inspector = snl.load(added, "cpu")
    held_out = set(inspector.calibration.sets[NEW].hashes.tolist())
    assert len(held_out) == 15
    assert not held_out & set(inspector.training.hashes.tolist())


def test_a_new_version_replaces_the_old_one(calibrated: Path, gears: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.snl"
    shutil.copy(calibrated, path)
    snl.add(path, gears, product="bolt", replace=True, steps=8, device="cpu", quiet=True)
    after = snl.load(path, "cpu")
    assert set(after.products) == {"bolt", "plate"}
    old = save_varied(tmp_path / "old.png", 900, product="bolt")
    new = save_striped(tmp_path / "new.png", 900)
    assert after.inspect(new).product == "bolt"
    assert after.inspect(old, "bolt").score > after.inspect(new, "bolt").score
    rehearsal = after.metadata.rehearsal
    assert rehearsal is not None
    names = {image.name for image in rehearsal.images if image.product == "bolt"}
    assert all(name.startswith(gears.name) for name in names)
    assert snl.undo(path) == "added bolt"
    assert snl.load(path, "cpu").inspect(old).product == "bolt"


def test_several_products_at_once_and_one_after_another(
    calibrated: Path, gears: Path, tmp_path: Path
) -> None:
    both = tmp_path / "both"
    shutil.copytree(gears, both / NEW)
    for n in range(9):
        image = save_varied(both / "dim" / f"{n}.png", n, product="plate")
        _darken(image)
    path = tmp_path / "a.snl"
    snl.add(calibrated, both, output=path, quick=True, device="cpu", quiet=True)
    assert snl.load(path, "cpu").products == ("bolt", "dim", NEW, "plate")
    once = tmp_path / "once.snl"
    snl.add(calibrated, gears, product=NEW, output=once, quick=True, device="cpu", quiet=True)
    after = snl.add(once, both / "dim", product="dim", steps=4, device="cpu", quiet=True)
    assert after.products == ("bolt", "dim", NEW, "plate")
    memory = snl.load(once, "cpu").network.memory
    assert memory is not None and len(memory.patches) == 3


def _darken(path: Path) -> None:
    from PIL import Image

    pixels = np.asarray(Image.open(path)) // 6
    Image.fromarray(pixels).save(path)


# --- undo and history ---


def test_undo_restores_the_file(added: Path, calibrated: Path, tmp_path: Path) -> None:
    undone = snl.undo(added, tmp_path / "a.snl")
    assert undone == f"added {NEW}"
    before, after = (load_tensors(path, "bundle") for path in (calibrated, tmp_path / "a.snl"))
    assert before[0].keys() == after[0].keys()
    for name, array in before[0].items():
        np.testing.assert_array_equal(array, after[0][name], err_msg=name)
    old, new = (document["sections"] for _, document in (before, after))
    assert {k: v for k, v in new.items() if k != "history"} == {
        k: v for k, v in old.items() if k != "history"
    }
    whats = [event.what for event in snl.history(tmp_path / "a.snl")]
    assert whats == [
        *("training", f"added {NEW}, not trained on", f"trained on {NEW}, 12 steps"),
        f"undone: added {NEW}",
    ]


def test_a_calibration_is_undone_before_the_products(added: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.snl"
    shutil.copy(added, path)
    inspector = snl.load(path, "cpu")
    snl.calibrate(inspector, rate=0.2)
    inspector.save(path)
    assert [snl.undo(path), snl.undo(path)] == ["rates", f"added {NEW}"]
    with pytest.raises(SettingsError, match="nothing to undo"):
        snl.undo(path)
    assert snl.load(path, "cpu").products == ("bolt", "plate")


def test_the_previous_state_is_stored_once(added: Path, calibrated: Path) -> None:
    names = load_tensors(added, "bundle")[0]
    again = [name for name in names if name.startswith("previous.network/teacher")]
    assert not again and any(name.startswith("previous.network/student") for name in names)
    assert "previous.rehearsal/jpeg" in names and not len(names["previous.rehearsal/jpeg"])


def test_exports_have_neither_small_images_nor_the_previous_state(
    added: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    inspector = snl.load(added, "cpu")
    snl.export(inspector, tmp_path / "a.onnx")
    exported = snl.load(tmp_path / "a.onnx")
    assert exported.metadata.rehearsal is None and exported.metadata.previous is None
    assert inspector.metadata.rehearsal is not None
    content = (tmp_path / "a.onnx").read_bytes()
    assert all(image.jpeg not in content for image in inspector.metadata.rehearsal.images)
    assert exported.events == inspector.events
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    one, other = inspector.predict(pixels), exported.predict(pixels)
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4)


# --- remove ---


def test_removing_leaves_the_other_decisions(added: Path, varied: Path, tmp_path: Path) -> None:
    inspector = snl.load(added, "cpu")
    images = sorted((varied / "bolt" / "test").rglob("*.png"))
    before = inspector.inspect(images)
    snl.remove(inspector, [NEW, "plate"])
    inspector.save(tmp_path / "a.snl")
    after = snl.load(tmp_path / "a.snl", "cpu").inspect(images)
    for one, other in zip(before, after, strict=True):
        assert (one.product, one.decision, one.score) == (
            other.product,
            other.decision,
            other.score,
        )
        assert one.p_value == other.p_value
        assert [r.box for r in one.regions] == [r.box for r in other.regions]


def test_removed_images_are_gone(added: Path, tmp_path: Path) -> None:
    inspector = snl.load(added, "cpu")
    rehearsal, old = inspector.metadata.rehearsal, inspector.calibration.sets[NEW]
    assert rehearsal is not None
    gone = [image for image in rehearsal.images if image.product == NEW]
    kept = [image for image in rehearsal.images if image.product != NEW]
    assert len(gone) == 30 and kept
    snl.remove(inspector, NEW)
    inspector.save(tmp_path / "a.snl")
    content = (tmp_path / "a.snl").read_bytes()
    assert not any(image.jpeg in content or image.name.encode() in content for image in gone)
    assert not any(int(value).to_bytes(8, "little") in content for value in old.hashes)
    assert all(image.jpeg in content for image in kept)
    with pytest.raises(SettingsError, match="nothing to undo"):
        snl.undo(tmp_path / "a.snl")
    assert snl.history(tmp_path / "a.snl")[-1].what == f"removed {NEW}"


def test_a_removed_product_can_come_back(added: Path, gears: Path, tmp_path: Path) -> None:
    inspector = snl.load(added, "cpu")
    snl.remove(inspector, NEW)
    inspector.save(tmp_path / "a.snl")
    again = snl.add(tmp_path / "a.snl", gears, product=NEW, quick=True, device="cpu", quiet=True)
    assert again.products == ("bolt", NEW, "plate") and not again.calibration.retired


@pytest.mark.parametrize(
    ("names", "message"), [(["nut"], "not known"), (["bolt", "plate"], "at least one product")]
)
def test_what_cannot_be_removed(calibrated: Path, names: list[str], message: str) -> None:
    inspector = snl.load(calibrated, "cpu")
    with pytest.raises(SettingsError, match=message):
        snl.remove(inspector, names)
    assert inspector.products == ("bolt", "plate")


# --- wrong input changes nothing ---


def _few(gears: Path, folder: Path, count: int) -> Path:
    for path in sorted(gears.iterdir())[:count]:
        folder.mkdir(exist_ok=True)
        shutil.copy(path, folder)
    return folder


WRONG: dict[str, tuple[Callable[[Path, Path], dict[str, Any]], str]] = {
    "a known name": (lambda gears, _: {"normals": gears, "product": "bolt"}, "--replace"),
    "nothing to replace": (
        lambda gears, _: {"normals": gears, "product": NEW, "replace": True},
        "nothing to replace",
    ),
    "one image": (
        lambda gears, tmp: {"normals": _few(gears, tmp / "one", 1), "product": NEW},
        "has 1 normal image; 4 are needed",
    ),
    "three images": (
        lambda gears, tmp: {"normals": _few(gears, tmp / "three", 3), "product": NEW},
        "has 3 normal images; 4 are needed",
    ),
    "no image": (lambda gears, tmp: {"normals": tmp, "product": NEW}, "no normal images"),
    "no folder": (lambda gears, tmp: {"normals": tmp / "none", "product": NEW}, "no folder"),
    "no name": (lambda gears, _: {"normals": gears, "product": " "}, "give a name"),
    "defects": (
        lambda gears, tmp: {"normals": _few(gears, tmp / "NG", 8), "product": NEW},
        "anomalous",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(case: str, calibrated: Path, gears: Path, tmp_path: Path) -> None:
    make, message = WRONG[case]
    path = tmp_path / "a.snl"
    shutil.copy(calibrated, path)
    content = path.read_bytes()
    with pytest.raises(SnlError, match=re.escape(message)):
        snl.add(path, **make(gears, tmp_path), device="cpu", quiet=True)
    assert path.read_bytes() == content
    assert not (tmp_path / "a.snl.run").exists()


@pytest.mark.parametrize(
    ("name", "message"), [("a.onnx", "an export cannot be trained"), ("a.snl", "no such file")]
)
def test_what_is_no_bundle(name: str, message: str, gears: Path, tmp_path: Path) -> None:
    with pytest.raises(SnlError, match=message):
        snl.add(tmp_path / name, gears, product=NEW, device="cpu", quiet=True)
    assert not list(tmp_path.iterdir())


def test_images_of_a_known_product(calibrated: Path, tmp_path: Path) -> None:
    for n in range(12):
        save_varied(tmp_path / "nut" / f"{n}.png", 3000 + n, product="bolt")
    path = tmp_path / "a.snl"
    shutil.copy(calibrated, path)
    content = path.read_bytes()
    with pytest.raises(DataError, match=r"images of nut look like bolt.*--replace.*--force"):
        snl.add(path, tmp_path / "nut", product="nut", device="cpu", quiet=True)
    assert path.read_bytes() == content
    forced = snl.add(
        path, tmp_path / "nut", product="nut", force=True, quick=True, device="cpu", quiet=True
    )
    assert "nut" in forced.products


def test_a_bundle_without_small_images(varied: Path, gears: Path, tmp_path: Path) -> None:
    settings = {**TINY, "training.rehearsal": 0}
    snl.train(varied, output=tmp_path / "a.snl", overrides=settings, device="cpu", quiet=True)
    assert snl.load(tmp_path / "a.snl", "cpu").metadata.rehearsal is None
    with pytest.raises(SettingsError, match="--no-rehearsal"):
        snl.add(tmp_path / "a.snl", gears, product=NEW, device="cpu", quiet=True)


def test_held_out_images_without_a_copy_are_counted(
    varied: Path, gears: Path, tmp_path: Path
) -> None:
    settings = {**TINY, "training.rehearsal": 5}
    path = tmp_path / "a.snl"
    before = snl.train(varied, output=path, overrides=settings, device="cpu", quiet=True)
    held = sum(map(len, before.calibration.sets.values()))
    notes: list[str] = []
    after = snl.add(
        path, gears, product=NEW, quick=True, device="cpu", quiet=True, note=notes.append
    )
    assert {len(after.calibration.sets[name]) for name in before.products} == {5}
    assert any(f"{held - 10} held-out images of earlier products" in text for text in notes)


def test_an_inspector_that_works_in_tiles(varied: Path, gears: Path, tmp_path: Path) -> None:
    settings = {**TINY, "tile": 32}
    snl.train(varied, output=tmp_path / "a.snl", overrides=settings, device="cpu", quiet=True)
    with pytest.raises(SettingsError, match="tiles"):
        snl.add(tmp_path / "a.snl", gears, product=NEW, device="cpu", quiet=True)


def test_an_existing_output_is_not_replaced(calibrated: Path, gears: Path, tmp_path: Path) -> None:
    path = tmp_path / "there.snl"
    shutil.copy(calibrated, path)
    content = path.read_bytes()
    with pytest.raises(TrainingError, match="exists already"):
        snl.add(calibrated, gears, product=NEW, output=path, device="cpu", quiet=True)
    assert path.read_bytes() == content


def test_an_addition_without_training_goes_on_later(
    calibrated: Path, gears: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.snl"
    shutil.copy(calibrated, path)
    words: dict[str, Any] = {"product": NEW, "device": "cpu", "quiet": True}
    quick = snl.add(path, gears, **words, quick=True)
    content = path.read_bytes()
    notes: list[str] = []
    snl.add(path, gears, **words, quick=True, note=notes.append)
    assert path.read_bytes() == content and "already added" in notes[-1]
    whole = snl.add(path, gears, **words, steps=4)
    assert whole.calibration.network != quick.calibration.network
    content = path.read_bytes()
    snl.add(path, gears, **words, steps=4, note=notes.append)
    assert path.read_bytes() == content and "already added" in notes[-1]


def test_an_unfinished_addition_is_usable_and_can_be_undone(
    calibrated: Path, gears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.snl"
    shutil.copy(calibrated, path)
    monkeypatch.setattr(Addition, "train", _stopped)
    with pytest.raises(KeyboardInterrupt):
        snl.add(path, gears, product=NEW, device="cpu", quiet=True)
    monkeypatch.undo()
    assert NEW in snl.load(path, "cpu").products
    assert snl.undo(path) == f"added {NEW}"


def _stopped(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


# --- kills ---


def test_a_killed_addition_goes_on(calibrated: Path, gears: Path, tmp_path: Path) -> None:
    """SIGKILL while it trains, twice; the same command finishes it with the same weights."""
    whole = tmp_path / "whole.snl"
    words = ["--product", NEW, "--steps", "60", "--device", "cpu", "--quiet"]
    _add(calibrated, gears, "-o", whole, *words).wait(240)
    path = tmp_path / "a.snl"
    shutil.copy(calibrated, path)
    for least in (1, 20):
        process = _add(path, gears, *words, "--checkpoint-every", "0.01")
        _wait_for_step(tmp_path / "a.snl.run" / "add", least, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert NEW in snl.load(path, "cpu").products
    process = _add(path, gears, *words)
    assert process.wait(240) == 0, process.communicate()
    one, other = (bundle.load(p)[0].state_dict() for p in (whole, path))
    for name, value in one.items():
        np.testing.assert_array_equal(value.numpy(), other[name].numpy(), err_msg=name)
    assert not (tmp_path / "a.snl.run").exists()


def _add(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "snl", "add", *map(str, words)],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def _wait_for_step(folder: Path, least: int, process: subprocess.Popen[str]) -> None:
    for _ in range(2400):
        for found in folder.glob("*/checkpoint.safetensors"):
            try:
                _, facts = load_tensors(found, "checkpoint")
            except SnlError:
                facts = {"step": 0}
            if facts["step"] >= least:
                return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("no checkpoint after two minutes")


# --- batches ---


@pytest.mark.parametrize(("size", "new"), [(8, 4), (4, 2), (5, 3), (1, 1)])
def test_half_of_every_batch_is_new(size: int, new: int) -> None:
    is_new = [False] * 20 + [True] * 7
    order = half_and_half(is_new, TrainingSettings(batch_size=size))
    seen: list[int] = []
    for step in range(40):
        batch = order(step)
        assert len(batch) == size and sum(is_new[i] for i in batch.tolist()) == new
        np.testing.assert_array_equal(batch, order(step))
        seen += batch.tolist()
    counts = np.bincount(seen, minlength=27)
    for rows in (range(20), range(20, 27)):
        shown = counts[list(rows)]
        assert shown.max() - shown.min() <= 1  # all images of a kind equally often


def test_without_earlier_images_every_image_is_new() -> None:
    order = half_and_half([True] * 9, TrainingSettings(batch_size=4))
    assert {len(order(step)) for step in range(5)} == {4}


# --- the command line ---


def test_the_verbs(calibrated: Path, gears: Path, tmp_path: Path, run_snl: Run) -> None:
    path = tmp_path / "a.snl"
    shutil.copy(calibrated, path)
    environment = {**os.environ, "SNL_USER": "Ada"}
    words = (path, gears, "--product", NEW, "--steps", "4", "--device", "cpu", "--quiet")
    done = run_snl("add", *words, env=environment)
    assert done.returncode == 0, done.stderr
    assert f"{NEW} can be inspected now" in done.stderr and "3 products" in done.stderr
    assert f"note: {NEW}: 15 held-out images; 4 more for" in done.stderr
    again = run_snl("add", *words)
    assert again.returncode == 0 and "already added" in again.stderr
    removed = run_snl("remove", path, "plate", env=environment)
    assert removed.returncode == 0 and "2 products left" in removed.stderr
    history = run_snl("history", path)
    assert "Ada" in history.stdout and "removed plate" in history.stdout
    events = json.loads(run_snl("history", path, "--json").stdout)
    assert [event["products"] for event in events] == [2, 3, 3, 2]
    undone = run_snl("undo", path)
    assert undone.returncode == 2 and "nothing to undo" in undone.stderr
    assert "Traceback" not in undone.stderr
    rates = run_snl("calibrate", path, "--rate", "0.2")
    assert rates.returncode == 0
    undone = run_snl("calibrate", path, "--undo")
    assert undone.returncode == 0 and "undone: rates" in undone.stderr
