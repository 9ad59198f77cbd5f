"""How fast an inspector is on this machine, by precision, threads and batch size: measured."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from snl.errors import SettingsError
from snl.runtime.inspector import load

BATCHES = (1, 2, 4, 8, 16)
SECONDS = 1.0
"""Each setting is measured for about so long, after one pass to warm up."""


@dataclass(frozen=True)
class Speed:
    """One setting: median over passes."""

    precision: str
    """Of `snl.load`; of an ONNX file always `fp32`, for it has its own."""
    threads: int
    batch: int
    milliseconds: float
    """Of a batch."""

    @property
    def images_per_second(self) -> float:
        """Throughput of the network; decoding goes on beside it."""
        return 1000 * self.batch / self.milliseconds


def measure(
    path: str | Path,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> list[Speed]:
    """Every batch size with one thread, with half of the cores and with all of them, in fp32 and,
    where file and device have it, in bf16.

    Args:
        path: of a bundle or an export.
        device: see `snl.load`.
        progress: called with (done, total).

    Raises:
        SnlError: as `snl.load`.
    """
    cores = os.cpu_count() or 1
    counts = sorted({1, max(1, cores // 2), cores})
    precisions = ["fp32"]
    with suppress(SettingsError):
        load(path, device, precision="bf16")
        precisions.append("bf16")
    found = []
    rng = np.random.default_rng(0)
    for precision, threads in itertools.product(precisions, counts):
        inspector = load(path, device, threads, precision)
        size = inspector.image_size
        for batch in BATCHES:
            pixels = rng.integers(0, 256, (batch, size, size, 3), np.uint8)
            seconds = _median(partial(inspector.predict, pixels))
            found.append(Speed(precision, threads, batch, 1000 * seconds))
            if progress:
                progress(len(found), len(precisions) * len(counts) * len(BATCHES))
    return found


def format_speeds(speeds: list[Speed]) -> str:
    """The table, and the settings for the shortest wait and for the most images."""
    lines = ["precision  threads  batch  ms a batch  images/s"]
    lines += [
        f"{s.precision:9}  {s.threads:7}  {s.batch:5}  {s.milliseconds:10.1f}  "
        f"{s.images_per_second:8.1f}"
        for s in speeds
    ]
    for precision in dict.fromkeys(s.precision for s in speeds):
        some = [s for s in speeds if s.precision == precision]
        options = "" if precision == "fp32" else f" --precision {precision}"
        quick = min((s for s in some if s.batch == 1), key=lambda s: s.milliseconds)
        most = max(some, key=lambda s: s.images_per_second)
        lines += [
            f"{precision}, shortest wait for one image: {quick.milliseconds:.1f} ms, "
            f"--batch-size 1 --threads {quick.threads}{options}",
            f"{precision}, most images: {most.images_per_second:.1f} a second, "
            f"--batch-size {most.batch} --threads {most.threads}{options}",
        ]
    return "\n".join(lines)


def _median(run: Callable[[], object]) -> float:
    """Seconds of one call."""
    run()
    times: list[float] = []
    while len(times) < 3 or sum(times) < SECONDS:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
