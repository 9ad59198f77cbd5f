"""Few images: what is drawn, what is measured, the table and the picture."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import snl
from benchmarks import few_images
from benchmarks.internals import evaluate_each

SET = ["teacher.name=test_resnet", "teacher.weights=random", "teacher.stages=1,2"]
SET += ["training.batch_size=4", "training.precision=fp32"]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """Call the benchmark as from the command line."""
    monkeypatch.setattr(sys, "argv", ["few_images.py", *map(str, arguments)])
    few_images.main()


def options(data: Path, output: Path, methods: str) -> list[object]:
    """Return the arguments of small runs."""
    changes = [part for change in SET for part in ("--set", change)]
    return ["run", data, "-o", output, "--methods", methods, "--images", "4,40", "--draws", "0,1",
            "--image-size", "64", "--steps", "4", "--device", "cpu", *changes]  # fmt: skip


def some_run(count: int, draw: int, name: str, auroc: float, **more: Any) -> dict[str, Any]:
    """Return a run as the results have it."""
    mean = {"image_auroc": auroc, "pixel_auroc": auroc, "aupro": auroc}
    return {"name": name, "count": count, "draw": draw, "images": f"{count} {draw}",
            "drawn": {"bolt": min(count, 7), "plate": count}, "mean": mean, "pooled": mean,
            "training": {"seconds": 1.0}, **more}  # fmt: skip


def decided(**counts: int) -> dict[str, Any]:
    """Return decisions of as many normal as anomalous images."""
    every = dict.fromkeys(("normal", "uncertain", "anomalous", "unknown product"), 0) | counts
    return {"overall": {"normal": every, "anomalous": every}}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two draws at two numbers of images, for snl, which makes decisions, and PatchCore."""
    few = {"decisions": decided(uncertain=8), "threshold_from": {"none": 16}, "held_out": {"x": 2}}
    many = {
        "decisions": decided(normal=5, uncertain=2, anomalous=1),
        "threshold_from": {"shared tail": 12, "none": 4},
        "held_out": {"x": 13, "y": 13},
    }
    runs = [some_run(count, draw, "peer", 0.5 + draw / 10) for count in (5, 10) for draw in (0, 1)]
    runs += [some_run(5, draw, "snl", 0.7, **few) for draw in (0, 1)]
    runs += [some_run(10, draw, "snl", 0.9, **many) for draw in (0, 1)]
    file = tmp_path / "few.json"
    file.write_text(json.dumps({"runs": runs}), encoding="utf-8")
    return file


def test_a_draw_has_the_number_of_every_product_and_all_test_images(varied: Path) -> None:
    catalog = snl.Catalog.read(varied)
    ten, again = (few_images.drawn(catalog, 10, 0) for _ in range(2))
    assert ten == again and ten.fingerprint() == again.fingerprint()
    assert Counter(r.product for r in ten.train()) == dict.fromkeys(catalog.products, 10)
    assert ten.test() == catalog.test()
    five, other = few_images.drawn(catalog, 5, 0), few_images.drawn(catalog, 10, 1)
    assert set(five.train()) < set(ten.train())
    assert ten.fingerprint() != other.fingerprint()
    names = [{r.path.name for r in ten.of(product).train()} for product in ten.products]
    assert names[0] != names[1]  # products are drawn independently
    assert few_images.drawn(catalog, 1000, 0).train() == catalog.train()


def test_snl_from_images_to_table(
    varied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "few.json"
    call(monkeypatch, *options(varied, output, "snl"))
    document = json.loads(output.read_text(encoding="utf-8"))
    runs = {(run["count"], run["draw"]): run for run in document["runs"]}
    assert sorted(runs) == [(4, 0), (4, 1), (40, 0), (40, 1)]
    assert len({run["images"] for run in runs.values()}) == 3  # of 40 images, both draws have all
    for (count, draw), run in runs.items():
        assert run["set"]["training.seed"] == draw
        assert set(run["drawn"].values()) == {count}
        assert set(run["held_out"].values()) == {count // 3 if count == 4 else 13}
        whole = run["decisions"]["overall"]
        assert sum(whole["normal"].values()) == 40 and sum(whole["anomalous"].values()) == 20
        assert run["threshold_from"] == {"none" if count == 4 else "shared tail": 60}
        if count == 4:  # two held-out images allow no decision
            assert whole["normal"]["normal"] == whole["normal"]["anomalous"] == 0
    assert str(tmp_path) not in output.read_text(encoding="utf-8")
    monkeypatch.setattr(snl, "train", None)  # nothing is trained the second time
    call(monkeypatch, *options(varied, output, "snl"))
    assert json.loads(output.read_text(encoding="utf-8")) == document
    call(monkeypatch, "table", output, "-o", tmp_path / "few.md")
    text = (tmp_path / "few.md").read_text(encoding="utf-8")
    assert len([line for line in text.splitlines() if line.startswith(("| 4 |", "| 40 |"))]) == 4


def test_patchcore_has_the_same_images(
    varied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("anomalib", reason="needs anomalib, which only benchmarks use")
    output = tmp_path / "few.json"
    arguments = [*options(varied, output, "patchcore"), "--teacher-weights", "random"]
    call(monkeypatch, *arguments, "--images", "4,8", "--draws", "1")
    runs = json.loads(output.read_text(encoding="utf-8"))["runs"]
    catalog = snl.Catalog.read(varied)
    for run, count in zip(runs, (4, 8), strict=True):
        assert run["images"] == few_images.drawn(catalog, count, 1).fingerprint()
        # 8 x 8 patches of an image of 64 pixels, a tenth is kept
        assert run["bank"] == dict.fromkeys(catalog.products, int(0.1 * count * 64))
        assert "decisions" not in run
        assert set(run["products"]) == set(catalog.products)
    call(monkeypatch, *arguments, "--images", "4", "--draws", "1", "--coreset", "1")
    last = json.loads(output.read_text(encoding="utf-8"))["runs"][-1]
    assert "(coreset 100 %)" in last["name"]
    assert last["bank"] == dict.fromkeys(catalog.products, 4 * 64)


def test_models_of_one_product_are_evaluated_as_one_model(trained: Path, plant: Path) -> None:
    """The same network for each product gives the metrics that it has for all."""
    predictor = snl.load(trained, "cpu").predictor
    catalog = snl.Catalog.read(plant)
    found = evaluate_each([(name, predictor) for name in catalog.products], catalog)
    expected = snl.evaluate(predictor, catalog)
    for part in ("mean", "pooled"):
        values = getattr(expected, part)
        assert set(found[part]) == set(values)
        for metric, value in values.items():
            np.testing.assert_allclose(found[part][metric], value, rtol=1e-4, err_msg=metric)
    assert list(found["products"]) == list(expected.products)


def test_the_table(results: Path) -> None:
    text = few_images.table(results)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    accuracy = [row for row in rows if len(row) == 7][1:]
    assert [row[:2] for row in accuracy] == [
        ["5", "peer"], ["5", "snl"], ["10", "peer"], ["10", "snl"],
    ]  # fmt: skip
    assert accuracy[0][2:] == ["55.0 ± 7.1"] * 3 + ["2", "1.0 ± 0.0"]
    assert accuracy[3][2] == "90.0 ± 0.0"
    few, many = [row for row in rows if len(row) == 10][1:]
    assert few[3:] == ["0.0 ± 0.0", "100.0 ± 0.0", "0.0 ± 0.0"] * 2 + ["none"]
    assert many[2:6] == ["26", "12.5 ± 0.0", "25.0 ± 0.0", "0.0 ± 0.0"]
    assert many[9] == "shared tail 75 %, none 25 %"
    assert "bolt (7)" in text and "plate (" not in text


def test_runs_of_different_images_are_not_compared(results: Path) -> None:
    document = json.loads(results.read_text(encoding="utf-8"))
    document["runs"][0]["images"] = "others"
    results.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(snl.SnlError, match="draw 0 with 5 images: the runs have different images"):
        few_images.table(results)


def test_runs_with_other_settings_are_not_draws(results: Path) -> None:
    document = json.loads(results.read_text(encoding="utf-8"))
    document["runs"].append(document["runs"][0] | {"set": {"training.steps": 7}})
    results.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(snl.SnlError, match="'peer' has draw 0 with 5 images twice"):
        few_images.table(results)


def test_the_picture(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib (pip install matplotlib)")
    call(monkeypatch, "plot", results, "-o", tmp_path / "few.png")
    with Image.open(tmp_path / "few.png") as image:
        assert image.format == "PNG" and image.width > 1000
        assert np.asarray(image.convert("L")).std() > 5


def test_an_unknown_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(snl.SnlError, match="no 'nothing'; choose from snl, patchcore"):
        call(monkeypatch, "run", tmp_path, "-o", tmp_path / "x.json", "--methods", "nothing")
