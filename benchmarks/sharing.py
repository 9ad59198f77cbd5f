"""What it costs a method to share one model among all products.

    python -m benchmarks.sharing run DATA --methods rd,snl -o docs/results/sharing.json
    python -m benchmarks.sharing table docs/results/sharing.json -o docs/results/sharing.md
    python -m benchmarks.sharing picture docs/results/sharing.json -o docs/results/sharing.png

Trains one model of all P products with `--steps`, and for every product a model of its own with a
part of them: its share of the training images (`--own-steps images`), so that a product is seen
equally often in both, or a P-th (`equal`), which gives small products more and large ones less than
in the shared model. The loss from sharing is the metric of the product's own model minus that of
the shared one. A run that the results already contain is
skipped, so an interrupted benchmark resumes. The network after the last step is measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    markdown_table,
    names_of,
    new_parser,
    numbers_of,
    pyplot,
    read_results,
    resume_runs,
    run_main,
    save_figure,
    style_axes,
    write_or_print,
)
from snl.errors import SnlError

if TYPE_CHECKING:
    import snl

METRICS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}
KEY = ("name", "product", "seed", "set", "images")
"""Fields that identify a run; `product` is empty for the shared model."""


def run(
    data: Path,
    methods: Sequence[str],
    seeds: Sequence[int],
    overrides: Mapping[str, Any],
    output: Path,
    device: str = "auto",
    own_steps: str = "images",
) -> None:
    """Do the runs that the results do not have yet, and write the results after each.

    Args:
        data: folder of the data set.
        methods: names of `snl.settings.METHODS`.
        seeds: of the trainings.
        overrides: settings of all runs, with `training.steps` of the shared model.
        output: results file; runs in it are kept.
        device: to train and evaluate on.
        own_steps: of the models of one product, see the module: `images` or `equal`.
    """
    import snl
    from benchmarks.internals import evaluate_run

    catalog = snl.Catalog.read(data)
    steps = int(overrides["training.steps"])
    training = [record.product for record in catalog.train()]
    shares = {
        product: training.count(product) / len(training)
        if own_steps == "images"
        else 1 / len(catalog.products)
        for product in catalog.products
    }
    results = resume_runs(output, f"The loss from sharing, {steps} steps", "benchmarks.sharing")
    for seed in seeds:
        for method in methods:
            for product in ("", *catalog.products):
                part = _only(catalog, product) if product else catalog
                changes = {**overrides, "training.steps": steps}
                if product:
                    changes["training.steps"] = max(1, round(steps * shares[product]))
                key = {
                    "name": method,
                    "product": product,
                    "seed": seed,
                    "set": changes,
                    "images": catalog.fingerprint(),
                }
                if is_done(results, key):
                    continue
                log(f"{method}, seed {seed}, {product or 'all products'}")
                settings = {**changes, "training.seed": seed, "training.holdout": 0}
                inspector = snl.train(part, method=method, overrides=settings, device=device)
                measured = evaluate_run(inspector, part)
                facts = {"training": dict(inspector.training.facts)}
                add_run(results, {**key, **measured, **facts}, output, methods)


def _only(catalog: snl.Catalog, product: str) -> snl.Catalog:
    records = tuple(record for record in catalog.records if record.product == product)
    return dataclasses.replace(catalog, records=records)


def losses(
    runs: Iterable[Mapping[str, Any]], metric: str
) -> dict[str, dict[str, dict[int, tuple[float, float]]]]:
    """Return (own model, shared model) of a metric in percent, by method, product and seed.

    Products and seeds whose runs are not complete, or whose metric is not defined, are left out.
    """
    values: dict[tuple[str, str, int], dict[bool, float]] = {}
    for one in runs:
        for product, metrics in one["products"].items():
            if metrics[metric] is not None:
                place = values.setdefault((one["name"], product, one["seed"]), {})
                place[bool(one["product"])] = 100 * float(metrics[metric])
    found: dict[str, dict[str, dict[int, tuple[float, float]]]] = {}
    for (method, product, seed), pair in values.items():
        if len(pair) == 2:
            by_seed = found.setdefault(method, {}).setdefault(product, {})
            by_seed[seed] = (pair[True], pair[False])
    return found


def means_by_seed(products: Mapping[str, Mapping[int, tuple[float, float]]]) -> list[list[float]]:
    """Return [own model, shared model, loss] for every seed, means over the products."""
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in products.values())))
    rows = []
    for seed in seeds:
        own, shared = (
            statistics.mean(by_seed[seed][i] for by_seed in products.values()) for i in (0, 1)
        )
        rows.append([own, shared, own - shared])
    return rows


def table(file: Path) -> str:
    """Return the results as Markdown: means over products, then the loss of every product."""
    results = read_results(file)
    head = ["method", *(f"{title}: {column}" for title in METRICS.values()
                        for column in ("own models", "one model", "loss")), "seeds"]  # fmt: skip
    tables = {metric: losses(results["runs"], metric) for metric in METRICS}
    methods = list(tables["image_auroc"])
    if not methods:
        raise SnlError(f"{file}: no product has both models yet; complete the verb run")
    rows = []
    for method in methods:
        cells, count = [method], 0
        for metric in METRICS:
            columns = [*zip(*means_by_seed(tables[metric][method]), strict=True)]
            count = len(columns[0])
            cells += [_mean(column) for column in columns]
        rows.append([*cells, str(count)])
    lines = [f"# {results['title']}", "", f"Made from `{file.name}`. Percent; mean over products"]
    lines += ["and seeds, ± the standard deviation between seeds.", ""]
    lines += markdown_table(head, rows)
    for metric, title in METRICS.items():
        products = list(dict.fromkeys(p for m in methods for p in tables[metric][m]))
        rows = [
            [method, *(_mean([a - b for a, b in tables[metric][method].get(p, {}).values()])
                       for p in products)]
            for method in methods
        ]  # fmt: skip
        lines += ["", f"## {title}: loss from sharing", ""]
        lines += markdown_table(["method", *products], rows)
    return "\n".join(lines) + "\n"


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def picture(file: Path, output: Path) -> None:
    """Draw the loss of every product as dots and the mean as a bar, one panel per metric."""
    plt = pyplot()
    results = read_results(file)
    figure, panels = plt.subplots(1, len(METRICS), figsize=(10, 3.4))
    for axes, (metric, title) in zip(panels, METRICS.items(), strict=True):
        found = losses(results["runs"], metric)
        for place, products in enumerate(found.values()):
            each = [statistics.mean(a - b for a, b in s.values()) for s in products.values()]
            color = (GREY, BLUE, ORANGE)[place % 3]
            mean = statistics.mean(each)
            axes.bar(place, mean, 0.6, color=color, alpha=0.75)
            offsets = [place + 0.04 * (i - len(each) / 2) for i in range(len(each))]
            axes.plot(offsets, each, "o", ms=4, mfc="white", mec=INK, mew=0.8)
            text = {
                "xytext": (0, 5),
                "textcoords": "offset points",
                "ha": "center",
                "fontsize": 8.5,
            }
            axes.annotate(f"{mean:.1f}", (place, max([*each, mean])), **text)
        axes.axhline(0, color=INK, lw=0.8)
        axes.set_xticks(range(len(found)), list(found))
        axes.set_title(f"{title}: points lost by sharing", fontsize=9.5, color=INK, loc="left")
        style_axes(axes)
    save_figure(plt, figure, output, "Bars: mean over products; dots: products. Lower is better.")


def parser() -> argparse.ArgumentParser:
    parser = new_parser("sharing", __doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    runner = verbs.add_parser("run", help="train and measure")
    runner.add_argument("data", type=Path)
    runner.add_argument("--methods", type=names_of, default=["rd", "snl"], metavar="NAMES")
    runner.add_argument("--seeds", type=numbers_of, default=[0, 1, 2], metavar="N,N")
    runner.add_argument("--steps", type=int, default=2000, help="of the shared model")
    runner.add_argument("--own-steps", choices=("images", "equal"), default="images")
    runner.add_argument("--image-size", type=int, default=256)
    runner.add_argument("--teacher", default="snl_compact")
    runner.add_argument("--teacher-weights", default="pretrained", metavar="FILE")
    runner.add_argument("--device", default="auto")
    add_output(runner)
    add_table_verb(verbs)
    drawer = verbs.add_parser("picture", help="results as PNG; needs matplotlib")
    drawer.add_argument("results", type=Path)
    add_output(drawer)
    return parser


def main() -> None:
    options = parser().parse_args()
    if options.verb == "table":
        write_or_print(table(options.results), options.output)
    elif options.verb == "picture":
        picture(options.results, options.output)
    else:
        overrides = {
            "teacher.name": options.teacher,
            "teacher.weights": options.teacher_weights,
            "training.steps": options.steps,
            "image_size": options.image_size,
        }
        run(
            options.data,
            options.methods,
            options.seeds,
            overrides,
            options.output,
            options.device,
            options.own_steps,
        )


if __name__ == "__main__":
    run_main(main)
