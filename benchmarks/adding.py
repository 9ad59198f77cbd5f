"""Products added one after another, against one training on all of them.

    python -m benchmarks.adding run DATA -o docs/results/adding.json --seeds 0,1,2
    python -m benchmarks.adding table docs/results/adding.json -o docs/results/adding.md

A model is trained on the first three products of an order, and the others are added one by one
(`snl.add`), each from its own images; there are two orders, by name and reversed. Another model is
trained on all products at once. After every step the test images of all products so far are
evaluated, without the images of a product entering anything but its own addition. A run that the
results already contain is skipped. Times of a run are from the same process, one after another.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import snl
from benchmarks.common import (
    add_output,
    add_run,
    add_table_verb,
    is_done,
    log,
    markdown_table,
    new_parser,
    numbers_of,
    read_results,
    resume_runs,
    run_main,
    write_or_print,
)
from snl.data.catalog import Catalog
from snl.evaluation.decision_counts import decision_counts
from snl.evaluation.metrics import DetectionMetrics

FIRST = 3
"""Products that a sequence begins with."""
ORDERS = ("by name", "reversed")
METRICS = ("image_auroc", "pixel_auroc", "aupro")


def run(options: argparse.Namespace) -> None:
    """Do the runs that the results do not have yet, and write the results after each."""
    catalog = Catalog.read(options.data)
    settings: dict[str, Any] = {"image_size": options.image_size, "training.steps": options.steps}
    results = resume_runs(options.output, "Products added one after another", Path(__file__).name)
    names = ["all at once", *ORDERS]
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            shown = {**settings, "training.seed": seed}
            for name in names:
                key = {"name": name, "seed": seed, "set": shown, "images": catalog.fingerprint()}
                if is_done(results, key):
                    continue
                log(f"{name}, seed {seed}")
                overrides = {**settings, "training.seed": seed}
                order = list(catalog.products)
                if name == "all at once":
                    steps = [all_at_once(catalog, overrides, options.device)]
                else:
                    order = order[::-1] if name == "reversed" else order
                    file = Path(folder, f"{seed}-{name}.snl")
                    steps = sequence(catalog, order, overrides, file, options.device)
                last, seconds = steps[-1], sum(step["seconds"] for step in steps)
                end = {"mean": last["mean"], "pooled": last["pooled"]}
                one = {**key, "order": order, "steps": steps, **end}
                add_run(results, {**one, "training": {"seconds": seconds}}, options.output, names)


def all_at_once(catalog: Catalog, overrides: dict[str, Any], device: str) -> dict[str, Any]:
    """Train on all products; return what `measured` does, with the seconds."""
    start = time.perf_counter()
    inspector = snl.train(catalog, overrides=overrides, device=device, quiet=True)
    seconds = time.perf_counter() - start
    return {**measured(inspector, catalog), "seconds": seconds}


def sequence(
    catalog: Catalog, order: list[str], overrides: dict[str, Any], file: Path, device: str
) -> list[dict[str, Any]]:
    """Train on the first products and add the others; return what is measured after each."""
    steps = []
    for number in range(FIRST, len(order) + 1):
        start = time.perf_counter()
        if number == FIRST:
            part = of_products(catalog, order[:FIRST])
            inspector = snl.train(part, output=file, overrides=overrides, device=device, quiet=True)
        else:
            part = of_products(catalog, order[number - 1 : number])
            inspector = snl.add(file, part, device=device, quiet=True)
        seconds = time.perf_counter() - start
        found = measured(inspector, of_products(catalog, order[:number]))
        size = file.stat().st_size
        steps.append({**found, "seconds": seconds, "bundle_bytes": size})
        log(f"{number} products: {100 * found['mean']['image_auroc']:.1f}, {seconds:.0f} s")
    return steps


def of_products(catalog: Catalog, products: list[str]) -> Catalog:
    """Return the images of some products."""
    return replace(catalog, records=tuple(r for r in catalog.records if r.product in products))


def measured(inspector: snl.Inspector, catalog: Catalog) -> dict[str, Any]:
    """Return metrics by product, their mean, the pooled image AUROC, of raw and of calibrated
    scores, and counts of decisions."""
    evaluation = snl.evaluate(inspector, catalog)
    counts = decision_counts(evaluation.scores)
    assert counts is not None
    calibrated = DetectionMetrics()
    for one in evaluation.scores:
        assert one.verdict is not None  # an inspector always decides
        calibrated.update(one.verdict.calibrated, one.label == "anomalous")
    return {
        "products": {
            name: {metric: values[metric] for metric in METRICS}
            for name, values in evaluation.products.items()
        },
        "mean": {metric: evaluation.mean[metric] for metric in METRICS},
        "pooled": {name: evaluation.pooled[name] for name in METRICS[:2]},
        "pooled_calibrated": {METRICS[0]: calibrated.compute()[METRICS[0]]},
        "decisions": counts["overall"],
    }


def table(file: Path) -> str:
    """Return the comparison as Markdown; differences are paired by seed."""
    runs = read_results(file)["runs"]
    whole = {one["seed"]: one["steps"][-1] for one in runs if one["name"] == "all at once"}
    lines = [
        "# Products added one after another",
        "",
        f"Made from `{file.name}`. Points; of each sequence the difference to the training on all",
        f"products at once with the same seed. New: the products after the first {FIRST}, at",
        f"the end of the sequence. Old: the first {FIRST}, at the end against before the first",
        "addition.",
        "",
    ]
    head = ["order", "seed", "new: mean", "new: worst", "new, pixel: mean", "new, pixel: worst",
            "old: mean", "old: worst", "pooled", "pooled, calibrated", "false alarms",
            "slowest addition", "MB per product"]  # fmt: skip
    rows = []
    for one in runs:
        if one["name"] == "all at once" or one["seed"] not in whole:
            continue
        every = whole[one["seed"]]
        first, last = one["steps"][0], one["steps"][-1]
        old, new = one["order"][:FIRST], one["order"][FIRST:]
        cells = []
        for metric in METRICS[:2]:
            cells += mean_and_worst(last, every, new, metric)
        cells += mean_and_worst(last, first, old, METRICS[0])
        slowest = max(step["seconds"] for step in one["steps"][1:]) / every["seconds"]
        cells += [
            *(
                f"{100 * (last[name][METRICS[0]] - every[name][METRICS[0]]):+.1f}"
                for name in ("pooled", "pooled_calibrated")
            ),
            f"{alarms(last)} (all at once {alarms(every)})",
            f"{slowest:.2f} of the whole",
            f"{(last['bundle_bytes'] - first['bundle_bytes']) / len(new) / 1e6:.2f}",
        ]
        rows.append([one["name"], str(one["seed"]), *cells])
    return "\n".join([*lines, *markdown_table(head, rows)]) + "\n"


def alarms(step: dict[str, Any]) -> str:
    """Return the false alarms and the number of normal images."""
    counts = step["decisions"]
    return f"{counts['false_alarms']} of {sum(counts['normal'].values())}"


def mean_and_worst(
    one: dict[str, Any], other: dict[str, Any], products: list[str], metric: str
) -> list[str]:
    """Return the mean and the smallest difference of a metric, in points."""
    differences = [
        100 * (one["products"][name][metric] - other["products"][name][metric])
        for name in products
        if one["products"][name][metric] is not None
    ]
    if not differences:
        return ["-", "-"]
    return [f"{statistics.mean(differences):+.1f}", f"{min(differences):+.1f}"]


def parser() -> argparse.ArgumentParser:
    parser = new_parser("adding", __doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    sub = verbs.add_parser("run", help="train, add and measure")
    sub.add_argument("data", type=Path)
    add_output(sub)
    sub.add_argument("--seeds", type=numbers_of, default=[0, 1, 2], metavar="N,N")
    sub.add_argument("--image-size", type=int, default=256)
    sub.add_argument("--steps", type=int, default=2000)
    sub.add_argument("--device", default="auto")
    add_table_verb(verbs)
    return parser


def main() -> None:
    options = parser().parse_args()
    if options.verb == "table":
        write_or_print(table(options.results), options.output)
    else:
        run(options)


if __name__ == "__main__":
    run_main(main)
