"""Plots with matplotlib, an optional dependency that is imported only when a plot is drawn."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snl.data.source import one_line
from snl.errors import DependencyError
from snl.evaluation.probe_results import percent
from snl.files import atomic

if TYPE_CHECKING:
    from snl.evaluation.probe_results import Interference

PANELS = {
    "mixup": ("Mixup: image AUROC of blends, %", "normal images of", "blended with"),
    "cutpaste": ("CutPaste: pixel AUROC of patches, %", "image of", "patch from"),
}
"""By measure: title of the heat map, label of its rows and label of its columns."""
DPI, WIDEST = 120, 12000
"""Pixels per inch, and maximum width and height of a picture in pixels."""
_MAX_NAME = 24  # characters of a product's name
_INK, _SOFT = "#202124", "#6b6f76"  # colours of text and of secondary text


def check_matplotlib() -> None:
    """Check that plots can be drawn; call this before a long computation.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            f"plots need matplotlib ({error}): pip install 'snl-ad[plots]'"
        ) from None


def draw_probes(result: Interference, path: str | Path, title: str = "") -> Path:
    """Draw the heat maps of Mixup and CutPaste side by side and save them as a PNG.

    Pale cells have a high AUROC. The darker a cell, the more anomalies pass as normal; cells at
    50 % (chance) and below are darkest. Cells of two equal products are grey: they are a control,
    not interference.

    Args:
        result: result of `snl.probe`.
        path: PNG file; an existing file is replaced atomically.
        title: name of the inspector, for the title.

    Returns:
        The path.

    Raises:
        DependencyError: matplotlib is not installed.
        SnlError: the file cannot be written.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = len(result.rows), len(result.columns)
    # all sizes are in inches
    label_length = 0.085 * max(len(_short(name)) for name in (*result.rows, *result.columns))
    cell_width = max(0.46, 3.4 / columns)  # a panel is wide enough for its title
    cell_height = cell_width if rows == columns else min(cell_width, 1.2)
    left, right, gap, top = label_length + 0.35, 0.75, 0.45, 1.0
    bottom = 0.72 * label_length + 0.4
    width = left + 2 * columns * cell_width + gap + right
    height = top + rows * cell_height + bottom
    figure = Figure((width, height), dpi=min(DPI, WIDEST / max(width, height)), facecolor="white")
    FigureCanvasAgg(figure)

    def add_axes(x: float, y: float, w: float, h: float) -> Any:
        return figure.add_axes((x / width, y / height, w / width, h / height))

    for number, measure in enumerate(PANELS):
        x = left + number * (columns * cell_width + gap)
        axes = add_axes(x, bottom, columns * cell_width, rows * cell_height)
        mappable = _panel(axes, result, measure, first=number == 0)
    scale = add_axes(width - right + 0.2, bottom, 0.16, rows * cell_height)
    bar: Any = figure.colorbar(
        mappable, cax=scale, extend="min", extendfrac=min(0.06, 0.1 / cell_height / rows)
    )
    bar.set_ticks([50, 60, 70, 80, 90, 100] if rows * cell_height > 1.2 else [50, 75, 100])
    bar.outline.set_visible(False)
    scale.tick_params(length=0, labelsize=8, labelcolor=_SOFT)
    name = f"Interference between products{': ' * bool(title)}{one_line(title)}"
    figure.text(
        0.12 / width, 1 - 0.12 / height, name, fontsize=12, color=_INK, va="top", parse_math=False
    )
    with atomic(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # missing characters are drawn as boxes
        figure.savefig(temporary, format="png", metadata={"Software": "snl"})
    return Path(path)


def _panel(axes: Any, result: Interference, measure: str, *, first: bool) -> Any:
    """Draw one heat map and return its image, for the colour bar.

    Args:
        axes: matplotlib axes.
        result: result of `snl.probe`.
        measure: key of `PANELS`.
        first: whether this is the left panel, which has the labels of the rows.
    """
    heading, row_label, column_label = PANELS[measure]
    values = 100 * result.table(measure)
    control = np.array([[row == column for column in result.columns] for row in result.rows])
    options = {"vmin": 50, "vmax": 100, "aspect": "auto"}
    mappable = axes.imshow(np.ma.masked_where(control, values), cmap="OrRd_r", **options)
    axes.imshow(np.ma.masked_where(~control, 0 * values + 92), cmap="Greys_r", **options)
    for (y, x), value in np.ndenumerate(values):
        pale = control[y, x] or np.isnan(value) or value > 67
        colour = _SOFT if control[y, x] else _INK if pale else "white"
        text = "-" if np.isnan(value) else f"{value:.0f}"
        axes.text(x, y, text, ha="center", va="center", fontsize=9, color=colour)
    column_names = [_short(name) for name in result.columns]
    row_names = [_short(name) for name in result.rows]
    axes.set_xticks(
        range(len(column_names)), column_names, rotation=45, ha="right", rotation_mode="anchor",
        parse_math=False,
    )  # fmt: skip
    axes.set_yticks(range(len(row_names)), row_names if first else [], parse_math=False)
    axes.set_xticks(np.arange(len(column_names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(row_names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0, labelsize=9, labelcolor=_INK)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(column_label, fontsize=9, color=_SOFT)
    axes.set_ylabel(row_label, fontsize=9, color=_SOFT)
    summary = result.summary(measure)
    worst = summary["worst"]
    subtitle = f"mean {percent(summary['mean'])}"
    if worst:
        subtitle += f", worst {percent(worst['value'])}"
    for text, points, size, colour in ((heading, 22, 11, _INK), (subtitle, 7, 9, _SOFT)):
        axes.annotate(
            text, (0, 1), (0, points), "axes fraction", "offset points", fontsize=size, color=colour
        )
    return mappable


def _short(name: str) -> str:
    name = one_line(name)
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…"
