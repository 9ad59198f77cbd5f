"""How many products one model holds: accuracy of the same products, alone and among many others.

    snl demo --products 144 --images-only --out many
    python -m benchmarks.many_products run many/parts --of 9 --counts 9,36,144 -o many.json
    python -m benchmarks.many_products run realbench --others many/parts --counts 9,109 \
        --steps-per-product 111 -o many-real.json
    python -m benchmarks.many_products table docs/results/many-products.json -o many-products.md

Trains one model of `count` products for a number of steps in proportion to that, and measures the
first products (`--of`), which are the same in every model: their accuracy alone, whether they are
recognised among all the others, and their false alarms. Recognition and false alarms of all
products are measured, too. Each run is a process of its own, so that its peak memory is that of its
training. A run that the results already contain is skipped.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
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
    mean_and_spread,
    new_parser,
    numbers_of,
    read_results,
    resume_runs,
    run_main,
    write_or_print,
)
from snl.errors import SnlError
from snl.evaluation.decision_counts import decision_counts
from snl.evaluation.metrics import auroc
from snl.evaluation.result import Evaluation, mean_of
from snl.settings import parse_assignments

MIB = 2**20


def joined(data: Path, others: Path | None, first: int, count: int) -> snl.Catalog:
    """Return the catalog of the first `first` products of the data and of as many others as
    make `count`, from the data itself or from another data set.

    Raises:
        SnlError: there are not so many products.
    """
    catalog = snl.Catalog.read(data)
    records = list(catalog.records)
    names = list(catalog.products)
    if others is not None:
        more = snl.Catalog.read(others)
        added = [name for name in more.products if name not in names]
        records += [record for record in more.records if record.product in added]
        names = names[:first] + added
    if count > len(names):
        raise SnlError(f"{count} products are asked for; {data} and --others have {len(names)}")
    chosen = set(names[:count])
    return dataclasses.replace(catalog, records=tuple(r for r in records if r.product in chosen))


def measure(
    catalog: snl.Catalog, judged: Sequence[str], method: str, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Train, and return what is measured of the products `judged`, and of all as `all_products`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.snl")
        trained = snl.train(catalog, output=file, method=method, overrides=overrides, quiet=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB
        start = time.perf_counter()
        inspector = snl.load(file)
        loading = time.perf_counter() - start
        size = file.stat().st_size / MIB
    start = time.perf_counter()
    evaluation = snl.evaluate(inspector, catalog)
    seconds = time.perf_counter() - start
    counts = decision_counts(evaluation.scores) or {}
    facts = trained.training.facts
    return {
        **only(evaluation, judged),
        "all_products": {"image_auroc": evaluation.mean["image_auroc"], **counts["overall"]},
        "images_per_second": round(len(evaluation.scores) / seconds, 1),
        "training": {**facts, "peak_mib": round(peak)},
        "bundle_mib": round(size, 1),
        "load_seconds": round(loading, 3),
    }


def only(evaluation: Evaluation, names: Sequence[str]) -> dict[str, Any]:
    """Return the tables of an evaluation for a part of its products."""
    scores = tuple(s for s in evaluation.scores if s.product in names)
    products = {name: evaluation.products[name] for name in names}
    by_label = ([s.score for s in scores if s.label == label] for label in ("normal", "anomalous"))
    part = dataclasses.replace(
        evaluation,
        products=products,
        mean=mean_of(list(products.values())),
        pooled={"image_auroc": auroc(*by_label), "pixel_auroc": None},
        scores=scores,
    )
    return part.to_dict()


def run(
    data: Path,
    others: Path | None,
    first: int,
    counts: Sequence[int],
    method: str,
    seeds: Sequence[int],
    steps_per_product: float,
    overrides: Mapping[str, Any],
    output: Path,
) -> None:
    """Do the runs that the results do not have yet, and write the results after each.

    Args:
        data: folder of the data set with the products that are measured.
        others: folder of another data set with the products that are added; None: `data`.
        first: number of products that are measured.
        counts: numbers of products of a model.
        method: name of a method.
        seeds: of the trainings.
        steps_per_product: training steps of a model, divided by its number of products.
        overrides: more settings.
        output: results file; runs in it are kept.
    """
    title = f"The same {first} products among others"
    results = resume_runs(output, title, "benchmarks.many_products")
    for seed in seeds:
        for count in counts:
            catalog = joined(data, others, first, count)
            judged = snl.Catalog.read(data).products[:first]
            changes = {**overrides, "training.steps": round(steps_per_product * count)}
            name = f"{method}, {count} products"
            key = {
                "name": name,
                "count": count,
                "seed": seed,
                "set": changes,
                "images": catalog.fingerprint(),
            }
            if is_done(results, key):
                continue
            log(f"{name}, seed {seed}")
            settings = {**changes, "training.seed": seed}
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, context) as pool:
                measured = pool.submit(measure, catalog, judged, method, settings).result()
            order = [f"{method}, {one} products" for one in counts]
            add_run(results, {**key, **measured}, output, order)


def table(file: Path) -> str:
    """Return the results as Markdown: mean over products and seeds, and the spread over seeds."""
    results = read_results(file)
    head = ["model of", "image AUROC", "pixel AUROC", "AUPRO", "pooled image AUROC",
            "defects found", "false alarms", "recognised", "recognised of all",
            "false alarms of all", "peak MiB", "bundle MiB", "training s", "seeds"]  # fmt: skip
    rows = []
    for name in dict.fromkeys(run["name"] for run in results["runs"]):
        runs = [run for run in results["runs"] if run["name"] == name]
        cells = [
            mean_and_spread([100 * one["mean"][metric] for one in runs])
            for metric in ("image_auroc", "pixel_auroc", "aupro")
        ]
        cells.append(mean_and_spread([100 * one["pooled"]["image_auroc"] for one in runs]))
        judged = [one["decisions"]["overall"] for one in runs]
        found = [100 * share(one["anomalous"], "anomalous") for one in judged]
        cells += [mean_and_spread(found), alarms(judged), recognised(judged)]
        everything = [one["all_products"] for one in runs]
        cells += [recognised(everything), alarms(everything)]
        cells += [
            f"{statistics.mean(one['training']['peak_mib'] for one in runs):.0f}",
            f"{statistics.mean(one['bundle_mib'] for one in runs):.1f}",
            f"{statistics.mean(one['training']['seconds'] for one in runs):.0f}",
        ]
        rows.append([name, *cells, str(len(runs))])
    lines = [f"# {results['title']}", "", f"Made from `{file.name}`. Percent; mean over products"]
    lines += ["and seeds, ± the standard deviation between seeds. Columns without `of all` are of",
              "the same products in every row.", ""]  # fmt: skip
    return "\n".join([*lines, *markdown_table(head, rows)]) + "\n"


def share(decisions: Mapping[str, int], decision: str) -> float:
    """Return the share of images with a decision."""
    return decisions[decision] / sum(decisions.values())


def alarms(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the false alarms of all seeds together."""
    count = sum(one["false_alarms"] for one in runs)
    return f"{count} of {sum(sum(one['normal'].values()) for one in runs)}"


def recognised(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the lowest product-recognition accuracy of the seeds."""
    return f"{100 * min(one['recognised'] for one in runs):.2f}"


def parser() -> argparse.ArgumentParser:
    parser = new_parser("many_products", __doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    runner = verbs.add_parser("run", help="train and measure")
    runner.add_argument("data", type=Path)
    runner.add_argument("--others", type=Path, metavar="DIR", help="products that are added")
    runner.add_argument("--of", type=int, default=9, metavar="N", help="products measured")
    runner.add_argument("--counts", type=numbers_of, default=[9, 36, 144], metavar="N,N")
    runner.add_argument("--method", default="snl")
    runner.add_argument("--seeds", type=numbers_of, default=[0, 1, 2], metavar="N,N")
    runner.add_argument("--steps-per-product", type=float, default=60, metavar="N")
    runner.add_argument("--image-size", type=int, default=128)
    runner.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    add_output(runner)
    add_table_verb(verbs)
    return parser


def main() -> None:
    options = parser().parse_args()
    if options.verb == "table":
        write_or_print(table(options.results), options.output)
        return
    changes = parse_assignments(options.set)
    run(
        options.data,
        options.others,
        options.of,
        options.counts,
        options.method,
        options.seeds,
        options.steps_per_product,
        {"image_size": options.image_size, **changes},
        options.output,
    )


if __name__ == "__main__":
    run_main(main)
