"""Processes that take turns, for `speed.py`: what is compared meets the same machine."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from speed_subjects import Plan

HERE = Path(__file__).parent
PAUSE = 0.05
"""Seconds between turns, in which threads of the last one go to sleep."""
LONG = 0.2
"""Seconds of a pass that does not feel what others left in the caches: no more warming up."""
ENOUGH = 6.0
"""Seconds after which a figure of a subject has no further turn."""


class Worker:
    """A process that holds one subject; see `speed_worker.py`."""

    def __init__(self, task: dict[str, Any], environment: dict[str, str], work: Path) -> None:
        with (work / "log.txt").open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, HERE / "speed_worker.py", json.dumps(task)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=work,
                env=environment,
            )
        self.ready: dict[str, Any] = {}

    def wait(self) -> None:
        """Until the subject is there; `ready` tells its figures, or an `error`."""
        self.ready = self._answer()

    def ask(self, **request: Any) -> dict[str, Any]:
        """One turn of a figure."""
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
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """Lets the process end."""
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
    """Every figure of every subject, by turns.

    Args:
        tasks: by the subject's title.
        seconds, passes: of a turn, at least.
        warm: passes that do not count: of a first turn, of others one at most.
        least: turns of a figure that takes long.
        repeats: turns of a figure.
    """
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for title, task in tasks.items():
            whole = {**task, "plan": dataclasses.asdict(plan), "work": str(work)}
            workers[title] = Worker(whole, environment(plan), work)
            stack.callback(workers[title].close)
        for title, worker in [*workers.items()]:
            worker.wait()
            found[title] = {"figures": {}}
            if "error" in worker.ready:
                found[title] = {"error": worker.ready["error"]}
                say(f"  {title}: {worker.ready['error']}")
                del workers[title]
        slowest = dict.fromkeys(workers, 0.0)
        names = dict.fromkeys(n for w in workers.values() for n in w.ready["figures"])
        for figure in names:
            for number in range(repeats(figure)):
                for title, worker in workers.items():
                    own = found[title]
                    if figure not in worker.ready["figures"] or "error" in own:
                        continue
                    past = own["figures"].get(figure, {}).get("turns", [])
                    if number >= least and sum(past) > ENOUGH:
                        continue
                    time.sleep(PAUSE)
                    cold = min(warm, slowest[title] < LONG) if slowest[title] else warm
                    request = {"seconds": seconds, "passes": passes, "warm": int(cold)}
                    answer = worker.ask(figure=figure, **request)
                    if "error" in answer:
                        own["error"] = answer["error"]
                        say(f"  {title}, {figure}: {answer['error']}")
                        continue
                    add_turn(own["figures"], figure, answer)
                    slowest[title] = max(slowest[title], answer["seconds"])
    return found


def add_turn(figures: dict[str, Any], name: str, answer: dict[str, Any]) -> None:
    """One turn more; the figure is always the summary of those there are."""
    known = figures.setdefault(name, {"turns": []})
    known["turns"].append(float(f"{answer['seconds']:.5g}"))
    ordered = sorted(known["turns"])
    middle = len(ordered) // 2
    known["median"] = (ordered[middle] + ordered[-1 - middle]) / 2
    known["min"], known["max"] = ordered[0], ordered[-1]
    known["memory"] = round(answer["memory"], 1)
    if answer.get("value") is not None:
        known["value"] = answer["value"]


def environment(plan: Plan) -> dict[str, str]:
    """Of child processes, which run in another folder."""
    variables = {**os.environ, "OMP_NUM_THREADS": str(plan.threads), "TRUST_REMOTE_CODE": "1"}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # all are compiled before they are timed
    places = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    variables["PYTHONPATH"] = os.pathsep.join(str(Path(place).resolve()) for place in places)
    return variables


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
