"""The seeds of a benchmark side by side: one process of `snl bench --seed N` a device at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from snl.errors import TrainingError
from snl.training.loop import LOG

if TYPE_CHECKING:
    from snl.bench.protocol import Task

PROGRESS = 60.0
"""Seconds between lines of progress."""


@dataclass
class _Worker:
    seed: int
    device: str
    log: Path
    stream: BinaryIO
    process: subprocess.Popen[bytes]


def run_workers(task: Task, seeds: Sequence[int], devices: Sequence[str]) -> None:
    """Run the seeds, as many at a time as there are devices; what each says goes to its log.

    Raises:
        TrainingError: seeds that failed, with the last line and the path of their logs, after the
            others have finished.
        KeyboardInterrupt: stopped, once every worker has written its checkpoint.
    """
    waiting, free = list(seeds), list(devices)
    running: list[_Worker] = []
    failed: list[str] = []
    told = time.monotonic()
    try:
        while waiting or running:
            while waiting and free:
                running.append(_start(task, waiting.pop(0), free.pop(0)))
            time.sleep(0.2)
            for worker in [w for w in running if w.process.poll() is not None]:
                running.remove(worker)
                worker.stream.close()
                free.append(worker.device)
                last = _last_line(worker.log) or f"exit status {worker.process.returncode}"
                if worker.process.returncode == 0:
                    task.note(f"done: {last}")
                else:
                    last = last.removeprefix("snl: error: ")
                    failed.append(f"seed {worker.seed} failed: {last} (log: {worker.log})")
                    task.note(failed[-1])
            if running and not task.quiet and time.monotonic() - told >= PROGRESS:
                told = time.monotonic()
                task.note("; ".join(_progress(task, worker) for worker in running))
    except KeyboardInterrupt:
        task.note("stopping; every seed writes its checkpoint (Ctrl-C again: at once)")
        _stop(running)
        raise
    finally:
        for worker in running:
            worker.process.kill()
            worker.stream.close()
    if failed:
        raise TrainingError(f"{'; '.join(failed)}; the same command goes on with what is left")


def command(task: Task, seed: int, device: str) -> list[str]:
    """The command line that does one seed of the task."""
    words = ["bench", task.benchmark, str(task.root), "--out", str(task.output)]
    words += ["--method", task.method, "--preset", task.preset]
    for name, value in task.overrides.items():
        shown = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        words += ["--set", f"{name}={shown}"]
    if task.classes:
        words += ["--classes", ",".join(task.classes)]
    words += ["--cache-memory", str(task.cache.memory), "--cache-disk", str(task.cache.disk)]
    words += ["--checkpoint-every", str(task.checkpoint_every), "--device", device]
    words += ["--overwrite"] * task.overwrite
    return [sys.executable, "-m", "snl", *words, "--seed", str(seed), "--quiet"]


def _start(task: Task, seed: int, device: str) -> _Worker:
    log = task.output / f"seed-{seed}.log"
    stream = log.open("ab")
    process = subprocess.Popen(
        command(task, seed, device),
        stdin=subprocess.DEVNULL,
        stdout=stream,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,  # Ctrl-C comes to this process alone, which passes it on once
    )
    task.note(f"seed {seed} on {device} (log: {log})")
    return _Worker(seed, device, log, stream, process)


def _stop(running: Sequence[_Worker]) -> None:
    try:
        for worker in running:
            worker.process.terminate()
        for worker in running:
            worker.process.wait()
    except KeyboardInterrupt:  # the second one; the caller kills what is left
        pass


def _progress(task: Task, worker: _Worker) -> str:
    line = _last_line(task.output / f"seed-{worker.seed}.snl.run" / LOG)
    try:
        record = json.loads(line)
        return f"seed {worker.seed}: step {record['step']}, loss {record['loss']:.4f}"
    except (ValueError, KeyError, TypeError):  # none yet, or half written
        return f"seed {worker.seed}: before its first step"


def _last_line(path: Path) -> str:
    """The last line that is not empty of a file that may be long or missing."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(path.stat().st_size - 8192, 0))
            lines = stream.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
