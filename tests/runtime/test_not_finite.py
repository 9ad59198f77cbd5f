"""Results that are infinite or not a number never become a score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import snl
from snl.cli.main import main
from snl.errors import ImageError, NotFiniteError, SnlError, TrainingError
from snl.exporting import write as exporting
from snl.exporting.check import ExportError
from snl.runtime.engine import Outputs
from snl.runtime.inspector import Inspector
from snl.training import train as training
from tests.conftest import TINY
from tests.trees import draw, save_part


class Overflowing:
    """An engine whose result for dark images, and in a chosen output, is not finite."""

    def __init__(self, engine: Any, output: str, value: float = np.nan) -> None:
        self.engine, self.output, self.value = engine, output, value
        self.precision = "fp16"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def predict(self, pixels: np.ndarray) -> Outputs:
        outputs = self.engine.predict(pixels)
        arrays = {name: getattr(outputs, name).copy() for name in ("maps", "scores", "embeddings")}
        for row, image in enumerate(pixels):
            if image.mean() < 5:
                arrays[self.output].reshape(len(pixels), -1)[row, -1] = self.value
        return Outputs(**arrays)


Wrap = Callable[..., Inspector]


@pytest.fixture
def wrap(trained: Path) -> Wrap:
    def wrapped(output: str = "scores", value: float = np.nan) -> Inspector:
        inspector = snl.load(trained, "cpu")
        inspector.predictor.engine = Overflowing(inspector.engine, output, value)
        return inspector

    return wrapped


def images() -> list[np.ndarray]:
    return [draw(n)[0] if n % 3 else np.zeros((40, 48, 3), np.uint8) for n in range(7)]


@pytest.mark.parametrize("output", ["maps", "scores", "embeddings"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_other_images_of_the_batch_keep_their_results(
    wrap: Wrap, inspector: Inspector, output: str, value: float
) -> None:
    errors: list[ImageError] = []
    results = list(wrap(output, value).stream(images(), on_error=errors.append))
    expected = [r for n, r in enumerate(inspector.stream(images())) if n % 3]
    assert [r.to_dict() for r in results] == [r.to_dict() for r in expected]
    assert len(errors) == 3 and all(isinstance(error, NotFiniteError) for error in errors)
    assert "is not finite: its numbers are too large for this precision; use --precision fp32" in (
        str(errors[0])
    )


def test_one_image_and_tiles(wrap: Wrap) -> None:
    inspector = wrap("maps")
    with pytest.raises(NotFiniteError, match="the array given"):
        inspector.inspect(np.zeros((40, 48, 3), np.uint8))
    image = np.concatenate([draw(1)[0], np.zeros((40, 48, 3), np.uint8)], 1)
    with pytest.raises(NotFiniteError):
        next(inspector.stream([image], tile=40))


def test_evaluate_and_calibrate_leave_the_image_out(wrap: Wrap, tmp_path: Path) -> None:
    from PIL import Image

    for n in range(6):
        save_part(tmp_path / "bolt" / "test" / "good" / f"{n}.png", 300 + n)
        save_part(tmp_path / "bolt" / "test" / "dent" / f"{n}.png", 300 + n, defect=True)
    dark = tmp_path / "bolt" / "test" / "good" / "dark.png"
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(dark)
    inspector = wrap("scores", np.inf)
    result = snl.evaluate(inspector, tmp_path)
    assert len(result.scores) == 12 and len(result.skipped) == 1 and "dark.png" in result.skipped[0]
    notes: list[str] = []
    snl.calibrate(inspector, tmp_path / "bolt" / "test" / "good", product="bolt", force=True,
                  note=notes.append)  # fmt: skip
    assert any("dark.png is not finite" in note for note in notes)
    assert np.isfinite(inspector.calibration.sets["bolt"].scores).all()
    assert len(inspector.calibration.sets["bolt"]) == 6


def test_the_command_names_the_image_and_does_the_rest(
    wrap: Wrap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    dark = tmp_path / "dark.png"
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(dark)
    good = tmp_path / "good.png"
    save_part(good, 1)
    inspector = wrap()
    monkeypatch.setattr(snl, "load", lambda *_, **__: inspector)
    assert main(["inspect", "a.snl", str(dark), str(good)]) == 2
    output = capsys.readouterr()
    assert "dark.png is not finite" in output.err and "good.png" in output.out


# --- training ---


def train(parts: Path, output: Path) -> Inspector:
    return snl.train(parts, output=output, overrides=TINY, quiet=True, device="cpu")


@pytest.mark.parametrize("stage", ["fit", "fit_statistics"])
def test_a_training_that_diverges_writes_nothing(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Weights may become infinite in the last step, whose loss was still finite."""
    original = getattr(training, stage)

    def diverging(network: Any, *arguments: Any, **options: Any) -> Any:
        result = original(network, *arguments, **options)
        part = network.student if stage == "fit" else network.statistics
        tensors = [t for t in part.state_dict().values() if t.is_floating_point()]
        tensors[-1].fill_(torch.inf)
        return result

    monkeypatch.setattr(training, stage, diverging)
    with pytest.raises(TrainingError, match=r"diverged, nothing was written .*not finite.*lr"):
        train(parts, tmp_path / "a.snl")
    assert not (tmp_path / "a.snl").exists()


def test_a_score_that_is_not_finite_ends_a_training(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "TorchEngine", lambda network, device: AllNan(network, device))
    with pytest.raises(TrainingError, match=r"diverged.*the network's result for .* is not finite"):
        train(parts, tmp_path / "a.snl")
    assert not (tmp_path / "a.snl").exists()


class AllNan(training.TorchEngine):
    """An engine whose scores are not numbers."""

    def predict(self, pixels: np.ndarray) -> Outputs:
        outputs = super().predict(pixels)
        return outputs._replace(scores=outputs.scores * np.nan)


def test_a_loss_that_explodes_ends_a_training(parts: Path, tmp_path: Path) -> None:
    overrides = {**TINY, "training.lr": 1000, "training.gradient_clip": 0, "training.steps": 12}
    with pytest.raises(TrainingError, match=r"the loss rose from .* to .*; lower training\.lr"):
        snl.train(parts, output=tmp_path / "a.snl", overrides=overrides, quiet=True)
    assert not (tmp_path / "a.snl").exists()


# --- export ---


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_export_that_overflows_is_not_written(
    trained: Path, exported: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:  # fmt: skip
    import shutil

    monkeypatch.setattr(
        exporting, "_write_graph", lambda network, file, *_: shutil.copy(exported["onnx"], file)
    )
    monkeypatch.setattr(exporting, "_half_convolutions", lambda model: model)
    load = exporting.load

    def loading(*arguments: Any) -> Inspector:
        inspector = load(*arguments)
        inspector.predictor.engine = Overflowing(inspector.engine, "maps", np.inf)
        return inspector

    monkeypatch.setattr(exporting, "load", loading)
    monkeypatch.setattr(exporting, "check_images", lambda *_: np.zeros((2, 64, 64, 3), np.uint8))
    with pytest.raises(ExportError, match="not written: maps are not finite"):
        snl.export(snl.load(trained, "cpu"), tmp_path / "a.onnx", precision=precision)
    assert not list(tmp_path.iterdir())


def test_a_damaged_teacher_file_is_refused(parts: Path, tmp_path: Path) -> None:
    import timm

    state = timm.create_model("test_resnet").state_dict()
    next(iter(state.values())).view(-1)[0] = torch.nan
    torch.save(state, tmp_path / "t.pth")
    overrides = {**TINY, "teacher.weights": str(tmp_path / "t.pth")}
    with pytest.raises(SnlError, match="values that are not finite"):
        snl.train(parts, output=tmp_path / "a.snl", overrides=overrides, quiet=True)
