"""Train and evaluate the runs of a plan over seeds; results as JSON, tables as Markdown.

    python -m benchmarks.ablation run benchmarks/plans/methods.toml DATA \
        --teacher-weights FILE -o docs/results/methods.json
    python -m benchmarks.ablation table docs/results/methods.json -o docs/results/methods.md
    python -m benchmarks.ablation merge one.json other.json -o both.json

A plan is a TOML file with `title`, `seeds`, `[common]` settings and one `[[run]]` per row, which
has a `name`, a `method` and its own settings under `set`. A row with `weights` takes its teacher
weights from `--teacher-weights NAME=FILE`. A run that the results already contain is skipped, so an
interrupted plan resumes where it stopped. The network after the last step is always measured.

Rows that differ in `map.*` only share one trained network per seed: the first of them that is not
in the results trains it. The others report its training seconds, and its name as
`training.reused`. (The network is not stored: a plan that is interrupted between such rows trains
it once more.)

Besides the metrics, the results of each run contain the `scores` of all test images (4 significant
digits) and the paths of the `worst` images per product: anomalous images with the lowest scores
(`misses`) and normal images with the highest (`false_alarms`), worst first. `prediction_seconds`
is the time of the network alone, `evaluation_seconds` includes reading and metrics.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import (
    COLUMNS,
    add_output,
    add_run,
    add_table_verb,
    current_settings,
    is_done,
    log,
    markdown_table,
    named_weights,
    names_of,
    new_parser,
    numbers_of,
    read_results,
    resume_runs,
    run_cells,
    run_main,
    same_run,
    write_or_print,
    write_runs,
)
from snl.errors import SnlError

if TYPE_CHECKING:
    import snl

KEY = ("name", "seed", "method", "set", "teacher_weights", "images")
"""Fields that identify a run."""


def run(
    plan_file: Path,
    data: Path,
    weights: dict[str, str],
    output: Path,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    device: str = "auto",
) -> None:
    """Do the runs of a plan that the results do not have yet, and write the results after each.

    Args:
        plan_file: the plan (TOML).
        data: folder of the data set.
        weights: files of teacher weights by the `weights` of the rows; "" for rows without.
        output: results file; runs in it are kept.
        only: names of rows; empty: all.
        seeds: instead of the plan's; empty: the plan's.
        device: to train and evaluate on.

    Raises:
        SnlError: an unknown row, or weights that a row needs are not given.
    """
    import snl
    from benchmarks.internals import evaluate_run, with_map_settings

    plan = read_plan(plan_file)
    results = resume_runs(output, plan["title"], plan_file.name)
    results["groups"] = {name: plan[name] for name in ("choose", "confirm") if name in plan}
    names = [row["name"] for row in plan["run"]]
    for unknown in (name for name in only if name not in names):
        raise SnlError(f"--only: no run '{unknown}' in {plan_file}; it has {', '.join(names)}")
    rows = [row for row in plan["run"] if not only or row["name"] in only]
    for missing in sorted({row.get("weights", "") for row in rows} - set(weights)):
        raise SnlError(f"{plan_file} needs --teacher-weights {missing}=FILE")
    catalog = snl.Catalog.read(data)
    if plan.get("products"):
        records = [record for record in catalog.records if record.product in plan["products"]]
        catalog = snl.Catalog(catalog.root, catalog.layout, tuple(records))
    preset = plan.get("preset", "compact")
    for seed in seeds or plan["seeds"]:
        for group in groups_of(plan, rows, weights, seed):
            inspector: snl.Inspector | None = None
            trained_by = ""
            for row, changes in group:
                file = weights[row.get("weights", "")]
                key = {
                    "name": row["name"],
                    "seed": seed,
                    "method": row["method"],
                    "set": changes,
                    "teacher_weights": Path(file).name,
                    "images": catalog.fingerprint(),
                }
                if is_done(results, key):
                    continue
                log(f"{row['name']}, seed {seed}")
                overrides = {"teacher.weights": file, **changes}
                if inspector is None:
                    trained_by = row["name"]
                    inspector = snl.train(
                        catalog,
                        method=row["method"],
                        preset=preset,
                        overrides=overrides,
                        device=device,
                    )
                else:
                    settings = snl.resolve(row["method"], preset, overrides)
                    inspector = with_map_settings(inspector, catalog, settings.map, device)
                measured = evaluate_run(inspector, catalog)
                training = dict(inspector.training.facts)
                if trained_by != row["name"]:
                    training["reused"] = trained_by
                facts = {"training": training, "data": dict(inspector.training.data)}
                add_run(results, {**key, **measured, **facts}, output, names)


def read_plan(file: Path) -> dict[str, Any]:
    """Return a plan.

    Raises:
        SnlError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SnlError(
            f"{file}: cannot be read ({error.strerror}); give a file of benchmarks/plans"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise SnlError(f"{file}: is not TOML ({error}); see benchmarks/plans") from None


def groups_of(
    plan: dict[str, Any], rows: Sequence[dict[str, Any]], weights: dict[str, str], seed: int
) -> Iterator[list[tuple[dict[str, Any], dict[str, Any]]]]:
    """Yield lists of rows, with their settings, that differ in `map.*` only."""
    import snl

    groups: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for row in rows:
        changes = {**plan["common"], **row.get("set", {}), "training.seed": seed}
        overrides = {"teacher.weights": weights[row.get("weights", "")], **changes}
        settings = snl.resolve(row["method"], plan.get("preset", "compact"), overrides).to_dict()
        for name in ("map", "method", "preset"):  # the last two are names without an effect
            del settings[name]
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append((row, changes))
    yield from groups.values()


def merge(files: Sequence[Path]) -> dict[str, Any]:
    """Return several results as one: title and groups of the first, each run once, in file order.

    Raises:
        SnlError: runs were measured on different training images.
    """
    documents = [read_results(file) for file in files]
    plans = dict.fromkeys(document["plan"] for document in documents)
    groups = [document["groups"] for document in documents if document.get("groups")]
    runs: list[dict[str, Any]] = []
    for file, document in zip(files, documents, strict=True):
        for result in document["runs"]:
            known = {r["images"] for r in runs if "images" in r}
            if "images" in result and known - {result["images"]}:
                raise SnlError(
                    f"{file}: run '{result['name']}' used other training images than the files "
                    "before it; merge results of one data set only"
                )
            if not any(_same(result, r) for r in runs):
                runs.append(result)
    return {
        "title": documents[0]["title"],
        "plan": ", ".join(plans),
        "groups": groups[0] if groups else {},
        "runs": runs,
    }


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two results are of the same run; older files lack fields of the key."""
    return same_run(one, other, [name for name in KEY if name in one and name in other])


def by_name(results: dict[str, Any], file: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the runs of a results document by name, all seeds of a row together.

    Raises:
        SnlError: runs with the same name differ in more than the seed.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in results["runs"]:
        group = groups.setdefault(run["name"], [])
        settings = current_settings(run["set"])
        for first in group[:1]:
            other = current_settings(first["set"])
            different = {name for name in other if other[name] != settings.get(name)}
            different.discard("training.seed")
            if different:
                raise SnlError(
                    f"{file}: runs named '{run['name']}' differ in {', '.join(sorted(different))}; "
                    "give each row of a plan a name of its own"
                )
        group.append(run)
    return groups


def table(file: Path) -> str:
    """Return all runs of a results file as Markdown: means over seeds, then each product."""
    results = read_results(file)
    groups = by_name(results, file)
    rows = [run_cells(name, runs) for name, runs in groups.items()]
    lines = [f"# {results['title']}", ""]
    lines += [f"Made from `{file.name}` (plan `{results['plan']}`). Percent; mean over seeds,"]
    lines += [
        "± the standard deviation between seeds. The network after the last step is measured."
    ]
    lines += ["", *markdown_table(["run", *COLUMNS.values(), "seeds", "training s"], rows)]
    if results.get("groups"):
        lines += _product_groups(results["groups"], groups)
    products = list(results["runs"][0]["products"])
    for metric in ("image_auroc", "pixel_auroc"):
        rows = []
        for name, runs in groups.items():
            cells = [name]
            for product in products:
                values = [run["products"][product][metric] for run in runs]
                defined = [100 * value for value in values if value is not None]
                cells.append(f"{statistics.mean(defined):.1f}" if defined else "-")
            rows.append(cells)
        lines += ["", f"## {metric} per product", "", *markdown_table(["run", *products], rows)]
    return "\n".join(lines) + "\n"


def _product_groups(
    products: dict[str, list[str]], groups: dict[str, list[dict[str, Any]]]
) -> list[str]:
    """Return means over the products that the defaults were chosen with, and over the others."""
    heads = [f"{group}: {metric} AUROC" for group in products for metric in ("image", "pixel")]
    lines = ["", "## Products that chose the defaults, and products that did not", ""]
    lines += [f"{group}: {', '.join(names)}." for group, names in products.items()]
    rows = []
    for name, runs in groups.items():
        cells = [name]
        for names in products.values():
            for metric in ("image_auroc", "pixel_auroc"):
                values = [run["products"][p][metric] for run in runs for p in names]
                cells.append(f"{100 * statistics.mean(v for v in values if v is not None):.1f}")
        rows.append(cells)
    return [*lines, "", *markdown_table(["run", *heads], rows)]


def parser() -> argparse.ArgumentParser:
    parser = new_parser("ablation", __doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    runner = verbs.add_parser("run", help="do the runs of a plan")
    runner.add_argument("plan", type=Path)
    runner.add_argument("data", type=Path)
    runner.add_argument(
        "--teacher-weights",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="for rows whose weights are NAME, or that name none (default: the pretrained ones)",
    )
    add_output(runner)
    runner.add_argument(
        "--only", type=names_of, default=(), metavar="NAMES", help="rows, comma-separated"
    )
    runner.add_argument(
        "--seeds", type=numbers_of, default=(), metavar="N,N", help="instead of the plan's"
    )
    runner.add_argument("--device", default="auto")
    add_table_verb(verbs)
    merger = verbs.add_parser("merge", help="several results files as one")
    merger.add_argument("results", type=Path, nargs="+")
    add_output(merger)
    return parser


def main() -> None:
    options = parser().parse_args()
    if options.verb == "table":
        write_or_print(table(options.results), options.output)
    elif options.verb == "merge":
        write_runs(options.output, merge(options.results))
    else:
        run(
            options.plan,
            options.data,
            {"": "pretrained", **dict(map(named_weights, options.teacher_weights))},
            options.output,
            options.only,
            options.seeds,
            options.device,
        )


if __name__ == "__main__":
    run_main(main)
