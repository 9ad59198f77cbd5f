"""A run that Ctrl-C, SIGTERM or kill -9 interrupts and that is resumed: the same weights."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import snl
from snl.errors import TrainingError
from snl.files import load_tensors
from snl.runtime.bundle import read_sections
from tests.conftest import TINY_OPTIONS, Run
from tests.trees import save_part

STEPS = ["--steps", "40", "--checkpoint-every", "0", "--quiet"]


def start(data: Path, output: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "snl", "train", str(data), "-o", str(output)]
    return subprocess.Popen(
        [*command, *TINY_OPTIONS, *STEPS, *options], stderr=subprocess.PIPE, text=True
    )


def interrupt(process: subprocess.Popen[str], output: Path, number: int, after: int) -> str:
    """Send a signal once the checkpoint has reached a step; returns standard error."""
    checkpoint = output.with_name(output.name + ".run") / "checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr and process.stderr.read()
        if checkpoint.is_file() and load_tensors(checkpoint, "checkpoint")[1]["step"] >= after:
            break
        time.sleep(0.02)
    process.send_signal(number)
    return process.communicate(timeout=60)[1]


@pytest.fixture(scope="module")
def uninterrupted(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("uninterrupted") / "a.snl"
    assert start(parts, output).wait(200) == 0
    return output


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_resumed_equals_uninterrupted(
    parts: Path, uninterrupted: Path, tmp_path: Path, number: int
) -> None:
    output = tmp_path / "b.snl"
    process = start(parts, output)
    stderr = interrupt(process, output, number, after=3)
    assert not output.exists()
    if number == signal.SIGKILL:
        assert process.returncode == -9
    else:
        assert process.returncode == 128 + number
        assert "--resume" in stderr and "Traceback" not in stderr
    # interrupted again, then run to the end
    process = start(parts, output, "--resume")
    interrupt(process, output, signal.SIGKILL, after=20)
    assert start(parts, output, "--resume").wait(200) == 0
    left, _ = load_tensors(uninterrupted, "bundle")
    right, _ = load_tensors(output, "bundle")
    assert left.keys() == right.keys()
    assert all((left[name] == right[name]).all() for name in left)
    log = (tmp_path / "b.snl.run" / "log.jsonl").read_text().splitlines()
    assert len(log) == len(set(log)) == 5
    assert [path.name for path in (tmp_path / "b.snl.run").iterdir()] == ["log.jsonl"]
    assert read_sections(output)["training"].document["facts"]["steps"] == 40


def test_resume_refuses_other_settings_and_other_data(
    parts: Path, tmp_path: Path, run_snl: Run
) -> None:
    output = tmp_path / "c.snl"
    process = start(parts, output)
    interrupt(process, output, signal.SIGTERM, after=2)
    options = [*TINY_OPTIONS, *STEPS]
    again = run_snl("train", parts, "-o", output, *options)
    assert again.returncode == 2 and "--resume" in again.stderr and "--overwrite" in again.stderr
    other = run_snl("train", parts, "-o", output, *options, "--resume", "--lr", "0.1")
    assert other.returncode == 2
    assert "settings.training.lr (was 0.002, now 0.1)" in other.stderr
    data = tmp_path / "data"
    shutil.copytree(parts, data)
    save_part(data / "bolt" / "train" / "good" / "another.png", 77)
    changed = run_snl("train", data, "-o", output, *options, "--resume")
    assert changed.returncode == 2 and "data" in changed.stderr


def test_damaged_checkpoint_is_reported(parts: Path, tmp_path: Path) -> None:
    output = tmp_path / "d.snl"
    folder = tmp_path / "d.snl.run"
    folder.mkdir()
    (folder / "checkpoint.safetensors").write_bytes(b"\0" * 100)
    from tests.conftest import TINY

    with pytest.raises(TrainingError, match=r"checkpoint\.safetensors: is damaged.*--overwrite"):
        snl.train(parts, output=output, overrides=TINY, resume=True, quiet=True)
    with pytest.raises(TrainingError, match="--overwrite"):
        snl.train(parts, output=output, overrides=TINY, quiet=True)
    snl.train(parts, output=output, overrides=TINY, overwrite=True, quiet=True)
    assert output.is_file()


def test_finished_run_is_neither_repeated_nor_replaced(parts: Path, tmp_path: Path) -> None:
    from tests.conftest import TINY

    output = tmp_path / "e.snl"
    snl.train(parts, output=output, overrides=TINY, quiet=True)
    before = output.read_bytes()
    notes: list[str] = []
    snl.train(parts, output=output, overrides=TINY, resume=True, quiet=True, note=notes.append)
    assert output.read_bytes() == before
    assert any("already trained" in text for text in notes)
    with pytest.raises(TrainingError, match=r"e\.snl: exists already.*--overwrite"):
        snl.train(parts, output=output, overrides=TINY, quiet=True)
    changed = {**TINY, "training.steps": 9}
    with pytest.raises(TrainingError, match="other settings"):
        snl.train(parts, output=output, overrides=changed, resume=True, quiet=True)
    assert output.read_bytes() == before


def test_overwriting_run_can_be_resumed(parts: Path, tmp_path: Path, bundle: Path) -> None:
    output = tmp_path / "f.snl"
    shutil.copy(bundle, output)
    process = start(parts, output, "--overwrite")
    stderr = interrupt(process, output, signal.SIGTERM, after=3)
    assert "--resume" in stderr
    assert (
        output.read_bytes() == bundle.read_bytes()
    )  # the old bundle stays until the new one is complete
    finished = start(parts, output, "--overwrite", "--resume")
    assert finished.wait(200) == 0
    log = (tmp_path / "f.snl.run" / "log.jsonl").read_text()
    assert log.count('"step": 1,') == 1 and '"step": 40,' in log
    assert output.read_bytes() != bundle.read_bytes()


def test_resume_refuses_other_teacher_weights_of_the_same_name(parts: Path, tmp_path: Path) -> None:
    import timm
    import torch

    from tests.conftest import TINY

    files = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        file = tmp_path / str(seed) / "teacher.pth"
        file.parent.mkdir()
        torch.save(timm.create_model("test_resnet").state_dict(), file)
        files.append(str(file))
    output = tmp_path / "g.snl"
    snl.train(parts, output=output, overrides={**TINY, "teacher.weights": files[0]}, quiet=True)
    for file, same in zip(files, (True, False), strict=True):
        changed = {**TINY, "teacher.weights": file}
        if same:
            snl.train(parts, output=output, overrides=changed, resume=True, quiet=True)
        else:
            with pytest.raises(TrainingError, match="teacher weights"):
                snl.train(parts, output=output, overrides=changed, resume=True, quiet=True)


def test_two_trainings_of_one_output_are_refused(parts: Path, tmp_path: Path) -> None:
    from tests.conftest import TINY

    output = tmp_path / "h.snl"
    process = start(parts, output, "--steps", "4000")
    deadline = time.monotonic() + 120
    while not (tmp_path / "h.snl.run" / "checkpoint.safetensors").is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(TrainingError, match="another training is writing there"):
        snl.train(parts, output=output, overrides=TINY, overwrite=True, quiet=True)
    process.kill()
    process.communicate()
    snl.train(parts, output=output, overrides=TINY, overwrite=True, quiet=True)  # the lock is gone
    assert output.is_file()
