"""Peak memory of the command line with many large images.

python -m benchmarks.large_images run -o docs/results/large-images.json
python -m benchmarks.large_images table docs/results/large-images.json

Each command runs in a process of its own; its peak is the largest resident set of the whole
process, PyTorch included. The images are made in a temporary folder, smooth, so that their files
are small: 12,600 x 12,600 pixels of RGB take about 2 MB as PNG and 476 MB as an array.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL import __version__ as pillow

import snl
from benchmarks.common import (
    add_output,
    add_table_verb,
    log,
    machine,
    markdown_table,
    names_of,
    new_parser,
    read_results,
    run_main,
    versions,
    write_or_print,
    write_runs,
)
from snl.errors import SnlError

SIDE, IMAGES, FEW, TILE = 12_600, 50, 4, 4096
"""Side in pixels; images of the main commands and of the others; side of a tile in pixels."""
KINDS = {"png": "RGB PNG", "jpg": "RGB JPEG", "deep": "16-bit grey PNG"}

MAIN: dict[str, list[str]] = {
    "train": ["train", "{data}", "-o", "{bundle}", "--steps", "20", "--overwrite"],
    "inspect": ["inspect", "{bundle}", "{normals}", "--json", "{out}/a.jsonl"],
    "inspect --out --coco --labelme": [
        *("inspect", "{bundle}", "{normals}", "--json", "{out}/b.jsonl", "--out", "{out}/overlays"),
        *("--coco", "{out}/b.json", "--labelme", "{out}/labelme"),
    ],
}
"""Commands on all images; the first one makes the bundle of the others."""
OTHERS: dict[str, list[str]] = {
    "doctor": ["doctor", "{few}"],
    "calibrate": ["calibrate", "{bundle}", "{new}", "--product", "part", "-o", "{out}/c.snl"],
    "evaluate": ["evaluate", "{bundle}", "{few}"],
    "evaluate --resolution original": ["evaluate", "{bundle}", "{few}", "--resolution", "original"],
    "evaluate --save-maps": ["evaluate", "{bundle}", "{few}", "--save-maps", "{out}/maps"],
    "report": ["report", "{bundle}", "{few}", "-o", "{out}/report.html"],
    "inspect, JPEG": ["inspect", "{bundle}", "{jpg}", "--json", "{out}/d.jsonl"],
    "inspect, 16-bit grey": ["inspect", "{bundle}", "{deep}", "--json", "{out}/e.jsonl"],
    f"inspect --tile {TILE}": [
        *("inspect", "{bundle}", "{new}", "--json", "{out}/f.jsonl", "--tile", str(TILE)),
    ],
    f"train --tile {TILE}": [
        *("train", "{few}", "-o", "{out}/tiles.snl", "--tile", str(TILE), "--steps", "4"),
        "--overwrite",
    ],
}
"""Commands on a few images."""


def draw(number: int, side: int, defect: bool = False) -> Image.Image:
    """Return a smooth image, different for each number; a defect is a bright square."""
    colours = np.random.default_rng(number).integers(90, 140, (6, 6, 3), np.uint8)
    image = Image.fromarray(colours).resize((side, side), Image.Resampling.BILINEAR)
    if defect:
        image.paste((230, 220, 210), square(side))
    return image


def square(side: int) -> tuple[int, int, int, int]:
    """Return the box of the defect."""
    return side // 3, side // 3, side // 3 + side // 8, side // 3 + side // 8


def save(image: Image.Image, path: Path, kind: str = "png") -> None:
    """Write an image of one of KINDS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "jpg":
        image.save(path.with_suffix(".jpg"), quality=90)
        return
    if kind == "deep":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * np.uint16(257))
    image.save(path, compress_level=1)


def prepare(folder: Path, side: int, images: int, few: int) -> dict[str, str]:
    """Write all images and return the folders by the names that the commands use."""
    normals = folder / "data" / "part" / "train" / "good"
    for number in range(images):
        log(f"image {number + 1} of {images}")
        save(draw(number, side), normals / f"{number:03}.png")
    part = folder / "few" / "part"
    for number in range(few):
        (part / "train" / "good").mkdir(parents=True, exist_ok=True)
        os.link(normals / f"{number:03}.png", part / "train" / "good" / f"{number:03}.png")
        save(draw(1000 + number, side), folder / "new" / f"{number}.png")
        for kind in ("jpg", "deep"):
            save(draw(2000 + number, side), folder / kind / f"{number}.png", kind)
    for number in range(2):
        save(draw(3000 + number, side), part / "test" / "good" / f"{number}.png")
        save(draw(4000 + number, side, True), part / "test" / "hole" / f"{number}.png")
        mask = Image.new("L", (side, side))
        mask.paste(255, square(side))
        save(mask, part / "ground_truth" / "hole" / f"{number}_mask.png")
    names = ("data", "few", "new", "jpg", "deep")
    places = {name: str(folder / name) for name in names}
    return {**places, "normals": str(normals), "bundle": str(folder / "large.snl")}


def run_command(name: str, command: list[str], places: dict[str, str]) -> dict[str, Any]:
    """Run a command and return its peak memory and time.

    Raises:
        SnlError: it failed.
    """
    arguments = [part.format(**places) for part in command]
    began = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "snl", *arguments, "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert child.stderr is not None  # a pipe
    messages = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in (0, 1):
        last = messages.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise SnlError(f"{name}: exit status {child.returncode}: {' '.join(last)}")
    seconds = time.perf_counter() - began
    peak = usage.ru_maxrss * 1024 / 1e6
    log(f"{name}: {peak:.0f} MB, {seconds:.0f} s")
    shown = " ".join(["snl", *command])
    return {"name": name, "command": shown, "peak_mb": round(peak), "seconds": round(seconds, 1)}


def run(options: argparse.Namespace) -> None:
    """Measure all commands, or those chosen, and write the results after each."""
    chosen = names_of(options.only)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        places = prepare(Path(folder), options.side, options.images, options.few)
        sizes = [p.stat().st_size for p in Path(places["normals"]).iterdir()]
        results: dict[str, Any] = {
            "title": "Peak memory of the command line with large images",
            "plan": f"python -m benchmarks.large_images run --side {options.side} "
            f"--images {options.images} --few {options.few}",
            "image": {"side": options.side, "file_mb": round(max(sizes) / 1e6, 2)},
            "machine": machine(),
            "versions": versions(("torch", "timm", "numpy"))
            | {"pillow": pillow, "snl": snl.__version__},
            "runs": [],
        }
        for commands, count in ((MAIN, options.images), (OTHERS, options.few)):
            for name, command in commands.items():
                if chosen and name not in chosen and name != "train":
                    continue
                with tempfile.TemporaryDirectory(dir=folder) as out:
                    row = run_command(name, command, {**places, "out": out})
                results["runs"].append({**row, "images": count})
                write_runs(options.output, results)


def table(options: argparse.Namespace) -> None:
    """Write the results as a Markdown table."""
    results = read_results(options.results)
    rows = [
        [run["name"], str(run["images"]), str(run["peak_mb"]), f"{run['seconds']:.0f}"]
        for run in results["runs"]
    ]
    lines = markdown_table(["command", "images", "peak, MB", "seconds"], rows, numeric=True)
    write_or_print("\n".join(lines) + "\n", options.output)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = new_parser("large_images", __doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("run", help="measure")
    verb.add_argument("--side", type=int, default=SIDE, metavar="N")
    verb.add_argument("--images", type=int, default=IMAGES, metavar="N")
    verb.add_argument("--few", type=int, default=FEW, metavar="N")
    verb.add_argument("--only", default="", metavar="A,B", help="names of commands, and train")
    verb.add_argument("--folder", type=Path, metavar="DIR", help="for the images (default: temp)")
    add_output(verb)
    add_table_verb(verbs)
    return parser


def main() -> None:
    """Run the verb given."""
    options = parser().parse_args()
    {"run": run, "table": table}[options.verb](options)


if __name__ == "__main__":
    run_main(main)
