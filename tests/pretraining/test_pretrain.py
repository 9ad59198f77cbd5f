"""Pretraining: reproducible images, resumable runs, weights files that load."""

from __future__ import annotations

import functools
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.decomposition import PCA

import crops
import pretrain
import tasks
from canvases import HELD_OUT_PHOTOGRAPHS, TRAINING_PHOTOGRAPHS, Canvases, photograph
from finish import WHITENING, finish, principal_axes
from formula import CLASSES, Fractals
from snl.errors import SnlError
from snl.files import load_tensors
from snl.model import weights
from snl.model.compact import FEATURES
from snl.model.teacher import Teacher, create
from snl.settings import TeacherSettings
from textures import SIDE

SCRIPT = Path(pretrain.__file__)


# --- images ---


def test_a_canvas_depends_only_on_seed_and_number() -> None:
    first, second = Canvases([0, 0]), Canvases([0, 0])
    backwards = {n: second(n) for n in reversed(range(6))}
    for number in range(6):
        canvas = first(number)
        assert canvas.shape == (SIDE, SIDE, 3) and canvas.dtype == np.uint8
        assert np.array_equal(canvas, backwards[number])
    assert not np.array_equal(first(1), Canvases([0, 1])(1))
    assert not np.array_equal(first(1), first(5))


def test_photographs_exist_and_held_out_ones_are_not_trained_on() -> None:
    for name in (*TRAINING_PHOTOGRAPHS, *HELD_OUT_PHOTOGRAPHS):
        image = photograph(name)
        assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
    assert not set(TRAINING_PHOTOGRAPHS) & set(HELD_OUT_PHOTOGRAPHS)


@pytest.mark.parametrize("lanes", [1, 2])
def test_batches_of_a_resumed_run_equal_those_of_an_uninterrupted_one(lanes: int) -> None:
    def images_from(first: int) -> list[torch.Tensor]:
        batches = crops.Batches(0, first, 6, count=3, size=32, lanes=lanes, pool=3)
        return [images for (images,) in crops.loader(batches)]

    complete, resumed = images_from(0), images_from(3)
    assert len(complete) == 6 and len(resumed) == 3
    for a, b in zip(complete[3:], resumed, strict=True):
        assert a.shape == (3, 3, 32, 32) and a.dtype == torch.uint8
        assert torch.equal(a, b)
    assert not torch.equal(complete[0], complete[1])


def test_windows_are_antialiased() -> None:
    """A fine checkerboard becomes grey; with simple subsampling it would stay black and white."""
    checkerboard = np.indices((SIDE, SIDE)).sum(0) % 2 * 255
    canvas = crops.pyramid(np.repeat(checkerboard[..., None], 3, 2).astype(np.uint8))
    rng = np.random.default_rng(0)
    windows = [crops._window(canvas, 32, rng) for _ in range(50)]  # window sides of 64 and more
    for window in windows:
        assert (window - 0.5).abs().max() < 0.02


def test_fractals_are_reproducible_and_classes_differ() -> None:
    first, second = Fractals(0, 0, 2, 4, 32), Fractals(0, 1, 2, 4, 32)
    batches = list(first)
    images, labels = batches[1]
    assert images.shape == (4, 3, 32, 32) and images.dtype == torch.uint8
    assert int(labels.min()) >= 0 and int(labels.max()) < CLASSES
    (again,) = list(second)
    assert torch.equal(images, again[0]) and torch.equal(labels, again[1])
    assert not np.array_equal(first.formulas[0], first.formulas[1])


# --- runs ---


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> str:
    """File of random weights, instead of those of ImageNet."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(create("resnet18", out_indices=(1, 2, 3)).state_dict(), path)
    return str(path)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "Batches", functools.partial(crops.Batches, pool=2))
    monkeypatch.setattr(pretrain, "LOG_EVERY", 2)


RECIPE = pretrain.Recipe("distill", images=24, batch=3)


def run_of(folder: Path, file: str, recipe: pretrain.Recipe = RECIPE) -> pretrain.Run:
    torch.manual_seed(0)
    return pretrain.Run(recipe, tasks.Distillation(file), folder, torch.device("cpu"))


def test_a_resumed_run_gives_the_same_weights(
    small: None, resnet18: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of(tmp_path / "whole", resnet18).train(checkpoint_every=1e9)

    interrupted = run_of(tmp_path / "interrupted", resnet18)
    step = interrupted._step

    def stop(number: int, batch: list[torch.Tensor]) -> list[float]:
        if number == 6:
            raise KeyboardInterrupt
        return step(number, batch)

    monkeypatch.setattr(interrupted, "_step", stop)
    with pytest.raises(KeyboardInterrupt):
        interrupted.train(checkpoint_every=0)
    resumed = run_of(tmp_path / "interrupted", resnet18)
    assert resumed.first == 5
    resumed.train(checkpoint_every=0)

    whole, _ = load_tensors(tmp_path / "whole" / "final.safetensors", "pretraining")
    again, facts = load_tensors(tmp_path / "interrupted" / "final.safetensors", "pretraining")
    assert whole.keys() == again.keys()
    assert all(np.array_equal(whole[name], again[name]) for name in whole)
    assert facts["images"] == 24 and "BSD-3" in facts["inputs"]["teacher"]
    logs = [(tmp_path / f / "log.jsonl").read_text().splitlines() for f in ("whole", "interrupted")]
    steps = [[json.loads(line)["step"] for line in log] for log in logs]
    assert steps == [[2, 4, 6, 8]] * 2
    assert not (tmp_path / "interrupted" / "checkpoint.safetensors").exists()
    with pytest.raises(SnlError, match="finished run"):  # a finished run is not started again
        run_of(tmp_path / "interrupted", resnet18)


def test_a_run_with_another_recipe_is_not_resumed(
    small: None, resnet18: str, tmp_path: Path
) -> None:
    run = run_of(tmp_path, resnet18)
    run._step(1, [torch.zeros(3, 3, 64, 64, dtype=torch.uint8)])
    run._save_checkpoint(1, 0.0)
    with pytest.raises(SnlError, match="another recipe"):
        run_of(tmp_path, resnet18, pretrain.Recipe("distill", images=48, batch=3))


def test_predicting_the_mean_gives_an_error_of_one(resnet18: str) -> None:
    """Targets are normalised: predicting zeros gives 1 per stage (0 for dead channels, of which an
    untrained network has a few)."""
    task = tasks.Distillation(resnet18)
    batch = next(iter(crops.Batches(0, 0, 1, count=8, size=64, pool=4)))
    task.start(batch)

    class Zeros(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [
                torch.zeros(len(images), c, 64 // s, 64 // s)
                for c, s in zip(tasks.STAGES, (4, 8, 16), strict=True)
            ]

    alive = [f.std((0, 2, 3)) > 1e-5 for f in task.teacher(tasks.normalise(batch[0]))]
    for error, channels in zip(task.losses(batch, Zeros()), alive, strict=True):
        assert channels.float().mean() > 0.5
        assert float(error) == pytest.approx(float(channels.float().mean()), rel=0.01)


def test_learning_rate_schedule() -> None:
    recipe = pretrain.Recipe("distill", images=48_000, lr=1.0)
    rates = [recipe.rate(step) for step in range(1, recipe.steps + 1)]
    top = rates.index(1.0)
    assert all(a < b for a, b in itertools.pairwise(rates[: top + 1]))
    assert rates[recipe.steps // 2] == 1.0
    assert rates[-1] == pytest.approx(0.001)


# --- files ---


def test_principal_axes_equal_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 6)) @ rng.normal(size=(6, 4000)) + rng.normal(size=(6, 1))
    projection, centre, share = principal_axes(torch.from_numpy(values), 3)
    reference = PCA(3).fit(values.T)
    assert share == pytest.approx(reference.explained_variance_ratio_.sum(), rel=1e-9)
    ours = (projection @ (torch.from_numpy(values) - centre[:, None])).numpy()
    theirs = reference.transform(values.T).T
    theirs /= reference.explained_variance_[:, None] ** (WHITENING / 2)
    for a, b in zip(ours, theirs, strict=True):  # the sign of an axis is arbitrary
        np.testing.assert_allclose(a, b * np.sign(a @ b), rtol=1e-6, atol=1e-6)


def test_a_finished_file_loads_as_a_teacher(
    small: None, resnet18: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finish.BATCHES", 2)
    monkeypatch.setattr("finish.Batches", functools.partial(crops.Batches, pool=2))
    run_of(tmp_path, resnet18).train(checkpoint_every=1e9)
    file = tmp_path / "teacher.safetensors"
    assert "variance kept" in finish(tmp_path, file)
    _, facts = load_tensors(file, "teacher")
    assert facts["licence"] == "Apache-2.0" and facts["recipe"]["images"] == 24
    settings = TeacherSettings(name="snl_compact", weights=str(file))
    teacher = Teacher(settings)
    weights.load(teacher, settings)
    features = teacher(torch.randn(1, 3, 64, 64))
    assert [f.shape[1] for f in features] == list(FEATURES)
    assert all(bool(torch.isfinite(f).all()) for f in features)


def test_errors_of_the_script_are_one_line(tmp_path: Path) -> None:
    for arguments in (
        ["distill", "--resnet18", str(tmp_path / "none.safetensors"), "-o", str(tmp_path / "x")],
        ["finish", str(tmp_path), "-o", str(tmp_path / "out.safetensors")],
    ):
        process = subprocess.run(
            [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=120
        )
        assert process.returncode == 2
        assert process.stderr.startswith("pretrain: error: ") and process.stderr.count("\n") == 1
