"""Size and speed of teachers on this machine, in turn, in one run.

    python benchmarks/teachers.py -o docs/results/teacher-speed.json
    python benchmarks/teachers.py --table docs/results/teacher-speed.json

The weights have no part in it. Every figure is the median of several passes; the networks take
turns, so that a change of the machine's speed meets all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

NAMES = ("snl_compact", "resnet18")
CASES = ((128, 1), (128, 16), (256, 1), (256, 16))
"""Side of the image, batch size."""


def measure(repeats: int) -> dict[str, Any]:
    """Parameters, GFLOP at 256 px, and milliseconds per image of every case."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from snl.model.teacher import Teacher
    from snl.settings import TeacherSettings

    teachers = {name: Teacher(TeacherSettings(name=name, weights="random")) for name in NAMES}
    results: dict[str, Any] = {
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
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
                    if turn >= 2:  # the first ones are slower
                        seconds[name].append(time.perf_counter() - began)
            for name in NAMES:
                median = 1000 * statistics.median(seconds[name]) / batch
                results["teachers"][name]["ms"][f"{size} px, batch {batch}"] = round(median, 3)
    return results


def table(results: dict[str, Any]) -> str:
    """The results as Markdown, with the ratio to the last of the networks."""
    teachers = results["teachers"]
    *others, reference = teachers
    lines = [f"| | {' | '.join(teachers)} | ratio |", "|---" * (len(teachers) + 2) + "|"]

    def row(title: str, values: dict[str, float]) -> str:
        ratio = values[others[0]] / values[reference]
        return f"| {title} | {' | '.join(f'{v:.4g}' for v in values.values())} | {ratio:.2f} |"

    lines += [row("million parameters", {n: t["parameters"] / 1e6 for n, t in teachers.items()})]
    lines += [row("GFLOP at 256 px", {n: t["gflop_256"] for n, t in teachers.items()})]
    for case in teachers[reference]["ms"]:
        lines.append(row(f"ms per image, {case}", {n: t["ms"][case] for n, t in teachers.items()}))
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--table", type=Path, metavar="JSON", help="print what was measured before")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text(encoding="utf-8"))))
        return 0
    from snl.files import write_json

    results = measure(arguments.repeats)
    if arguments.output:
        write_json(arguments.output, results)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
