"""Exports of a bundle: size, what they differ by, AUROC, time of an image, start to first result.

python benchmarks/exports.py demo/demo.snl demo/parts -o docs/results/exports.json
python benchmarks/exports.py table docs/results/exports.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import snl
from snl.deployment.export import FORMATS, PRECISIONS, ExportError, export
from snl.files import write_json, write_text

START = "import snl, sys; snl.load(sys.argv[1], 'cpu', 1).inspect(sys.argv[2])"
TIMES, STARTS = 60, 7


def measure(bundle: Path, data: snl.Catalog) -> dict[str, Any]:
    """All formats and precisions, one thread each."""
    inspector = snl.load(bundle, "cpu")
    test = data.test()
    mean = snl.evaluate(inspector, data).mean
    rows: list[dict[str, Any]] = [
        {
            "file": "bundle",
            "megabytes": bundle.stat().st_size / 1e6,
            "image_auroc": mean["image_auroc"],
            "pixel_auroc": mean["pixel_auroc"],
        }
    ]
    with tempfile.TemporaryDirectory() as folder:
        for kind, suffix in FORMATS.items():
            for precision in PRECISIONS:
                path = Path(folder) / f"{precision}{suffix}"
                rows.append({"file": f"{kind} {precision}"})
                try:
                    checked = export(inspector, path, format=kind, precision=precision, data=data)
                except ExportError as error:
                    rows[-1]["refused"] = str(error).replace(folder, "")
                    continue
                exported = snl.load(path, "cpu", threads=1)
                files = [path, *([path.with_suffix(".bin")] if kind == "openvino" else [])]
                mean = snl.evaluate(exported, data).mean
                rows[-1] |= {
                    "megabytes": sum(file.stat().st_size for file in files) / 1e6,
                    "differences": checked.differences,
                    "recalibrated": checked.recalibrated,
                    "image_auroc": mean["image_auroc"],
                    "pixel_auroc": mean["pixel_auroc"],
                    **_times(exported, path, test[0].path),
                }
    return {
        "bundle": bundle.name,
        "data": data.root.resolve().name,
        "test": len(test),
        "rows": rows,
    }


def _times(inspector: snl.Inspector, path: Path, image: Path) -> dict[str, float]:
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
        subprocess.run([sys.executable, "-c", START, path, image], check=True)
        starts.append(time.perf_counter() - began)
    return {"milliseconds": 1000 * min(each), "start": min(starts)}


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| file | MB | scores differ | image AUROC | pixel AUROC | ms an image | s to result |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        if "refused" in row:
            lines.append(f"| {row['file']} | {row['refused']} | | | | | |")
            continue
        made = "differences" in row
        differ = f"{row['differences']['scores']:.1e}" if made else ""
        times = f"{row['milliseconds']:.1f} | {row['start']:.2f}" if made else "|"
        lines.append(
            f"| {row['file']} | {row['megabytes']:.1f} | {differ} | {100 * row['image_auroc']:.2f} "
            f"| {100 * row['pixel_auroc']:.2f} | {times} |"
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
