"""`snl bench` on generated trees: results, the table, continuing, changed settings."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import signal
import statistics
from pathlib import Path

import pytest

from snl.bench.published import BENCHMARKS, COLUMNS
from snl.cli.main import main
from snl.training import train as training
from snl.training.loop import Interrupted
from tests.bench.conftest import TINY, TWO_CLASSES


@pytest.mark.parametrize("name", ["mvtec", "visa"])
def test_a_whole_benchmark_is_shown_next_to_published_results(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    benchmark = BENCHMARKS[name]
    count = len(benchmark.classes)
    sizes = (4 * count, 2 * count, 2 * count)
    monkeypatch.setitem(BENCHMARKS, name, dataclasses.replace(benchmark, images=sizes))
    root = request.getfixturevalue(name)
    out = tmp_path / "out"
    assert main(["bench", name, str(root), "--out", str(out), "--seeds", "1", *TINY]) == 0
    shown = capsys.readouterr().out
    assert (
        "PARTIAL" not in shown
        and "±" not in shown
        and "values of the SNL paper are not known" in shown
    )
    words = [line.split() for line in shown.splitlines()]
    rows = {line[0]: line[1:] for line in words if line}
    assert set(benchmark.classes) <= set(rows)
    published = {line[1]: line[2:] for line in words if line and line[0] == "mean:"}
    assert published == {r.method: [f"{v:.1f}" for v in r.values] for r in benchmark.rows}
    metrics = json.loads((out / "seed-0.json").read_text())
    assert rows["mean"] == [f"{100 * metrics['mean'][c]:.1f}" for c in COLUMNS]
    assert list(metrics["products"]) == sorted(benchmark.classes)
    assert metrics["training"]["images"] == 4 * count  # none is held out
    assert (metrics["mean"]["n_normal"], metrics["mean"]["n_masked"]) == (2 * count, 4 * count)
    for row in benchmark.rows:
        cells = " | ".join(f"{value:.1f}" for value in row.values)
        assert f"| mean: {row.method} | {cells} |" in (out / "summary.md").read_text()
    assert len(json.loads((out / "summary.json").read_text())["published"]) == len(benchmark.rows)


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


def test_part_of_a_benchmark_is_marked_and_has_no_published_rows(done: Path) -> None:
    page = (done / "summary.md").read_text()
    assert page.startswith("# MVTec AD (PARTIAL)")
    assert "PARTIAL: 2 of 15 classes (bottle, cable)." in page
    assert "RD4AD" not in page and "published" not in json.loads(
        (done / "summary.json").read_text()
    )


def test_finished_seeds_are_not_repeated(
    mvtec: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(done, out)
    kept = [out / "seed-0.snl", out / "seed-0.json", out / "seed-1.snl"]
    before = [path.stat().st_mtime_ns for path in kept]
    (out / "seed-1.json").unlink()  # as if stopped before the evaluation
    again = ["bench", "mvtec", str(mvtec), "-o", str(out), *TINY, *TWO_CLASSES]
    assert main([*again, "--seeds", "3"]) == 0
    messages = capsys.readouterr().err
    assert "seed 0 of" not in messages and f"{out / 'seed-1.snl'}: already trained" in messages
    assert "seed 2 of" in messages
    assert [path.stat().st_mtime_ns for path in kept] == before
    same = json.loads((out / "seed-1.json").read_text())
    assert same["products"] == json.loads((done / "seed-1.json").read_text())["products"]
    assert len(json.loads((out / "summary.json").read_text())["seeds"]) == 3


def test_an_interrupted_seed_continues_from_its_checkpoint(
    mvtec: Path,
    done: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["bench", "mvtec", str(mvtec), "-o", str(tmp_path / "out"), "--seeds", "2", *TINY]
    words += [*TWO_CLASSES, "--checkpoint-every", "0"]
    save = training.checkpoint.save

    def stop(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        raise Interrupted(signal.SIGINT, 1)

    monkeypatch.setattr(training.checkpoint, "save", stop)
    assert main(words) == 130
    assert "stopped after step 1; the same command goes on from there" in capsys.readouterr().err
    monkeypatch.setattr(training.checkpoint, "save", save)
    assert main(words) == 0
    log = (tmp_path / "out" / "seed-0.snl.run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2]
    for number in range(2):
        result, expected = (
            json.loads((f / f"seed-{number}.json").read_text()) for f in (tmp_path / "out", done)
        )
        assert result["products"] == expected["products"]


def test_other_settings_are_refused_or_replace(
    mvtec: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(done, out)
    words = ["bench", "mvtec", str(mvtec), "-o", str(out), "--seeds", "2", *TINY, *TWO_CLASSES]
    changed = [*words, "--method", "rd"]
    assert main(changed) == 2
    message = capsys.readouterr().err
    assert "settings.method (was snl, now rd)" in message and "another --out" in message
    assert main([*words, "--classes", "bottle,grid"]) == 2
    assert "data.fingerprint" in capsys.readouterr().err
    assert main([*changed, "--seeds", "1", "--overwrite"]) == 0
    assert json.loads((out / "summary.json").read_text())["settings"]["method"] == "rd"
    assert main(changed) == 2  # seed 1 is still of the previous method
    assert "seed-1.json: was made with another" in capsys.readouterr().err


def test_single_seeds_as_separate_runs_and_then_the_table(
    mvtec: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["bench", "mvtec", str(mvtec), "-o", str(out), *TINY, *TWO_CLASSES]
    assert main([*words, "--seed", "1"]) == 0
    assert capsys.readouterr().out.startswith("seed 1, class means: image_auroc ")
    assert not (out / "summary.json").exists() and not (out / "seed-0.json").exists()
    shutil.copy(done / "seed-0.json", out)
    assert main([*words, "--seeds", "2"]) == 0
    assert "seed 1 of" not in capsys.readouterr().err
    assert (out / "summary.md").read_text() == (done / "summary.md").read_text()


def test_damaged_results_are_named(
    mvtec: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(done, out)
    for content in ("{", "[]", "{}"):
        (out / "seed-1.json").write_text(content)
        assert main(["bench", "mvtec", str(mvtec), "-o", str(out), *TINY, *TWO_CLASSES]) == 2
        assert "seed-1.json: is damaged or not of snl bench; remove it" in capsys.readouterr().err
