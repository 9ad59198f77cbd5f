"""A bundle in half precision and its exports: size, what they differ by, AUROC, decisions, time of
an image, start to first result.

python benchmarks/exports.py demo/demo.snl demo/parts -o docs/results/exports.json
python benchmarks/exports.py table docs/results/exports.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import snl
from snl.export.write import FORMATS, PRECISIONS, ExportError, export
from snl.files import write_json, write_text

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
"""Title, format, precision of the file, and `--precision` when it runs."""


def measure(bundle: Path, data: snl.Catalog) -> dict[str, Any]:
    """All formats and precisions, one thread each."""
    inspector = snl.load(bundle, "cpu")
    image = data.test()[0].path
    exact: list[tuple[float, str]] = []
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for title, kind, precision, run in RUNS:
            print(title, file=sys.stderr, flush=True)
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
            found = [(s.score, s.verdict.decision) for s in evaluation.scores if s.verdict]
            exact = exact or found
            pairs = list(zip(exact, found, strict=True))
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
    """Milliseconds of the network for one image, and seconds from the start of a process to its
    result: the best of several, for other work on the machine only ever adds."""
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


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| | MB | scores change, median, most | image AUROC | pixel AUROC | other decisions "
        "| ms an image | s to result |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        if "refused" in row:
            lines.append(f"| {row['file']} | {row['refused']} | | | | | | |")
            continue
        change = row["score_change"]
        differ = ", ".join(f"{100 * change[name]:.2g} %" for name in ("median", "max"))
        lines.append(
            f"| {row['file']} | {row['megabytes']:.1f} | {differ} | {100 * row['image_auroc']:.2f} "
            f"| {100 * row['pixel_auroc']:.2f} | {row['other_decisions']} of {found['test']} "
            f"| {row['milliseconds']:.1f} | {row['start']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", help="of snl train; or the word table")
    parser.add_argument("data", type=Path, help="labelled images; of table, the JSON")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    if options.bundle == "table":
        text = table(json.loads(options.data.read_text("utf-8")))
        if options.output:
            write_text(options.output, text)
        else:
            print(text, end="")
        return
    found = measure(Path(options.bundle), snl.Catalog.read(options.data))
    found["command"] = f"python benchmarks/exports.py {' '.join(sys.argv[1:])}"
    if options.output:
        write_json(options.output, found)
    print(table(found), end="")


if __name__ == "__main__":
    main()
