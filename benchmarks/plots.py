"""Pictures of results: bars of an ablation, histograms of scores, a sheet of the worst images.

    python benchmarks/plots.py bars docs/results/methods.json -o docs/results/methods.png
    python benchmarks/plots.py scores docs/results/methods.json --run snl-rd -o scores.png
    python benchmarks/plots.py worst parts.snl demo/parts -o worst.png

`bars` and `scores` need matplotlib. The colours (Okabe and Ito's) are told apart by the
colour-blind, and nothing is told by colour alone. `worst` shows images of the data given: mind
their licence before the picture goes anywhere; those in this repository are of `snl demo`'s parts.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ablation import WORST, by_name, merge, value_of

if TYPE_CHECKING:
    from snl.evaluation.evaluate import ImageScore
    from snl.runtime.inspector import Inspector

COLUMNS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "pooled_image_auroc": "pooled image AUROC",
}
BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#9AA0A6", "#202124"
BINS = 40
TILE, GAP, LABEL, CAPTION = 132, 8, 28, 20
"""Of the sheet, in pixels: side of an image, space between tiles, a row's name, a tile's text."""


def bars(files: Sequence[Path], names: Sequence[str], output: Path) -> None:
    """One panel a metric, one bar a row: mean over seeds, standard deviation, each seed as a dot.

    The dashed line is the first row's mean. Axes do not begin at zero, and say so.
    """
    plt = _matplotlib()
    groups = by_name(merge(files), files[0])
    kept = {name: groups[name] for name in _known(names, groups)}
    figure, panels = plt.subplots(
        1, len(COLUMNS), figsize=(3.1 * len(COLUMNS) + 1, 0.34 * len(kept) + 1.3), sharey=True
    )
    for axes, (column, title) in zip(panels, COLUMNS.items(), strict=True):
        seeds = [[v for r in g if (v := value_of(r, column)) is not None] for g in kept.values()]
        means = [statistics.mean(values) if values else math.nan for values in seeds]
        spread = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in seeds]
        known = [v for values in seeds for v in values]
        if not known:
            axes.set_title(f"{title}\n(not defined)", fontsize=10)
            continue
        low, high = min(known), max(max(known), max(map(sum, zip(means, spread, strict=True))))
        room = max(high - low, 1.0)
        start = max(0.0, math.floor(low - 0.35 * room))
        end = high + 0.75 * (high - start)
        rows = range(len(kept))
        axes.barh(rows, [m - start for m in means], left=start, height=0.64, color=BLUE, alpha=0.75)
        for row, (mean, deviation, values) in enumerate(zip(means, spread, seeds, strict=True)):
            if len(values) > 1:
                axes.errorbar(mean, row, xerr=deviation, ecolor=INK, elinewidth=1.1, capsize=2.5)
                axes.plot(values, [row] * len(values), "o", ms=2.6, mfc="white", mec=INK, mew=0.6)
            text = f"{mean:.1f}" + (f" ± {deviation:.1f}" if len(values) > 1 else "")
            edge = max([mean + deviation, *values]) if values else start
            axes.text(edge + 0.03 * (end - start), row, text if values else "-", **_TEXT)
        axes.axvline(means[0], color=GREY, lw=1, ls="--", zorder=0)
        axes.set_xlim(start, end)
        axes.set_title(f"{title}, %", fontsize=10, color=INK, loc="left")
        axes.set_xticks(_ticks(start, high))
        axes.tick_params(axis="both", length=0, labelsize=8.5, labelcolor=INK)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.spines["left"].set_color(GREY)
    panels[0].set_yticks(range(len(kept)), list(kept), fontsize=9)
    panels[0].set_ylim(len(kept) - 0.4, -0.6)
    counts = sorted(set(map(len, kept.values())))
    note = f"{' to '.join(map(str, counts[:1] + counts[1:][-1:]))} seeds: "
    note += "mean ± standard deviation, dots: seeds. "
    if counts == [1]:
        note = "One seed. "
    note += "Axes are cut; dashed: the first row."
    _save(plt, figure, output, note)


def scores(files: Sequence[Path], name: str, seed: int | None, output: Path) -> None:
    """One panel a product, one axis for all: normal scores upwards, anomalous ones downwards."""
    plt = _matplotlib()
    groups = by_name(merge(files), files[0])
    (name,) = _known([name], groups)
    runs = [run for run in groups[name] if seed in (None, run["seed"])]
    if not runs or "scores" not in runs[0]:
        what = f"no seed {seed}" if not runs else "no scores; measure it again"
        sys.exit(f"{files[0]}: run '{name}' has {what}")
    run = runs[0]
    products: dict[str, dict[str, list[float]]] = run["scores"]
    everything = [s for kinds in products.values() for values in kinds.values() for s in values]
    edges = np.linspace(min(everything), max(everything), BINS + 1)
    columns = min(3, len(products))
    rows = math.ceil(len(products) / columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.6 * columns, 1.55 * rows + 0.7), sharex=True, squeeze=False
    )
    for axes in grid.flat[len(products) :]:
        axes.set_visible(False)
    for number, (axes, product) in enumerate(zip(grid.flat, products, strict=False)):
        tallest = 0.0
        for label, colour, sign in (("normal", BLUE, 1), ("anomalous", ORANGE, -1)):
            values = products[product].get(label, [])
            if not values:
                continue
            share = 100 * np.histogram(values, edges)[0] / len(values)
            axes.stairs(sign * share, edges, fill=True, color=colour, alpha=0.85, label=label)
            tallest = max(tallest, float(share.max()))
        auroc = run["products"][product]["image_auroc"]
        known = "" if auroc is None else f"   AUROC {100 * auroc:.1f}"
        axes.set_title(f"{product}{known}", fontsize=9.5, loc="left", color=INK)
        axes.axhline(0, color=INK, lw=0.7)
        axes.set_ylim(-1.08 * tallest, 1.08 * tallest)
        axes.set_yticks([])
        last = number + columns >= len(products)
        axes.tick_params(axis="x", length=0, labelsize=8, labelcolor=INK, labelbottom=last)
        axes.grid(axis="x", color="#E8EAED", lw=0.8)
        axes.set_axisbelow(True)
        if last:
            axes.set_xlabel("anomaly score", fontsize=8.5, color=INK)
        axes.spines[:].set_visible(False)
        if number == 0:
            style = {"transform": axes.transAxes, "fontsize": 9, "ha": "right", "weight": "bold"}
            axes.text(1, 0.95, "normal", color=BLUE, va="top", **style)
            axes.text(1, 0.05, "anomalous", color=ORANGE, va="bottom", **style)
    note = f"{name}, seed {run['seed']}. Share of images; normal above, anomalous below the line; "
    _save(plt, figure, output, note + "one axis for all products.")


def worst(bundle: Path, data: Path, count: int, output: Path) -> None:
    """A sheet, one row a product: the anomalous images of lowest and the normal of highest score.

    Each is shown as image | overlay, with its score and what the bundle decides.
    """
    import snl
    from snl.files import atomic

    inspector = snl.load(bundle)
    evaluation = snl.evaluate(inspector, data)
    side = (2 * TILE + 2) * count + GAP * (count - 1)
    height = LABEL + TILE + CAPTION
    top = 34
    products = list(evaluation.products)
    sheet = Image.new("RGB", (2 * side + 5 * GAP, top + height * len(products) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    lefts = {"anomalous": GAP, "normal": side + 4 * GAP}
    heads = {
        "anomalous": "anomalous, lowest score / threshold",
        "normal": "normal, highest score / threshold",
    }
    for label, left in lefts.items():
        pen.text((left, 9), heads[label], fill=INK, font=ImageFont.load_default(15))
    for row, product in enumerate(products):
        y = top + row * height
        pen.line((GAP, y, sheet.width - GAP, y), fill="#DADCE0")
        pen.text((GAP, y + 6), product, fill=INK, font=ImageFont.load_default(15))
        own = sorted((s for s in evaluation.scores if s.product == product), key=lambda s: s.score)
        for label, left in lefts.items():
            found = [s for s in own if s.label == label]
            chosen = found[:count] if label == "anomalous" else found[::-1][:count]
            for number, score in enumerate(chosen):
                tile = _tile(inspector, score)
                sheet.paste(tile, (left + number * (2 * TILE + 2 + GAP), y + LABEL))
    with atomic(output) as temporary:
        sheet.quantize(255).save(temporary, format="PNG", optimize=True)


def _tile(inspector: Inspector, score: ImageScore) -> Image.Image:
    """Image | overlay, and a line of text: score, threshold, whether that is a mistake."""
    from snl.drawing.overlay import heat

    result = inspector.inspect(score.path, score.product)
    tile = Image.new("RGB", (2 * TILE + 2, TILE + CAPTION), "white")
    marked = Image.fromarray(heat(result.image, result.anomaly_map, result.map_range))
    for number, picture in enumerate((Image.fromarray(result.image), marked)):
        tile.paste(picture.resize((TILE, TILE), Image.Resampling.LANCZOS), (number * (TILE + 2), 0))
    wrong = {("anomalous", "normal"): "missed", ("normal", "anomalous"): "false alarm"}
    verdict = wrong.get((score.label, result.decision), "")
    limit = "" if result.threshold is None else f" / {result.threshold:.3f}"
    pen = ImageDraw.Draw(tile)
    font = ImageFont.load_default(12)
    what = f"{score.defect}, " if score.label == "anomalous" and score.defect else ""
    pen.text((1, TILE + 2), f"{what}{score.score:.3f}{limit}", fill=INK, font=font)
    if verdict:
        pen.text((2 * TILE + 1, TILE + 2), verdict, fill=ORANGE, font=font, anchor="ra")
    return tile


_TEXT: dict[str, Any] = {"va": "center", "ha": "left", "fontsize": 8.5, "color": INK}
_TEXT["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}


def _matplotlib() -> Any:
    """pyplot without a window."""
    try:
        import matplotlib
    except ImportError as error:
        sys.exit(f"this needs matplotlib ({error}): pip install matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _known(names: Sequence[str], groups: dict[str, Any]) -> list[str]:
    """The names asked for, all where none is; exits where one is not there."""
    for name in set(names) - set(groups):
        sys.exit(f"no run '{name}'; there are {', '.join(groups)}")
    return list(names or groups)


def _ticks(start: float, end: float) -> list[float]:
    """Two to five round values between two."""
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 50) if (end - start) / s <= 5)
    first = math.ceil(start / step)
    return [step * n for n in range(first, math.floor(end / step) + 1)]


def _save(plt: Any, figure: Any, output: Path, note: str) -> None:
    from snl.files import atomic

    figure.tight_layout(rect=(0, 0.25 / figure.get_figheight(), 1, 1))
    figure.text(0.01, 0.06 / figure.get_figheight(), note, fontsize=8, color="#5F6368")
    with atomic(output) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    charts = verbs.add_parser("bars", help="an ablation: metrics of every row")
    histograms = verbs.add_parser("scores", help="normal against anomalous scores of a run")
    sheet = verbs.add_parser("worst", help="worst misses and false alarms of a bundle")
    for verb in (charts, histograms):
        verb.add_argument("results", type=Path, nargs="+")
    charts.add_argument("--run", action="append", default=[], help="rows and their order; all")
    histograms.add_argument("--run", required=True)
    histograms.add_argument("--seed", type=int, help="default: the first there is")
    sheet.add_argument("bundle", type=Path)
    sheet.add_argument("data", type=Path)
    sheet.add_argument("--count", type=int, default=WORST, help="images of each kind and product")
    for verb in (charts, histograms, sheet):
        verb.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.verb == "bars":
        bars(arguments.results, arguments.run, arguments.output)
    elif arguments.verb == "scores":
        scores(arguments.results, arguments.run, arguments.seed, arguments.output)
    else:
        worst(arguments.bundle, arguments.data, arguments.count, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
