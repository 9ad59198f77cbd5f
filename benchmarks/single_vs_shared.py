"""Cross-product interference: one model for all products against one model per product.

    python -m benchmarks.single_vs_shared DATA --method snl --steps 600 --image-size 128 \
        --bundles FOLDER -o docs/results/probes-snl.json --picture docs/results/probes-snl.png

Trains an inspector of all products, then one of each product of `--alone` (default: all products),
with the same settings and number of steps, and probes each (`snl.probe`) with all products: an
inspector of one product gives one row. Bundles that FOLDER already has with these settings are
reused, so an interrupted run resumes. There are two pictures: PICTURE of the model of all products,
and PICTURE with `-alone` in its name of the others. The JSON has both, and the means over the rows
that both have.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common import add_output, names_of, new_parser, run_main
from snl.errors import SnlError
from snl.files import write_json

if TYPE_CHECKING:
    from snl.evaluation.probe_results import Interference


def join_rows(parts: list[Interference]) -> Interference:
    """Return the rows of several probes, each of one product, as one result."""
    return dataclasses.replace(
        parts[0],
        rows=tuple(row for part in parts for row in part.rows),
        cells=tuple(cell for part in parts for cell in part.cells),
        normals={k: v for part in parts for k, v in part.normals.items()},
    )


def means_of(shared: Interference, single: Interference) -> dict[str, dict[str, float]]:
    """Return the mean AUROC in percent over the rows of `single`, by kind of probe.

    The diagonal (a product with itself) does not count.
    """
    common = [shared.rows.index(row) for row in single.rows]
    different = np.array([[column != row for column in shared.columns] for row in single.rows])
    means = {}
    for measure in ("mixup", "cutpaste", "cutpaste_image"):
        tables = {
            "all_products": shared.table(measure)[common],
            "one_product": single.table(measure),
        }
        means[measure] = {
            name: 100 * float(np.nanmean(table[different])) for name, table in tables.items()
        }
    return means


def run(options: argparse.Namespace) -> None:
    """Train, probe, and write results and pictures.

    Raises:
        SnlError: an unknown product, or matplotlib is needed and not installed.
    """
    import snl
    from snl.reporting.plots import check_matplotlib, draw_probes

    if options.picture:
        check_matplotlib()
    catalog = snl.Catalog.read(options.data)
    alone = options.alone or list(catalog.products)
    for unknown in (name for name in alone if name not in catalog.products):
        raise SnlError(
            f"--alone: no product '{unknown}'; choose from {', '.join(catalog.products)}"
        )
    overrides = {
        "teacher.name": options.teacher,
        "teacher.weights": options.teacher_weights,
        "training.steps": options.steps,
        "training.seed": options.seed,
        "image_size": options.image_size,
    }

    def train_and_probe(name: str, products: list[str]) -> Interference:
        records = tuple(r for r in catalog.records if r.product in products)
        inspector = snl.train(
            dataclasses.replace(catalog, records=records),
            output=options.bundles / f"{options.method}-{name}.snl",
            method=options.method,
            overrides=overrides,
            resume=True,
        )
        return snl.probe(inspector, catalog, images=options.images)

    shared = train_and_probe("all", list(catalog.products))
    single = join_rows([train_and_probe(name, [name]) for name in alone])
    document: dict[str, Any] = {
        "method": options.method,
        "settings": overrides | {"teacher.weights": Path(options.teacher_weights).name},
        "means": means_of(shared, single),
        "all_products": shared.to_dict(),
        "one_product": single.to_dict(),
    }
    for measure, means in document["means"].items():
        shown = f"all products {means['all_products']:.1f}  one product {means['one_product']:.1f}"
        print(f"{measure:15} {shown}")
    write_json(options.output, document)
    if options.picture:
        picture: Path = options.picture
        draw_probes(shared, picture, f"{options.method}: one model for all products")
        second = picture.with_name(f"{picture.stem}-alone{picture.suffix}")
        draw_probes(single, second, f"{options.method}: one model per product")


def parser() -> argparse.ArgumentParser:
    parser = new_parser("single_vs_shared", __doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--method", default="snl")
    parser.add_argument("--teacher", default="snl_compact")
    parser.add_argument("--teacher-weights", default="pretrained", metavar="FILE")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=20, help="blends and patches for each pair")
    parser.add_argument(
        "--alone",
        type=names_of,
        default=(),
        metavar="NAMES",
        help="products that get a model, comma-separated (default: all)",
    )
    parser.add_argument("--bundles", type=Path, required=True, metavar="FOLDER")
    add_output(parser)
    parser.add_argument("--picture", type=Path, metavar="FILE", help="PNG; needs matplotlib")
    return parser


if __name__ == "__main__":
    run_main(lambda: run(parser().parse_args()))
