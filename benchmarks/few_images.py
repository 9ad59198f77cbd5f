"""Accuracy and decisions with few normal images, against PatchCore on the same images.

    python -m benchmarks.few_images run DATA -o few.json --methods snl
    python -m benchmarks.few_images run DATA -o few.json --methods patchcore --teacher-weights FILE
    python -m benchmarks.few_images table few.json -o few.md
    python -m benchmarks.few_images plot few.json -o few.png

Of every product a number of normal training images is drawn at random (`--images`), several times
(`--draws`). A draw with more images contains the images of the same draw with fewer, and both
methods get the same ones; a product that has fewer images gives all. The test images are always all
of the data set. A run that the results already contain is skipped.

- snl: one model of all products, trained on the drawn images. It holds some of them out for its
  calibration itself, so it trains on fewer. Products are recognised, not given.
- PatchCore of anomalib (`pip install anomalib==2.7.0`), as in `benchmarks.peers` but one model of
  each product, fitted to all drawn images: it is given the product, and its backbone is
  ResNet-18. `--coreset 1` keeps all patches. It has no calibrated decision, so only AUROCs are
  measured. Pooled, its raw scores of different models are in one ranking.

The number of a draw is also the seed of the training, so the spread over draws includes that of
the training.
"""

from __future__ import annotations

import argparse
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import snl
from benchmarks.common import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    add_output,
    add_run,
    add_table_verb,
    is_done,
    log,
    machine,
    markdown_table,
    mean_and_spread,
    names_of,
    new_parser,
    numbers_of,
    pyplot,
    read_results,
    require_anomalib,
    resume_runs,
    run_main,
    save_figure,
    style_axes,
    value_of,
    versions,
    write_or_print,
)
from snl.data.catalog import Catalog
from snl.data.records import Record
from snl.errors import SnlError
from snl.evaluation.decision_counts import decision_counts
from snl.settings import TrainingSettings, parse_assignments

if TYPE_CHECKING:
    from benchmarks.peers import Peer

METHODS = ("snl", "patchcore")
METRICS = ("image_auroc", "pixel_auroc", "aupro")
ACCURACY = {
    "image_auroc": "image AUROC",
    "pooled_image_auroc": "pooled image AUROC",
    "pixel_auroc": "pixel AUROC",
}
"""Columns of the first table: metric, title."""
DECISIONS = ("anomalous", "uncertain", "unknown product")
COLOURS = (BLUE, ORANGE, GREY, INK)
Results = Mapping[str, Any]


def drawn(catalog: Catalog, count: int, draw: int) -> Catalog:
    """Return the catalog with `count` normal training images of each product, or all it has.

    Images of the split `test` stay.
    """
    chosen: set[Record] = set()
    for product in catalog.products:
        records = catalog.of(product).train()
        order = np.random.default_rng([zlib.crc32(product.encode()), draw])
        chosen.update(records[number] for number in order.permutation(len(records))[:count])
    kept = tuple(r for r in catalog.records if r.split != "train" or r in chosen)
    return replace(catalog, records=kept)


def run(options: argparse.Namespace) -> None:
    """Do the runs that the results do not have yet, and write the results after each."""
    catalog = Catalog.read(options.data)
    results = resume_runs(options.output, "With few normal images", Path(__file__).name)
    for draw in options.draws:
        for count in options.images:
            part = drawn(catalog, count, draw)
            for method in options.methods:
                name, settings = described(method, options, draw)
                shown = {k: Path(v).name if k == "teacher.weights" else v
                         for k, v in settings.items()}  # fmt: skip
                key = {"name": name, "count": count, "draw": draw, "method": method, "set": shown,
                       "images": part.fingerprint()}  # fmt: skip
                if is_done(results, key):
                    continue
                log(f"{name}, {count} images, draw {draw}")
                if method == "snl":
                    found = measured_snl(part, settings, options.device)
                else:
                    found = measured_patchcore(part, settings, options.device)
                drawn_images = dict(Counter(record.product for record in part.train()))
                one = {**key, "drawn": drawn_images, **found}
                add_run(results, one, options.output, [])


def described(method: str, options: argparse.Namespace, draw: int) -> tuple[str, dict[str, Any]]:
    """Return the name of a method's rows and its settings."""
    shared = {"image_size": options.image_size, "training.seed": draw}
    if method == "snl":
        changes = parse_assignments(options.set)
        shown = ", ".join(
            f"{name}={value}" for name, value in changes.items() if name != "teacher.weights"
        )
        name = f"snl ({shown})" if shown else "snl"
        return name, {**shared, "training.steps": options.steps, **changes}
    from benchmarks.peers import BACKBONE, patchcore_title

    name = f"{patchcore_title(options.coreset)}, a model per product"
    return name, {**shared, "coreset": options.coreset, "teacher.name": BACKBONE,
                  "teacher.weights": options.teacher_weights}  # fmt: skip


def measured_snl(catalog: Catalog, settings: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Train one model of all products; return metrics and decisions on the test images."""
    start = time.perf_counter()
    inspector = snl.train(catalog, overrides=settings, device=device, quiet=True)
    seconds = time.perf_counter() - start
    evaluation = snl.evaluate(inspector, catalog)
    verdicts = [image.verdict for image in evaluation.scores if image.verdict is not None]
    counts = decision_counts(evaluation.scores)
    assert counts is not None
    sources = Counter("none" if v.threshold is None else v.threshold_from for v in verdicts)
    return {
        **chosen_metrics(evaluation.products, evaluation.mean, evaluation.pooled),
        "decisions": counts,
        "threshold_from": dict(sources.most_common()),
        "held_out": {name: len(s.scores) for name, s in inspector.calibration.sets.items()},
        "training": {"seconds": round(seconds, 2), **environment()},
    }


def measured_patchcore(
    catalog: Catalog, settings: Mapping[str, Any], device: str
) -> dict[str, Any]:
    """Fit one PatchCore of each product; return metrics on the test images."""
    from benchmarks import peers
    from benchmarks.internals import evaluate_each, load_teacher, training_images
    from snl.model import device as devices

    teacher = load_teacher(peers.BACKBONE, settings["teacher.weights"])
    chosen = devices.choose(device)
    budget = TrainingSettings(seed=settings["training.seed"])
    facts: dict[str, dict[str, Any]] = {}
    seconds = 0.0

    def models() -> Iterator[tuple[str, Peer]]:
        nonlocal seconds
        for name in catalog.products:
            start = time.perf_counter()
            pixels, _ = training_images(catalog.of(name), settings["image_size"])
            peer, facts[name] = peers.trained(
                "patchcore", teacher, pixels, budget, settings["coreset"], chosen
            )
            seconds += time.perf_counter() - start
            yield name, peer

    found = evaluate_each(models(), catalog)
    bank = {name: one["bank"] for name, one in facts.items()}
    return {
        **chosen_metrics(found["products"], found["mean"], found["pooled"]),
        "bank": bank,
        "training": {"seconds": round(seconds, 2), **environment()},
    }


def chosen_metrics(
    products: Mapping[str, Any], mean: Mapping[str, Any], pooled: Mapping[str, Any]
) -> dict[str, Any]:
    """Return those metrics of an evaluation that are kept."""
    return {
        "products": {name: {m: values[m] for m in METRICS} for name, values in products.items()},
        "mean": {metric: mean[metric] for metric in METRICS},
        "pooled": {metric: pooled[metric] for metric in METRICS[:2]},
    }


def environment() -> dict[str, Any]:
    """Return what else the seconds depend on."""
    import torch

    return {
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "versions": versions(("anomalib", "torch", "timm")) | {"snl": snl.__version__},
    }


# -- table and plot


def grouped(runs: Sequence[Results]) -> dict[tuple[int, str], list[Results]]:
    """Return the runs by number of images and name, each with all its draws.

    Raises:
        SnlError: a draw has other images in another run, or a run is there with other settings.
    """
    images: dict[tuple[int, int], str] = {}
    for one in runs:
        if images.setdefault((one["count"], one["draw"]), one["images"]) != one["images"]:
            raise SnlError(
                f"draw {one['draw']} with {one['count']} images: the runs have different images; "
                "measure all methods with the same data set"
            )
    names = list(dict.fromkeys(one["name"] for one in runs))
    groups: dict[tuple[int, str], list[Results]] = {}
    for one in sorted(runs, key=lambda r: (r["count"], names.index(r["name"]), r["draw"])):
        group = groups.setdefault((one["count"], one["name"]), [])
        if group and group[-1]["draw"] == one["draw"]:
            raise SnlError(
                f"'{one['name']}' has draw {one['draw']} with {one['count']} images twice, with "
                "other settings; write them to files of their own"
            )
        group.append(one)
    return groups


def share(one: Results, label: str, decision: str) -> float | None:
    """Return the percentage of a decision among the images of a label; None: there are none."""
    counts = one["decisions"]["overall"][label]
    total = sum(counts.values())
    return 100 * counts[decision] / total if total else None


def defined(values: Sequence[float | None]) -> list[float]:
    """Return the values that are not None."""
    return [value for value in values if value is not None]


def table(file: Path) -> str:
    """Return accuracy and decisions as Markdown; raises what `grouped` raises."""
    runs = read_results(file)["runs"]
    groups = grouped(runs)
    lines = [
        "# With few normal images",
        "",
        f"Made from `{file.name}`. Percent; mean over draws, ± the standard deviation between",
        "draws. AUROCs are means over products, or pooled: of all images in one ranking.",
        *fewer(runs),
        "",
    ]
    rows = []
    for (count, name), draws in groups.items():
        cells = [mean_and_spread(defined([value_of(r, c) for r in draws])) for c in ACCURACY]
        seconds = mean_and_spread([r["training"]["seconds"] for r in draws])
        rows.append([str(count), name, *cells, str(len(draws)), seconds])
    head = ["images of each product", "method", *ACCURACY.values(), "draws", "training s"]
    lines += markdown_table(head, rows)
    lines += [
        "",
        "## Decisions",
        "",
        "Shares of the test images with each decision, and how many test images have a threshold",
        "that rests on what; none: there are too few held-out images, and every image of a known",
        "product is uncertain. Normal images that are called anomalous are false alarms. Held out:",
        "images of all products together, in one draw.",
        "",
    ]
    head = ["images of each product", "method", "held out"]
    head += [f"{label}: {decision}" for label in ("normal", "defects") for decision in DECISIONS]
    rows = []
    for (count, name), draws in groups.items():
        if "decisions" not in draws[0]:
            continue
        cells = [
            mean_and_spread(defined([share(r, label, decision) for r in draws]))
            for label in ("normal", "anomalous")
            for decision in DECISIONS
        ]
        held = str(sum(draws[0]["held_out"].values()))
        rows.append([str(count), name, held, *cells, sources(draws)])
    lines += markdown_table([*head, "threshold from"], rows)
    return "\n".join(lines) + "\n"


def fewer(runs: Sequence[Results]) -> list[str]:
    """Return a sentence about the products that have fewer images than were to be drawn."""
    found = {
        name: number
        for one in runs
        for name, number in one["drawn"].items()
        if number < one["count"]
    }
    if not found:
        return []
    each = ", ".join(f"{name} ({number})" for name, number in sorted(found.items()))
    return [f"All images of products that have fewer than the number: {each}."]


def sources(runs: Sequence[Results]) -> str:
    """Return what the thresholds rest on, with percentages where there are several."""
    counts: Counter[str] = Counter()
    for one in runs:
        counts.update(one["threshold_from"])
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{n} {100 * c / counts.total():.0f} %" for n, c in counts.most_common())


def plot(file: Path, output: Path) -> None:
    """Draw the image AUROC of all methods, and the decisions of snl, against the number of images.

    Lines are means over draws, dots are draws.
    """
    plt = pyplot()
    groups = grouped(read_results(file)["runs"])
    if not groups:
        raise SnlError(f"{file}: has no runs; run the verb run first")
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.9))
    names = list(dict.fromkeys(name for _, name in groups))
    for number, name in enumerate(names):
        colour = COLOURS[number % len(COLOURS)]
        points = {
            count: defined([value_of(r, "image_auroc") for r in draws])
            for (count, other), draws in groups.items()
            if other == name
        }
        curve(left, points, colour, name)
    deciding = next((name for (_, name), draws in groups.items() if "decisions" in draws[0]), "")
    for label, decision, colour in (
        ("normal", "uncertain", BLUE),
        ("normal", "anomalous", GREY),
        ("anomalous", "uncertain", ORANGE),
    ):
        points = {
            count: defined([share(r, label, decision) for r in draws])
            for (count, name), draws in groups.items()
            if name == deciding
        }
        curve(right, points, colour, f"{label} images: {decision}")
    right.set_ylim(-3, 103)
    counts = sorted({count for count, _ in groups})
    titles = ("image AUROC, mean over products, %", f"decisions of {deciding or 'no method'}, %")
    for axes, title in zip((left, right), titles, strict=True):
        axes.set_xscale("log")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("normal training images of each product", fontsize=9)
        axes.set_title(title, fontsize=10, color=INK, loc="left")
        axes.grid(axis="y", color="#E8EAED", lw=0.8)
        axes.legend(fontsize=8, frameon=False)
        style_axes(axes)
    save_figure(plt, figure, output, "Lines: mean over draws. Dots: draws. The left axis is cut.")


def curve(axes: Any, points: Mapping[int, Sequence[float]], colour: str, title: str) -> None:
    """Draw the mean of the values at each place as a line, and the values as dots."""
    means = {place: float(np.mean(values)) for place, values in points.items() if values}
    axes.plot(list(means), list(means.values()), color=colour, lw=1.6, label=title)
    for place, values in points.items():
        axes.plot([place] * len(values), values, "o", ms=3.6, mfc="white", mec=colour, mew=1)


def parser() -> argparse.ArgumentParser:
    parser = new_parser("few_images", __doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    sub = verbs.add_parser("run", help="train on drawn images and measure")
    sub.add_argument("data", type=Path)
    add_output(sub)
    sub.add_argument("--methods", type=names_of, default=list(METHODS), metavar="NAMES")
    sub.add_argument("--images", type=numbers_of, default=[5, 10, 20, 50], metavar="N,N")
    sub.add_argument("--draws", type=numbers_of, default=[0, 1, 2], metavar="N,N")
    sub.add_argument("--image-size", type=int, default=128)
    sub.add_argument("--steps", type=int, default=1000, help="of snl")
    sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of snl")
    sub.add_argument(
        "--teacher-weights", default="pretrained", metavar="FILE", help="ResNet-18 of PatchCore"
    )
    sub.add_argument("--coreset", type=float, default=0.1, help="share of patches PatchCore keeps")
    sub.add_argument("--device", default="auto")
    add_table_verb(verbs)
    picture = verbs.add_parser("plot", help="results as a picture")
    picture.add_argument("results", type=Path, metavar="RESULTS")
    add_output(picture)
    return parser


def main() -> None:
    options = parser().parse_args()
    if options.verb == "table":
        write_or_print(table(options.results), options.output)
    elif options.verb == "plot":
        plot(options.results, options.output)
    else:
        for unknown in sorted(set(options.methods) - set(METHODS)):
            raise SnlError(f"--methods: no '{unknown}'; choose from {', '.join(METHODS)}")
        if "patchcore" in options.methods:
            require_anomalib()
        run(options)


if __name__ == "__main__":
    run_main(main)
