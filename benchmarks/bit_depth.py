"""The same parts stored with 8, 10, 12 and 16 bits: accuracy of a model trained on each.

python -m benchmarks.bit_depth run demo/parts --steps 300 -o docs/results/bit-depth.json
python -m benchmarks.bit_depth table docs/results/bit-depth.json

Every image is made smaller by averaging, so that its values have more than 8 bits, and is stored
with every depth, grey and in colour, as PNG, TIFF and PGM or PPM. Depths of 10 and 12 bits lie in
16-bit samples: PGM and PPM state their largest value, PNG and TIFF state nothing. One model is
trained for each depth, on PNG files, and scores the test images of all three formats.
"""

from __future__ import annotations

import argparse
import statistics
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import snl
from benchmarks.common import (
    add_output,
    add_table_verb,
    is_done,
    log,
    machine,
    markdown_table,
    names_of,
    new_parser,
    numbers_of,
    read_results,
    resume_runs,
    run_main,
    versions,
    write_or_print,
    write_runs,
)
from snl.data.images import load_image
from snl.data.records import Record

DEPTHS = (8, 10, 12, 16)
COLOURS = ("grey", "RGB")
FORMATS = ("png", "tif", "pnm")
METRICS = ("image_auroc", "pixel_auroc", "aupro")
REFERENCE = 8
"""Depth that the others are compared with."""


def shrink(path: Path, side: int, colour: str) -> np.ndarray:
    """Return an image whose longer side is `side`, float32 (H, W, 1 or 3) in 0..1.

    Pixels are averages of the original's pixels, so an image of twice the size gives 10 bits.
    """
    pixels = load_image(path)
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    channels = [
        np.asarray(
            Image.fromarray(pixels[:, :, c].astype(np.float32)).resize(size, Image.Resampling.BOX)
        )
        for c in range(3)
    ]
    values = np.stack(channels, axis=2) / 255
    return values.mean(axis=2, keepdims=True) if colour == "grey" else values


def write_image(path: Path, values: np.ndarray, bits: int) -> None:
    """Write an image (H, W, C) in 0..1 with samples of `bits` bits; the suffix is the format."""
    samples = np.rint(values * (2**bits - 1)).astype(np.uint16 if bits > 8 else np.uint8)
    encode = {".png": _png, ".tif": _tiff, ".pnm": _pnm, ".pgm": _pnm, ".ppm": _pnm}[path.suffix]
    path.write_bytes(encode(samples, bits))


def _png(samples: np.ndarray, bits: int) -> bytes:
    height, width, channels = samples.shape
    depth = 16 if bits > 8 else 8
    rows = samples.astype(f">u{depth // 8}").reshape(height, -1).view(np.uint8)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, depth, 2 if channels == 3 else 0, 0, 0, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(raw, 1))
        + chunk(b"IEND", b"")
    )


def _tiff(samples: np.ndarray, bits: int) -> bytes:
    height, width, channels = samples.shape
    depth = 16 if bits > 8 else 8
    data = samples.astype(f"<u{depth // 8}").tobytes()
    entries = 9
    offset = 8 + 2 + 12 * entries + 4
    long, short = 4, 3
    bits_at, data_at = offset, offset + 2 * channels
    tags = [
        (256, long, 1, width),
        (257, long, 1, height),
        (258, short, channels, bits_at if channels > 2 else depth),
        (259, short, 1, 1),
        (262, short, 1, 2 if channels == 3 else 1),
        (273, long, 1, data_at),
        (277, short, 1, channels),
        (278, long, 1, height),
        (279, long, 1, len(data)),
    ]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    depths = struct.pack(f"<{channels}H", *[depth] * channels)
    head = struct.pack("<2sHIH", b"II", 42, 8, entries)
    return head + directory + struct.pack("<I", 0) + depths + data


def _pnm(samples: np.ndarray, bits: int) -> bytes:
    height, width, channels = samples.shape
    kind = "P6" if channels == 3 else "P5"
    header = f"{kind}\n{width} {height}\n{2**bits - 1}\n".encode()
    return header + samples.astype(">u2" if bits > 8 else np.uint8).tobytes()


def write_data_set(
    catalog: snl.Catalog, folder: Path, side: int, colour: str, bits: int, suffix: str
) -> snl.Catalog:
    """Write all images of a catalog with one depth and format, and return the new catalog."""
    for record in catalog.records:
        source = record.path.relative_to(catalog.root)
        target = (folder / source).with_suffix(f".{suffix}")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_image(target, shrink(record.path, side, colour), bits)
        for mask, place in _masks(record, catalog.root, folder):
            place.parent.mkdir(parents=True, exist_ok=True)
            height, width = shrink(record.path, side, "grey").shape[:2]
            with Image.open(mask) as image:
                image.convert("L").resize((width, height), Image.Resampling.NEAREST).save(place)
    return snl.Catalog.read(folder)


def _masks(record: Record, root: Path, folder: Path) -> Iterator[tuple[Path, Path]]:
    for mask in record.mask:
        yield mask, folder / mask.relative_to(root)


def measure(
    catalog: snl.Catalog, colour: str, bits: int, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Train on PNG files of one depth; return the metrics and how far other formats differ."""
    with tempfile.TemporaryDirectory() as name:
        sets = {
            suffix: write_data_set(
                catalog, Path(name) / suffix, options.side, colour, bits, _suffix(suffix, colour)
            )
            for suffix in FORMATS
        }
        notes: list[str] = []
        inspector = snl.train(
            sets["png"],
            overrides={
                "image_size": options.image_size,
                "training.steps": options.steps,
                "training.seed": seed,
                "training.precision": "fp32",
            },
            quiet=True,
            note=notes.append,
        )
        evaluations = {suffix: snl.evaluate(inspector, data) for suffix, data in sets.items()}
    scores = {s: np.array([x.score for x in e.scores]) for s, e in evaluations.items()}
    return {
        "colour": colour,
        "bits": bits,
        "seed": seed,
        "white_level": inspector.settings.white_level,
        "mean": evaluations["png"].mean,
        "products": evaluations["png"].products,
        "largest_score_difference": {
            suffix: float(np.abs(values / scores["png"] - 1).max())
            for suffix, values in scores.items()
        },
        "notes": [note.replace(name, "") for note in notes if "white level" in note],
    }


def _suffix(kind: str, colour: str) -> str:
    return kind if kind != "pnm" else ("pgm" if colour == "grey" else "ppm")


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown: the means over seeds, and differences paired by seed."""
    heads = ["samples", "white level", "image AUROC", "pixel AUROC", "AUPRO"]
    heads += [f"difference to {REFERENCE} bits", "other formats score"]
    rows = []
    for colour in COLOURS:
        for bits in DEPTHS:
            runs = [r for r in results["runs"] if (r["colour"], r["bits"]) == (colour, bits)]
            base = {
                r["seed"]: r
                for r in results["runs"]
                if (r["colour"], r["bits"]) == (colour, REFERENCE)
            }
            if not runs:
                continue
            differences = [
                statistics.mean(
                    100 * (r["mean"][m] - base[r["seed"]]["mean"][m])
                    for r in runs
                    if r["seed"] in base
                )
                for m in METRICS
            ]
            largest = max(max(r["largest_score_difference"].values()) for r in runs)
            rows.append(
                [
                    f"{colour}, {bits} bits",
                    str(runs[0]["white_level"] or "-"),
                    *(_mean(runs, metric) for metric in METRICS),
                    ", ".join(f"{d:+.2f}" for d in differences),
                    "identically" if largest == 0 else f"up to {100 * largest:.2g} % apart",
                ]
            )
    return "\n".join(markdown_table(heads, rows)) + "\n"


def _mean(runs: list[dict[str, Any]], metric: str) -> str:
    values = [100 * r["mean"][metric] for r in runs]
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def parser() -> argparse.ArgumentParser:
    parser = new_parser("bit_depth", __doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="write, train and evaluate; finished runs are kept")
    run.add_argument("data", type=Path, help="labelled 8-bit images with masks")
    run.add_argument("--products", type=names_of, default=[], help="default: all")
    run.add_argument("--colours", type=names_of, default=list(COLOURS), help="grey,RGB")
    run.add_argument("--seeds", type=numbers_of, default=[0], metavar="N,N")
    run.add_argument("--steps", type=int, default=300)
    run.add_argument("--side", type=int, default=192, help="longer side of the images written")
    run.add_argument("--image-size", type=int, default=128)
    add_output(run)
    add_table_verb(verbs)
    return parser


def main() -> None:
    options = parser().parse_args()
    if options.verb == "table":
        write_or_print(table(read_results(options.results)), options.output)
        return
    catalog = snl.Catalog.read(options.data)
    if options.products:
        records = tuple(r for r in catalog.records if r.product in options.products)
        catalog = snl.Catalog(catalog.root, catalog.layout, records)
    title = "The same parts with 8, 10, 12 and 16 bits"
    command = f"python -m benchmarks.bit_depth {' '.join(sys.argv[1:])}"
    results = resume_runs(options.output, title, command)
    results |= {"machine": machine(), "versions": versions(["torch", "timm"])}
    for seed in options.seeds:
        for colour in options.colours:
            for bits in DEPTHS:
                key = {"colour": colour, "bits": bits, "seed": seed}
                if is_done(results, key):
                    continue
                log(f"{colour}, {bits} bits, seed {seed}")
                results["runs"].append(measure(catalog, colour, bits, seed, options))
                write_runs(options.output, results)
    print(table(results), end="")


if __name__ == "__main__":
    run_main(main)
