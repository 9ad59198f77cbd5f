"""Arithmetic of a training step and an inference, and the share of this machine's speed they reach.

    python -m benchmarks.roofline run -o docs/results/roofline.json
    python -m benchmarks.roofline table docs/results/roofline.json

PyTorch counts the arithmetic (`torch.utils.flop_counter`: convolutions and matrix products; a
multiplication and an addition are two operations). The step is that of `snl train` with cached
features, the inference is `TorchEngine.predict`. The machine's speed is measured in the same run:
the faster of a product of two 2048 x 2048 matrices and a 3 x 3 convolution of 128 channels. Shares
of time come from PyTorch's profiler, in a separate step.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import snl
from benchmarks.common import (
    add_output,
    add_table_verb,
    log,
    markdown_table,
    new_parser,
    read_results,
    run_main,
    write_or_print,
)
from benchmarks.internals import torch_engine
from benchmarks.speed.plan import OURS, Plan, settings_of
from benchmarks.speed.prepare import prepare_data
from benchmarks.speed.steps import training
from snl.files import write_json

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PARTS = {
    "convolutions, forward": ("mkldnn_convolution", "_convolution", "cudnn_convolution"),
    "convolutions, backward": ("convolution_backward",),
    "matrix products": ("mm", "bmm", "baddbmm", "addmm"),
    "batch norms": ("native_batch_norm", "native_batch_norm_backward", "cudnn_batch_norm"),
    "optimiser": ("addcdiv_", "addcmul_", "lerp_"),
    "copies and casts": ("copy_", "index", "cat"),
}
"""Kinds of work, and PyTorch's names of their operations."""
OTHER = "the rest"


def seconds(call: Callable[[], object], least: float = 1.5) -> float:
    """Return the median seconds of a call, after one warm-up call.

    Args:
        call: what is measured.
        least: minimum total duration in seconds; there are at least three calls.
    """
    call()
    durations: list[float] = []
    while len(durations) < 3 or sum(durations) < least:
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


def machine_speed(dtype: torch.dtype) -> dict[str, float]:
    """Return GFLOP/s of a matrix product and of a convolution."""
    a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    x = torch.randn(16, 128, 32, 32).to(dtype).to(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(128, 128, 3, padding=1, bias=False).to(dtype)
    layer.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        product = 2 * 2048**3 / seconds(lambda: a @ b)
        convolution = 2 * 16 * 32**2 * 128**2 * 9 / seconds(lambda: layer(x))
    return {"matrix product": product / 1e9, "convolution": convolution / 1e9}


def arithmetic(call: Callable[[], object]) -> float:
    """Return the GFLOP of one call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops()) / 1e9


def shares(call: Callable[[], object]) -> dict[str, float]:
    """Return the shares of the time of one call by kind of work; they add up to 1."""
    call()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        call()
    events = profiled.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    result = dict.fromkeys((*PARTS, OTHER), 0.0)
    for event in events:
        name = event.key.removeprefix("aten::")
        known = (part for part, names in PARTS.items() if name in names)
        part = "optimiser" if "Adam" in name else next(known, OTHER)
        result[part] += event.self_cpu_time_total / total
    return result


def measure(call: Callable[[], object], images: int, peak: float) -> dict[str, Any]:
    """Return a row of the table.

    Args:
        call: what is measured.
        images: that it processes.
        peak: GFLOP/s of the machine.
    """
    work, duration = arithmetic(call), seconds(call)
    return {
        "images": images,
        "gflop": round(work, 2),
        "milliseconds": round(1000 * duration, 2),
        "gflop_s": round(work / duration, 1),
        "of_peak": round(work / duration / peak, 3),
        "shares": {name: round(share, 4) for name, share in shares(call).items()},
    }


def run(plan: Plan, output: Path, work: Path) -> None:
    """Measure everything and write the results once at the end."""
    torch.set_num_threads(plan.threads)
    work.mkdir(parents=True, exist_ok=True)
    prepare_data(plan, work)
    speeds = {name: machine_speed(dtype) for name, dtype in DTYPES.items()}
    peaks = {name: max(speed.values()) for name, speed in speeds.items()}
    rows: dict[str, Any] = {}
    for name, precision in itertools.product(("rd", "snl"), DTYPES):
        task = {"subject": name, "cached": True, "precision": precision}
        step = training(plan, work, task)["step"]
        title = f"{OURS[name][0]}: step, {precision}"
        rows[title] = measure(step, plan.batch, peaks[precision])
        log(f"{title}: {rows[title]['gflop_s']} GFLOP/s")
    for name, precision in itertools.product(("snl-compact", "snl-rd"), DTYPES):
        settings = snl.resolve(OURS[name][1], "compact", settings_of(name, plan))
        engine = torch_engine(settings, plan.threads, precision)
        for images in (1, plan.batch):
            pixels = np.random.default_rng(0).integers(
                0, 256, (images, plan.size, plan.size, 3), np.uint8
            )
            title = f"{OURS[name][0]}: inference, batch {images}, {precision}"
            call = partial(engine.predict, pixels)
            rows[title] = measure(call, images, peaks[precision])
            log(f"{title}: {rows[title]['gflop_s']} GFLOP/s")
    write_json(
        output,
        {
            "title": f"Arithmetic and time, {plan.size} px, {plan.threads} threads",
            "versions": {"torch": torch.__version__},
            "machine_gflop_s": speeds,
            "rows": rows,
        },
    )


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [f"# {results['title']}", ""]
    for precision, speeds in results["machine_gflop_s"].items():
        each = ", ".join(f"{name} {value:.0f}" for name, value in speeds.items())
        lines.append(f"{precision}: {each} GFLOP/s.  ")
    rows = [
        [
            title,
            f"{row['gflop']:.1f}",
            f"{row['milliseconds']:.4g}",
            f"{row['gflop_s']:.0f}",
            f"{100 * row['of_peak']:.0f} %",
        ]
        for title, row in results["rows"].items()
    ]
    heads = ["", "GFLOP", "ms", "GFLOP/s", "share of the machine's"]
    lines += ["", *markdown_table(heads, rows, numeric=True), ""]
    parts = list(next(iter(results["rows"].values()))["shares"])
    rows = [
        [title, *(f"{100 * row['shares'][part]:.1f}" for part in parts)]
        for title, row in results["rows"].items()
    ]
    lines += ["Shares of the time, %:", "", *markdown_table(["", *parts], rows, numeric=True)]
    return "\n".join(lines) + "\n"


def parser() -> argparse.ArgumentParser:
    parser = new_parser("roofline", __doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    runner = verbs.add_parser("run", help="measure")
    add_output(runner)
    runner.add_argument("--threads", type=int, default=2)
    add_table_verb(verbs)
    return parser


def main() -> None:
    options = parser().parse_args()
    if options.verb == "table":
        write_or_print(table(read_results(options.results)), options.output)
        return
    with tempfile.TemporaryDirectory() as work:
        run(Plan(threads=options.threads), options.output, Path(work))


if __name__ == "__main__":
    run_main(main)
