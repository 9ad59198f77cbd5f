"""The benchmark of speed with a tiny network: it runs, its figures add up and can be shown."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.speed import groups, markdown, prepare, programs, steps, turns, worker
from benchmarks.speed.__main__ import main as speed
from benchmarks.speed.plan import TINY, Plan, ours_file, peer_file
from snl import SnlError
from snl.cli.main import main

PLAN = Plan(
    threads=1,
    size=64,
    batch=2,
    repeats=2,
    seconds=0.0,
    passes=1,
    maps=(4, 6),
    images=(6,),
    large=(150, 100),
    tile=64,
    runtimes=("torch",),
    ours=("rd",),
    peers=(),
    overrides=TINY,
)
GROUPS = ("torch", "metrics", "sizes", "memory")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("speed")


@pytest.fixture(scope="module")
def output(work: Path, parts: Path, bundle: Path) -> Path:
    """Results of the groups that take seconds only; tests must not change them. Data and networks
    are those of other tests; the rest is made."""
    file = work / "speed.json"

    def make(plan: Plan, folder: Path) -> None:
        prepare.prepare_data(plan, folder)
        prepare.prepare_ours(plan, folder, plan.ours, tiny=True)

    def inside(command: list[Any], plan: Plan, folder: Path) -> dict[str, Any]:
        with pytest.MonkeyPatch.context() as here:
            here.chdir(folder)
            status = main([str(word) for word in command[2:]])
        return {"seconds": 1.0, "memory": 1.0} if status == 0 else {"error": str(status)}

    shutil.copytree(parts, work / "made" / "parts")
    for name in ("rd", "tiny"):
        (work / "made" / "ours").mkdir(exist_ok=True)
        shutil.copy(bundle, work / "made" / "ours" / f"{name}.snl")
    with pytest.MonkeyPatch.context() as patch:  # processes that import torch take seconds
        patch.setattr(programs, "launch", inside)
        patch.setattr(groups, "prepare", make)
        groups.run(PLAN, file, work / "made", GROUPS, again=False)
    return file


def subjects(output: Path, group: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))["groups"][group]
    assert result["seconds"] >= 0
    for subject in result["subjects"].values():
        assert "error" not in subject
    return dict(result["subjects"])


def test_inference(output: Path) -> None:
    result = subjects(output, "torch")
    assert list(result) == ["rd, ResNet-18", "rd, ResNet-18, bf16"]
    for subject in result.values():
        assert list(subject["figures"]) == ["batch 1", "batch 2", "file"]
        for figure in subject["figures"].values():
            assert len(figure["turns"]) == 2
            assert 0 < figure["min"] <= figure["median"] <= figure["max"]
            assert figure["memory"] > 50
        assert list(subject["figures"]["file"]["value"]) == ["regions", "marked"]


def test_metrics_agree(output: Path) -> None:
    result = subjects(output, "metrics")
    ours = result["snl, all eight figures"]["figures"]["6 maps"]["value"]
    assert 0 < ours["aupro"] < 1
    for name, subject in result.items():
        for figure, value in subject["figures"]["6 maps"]["value"].items():
            assert value == pytest.approx(ours[figure], abs=2e-4), name


def test_programs(output: Path, work: Path) -> None:
    result = subjects(output, "memory")
    assert {len(subject["figures"]) for subject in result.values()} == {1}
    lines = (work / "made" / "inspected-6.json").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 6
    evaluated = json.loads((work / "made" / "evaluated-6.json").read_text(encoding="utf-8"))
    assert evaluated["pooled"]["n_anomalous"] == evaluated["pooled"]["n_masked"] / 2 == 3
    (large,) = (work / "made" / "large.json").read_text(encoding="utf-8").splitlines()
    assert (json.loads(large)["width"], json.loads(large)["height"]) == PLAN.large


def test_sizes_are_of_all_files(output: Path, work: Path) -> None:
    (subject,) = subjects(output, "sizes").values()
    size = ours_file(work / "made", "rd", "torch").stat().st_size
    assert subject["megabytes"]["torch"] == pytest.approx(size / 1e6, abs=0.01)
    for count, name in enumerate(("x.onnx", "x.onnx.data", "y.xml", "y.bin", "x.bin"), 1):
        (work / name).write_bytes(bytes(100_000 * count))
    files = {"onnx": work / "x.onnx", "openvino": work / "y.xml", "torch": work / "not there"}
    assert programs._megabytes(files) == {"onnx": 0.3, "openvino": 0.7}


def test_existing_results_are_not_measured_again(
    output: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = output.read_text(encoding="utf-8")
    monkeypatch.setattr(groups, "prepare", None)
    groups.run(PLAN, output, work / "made", GROUPS, again=False)
    assert output.read_text(encoding="utf-8") == before
    with pytest.raises(SnlError, match="other settings; choose another -o"):
        groups.run(replace(PLAN, threads=2), output, work / "made", GROUPS, again=False)
    with pytest.raises(SnlError, match="no group 'all'; choose from torch, training"):
        groups.run(PLAN, output, work / "made", ["all"], again=False)


def test_networks_for_other_settings_are_refused(output: Path, work: Path) -> None:
    assert output.is_file()
    plan = json.dumps(dataclasses.asdict(PLAN))
    (work / "made" / "plan.json").write_text(plan, encoding="utf-8")
    with pytest.raises(SnlError, match="made for other settings; remove it"):
        prepare.prepare(replace(PLAN, size=96), work / "made")


def test_steps_of_training(output: Path, work: Path) -> None:
    assert output.is_file()
    for cached in (True, False):
        task = {"subject": "rd", "cached": cached, "precision": "fp32"}
        (step,) = steps.training(PLAN, work / "made", task).values()
        assert step() == step() == {"precision": "fp32"}


def test_start(output: Path, work: Path) -> None:
    assert output.is_file()
    result = programs.launch(["-c", "x = bytearray(300_000_000)"], PLAN, work)
    assert 300 < result["memory"] < 400
    assert 0 < result["seconds"] < 60
    small = programs.launch(["-I", "-S", "-c", "pass"], PLAN, work)
    assert small["memory"] < 30  # not the memory of the measuring process
    assert "status 3" in programs.launch(["-c", "raise SystemExit(3)"], PLAN, work)["error"]


def test_turns_alternate_and_errors_are_reported(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    class Fake:
        def __init__(self, title: str, task: dict[str, Any], *_: object) -> None:
            self.name = task["subject"]
            self.ready = {"figures": ["one", "two"]}

        def wait(self) -> None:
            if self.name == "c":
                self.ready = {"error": "is missing"}

        def ask(self, **request: Any) -> dict[str, Any]:
            asked.append((self.name, request["figure"]))
            if (self.name, request["figure"]) == ("b", "two"):
                return {"error": "broke"}
            return {"seconds": float(len(asked)), "memory": 1.0, "value": None}

        def close(self) -> None:
            asked.append((self.name, "closed"))

    monkeypatch.setattr(turns, "Worker", Fake)
    result = turns.turns(
        {name: {"subject": name} for name in "abc"},
        PLAN,
        work,
        seconds=0,
        passes=1,
        warm=1,
        least=2,
        repeats=lambda _: 2,
    )
    assert asked[:4] == [("a", "one"), ("b", "one"), ("a", "one"), ("b", "one")]
    assert asked[4:7] == [("a", "two"), ("b", "two"), ("a", "two")]  # b is not asked again
    assert {name for name, what in asked if what == "closed"} == {"a", "b", "c"}
    assert result["a"]["figures"]["one"]["turns"] == [1.0, 3.0]
    assert result["a"]["figures"]["one"]["median"] == 2.0
    assert result["b"]["error"] == "broke"
    assert result["b"]["figures"]["one"]["turns"] == [2.0, 4.0]
    assert result["c"] == {"error": "is missing"}


def test_a_missing_subject(work: Path) -> None:
    task = {"kind": "metrics", "subject": "snl", "torch": False}
    options = {"seconds": 0, "passes": 1, "warm": 0, "least": 1, "repeats": lambda _: 1}
    result = turns.turns({"snl": task}, PLAN, work, **options)
    assert "maps.npz" in result["snl"]["error"]
    stored = json.loads((work / "tasks" / "snl.json").read_text(encoding="utf-8"))
    assert stored["plan"] == json.loads(json.dumps(dataclasses.asdict(PLAN)))
    assert stored["subject"] == "snl"


def test_a_turn_is_the_median_of_its_passes() -> None:
    calls = iter(range(100))
    result = worker.turn(lambda: {"n": next(calls)}, 0.0, 3, 2)
    assert result["passes"] == 3
    assert result["value"] == {"n": 4}
    assert result["seconds"] < 0.1


def test_ratios_are_taken_turn_by_turn() -> None:
    both = {"ours": [1.0, 2.0, 4.0], "theirs": [2.0, 4.0, 12.0]}
    subjects = {name: {"figures": {"f": {"turns": turns}}} for name, turns in both.items()}
    assert markdown.ratio_of(subjects, "ours", "theirs", "f") == 2.0
    assert markdown.ratio_of(subjects, "theirs", "theirs", "f") is None
    assert markdown.ratio_of(subjects, "ours", "others", "f") is None


def test_table_and_plot(output: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = work / "speed.md"
    monkeypatch.setattr(sys, "argv", ["speed.py", "table", str(output), "-o", str(file)])
    speed()
    text = file.read_text(encoding="utf-8")
    for head in ("Batch 1", "A file", "Memory", "Metrics", "Files", "Memory over many images"):
        assert f"## {head}" in text
    assert "| rd, ResNet-18 |" in text
    assert "failed" not in text
    pytest.importorskip("matplotlib", reason="needs matplotlib (pip install matplotlib)")
    picture = work / "speed.png"
    monkeypatch.setattr(sys, "argv", ["speed.py", "plot", str(output), "-o", str(picture)])
    speed()
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert np.asarray(image.convert("L")).std() > 5


@pytest.mark.parametrize("name", ["anomalib-rd", "anomalib-stfpm", "anomalib-patchcore"])
def test_peers(name: str, tmp_path: Path) -> None:
    pytest.importorskip("anomalib", reason="needs anomalib, which only this benchmark uses")
    import torch

    from benchmarks.speed.anomalib_models import make_peer

    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    module = make_peer(name, 64, images)
    module.to_torch(tmp_path / "peers" / name)
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(tmp_path / "part.png")
    task = {"subject": name, "runtime": "torch", "precision": "fp32"}
    figures = worker.peer(replace(PLAN, batch=2), tmp_path, task)
    assert peer_file(tmp_path, name, "torch", 1).is_file()
    assert len(figures) == 6
    for figure in figures.values():
        figure()
    with torch.inference_mode():
        result = module(images)  # the post-processor has thresholds, as after training
    assert result.pred_mask.float().mean() not in (0, 1)
    assert (result.anomaly_map.min(), result.anomaly_map.max()) != (0, 1)
