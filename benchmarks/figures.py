"""Figures of results: bars of an ablation, histograms of scores, sheets of images.

    python -m benchmarks.figures bars docs/results/methods.json -o docs/results/methods.png
    python -m benchmarks.figures scores docs/results/methods.json --run snl-rd -o scores.png
    python -m benchmarks.figures frontier docs/results/gpu.json docs/results/gpu-peers.json -o f.png
    python -m benchmarks.figures worst demo/demo.snl demo/parts -o worst.png
    python -m benchmarks.figures overlays demo/demo.snl demo/parts -o docs/overlays.png

`bars` and `scores` need matplotlib. Colours (Okabe and Ito's) can be distinguished by colour-blind
readers and are never the only difference. `worst` and `overlays` (the picture of the README, which
shows the anomalous test image of median score of each product) contain images of the data set:
check its licence before you publish them. Those in this repository show the parts of `snl demo`.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.ablation import by_name, merge
from benchmarks.common import (
    BLUE,
    COLUMNS,
    GREY,
    INK,
    ORANGE,
    add_output,
    new_parser,
    pyplot,
    run_main,
    save_figure,
    style_axes,
    value_of,
)
from benchmarks.internals import WORST
from snl.errors import SnlError
from snl.files import atomic

if TYPE_CHECKING:
    from snl.evaluation.image_score import ImageScore
    from snl.runtime.inspector import Inspector

PANELS = ("image_auroc", "pixel_auroc", "aupro", "pooled_image_auroc")
BINS = 40
TILE, GAP, LABEL, CAPTION = 132, 8, 28, 20
"""Sheet of worst images, in pixels: side of an image, space between tiles, height of a row's name
and of a tile's text."""
OVERLAY, SPACE = 200, 6
"""Sheet of overlays, in pixels: side of an image, space between pairs."""


def bars(files: Sequence[Path], names: Sequence[str], output: Path) -> None:
    """Draw one panel per metric, one bar per row: mean, standard deviation, seeds as dots.

    The dashed line is the mean of the first row. Axes do not start at zero; a note says so.

    Args:
        files: results of `benchmarks.ablation` or `benchmarks.peers`.
        names: rows and their order; empty: all.
        output: PNG file.
    """
    plt = pyplot()
    groups = by_name(merge(files), files[0])
    kept = {name: groups[name] for name in check_names(names, groups)}
    figure, panels = plt.subplots(
        1, len(PANELS), figsize=(3.1 * len(PANELS) + 1, 0.34 * len(kept) + 1.3), sharey=True
    )
    for axes, column in zip(panels, PANELS, strict=True):
        title = COLUMNS[column]
        seeds = [[v for r in g if (v := value_of(r, column)) is not None] for g in kept.values()]
        means = [statistics.mean(values) if values else math.nan for values in seeds]
        spread = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in seeds]
        defined = [v for values in seeds for v in values]
        if not defined:
            axes.set_title(f"{title}\n(not defined)", fontsize=10)
            continue
        tops = map(sum, zip(means, spread, strict=True))
        low, high = min(defined), max(max(defined), *tops)
        width = max(high - low, 1.0)
        start = max(0.0, math.floor(low - 0.35 * width))
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
        style_axes(axes)
    panels[0].set_yticks(range(len(kept)), list(kept), fontsize=9)
    panels[0].set_ylim(len(kept) - 0.4, -0.6)
    counts = sorted(set(map(len, kept.values())))
    note = f"{' to '.join(map(str, counts[:1] + counts[1:][-1:]))} seeds: "
    note += "mean ± standard deviation, dots: seeds. "
    if counts == [1]:
        note = "One seed. "
    note += "Axes are cut; dashed: the first row."
    save_figure(plt, figure, output, note)


def frontier(files: Sequence[Path], output: Path) -> None:
    """Draw image AUROC against the time to predict the test images, and which rows no other row
    beats in both.

    Args:
        files: results of `benchmarks.ablation` or `benchmarks.peers`, measured on one machine.
        output: PNG file.
    """
    plt = pyplot()
    groups = by_name(merge(files), files[0])
    points = {}
    for name, runs in groups.items():
        accuracy = [v for run in runs if (v := value_of(run, "image_auroc")) is not None]
        seconds = [run["prediction_seconds"] for run in runs]
        images = sum(len(s) for by in runs[0]["scores"].values() for s in by.values())
        points[name] = (1000 * statistics.median(seconds) / images, statistics.mean(accuracy))
    best = [
        name for name, (time, value) in points.items()
        if not any(t <= time and v >= value and (t, v) != (time, value) for t, v in points.values())
    ]  # fmt: skip
    figure, axes = plt.subplots(figsize=(6.4, 4))
    line = sorted(points[name] for name in best)
    axes.step(*zip(*line, strict=True), where="post", color=GREY, lw=1, ls="--", zorder=0)
    for name, (time, value) in points.items():
        colour = BLUE if name in best else ORANGE
        axes.plot(time, value, "o" if name in best else "s", color=colour, ms=6)
        axes.annotate(name, (time, value), (6, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel("ms per image, prediction of the test images", fontsize=9)
    axes.set_title("image AUROC, %", fontsize=10, color=INK, loc="left")
    axes.margins(x=0.35, y=0.12)
    style_axes(axes)
    save_figure(plt, figure, output, "Circles: no other row is both faster and more accurate.")


def scores(files: Sequence[Path], name: str, seed: int | None, output: Path) -> None:
    """Draw one panel per product on one axis: normal scores upwards, anomalous scores downwards.

    Args:
        files: results of `benchmarks.ablation` or `benchmarks.peers`.
        name: the row.
        seed: of the run; None: the first in the file.
        output: PNG file.
    """
    plt = pyplot()
    groups = by_name(merge(files), files[0])
    (name,) = check_names([name], groups)
    runs = [run for run in groups[name] if seed in (None, run["seed"])]
    if not runs or "scores" not in runs[0]:
        missing = f"no seed {seed}" if not runs else "no scores; measure it again"
        raise SnlError(f"{files[0]}: run '{name}' has {missing}")
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
        suffix = "" if auroc is None else f"   AUROC {100 * auroc:.1f}"
        axes.set_title(f"{product}{suffix}", fontsize=9.5, loc="left", color=INK)
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
    save_figure(plt, figure, output, note + "one axis for all products.")


def worst(bundle: Path, data: Path, count: int, output: Path) -> None:
    """Draw a sheet with one row per product: the worst misses and the worst false alarms.

    Each is shown as image | overlay, with its score, the threshold, and whether it is a mistake.

    Args:
        bundle: of `snl train`.
        data: labelled images.
        count: anomalous images of lowest and normal images of highest score per product.
        output: PNG file.
    """
    import snl

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
        product_scores = sorted(
            (s for s in evaluation.scores if s.product == product), key=lambda s: s.score
        )
        for label, left in lefts.items():
            labelled = [s for s in product_scores if s.label == label]
            chosen = labelled[:count] if label == "anomalous" else labelled[::-1][:count]
            for number, score in enumerate(chosen):
                tile = _tile(inspector, score)
                sheet.paste(tile, (left + number * (2 * TILE + 2 + GAP), y + LABEL))
    with atomic(output) as temporary:
        sheet.quantize(255).save(temporary, format="PNG", optimize=True)


def _tile(inspector: Inspector, score: ImageScore) -> Image.Image:
    """Return image | overlay with a line of text: score, threshold, and the kind of mistake."""
    from snl.drawing.overlay import heat

    result = inspector.inspect(score.path, score.product)
    tile = Image.new("RGB", (2 * TILE + 2, TILE + CAPTION), "white")
    marked = Image.fromarray(heat(result.image, result.anomaly_map, result.map_range))
    for number, picture in enumerate((Image.fromarray(result.image), marked)):
        tile.paste(picture.resize((TILE, TILE), Image.Resampling.LANCZOS), (number * (TILE + 2), 0))
    mistakes = {("anomalous", "normal"): "missed", ("normal", "anomalous"): "false alarm"}
    mistake = mistakes.get((score.label, result.decision), "")
    limit = "" if result.threshold is None else f" / {result.threshold:.3f}"
    pen = ImageDraw.Draw(tile)
    font = ImageFont.load_default(12)
    defect = f"{score.defect}, " if score.label == "anomalous" and score.defect else ""
    pen.text((1, TILE + 2), f"{defect}{score.score:.3f}{limit}", fill=INK, font=font)
    if mistake:
        pen.text((2 * TILE + 1, TILE + 2), mistake, fill=ORANGE, font=font, anchor="ra")
    return tile


def overlays(bundle: Path, data: Path, output: Path) -> None:
    """Draw the anomalous test image of median score of each product as image | overlay.

    Args:
        bundle: of `snl train`.
        data: labelled images.
        output: PNG file.
    """
    import snl
    from snl.drawing.overlay import heat

    inspector = snl.load(bundle)
    evaluation = snl.evaluate(inspector, data)
    pairs = []
    for product in evaluation.products:
        scores = [s for s in evaluation.scores if (s.product, s.label) == (product, "anomalous")]
        median = sorted(scores, key=lambda s: s.score)[len(scores) // 2]
        result = inspector.inspect(median.path, product)
        marked = Image.fromarray(heat(result.image, result.anomaly_map, result.map_range))
        pair = Image.new("RGB", (2 * OVERLAY + 2, OVERLAY), "white")
        pair.paste(Image.fromarray(result.image).resize((OVERLAY, OVERLAY)), (0, 0))
        pair.paste(marked.resize((OVERLAY, OVERLAY)), (OVERLAY + 2, 0))
        pairs.append(pair)
    rows = -(-len(pairs) // 2)
    width, height = (side + SPACE for side in pairs[0].size)
    sheet = Image.new("RGB", (2 * width - SPACE, rows * height - SPACE), "white")
    for number, pair in enumerate(pairs):
        sheet.paste(pair, ((number % 2) * width, (number // 2) * height))
    with atomic(output) as temporary:
        sheet.quantize(255).save(temporary, format="PNG", optimize=True)


_TEXT: dict[str, Any] = {"va": "center", "ha": "left", "fontsize": 8.5, "color": INK}
_TEXT["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}


def check_names(names: Sequence[str], groups: dict[str, Any]) -> list[str]:
    """Return the names, or all where there are none.

    Raises:
        SnlError: a name is not in the results.
    """
    for name in sorted(set(names) - set(groups)):
        raise SnlError(f"--run: no run '{name}'; choose from {', '.join(groups)}")
    return list(names or groups)


def _ticks(start: float, end: float) -> list[float]:
    """Return two to five round values between two."""
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 50) if (end - start) / s <= 5)
    first = math.ceil(start / step)
    return [step * n for n in range(first, math.floor(end / step) + 1)]


def parser() -> argparse.ArgumentParser:
    parser = new_parser("figures", __doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    charts = verbs.add_parser("bars", help="metrics of all rows of an ablation")
    histograms = verbs.add_parser("scores", help="normal and anomalous scores of a run")
    times = verbs.add_parser("frontier", help="accuracy against time")
    for verb in (charts, histograms, times):
        verb.add_argument("results", type=Path, nargs="+")
    charts.add_argument(
        "--run", action="append", default=[], help="rows and their order (default: all)"
    )
    histograms.add_argument("--run", required=True)
    histograms.add_argument("--seed", type=int, help="default: the first in the results")
    sheet = verbs.add_parser("worst", help="worst misses and false alarms of a bundle")
    pairs = verbs.add_parser("overlays", help="an overlay of each product (for the README)")
    for verb in (sheet, pairs):
        verb.add_argument("bundle", type=Path)
        verb.add_argument("data", type=Path)
    sheet.add_argument("--count", type=int, default=WORST, help="images of each kind and product")
    for verb in (charts, histograms, times, sheet, pairs):
        add_output(verb)
    return parser


def main() -> None:
    options = parser().parse_args()
    if options.verb == "bars":
        bars(options.results, options.run, options.output)
    elif options.verb == "scores":
        scores(options.results, options.run, options.seed, options.output)
    elif options.verb == "frontier":
        frontier(options.results, options.output)
    elif options.verb == "worst":
        worst(options.bundle, options.data, options.count, options.output)
    else:
        overlays(options.bundle, options.data, options.output)


if __name__ == "__main__":
    run_main(main)
