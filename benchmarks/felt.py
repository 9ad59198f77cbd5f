"""How long commands take for who waits for them: on free cores, and beside a busy process.

    python -m benchmarks.felt parts.snl parts/ IMAGES -o felt.json --source OTHER/src --turns 3

Every command is a process of its own, started as a user starts it. `busy`: another process computes
on one core all the time. With `--source`, the commands of another version are timed in turns with
those of this one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import new_parser
from snl.files import write_json

COMMANDS: dict[str, tuple[str, ...]] = {
    "info": ("info", "{file}"),
    "history": ("history", "{file}"),
    "calibrate": ("calibrate", "{file}"),
    "calibrate --rate": ("calibrate", "{file}", "--rate", "0.04", "-o", "{out}/new.snl"),
    "inspect": ("inspect", "{file}", "{images}", "--json", "{out}/r.jsonl", "--quiet"),
    "inspect --out": (
        *("inspect", "{file}", "{images}", "--json", "{out}/r.jsonl", "--quiet"),
        *("--out", "{out}/overlays"),
    ),
    "report": ("report", "{file}", "{data}", "-o", "{out}/r.html", "--quiet"),
    "export": ("export", "{file}", "-o", "{out}/r.onnx", "--quiet"),
}
"""Commands by name; `{out}` is a new folder."""


def parser() -> argparse.ArgumentParser:
    parser = new_parser("felt", __doc__)
    parser.add_argument("file", type=Path, help="bundle")
    parser.add_argument("data", type=Path, help="labelled images, for the report")
    parser.add_argument("images", type=Path, help="folder to inspect")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--source", type=Path, help="src/ of another version to compare with")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", help="commands, comma-separated")
    return parser


def main() -> None:
    """Time the commands and write the seconds as JSON."""
    options = parser().parse_args()
    names = options.only.split(",") if options.only else list(COMMANDS)
    sources = {"now": Path(__file__).parents[1] / "src"}
    if options.source:
        sources["before"] = options.source.resolve()
    seconds: dict[str, Any] = {}
    for load in ("free", "busy"):
        with _busy() if load == "busy" else _free():
            for name in names:
                times: dict[str, list[float]] = {version: [] for version in sources}
                for _ in range(options.turns):
                    for version, source in sources.items():
                        times[version].append(_timed(COMMANDS[name], options, source))
                seconds.setdefault(name, {})[load] = {
                    version: {"median": statistics.median(found), "all": found}
                    for version, found in times.items()
                }
                print(name, load, seconds[name][load], flush=True)
    about = {
        "cores": os.cpu_count(),
        "images": len(list(options.images.iterdir())),
        "report images": sum(path.is_file() for path in options.data.rglob("*.*")),
        "turns": options.turns,
    }
    write_json(options.output, {"title": "seconds of commands", "seconds": seconds, "about": about})


def _timed(command: tuple[str, ...], options: argparse.Namespace, source: Path) -> float:
    """Run a command in a new folder, and return its seconds."""
    out = Path(tempfile.mkdtemp(prefix="felt-"))
    try:
        places = {"file": options.file, "data": options.data, "images": options.images, "out": out}
        words = [word.format(**places) for word in command]
        environment = {**os.environ, "PYTHONPATH": str(source)}
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "snl", *words],
            env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return round(time.perf_counter() - started, 2)
    finally:
        shutil.rmtree(out)


@contextmanager
def _free() -> Iterator[None]:
    yield


@contextmanager
def _busy() -> Iterator[None]:
    """Keep the first core busy."""
    process = multiprocessing.Process(target=_compute, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _compute() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    while True:
        pass


if __name__ == "__main__":
    main()
