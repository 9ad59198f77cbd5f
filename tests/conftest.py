"""Shared by all tests: tiny data, tiny settings, trained bundles, the installed command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from tests.trees import make_mvtec, make_plant, make_varied

# how long an example takes depends on what else the machine does
hypothesis.settings.register_profile("snl", deadline=None)
hypothesis.settings.load_profile("snl")

if TYPE_CHECKING:
    from snl import Inspector

# one thread per process: the networks are tiny; subprocesses inherit the setting
os.environ.setdefault("OMP_NUM_THREADS", "1")

TINY: dict[str, Any] = {
    "teacher.name": "test_resnet",
    "teacher.weights": "random",
    "teacher.stages": (1, 2),
    "image_size": 64,
    "training.batch_size": 4,
    "training.steps": 8,
    "training.precision": "fp32",
}
TINY_OPTIONS = [
    *("--teacher", "test_resnet", "--teacher-weights", "random", "--image-size", "64"),
    *("--batch-size", "4", "--steps", "8", "--set", "training.precision=fp32"),
    *("--set", "teacher.stages=1,2"),
]
FILES = {"onnx": ".onnx", "openvino": ".xml"}
"""Suffix of an exported file by format."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


SLOW = Path(__file__).parent / "slow.txt"
LONG = Path(__file__).parent / "long.txt"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow.txt, which `make durations` writes, as slow, and those of long.txt,
    chosen by hand, as long: whole tests, or some of their parameters."""
    for file, mark in ((SLOW, pytest.mark.slow), (LONG, pytest.mark.long)):
        names = set(file.read_text(encoding="utf-8").split()) if file.is_file() else set()
        for item in items:
            if item.nodeid in names or item.nodeid.partition("[")[0] in names:
                item.add_marker(mark)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Restore the process-wide number of PyTorch threads after each test, because sums round
    differently with another number."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture
def no_parts_remain() -> Iterator[None]:
    """Remove every part that the test registers."""
    from snl.registry import REGISTRIES

    before = {kind: {part.name for part in r.parts()} for kind, r in REGISTRIES.items()}
    yield
    for kind, registry in REGISTRIES.items():
        for part in registry.parts():
            if part.name not in before[kind]:
                registry.remove(part.name)
        assert {part.name for part in registry.parts()} == before[kind]


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny data set of two products in the MVTec AD layout; tests must not change it."""
    return make_mvtec(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="session")
def bundle(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle trained on `parts`; tests must not change it."""
    import snl

    path = tmp_path_factory.mktemp("bundle") / "parts.snl"
    snl.train(parts, output=path, overrides={**TINY, "training.holdout": 0.5}, quiet=True)
    return path


@pytest.fixture(scope="session")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two products with 40 training images of varying parts; tests must not change them."""
    return make_varied(tmp_path_factory.mktemp("varied"))


@pytest.fixture(scope="session")
def calibrated(varied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle trained on `varied`, 20 images per product held out; tests must not change it."""
    import snl

    path = tmp_path_factory.mktemp("calibrated") / "varied.snl"
    overrides = {**TINY, "training.holdout": 0.5, "training.steps": 40}
    snl.train(varied, output=path, overrides=overrides, device="cpu", quiet=True)
    return path


@pytest.fixture(scope="session")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `parts`, with enough images for thresholds and AUROCs; tests must not change it."""
    return make_plant(tmp_path_factory.mktemp("plant"))


@pytest.fixture(scope="session")
def trained(plant: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that detects the dents of `plant`; tests must not change it."""
    import snl

    path = tmp_path_factory.mktemp("trained") / "parts.snl"
    overrides = {**TINY, "training.holdout": 0.5, "training.steps": 60}
    snl.train(plant, output=path, overrides=overrides, quiet=True)
    return path


@pytest.fixture(scope="session")
def inspector(trained: Path) -> Inspector:
    """The inspector of `trained`, run by PyTorch; tests must not change it."""
    import snl

    return snl.load(trained, "cpu")


@pytest.fixture(scope="session")
def exported(inspector: Inspector, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`trained` as exported files by format; tests must not change them."""
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    import snl

    folder = tmp_path_factory.mktemp("exported")
    for kind, suffix in FILES.items():
        snl.export(inspector, folder / f"parts{suffix}", format=kind)
    return {kind: folder / f"parts{suffix}" for kind, suffix in FILES.items()}


@pytest.fixture(scope="session")
def run_snl() -> Run:
    """Run the command in a subprocess, as a user does."""

    def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "snl", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=240, **options)

    return run
