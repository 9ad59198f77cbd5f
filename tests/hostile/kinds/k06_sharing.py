"""Kind 6: no update is lost, and engines are shared between threads."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import TINY_OPTIONS
from tests.hostile import checks
from tests.hostile.attempt import Attempt, Command, Result, right
from tests.hostile.site import Site

_CHANGES = (
    *(["--smallest", "bolt=3"], ["--smallest", "plate=4"], ["--mm-per-pixel", "bolt=0.5"]),
    *(["--mm-per-pixel", "plate=0.25"], ["--rate", "0.3", "--product", "bolt"]),
)


def attempts(seed: int) -> Iterator[Attempt]:
    """Yield all attempts of this kind."""
    for kind in ("snl", "onnx", "xml"):
        for count in (2, 5):
            yield _calibrations(kind, count)
    for count in (2, 4):
        yield _monitors(count)
    yield _trainings()
    yield from _stale_files()
    for engine in ("snl", "onnx", "xml"):
        for threads in (2, 8, 16):
            yield _threads(engine, threads)


def _together(site: Site, lines: list[list[Any]]) -> list[Result]:
    from tests.hostile.runner import run_together

    commands = [Command([str(a) for a in line]) for line in lines]
    results = run_together(commands, site.root, 60)
    (site / "results.json").write_text(json.dumps([[r.status, r.err] for r in results]))
    return results


def _complaint(site: Site) -> str | None:
    """Return what is wrong with commands that ran together: a traceback, a silent failure."""
    for status, err in json.loads((site / "results.json").read_text()):
        if status is None or "Traceback" in err or (status not in (0, 1, 2)):
            return f"status {status}: {err[-400:]}"
        if status == 2 and "error" not in err:
            return f"refused without a reason: {err[-300:]}"
    return None


def _succeeded(site: Site) -> int:
    return sum(s == 0 for s, _ in json.loads((site / "results.json").read_text()))


def _calibrations(kind: str, count: int) -> Attempt:
    """Several `calibrate` on one file: every change that was acknowledged is there."""

    def make(site: Site) -> Command:
        file = site.bundle().name if kind == "snl" else site.export(kind).name
        _together(site, [["calibrate", file, *change] for change in _CHANGES[:count]])
        return Command(["info", file, "--json", "-"])

    def check(site: Site, result: Result) -> str | None:
        if complaint := _complaint(site):
            return complaint
        versions = len(json.loads(result.out)["history"]) - 1
        done = _succeeded(site)
        return None if versions == done else f"{done} changes succeeded, {versions} are there"

    fast = (kind, count) == ("snl", 5)
    return Attempt(
        f"together-calibrate-{kind}-{count}", 6, make, (right(check),), timeout=90, fast=fast
    )


def _monitors(count: int) -> Attempt:
    """Several `inspect --monitor` on one state: every image is counted."""

    def make(site: Site) -> Command:
        site.bundle("plant.snl", "plant.snl")
        site.images("in", 12)
        line = ["inspect", "plant.snl", "in", "--product", "bolt", "--quiet"]
        _together(
            site, [[*line, "--monitor", "state.json", "--json", f"{n}.jsonl"] for n in range(count)]
        )
        return Command(call=lambda: _counted(site / "state.json"))

    def check(site: Site, result: Result) -> str | None:
        wanted = 12 * _succeeded(site)
        if complaint := _complaint(site):
            return complaint
        return (
            None if result.value == wanted else f"{result.value} images counted, {wanted} inspected"
        )

    return Attempt(
        f"together-monitor-{count}", 6, make, (right(check),), timeout=90, fast=count == 4
    )


def _counted(state: Path) -> int:
    import snl

    return sum(drift.images for drift in snl.DriftMonitor.load(state).status().values())


def _trainings() -> Attempt:
    """Two trainings of one file: one of them is refused, or both succeed in turn."""

    def make(site: Site) -> Command:
        site.data()
        line = ["train", "data", "-o", "a.snl", *TINY_OPTIONS, "--steps", "40", "--quiet"]
        _together(site, [line, line])
        return Command(["info", "a.snl", "--json", "-"])

    def check(site: Site, result: Result) -> str | None:
        return _complaint(site) or (None if _succeeded(site) == 1 else f"{_succeeded(site)} of 2")

    return Attempt("together-train", 6, make, (right(check),), timeout=90)


def _stale_files() -> Iterator[Attempt]:
    """A run that is killed while it writes leaves a temporary file; the next run removes it."""
    lines = {
        "calibrate": ["calibrate", "parts.snl", "--smallest", "bolt=3"],
        "info": ["info", "parts.snl", "--json", "out.json"],
        "inspect": ["inspect", "parts.snl", "in", "--json", "out.jsonl", "--coco", "coco.json"],
        "monitor": ["inspect", "parts.snl", "in", "--monitor", "state.json"],
        "overlays": ["inspect", "parts.snl", "in", "--out", "overlays"],
        "labelme": ["inspect", "parts.snl", "in", "--labelme", "labels"],
        "evaluate": ["evaluate", "parts.snl", "data", "--json", "out.json"],
        "report": ["report", "parts.snl", "data", "-o", "out.html"],
        "export": ["export", "parts.snl", "-o", "out.onnx"],
        "train": ["train", "data", "-o", "out.snl", *TINY_OPTIONS],
    }
    for name, line in lines.items():

        def make(site: Site, line: list[str] = line, name: str = name) -> Command:
            site.bundle()
            site.data()
            site.images("in", 2)
            wanted = set(site.root.rglob("*"))
            full = [*line, *([] if name in ("info", "calibrate") else ["--quiet"])]
            killed = site.snl(*full, before=_die_at_replace)
            assert killed.status == -signal.SIGKILL, killed
            left = [p for p in site.root.rglob("*") if p not in wanted and p.is_file()]
            (site / "left").write_text("\n".join(str(p) for p in left if p.suffix != ".jsonl"))
            again = ["--resume"] if name == "train" else []
            return Command([*full, *again])

        def gone(site: Site, _: Result) -> str | None:
            paths = [Path(p) for p in (site / "left").read_text().splitlines() if p]
            # hidden or `.tmp`: a lock or a finished output may stay
            stale = [p.name for p in paths if p.exists() and ("tmp" in p.name or p.name[0] == ".")]
            stale = [p for p in stale if "lock" not in p]
            return f"still there: {stale}" if stale else None

        writes = (
            "parts.snl",
            "out.*",
            "coco.json",
            "state.json",
            "overlays/*",
            "labels/*",
            ".*",
            "*/.*",
        )
        yield Attempt(
            f"stale-{name}",
            6,
            make,
            (right(gone, status=(0, 1)),),
            (*writes, "out.snl.run/*"),
            timeout=90,
            fast=name == "calibrate",
        )


def _die_at_replace() -> None:
    """Make this process kill itself when it renames a file over its final name."""

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    os.replace = die  # type: ignore[assignment]
    os.rename = die  # type: ignore[assignment]


def _threads(engine: str, threads: int) -> Attempt:
    """One inspector, many threads: every result equals the single-threaded one."""

    def make(site: Site) -> Command:
        file = site.bundle("plant.snl", "plant.snl") if engine == "snl" else site.export(engine)
        folder = site.images("in", 8)
        paths = sorted(folder.iterdir())
        return Command(call=lambda: _shared(str(file), [str(p) for p in paths], threads))

    def check(value: Any) -> str | None:
        if value["errors"]:
            return f"{len(value['errors'])} calls failed: {value['errors'][0]}"
        return f"{value['different']} calls differ" if value["different"] else None

    return Attempt(
        f"threads-{engine}-{threads}",
        6,
        make,
        (right(checks.value_check(check)),),
        timeout=90,
        fast=threads == 8,
    )


def _shared(file: str, paths: list[str], threads: int) -> dict[str, Any]:
    import snl

    inspector = snl.load(file, "cpu")
    wanted = [result.score for result in inspector.inspect(paths)]
    errors: list[str] = []
    different: list[str] = []
    gate = threading.Barrier(threads)
    sys.setswitchinterval(1e-5)

    def work() -> None:
        gate.wait()
        for _ in range(10):
            try:
                found = [result.score for result in inspector.inspect(paths)]
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}"[:200])
                continue
            if found != wanted:
                different.append(str(found))

    pool = [threading.Thread(target=work) for _ in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    return {"errors": errors[:3], "different": len(different)}
