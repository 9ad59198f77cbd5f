"""The shared files of a run, made once with the code under test: data sets, bundles, exports."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import TINY
from tests.trees import PRODUCTS, make_mvtec, save_mask, save_part


def make_kit(folder: Path, *, exports: bool = True) -> None:
    """Write everything that `Site` copies into a folder."""
    import snl

    parts = make_mvtec(folder / "parts")
    plant = _make_plant(folder / "plant")
    overrides = {**TINY, "training.holdout": 0.5}
    snl.train(parts, output=folder / "parts.snl", overrides=overrides, device="cpu", quiet=True)
    overrides["training.steps"] = 60
    inspector = snl.train(
        plant, output=folder / "plant.snl", overrides=overrides, device="cpu", quiet=True
    )
    if exports:
        snl.export(inspector, folder / "parts.onnx", format="onnx")
        snl.export(inspector, folder / "parts.xml", format="openvino")


def _make_plant(root: Path) -> Path:
    """Write two products with enough images for thresholds."""
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
