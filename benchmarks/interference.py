"""Cross-product interference: one model for all products beside models of one product each.

    python benchmarks/interference.py DATA --method snl --steps 600 --image-size 128 \
        --bundles FOLDER -o docs/results/probes-snl.json --picture docs/results/probes-snl.png

Trains an inspector of all products, then one of each of `--alone` (default: every product), all
with the same settings and number of steps, and probes each (`snl.probe`) with all products: an
inspector of one product gives one row. Bundles already in FOLDER with these settings are taken as
they are, so an interrupted run goes on. Two pictures: PICTURE of the model of all products, PICTURE
with `-alone` in its name of the others; the JSON has both, and the means over the rows of both.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--method", default="snl")
    parser.add_argument("--teacher", default="snl_compact")
    parser.add_argument("--teacher-weights", default="pretrained")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=20, help="blends and patches for each pair")
    parser.add_argument("--alone", help="products with a model of their own, comma-separated")
    parser.add_argument("--bundles", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()

    import snl
    from snl.evaluation.probe_results import Interference
    from snl.files import write_json
    from snl.report.plots import check_matplotlib, draw_probes

    if options.picture:
        check_matplotlib()
    catalog = snl.Catalog.read(options.data)
    alone = options.alone.split(",") if options.alone else list(catalog.products)
    overrides = {
        "teacher.name": options.teacher,
        "teacher.weights": options.teacher_weights,
        "training.steps": options.steps,
        "training.seed": options.seed,
        "image_size": options.image_size,
    }

    def probed(name: str, products: list[str]) -> Interference:
        records = tuple(r for r in catalog.records if r.product in products)
        inspector = snl.train(
            dataclasses.replace(catalog, records=records),
            output=options.bundles / f"{options.method}-{name}.snl",
            method=options.method,
            overrides=overrides,
            resume=True,
        )
        return snl.probe(inspector, catalog, images=options.images)

    everything = probed("all", list(catalog.products))
    parts = [probed(name, [name]) for name in alone]
    single = dataclasses.replace(
        parts[0],
        rows=tuple(row for part in parts for row in part.rows),
        cells=tuple(cell for part in parts for cell in part.cells),
        normals={k: v for part in parts for k, v in part.normals.items()},
    )
    document: dict[str, Any] = {
        "method": options.method,
        "settings": overrides | {"teacher.weights": Path(options.teacher_weights).name},
        "means": {},
        "all_products": everything.to_dict(),
        "one_product": single.to_dict(),
    }
    common = [everything.rows.index(row) for row in single.rows]
    for measure in ("mixup", "cutpaste", "cutpaste_image"):
        both = everything.table(measure)[common], single.table(measure)
        apart = np.array([[c != row for c in everything.columns] for row in single.rows])
        means = [100 * float(np.nanmean(table[apart])) for table in both]
        document["means"][measure] = {"all_products": means[0], "one_product": means[1]}
        print(f"{measure:15} all products {means[0]:.1f}  one product {means[1]:.1f}")
    write_json(options.output, document)
    if options.picture:
        draw_probes(everything, options.picture, f"{options.method}: one model for all products")
        below = options.picture.with_name(f"{options.picture.stem}-alone{options.picture.suffix}")
        draw_probes(single, below, f"{options.method}: a model for each product")
    return 0


if __name__ == "__main__":
    sys.exit(main())
