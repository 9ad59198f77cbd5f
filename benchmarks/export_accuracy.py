"""Exports of a bundle in all precisions: size, difference of scores, AUROC, decisions, latency.

python -m benchmarks.export_accuracy run demo/demo.snl demo/parts -o docs/results/exports.json
python -m benchmarks.export_accuracy table docs/results/exports.json
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import snl
from benchmarks.common import (
    add_output,
    add_table_verb,
    log,
    markdown_table,
    new_parser,
    read_results,
    run_main,
    write_or_print,
)
from snl.exporting.check import ExportError
from snl.exporting.write import FORMATS, PRECISIONS, export
from snl.files import write_json

START = "import snl, sys; snl.load(sys.argv[1], 'cpu', 1, sys.argv[3]).inspect(sys.argv[2])"
TIMES, STARTS = 60, 7
RUNS = [
    ("bundle, fp32", "", "fp32", "fp32"),
    ("bundle, bf16", "", "fp32", "bf16"),
    *(
        (f"{kind} {precision}", kind, precision, "fp32")
        for kind in FORMATS
        for precision in PRECISIONS
    ),
    ("openvino fp32, run in bf16", "openvino", "fp32", "bf16"),
]
"""Title, format, precision of the file, and precision of inference (`--precision`)."""


def measure(bundle: Path, data: snl.Catalog) -> dict[str, Any]:
    """Return the figures of all formats and precisions, measured with one thread."""
    inspector = snl.load(bundle, "cpu")
    image = data.test()[0].path
    exact: list[tuple[float, str]] = []
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for title, kind, precision, run in RUNS:
            log(title)
            rows.append({"file": title})
            path = Path(folder) / f"{precision}{FORMATS[kind]}" if kind else bundle
            if not path.is_file():
                try:
                    checked = export(inspector, path, format=kind, precision=precision, data=data)
                except ExportError as error:
                    rows[-1]["refused"] = str(error).replace(folder, "")
                    continue
                rows[-1] |= {"recalibrated": checked.recalibrated}
            files = [path, *([path.with_suffix(".bin")] if kind == "openvino" else [])]
            loaded = snl.load(path, "cpu", 1, run)
            evaluation = snl.evaluate(loaded, data)
            results = [(s.score, s.verdict.decision) for s in evaluation.scores if s.verdict]
            exact = exact or results
            pairs = list(zip(exact, results, strict=True))
            changes = [abs(b[0] - a[0]) / a[0] for a, b in pairs]
            rows[-1] |= {
                "megabytes": sum(file.stat().st_size for file in files) / 1e6,
                "image_auroc": evaluation.mean["image_auroc"],
                "pixel_auroc": evaluation.mean["pixel_auroc"],
                "score_change": {"median": statistics.median(changes), "max": max(changes)},
                "other_decisions": sum(a[1] != b[1] for a, b in pairs),
                **_times(loaded, path, image, run),
            }
    return {
        "bundle": bundle.name,
        "data": data.root.resolve().name,
        "test": len(exact),
        "rows": rows,
    }


def _times(inspector: snl.Inspector, path: Path, image: Path, precision: str) -> dict[str, float]:
    """Return milliseconds of the network for one image, and seconds from process start to result.

    Both are minima of several measurements, because other processes can only add time.
    """
    size = inspector.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    each = []
    for _ in range(TIMES):
        began = time.perf_counter()
        inspector.predict(pixels)
        each.append(time.perf_counter() - began)
    starts = []
    for _ in range(STARTS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", START, path, image, precision], check=True)
        starts.append(time.perf_counter() - began)
    return {"milliseconds": 1000 * min(each), "start": min(starts)}


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    heads = ["", "MB", "change of scores, median, maximum", "image AUROC", "pixel AUROC"]
    heads += ["different decisions", "ms per image", "s to result"]
    rows = []
    for row in results["rows"]:
        if "refused" in row:
            rows.append([row["file"], row["refused"], *[""] * (len(heads) - 2)])
            continue
        change = row["score_change"]
        rows.append(
            [
                row["file"],
                f"{row['megabytes']:.1f}",
                ", ".join(f"{100 * change[name]:.2g} %" for name in ("median", "max")),
                *(_auroc(row[f"{kind}_auroc"]) for kind in ("image", "pixel")),
                f"{row['other_decisions']} of {results['test']}",
                f"{row['milliseconds']:.1f}",
                f"{row['start']:.2f}",
            ]
        )
    return "\n".join(markdown_table(heads, rows)) + "\n"


def _auroc(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def parser() -> argparse.ArgumentParser:
    parser = new_parser("export_accuracy", __doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="export and measure")
    run.add_argument("bundle", type=Path, help="of snl train")
    run.add_argument("data", type=Path, help="labelled images")
    add_output(run)
    add_table_verb(verbs)
    return parser


def main() -> None:
    options = parser().parse_args()
    if options.verb == "table":
        write_or_print(table(read_results(options.results)), options.output)
        return
    results = measure(options.bundle, snl.Catalog.read(options.data))
    results["command"] = f"python -m benchmarks.export_accuracy {' '.join(sys.argv[1:])}"
    write_json(options.output, results)
    print(table(results), end="")


if __name__ == "__main__":
    run_main(main)
