"""Train and evaluate a declared list of settings over seeds; results as JSON, tables as Markdown.

    python benchmarks/ablation.py run benchmarks/plans/methods.toml DATA \
        --teacher-weights FILE -o docs/results/methods.json
    python benchmarks/ablation.py table docs/results/methods.json -o docs/results/methods.md
    python benchmarks/ablation.py merge one.json other.json -o both.json

A plan is a TOML file: `title`, `seeds`, `[common]` settings and one `[[run]]` per row with `name`,
`method` and its own settings under `set`. A row that names `weights` takes them from
`--teacher-weights NAME=FILE`. A run that is in the results already is not done again, so an
interrupted list goes on where it stopped. Always the last step is measured.

Rows that differ in `map.*` alone have the same trained network: for each seed they are done one
after the other from one training, which happens at the first of them that is not in the results.
The others carry its seconds, and its row's name under `training.reused`. (The network lives as
long as its rows are being done: a list interrupted between them trains once more.)

Of every run the results keep, besides the metrics, each test image's `scores` (4 significant
digits) and, per product, the paths of its `worst` images: anomalous of lowest score (`misses`) and
normal of highest (`false_alarms`), the worst first. `prediction_seconds` are the network's alone,
`evaluation_seconds` with reading and metrics.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import statistics
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from snl import Catalog
    from snl.evaluation.evaluate import Evaluation, Predictor
    from snl.runtime.inspector import Inspector

COLUMNS = ("image_auroc", "pixel_auroc", "aupro", "pooled_image_auroc", "pooled_pixel_auroc")
HEADS = ("image AUROC", "pixel AUROC", "AUPRO", "pooled image AUROC", "pooled pixel AUROC")
KEY = ("name", "seed", "method", "set", "teacher_weights", "images")
"""What tells one run from another."""
WORST = 3
"""Images listed of each kind and product."""


def run(
    plan_file: Path,
    data: Path,
    files: dict[str, str],
    output: Path,
    only: str,
    seeds: str,
    device: str,
) -> None:
    """Do what the plan asks and the results do not have yet, writing after each run.

    `files` has the teacher weights by the rows' `weights`, of rows without under "". `only` and
    `seeds` take a part of the plan, comma-separated; empty: all.
    """
    import snl
    from snl.runtime.inspector import Inspector
    from snl.runtime.torch_engine import TorchEngine
    from snl.training.fit_statistics import fit_statistics
    from snl.training.selection import split

    plan = tomllib.loads(plan_file.read_text(encoding="utf-8"))
    results = resumed(output, plan["title"], plan_file.name)
    results["groups"] = {name: plan[name] for name in ("choose", "confirm") if name in plan}
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
    for seed in map(int, seeds.split(",")) if seeds else plan["seeds"]:
        for group in groups_of(plan, kept, files, seed):
            inspector: Inspector | None = None
            trained = ""
            for row, changes in group:
                weights = files[row.get("weights", "")]
                key = {
                    "name": row["name"],
                    "seed": seed,
                    "method": row["method"],
                    "set": changes,
                    "teacher_weights": Path(weights).name,
                    "images": catalog.fingerprint(),
                }
                if is_done(results, key):
                    continue
                say(f"{row['name']}, seed {seed}")
                overrides = {"teacher.weights": weights, **changes}
                preset = plan.get("preset", "compact")
                if inspector is None:
                    trained = row["name"]
                    inspector = snl.train(
                        catalog,
                        method=row["method"],
                        preset=preset,
                        overrides=overrides,
                        device=device,
                    )
                else:
                    settings = snl.resolve(row["method"], preset, overrides)
                    network = inspector.network
                    network.settings = dataclasses.replace(network.settings, map=settings.map)
                    used, _ = split(catalog, network.settings)
                    fit_statistics(network, [record.path for record in used])
                    # an engine has a copy of its own, made for speed
                    known = dataclasses.replace(inspector.known, settings=network.settings)
                    inspector = Inspector(TorchEngine(network, device), known)
                found = measured(inspector, catalog)
                training = dict(inspector.facts.training)
                if trained != row["name"]:
                    training["reused"] = trained
                facts = {"training": training, "data": inspector.facts.data}
                add(results, {**key, **found, **facts}, output, names)


def groups_of(
    plan: dict[str, Any], rows: Sequence[dict[str, Any]], files: dict[str, str], seed: int
) -> Iterator[list[tuple[dict[str, Any], dict[str, Any]]]]:
    """The rows with their settings, those together that have all but `map.*` in common."""
    import snl

    groups: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for row in rows:
        changes = {**plan["common"], **row.get("set", {}), "training.seed": seed}
        overrides = {"teacher.weights": files[row.get("weights", "")], **changes}
        settings = snl.resolve(row["method"], plan.get("preset", "compact"), overrides).to_dict()
        for name in ("map", "method", "preset"):  # the last two are but names
            del settings[name]
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append((row, changes))
    yield from groups.values()


class Timed:
    """A predictor that counts the seconds of its network, without reading and metrics."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.image_size = predictor.image_size
        self.resize_map = predictor.resize_map
        self.seconds = 0.0

    def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        """As the predictor's own."""
        began = time.perf_counter()
        result = self.predictor.predict(pixels)
        self.seconds += time.perf_counter() - began
        return result


def measured(predictor: Predictor, catalog: Catalog) -> dict[str, Any]:
    """A run's metrics, scores, worst images and seconds of the test images."""
    import snl

    timed = Timed(predictor)
    began = time.perf_counter()
    evaluation = snl.evaluate(timed, catalog)
    seconds = time.perf_counter() - began
    scores, worst = scores_of(evaluation, catalog)
    return {
        **evaluation.to_dict(),
        "evaluation_seconds": round(seconds, 1),
        "prediction_seconds": round(timed.seconds, 2),
        "skipped": evaluation.skipped,
        "scores": scores,
        "worst": worst,
    }


def scores_of(evaluation: Evaluation, catalog: Catalog) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores by product and label, and the paths of the worst, below the data's root."""
    from snl.data.layouts import inside

    scores: dict[str, Any] = {}
    worst: dict[str, Any] = {}
    for product in evaluation.products:
        own = sorted((s for s in evaluation.scores if s.product == product), key=lambda s: s.score)
        scores[product], paths = {}, {}
        for label in ("normal", "anomalous"):
            found = [s for s in own if s.label == label]
            scores[product][label] = [float(f"{s.score:.4g}") for s in found]
            below = (inside(s.path, catalog.root) or Path(s.path.name) for s in found)
            paths[label] = [path.as_posix() for path in below]
        worst[product] = {
            "misses": paths["anomalous"][:WORST],
            "false_alarms": paths["normal"][::-1][:WORST],
        }
    return scores, worst


def resumed(output: Path, title: str, plan: str) -> dict[str, Any]:
    """A results document with the runs that the file has, if there is one."""
    runs = json.loads(output.read_text(encoding="utf-8"))["runs"] if output.is_file() else []
    return {"title": title, "plan": plan, "runs": runs}


def is_done(results: dict[str, Any], key: dict[str, Any]) -> bool:
    """Whether the results have the run of a key."""
    return any(all(r.get(k) == v for k, v in key.items()) for r in results["runs"])


def add(results: dict[str, Any], result: dict[str, Any], output: Path, names: list[str]) -> None:
    """Put a run among the results, in the plan's order, write them, say what came out."""
    place = {name: number for number, name in enumerate(names)}
    results["runs"].append(result)
    results["runs"].sort(key=lambda r: place.get(r["name"], -1))
    write(output, results)
    print(row_of(result["name"], [result]), flush=True)


def write(path: Path, results: dict[str, Any]) -> None:
    """JSON as `write_json` has it, but a list of plain values takes one line."""
    from snl.files import write_text

    text = json.dumps(results, indent=1, allow_nan=False)
    # a string has no line break of its own, so these are the lists' alone
    write_text(path, re.sub(r"\[\n[^\[\]{}]*\n *\]", _one_line, text) + "\n")


def _one_line(match: re.Match[str]) -> str:
    return "[" + re.sub(r"\n *", " ", match[0][1:-1]).strip() + "]"


def say(text: str) -> None:
    """A line of progress with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def merge(files: Sequence[Path]) -> dict[str, Any]:
    """Several results as one: the first's title and groups, every run once, in the files' order.

    Exits where runs were measured on different training images.
    """
    documents = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    plans = dict.fromkeys(document["plan"] for document in documents)
    groups = [document["groups"] for document in documents if document.get("groups")]
    runs: list[dict[str, Any]] = []
    for file, document in zip(files, documents, strict=True):
        for result in document["runs"]:
            known = {r["images"] for r in runs if "images" in r}
            if "images" in result and known - {result["images"]}:
                sys.exit(f"{file}: run '{result['name']}' is of other images than the files before")
            if not any(_same(result, r) for r in runs):
                runs.append(result)
    return {
        "title": documents[0]["title"],
        "plan": ", ".join(plans),
        "groups": groups[0] if groups else {},
        "runs": runs,
    }


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two results are of one run; older files do not tell all of the key."""
    return all(one[k] == other[k] for k in KEY if k in one and k in other)


def by_name(results: dict[str, Any], file: Path) -> dict[str, list[dict[str, Any]]]:
    """The runs of a results document, all seeds of a row together.

    Exits where runs of one name differ in more than the seed.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in results["runs"]:
        group = groups.setdefault(run["name"], [])
        other = {k for g in group[:1] for k in g["set"] if g["set"][k] != run["set"].get(k)}
        if other - {"training.seed"}:
            sys.exit(f"{file}: runs named '{run['name']}' differ in {', '.join(sorted(other))}")
        group.append(run)
    return groups


def value_of(result: dict[str, Any], column: str) -> float | None:
    """A column of a run in percent: of the mean over products, or pooled; None: not defined."""
    table, name = (
        ("pooled", column.removeprefix("pooled_")) if "pooled_" in column else ("mean", column)
    )
    value = result[table][name]
    return None if value is None else 100 * float(value)


def row_of(name: str, results: list[dict[str, Any]]) -> str:
    """One Markdown row: mean over seeds, and the spread where there are several."""
    cells = []
    for column in COLUMNS:
        values = [v for v in (value_of(result, column) for result in results) if v is not None]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.1f}{spread}" if values else "-")
    seconds = statistics.mean(result["training"]["seconds"] for result in results)
    return f"| {name} | {' | '.join(cells)} | {len(results)} | {seconds:.0f} |"


def table(file: Path) -> str:
    """All runs of a results file as Markdown: means over seeds, then every product."""
    results = json.loads(file.read_text(encoding="utf-8"))
    groups = by_name(results, file)
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
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
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
    runner.add_argument("--seeds", default="", help="instead of the plan's, comma-separated")
    runner.add_argument("--device", default="auto")
    writer = verbs.add_parser("table", help="a results file as Markdown")
    writer.add_argument("results", type=Path)
    writer.add_argument("-o", "--output", type=Path)
    merger = verbs.add_parser("merge", help="several results files as one")
    merger.add_argument("results", type=Path, nargs="+")
    merger.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.verb == "run":
        run(
            arguments.plan,
            arguments.data,
            {"": "pretrained", **dict(map(_named, arguments.teacher_weights))},
            arguments.output,
            arguments.only,
            arguments.seeds,
            arguments.device,
        )
    elif arguments.verb == "merge":
        write(arguments.output, merge(arguments.results))
    elif arguments.output:
        arguments.output.write_text(table(arguments.results), encoding="utf-8")
    else:
        print(table(arguments.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
