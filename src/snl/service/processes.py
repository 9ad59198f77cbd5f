"""Processes of jobs: what they have done, and how they end."""

from __future__ import annotations

import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

STOP_SECONDS = 60
"""How long a cancelled job may take before it is killed."""
_LINE = re.compile(
    r"^(?P<task>[^\r\n]*): \d+% (?P<done>\d+)/(?P<total>\d+) \[[^<\]]*<(?P<left>[\d:?]+)", re.M
)


def progress_in(log_file: Path) -> dict[str, Any]:
    """Return the newest progress line of a log: `task`, `done`, `total`, `seconds_left`."""
    try:
        with log_file.open("rb") as file:
            file.seek(max(0, log_file.stat().st_size - 4096))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return {}
    found = list(_LINE.finditer(text))
    if not found:
        return {}
    last = found[-1]
    parts = (last["left"] or "?").split(":")
    left = None
    if all(part.isdecimal() for part in parts):
        left = sum(int(part) * 60**place for place, part in enumerate(reversed(parts)))
    return {
        "task": last["task"].strip(),
        "done": int(last["done"]),
        "total": int(last["total"]),
        "seconds_left": left,
    }


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process: gently first."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def remember(pid: int, file: Path) -> None:
    """Write down a process, so that it is found after a crash of the service."""
    with suppress(psutil.Error):
        started = psutil.Process(pid).create_time()
        file.write_text(f"{pid} {started!r}", encoding="ascii")


def end_orphan(file: Path) -> None:
    """End the process of a job that outlived its service."""
    with suppress(OSError, ValueError, psutil.Error):
        pid, started = file.read_text(encoding="ascii").split()
        process = psutil.Process(int(pid))
        if process.create_time() != float(started):
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)
