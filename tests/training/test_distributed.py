"""Several processes train the model of one: real processes, started by torchrun and by snl."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import snl
from snl.cli.main import main
from snl.errors import SettingsError
from snl.model.ranks import ALONE, Ranks
from snl.training import checkpoint, launch
from tests.conftest import TINY_OPTIONS
from tests.training.ranks_worker import BATCH, STUDENTS, differentiated, layers, train, values

SIZES = (2, 4)
Weights = dict[str, torch.Tensor]
ROUNDING = 1e-7
"""Relative rounding error of fp32. Sums over the batch are rounded differently in parts, and where
a ReLU or the quantile of hard mining flips, or few values are normalised, the error grows from step
to step. How much, a training shows whose images are changed by as little."""
SMALL = 2e-3
"""Of the largest change of a weight tensor: an error that needs no such excuse."""


def torchrun(size: int, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*command, f"--nproc-per-node={size}", *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What the workers computed, by their number."""
    results = {}
    for size in SIZES:
        file = tmp_path_factory.mktemp("ranks") / "found.pt"
        run = torchrun(size, "-m", "tests.training.ranks_worker", str(file))
        assert run.returncode == 0, run.stderr[-3000:]
        results[size] = torch.load(file, weights_only=True)
    return results


# --- the parts ---


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return layers(ALONE)


@pytest.mark.parametrize("size", SIZES)
def test_batch_normalisation_is_that_of_the_whole_batch(
    found: dict[int, dict[str, Any]], alone: dict[str, Any], size: int
) -> None:
    x = 3 * values(BATCH, 5, 4, 6, seed=0) + 20
    norm = nn.BatchNorm2d(5)
    with torch.no_grad():
        norm.weight.copy_(values(5, seed=1))
        norm.bias.copy_(values(5, seed=2))
    output, gradient = differentiated(norm, x, ALONE)
    ours = found[size]["layers"]
    torch.testing.assert_close(ours["norm"][0], output, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours["norm"][1] * size, gradient, rtol=1e-4, atol=1e-4)
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(ours["norm state"][name], value, rtol=1e-5, atol=1e-5)
    for one, parameter in zip(ours["norm parameters"], norm.parameters(), strict=True):
        torch.testing.assert_close(one * size, parameter.grad, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(ours["norm after"], norm.eval()(x).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["dropout", "inter"])
def test_randomness_and_affinities_are_those_of_the_whole_batch(
    found: dict[int, dict[str, Any]], alone: dict[str, Any], size: int, name: str
) -> None:
    output, gradient = found[size]["layers"][name]
    torch.testing.assert_close(output, alone[name][0])
    # every rank has the affinities of the whole batch; of dropout its own part
    factor = size if name == "dropout" else 1
    torch.testing.assert_close(gradient * factor, alone[name][1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_the_quantile_of_hard_mining_is_that_of_the_whole_batch(
    found: dict[int, dict[str, Any]], alone: dict[str, Any], size: int
) -> None:
    torch.testing.assert_close(found[size]["layers"]["easy"], alone["easy"], rtol=0, atol=0)
    assert 0.55 < float((alone["easy"] < 1).float().mean()) < 0.65


@pytest.mark.parametrize("size", SIZES)
def test_what_ranks_tell_each_other(found: dict[int, dict[str, Any]], size: int) -> None:
    ours = found[size]["layers"]
    torch.testing.assert_close(ours["gathered"], 3 * values(BATCH, 5, 4, 6, seed=0) + 20)
    assert float(ours["mean"]) == (size - 1) / 2
    assert ours["largest"] == 9 + size
    assert ours["shared"] == {"rank": 0} and ours["called"] == 0 and ours["failed"]
    assert bool((ours["copied"] == 1).all())


def test_one_process_needs_nobody() -> None:
    x = values(4, 2, seed=0)
    assert ALONE.gather(x) is x and ALONE.sum(x) is x and ALONE.mean(x) is x
    assert ALONE.share(3) == 3 and ALONE.collect(3) == [3] and ALONE.largest(7) == 7
    assert Ranks(1, 4).part(12) == slice(3, 6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", list(STUDENTS))
def test_losses_and_weights_are_those_of_one_process(
    found: dict[int, dict[str, Any]], kind: str, size: int
) -> None:
    weights, losses, before = train(kind, ALONE)
    ours, our_losses, same = found[size][kind]
    np.testing.assert_allclose(our_losses, losses, rtol=2e-4)
    assert weights.keys() == ours.keys()
    assert all(torch.equal(value, same[name]) for name, value in before.items())
    rounded = train(kind, ALONE, ROUNDING)[0]
    error, unavoidable = (worst_change(before, weights, other) for other in (ours, rounded))
    assert error <= max(SMALL, 5 * unavoidable), (error, unavoidable)


def worst_change(before: Weights, after: Weights, other: Weights) -> float:
    """Return the largest difference between two trainings of a tensor, as a share of its change,
    which counts as a thousand units in the last place at the least."""
    shares = [0.0]
    for name, value in after.items():
        if value.is_floating_point() and not torch.equal(value, before[name]):
            least = 1000 * torch.finfo(value.dtype).eps * value.abs().max()
            change = torch.maximum((value - before[name]).abs().max(), least)
            shares.append(float((other[name] - value).abs().max() / change))
    return max(shares)


# --- whole trainings ---


def snl_train(plant: Path, file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snl", "train", str(plant), "-o", str(file), *TINY_OPTIONS,
         "--quiet", *options],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def started(plant: Path, file: Path, steps: int) -> subprocess.Popen[str]:
    """Start a training in two processes that often writes checkpoints."""
    return subprocess.Popen(
        [sys.executable, "-m", "snl", "train", str(plant), "-o", str(file), *TINY_OPTIONS,
         "--quiet", "--steps", str(steps), "--checkpoint-every", "0.1", "--devices", "cpu,cpu"],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def log_of(file: Path) -> list[float]:
    lines = (file.with_name(file.name + ".run") / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_devices_of_the_command(plant: Path, tmp_path: Path) -> None:
    one = snl_train(plant, tmp_path / "one.snl")
    two = snl_train(plant, tmp_path / "two.snl", "--devices", "cpu,cpu")
    assert (one.returncode, two.returncode) == (0, 0), two.stderr
    assert two.stderr.count("in 2 processes") == 1 and "Traceback" not in two.stderr
    assert two.stderr.count("two.snl: 8 steps") == 1  # one process speaks
    losses = [log_of(tmp_path / f"{name}.snl") for name in ("one", "two")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.01)
    a, b = (snl.load(tmp_path / f"{name}.snl", "cpu") for name in ("one", "two"))
    assert a.training.products == b.training.products
    assert b.network.student.training is False
    assert not any("WholeBatchNorm2d" in type(m).__name__ for m in b.network.modules())
    assert not list(tmp_path.glob("*.run/cache*"))


def test_torchrun_starts_it(plant: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.snl"
    run = torchrun(
        2, "-m", "snl", "train", str(plant), "-o", str(file), *TINY_OPTIONS, "--device", "cpu"
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert snl.load(file, "cpu").training.facts["steps"] == 8


def test_a_lost_process_leaves_a_checkpoint_from_which_others_continue(
    plant: Path, tmp_path: Path
) -> None:
    """kill -9 of one of two; resumed with one."""
    whole = tmp_path / "whole.snl"
    assert snl_train(plant, whole, "--steps", "120").returncode == 0
    file = tmp_path / "a.snl"
    process = started(plant, file, 120)
    folder = tmp_path / "a.snl.run"
    _wait_for(folder / checkpoint.NAME, process)
    children = _children(process.pid)
    assert len(children) == 2
    os.kill(children[1], signal.SIGKILL)
    _, stderr = process.communicate(timeout=90)
    assert process.returncode == 2
    lines = [line for line in stderr.splitlines() if "error" in line]
    assert len(lines) == 1 and "SIGKILL" in lines[0] and "--resume" in lines[0], stderr
    assert "Traceback" not in stderr and not file.exists()
    assert not [p for p in _children(1) if p in children]
    again = snl_train(plant, file, "--steps", "120", "--resume")
    assert again.returncode == 0, again.stderr
    facts = snl.load(file, "cpu").training.facts
    assert facts["steps"] == 120
    assert facts["loss"] == pytest.approx(snl.load(whole, "cpu").training.facts["loss"], rel=0.2)


@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_a_signal_stops_all_after_a_checkpoint(
    plant: Path, tmp_path: Path, number: signal.Signals
) -> None:
    file = tmp_path / "a.snl"
    process = started(plant, file, 3000)
    _wait_for(tmp_path / "a.snl.run" / checkpoint.NAME, process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=90)
    assert process.returncode == 128 + number, stderr
    assert "Traceback" not in stderr and stderr.count("--resume") == 1, stderr
    assert (tmp_path / "a.snl.run" / checkpoint.NAME).is_file() and not file.exists()


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        if path.is_file():
            return
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.1)
    raise AssertionError(f"{path} was not written")


def _children(parent: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    rows = [line.split(maxsplit=1) for line in listed.stdout.splitlines()]
    return sorted(int(pid) for pid, words in rows if "snl train" in words)


# --- wrong input ---


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ("0,0", "each once"),
        ("cpu,0", "each once"),
        ("a,b", "numbers of GPUs"),
        ("", "numbers of GPUs"),
        ("0,,1", "numbers of GPUs"),
        ("-1", "numbers of GPUs"),
        ("90,91", "there is no GPU 90"),
    ],
)
def test_wrong_devices(devices: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        launch.parse_devices(devices)


def test_errors_are_told_once(
    plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.snl"
    three = snl_train(plant, file, "--devices", "cpu,cpu,cpu")
    assert three.returncode == 2
    assert three.stderr.count("error") == 1 and "multiple of 3" in three.stderr, three.stderr
    missing = snl_train(tmp_path / "nothing", file, "--devices", "cpu,cpu")
    assert missing.returncode == 2 and missing.stderr.count("\n") == 1, missing.stderr
    assert "does not exist" in missing.stderr and not list(tmp_path.iterdir())
    words = ["train", str(plant), "-o", str(file), "--devices"]
    assert main([*words, "0,0"]) == 2 and "each once" in capsys.readouterr().err
    assert main([*words, "cpu", "--device", "cpu"]) == 2
    assert "not both" in capsys.readouterr().err


def test_an_unreadable_image_stops_all(plant: Path, tmp_path: Path) -> None:
    import shutil

    data = tmp_path / "data"
    shutil.copytree(plant, data)
    broken = sorted(data.glob("*/train/good/*"))[1]
    broken.write_bytes(b"no image")
    run = snl_train(data, tmp_path / "a.snl", "--on-bad-image", "stop", "--devices", "cpu,cpu")
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert run.stderr.count("error") == 1 and broken.name in run.stderr, run.stderr
    run = snl_train(data, tmp_path / "b.snl", "--devices", "cpu,cpu")
    assert run.returncode == 0, run.stderr
    assert len(snl.load(tmp_path / "b.snl", "cpu").training.facts["skipped"]) == 1
