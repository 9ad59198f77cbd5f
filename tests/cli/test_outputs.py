"""Every verb: outputs never replace inputs, what is done is kept, the other outputs are written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import snl
from snl.cli.main import main
from snl.errors import BundleError, SnlError
from snl.reporting.annotations import coco_file
from tests.conftest import TINY, TINY_OPTIONS
from tests.trees import save_part, save_varied

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def site(tmp_path: Path, bundle: Path, parts: Path) -> Path:
    """A folder with its own bundle, data set with a manifest, and images to inspect."""
    shutil.copy(bundle, tmp_path / "b.snl")
    shutil.copytree(parts, tmp_path / "data")
    for n in range(4):
        save_part(tmp_path / "in" / f"{n}.png", 500 + n)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


COMMANDS: dict[str, list[str]] = {
    "train -o": ["train", "data", "--overwrite", *TINY_OPTIONS],
    "calibrate -o": ["calibrate", "b.snl", "--smallest", "bolt=2"],
    "inspect --json": ["inspect", "b.snl", "in"],
    "inspect --coco": ["inspect", "b.snl", "in"],
    "inspect --monitor": ["inspect", "b.snl", "in"],
    "evaluate --json": ["evaluate", "b.snl", "data"],
    "report -o": ["report", "b.snl", "data"],
    "probe --json": ["probe", "b.snl", "data"],
    "probe --picture": ["probe", "b.snl", "data"],
    "export -o": ["export", "b.snl"],
    "info --json": ["info", "b.snl"],
    "doctor --json": ["doctor", "data"],
    "doctor  --json": ["doctor"],
}
VICTIMS = {
    "image": "in/0.png", "training image": "data/bolt/train/good/000.png", "bundle": "b.snl",
    "mask": "data/bolt/ground_truth/dent/000_mask.png", "manifest": "list.csv", "notes": "notes",
    "settings": "package.json", "page": "page.html", "weights": "w.pth",
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_no_verb_replaces_the_file_of_somebody(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, command: str
) -> None:
    monkeypatch.chdir(site)
    monkeypatch.setattr(snl.Predictor, "predict", None)  # before any work
    (site / "list.csv").write_text("path\nin/0.png\n")
    (site / "notes").write_text("measured by hand")
    (site / "package.json").write_text('{"name": "x"}')
    (site / "page.html").write_text("<!doctype html><html><body>mine</body></html>")
    (site / "w.pth").write_bytes(b"PK\3\4 weights")
    before = contents(site)
    for name, victim in VICTIMS.items():
        if (command, name) == ("train -o", "bundle"):
            continue  # what --overwrite is for
        if (command, name) == ("calibrate -o", "bundle"):
            continue  # the file itself
        for number, target in enumerate((victim, f"./in/../{victim}", "link")):
            if target == "link":
                link = Path("link" + Path(victim).suffix)
                link.symlink_to(victim)
                target = str(link)
            words = [*COMMANDS[command], command.split()[-1], target]
            words += [] if words[0] == "info" else ["--quiet"]
            assert main(words) == 2, (name, number)
            errors = capsys.readouterr().err.strip().splitlines()
            assert len(errors) == 1 and errors[0].startswith("snl: error: "), errors
            if target.startswith("link"):
                link.unlink()
            assert contents(site) == before, (name, target)


@pytest.mark.parametrize("option", ["--out", "--labelme", "--save-maps"])
def test_files_in_folders_are_checked_one_by_one(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, option: str
) -> None:
    """A mask, a label file and an array of a person have the name that snl would choose."""
    monkeypatch.chdir(site)
    verb = ["evaluate", "b.snl", "data"] if option == "--save-maps" else ["inspect", "b.snl", "in"]
    names = {"--out": "3.png", "--labelme": "3.json", "--save-maps": "bolt/test/good/000.png.npy"}
    file = site / "dir" / names[option]
    file.parent.mkdir(parents=True)
    file.write_bytes(b'{"shapes": []}' if option == "--labelme" else b"\x89PNG mine")
    before = contents(site)
    assert main([*verb, option, "dir", "--quiet"]) == 2
    assert file.name in capsys.readouterr().err and contents(site) == before
    file.unlink()
    for _ in range(2):  # what snl wrote is replaced
        assert main([*verb, option, "dir", "--quiet"]) == 0
    assert file.is_file()


def test_bad_names_are_refused_before_the_training(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("snl.training.train.untrained", None)
    monkeypatch.chdir(site)
    (site / "r.snl").write_bytes(b"")
    (site / "r.snl").chmod(0o444)
    (site / "f.snl.run").write_text("")
    for name in ("x.onnx", "x.xml", "X.ONNX", "in", "in/", "x.jpg", "b.snl/x.snl", "r.snl", "f.snl",
                 "y" * 300, "data/manifest.csv"):  # fmt: skip
        words = ["train", "data", "-o", name, *TINY_OPTIONS, "--steps", "100000", "--overwrite"]
        assert main(words) == 2, name
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_python_functions_check_too(site: Path) -> None:
    inspector = snl.load(site / "b.snl", "cpu")
    image = site / "in" / "0.png"
    before = contents(site)
    for call in (
        lambda: snl.train(site / "data", output=image, overrides=TINY, overwrite=True, quiet=True),
        lambda: inspector.save(image),
        lambda: snl.report(inspector, site / "data", image),
        lambda: snl.export(inspector, site / "data" / "bolt" / "x.onnx" / image.name),
        lambda: coco_file(image).__enter__(),
        lambda: snl.evaluate(inspector, site / "data", save_maps=image),
    ):
        with pytest.raises(SnlError):
            call()
    assert contents(site) == before


def test_saving_over_a_changed_file_is_refused(site: Path) -> None:
    file = site / "b.snl"
    first, second = snl.load(file, "cpu"), snl.load(file, "cpu")
    first.save(file)
    first.save(file)  # its own change is none
    with pytest.raises(BundleError, match="changed by another process after it was loaded"):
        second.save(file)
    second.save(site / "other.snl")


def test_calibrate_does_not_replace_another_model(
    site: Path, calibrated: Path, capsys: Capture
) -> None:
    other = site / "other.snl"
    shutil.copy(calibrated, other)
    before = other.read_bytes()
    words = ["calibrate", str(site / "b.snl"), "--smallest", "bolt=2", "-o"]
    assert main([*words, str(other)]) == 2
    assert "holds another model" in capsys.readouterr().err and other.read_bytes() == before
    for _ in range(2):
        assert main([*words, str(site / "new.snl")]) == 0


# --- in processes ---


def start(*words: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "snl", *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload,no-any-return]


def test_calibrations_at_once_are_all_kept(site: Path) -> None:
    file = site / "b.snl"
    changes: Sequence[Sequence[str]] = (
        ("--smallest", "bolt=3"), ("--smallest", "plate=4"), ("--mm-per-pixel", "bolt=0.5"),
    )  # fmt: skip
    processes = [start("calibrate", file, *change, stdout=subprocess.DEVNULL) for change in changes]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, errors
    calibration = snl.load(file, "cpu").calibration
    assert calibration.min_region_area == {"bolt": 3, "plate": 4}
    assert calibration.mm_per_pixel == {"bolt": 0.5}
    assert not list(site.glob(".*"))


def test_a_stopped_inspection_keeps_its_results_and_its_state_has_one_owner(
    site: Path, calibrated: Path
) -> None:
    """SIGHUP; tests/hostile/test_kills.py has the other signals."""
    first = save_varied(site / "many" / "0.png", 6000)
    for n in range(1, 3000):
        os.link(first, site / "many" / f"{n}.png")
    lines, coco, state = (site / name for name in ("r.jsonl", "c.json", "s.json"))
    lines.write_text('{"path": "old.png", "decision": "normal", "score": 1}\n')
    words = ["inspect", calibrated, site / "many", "--quiet", "--json", lines]
    process = start(*words, "--coco", coco, "--monitor", state)
    deadline = time.monotonic() + 60
    while "old.png" in lines.read_text() or lines.read_text().count("\n") < 20:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    again = start("inspect", calibrated, first, "--json", site / "x.jsonl", "--monitor", state)
    stderr = again.communicate(timeout=60)[1]
    assert again.returncode == 2 and "another snl inspect uses this drift state" in stderr
    assert not (site / "x.jsonl").exists()
    process.send_signal(signal.SIGHUP)
    stderr = process.communicate(timeout=60)[1]
    results = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(results) >= 20 and "old.png" not in lines.read_text()
    assert process.returncode == 129
    assert f"stopped after {len(results)} of 3000 images" in stderr and "Traceback" not in stderr
    assert len(json.loads(coco.read_text())["images"]) == len(results)
    drift = snl.DriftMonitor.load(state).status()
    assert sum(d.images for d in drift.values()) == len(results)


def test_an_output_that_fails_is_said_once_and_the_others_go_on(site: Path) -> None:
    """Standard output is full; the folder of the overlays cannot be written any more."""
    words = ["inspect", site / "b.snl", site / "in", "--coco", site / "c.json"]
    with Path("/dev/full").open("w") as full:
        process = start(*words, stdout=full)
        stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 2, stderr
    assert stderr.count("standard output: cannot be written (No space left") == 1
    assert "Traceback" not in stderr and "Exception" not in stderr
    assert len(json.loads((site / "c.json").read_text())["images"]) == 4


def test_a_full_disk_and_a_vanished_file(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Lines that do not fit are written when there is space again, also in a deleted file."""
    from snl.cli import inspect_lines

    append, calls = inspect_lines._append, []
    lines = site / "r.jsonl"

    def full(file: object, content: bytes) -> None:
        calls.append(content)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        append(file, content)  # type: ignore[arg-type]
        if len(calls) == 2:
            lines.unlink()

    monkeypatch.setattr(inspect_lines, "_append", full)
    words = ["inspect", str(site / "b.snl"), str(site / "in"), "--json", str(lines), "--quiet"]
    assert main(words) == 2
    errors = capsys.readouterr().err
    assert errors.count("No space left on device") == 1
    names = [Path(json.loads(line)["path"]).name for line in lines.read_text().splitlines()]
    assert names == ["0.png", "1.png", "2.png", "3.png"]


def test_a_run_that_fails_at_once_leaves_the_earlier_results(site: Path, capsys: Capture) -> None:
    lines = site / "r.jsonl"
    words = ["inspect", str(site / "b.snl"), "--json", str(lines), "--quiet"]
    assert main([*words, str(site / "in")]) == 0
    before = lines.read_bytes()
    assert main([*words, str(site / "missing.png")]) == 2
    assert main([*words, str(site / "in"), "--product", "nut"]) == 2
    assert lines.read_bytes() == before
    assert main([*words, str(site / "in" / "0.png")]) == 0
    assert lines.read_bytes().count(b"\n") == 1
