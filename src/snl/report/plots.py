"""Plots made with matplotlib, which is an extra of its own and imported late."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snl.data.images import one_line
from snl.errors import DependencyError
from snl.evaluation.probe_results import percent
from snl.files import atomic

if TYPE_CHECKING:
    from snl.evaluation.probe_results import Interference

PANELS = {
    "mixup": ("Mixup: image AUROC of blends, %", "normal images of", "blended with"),
    "cutpaste": ("CutPaste: pixel AUROC of patches, %", "image of", "patch from"),
}
DPI, WIDEST = 120, 12000  # pixels an inch, and of a whole picture
_LONGEST = 24  # letters of a product's name
_INK, _SOFT = "#202124", "#6b6f76"


def check_matplotlib() -> None:
    """Says before the work that plots cannot be drawn.

    Raises:
        DependencyError: matplotlib is missing.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            f"a picture needs matplotlib ({error}): pip install 'snl-ad[plots]'"
        ) from None


def draw_probes(result: Interference, path: str | Path, title: str = "") -> Path:
    """The heat maps of Mixup and CutPaste, side by side, as a PNG.

    Pale is well, the darker the more passes as normal; at chance (50 %) and below it is darkest.
    The same product twice is grey, for it is a control and no interference.

    Args:
        result: of `probe`.
        path: of the file; replaced whole.
        title: what was probed.

    Raises:
        DependencyError: matplotlib is missing.
        SnlError: the file cannot be written.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = len(result.rows), len(result.columns)
    letters = 0.085 * max(len(_short(name)) for name in (*result.rows, *result.columns))
    cell = max(0.46, 3.4 / columns)  # inches, as all below; a panel has room for its heading
    tall = cell if rows == columns else min(cell, 1.2)
    left, right, gap, top, bottom = letters + 0.35, 0.75, 0.45, 1.0, 0.72 * letters + 0.4
    width = left + 2 * columns * cell + gap + right
    height = top + rows * tall + bottom
    figure = Figure((width, height), dpi=min(DPI, WIDEST / max(width, height)), facecolor="white")
    FigureCanvasAgg(figure)

    def place(x: float, y: float, w: float, h: float) -> Any:
        return figure.add_axes((x / width, y / height, w / width, h / height))

    for number, measure in enumerate(PANELS):
        x = left + number * (columns * cell + gap)
        axes = place(x, bottom, columns * cell, rows * tall)
        shades = _panel(axes, result, measure, first=number == 0)
    scale = place(width - right + 0.2, bottom, 0.16, rows * tall)
    bar: Any = figure.colorbar(
        shades, cax=scale, extend="min", extendfrac=min(0.06, 0.1 / tall / rows)
    )
    bar.set_ticks([50, 60, 70, 80, 90, 100] if rows * tall > 1.2 else [50, 75, 100])
    bar.outline.set_visible(False)
    scale.tick_params(length=0, labelsize=8, labelcolor=_SOFT)
    name = f"Interference between products{': ' * bool(title)}{one_line(title)}"
    figure.text(
        0.12 / width, 1 - 0.12 / height, name, fontsize=12, color=_INK, va="top", parse_math=False
    )
    with atomic(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # boxes for letters that the font has not
        figure.savefig(temporary, format="png")
    return Path(path)


def _panel(axes: Any, result: Interference, measure: str, *, first: bool) -> Any:
    """One heat map; returns its shades for the scale beside."""
    heading, down, across = PANELS[measure]
    values = 100 * result.table(measure)
    control = np.array([[row == column for column in result.columns] for row in result.rows])
    span = {"vmin": 50, "vmax": 100, "aspect": "auto"}
    shades = axes.imshow(np.ma.masked_where(control, values), cmap="OrRd_r", **span)
    axes.imshow(np.ma.masked_where(~control, 0 * values + 92), cmap="Greys_r", **span)
    for (y, x), value in np.ndenumerate(values):
        pale = control[y, x] or np.isnan(value) or value > 67
        colour = _SOFT if control[y, x] else _INK if pale else "white"
        text = "-" if np.isnan(value) else f"{value:.0f}"
        axes.text(x, y, text, ha="center", va="center", fontsize=9, color=colour)
    names = [[_short(name) for name in these] for these in (result.columns, result.rows)]
    axes.set_xticks(
        range(len(names[0])), names[0], rotation=45, ha="right", rotation_mode="anchor",
        parse_math=False,
    )  # fmt: skip
    axes.set_yticks(range(len(names[1])), names[1] if first else [], parse_math=False)
    axes.set_xticks(np.arange(len(names[0]) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names[1]) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0, labelsize=9, labelcolor=_INK)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(across, fontsize=9, color=_SOFT)
    axes.set_ylabel(down, fontsize=9, color=_SOFT)
    found = result.summary(measure)
    worst = found["worst"]
    words = f"mean {percent(found['mean'])}"
    if worst:
        words += f", worst {percent(worst['value'])}"
    for line, points, size, colour in ((heading, 22, 11, _INK), (words, 7, 9, _SOFT)):
        axes.annotate(
            line, (0, 1), (0, points), "axes fraction", "offset points", fontsize=size, color=colour
        )
    return shades


def _short(name: str) -> str:
    name = one_line(name)
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
