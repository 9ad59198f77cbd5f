"""How soon the drift monitor detects a change, and how often it alarms without one.

    python -m benchmarks.drift_delay values -o docs/results/drift.json
    python -m benchmarks.drift_delay images demo/demo.snl -o docs/results/drift-images.json
    python -m benchmarks.drift_delay table docs/results/drift.json

`values`: scores and distances drawn from a known distribution; takes a minute on one core.
`images`: changed images of the demo's parts, with the bundle of `snl demo`; five to eight minutes.
`table`: the results of either.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.common import (
    add_output,
    add_table_verb,
    new_parser,
    read_results,
    run_main,
    write_or_print,
)
from benchmarks.drift_delay import images_table, values
from snl.files import write_json, write_text


def parser() -> argparse.ArgumentParser:
    parser = new_parser("drift_delay", __doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    add_output(verbs.add_parser("values", help="values drawn from a known distribution"))
    images = verbs.add_parser("images", help="changed images of the demo's parts")
    images.add_argument("bundle", type=Path, help="the bundle of snl demo")
    add_output(images)
    add_table_verb(verbs)
    return parser


def main() -> None:
    options = parser().parse_args()
    if options.verb == "table":
        results = read_results(options.results)
        table = values.table if "delays" in results else images_table.table
        write_or_print(table(results), options.output)
    elif options.verb == "values":
        write_json(options.output, values.run())
    else:
        from benchmarks.drift_delay import images

        text = json.dumps(images.run(options.bundle), allow_nan=False)
        write_text(options.output, text + "\n")


if __name__ == "__main__":
    run_main(main)
