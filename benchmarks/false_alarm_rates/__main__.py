"""Check what decisions promise: false-alarm rates, known and unknown products, a common ranking.

    python -m benchmarks.false_alarm_rates run DATA BUNDLE [BUNDLE ...] \
        -o docs/results/decisions.json
    python -m benchmarks.false_alarm_rates generated -o docs/results/decisions-generated.json
    python -m benchmarks.false_alarm_rates groups DATA BUNDLE -o docs/results/decisions-groups.json
    python -m benchmarks.false_alarm_rates table docs/results/decisions.json

`run`: bundles of `snl train DATA` on the test images of DATA. `generated`: scores drawn from a
known distribution, where any deviation is due to the method. `groups`: training images without
product names, grouped by the bundle's teacher; needs scikit-learn.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import snl
from benchmarks.common import (
    add_output,
    add_table_verb,
    names_of,
    new_parser,
    read_results,
    run_main,
    write_or_print,
)
from snl.files import write_json


def parser() -> argparse.ArgumentParser:
    parser = new_parser("false_alarm_rates", __doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="bundles on the test images of their data set")
    run.add_argument("data", type=Path)
    run.add_argument("bundles", type=Path, nargs="+")
    run.add_argument(
        "--choose", type=names_of, default=[], metavar="A,B", help="products that chose the rule"
    )
    add_output(run)
    add_output(verbs.add_parser("generated", help="scores drawn from a known distribution"))
    mixed = verbs.add_parser("groups", help="training images without product names")
    mixed.add_argument("data", type=Path)
    mixed.add_argument("bundle", type=Path)
    add_output(mixed)
    add_table_verb(verbs)
    return parser


def main() -> None:
    options = parser().parse_args()
    if options.verb == "table":
        from benchmarks.false_alarm_rates.tables import table

        write_or_print(table(read_results(options.results)), options.output)
    elif options.verb == "generated":
        from benchmarks.false_alarm_rates.generated import generated

        write_json(options.output, generated())
    elif options.verb == "groups":
        from benchmarks.false_alarm_rates.bundles import groups

        write_json(options.output, groups(options.bundle, snl.Catalog.read(options.data)))
    else:
        from benchmarks.false_alarm_rates.bundles import measure

        catalog = snl.Catalog.read(options.data)
        results: dict[str, Any] = {"title": "Decisions", "data": catalog.root.name, "runs": []}
        for file in options.bundles:
            results["runs"].append(measure(file, catalog, options.choose))
            write_json(options.output, results)


if __name__ == "__main__":
    run_main(main)
