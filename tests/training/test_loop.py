"""Learning rate, order of images, errors of a step, weights and losses, reproducibility."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import snl
from snl.errors import SettingsError, TrainingError
from snl.model.base import Batch
from snl.model.device import choose, choose_precision, cpu_has_bf16
from snl.model.network import Network
from snl.settings import Settings, TrainingSettings, resolve
from snl.training.cache import CacheBudget
from snl.training.loop import indices, learning_rate, make_optimizer, train_step
from snl.training.train import train
from tests.conftest import TINY


def weights(inspector: snl.Inspector) -> dict[str, torch.Tensor]:
    return {k: v.cpu().clone() for k, v in inspector.network.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_indices_have_every_image_once_per_epoch_in_a_new_order() -> None:
    settings = TrainingSettings(batch_size=4, seed=3)
    sequence = np.concatenate([indices(step, 10, settings) for step in range(5)])
    assert sorted(sequence[:10]) == sorted(sequence[10:]) == list(range(10))
    assert sequence[:10].tolist() != sequence[10:].tolist()
    other = np.concatenate(
        [indices(s, 10, TrainingSettings(batch_size=4, seed=4)) for s in range(5)]
    )
    assert sequence.tolist() != other.tolist()


def test_indices_of_fewer_images_than_a_batch() -> None:
    batch = indices(0, 3, TrainingSettings(batch_size=8))
    assert len(batch) == 8
    assert np.bincount(batch).min() >= 2


def test_learning_rate_rises_peaks_and_falls() -> None:
    settings = TrainingSettings(steps=100, lr=0.5, warmup=0.1, final_lr_ratio=0.02)
    rates = [learning_rate(step, settings) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[9] == pytest.approx(0.5)
    assert rates[54] == pytest.approx(0.5 * (0.02 + 0.98 * 0.5))  # half way down the cosine
    assert rates[-1] == pytest.approx(0.01)
    assert np.argmax(rates) == 9
    assert learning_rate(1, TrainingSettings(steps=1, warmup=0)) > 0


@pytest.mark.parametrize("method", ["rd", "fd", "snl-rd", "snl-fd", "snl"])
def test_seed_fixes_everything(parts: Path, method: str) -> None:
    runs = [
        weights(train(parts, method=method, overrides={**TINY, "training.seed": s}, quiet=True))
        for s in (0, 0, 1)
    ]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


@pytest.mark.parametrize("method", ["snl-rd", "snl-fd"])
def test_cache_changes_nothing_but_speed(parts: Path, tmp_path: Path, method: str) -> None:
    results = {}
    gib_of_pixels = 64 * 64 * 3 * 8 / 2**30  # all pixels fit, features do not
    for name, budget in {
        "memory": CacheBudget(1, 0),
        "disk": CacheBudget(0, 1),
        "pixels": CacheBudget(gib_of_pixels, 0),
        "off": CacheBudget(0, 0),
    }.items():
        inspector = train(
            parts,
            output=tmp_path / f"{name}.snl",
            method=method,
            overrides=TINY,
            cache=budget,
            quiet=True,
        )
        facts = inspector.training.facts
        places = {"pixels": ("memory", "off")}.get(name, (name, name))
        assert (facts["pixels_in"], facts["features_in"]) == places
        results[name] = weights(inspector)
    reference = results.pop("memory")
    for other in results.values():
        assert same(reference, other)
    assert not list(tmp_path.rglob("*.bin"))  # cache files are gone


def test_log_has_every_term_and_the_rate(parts: Path, tmp_path: Path) -> None:
    train(parts, output=tmp_path / "a.snl", overrides={**TINY, "training.steps": 20}, quiet=True)
    lines = (tmp_path / "a.snl.run" / "log.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [r["step"] for r in records] == [1, 10, 20]
    settings = resolve().loss
    active = {
        t
        for t in ("global_cosine", "channel", "spatial", "intra", "inter")
        if getattr(settings, t) > 0
    }
    for record in records:
        assert set(record["terms"]) == active
        total = sum(getattr(settings, t) * v for t, v in record["terms"].items())
        assert record["loss"] == pytest.approx(total, rel=1e-5)
        assert record["lr"] > 0 and record["images_per_second"] > 0 and record["gradient"] > 0
    assert records[-1]["loss"] < records[0]["loss"]
    assert not (tmp_path / "a.snl.run" / "checkpoint.safetensors").exists()


def test_tensorboard_scalars(parts: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(parts, output=tmp_path / "a.snl", overrides=TINY, tensorboard=True, quiet=True)
    events = EventAccumulator(str(tmp_path / "a.snl.run" / "tensorboard"))
    events.Reload()
    assert {"loss", "lr", "images_per_second"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("loss")] == [1, 8]


def tiny_network(**changes: object) -> tuple[Network, torch.optim.Optimizer, Batch]:
    settings = resolve("snl-rd", overrides={**TINY, "loss.spatial": 1, **changes})
    network = Network(settings)
    network.student.train()
    optimizer = make_optimizer(network.student, settings.training)
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    features = network.teacher_features(images)
    return network, optimizer, Batch(images, features, features)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_reported_with_step_and_term(value: float) -> None:
    network, optimizer, batch = tiny_network()
    before = {k: v.clone() for k, v in network.student.named_parameters()}
    batch.inputs[1][0, 0, 0, 0] = value
    with pytest.raises(
        TrainingError, match=r"step 7: .*'(channel|spatial|global_cosine)' is nan.*lr"
    ):
        train_step(network, optimizer, batch, 7)
    assert all(torch.equal(before[k], v) for k, v in network.student.named_parameters())


def test_a_gradient_that_is_not_finite_is_reported() -> None:
    network, optimizer, batch = tiny_network()
    parameter = next(network.student.parameters())
    parameter.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match=r"step 3: the gradient is (nan|inf)"):
        train_step(network, optimizer, batch, 3)


def test_gradient_is_clipped() -> None:
    network, _, batch = tiny_network(**{"training.gradient_clip": 0.001})
    plain = torch.optim.SGD(network.student.parameters(), lr=1.0)
    before = torch.cat([p.detach().flatten().clone() for p in network.student.parameters()])
    record = train_step(network, plain, batch, 1)
    after = torch.cat([p.detach().flatten() for p in network.student.parameters()])
    assert record["gradient"] > 0.001
    assert float((after - before).norm()) == pytest.approx(0.001, rel=1e-2)


def test_share_of_easy_positions_grows_with_the_step() -> None:
    """At the first step nearly no position is easy, at the last the set share of them. With a
    factor of 0 the gradient of easy positions is missing from the norm."""
    norms = []
    for step in (1, 8):
        changes = {"loss.hard_mining": 0.9, "loss.hard_mining_factor": 0, "training.steps": 8000}
        network, optimizer, batch = tiny_network(**changes)
        norms.append(train_step(network, optimizer, batch, 1000 * step)["gradient"])
    network, optimizer, batch = tiny_network(**{"loss.hard_mining": 0})
    plain = train_step(network, optimizer, batch, 1)["gradient"]
    assert norms[1] < norms[0] < plain


def test_weight_decay_excludes_vectors() -> None:
    network, _, _ = tiny_network()
    settings = TrainingSettings(weight_decay=0.1)
    decayed, excluded = make_optimizer(network.student, settings).param_groups
    assert decayed["weight_decay"] == 0.1 and excluded["weight_decay"] == 0
    assert {p.ndim for p in excluded["params"]} <= {0, 1}
    count = len(decayed["params"]) + len(excluded["params"])
    assert count == len(list(network.student.parameters()))


def test_unreadable_images_are_skipped_with_a_count_or_stop(parts: Path, tmp_path: Path) -> None:
    import shutil

    data = tmp_path / "data"
    shutil.copytree(parts, data)
    bad = data / "bolt" / "train" / "good" / "999.png"
    bad.write_bytes(b"not an image")
    notes: list[str] = []
    # without held-out images every image is read for training
    changes = {**TINY, "training.holdout": 0}
    inspector = train(data, overrides=changes, quiet=True, note=notes.append)
    assert inspector.training.facts["images"] == 8
    assert len(inspector.training.facts["skipped"]) == 1
    assert any("1 images could not be read" in text and "999.png" in text for text in notes)
    with pytest.raises(snl.SnlError, match=r"999\.png"):
        train(data, overrides=changes, quiet=True, skip_bad=False)
    for path in data.rglob("train/good/*.png"):
        path.write_bytes(b"")
    with pytest.raises(TrainingError, match="none of the 9 training images"):
        train(data, overrides=changes, quiet=True)


def test_devices() -> None:
    assert choose("cpu").type == "cpu"
    for name in ("tpu", "cuda:x", "", "meta"):
        with pytest.raises(SettingsError, match=r"unknown device.*use auto"):
            choose(name)
    if not torch.cuda.is_available():
        with pytest.raises(SettingsError, match=r"'cuda' is not available.*--device cpu"):
            choose("cuda")


@pytest.mark.parametrize("supported", [False, True])
def test_precision_of_a_cpu(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr("snl.model.device.cpu_has_bf16", lambda: supported)
    assert choose_precision(cpu, "auto") == ("bf16" if supported else "fp32")
    assert choose_precision(torch.device("mps"), "auto") == "fp32"
    for precision in ("fp32", "bf16"):
        assert choose_precision(cpu, precision) == precision


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="needs Linux")
def test_bf16_support_is_what_the_kernel_reports() -> None:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    assert cpu_has_bf16() == bool(flags & {"avx512_bf16", "amx_tile"})


def test_bf16_trains(parts: Path) -> None:
    changes = {**TINY, "training.precision": "bf16", "training.steps": 20}
    facts = train(parts, overrides=changes, quiet=True).training.facts
    assert facts["precision"] == "bf16" and np.isfinite(facts["loss"])


def test_settings_of_the_result_hold_no_folder(parts: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    network = Network(resolve(overrides=TINY))
    file = tmp_path / "secret-place" / "teacher.safetensors"
    file.parent.mkdir()
    save_file({k: v.contiguous() for k, v in network.teacher.net.state_dict().items()}, file)
    inspector = train(parts, overrides={**TINY, "teacher.weights": str(file)}, quiet=True)
    settings: Settings = inspector.network.settings
    assert settings.teacher.weights == "teacher.safetensors"
