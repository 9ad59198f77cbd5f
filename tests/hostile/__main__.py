"""Run the hostile attempts and print a table by kind; the exit status is 1 after any failure."""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.hostile.attempt import FAILURES, KINDS, Attempt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = _parser().parse_args(arguments)
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    from tests.hostile.kinds import all_attempts
    from tests.hostile.runner import warm

    attempts = [a for a in all_attempts(options.seed, options.kind) if _chosen(a, options)]
    if options.list:
        for one in attempts:
            _say(f"{one.kind:2}  {one.id}")
        return 0
    started = time.monotonic()
    warm()
    # not TemporaryDirectory: a forked attempt that exits would remove it
    folder = Path(tempfile.mkdtemp(prefix="hostile-kit-"))
    try:
        folder.chmod(0o755)
        kit = options.kit or folder
        if not (kit / "done").is_file():
            _make_kit(kit)
        from tests.hostile.schedule import run_all

        show = _show_all if options.verbose else _show_failure
        verdicts = run_all(attempts, kit, options.jobs, options.keep, show)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _say(format_table(verdicts))
    failed = sum(v["verdict"] != "ok" for v in verdicts)
    _say(f"{len(verdicts)} attempts, {failed} failures, {time.monotonic() - started:.0f} s")
    if options.json:
        report = {"seed": options.seed, "table": count(verdicts), "attempts": verdicts}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 1 if failed else 0


def count(verdicts: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return the number of verdicts of each sort by kind, with the sum as `all`."""
    table = {
        name: dict(Counter(v["verdict"] for v in verdicts if v["kind"] == number))
        for number, name in KINDS.items()
    }
    return {**table, "all": dict(Counter(v["verdict"] for v in verdicts))}


def format_table(verdicts: Sequence[dict[str, Any]]) -> str:
    """Return the counts as aligned text."""
    names = ("ok", *FAILURES)
    rows = [["kind", "attempts", *names]]
    for name, counts in count(verdicts).items():
        if counts:
            cells = [str(counts.get(n, 0)) for n in names]
            rows.append([name, str(sum(counts.values())), *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))
        )
        for r in rows
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--kind", type=int, action="append", default=[], choices=KINDS)
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="ids")
    parser.add_argument("--fast", action="store_true", help="the part that make test runs")
    parser.add_argument("--seed", type=int, default=0, help="of the random variations")
    parser.add_argument("--jobs", type=int, default=2, help="attempts at the same time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every verdict")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the attempts' folders")
    parser.add_argument("--kit", type=Path, metavar="DIR", help="keep the shared files here")
    parser.add_argument("--list", action="store_true", help="print the attempts, run none")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every verdict")
    return parser


def _chosen(one: Attempt, options: argparse.Namespace) -> bool:
    named = not options.only or any(fnmatch.fnmatchcase(one.id, p) for p in options.only)
    return named and (one.fast or not options.fast)


def _make_kit(kit: Path) -> None:
    """Make the shared files in a child process, so that this one keeps no threads."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            from tests.hostile.kit import make_kit

            shutil.rmtree(kit, ignore_errors=True)
            kit.mkdir(mode=0o755, parents=True)
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            make_kit(kit)
            (kit / "done").touch()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit("the shared files could not be made")


def _show_failure(verdict: dict[str, Any]) -> None:
    if verdict["verdict"] != "ok":
        _say(f"{verdict['id']}: {verdict['verdict']}: {verdict['detail'].strip()[-300:]}")


def _show_all(verdict: dict[str, Any]) -> None:
    _say(f"{verdict['id']}: {verdict['verdict']} ({verdict['seconds']:.1f} s) {verdict['command']}")
    for name in ("detail", "out", "err"):
        if verdict[name]:
            _say(f"    {name}: {verdict[name]}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
