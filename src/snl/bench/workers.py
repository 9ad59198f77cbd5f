"""Run the seeds of a benchmark in parallel: one process of `snl bench --seed N` per device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from snl.bench.task import Task
from snl.errors import TrainingError
from snl.files import write_json
from snl.training.loop import LOG

TASK_FILE = "task.json"
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
    """Run the seeds, as many at a time as there are devices; each worker writes to its log.

    Raises:
        TrainingError: seeds that failed, with the last line and the path of their logs, after the
            others have finished.
        KeyboardInterrupt: stopped, once every worker has written its checkpoint.
    """
    write_json(task.output / TASK_FILE, task.to_json())
    waiting, free = list(seeds), list(devices)
    running: list[_Worker] = []
    failures: list[str] = []
    reported = time.monotonic()
    try:
        while waiting or running:
            while waiting and free:
                running.append(_start(task, waiting.pop(0), free.pop(0)))
            time.sleep(0.2)
            for worker in [w for w in running if w.process.poll() is not None]:
                running.remove(worker)
                free.append(worker.device)
                failures += _finish(task, worker)
            if running and not task.quiet and time.monotonic() - reported >= PROGRESS:
                reported = time.monotonic()
                task.note("; ".join(_progress(task, worker) for worker in running))
    except KeyboardInterrupt:
        task.note("stopping; every seed writes its checkpoint (Ctrl-C again: at once)")
        _stop(running)
        raise
    finally:
        for worker in running:
            worker.process.kill()
            worker.stream.close()
    if failures:
        raise TrainingError(f"{'; '.join(failures)}; the same command continues with what is left")


def command(task: Task, seed: int, device: str) -> list[str]:
    """Return the command line that measures one seed of the task in `TASK_FILE`."""
    words = ["bench", task.benchmark, str(task.root), "--task", str(task.output / TASK_FILE)]
    words += ["--device", device, "--seed", str(seed), "--quiet"]
    return [sys.executable, "-m", "snl", *words]


def _start(task: Task, seed: int, device: str) -> _Worker:
    log = task.output / f"seed-{seed}.log"
    stream = log.open("ab")
    process = subprocess.Popen(
        command(task, seed, device),
        stdin=subprocess.DEVNULL,
        stdout=stream,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,  # only this process gets Ctrl-C, and passes it on once
    )
    task.note(f"seed {seed} on {device} (log: {log})")
    return _Worker(seed, device, log, stream, process)


def _finish(task: Task, worker: _Worker) -> list[str]:
    """Report the end of a worker; return the failure, if it is one."""
    worker.stream.close()
    last = _last_line(worker.log) or f"exit status {worker.process.returncode}"
    if worker.process.returncode == 0:
        task.note(f"done: {last}")
        return []
    reason = last.removeprefix("snl: error: ")
    failure = f"seed {worker.seed} failed: {reason} (log: {worker.log})"
    task.note(failure)
    return [failure]


def _stop(running: Sequence[_Worker]) -> None:
    """Terminate the workers and wait until they have written their checkpoints."""
    try:
        for worker in running:
            worker.process.terminate()
        for worker in running:
            worker.process.wait()
    except KeyboardInterrupt:  # the second one; the caller kills the remaining workers
        pass


def _progress(task: Task, worker: _Worker) -> str:
    """Return the last step and loss of a worker."""
    line = _last_line(task.output / f"seed-{worker.seed}.snl.run" / LOG)
    try:
        record = json.loads(line)
        return f"seed {worker.seed}: step {record['step']}, loss {record['loss']:.4f}"
    except (ValueError, KeyError, TypeError):  # no line yet, or half a line
        return f"seed {worker.seed}: before its first step"


def _last_line(path: Path) -> str:
    """Return the last line that is not empty; empty for a missing file. The file may be long."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(path.stat().st_size - 8192, 0))
            lines = stream.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
