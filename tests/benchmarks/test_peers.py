"""anomalib's models under our conditions, with small images and random weights."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import snl
from benchmarks import ablation, peers
from snl.model import weights
from snl.model.teacher import Teacher
from snl.settings import TeacherSettings

SIZE = 64


@pytest.fixture(scope="module")
def anomalib() -> None:
    pytest.importorskip("anomalib", reason="needs anomalib, which only this benchmark uses")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a ResNet-18, with random means of its batch norms."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        teacher = Teacher(TeacherSettings(name=peers.BACKBONE, weights="random"))
        state = teacher.net.state_dict()
        for name, value in state.items():
            if name.endswith("running_mean"):
                value.normal_(0, 0.1)
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


@pytest.fixture(scope="module")
def teacher(file: Path) -> Teacher:
    settings = TeacherSettings(name=peers.BACKBONE, weights=str(file))
    teacher = Teacher(settings)
    weights.load(teacher, settings)
    return teacher


def random_pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)


def extractor_of(kind: str, model: Any) -> Any:
    name = {"rd": "encoder", "stfpm": "teacher_model"}.get(kind, "feature_extractor")
    return getattr(model, name)


@pytest.mark.usefixtures("anomalib")
@pytest.mark.parametrize("kind", peers.MODELS)
def test_backbone_gives_the_features_of_our_teacher(kind: str, teacher: Teacher) -> None:
    model = peers.make(kind, SIZE, teacher)
    peer = peers.Peer(model, teacher, SIZE, torch.device("cpu"))
    images = peer.normalise(random_pixels(2))
    with torch.no_grad():
        expected = dict(zip(("layer1", "layer2", "layer3"), teacher(images), strict=True))
        result = extractor_of(kind, model)(images)
    assert list(result) == [*expected][1 if kind == "patchcore" else 0 :]
    for layer, features in result.items():
        assert torch.equal(features, expected[layer])


@pytest.mark.usefixtures("anomalib")
def test_weights_of_another_network_are_refused(teacher: Teacher) -> None:
    model: Any = peers.make("padim", SIZE, teacher)
    other = Teacher(TeacherSettings(name="resnet34", weights="random"))
    with pytest.raises(RuntimeError, match="Unexpected key"):
        peers.fill(model.feature_extractor, other)


@pytest.mark.usefixtures("anomalib")
def test_defaults_are_those_of_the_lightning_modules(teacher: Teacher) -> None:
    from anomalib.models import Padim, Patchcore, ReverseDistillation, Stfpm

    def default(module: Any, name: str) -> Any:
        return inspect.signature(module.__init__).parameters[name].default

    layers = {"rd": ReverseDistillation, "stfpm": Stfpm, "patchcore": Patchcore, "padim": Padim}
    for kind, module in layers.items():
        used = extractor_of(kind, peers.make(kind, SIZE, teacher)).layers
        assert list(used) == list(default(module, "layers"))
    patchcore: Any = peers.make("patchcore", SIZE, teacher)
    assert default(Patchcore, "coreset_sampling_ratio") == peers.CORESET
    assert default(Patchcore, "num_neighbors") == patchcore.num_neighbors == 9
    padim: Any = peers.make("padim", SIZE, teacher)
    assert default(Padim, "n_features") is None  # the backbone then decides
    assert padim.n_features == 100
    rd: Any = peers.make("rd", SIZE, teacher)
    assert default(ReverseDistillation, "anomaly_map_mode") == rd.anomaly_map_generator.mode


@pytest.mark.usefixtures("anomalib")
@pytest.mark.parametrize("kind", peers.MODELS)
def test_maps_and_scores_are_those_of_the_model(kind: str, teacher: Teacher) -> None:
    torch.manual_seed(0)
    model: Any = peers.make(kind, SIZE, teacher)
    peer = peers.Peer(model, teacher, SIZE, torch.device("cpu"))
    settings = peers.TrainingSettings(steps=2, batch_size=4)
    before = {k: v.clone() for k, v in extractor_of(kind, model).state_dict().items()}
    facts = peers.train(kind, peer, random_pixels(6), settings, 0.1)
    for name, value in extractor_of(kind, model).state_dict().items():
        assert torch.equal(value, before[name])  # the teacher is unchanged
    assert facts["seconds"] > 0
    pixels = random_pixels(5)
    maps, scores = peer.predict(pixels)
    assert maps.shape == (5, SIZE, SIZE)
    assert maps.dtype == scores.dtype == np.float32
    assert np.isfinite(maps).all()
    if kind != "patchcore":  # which weights the largest distance by its neighbourhood
        np.testing.assert_allclose(scores, maps.max((1, 2)), rtol=1e-6)
    one_map, one_score = peer.predict(pixels[2:3])
    np.testing.assert_allclose(one_map[0], maps[2], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(one_score[0], scores[2], rtol=1e-3)
    assert peer.resize_map(maps[0], (30, 40)).shape == (30, 40)


@pytest.mark.usefixtures("anomalib")
def test_a_coreset_in_slices_equals_the_coreset(monkeypatch: pytest.MonkeyPatch) -> None:
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    monkeypatch.setattr(peers, "SLICE", 37)
    rows = torch.randn(500, 24, generator=torch.Generator().manual_seed(1))
    banks = []
    for subsample in (PatchcoreModel.subsample_embedding, peers.subsample):
        model = PatchcoreModel(["layer2"], peers.BACKBONE, pre_trained=False)
        model.embedding_store = [rows[:200], rows[200:]]
        torch.manual_seed(2)
        np.random.seed(2)
        subsample(model, 0.2)
        banks.append(model.memory_bank)
    assert banks[0].shape == (100, 24)
    assert torch.equal(banks[0], banks[1])


@pytest.mark.usefixtures("anomalib")
def test_training_to_results(
    file: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "peers.json"
    arguments = ["peers.py", str(parts), "-o", str(output), "--teacher-weights", str(file)]
    arguments += ["--seeds", "0,1", "--steps", "2", "--batch-size", "4", "--image-size", str(SIZE)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--device", "cpu", "--models", "rd,padim"])
    peers.main()
    document = json.loads(output.read_text(encoding="utf-8"))
    names = [(run["name"], run["seed"]) for run in document["runs"]]
    rd, padim = "anomalib Reverse Distillation", "anomalib PaDiM"
    assert names == [(rd, 0), (rd, 1), (padim, 0), (padim, 1)]
    assert document["runs"][0]["training"]["versions"]["anomalib"]
    assert document["runs"][0]["scores"] != document["runs"][1]["scores"]  # the seed matters
    assert f"| {padim} |" in ablation.table(output)
    monkeypatch.setattr(peers, "train", None)  # nothing is trained the second time
    peers.main()
    assert json.loads(output.read_text(encoding="utf-8")) == document


def test_without_anomalib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "anomalib", None)
    monkeypatch.setattr(sys, "argv", ["peers.py", "data", "-o", str(tmp_path / "x.json")])
    with pytest.raises(snl.SnlError, match="not installed: pip install anomalib"):
        peers.main()
