"""Inference in half precision: as autocast gives it; maps and scores in float32."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import snl
from snl.cli.main import main
from snl.errors import SettingsError
from snl.model.network import Network
from snl.runtime import torch_engine
from snl.runtime.torch_engine import TorchEngine
from tests.conftest import TINY
from tests.trees import draw

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    size = TINY["image_size"]
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (3, size, size, 3), np.uint8)


def autocast(network: Network, pixels: np.ndarray, dtype: torch.dtype) -> list[np.ndarray]:
    """The reference: PyTorch's autocast around teacher and student as they were trained."""
    with torch.no_grad():
        images = network.normalise(torch.from_numpy(pixels))
        with torch.autocast("cpu", dtype):
            features = network.teacher_features(images)
            outputs = network.student(images, features).features
        features, outputs = ([x.float() for x in stages] for stages in (features, outputs))
        maps, scores = network.compare(features, outputs)
        return [maps.numpy(), scores.numpy()]


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("snl", {}),
        ("rd", {}),
        ("uniad", {"teacher.stages": (2,)}),
        ("snl", {"teacher.name": "test_vit", "teacher.stages": ()}),
    ],
)
def test_half_precision_agrees_with_autocast(
    precision: str, method: str, changes: dict[str, Any], pixels: np.ndarray
) -> None:
    network = Network(snl.resolve(method, overrides={**TINY, **changes})).eval()
    exact = TorchEngine(network, "cpu").predict(pixels)
    half = TorchEngine(network, "cpu", precision=precision).predict(pixels)
    wanted = autocast(network, pixels, HALVES[precision])
    rounding = np.abs(wanted[0] - exact.maps).max()
    assert all(output.dtype == np.float32 for output in half[:3])
    # folded norms round at other places: as close to the exact maps as autocast, up to a factor
    assert 0 < np.abs(half.maps - exact.maps).max() < 4 * rounding
    np.testing.assert_allclose(half.scores, wanted[1], rtol=0.05)
    np.testing.assert_allclose(half.embeddings, exact.embeddings, atol=0.01)


@pytest.mark.parametrize("precision", HALVES)
def test_the_network_is_not_changed(precision: str, pixels: np.ndarray) -> None:
    network = Network(snl.resolve("snl", overrides=TINY)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    engine = TorchEngine(network, "cpu", precision=precision)
    engine.predict(pixels)
    after = engine.network.state_dict()
    assert before.keys() == after.keys()
    assert all(after[k].dtype == v.dtype and torch.equal(after[k], v) for k, v in before.items())
    assert precision in engine.device


def test_cram_computes_in_float32(monkeypatch: pytest.MonkeyPatch, pixels: np.ndarray) -> None:
    from snl.model.cram import Cram

    seen: list[torch.dtype] = []
    assign = Cram.assign

    def record(self: Cram, x: torch.Tensor) -> torch.Tensor:
        weights = assign(self, x)
        seen.append(weights.dtype)
        return weights

    monkeypatch.setattr(Cram, "assign", record)
    engine = TorchEngine(Network(snl.resolve("snl", overrides=TINY)), "cpu", precision="bf16")
    engine.predict(pixels)
    assert set(seen) == {torch.float32}


def test_inspections_in_half_precision(trained: Path) -> None:
    exact, half = snl.load(trained, "cpu"), snl.load(trained, "cpu", precision="bf16")
    parts = [draw(300 + n, defect=n % 2 > 0, product="bolt")[0] for n in range(8)]
    for a, b in zip(exact.inspect(parts), half.inspect(parts), strict=True):
        assert b.score == pytest.approx(a.score, rel=0.05) and b.score != a.score
        assert b.product == a.product and b.anomaly_map.dtype == np.float32


def test_a_saved_bundle_has_full_precision(trained: Path, tmp_path: Path) -> None:
    half = snl.load(trained, "cpu", precision="bf16")
    half.save(tmp_path / "again.snl")
    part = draw(7)[0]
    again = snl.load(tmp_path / "again.snl", "cpu").inspect(part)
    assert again.score == snl.load(trained, "cpu").inspect(part).score


@pytest.mark.parametrize("verb", ["inspect", "evaluate", "calibrate"])
def test_verbs(
    verb: str, trained: Path, plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    normals = str(plant / "bolt" / "train" / "good")
    more: Sequence[str] = {
        "inspect": [normals],
        "evaluate": [str(plant), "--json", str(tmp_path / "metrics.json")],
        "calibrate": [str(plant), "-o", str(tmp_path / "other.snl")],
    }[verb]
    assert main([verb, str(trained), *more, "--precision", "bf16", "--quiet"]) == 0
    out = capsys.readouterr().out
    if verb == "inspect":
        exact = snl.load(trained, "cpu")
        for line in out.splitlines():
            record = json.loads(line)
            score = exact.inspect(record["path"]).score
            assert record["score"] == pytest.approx(score, rel=0.05) and record["score"] != score
    elif verb == "evaluate":
        about = json.loads((tmp_path / "metrics.json").read_text())["about"]
        assert "bf16" in about["engine"]
    else:
        sets = [snl.load(f).calibration.sets for f in (trained, tmp_path / "other.snl")]
        assert sets[0].keys() == sets[1].keys()


def test_unknown_precision(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SettingsError, match="'int3': choose of fp32, bf16, fp16"):
        snl.load(trained, precision="int3")
    with pytest.raises(SystemExit) as stopped:
        main(["inspect", str(trained), "a.png", "--precision", "int3"])
    assert stopped.value.code == 2
    assert "invalid choice: 'int3'" in capsys.readouterr().err


def test_speed_by_precision(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from snl.bench import inference

    monkeypatch.setattr(inference, "SECONDS", 0.0)
    monkeypatch.setattr(inference, "BATCHES", (1, 2))
    assert main(["bench", "inference", str(trained), "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line[:4] in ("fp32", "bf16") and "," not in line]
    assert {row[0] for row in rows} == {"fp32", "bf16"} and {row[2] for row in rows} == {"1", "2"}
    for _, _, batch, milliseconds, rate in rows:
        assert float(rate) == pytest.approx(1000 * int(batch) / float(milliseconds), rel=0.2)
    assert any("--precision bf16" in line for line in lines)


def precisions() -> list[str]:
    """The process's settings for convolutions, recurrent layers and matrix products on CUDA."""
    cudnn: Any = torch.backends.cudnn
    return [part.fp32_precision for part in (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)]


def test_full_precision_excludes_tf32_while_a_call_runs(
    monkeypatch: pytest.MonkeyPatch, pixels: np.ndarray
) -> None:
    before, seen = precisions(), []
    engine = TorchEngine(Network(snl.resolve("snl", overrides=TINY)), "cpu")
    run = engine._fast

    def spy(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        seen.append(precisions())
        return run(images)  # type: ignore[misc]

    monkeypatch.setattr(engine, "_fast", spy)
    engine.predict(pixels)
    assert seen == [before]  # on a CPU there is nothing to exclude
    monkeypatch.setattr(engine, "_arithmetic", lambda: torch_engine._WITHOUT_TF32)
    engine.predict(pixels)
    assert seen[1] == ["ieee"] * 3
    assert precisions() == before


def test_the_last_of_several_threads_restores_tf32() -> None:
    before, inside = precisions(), threading.Barrier(2)

    def call(leave: threading.Event) -> list[str]:
        with torch_engine._WITHOUT_TF32:
            inside.wait(30)
            leave.wait(30)
        return precisions()

    first, last = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(call, first), pool.submit(call, last)]
        first.set()
        assert calls[0].result(30) == ["ieee"] * 3
        last.set()
        assert calls[1].result(30) == before
    assert precisions() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_scores_on_a_cuda_device_are_those_of_the_cpu(trained: Path, pixels: np.ndarray) -> None:
    ours, others = (snl.load(trained, device).predict(pixels) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(others.scores, ours.scores, rtol=1e-5)
    np.testing.assert_allclose(others.maps, ours.maps, rtol=1e-4, atol=1e-5)
