"""Measure the speed of an inspector on this machine, by precision, threads and batch size."""

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
"""Measuring time for each combination of settings, after one call to warm up."""


@dataclass(frozen=True)
class Speed:
    """The speed with one combination of settings.

    Attributes:
        precision: see `snl.load`; always `fp32` for an ONNX file, which contains its precision.
        threads: of one call.
        batch: images per call.
        milliseconds: per call, the median.
    """

    precision: str
    threads: int
    batch: int
    milliseconds: float

    @property
    def images_per_second(self) -> float:
        """Throughput of the network; images are decoded in parallel to it."""
        return 1000 * self.batch / self.milliseconds


def measure(
    path: str | Path,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> list[Speed]:
    """Measure all batch sizes with one thread, half of the cores and all of them.

    This is done in fp32 and, where file and device support it, in bf16.

    Args:
        path: of a bundle or an export.
        device: see `snl.load`.
        progress: called with (done, total), counting combinations of settings.

    Raises:
        SnlError: see `snl.load`.
    """
    cores = os.cpu_count() or 1
    counts = sorted({1, max(1, cores // 2), cores})
    precisions = ["fp32"]
    with suppress(SettingsError):
        load(path, device, precision="bf16")
        precisions.append("bf16")
    speeds = []
    rng = np.random.default_rng(0)
    for precision, threads in itertools.product(precisions, counts):
        inspector = load(path, device, threads, precision)
        size = inspector.image_size
        for batch in BATCHES:
            pixels = rng.integers(0, 256, (batch, size, size, 3), np.uint8)
            seconds = _median(partial(inspector.predict, pixels))
            speeds.append(Speed(precision, threads, batch, 1000 * seconds))
            if progress:
                progress(len(speeds), len(precisions) * len(counts) * len(BATCHES))
    return speeds


def format_speeds(speeds: list[Speed]) -> str:
    """Return the table, and the settings for the lowest latency and the highest throughput."""
    lines = ["precision  threads  batch  ms/batch  images/s"]
    lines += [
        f"{s.precision:9}  {s.threads:7}  {s.batch:5}  {s.milliseconds:8.1f}  "
        f"{s.images_per_second:8.1f}"
        for s in speeds
    ]
    for precision in dict.fromkeys(s.precision for s in speeds):
        subset = [s for s in speeds if s.precision == precision]
        options = "" if precision == "fp32" else f" --precision {precision}"
        latency = min((s for s in subset if s.batch == 1), key=lambda s: s.milliseconds)
        throughput = max(subset, key=lambda s: s.images_per_second)
        lines += [
            f"{precision}, lowest latency: {latency.milliseconds:.1f} ms per image, "
            f"--batch-size 1 --threads {latency.threads}{options}",
            f"{precision}, highest throughput: {throughput.images_per_second:.1f} images/s, "
            f"--batch-size {throughput.batch} --threads {throughput.threads}{options}",
        ]
    return "\n".join(lines)


def _median(run: Callable[[], object]) -> float:
    """Return the median time of a call in seconds."""
    run()
    times: list[float] = []
    while len(times) < 3 or sum(times) < SECONDS:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
