"""Plans: what is trained, what is reused, what is written, tables, merging."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import ablation
import pytest

import snl
from tests.benchmarks.conftest import Runner, Whole

TIMES = ("training", "evaluation_seconds", "prediction_seconds")


def runs_of(file: Path) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["runs"]
    return runs


def without_times(run: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in run.items() if k not in TIMES}


def test_map_only_rows_are_not_trained_again(whole: Whole) -> None:
    file, trained = whole
    assert sorted(trained) == [("fd", 0), ("fd", 1), ("rd", 0), ("rd", 1)]
    reused = {(r["name"], r["seed"]): r["training"].get("reused") for r in runs_of(file)}
    for seed in (0, 1):
        others = ("rd measured", "rd top share", "rd sharp")
        assert [reused[name, seed] for name in others] == ["rd"] * 3
        assert reused["rd", seed] is reused["fd", seed] is None


@pytest.mark.parametrize("name", ["rd measured", "rd top share"])
def test_a_reused_network_gives_what_a_training_of_its_own_gives(
    whole: Whole, runner: Runner, tmp_path: Path, name: str
) -> None:
    """Errors are made anew for each row, and those of the row before are gone."""
    assert runner(tmp_path / "one.json", only=name) == [("rd", 0), ("rd", 1)]
    alone = {r["seed"]: r for r in runs_of(tmp_path / "one.json")}
    together = {r["seed"]: r for r in runs_of(whole[0]) if r["name"] == name}
    plain = {r["seed"]: r for r in runs_of(whole[0]) if r["name"] == "rd"}
    for seed in (0, 1):
        assert without_times(alone[seed]) == without_times(together[seed])
        assert together[seed]["scores"] != plain[seed]["scores"]  # the map settings do act


def test_a_finished_plan_does_nothing_and_an_interrupted_one_goes_on(
    whole: Whole, runner: Runner, tmp_path: Path
) -> None:
    document = json.loads(whole[0].read_text(encoding="utf-8"))
    file = tmp_path / "results.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    assert runner(file) == []
    gone = [r for r in document["runs"] if (r["name"], r["seed"]) != ("rd sharp", 1)]
    file.write_text(json.dumps({**document, "runs": gone}), encoding="utf-8")
    assert runner(file) == [("rd", 1)]
    assert [without_times(r) for r in runs_of(file)] == [without_times(r) for r in document["runs"]]


def test_results_are_in_the_order_of_the_plan(whole: Whole) -> None:
    names = list(dict.fromkeys(r["name"] for r in runs_of(whole[0])))
    assert names == ["rd", "fd", "rd measured", "rd top share", "rd sharp"]


def test_scores_and_worst_images(whole: Whole, runner: Runner) -> None:
    run = runs_of(whole[0])[0]
    overrides = {**run["set"], "teacher.weights": "random"}
    inspector = snl.train(runner.data, method="rd", overrides=overrides, device="cpu", quiet=True)
    evaluation = snl.evaluate(inspector, runner.data)
    for product, kinds in run["scores"].items():
        for label, kept in kinds.items():
            known = [s for s in evaluation.scores if (s.product, s.label) == (product, label)]
            assert kept == pytest.approx(sorted(s.score for s in known), rel=5e-4)
            score = {s.path.relative_to(runner.data).as_posix(): s.score for s in known}
            order = sorted(score, key=lambda name: score[name], reverse=label == "normal")
            which = "misses" if label == "anomalous" else "false_alarms"
            assert run["worst"][product][which] == order[:3]


def test_unknown_row(runner: Runner, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no run 'nothing'"):
        runner(tmp_path / "none.json", only="nothing")


def test_table(whole: Whole) -> None:
    text = ablation.table(whole[0])
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| fd |")]
    values = [100 * r["mean"]["image_auroc"] for r in runs_of(whole[0]) if r["name"] == "fd"]
    assert rows[0][1] == f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
    assert rows[0][6] == "2"
    assert "## image_auroc per product" in text


def test_table_refuses_runs_of_one_name_with_other_settings(whole: Whole, tmp_path: Path) -> None:
    document = json.loads(whole[0].read_text(encoding="utf-8"))
    document["runs"][1]["set"]["training.steps"] = 5
    file = tmp_path / "mixed.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"training\.steps"):
        ablation.table(file)


def test_merge(whole: Whole, tmp_path: Path) -> None:
    document = json.loads(whole[0].read_text(encoding="utf-8"))
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    first = {**document, "runs": document["runs"][:6], "groups": {"choose": ["bolt"]}}
    one.write_text(json.dumps(first), encoding="utf-8")
    second = {**document, "plan": "other.toml", "title": "other", "runs": document["runs"][3:]}
    two.write_text(json.dumps(second), encoding="utf-8")
    merged = ablation.merge([one, two])
    assert merged["runs"] == document["runs"]  # the two that both have are there once
    assert (merged["title"], merged["plan"]) == ("Tiny", "tiny.toml, other.toml")
    assert merged["groups"] == {"choose": ["bolt"]}


def test_merge_refuses_other_images(whole: Whole, tmp_path: Path) -> None:
    document = json.loads(whole[0].read_text(encoding="utf-8"))
    document["runs"] = [{**run, "images": "0" * 64} for run in document["runs"]]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(SystemExit, match="of other images"):
        ablation.merge([whole[0], other])


def test_written_lists_take_one_line_and_strings_survive(tmp_path: Path) -> None:
    value = {
        "numbers": [1.5, 2, None],
        "strings": ["a ] b", "[ c", "two  spaces\n", "d, [e]"],
        "empty": [],
        "nested": [{"deep": [1, 2]}, [3]],
    }
    ablation.write(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert '"numbers": [1.5, 2, null]' in text
