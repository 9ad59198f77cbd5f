"""`snl bench` on generated trees with the classes of MVTec AD and VisA."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from snl.bench import protocol as bench
from snl.bench import workers
from snl.bench.published import BENCHMARKS, COLUMNS
from snl.cli.main import main
from snl.errors import SettingsError, TrainingError
from snl.model.device import choose_all
from snl.settings import resolve
from snl.training import train as api
from snl.training.cache import CacheBudget
from snl.training.loop import Interrupted
from tests.trees import make_mvtec, make_visa

TINY = [
    *("--preset", "compact", "--image-size", "64", "--steps", "2", "--batch-size", "4"),
    *("--set", "training.precision=fp32", "--device", "cpu", "--quiet"),
]
SOME = ["--classes", "bottle,cable"]


@pytest.fixture(scope="module")
def mvtec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All classes of MVTec AD; not to be changed."""
    return make_mvtec(tmp_path_factory.mktemp("mvtec"), BENCHMARKS["mvtec"].classes)


@pytest.fixture(scope="module")
def visa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All classes of VisA in its own layout, with the file that lies in each class."""
    root = make_visa(tmp_path_factory.mktemp("visa"), BENCHMARKS["visa"].classes)
    for name in BENCHMARKS["visa"].classes:
        (root / name / "image_anno.csv").write_text("image,label,mask\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def done(mvtec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two seeds on two classes; not to be changed."""
    out = tmp_path_factory.mktemp("done") / "out"
    assert main(["bench", "mvtec", str(mvtec), "-o", str(out), "--seeds", "2", *TINY, *SOME]) == 0
    return out


@pytest.mark.parametrize("name", ["mvtec", "visa"])
def test_whole_benchmark_beside_published_results(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    known = BENCHMARKS[name]
    count = len(known.classes)
    sizes = (4 * count, 2 * count, 2 * count)
    monkeypatch.setitem(BENCHMARKS, name, dataclasses.replace(known, images=sizes))
    root = request.getfixturevalue(name)
    out = tmp_path / "out"
    assert main(["bench", name, str(root), "--out", str(out), "--seeds", "1", *TINY]) == 0
    shown = capsys.readouterr().out
    assert "PARTIAL" not in shown and "±" not in shown and "own values are not known" in shown
    words = [line.split() for line in shown.splitlines()]
    rows = {line[0]: line[1:] for line in words if line}
    assert set(known.classes) <= set(rows)
    published = {line[1]: line[2:] for line in words if line and line[0] == "mean:"}
    assert published == {r.method: [f"{v:.1f}" for v in r.values] for r in known.rows}
    metrics = json.loads((out / "seed-0.json").read_text())
    assert rows["mean"] == [f"{100 * metrics['mean'][c]:.1f}" for c in COLUMNS]
    assert list(metrics["products"]) == sorted(known.classes)
    assert metrics["training"]["images"] == 4 * count  # none is held out
    assert (metrics["mean"]["n_normal"], metrics["mean"]["n_masked"]) == (2 * count, 4 * count)
    for row in known.rows:
        cells = " | ".join(f"{value:.1f}" for value in row.values)
        assert f"| mean: {row.method} | {cells} |" in (out / "summary.md").read_text()
    assert len(json.loads((out / "summary.json").read_text())["published"]) == len(known.rows)


def test_numbers_are_those_of_the_seeds(done: Path) -> None:
    seeds = [json.loads((done / f"seed-{n}.json").read_text()) for n in range(2)]
    summary = json.loads((done / "summary.json").read_text())
    page = (done / "summary.md").read_text()

    def cell(values: list[float]) -> str:
        spread = math.sqrt(sum((v - sum(values) / 2) ** 2 for v in values))  # n - 1 is 1
        return f"{100 * sum(values) / 2:.1f} ± {100 * spread:.1f}"

    for name in ("bottle", "cable"):
        row = [cell([s["products"][name][metric] for s in seeds]) for metric in COLUMNS]
        assert f"| {name} | {' | '.join(row)} |" in page
        for metric in COLUMNS:
            values = [s["products"][name][metric] for s in seeds]
            assert summary["classes"][name][metric]["std"] == pytest.approx(
                statistics.stdev(values)
            )
    means = [
        [(s["products"]["bottle"][m] + s["products"]["cable"][m]) / 2 for s in seeds]
        for m in COLUMNS
    ]
    assert f"| mean | {' | '.join(map(cell, means))} |" in page
    assert f"| pooled | {cell([s['pooled']['image_auroc'] for s in seeds])} |  |  |" in page
    assert seeds[0]["mean"] != seeds[1]["mean"]


def test_part_of_a_benchmark_is_told_and_has_no_published_rows(done: Path) -> None:
    page = (done / "summary.md").read_text()
    assert page.startswith("# MVTec AD (PARTIAL)")
    assert "PARTIAL: 2 of 15 classes (bottle, cable)." in page
    assert "RD4AD" not in page and "published" not in json.loads(
        (done / "summary.json").read_text()
    )


def test_all_classes_with_other_counts_is_partial_too(mvtec: Path, tmp_path: Path) -> None:
    job = bench._Job.of(bench.Task("mvtec", mvtec, tmp_path / "out"))
    assert job.partial[0] == "60 training images where MVTec AD has 3629"


def test_what_is_finished_is_not_done_again(
    mvtec: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(done, out)
    kept = [out / "seed-0.snl", out / "seed-0.json", out / "seed-1.snl"]
    before = [path.stat().st_mtime_ns for path in kept]
    (out / "seed-1.json").unlink()  # as if it had been stopped before the evaluation
    again = ["bench", "mvtec", str(mvtec), "-o", str(out), *TINY, *SOME]
    assert main([*again, "--seeds", "3"]) == 0
    told = capsys.readouterr().err
    assert "seed 0 of" not in told and f"{out / 'seed-1.snl'}: already trained" in told
    assert "seed 2 of" in told
    assert [path.stat().st_mtime_ns for path in kept] == before
    same = json.loads((out / "seed-1.json").read_text())
    assert same["products"] == json.loads((done / "seed-1.json").read_text())["products"]
    assert len(json.loads((out / "summary.json").read_text())["seeds"]) == 3


def test_an_interrupted_seed_goes_on_from_its_checkpoint(
    mvtec: Path,
    done: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["bench", "mvtec", str(mvtec), "-o", str(tmp_path / "out"), "--seeds", "2", *TINY]
    words += [*SOME, "--checkpoint-every", "0"]
    save = api.checkpoint.save

    def stop(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        raise Interrupted(1)

    monkeypatch.setattr(api.checkpoint, "save", stop)
    assert main(words) == 130
    assert "stopped after step 1; the same command goes on from there" in capsys.readouterr().err
    monkeypatch.setattr(api.checkpoint, "save", save)
    assert main(words) == 0
    log = (tmp_path / "out" / "seed-0.snl.run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2]
    for number in range(2):
        one, other = (
            json.loads((f / f"seed-{number}.json").read_text()) for f in (tmp_path / "out", done)
        )
        assert one["products"] == other["products"]


def test_other_settings_are_refused_or_replace(
    mvtec: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(done, out)
    words = ["bench", "mvtec", str(mvtec), "-o", str(out), "--seeds", "2", *TINY, *SOME]
    changed = [*words, "--method", "rd"]
    assert main(changed) == 2
    told = capsys.readouterr().err
    assert "settings.method (was snl, now rd)" in told and "another --out" in told
    assert main([*words, "--classes", "bottle,grid"]) == 2
    assert "data.fingerprint" in capsys.readouterr().err
    assert main([*changed, "--seeds", "1", "--overwrite"]) == 0
    assert json.loads((out / "summary.json").read_text())["settings"]["method"] == "rd"
    assert main(changed) == 2  # seed 1 is still of the method before
    assert "seed-1.json: was made with another" in capsys.readouterr().err


def test_seeds_in_worker_processes_give_the_same(
    mvtec: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["bench", "mvtec", str(mvtec), "--out", str(out), "--seeds", "2", *TINY, *SOME]
    assert main([*words, "--devices", "cpu,cpu"]) == 0
    shown = capsys.readouterr()
    assert f"seed 1 on cpu (log: {out / 'seed-1.log'})" in shown.err
    assert "done: seed 0, class means: image_auroc " in shown.err
    lines = shown.out.splitlines()
    assert len({line.index(".") for line in lines[3:5]}) == 1  # one column
    for number in range(2):
        assert "seed" in (out / f"seed-{number}.log").read_text()
        one, other = (
            json.loads((folder / f"seed-{number}.json").read_text()) for folder in (out, done)
        )
        for table in (*one["products"], "pooled"):  # another process may round a last digit apart
            values, wanted = (
                run["pooled"] if table == "pooled" else run["products"][table]
                for run in (one, other)
            )
            assert values == pytest.approx(wanted, abs=1e-6)
    assert (out / "summary.md").read_text() == (done / "summary.md").read_text()


def test_a_failing_worker_is_one_line_with_its_log(
    mvtec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(task: bench.Task, seed: int, device: str) -> list[str]:
        log = f"{tmp_path}/seed-{seed}.snl.run/log.jsonl"
        code = (
            "import pathlib, sys, time; "
            f"log = pathlib.Path({log!r}); log.parent.mkdir(); "
            """log.write_text('{"step": 7, "loss": 0.5}\\n'); time.sleep(0.6); """
            + ("sys.exit('snl: error: no luck')" if seed == 1 else "print('well')")
        )
        return [sys.executable, "-c", code]

    told: list[str] = []
    monkeypatch.setattr(workers, "command", command)
    monkeypatch.setattr(workers, "PROGRESS", 0.0)
    task = bench.Task("mvtec", mvtec, tmp_path, note=told.append)
    with pytest.raises(TrainingError) as error:
        workers.run_workers(task, [0, 1, 2], ["cpu", "cpu"])
    line = f"seed 1 failed: no luck (log: {tmp_path / 'seed-1.log'})"
    assert str(error.value) == f"{line}; the same command goes on with what is left"
    assert line in told and told.count("done: well") == 2  # the others are not given up
    assert any("seed 0: step 7, loss 0.5000" in text for text in told)


def test_a_worker_gets_the_whole_task(mvtec: Path, tmp_path: Path) -> None:
    task = bench.Task(
        *("mvtec", mvtec, tmp_path, "rd", "compact"),
        overrides={"student.blocks": (1, 2), "training.lr": 1e-3, "teacher.weights": "a b=c.pth"},
        classes=("bottle", "cable"),
        cache=CacheBudget(1.5, 0.0),
        checkpoint_every=5.0,
        overwrite=True,
    )
    told: list[bench.Task] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "run_seed", lambda task, seed: told.append(task) or f"{seed}")
        assert main(workers.command(task, 4, "cpu")[3:]) == 0
    there = {**vars(told[0]), "overrides": None, "note": None}
    assert there == {**vars(task), "device": "cpu", "quiet": True, "overrides": None, "note": None}
    both = (resolve(overrides=t.overrides) for t in (told[0], task))
    assert next(both) == next(both)


@pytest.mark.skipif(os.name != "posix", reason="signals to a process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_every_worker_and_says_how_to_go_on(
    mvtec: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    words = ["bench", "mvtec", str(mvtec), "--out", str(out), "--seeds", "2", *TINY, *SOME]
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
        told = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 130, told
    assert told.splitlines()[-1] == "stopped; the same command goes on from there"
    assert "Traceback" not in told
    for log in logs:
        assert (log.parent / "checkpoint.safetensors").is_file()
    sizes = [log.stat().st_size for log in logs]
    time.sleep(0.5)
    assert [log.stat().st_size for log in logs] == sizes


def test_one_seed_alone_and_then_the_table(
    mvtec: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["bench", "mvtec", str(mvtec), "-o", str(out), *TINY, *SOME]
    assert main([*words, "--seed", "1"]) == 0
    assert capsys.readouterr().out.startswith("seed 1, class means: image_auroc ")
    assert not (out / "summary.json").exists() and not (out / "seed-0.json").exists()
    shutil.copy(done / "seed-0.json", out)
    assert main([*words, "--seeds", "2"]) == 0
    assert "seed 1 of" not in capsys.readouterr().err
    assert (out / "summary.md").read_text() == (done / "summary.md").read_text()


def test_part_of_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_mvtec(tmp_path / "data", ("bottle", "pill", "nut"))
    words = ["bench", "mvtec", str(root), "-o", str(tmp_path / "out"), "--seeds", "1", *TINY]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "13 of 15 classes of MVTec AD missing: cable, " in told and "--classes found" in told
    assert main([*words, "--classes", "found"]) == 0
    shown = capsys.readouterr()
    assert "PARTIAL: 2 of 15 classes (bottle, pill)" in shown.out and "RD4AD" not in shown.out
    assert "left out: nut" in shown.err


def test_wrong_input_gets_one_clear_line(
    mvtec: Path, visa: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def copy(root: Path, name: str, product: str) -> Path:
        shutil.copytree(root / product, tmp_path / name / product)
        return tmp_path / name

    unsplit = copy(visa, "unsplit", "candle")
    untested = copy(mvtec, "untested", "bottle")
    shutil.rmtree(untested / "bottle" / "test" / "good")
    unmasked = copy(mvtec, "unmasked", "bottle")
    (unmasked / "bottle" / "ground_truth" / "dent" / "000_mask.png").unlink()
    torn = copy(mvtec, "torn", "bottle")
    (torn / "bottle" / "test" / "dent" / "000.png").write_bytes(b"nothing")
    untrained = copy(mvtec, "untrained", "bottle")
    (untrained / "bottle" / "train" / "good" / "000.png").write_bytes(b"nothing")
    flat = tmp_path / "flat"
    shutil.copytree(mvtec / "bottle" / "train", flat / "bottle")
    (tmp_path / "empty").mkdir()
    found = ["--classes", "found"]
    for words, said in [
        (["mvtec", tmp_path / "missing"], "does not exist"),
        (["mvtec", tmp_path / "empty"], "no images found"),
        (["mvtec", flat], "is not laid out as MVTec AD (found layout 'folders')"),
        (["mvtec", visa], "is not laid out as MVTec AD (found layout 'visa')"),
        (["visa", mvtec], "none of the classes of VisA"),
        (["visa", mvtec], "snl bench mvtec takes them"),
        (["visa", unsplit, *found], "split_csv/1cls.csv is missing"),
        (["mvtec", parts], "has none of the classes of MVTec AD (found bolt, plate)"),
        (["mvtec", mvtec / "bottle"], "14 of 15 classes of MVTec AD missing"),
        (["mvtec", mvtec, "--classes", "botle"], "did you mean bottle?"),
        (["mvtec", unmasked, "--classes", "bottle,cable"], "1 of 2 classes of MVTec AD missing"),
        (["mvtec", untested, *found], "class bottle has no normal test images"),
        (["mvtec", unmasked, *found], "1 anomalous test images of class bottle have no mask"),
        (["mvtec", torn, *found], "1 test images or masks cannot be read"),
        (["mvtec", untrained, *found], "000.png"),
        (["mvtec", mvtec, "--set", "training.seed=3"], "use --seeds for how many"),
        (["mvtec", mvtec, "--seeds", "0"], "at least 1"),
        (["mvtec", mvtec, "--seed", "-1"], "at least 0"),
        (["mvtec", mvtec, "--device", "cpu,gpu"], "unknown device 'gpu'"),
        (["mvtec", mvtec, "--method", "sml"], "unknown method"),
        (["mvtec", mvtec, "--out", parts / "bolt/test/good/000.png"], "cannot be written"),
        (["btad", mvtec], "invalid choice"),
    ]:
        try:
            line = ["bench", "--out", tmp_path / "out", *TINY, *words]
            status = main([str(word) for word in line])
        except SystemExit as stop:
            status = int(stop.code or 0)
        told = capsys.readouterr().err
        assert status == 2, told
        last = told.strip().splitlines()[-1]
        assert "error: " in last and said in last, told
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


def test_damaged_results_are_named(
    mvtec: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(done, out)
    for content in ("{", "[]", "{}"):
        (out / "seed-1.json").write_text(content)
        assert main(["bench", "mvtec", str(mvtec), "-o", str(out), *TINY, *SOME]) == 2
        assert "seed-1.json: is damaged or not of snl bench; remove it" in capsys.readouterr().err


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_all("cpu, cpu") == ["cpu", "cpu"]
    with pytest.raises(SettingsError, match="unknown device ''"):
        choose_all("cpu,")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert choose_all("auto") == ["cuda:0", "cuda:1", "cuda:2"]
