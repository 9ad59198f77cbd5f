"""Size and speed of teachers on this machine, measured in turns.

    python -m benchmarks.teacher_speed run -o docs/results/teacher-speed.json
    python -m benchmarks.teacher_speed table docs/results/teacher-speed.json

The weights are random: they have no influence. Each figure is the median of several passes; the
networks take turns, so that a change in the machine's speed affects all of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from benchmarks.common import (
    add_output,
    add_table_verb,
    machine,
    markdown_table,
    new_parser,
    read_results,
    run_main,
    write_or_print,
)
from benchmarks.internals import random_teacher
from snl.files import write_json

NAMES = ("snl_compact", "resnet18")
CASES = ((128, 1), (128, 16), (256, 1), (256, 16))
"""Side of the image in pixels, batch size."""


def measure(repeats: int) -> dict[str, Any]:
    """Return parameters, GFLOP at 256 px, and milliseconds per image of all CASES.

    Args:
        repeats: passes of each case.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    teachers = {name: random_teacher(name) for name in NAMES}
    results: dict[str, Any] = {
        "machine": machine(threads=torch.get_num_threads()),
        "torch": torch.__version__,
        "teachers": {},
    }
    with torch.inference_mode():
        for name, teacher in teachers.items():
            teacher.to(memory_format=torch.channels_last)
            with FlopCounterMode(display=False) as counter:
                teacher(torch.zeros(1, 3, 256, 256))
            results["teachers"][name] = {
                "parameters": sum(p.numel() for p in teacher.parameters()),
                "gflop_256": round(counter.get_total_flops() / 1e9, 3),
                "ms": {},
            }
        for size, batch in CASES:
            images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
            seconds: dict[str, list[float]] = {name: [] for name in NAMES}
            for turn in range(repeats + 2):
                for name, teacher in teachers.items():
                    began = time.perf_counter()
                    teacher(images)
                    if turn >= 2:  # the first passes are slower
                        seconds[name].append(time.perf_counter() - began)
            for name in NAMES:
                median = 1000 * statistics.median(seconds[name]) / batch
                results["teachers"][name]["ms"][f"{size} px, batch {batch}"] = round(median, 3)
    return results


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown, with the ratio of the first network to the last."""
    teachers = results["teachers"]
    first, *_, last = teachers

    def row(title: str, values: dict[str, float]) -> list[str]:
        cells = (f"{value:.4g}" for value in values.values())
        return [title, *cells, f"{values[first] / values[last]:.2f}"]

    rows = [
        row("million parameters", {n: t["parameters"] / 1e6 for n, t in teachers.items()}),
        row("GFLOP at 256 px", {n: t["gflop_256"] for n, t in teachers.items()}),
    ]
    rows += [
        row(f"ms per image, {case}", {n: t["ms"][case] for n, t in teachers.items()})
        for case in teachers[last]["ms"]
    ]
    return "\n".join(markdown_table(["", *teachers, "ratio"], rows)) + "\n"


def parser() -> argparse.ArgumentParser:
    parser = new_parser("teacher_speed", __doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="measure")
    add_output(run)
    run.add_argument("--repeats", type=int, default=40, help="passes (default: %(default)s)")
    add_table_verb(verbs)
    return parser


def main() -> None:
    options = parser().parse_args()
    if options.verb == "table":
        write_or_print(table(read_results(options.results)), options.output)
        return
    results = measure(options.repeats)
    write_json(options.output, results)
    print(table(results), end="")


if __name__ == "__main__":
    run_main(main)
