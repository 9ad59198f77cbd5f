"""Run many attempts, each in a process forked from this warm one."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.hostile import oracle
from tests.hostile.attempt import Attempt

Verdicts = list[dict[str, Any]]


def run_all(
    attempts: Sequence[Attempt],
    kit: Path,
    jobs: int = 2,
    keep: Path | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> Verdicts:
    """Return the verdicts in the order of the attempts.

    Args:
        attempts: what to run; those marked `alone` run last, one by one.
        kit: folder of shared files.
        jobs: attempts at the same time.
        keep: folder that keeps the attempts' folders; None: they are removed.
        progress: called with each verdict as it comes.
    """
    results: dict[str, dict[str, Any]] = {}
    together = [a for a in attempts if not a.alone]
    for group, width in ((together, jobs), ([a for a in attempts if a.alone], 1)):
        waiting, running = list(reversed(group)), dict[int, tuple[Attempt, Path]]()
        while waiting or running:
            while waiting and len(running) < width:
                test = waiting.pop()
                running.update([_start(test, kit, keep)])
            ended, _ = os.wait()
            if ended not in running:
                continue
            test, file = running.pop(ended)
            results[test.id] = _read(test, file)
            if progress:
                progress(results[test.id])
    return [results[a.id] for a in attempts]


def _start(test: Attempt, kit: Path, keep: Path | None) -> tuple[int, tuple[Attempt, Path]]:
    handle, name = tempfile.mkstemp(prefix="hostile-verdict-")
    os.close(handle)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        try:
            verdict = oracle.attempt(test, kit, keep).to_dict()
            Path(name).write_text(json.dumps(verdict), encoding="utf-8")
        except BaseException:
            Path(name).write_text(traceback.format_exc(), encoding="utf-8")
        finally:
            os._exit(0)
    return pid, (test, Path(name))


def _read(test: Attempt, file: Path) -> dict[str, Any]:
    text = file.read_text(encoding="utf-8")
    file.unlink()
    try:
        return dict(json.loads(text))
    except ValueError:
        return {
            **{"id": test.id, "kind": test.kind, "verdict": "broken attempt", "detail": text},
            **{"command": "", "expected": "", "status": None, "seconds": 0.0},
            **{"out": "", "err": ""},
        }
