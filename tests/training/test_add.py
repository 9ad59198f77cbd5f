"""Adding products: what is known afterwards, what stays, undoing it, going on after a kill."""

from __future__ import annotations

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
from snl.training.addition import Addition
from tests.conftest import TINY
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


def test_the_calibration_of_earlier_products_stays(added: Path, calibrated: Path) -> None:
    before, after = (snl.load(path, "cpu").calibration for path in (calibrated, added))
    known = [owner in before.products for owner in after.prototypes.owners]
    np.testing.assert_array_equal(after.prototypes.centres[known], before.prototypes.centres)
    assert before.references is not None and after.references is not None
    for product in before.products:
        old, new = before.sets[product], after.sets[product]
        for name in ("scores", "distances", "peaks", "hashes", "names", "neighbours"):
            np.testing.assert_array_equal(getattr(new, name), getattr(old, name))
        assert after.log_score_stats[product] == before.log_score_stats[product]
    assert after.network != before.network


def test_earlier_products_get_the_same_maps(added: Path, calibrated: Path, varied: Path) -> None:
    files = sorted(varied.rglob("test/*/*.png"))
    assert len(files) > 20
    before, after = (
        list(snl.load(path, "cpu").predictor.predict_images(files, []))
        for path in (calibrated, added)
    )
    for old, new in zip(before, after, strict=True):
        # but for rounding: the memory compares with one of several banks now
        assert new.score == pytest.approx(old.score, rel=1e-5)
        np.testing.assert_allclose(new.anomaly_map, old.anomaly_map, rtol=1e-5)
        np.testing.assert_array_equal(new.embedding, old.embedding)


def test_earlier_products_keep_their_images_and_counts(added: Path, calibrated: Path) -> None:
    before, after = snl.load(calibrated, "cpu"), snl.load(added, "cpu")
    assert after.training.products == {**before.training.products, NEW: 15}
    assert set(before.training.hashes.tolist()) < set(after.training.hashes.tolist())
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
    names = after.calibration.sets["bolt"].names.tolist()
    assert names and all(name.startswith(gears.name) for name in names)
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


def _darken(path: Path, factor: int = 6) -> None:
    from PIL import Image

    pixels = np.asarray(Image.open(path)) // factor
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
    rates = "rates (false-alarm rate 0.2 -> 0.05, uncertain rate 0.2 -> 0.1)"
    assert [snl.undo(path), snl.undo(path)] == [rates, f"added {NEW}"]
    with pytest.raises(SettingsError, match="nothing to undo"):
        snl.undo(path)
    assert snl.load(path, "cpu").products == ("bolt", "plate")


def test_additions_are_undone_one_after_another(
    added: Path, calibrated: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.snl"
    shutil.copy(added, path)
    names = [f"dim{number}" for number in range(5)]
    states = [load_tensors(path, "bundle")[0]]
    for number, name in enumerate(names):
        for n in range(5):
            image = save_varied(tmp_path / name / f"{n}.png", n, product="plate")
            _darken(image, 3 + 2 * number)
        words: dict[str, Any] = {"force": True, "quick": True, "device": "cpu", "quiet": True}
        snl.add(path, tmp_path / name, product=name, **words)
        states.append(load_tensors(path, "bundle")[0])
    for number, name in reversed(list(enumerate(names))):
        assert snl.undo(path) == f"added {name}"
        found, expected = load_tensors(path, "bundle")[0], states[number]
        for key, array in expected.items():
            if not key.startswith("previous."):
                np.testing.assert_array_equal(found[key], array, err_msg=key)
        assert snl.load(path, "cpu").products == tuple(
            sorted(["bolt", "plate", NEW, *names[:number]])
        )
    with pytest.raises(SettingsError, match="nothing to undo"):
        snl.undo(path)  # a bundle keeps five states


def test_what_both_states_share_is_stored_once(added: Path, gears: Path, tmp_path: Path) -> None:
    """Teacher, student, and the adapters of earlier additions."""
    path = tmp_path / "a.snl"
    shutil.copy(added, path)
    for n in range(9):
        _darken(save_varied(tmp_path / "dim" / f"{n}.png", n, product="plate"))
    snl.add(path, tmp_path / "dim", product="dim", steps=4, force=True, device="cpu", quiet=True)
    names = set(load_tensors(path, "bundle")[0])
    weights = {name.removeprefix("network/") for name in names if name.startswith("network/")}
    assert any(name.startswith("student") and name.endswith("adapter_up.2") for name in weights)
    for name in weights:
        if name.startswith(("teacher", "student")):
            assert f"previous.network/{name}" not in names


def test_exports_know_every_group(added: Path, varied: Path, gears: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    inspector = snl.load(added, "cpu")
    files = [*sorted(gears.glob("*.png"))[:3], *sorted(varied.rglob("test/*/*.png"))[:3]]
    expected = inspector.inspect([files[i] for i in (0, 3, 1, 4, 2, 5)])
    for name in ("a.onnx", "a.xml"):
        snl.export(inspector, tmp_path / name, format="onnx" if name == "a.onnx" else "openvino")
        exported = snl.load(tmp_path / name)
        assert exported.metadata.previous is None and exported.events == inspector.events
        found = exported.inspect([files[i] for i in (0, 3, 1, 4, 2, 5)])
        for one, other in zip(expected, found, strict=True):
            assert one.product == other.product
            assert one.score == pytest.approx(other.score, rel=1e-3)
    groups = {NEW if r.product == NEW else "" for r in expected}
    assert groups == {NEW, ""}


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
    old = inspector.calibration.sets[NEW]
    assert len(old) == 15 and all(old.names)
    snl.remove(inspector, NEW)
    inspector.save(tmp_path / "a.snl")
    content = (tmp_path / "a.snl").read_bytes()
    assert not any(name.encode() in content for name in old.names)
    assert not any(int(value).to_bytes(8, "little") in content for value in old.hashes)
    with pytest.raises(SettingsError, match="nothing to undo"):
        snl.undo(tmp_path / "a.snl")
    assert snl.history(tmp_path / "a.snl")[-1].what == f"removed {NEW}"


def test_a_removed_product_can_come_back(added: Path, gears: Path, tmp_path: Path) -> None:
    inspector = snl.load(added, "cpu")
    snl.remove(inspector, NEW)
    inspector.save(tmp_path / "a.snl")
    again = snl.add(tmp_path / "a.snl", gears, product=NEW, quick=True, device="cpu", quiet=True)
    assert again.products == ("bolt", NEW, "plate")
    assert len(again.calibration.retired) == 1  # it still tells how far normal scores reach


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
