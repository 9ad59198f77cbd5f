"""Kill commands at random moments, and check what they leave behind.

    python -m tests.hostile.kills --count 25 --few 5 -o kills.json

Every attempt runs one command, sends it one signal at a random moment (seeded) and checks: no
traceback, the exit status, that every file is old or new and complete, that the results so far are
kept, that the next run of the command succeeds, gives the same as without the signal, and leaves no
temporary file, no lock and no cache. The process has imported the heavy packages before it forks
the commands, so that the moments fall into the work; `--cold` attempts import them anew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import TINY_OPTIONS
from tests.trees import make_mvtec, save_part

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
VERBS = ("train", "add", "remove", "calibrate", "inspect", "export", "report")
IMAGES = 12
LIMIT = 120.0
"""Seconds after which a command hangs."""


@dataclass
class Attempt:
    """One command and one signal."""

    verb: str
    signal: str
    moment: float
    """Seconds from the start of the command."""
    status: int
    problems: list[str] = field(default_factory=list)
    reached: bool = True
    """Whether the command still ran when the signal was sent."""


@dataclass
class Ended:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str
    seconds: float
    reached: bool = True


class Kills:
    """Prepared data, and the results without signals."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.random = root, random.Random(seed)
        self.parts = make_mvtec(root / "parts")
        self.images = root / "images"
        for number in range(IMAGES):
            save_part(self.images / f"{number:02}.png", 700 + number, defect=number % 3 == 0)
        self.normals = root / "normals" / "bolt"
        for number in range(3):
            save_part(self.normals / f"{number}.png", 800 + number)
        self.added = root / "nuts" / "nut"
        for number in range(6):
            save_part(self.added / f"{number}.png", 900 + number, product="plate")
        self.bundle = root / "bundle" / "a.snl"
        self.seconds: dict[str, float] = {}
        self.expected: dict[str, Any] = {}
        self._finish("train", self._train(self.bundle))
        self.expected["train"] = tensors(self.bundle)
        for verb in VERBS[1:]:
            folder = self._folder(verb)
            self._finish(verb, self._command(verb, folder))
            self.expected[verb] = self._result(verb, folder)

    def attempt(self, verb: str, number: int, cold: bool = False) -> Attempt:
        """Run a command, send it a signal at a random moment, and check everything."""
        folder = self._folder(verb)
        before = self._result(verb, folder)
        moment = self.random.uniform(0.0, self.seconds[verb] * (3 if cold else 1.05))
        ended = run(self._command(verb, folder), number, moment, cold)
        attempt = Attempt(
            verb, signal.Signals(number).name, moment, ended.status, reached=ended.reached
        )
        problems = attempt.problems
        try:
            problems += check_ended(ended, number)
            problems += self._check_left(verb, folder, before, ended)
            again = run([*self._command(verb, folder), *(["--resume"] if verb == "train" else [])])
            if verb == "remove" and "not known" in again.stderr:
                again.status = 0  # the run that got the signal had finished
            if again.status != 0:
                problems.append(f"the next run exits with {again.status}: {again.stderr[-300:]}")
            elif not self._same(verb, self._result(verb, folder), before):
                problems.append("the next run gives another result")
            problems += stale_files(folder)
        except Exception as error:
            problems.append(f"check failed: {''.join(traceback.format_exception(error))[-600:]}")
        if problems:
            problems.append(f"stderr: {ended.stderr[-300:]}")
        shutil.rmtree(folder, ignore_errors=True)
        return attempt

    def _folder(self, verb: str) -> Path:
        folder = Path(tempfile.mkdtemp(prefix=f"{verb}-", dir=self.root))
        if verb in ("calibrate", "add", "remove"):
            shutil.copy(self.bundle, folder / "a.snl")
        return folder

    def _train(self, output: Path) -> list[str]:
        every = ["--checkpoint-every", "0", "--quiet", "--set", "training.holdout=0.5"]
        steps = ["--steps", "30"]
        return ["train", str(self.parts), "-o", str(output), *TINY_OPTIONS, *steps, *every]

    def _command(self, verb: str, folder: Path) -> list[str]:
        bundle, device = str(self.bundle), ["--device", "cpu", "--quiet"]
        if verb == "train":
            return self._train(folder / "a.snl")
        if verb == "calibrate":
            return ["calibrate", str(folder / "a.snl"), str(self.normals.parent), "--add", *device]
        if verb == "add":
            steps = ["--steps", "20", "--checkpoint-every", "0", "--force"]
            return ["add", str(folder / "a.snl"), str(self.added.parent), *steps, *device]
        if verb == "remove":
            return ["remove", str(folder / "a.snl"), "bolt"]
        if verb == "inspect":
            files = [
                *("--json", str(folder / "r.jsonl"), "--coco", str(folder / "c.json")),
                *("--monitor", str(folder / "m.json"), "--out", str(folder / "o")),
                *("--labelme", str(folder / "l"), "--batch-size", "1"),
            ]
            return ["inspect", bundle, str(self.images), *files, *device]
        if verb == "export":
            return ["export", bundle, "-o", str(folder / "a.onnx"), *device]
        return ["report", bundle, str(self.parts), "-o", str(folder / "r.html"), *device]

    def _finish(self, verb: str, command: list[str]) -> None:
        """Run a command without a signal, and remember how long it takes."""
        ended = run(command)
        assert ended.status == 0, (command, ended)
        self.seconds[verb] = ended.seconds

    def _result(self, verb: str, folder: Path) -> Any:
        """Return what a command wrote, checked to be complete; None: nothing."""
        if verb in ("train", "calibrate", "add", "remove"):
            file = folder / "a.snl"
            if not file.exists():
                return None
            if verb in ("add", "remove"):
                return products(file)
            return tensors(file) if verb == "train" else history(file)
        if verb == "inspect":
            return inspection(folder)
        file = folder / ("a.onnx" if verb == "export" else "r.html")
        if not file.exists():
            return None
        if verb == "export":
            from snl.runtime.describe import describe

            return describe(file)["model"]
        text = file.read_text(encoding="utf-8")
        assert text.rstrip().endswith("</html>")
        return len(text.splitlines())

    def _same(self, verb: str, result: Any, before: Any) -> bool:
        if verb == "calibrate":  # the run that was killed may have finished its change
            return bool(result[: len(before)] == before) and len(result) - len(before) in (1, 2)
        if verb == "inspect":  # the state of the monitor goes on from the killed run
            return bool({**result, "m": 0} == {**self.expected[verb], "m": 0})
        return bool(result == self.expected[verb])

    def _check_left(self, verb: str, folder: Path, before: Any, ended: Ended) -> list[str]:
        """Check the files right after the signal."""
        left = self._result(verb, folder)
        if verb == "calibrate":
            if left[: len(before)] != before or len(left) - len(before) not in (0, 1):
                return [f"the file is neither old nor new: {left}"]
            return []
        if verb == "add":  # old, known but not trained on, or new; what was is in the file
            kept = left["products"] == before["products"] or left["previous"] == before["network"]
            return [] if kept and left["network"] else ["neither old nor new"]
        if verb == "remove":
            return [] if left in (before, self.expected[verb]) else ["neither old nor new"]
        if verb != "inspect":
            return [] if left in (None, self.expected[verb]) else ["the file is not complete"]
        return self._check_inspected(left, ended)

    def _check_inspected(self, left: dict[str, Any], ended: Ended) -> list[str]:
        expected, lines, problems = self.expected["inspect"], left["r"], []
        if lines != expected["r"][: len(lines)]:
            problems.append("a line differs")
        if len(left["o"]) < len(lines) or len(left["l"]) < len(lines):
            problems.append("a line without its overlay or label file")
        if ended.status in (0, -signal.SIGKILL):
            return problems
        if len(left["c"]) != len(lines):
            problems.append(f"{len(left['c'])} images in the COCO file, {len(lines)} lines")
        if lines and left["m"] != len(lines):
            problems.append(f"{left['m']} images in the monitor, {len(lines)} lines")
        stopped = f"stopped after {len(lines)} of {IMAGES} images"
        if lines and stopped not in ended.stderr:
            problems.append(f"no line '{stopped}'")
        return problems


def run(
    words: Sequence[str], number: int | None = None, moment: float = 0.0, cold: bool = False
) -> Ended:
    """Run a command to its end, or send it a signal after `moment` seconds of its work."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        if cold:
            command = [sys.executable, "-m", "snl", *words]
            pid = subprocess.Popen(
                command, stdout=out, stderr=err, start_new_session=True, preexec_fn=_reset_signals
            ).pid
        else:
            pid = _fork(words, out.fileno(), err.fileno())
        reached = True
        if number is not None:
            while not _catches(pid) and _poll(pid) is None:
                time.sleep(0.005)
            time.sleep(moment)
            reached = _poll(pid) is None
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        status = _wait(pid)
        seconds = time.monotonic() - started
        out.seek(0)
        err.seek(0)
        texts = (out.read().decode(errors="replace"), err.read().decode(errors="replace"))
        return Ended(status, *texts, seconds, reached)


_ended: dict[int, int] = {}


def _poll(pid: int) -> int | None:
    """Return the exit status of a child, negative for a signal; None: it runs."""
    if pid not in _ended:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            _ended[pid] = os.waitstatus_to_exitcode(status)
    return _ended.get(pid)


def _wait(pid: int) -> int:
    deadline = time.monotonic() + LIMIT
    while (status := _poll(pid)) is None:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            return 999
        time.sleep(0.005)
    return status


def _fork(words: Sequence[str], out: int, err: int) -> int:
    """Run a command in a copy of this process, which has imported everything."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.setsid()
        _reset_signals()
        os.dup2(out, 1)
        os.dup2(err, 2)
        from snl.cli.main import main

        status = main(list(words))
    except SystemExit as stop:
        status = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _reset_signals() -> None:
    """Undo what nohup and shells do: signals that are ignored when a command starts stay so."""
    for number in SIGNALS[1:]:
        signal.signal(number, signal.SIG_DFL)


def _catches(pid: int) -> bool:
    """Return whether a process handles SIGTERM, as the command does once it has started."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    except OSError:
        pass
    return True


def check_ended(ended: Ended, number: int) -> list[str]:
    """Check messages and exit status."""
    problems = []
    if "Traceback" in ended.stderr or "Exception ignored" in ended.stderr:
        problems.append("a traceback")
    if ended.status == 999:
        problems.append("it hangs")
    # a signal that comes when everything is done ends the process in the usual way
    allowed = (0, -number) if number == signal.SIGKILL else (0, 128 + number, -number)
    if ended.status not in allowed:
        problems.append(f"exit status {ended.status}, not one of {allowed}")
    return problems


def stale_files(folder: Path) -> list[str]:
    """Return the temporary files, locks and caches that remain."""
    names = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    return [f"{name} remains" for name in names if name.endswith((".tmp", ".lock", "/cache"))]


def tensors(file: Path) -> dict[str, bytes]:
    """Return the network's weights of a bundle, bit for bit."""
    from snl.files import load_tensors

    arrays, _ = load_tensors(file, "bundle")
    return {name: array.tobytes() for name, array in arrays.items() if "network" in name}


def products(file: Path) -> dict[str, Any]:
    """Return the products of a bundle, its network's weights, and those of its previous state."""
    import snl

    inspector = snl.load(file, "cpu")
    network = {k: v.numpy().tobytes() for k, v in inspector.network.state_dict().items()}
    previous = inspector.metadata.previous
    before = None
    if previous is not None:
        before = {k: v.tobytes() for k, v in previous.sections["network"].arrays.items()}
    return {"products": inspector.products, "network": network, "previous": before}


def history(file: Path) -> list[str]:
    """Return what makes the calibrations of a bundle different, oldest first."""
    from snl.runtime.describe import describe

    versions = describe(file)["history"]
    return [f"{v['created']} {v['reason']} {v['held_out_images']}" for v in versions]


def inspection(folder: Path) -> dict[str, Any]:
    """Return the results of `snl inspect`; every file must be complete."""
    from PIL import Image

    from snl.monitoring.drift import DriftMonitor

    lines = []
    if (folder / "r.jsonl").exists():
        text = (folder / "r.jsonl").read_text(encoding="utf-8")
        assert not text or text.endswith("\n")
        records = [json.loads(line) for line in text.splitlines()]
        lines = [(Path(r["path"]).name, r["score"], r["decision"]) for r in records]
    for picture in sorted((folder / "o").glob("*.png")):
        with Image.open(picture) as image:
            image.load()
    for label in (folder / "l").glob("*.json"):
        json.loads(label.read_text())
    coco: list[str] = []
    if (folder / "c.json").exists():
        document = json.loads((folder / "c.json").read_text(encoding="utf-8"))
        coco = [Path(image["file_name"]).name for image in document["images"]]
    monitor = 0
    if (folder / "m.json").exists():
        status = DriftMonitor.load(folder / "m.json").status()
        monitor = sum(drift.images for drift in status.values())
    return {
        "r": lines,
        "o": sorted(p.name for p in (folder / "o").glob("*.png")),
        "l": sorted(p.name for p in (folder / "l").glob("*.json")),
        "c": coco,
        "m": monitor,
    }


def preload() -> None:
    """Import what the commands need."""
    import importlib

    for name in ("torch", "timm", "snl", "snl.training.train", "snl.training.add"):
        importlib.import_module(name)
    for name in (
        "snl.evaluation.evaluate",
        "snl.reporting.collect",
        "snl.exporting.write",
        "snl.cli.main",
    ):
        importlib.import_module(name)
    for name in ("onnx", "onnxscript", "onnxruntime", "torch.onnx", "torch._dynamo"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def kill(
    counts: dict[str, int], root: Path, seed: int = 0, cold: int = 0,
    note: Callable[[str], None] = lambda text: None,
) -> list[Attempt]:  # fmt: skip
    """Send each signal `counts[verb]` times while the command runs; `cold` more without preloading.

    Attempts whose signal came after the end are checked too, but do not count.
    """
    preload()
    kills = Kills(root, seed)
    attempts = []
    for verb, count in counts.items():
        for number in SIGNALS:
            reached = 0
            for _ in range(3 * (count + cold)):  # some signals come after the end
                attempts.append(kills.attempt(verb, number, cold=reached >= count))
                reached += attempts[-1].reached
                if attempts[-1].problems:
                    note(f"{attempts[-1]}")
                if reached == count + cold:
                    break
        note(f"{verb}: {sum(a.verb == verb for a in attempts)} attempts")
    return attempts


def summary(attempts: Sequence[Attempt], seed: int) -> dict[str, Any]:
    """Return the counts and all failures as JSON values."""
    table: dict[str, dict[str, int]] = {}
    for attempt in attempts:
        row = table.setdefault(attempt.verb, {})
        row[attempt.signal] = row.get(attempt.signal, 0) + 1
        row["sent while it ran"] = row.get("sent while it ran", 0) + attempt.reached
    return {
        "command": "python -m tests.hostile.kills",
        "seed": seed,
        "attempts": len(attempts),
        "sent while it ran": sum(a.reached for a in attempts),
        "failed": sum(bool(a.problems) for a in attempts),
        "tested": bool(attempts) and sum(a.reached for a in attempts) >= len(attempts) / 3,
        "by verb and signal": table,
        "failures": [vars(a) for a in attempts if a.problems],
    }


def main() -> int:
    """Run the attempts of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=25, help="of all but export and report")
    parser.add_argument("--few", type=int, default=5, help="of export, report")
    parser.add_argument("--verbs", default=",".join(VERBS), help="comma-separated")
    parser.add_argument("--cold", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    few = ("export", "report")
    chosen = options.verbs.split(",")
    counts = {v: options.few if v in few else options.count for v in VERBS if v in chosen}
    counts = {verb: count for verb, count in counts.items() if count}
    with tempfile.TemporaryDirectory(prefix="kills-") as root:
        say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731, T201
        attempts = kill(counts, Path(root), options.seed, options.cold, say)
    result = summary(attempts, options.seed)
    text = json.dumps(result, indent=2)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    print(text)  # noqa: T201
    # signals that come after the end test nothing
    return 0 if result["tested"] and not result["failed"] else 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main())
