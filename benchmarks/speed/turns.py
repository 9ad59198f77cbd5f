"""Processes that take turns, so that all subjects that are compared meet the same machine state."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.common import REPOSITORY, log
from benchmarks.speed.plan import Plan

PAUSE = 0.05
"""Seconds between turns, in which the threads of the previous subject go to sleep."""
LONG = 0.2
"""A subject whose passes take longer (in seconds) needs no warm-up after its first turn: what other
processes left in the caches does not influence it."""
ENOUGH = 6.0
"""A figure of a subject has no further turn after this total in seconds."""


class Worker:
    """A process that holds one subject; see `worker.py`.

    Args:
        title: of the subject; its task file is named after it.
        task: what the process loads; plan and work folder are added.
        plan: of the benchmark.
        work: folder of all files.
    """

    def __init__(self, title: str, task: dict[str, Any], plan: Plan, work: Path) -> None:
        command = module_command("benchmarks.speed.worker", work, title, plan, task)
        with (work / "log.txt").open("a", encoding="utf-8") as stream:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                cwd=work,
                env=environment(plan, package=True),
            )
        self.ready: dict[str, Any] = {}

    def wait(self) -> None:
        """Wait until the subject is loaded; `ready` then has its figures, or an `error`."""
        self.ready = self._answer()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Measure one turn of a figure."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"error": "the process has ended"}
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            return {"error": f"the process has ended with status {self.process.wait()}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Close the input of the process, which ends it."""
        self.process.communicate()


def turns(
    tasks: dict[str, dict[str, Any]],
    plan: Plan,
    work: Path,
    *,
    seconds: float,
    passes: int,
    warm: int,
    least: int,
    repeats: Callable[[str], int],
) -> dict[str, Any]:
    """Return all figures of all subjects, measured in turns.

    Args:
        tasks: what each worker loads, by the subject's title.
        plan: of the benchmark.
        work: folder of all files.
        seconds: minimum duration of a turn.
        passes: minimum number of passes in a turn.
        warm: passes before the first turn that do not count; before later turns one at most.
        least: turns of a figure even if they take long.
        repeats: returns the number of turns of a figure.
    """
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for title, task in tasks.items():
            workers[title] = Worker(title, task, plan, work)
            stack.callback(workers[title].close)
        for title, worker in [*workers.items()]:
            worker.wait()
            results[title] = {"figures": {}}
            if "error" in worker.ready:
                results[title] = {"error": worker.ready["error"]}
                log(f"  {title}: {worker.ready['error']}")
                del workers[title]
        slowest = dict.fromkeys(workers, 0.0)
        names = dict.fromkeys(n for w in workers.values() for n in w.ready["figures"])
        for figure in names:
            for number in range(repeats(figure)):
                for title, worker in workers.items():
                    result = results[title]
                    if figure not in worker.ready["figures"] or "error" in result:
                        continue
                    past = result["figures"].get(figure, {}).get("turns", [])
                    if number >= least and sum(past) > ENOUGH:
                        continue
                    time.sleep(PAUSE)
                    warm_up = min(warm, slowest[title] < LONG) if slowest[title] else warm
                    request = {"seconds": seconds, "passes": passes, "warm": int(warm_up)}
                    answer = worker.ask(figure=figure, **request)
                    if "error" in answer:
                        result["error"] = answer["error"]
                        log(f"  {title}, {figure}: {answer['error']}")
                        continue
                    add_turn(result["figures"], figure, answer)
                    slowest[title] = max(slowest[title], answer["seconds"])
    return results


def add_turn(figures: dict[str, Any], name: str, answer: dict[str, Any]) -> None:
    """Add one turn to a figure and update its median, range and memory."""
    figure = figures.setdefault(name, {"turns": []})
    figure["turns"].append(float(f"{answer['seconds']:.5g}"))
    ordered = sorted(figure["turns"])
    middle = len(ordered) // 2
    figure["median"] = (ordered[middle] + ordered[-1 - middle]) / 2
    figure["min"], figure["max"] = ordered[0], ordered[-1]
    figure["memory"] = round(answer["memory"], 1)
    if answer.get("value") is not None:
        figure["value"] = answer["value"]


def environment(plan: Plan, *, package: bool = False) -> dict[str, str]:
    """Return the environment of child processes, which run in another folder.

    Args:
        plan: gives the number of threads.
        package: let them import this package. A program whose start is timed does not need it.
    """
    variables = {**os.environ, "OMP_NUM_THREADS": str(plan.threads), "TRUST_REMOTE_CODE": "1"}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # all modules are compiled before the timing
    folders = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    folders += [str(REPOSITORY)] if package else []
    variables["PYTHONPATH"] = os.pathsep.join(str(Path(folder).resolve()) for folder in folders)
    return variables


def module_command(
    module: str, work: Path, name: str, plan: Plan, task: dict[str, Any]
) -> list[str]:
    """Write a task file below `work` and return the command that runs a module with it."""
    runtime = task.get("runtime", "")
    words = re.sub(r"[^a-z0-9]+", "-", f"{runtime} {name}".lower()).strip("-")
    file = work / "tasks" / f"{words}.json"
    file.parent.mkdir(exist_ok=True)
    whole = {**task, "plan": dataclasses.asdict(plan), "work": str(work)}
    file.write_text(json.dumps(whole, indent=2), encoding="utf-8")
    return [sys.executable, "-m", module, str(file)]
