"""Seeds in worker processes: the task they get, failures, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from snl.bench import protocol, workers
from snl.bench.task import Task, read_task
from snl.cli.main import main
from snl.errors import SettingsError, TrainingError
from snl.files import write_json
from snl.model.device import choose_all
from snl.settings import resolve
from snl.training.cache import CacheBudget
from tests.bench.conftest import TINY, TWO_CLASSES


def a_task(root: Path, output: Path) -> Task:
    """A task with a value other than the default in every field."""
    return Task(
        "visa",
        root,
        output,
        "rd",
        "compact",
        overrides={
            "student.blocks": (1, 2),
            "training.lr": 1e-3,
            "teacher.weights": "a b=c.pth",
            "training.holdout": "0.25",
        },
        classes=("candle", "cashew"),
        seeds=5,
        device="cuda:0,cuda:1",
        max_pixels=10**6,
        cache=CacheBudget(1.5, 0.0),
        checkpoint_every=5.0,
        overwrite=True,
        quiet=True,
        note=lambda text: None,
    )


def test_a_task_is_read_as_it_was_written(tmp_path: Path) -> None:
    task = a_task(Path("visa"), tmp_path)
    default = Task("mvtec", Path("mvtec"), tmp_path)
    for field, value in vars(task).items():
        assert value != getattr(default, field) or field == "output"
    for original in (task, default):
        write_json(tmp_path / "task.json", original.to_json())
        copy = read_task(tmp_path / "task.json")
        assert copy == original
        assert {k: type(v) for k, v in vars(copy).items()} == {
            k: type(v) for k, v in vars(original).items()
        }
        assert resolve("snl", "compact", copy.overrides) == resolve(
            "snl", "compact", original.overrides
        )


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"benchmark": "visa"}', "3"])
def test_a_damaged_task_is_an_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "task.json"
    with pytest.raises(SettingsError, match=r"task\.json: is not a readable task"):
        read_task(file)
    file.write_text(content)
    with pytest.raises(SettingsError, match=r"task\.json: is not a readable task .*repeat the"):
        read_task(file)
    values = {**a_task(tmp_path, tmp_path).to_json(), "unknown": 1}
    file.write_text(json.dumps(values))
    with pytest.raises(SettingsError, match="unknown"):
        read_task(file)


def test_a_worker_gets_the_whole_task(
    mvtec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = a_task(mvtec, tmp_path)
    write_json(tmp_path / "task.json", task.to_json())
    calls: list[tuple[Task, int]] = []
    monkeypatch.setattr(protocol, "run_seed", lambda task, seed: str(calls.append((task, seed))))
    command = workers.command(task, 4, "cpu")
    assert command[:3] == [sys.executable, "-m", "snl"]
    assert main(command[3:]) == 0
    ((received, seed),) = calls
    assert seed == 4 and received.device == "cpu"
    assert {**vars(received), "device": None, "note": None} == {
        **vars(task),
        "device": None,
        "note": None,
    }


def test_seeds_in_worker_processes_give_the_same(
    mvtec: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["bench", "mvtec", str(mvtec), "--out", str(out), "--seeds", "2", *TINY, *TWO_CLASSES]
    assert main([*words, "--devices", "cpu,cpu"]) == 0
    shown = capsys.readouterr()
    assert f"seed 1 on cpu (log: {out / 'seed-1.log'})" in shown.err
    assert "done: seed 0, class means: image_auroc " in shown.err
    lines = shown.out.splitlines()
    assert len({line.index(".") for line in lines[3:5]}) == 1  # one column
    for number in range(2):
        assert "seed" in (out / f"seed-{number}.log").read_text()
        result, expected = (
            json.loads((folder / f"seed-{number}.json").read_text()) for folder in (out, done)
        )
        for table in (*result["products"], "pooled"):  # the last digit may differ between processes
            values, reference = (
                run["pooled"] if table == "pooled" else run["products"][table]
                for run in (result, expected)
            )
            assert values == pytest.approx(reference, abs=1e-6)
    assert (out / "summary.md").read_text() == (done / "summary.md").read_text()


def test_a_failing_worker_is_reported_in_one_line_with_its_log(
    mvtec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(task: Task, seed: int, device: str) -> list[str]:
        log = f"{tmp_path}/seed-{seed}.snl.run/log.jsonl"
        code = (
            "import pathlib, sys, time; "
            f"log = pathlib.Path({log!r}); log.parent.mkdir(); "
            """log.write_text('{"step": 7, "loss": 0.5}\\n'); time.sleep(0.6); """
            + ("sys.exit('snl: error: no luck')" if seed == 1 else "print('well')")
        )
        return [sys.executable, "-c", code]

    notes: list[str] = []
    monkeypatch.setattr(workers, "command", command)
    monkeypatch.setattr(workers, "PROGRESS", 0.0)
    task = Task("mvtec", mvtec, tmp_path, note=notes.append)
    with pytest.raises(TrainingError) as error:
        workers.run_workers(task, [0, 1, 2], ["cpu", "cpu"])
    line = f"seed 1 failed: no luck (log: {tmp_path / 'seed-1.log'})"
    assert str(error.value) == f"{line}; the same command continues with what is left"
    assert line in notes and notes.count("done: well") == 2  # the others are finished
    assert any("seed 0: step 7, loss 0.5000" in text for text in notes)


@pytest.mark.skipif(os.name != "posix", reason="signals to a process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_every_worker_and_the_message_says_how_to_continue(
    mvtec: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    words = ["bench", "mvtec", str(mvtec), "--out", str(out), "--seeds", "2", *TINY, *TWO_CLASSES]
    words += ["--steps", "100000", "--devices", "cpu,cpu"]
    logs = [out / f"seed-{seed}.snl.run" / "log.jsonl" for seed in range(2)]
    process = subprocess.Popen(
        [sys.executable, "-m", "snl", *words], stderr=subprocess.PIPE, text=True
    )
    try:
        end = time.monotonic() + 100
        while time.monotonic() < end and not all(p.is_file() and p.stat().st_size for p in logs):
            time.sleep(0.1)
        process.send_signal(number)
        messages = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 128 + number, messages
    assert messages.splitlines()[-1] == "stopped; the same command goes on from there"
    assert "Traceback" not in messages
    for log in logs:
        assert (log.parent / "checkpoint.safetensors").is_file()
    sizes = [log.stat().st_size for log in logs]
    time.sleep(0.5)
    assert [log.stat().st_size for log in logs] == sizes


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_all("cpu, cpu") == ["cpu", "cpu"]
    with pytest.raises(SettingsError, match="unknown device ''"):
        choose_all("cpu,")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert choose_all("auto") == ["cuda:0", "cuda:1", "cuda:2"]
