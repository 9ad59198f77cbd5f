"""The heat maps of interference probes: a PNG whose size depends on the table, or a clear error."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snl.errors import DependencyError, SnlError
from snl.evaluation.probe_results import Cell, Interference
from snl.reporting.plots import WIDEST, check_matplotlib, draw_probes


def made_up(rows: list[str], columns: list[str], value: float | None = 0.9) -> Interference:
    cells = [Cell(a, b, value, value, value, 3, 3) for a, b in product(rows, columns)]
    return Interference(tuple(rows), tuple(columns), tuple(cells), {}, {}, (), ())


def names(count: int) -> list[str]:
    return [f"product {n}" for n in range(count)]


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (1, 2), (1, 9), (9, 9), (15, 15), (2, 40)])
def test_a_png_of_a_suitable_size(tmp_path: Path, rows: int, columns: int) -> None:
    pytest.importorskip("matplotlib")
    path = draw_probes(made_up(names(columns)[:rows], names(columns)), tmp_path / "a.png", "a.snl")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        picture.load()
        width, height = picture.size
    assert 900 < width < 5000 and 250 < height < 2500
    assert width > 1.5 * height
    assert list(tmp_path.iterdir()) == [path]


def test_low_values_are_dark(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lightness = {}
    for value in (0.3, 0.5, 0.75, 1.0):
        path = draw_probes(made_up(names(9), names(9), value), tmp_path / "a.png")
        pixels = np.asarray(Image.open(path).convert("L"))
        lightness[value] = np.median(pixels[pixels < 255])
    assert lightness[0.3] == lightness[0.5] < lightness[0.75] < lightness[1.0]


@pytest.mark.filterwarnings("error::UserWarning")
def test_any_name_and_missing_values_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    odd = ["$x^2_$", "a\nb", "\u7522\u54c1", "n" * 300]
    draw_probes(made_up(odd, odd, None), tmp_path / "a.jpg", "100 % $\\frac$.snl")
    assert Image.open(tmp_path / "a.jpg").format == "PNG"


def test_the_size_is_limited_for_hundreds_of_products(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw_probes(made_up(names(1), names(300)), tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").width <= WIDEST


def test_a_file_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "file").touch()
    with pytest.raises(SnlError, match="cannot be written"):
        draw_probes(made_up(names(2), names(2)), tmp_path / "file" / "a.png")


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DependencyError, match=r"pip install 'snl-ad\[plots\]'"):
        check_matplotlib()
