"""Train and evaluate a declared list of settings over seeds; results as JSON, tables as Markdown.

    python benchmarks/ablation.py run benchmarks/plans/methods.toml DATA \
        --teacher-weights FILE -o docs/results/methods.json
    python benchmarks/ablation.py table docs/results/methods.json -o docs/results/methods.md

A plan is a TOML file: `title`, `seeds`, `[common]` settings and one `[[run]]` per row with `name`,
`method` and its own settings under `set`. A row that names `weights` takes them from
`--teacher-weights NAME=FILE`. A run that is in the results already is not done again, so an
interrupted list goes on where it stopped. Always the last step is measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

COLUMNS = ("image_auroc", "pixel_auroc", "aupro", "pooled_image_auroc", "pooled_pixel_auroc")
HEADS = ("image AUROC", "pixel AUROC", "AUPRO", "pooled image AUROC", "pooled pixel AUROC")


def run(
    plan_file: Path, data: Path, files: dict[str, str], output: Path, only: str, device: str
) -> None:
    """Do what the plan asks and the results do not have yet, writing after each run.

    `files` has the teacher weights by the rows' `weights`, of rows without under "".
    """
    import snl
    from snl.files import write_json

    plan = tomllib.loads(plan_file.read_text(encoding="utf-8"))
    results: dict[str, Any] = {"title": plan["title"], "plan": plan_file.name, "runs": []}
    results["groups"] = {name: plan[name] for name in ("choose", "confirm") if name in plan}
    if output.is_file():
        results["runs"] = json.loads(output.read_text(encoding="utf-8"))["runs"]
    catalog = snl.Catalog.read(data)
    if plan.get("products"):
        records = [record for record in catalog.records if record.product in plan["products"]]
        catalog = snl.Catalog(catalog.root, catalog.layout, tuple(records))
    names = [row["name"] for row in plan["run"]]
    unknown = [name for name in only.split(",") if name and name not in names]
    if unknown:
        sys.exit(f"no run '{unknown[0]}' in {plan_file}; it has {', '.join(names)}")
    kept = [row for row in plan["run"] if not only or row["name"] in only.split(",")]
    for missing in {row.get("weights", "") for row in kept} - set(files):
        sys.exit(f"{plan_file} needs --teacher-weights {missing}{'=' if missing else ''}FILE")
    todo = [(row, seed) for seed in plan["seeds"] for row in kept]
    for row, seed in todo:
        weights = files[row.get("weights", "")]
        changes = {**plan["common"], **row.get("set", {}), "training.seed": seed}
        key = {
            "name": row["name"],
            "seed": seed,
            "method": row["method"],
            "set": changes,
            "teacher_weights": Path(weights).name,
            "images": catalog.fingerprint(),
        }
        done = any(all(r.get(k) == v for k, v in key.items()) for r in results["runs"])
        if done:
            continue
        print(f"{time.strftime('%H:%M:%S')} {row['name']}, seed {seed}", flush=True)
        inspector = snl.train(
            catalog,
            method=row["method"],
            preset=plan.get("preset", "compact"),
            overrides={"teacher.weights": weights, **changes},
            device=device,
        )
        began = time.perf_counter()
        evaluation = snl.evaluate(inspector, catalog)
        seconds = round(time.perf_counter() - began, 1)
        results["runs"].append(
            {
                **key,
                **evaluation.to_dict(),
                "training": inspector.facts.training,
                "evaluation_seconds": seconds,
                "data": inspector.facts.data,
                "skipped": evaluation.skipped,
            }
        )
        write_json(output, results)
        print(row_of(row["name"], [results["runs"][-1]]), flush=True)


def value_of(result: dict[str, Any], column: str) -> float:
    """A column of a run: of the mean over products, or pooled."""
    table, name = (
        ("pooled", column.removeprefix("pooled_")) if "pooled_" in column else ("mean", column)
    )
    return 100 * float(result[table][name])


def row_of(name: str, results: list[dict[str, Any]]) -> str:
    """One Markdown row: mean over seeds, and the spread where there are several."""
    cells = []
    for column in COLUMNS:
        values = [value_of(result, column) for result in results]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.1f}{spread}")
    seconds = statistics.mean(result["training"]["seconds"] for result in results)
    return f"| {name} | {' | '.join(cells)} | {len(results)} | {seconds:.0f} |"


def table(file: Path) -> str:
    """All runs of a results file as Markdown: means over seeds, then every product."""
    results = json.loads(file.read_text(encoding="utf-8"))
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in results["runs"]:
        group = groups.setdefault(run["name"], [])
        other = {k for g in group[:1] for k in g["set"] if g["set"][k] != run["set"].get(k)}
        if other - {"training.seed"}:
            sys.exit(f"{file}: runs named '{run['name']}' differ in {', '.join(sorted(other))}")
        group.append(run)
    lines = [f"# {results['title']}", ""]
    lines += [f"Made from `{file.name}` (plan `{results['plan']}`). Percent; mean over seeds, "]
    lines += ["± the standard deviation between seeds. The last step is measured.", ""]
    lines += [f"| run | {' | '.join(HEADS)} | seeds | training s |"]
    lines += ["|---" * (len(HEADS) + 3) + "|"]
    lines += [row_of(name, group) for name, group in groups.items()]
    if results.get("groups"):
        lines += _groups(results["groups"], groups)
    products = list(results["runs"][0]["products"])
    for metric in ("image_auroc", "pixel_auroc"):
        lines += ["", f"## {metric} per product", "", f"| run | {' | '.join(products)} |"]
        lines += ["|---" * (len(products) + 1) + "|"]
        for name, group in groups.items():
            cells = []
            for product in products:
                values = [run["products"][product][metric] for run in group]
                known = [100 * v for v in values if v is not None]
                cells.append(f"{statistics.mean(known):.1f}" if known else "-")
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _groups(products: dict[str, list[str]], runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Means over the products by which defaults were chosen, and over those that confirm them."""
    heads = [f"{group}: {metric} AUROC" for group in products for metric in ("image", "pixel")]
    lines = ["", "## Products that chose the defaults, and products that did not", ""]
    lines += [f"{group}: {', '.join(names)}." for group, names in products.items()]
    lines += ["", f"| run | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, results in runs.items():
        cells = []
        for names in products.values():
            for metric in ("image_auroc", "pixel_auroc"):
                values = [r["products"][p][metric] for r in results for p in names]
                cells.append(f"{100 * statistics.mean(v for v in values if v is not None):.1f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _named(text: str) -> tuple[str, str]:
    """`NAME=FILE` or `FILE` as (name, file)."""
    name, equals, file = text.partition("=")
    return (name, file) if equals else ("", text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    verbs = parser.add_subparsers(dest="verb", required=True)
    runner = verbs.add_parser("run", help="do a plan")
    runner.add_argument("plan", type=Path)
    runner.add_argument("data", type=Path)
    runner.add_argument(
        "--teacher-weights",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="of the rows that name their weights NAME, or name none; default: the pretrained ones",
    )
    runner.add_argument("-o", "--output", type=Path, required=True)
    runner.add_argument("--only", default="", help="names of rows, comma-separated")
    runner.add_argument("--device", default="auto")
    writer = verbs.add_parser("table", help="a results file as Markdown")
    writer.add_argument("results", type=Path)
    writer.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    if arguments.verb == "run":
        run(
            arguments.plan,
            arguments.data,
            {"": "pretrained", **dict(map(_named, arguments.teacher_weights))},
            arguments.output,
            arguments.only,
            arguments.device,
        )
    elif arguments.output:
        arguments.output.write_text(table(arguments.results), encoding="utf-8")
    else:
        print(table(arguments.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
