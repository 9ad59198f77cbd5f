"""The tutorial, from its first command to its last, with few small images, on a tiny network."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TINY_OPTIONS
from tests.docs.running import Reader

NOT_RUN = {
    "python3 -m venv": "tests run in an environment that is there",
    ". .venv": "tests run in an environment that is there",
    "pip install": "tests run in an environment that has the package",
    "snl doctor$": "imports all packages, in 8 s; tests/cli/test_doctor.py runs it",
}
ADDED = {
    "snl demo --images-only": ("--size", "64", "--quiet"),
    "snl train": (*TINY_OPTIONS, "--set", "training.holdout=0.5", "--quiet"),
    "snl evaluate": ("--quiet",),
    "snl report": ("--quiet",),
}
REPLACED = {"snl_compact": "test_resnet"}
KEPT = 3
"""Of so many generated images one is kept."""


def thin() -> None:
    """Remove most of the generated images, with their masks."""
    for image in Path("demo/parts").glob("*/t*/*/*.png"):
        product, split, kind = image.parts[2:5]
        if int(image.stem) % KEPT:
            image.unlink()
            if split == "test" and kind != "good":
                (
                    Path("demo/parts") / product / "ground_truth" / kind / f"{image.stem}_mask.png"
                ).unlink()


def test_every_step_of_the_tutorial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = Reader(
        "tutorial.md", tmp_path, monkeypatch, capsys, NOT_RUN, ADDED, REPLACED,
        after={"snl demo --images-only": thin},
    )  # fmt: skip
    reader.read()
    assert Path.cwd() == tmp_path / "first-steps"
    made = {path.name for path in Path.cwd().iterdir()}
    assert {"demo", "parts.snl", "overlays", "results.jsonl", "gear.png", "metrics.json"} <= made
    assert {"report.html", "parts.onnx"} <= made
    assert len(list(Path("overlays").rglob("*.png"))) == 10
