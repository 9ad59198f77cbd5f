"""One inspector that detects defects, and its exports, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

import snl
from tests.conftest import TINY
from tests.trees import PRODUCTS, save_mask, save_part

FILES = {"onnx": ".onnx", "openvino": ".xml"}


@pytest.fixture(scope="session")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `parts`, with enough images for thresholds and AUROCs; not to be changed."""
    root = tmp_path_factory.mktemp("plant")
    for product in PRODUCTS:
        base = root / product
        for n in range(24):
            save_part(base / "train" / "good" / f"{n:03}.png", n, product=product)
        for n in range(6):
            save_part(base / "test" / "good" / f"{n:03}.png", 100 + n, product=product)
            save_part(base / "test" / "dent" / f"{n:03}.png", 200 + n, defect=True, product=product)
            mask = base / "ground_truth" / "dent" / f"{n:03}_mask.png"
            save_mask(mask, 200 + n, product=product)
    return root


@pytest.fixture(scope="session")
def trained(plant: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that detects the dents of `plant`; not to be changed."""
    path = tmp_path_factory.mktemp("trained") / "parts.snl"
    overrides = {**TINY, "training.holdout": 0.5, "training.steps": 60}
    snl.train(plant, output=path, overrides=overrides, quiet=True)
    return path


@pytest.fixture(scope="session")
def inspector(trained: Path) -> snl.Inspector:
    """The inspector of `trained`, run by PyTorch; not to be changed."""
    return snl.load(trained, "cpu")


@pytest.fixture(scope="session")
def exported(inspector: snl.Inspector, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of `snl export` for `trained`, by format; not to be changed."""
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    from snl.exporting.write import export

    folder = tmp_path_factory.mktemp("exported")
    for kind, suffix in FILES.items():
        export(inspector, folder / f"parts{suffix}", format=kind)
    return {kind: folder / f"parts{suffix}" for kind, suffix in FILES.items()}
