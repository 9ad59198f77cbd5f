"""Plans: training, reuse of networks, results, tables, merging."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

import snl
from benchmarks import ablation, common
from tests.benchmarks.conftest import Runner, Whole

TIMES = ("training", "evaluation_seconds", "prediction_seconds")


def runs_of(file: Path) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["runs"]
    return runs


def without_times(run: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in run.items() if k not in TIMES}


def test_rows_that_change_the_map_only_reuse_the_network(whole: Whole) -> None:
    file, trained = whole
    assert sorted(trained) == [("fd", 0), ("fd", 1), ("rd", 0), ("rd", 1)]
    reused = {(r["name"], r["seed"]): r["training"].get("reused") for r in runs_of(file)}
    for seed in (0, 1):
        others = ("rd measured", "rd top share", "rd sharp")
        assert [reused[name, seed] for name in others] == ["rd"] * 3
        assert reused["rd", seed] is reused["fd", seed] is None


@pytest.mark.parametrize("name", ["rd measured", "rd top share"])
def test_a_reused_network_gives_the_results_of_a_separate_training(
    whole: Whole, runner: Runner, tmp_path: Path, name: str
) -> None:
    """The error statistics are fitted for each row; those of the row before have no influence."""
    assert runner(tmp_path / "one.json", only=[name]) == [("rd", 0), ("rd", 1)]
    alone = {r["seed"]: r for r in runs_of(tmp_path / "one.json")}
    together = {r["seed"]: r for r in runs_of(whole[0]) if r["name"] == name}
    plain = {r["seed"]: r for r in runs_of(whole[0]) if r["name"] == "rd"}
    for seed in (0, 1):
        assert without_times(alone[seed]) == without_times(together[seed])
        assert together[seed]["scores"] != plain[seed]["scores"]  # the map settings have an effect


def test_a_finished_plan_does_nothing_and_an_interrupted_plan_resumes(
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
    with pytest.raises(snl.SnlError, match=r"no run 'nothing' in .*; it has rd, fd"):
        runner(tmp_path / "none.json", only=["nothing"])


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
    with pytest.raises(snl.SnlError, match=r"differ in training\.steps; give each row"):
        ablation.table(file)


def test_merge(whole: Whole, tmp_path: Path) -> None:
    document = json.loads(whole[0].read_text(encoding="utf-8"))
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    first = {**document, "runs": document["runs"][:6], "groups": {"choose": ["bolt"]}}
    one.write_text(json.dumps(first), encoding="utf-8")
    second = {**document, "plan": "other.toml", "title": "other", "runs": document["runs"][3:]}
    two.write_text(json.dumps(second), encoding="utf-8")
    merged = ablation.merge([one, two])
    assert merged["runs"] == document["runs"]  # the runs that both files have occur once
    assert (merged["title"], merged["plan"]) == ("Tiny", "tiny.toml, other.toml")
    assert merged["groups"] == {"choose": ["bolt"]}


def test_merge_refuses_other_images(whole: Whole, tmp_path: Path) -> None:
    document = json.loads(whole[0].read_text(encoding="utf-8"))
    document["runs"] = [{**run, "images": "0" * 64} for run in document["runs"]]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(snl.SnlError, match=r"used other training images .*; merge"):
        ablation.merge([whole[0], other])


def test_older_names_of_settings_are_the_same_settings(whole: Whole, tmp_path: Path) -> None:
    document = json.loads(whole[0].read_text(encoding="utf-8"))
    first = document["runs"][0]
    pairs = {"loss.easy": "loss.hard_mining", "map.levels": "map.normalisation_clusters"}
    assert pairs.items() <= common.RENAMED_SETTINGS.items()
    older = {**first, "set": {**first["set"], "loss.easy": 0.5, "map.levels": 3}}
    newer = {
        **first,
        "set": {**first["set"], "loss.hard_mining": 0.5, "map.normalisation_clusters": 3},
    }
    assert common.is_done({"runs": [older]}, {name: newer[name] for name in ablation.KEY})
    files = [tmp_path / "older.json", tmp_path / "newer.json"]
    for file, run in zip(files, (older, newer), strict=True):
        file.write_text(json.dumps({**document, "runs": [run]}), encoding="utf-8")
    assert ablation.merge(files)["runs"] == [older]
    both = {"runs": [older, {**newer, "seed": 1}]}
    assert ablation.by_name(both, files[0]) == {older["name"]: both["runs"]}
    newer["set"]["loss.hard_mining"] = 0.6
    with pytest.raises(snl.SnlError, match=r"differ in loss\.hard_mining"):
        ablation.by_name(both, files[0])


def test_teacher_weights_that_a_plan_needs(tmp_path: Path) -> None:
    plan = Path(ablation.__file__).parent / "plans" / "teachers.toml"
    with pytest.raises(
        snl.SnlError, match=r"teachers\.toml needs --teacher-weights distilled=FILE"
    ):
        ablation.run(
            plan, common.REPOSITORY / "x", {"": "random"}, tmp_path / "x.json", ["rd (distilled)"]
        )


@pytest.mark.parametrize("text", ["", "[1]", None])
def test_a_results_file_that_cannot_be_read(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "results.json"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(snl.SnlError, match=r"results\.json: .*; give the (JSON )?file"):
        ablation.table(file)


def test_lists_are_written_in_one_line_and_strings_are_unchanged(tmp_path: Path) -> None:
    value = {
        "numbers": [1.5, 2, None],
        "strings": ["a ] b", "[ c", "two  spaces\n", "d, [e]"],
        "empty": [],
        "nested": [{"deep": [1, 2]}, [3]],
    }
    common.write_runs(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert '"numbers": [1.5, 2, null]' in text
