"""The shared files of a run, made once with the code under test: data sets, bundles, exports."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import TINY
from tests.trees import make_mvtec, make_plant


def make_kit(folder: Path, *, exports: bool = True) -> None:
    """Write everything that `Site` copies into a folder."""
    import snl

    parts = make_mvtec(folder / "parts")
    plant = make_plant(folder / "plant")
    overrides = {**TINY, "training.holdout": 0.5}
    snl.train(parts, output=folder / "parts.snl", overrides=overrides, device="cpu", quiet=True)
    overrides["training.steps"] = 60
    inspector = snl.train(
        plant, output=folder / "plant.snl", overrides=overrides, device="cpu", quiet=True
    )
    if exports:
        snl.export(inspector, folder / "parts.onnx", format="onnx")
        snl.export(inspector, folder / "parts.xml", format="openvino")
