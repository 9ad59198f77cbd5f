"""Figures are PNG files of a plausible size; their content was inspected by eye."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import snl
from benchmarks import figures
from tests.benchmarks.conftest import Whole


@pytest.fixture
def matplotlib() -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib (pip install matplotlib)")


def check(path: Path, width: int, height: int) -> None:
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width >= width
        assert image.height >= height
        assert np.asarray(image.convert("L")).std() > 5  # something is drawn


@pytest.mark.usefixtures("matplotlib")
def test_bars(whole: Whole, tmp_path: Path) -> None:
    figures.bars([whole[0]], [], tmp_path / "bars.png")
    check(tmp_path / "bars.png", 1000, 200)
    figures.bars([whole[0]], ["fd", "rd"], tmp_path / "two.png")
    with Image.open(tmp_path / "two.png") as two, Image.open(tmp_path / "bars.png") as four:
        assert two.height < four.height


@pytest.mark.usefixtures("matplotlib")
def test_bars_of_a_metric_that_is_not_defined(whole: Whole, tmp_path: Path) -> None:
    document = json.loads(whole[0].read_text(encoding="utf-8"))
    for run in document["runs"]:
        run["mean"]["aupro"] = None
    file = tmp_path / "results.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    figures.bars([file], [], tmp_path / "bars.png")
    check(tmp_path / "bars.png", 1000, 200)


@pytest.mark.usefixtures("matplotlib")
def test_frontier(whole: Whole, tmp_path: Path) -> None:
    figures.frontier([whole[0]], tmp_path / "frontier.png")
    check(tmp_path / "frontier.png", 500, 300)


@pytest.mark.usefixtures("matplotlib")
def test_scores(whole: Whole, tmp_path: Path) -> None:
    figures.scores([whole[0]], "fd", 1, tmp_path / "scores.png")
    check(tmp_path / "scores.png", 600, 200)


@pytest.mark.usefixtures("matplotlib")
@pytest.mark.parametrize(("name", "seed"), [("nothing", None), ("fd", 7)])
def test_scores_of_a_missing_run(whole: Whole, tmp_path: Path, name: str, seed: int | None) -> None:
    with pytest.raises(snl.SnlError, match=r"no run 'nothing'; choose from rd|no seed 7"):
        figures.scores([whole[0]], name, seed, tmp_path / "scores.png")


def test_worst(bundle: Path, parts: Path, tmp_path: Path) -> None:
    figures.worst(bundle, parts, 2, tmp_path / "worst.png")
    check(tmp_path / "worst.png", 4 * 2 * figures.TILE, 2 * figures.TILE)


def test_overlays(bundle: Path, parts: Path, tmp_path: Path) -> None:
    figures.overlays(bundle, parts, tmp_path / "overlays.png")
    check(tmp_path / "overlays.png", 4 * figures.OVERLAY, figures.OVERLAY)


def test_without_matplotlib(whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(snl.SnlError, match="pip install matplotlib"):
        figures.bars([whole[0]], [], tmp_path / "bars.png")
