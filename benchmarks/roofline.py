"""What a training step and an inference have to compute, and how near they come to this machine.

    python benchmarks/roofline.py run -o docs/results/roofline.json
    python benchmarks/roofline.py table docs/results/roofline.json

Arithmetic is counted by PyTorch (`torch.utils.flop_counter`: convolutions and matrix products, a
multiplication and an addition are two); the step is the one of `snl train`, features cached, the
inference `TorchEngine.predict`. The machine's speed is measured in the same run: a product of two
2048 x 2048 matrices and a 3 x 3 convolution of 128 channels, the faster one. Shares of time are
PyTorch's profiler's, of a step of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
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
from snl.files import write_json
from snl.model.network import Network
from snl.runtime.torch_engine import TorchEngine
from speed_steps import training
from speed_subjects import OURS, Plan, prepare_data, settings_of
from speed_table import markdown

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PARTS = {
    "convolutions, forward": ("mkldnn_convolution", "_convolution", "cudnn_convolution"),
    "convolutions, backward": ("convolution_backward",),
    "matrix products": ("mm", "bmm", "baddbmm", "addmm"),
    "batch norms": ("native_batch_norm", "native_batch_norm_backward", "cudnn_batch_norm"),
    "optimiser": ("addcdiv_", "addcmul_", "lerp_"),
    "copies and casts": ("copy_", "index", "cat"),
}


def seconds(call: Callable[[], object], least: float = 1.5) -> float:
    """The median of one call, after one that does not count."""
    call()
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < least:
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def machine_speed(dtype: torch.dtype) -> dict[str, float]:
    """GFLOP/s of a matrix product and of a convolution."""
    a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    x = torch.randn(16, 128, 32, 32).to(dtype).to(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(128, 128, 3, padding=1, bias=False).to(dtype)
    layer.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        product = 2 * 2048**3 / seconds(lambda: a @ b)
        convolution = 2 * 16 * 32**2 * 128**2 * 9 / seconds(lambda: layer(x))
    return {"matrix product": product / 1e9, "convolution": convolution / 1e9}


def arithmetic(call: Callable[[], object]) -> float:
    """GFLOP of one call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops()) / 1e9


def shares(call: Callable[[], object]) -> dict[str, float]:
    """Of the time of one call, by kind of work."""
    call()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        call()
    events = profiled.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    found = dict.fromkeys((*PARTS, "the rest"), 0.0)
    for event in events:
        name = event.key.removeprefix("aten::")
        known = (part for part, names in PARTS.items() if name in names)
        part = "optimiser" if "Adam" in name else next(known, "the rest")
        found[part] += event.self_cpu_time_total / total
    return found


def measure(call: Callable[[], object], images: int, peak: float) -> dict[str, Any]:
    """A row of the table."""
    work, taken = arithmetic(call), seconds(call)
    return {
        "images": images,
        "gflop": round(work, 2),
        "milliseconds": round(1000 * taken, 2),
        "gflop_s": round(work / taken, 1),
        "of_peak": round(work / taken / peak, 3),
        "shares": {name: round(share, 4) for name, share in shares(call).items()},
    }


def run(plan: Plan, output: Path, work: Path) -> None:
    """Everything, written once at the end."""
    torch.set_num_threads(plan.threads)
    work.mkdir(parents=True, exist_ok=True)
    prepare_data(plan, work)
    speeds = {name: machine_speed(dtype) for name, dtype in DTYPES.items()}
    peaks = {name: max(found.values()) for name, found in speeds.items()}
    rows: dict[str, Any] = {}
    for name, precision in itertools.product(("rd", "snl"), DTYPES):
        task = {"subject": name, "cached": True, "precision": precision}
        step = training(plan, work, task)["step"]
        title = f"{OURS[name][0]}: step, {precision}"
        rows[title] = measure(step, plan.batch, peaks[precision])
        print(title, rows[title], file=sys.stderr, flush=True)
    for name, precision in itertools.product(("snl-compact", "snl-rd"), DTYPES):
        settings = snl.resolve(OURS[name][1], "compact", settings_of(name, plan))
        engine = TorchEngine(Network(settings), "cpu", plan.threads, precision)
        for images in (1, plan.batch):
            pixels = np.random.default_rng(0).integers(
                0, 256, (images, plan.size, plan.size, 3), np.uint8
            )
            title = f"{OURS[name][0]}: inference, batch {images}, {precision}"
            call = partial(engine.predict, pixels)
            rows[title] = measure(call, images, peaks[precision])
            print(title, rows[title], file=sys.stderr, flush=True)
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
    """As Markdown."""
    lines = [f"# {results['title']}", ""]
    for precision, found in results["machine_gflop_s"].items():
        each = ", ".join(f"{name} {value:.0f}" for name, value in found.items())
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
    lines += ["", *markdown(["", "GFLOP", "ms", "GFLOP/s", "of the machine's"], rows), ""]
    parts = list(next(iter(results["rows"].values()))["shares"])
    rows = [
        [title, *(f"{100 * row['shares'][part]:.1f}" for part in parts)]
        for title, row in results["rows"].items()
    ]
    lines += ["Where the time goes, %:", "", *markdown(["", *parts], rows)]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("run", help="measure")
    one.add_argument("-o", "--output", type=Path, required=True)
    one.add_argument("--threads", type=int, default=2)
    other = verbs.add_parser("table", help="as Markdown")
    other.add_argument("results", type=Path)
    options = parser.parse_args()
    if options.verb == "run":
        with tempfile.TemporaryDirectory() as work:
            run(Plan(threads=options.threads), options.output, Path(work))
    else:
        print(table(json.loads(options.results.read_text(encoding="utf-8"))), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
