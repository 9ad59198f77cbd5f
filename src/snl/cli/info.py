"""`snl info`: show what a bundle or an export contains."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snl.cli import options as shared
from snl.cli.common import OK, aligned, check_json, show_result, table

SUMMARY = "show what a bundle or an export contains: products, training, calibration, history"

_GUARANTEES = {
    "shared tail": "the rate was measured to hold, not guaranteed: the centre is that of the "
    "product, the tail that of all products",
    "product": "the product's held-out images bound the rate of this product",
    "all products": "the held-out images of all products bound the rate pooled over all products",
    "tail fit": "the rate is an estimate from a fitted tail, without guarantee",
    "nothing": "too few images were held out for the rate, so there is no threshold",
}
"""What each kind of threshold guarantees, by `guarantee` of `snl.runtime.describe.describe`."""


class Options(argparse.Namespace):
    """Options of `snl info`."""

    file: Path
    json: Path | None


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "info",
        SUMMARY,
        "snl info parts.snl",
        "snl info parts.onnx --json info.json",
        "snl info parts.snl --json -",
        more="PyTorch is not needed: the network is neither loaded nor checked for damage.",
    )
    verb.add_argument(
        "file", type=Path, metavar="FILE", help="bundle (.snl) or export (.onnx, .xml)"
    )
    verb.add_argument(
        "--json", type=Path, metavar="OUT", help="write the result as JSON; -: to stdout, no text"
    )


def run(options: Options) -> int:
    """Read the file and print its description."""
    from snl.kinds import DESCRIPTION
    from snl.runtime.describe import describe

    check_json(options.json, DESCRIPTION, [options.file])
    description = describe(options.file)
    show_result(format_description(description), description, options.json)
    return OK


def format_description(description: dict[str, Any]) -> str:
    """Return the description of `snl.runtime.describe.describe` as aligned text."""
    products = description["products"]
    used = {t["guarantee"] for product in products for t in product["thresholds"].values()}
    legend = aligned((name, text) for name, text in _GUARANTEES.items() if name in used)
    return "\n\n".join(
        [
            aligned(_facts(description)),
            _products_table(products),
            f"guarantees of the false-alarm rates:\n{legend}",
            _history_table(description["history"]),
        ]
    )


def _products_table(products: list[dict[str, Any]]) -> str:
    """Return one row for each product; columns that few products use appear only if needed."""
    heading = ["product", "training", "held out"]
    for decision in ("anomalous", "uncertain"):
        heading += [f"{decision} rate", f"{decision} above", "guarantee"]
    rows = []
    for product in products:
        row = [product["name"], str(product["training_images"]), str(product["held_out_images"])]
        for decision in ("anomalous", "uncertain"):
            threshold = product["thresholds"][decision]
            score = threshold["score"]
            row += [
                f"{threshold['rate']:g}",
                "-" if score is None else f"{score:.4g}",
                threshold["guarantee"],
            ]
        rows.append(row)
    columns = {
        "ignore mask": ["yes" if p["ignore_mask"] else "" for p in products],
        "region of interest": [_box(p["roi"]) for p in products],
        "mm per pixel": [f"{p['mm_per_pixel']:g}" if p["mm_per_pixel"] else "" for p in products],
        "smallest region": [
            f"{p['min_region_area']} px" if p["min_region_area"] > 1 else "" for p in products
        ],
    }
    for title, cells in columns.items():
        if any(cells):
            heading.append(title)
            rows = [[*row, cell] for row, cell in zip(rows, cells, strict=True)]
    return table([heading, *rows])


def _box(roi: dict[str, list[int]] | None) -> str:
    """Return left, top, width and height of a region of interest; empty: the whole image."""
    return "" if roi is None else ",".join(map(str, roi["box"]))


def _history_table(history: list[dict[str, Any]]) -> str:
    """Return one row for each calibration that is kept, the one in use last."""
    rows = [
        [version["created"] or "-", str(version["held_out_images"]), version["reason"]]
        for version in history
    ]
    rows[-1][2] += " (in use)"
    return table([["calibrated", "held out", "reason"], *rows], left=3)


def _facts(description: dict[str, Any]) -> Iterator[tuple[str, str]]:
    file, model = description["file"], description["model"]
    calibration = description["calibration"]
    size = file["bytes"] / 1e6
    yield "file", f"{file['path']}: {file['kind']}, format {file['format']}, {size:.1f} MB"
    yield "method", f"{model['method']} (preset {model['preset']})"
    yield "teacher", f"{model['teacher']}, weights {model['teacher_weights']}"
    tile = calibration["tile"]
    pieces = f"tiles of {tile} x {tile} pixels" if tile else "whole images"
    yield "input", f"{model['image_size']} x {model['image_size']} pixels, {pieces}"
    yield "training", _training(description["training"])
    yield "data", _data(description["data"], description["training"])
    versions = description["training"]["versions"]
    yield "versions", ", ".join(f"{k} {v}" for k, v in versions.items()) or "unknown"
    plugins = (f"{p['kind']} {p['name']} of {p['package']}" for p in description["plugins"])
    yield "plug-ins", ", ".join(plugins) or "none"
    yield "products", str(len(description["products"]))
    rates = calibration["rates"]
    yield (
        "calibration",
        f"{calibration['held_out_images']} held-out images, smallest rate for all products "
        f"together {calibration['least_rate']:.2g}; unknown products: rate {rates['unknown']:g}; "
        f"regions: {rates['regions']:g} per normal image",
    )


def _training(training: dict[str, Any]) -> str:
    parts = []
    if training["steps"] is not None:
        parts.append(f"{training['steps']} steps of {training['batch_size']} images")
    if training["seconds"] is not None:
        parts.append(f"{training['seconds']:.0f} s")
    if training["loss"] is not None:
        parts.append(f"loss {training['loss']:.4f}")
    if training["device"] is not None:
        parts.append(f"on {training['device']} in {training['precision']}")
    if training["finished"] is not None:
        parts.append(f"finished {training['finished']}")
    return ", ".join(parts) or "unknown"


def _data(data: dict[str, Any], training: dict[str, Any]) -> str:
    text = f"{data.get('name', 'unknown')} (layout {data.get('layout', 'unknown')})"
    if data.get("images") is not None:
        text += f", {data['images']} normal images"
    if training["skipped_images"]:
        text += f", {training['skipped_images']} unreadable images skipped"
    return text
