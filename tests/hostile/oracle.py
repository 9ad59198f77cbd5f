"""Run one attempt and judge it."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import shutil
import signal
import stat
import sys
import tempfile
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.hostile.attempt import Attempt, Command, Outcome, Result
from tests.hostile.runner import run
from tests.hostile.site import Site, strict_json

_ERROR_LINE = re.compile(r"^(snl( [\w-]+)*: )?error: ", re.IGNORECASE)
_RAW = re.compile(r"\.py:\d+: \w*(Warning|Error)\b|^\s*warnings\.warn|\bTIFF\w+: |\[W:|\[E:|\[h264")
_CRASH = re.compile(r"Traceback \(most recent call last\)|Exception ignored in|Fatal Python error")
_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
_SESSION = ".ses"
"""A file that ONNX Runtime leaves in the temporary folder."""
_LONGEST = 1500
"""Characters of a line that can be called clear."""


@dataclass(frozen=True)
class Verdict:
    """The judgement of an attempt: `ok` or one of FAILURES, with the reason."""

    id: str
    kind: int
    verdict: str
    detail: str
    command: str
    expected: str
    status: int | None
    seconds: float
    out: str
    err: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def attempt(test: Attempt, kit: Path, keep: Path | None = None) -> Verdict:
    """Run an attempt in a folder of its own and return the verdict.

    Args:
        test: the attempt.
        kit: folder of shared files.
        keep: folder in which the attempt's folder is kept; None: it is removed.
    """
    home = Path(tempfile.mkdtemp(prefix="hostile-"))
    home.chmod(0o755)
    root, scratch = home / "site", home / "tmp"
    root.mkdir(mode=0o755)
    scratch.mkdir()
    scratch.chmod(0o777)
    site = Site(root, kit)
    command = Command()
    result = Result(99, "", "")
    try:
        command = test.make(site)
        environment = {"TMPDIR": str(scratch), "COLUMNS": "100", **command.environment}
        command = Command(**{**command.__dict__, "environment": environment})
        before = _snapshot(root)
        result = run(command, root, test.timeout * _slowness())
        after = _snapshot(root)
        verdict, detail = _judge(test, site, result, before, after, command.line())
        left = [p.name for p in scratch.rglob("*") if p.is_file() and p.name != _SESSION]
        if verdict == "ok" and left:
            verdict, detail = "left behind", f"temporary files: {', '.join(left[:5])}"
    except Exception:
        verdict, detail = "broken attempt", traceback.format_exc()
    finally:
        if keep is not None:
            shutil.rmtree(keep / test.id, ignore_errors=True)
            shutil.copytree(root, keep / test.id, symlinks=True, ignore=_special)
        _remove(home)
    expected = " or ".join(o.name for o in test.expected)
    return Verdict(
        test.id,
        test.kind,
        verdict,
        _short(detail.replace(str(root), "."), 1200),
        _short(command.line().replace(str(root) + "/", ""), 800),
        expected,
        result.status,
        round(result.seconds, 3),
        _short(result.out.replace(str(root) + "/", ""), 1500),
        _short(result.err.replace(str(root) + "/", ""), 2500),
    )


def _slowness() -> float:
    """Return by how much a loaded machine is slower: the load per core, at least 1."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def _judge(
    test: Attempt,
    site: Site,
    result: Result,
    before: dict[str, str],
    after: dict[str, str],
    test_line: str,
) -> tuple[str, str]:
    """Return the verdict and its reason."""
    if result.status is None:
        return "hang", f"still running after {result.seconds:.0f} s"
    text = result.out + "\n" + result.err
    stopped = {o for outcome in test.expected for o in outcome.statuses}
    changed = [
        f"{name} ({'removed' if name not in after else 'changed'})"
        for name, value in before.items()
        if after.get(name) != value and not _matches(name, test.writes)
    ]
    if changed:
        return "input overwritten", ", ".join(changed[:5])
    if (
        -result.status in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
        and result.status not in stopped
    ):
        return "result lost", f"ended by signal {-result.status}"
    if result.status < 0 and result.status not in stopped:
        return "traceback", f"ended by signal {-result.status}"
    if _CRASH.search(text) or result.status in (70, 120):
        return "traceback", text[-600:]
    if raw := _RAW.search(text):
        return "unclear", f"raw message: {raw.group()}"
    if control := _CONTROL.search(text.replace("\r", "")):
        return "unclear", f"control character {control.group()!r} on the terminal"
    if unknown := _unknown_options(result, test_line):
        return "unclear", f"names options that do not exist: {', '.join(unknown)}"
    reasons = [_fit(outcome, site, result, before, after, test_line) for outcome in test.expected]
    if None not in reasons:
        best = next(r for r in sorted(filter(None, reasons), key=_closeness, reverse=True))
        return best
    return _complete(site, before, after, test) or ("ok", "")


def _unknown_options(result: Result, line: str) -> list[str]:
    """Return the options that error messages name and no verb has."""
    from tests.hostile.kinds.k04_outputs import option_strings

    named = {
        option
        for text in result.err.splitlines()
        if _ERROR_LINE.search(text) or text.startswith(("note:", "skipped:"))
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text)
    }
    return sorted(o for o in named - option_strings() if o not in line)


def _closeness(reason: tuple[str, str]) -> int:
    """Return how near an outcome was: one that fits but for its files says more."""
    order = ("silent error", "refused wrongly", "unclear", "left behind", "result lost")
    return order.index(reason[0]) if reason[0] in order else -1


def _fit(
    outcome: Outcome,
    site: Site,
    result: Result,
    before: dict[str, str],
    after: dict[str, str],
    test_line: str,
) -> tuple[str, str] | None:
    """Return why a result is not this outcome, or None."""
    lines = [line for line in result.err.replace("\r", "\n").splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR_LINE.search(line)]
    if result.status not in outcome.statuses:
        why = f"status {result.status}, expected {outcome.statuses} ({outcome.name})"
        if outcome.name == "right" and result.status == 2 and errors:
            return "refused wrongly", f"{why}: {errors[-1]}"
        return "silent error", why
    given = 2 * len(test_line)  # a message may repeat what the user wrote
    spoken = result.err.splitlines() + result.out.splitlines()
    for pattern in outcome.says:
        if not any(re.search(pattern, line, re.IGNORECASE) for line in spoken):
            verdict = "unclear" if errors else "silent error"
            return verdict, f"no line says /{pattern}/: {' | '.join(lines[-4:])}"
    if any(len(line) > _LONGEST + given for line in errors):
        return "unclear", f"a line of {max(map(len, errors))} characters"
    if outcome.name == "refused":
        if len(errors) != 1:
            return "unclear", f"{len(errors)} error lines: {' | '.join(lines[-6:])}"
        if changed := [n for n in before if after.get(n) != before[n]]:
            return "input overwritten", f"refused, but changed {', '.join(changed[:5])}"
        if new := [n for n in after if n not in before and after[n][0] != "d"]:
            return "left behind", f"refused, but wrote {', '.join(new[:5])}"
    complaint = outcome.check(site, result) if outcome.check else None
    if complaint:
        return "result lost" if outcome.name == "partial" else "silent error", complaint
    return None


def _complete(
    site: Site, before: dict[str, str], after: dict[str, str], test: Attempt
) -> tuple[str, str] | None:
    """Check the files that were written: expected ones, of strict JSON."""
    for name in after:
        if after[name] == before.get(name) or after[name][0] == "d":
            continue
        if name not in before and not _matches(name, test.writes):
            return "left behind", f"wrote {name}"
        path = site.root / name
        if path.is_file() and path.suffix in (".json", ".jsonl"):
            text = path.read_text(encoding="utf-8")
            try:
                for part in text.splitlines() if path.suffix == ".jsonl" else [text]:
                    strict_json(part)
            except ValueError as error:
                return "result lost", f"{name} is not JSON: {error}"
    return None


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _snapshot(root: Path) -> dict[str, str]:
    """Return type, mode, content hash or link target of everything below a folder."""
    found: dict[str, str] = {}
    for folder, names, files in os.walk(os.fsencode(root)):
        for name in (*names, *files):
            path = os.path.join(folder, name)  # noqa: PTH118
            key = os.fsdecode(os.path.relpath(path, os.fsencode(root)))
            found[key] = _describe(path)
    return found


def _describe(path: bytes) -> str:
    status = os.lstat(path)
    mode = f"{stat.S_IMODE(status.st_mode):o}"
    if stat.S_ISDIR(status.st_mode):
        return "d" + mode
    if stat.S_ISLNK(status.st_mode):
        return f"l {os.fsencode(Path(os.fsdecode(path)).readlink())!r}"
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:  # noqa: PTH123
            return f"f{mode} {hashlib.file_digest(file, 'sha256').hexdigest()}"
    return f"s {status.st_mode:o} {status.st_rdev}"


def _special(folder: str, names: list[str]) -> list[str]:
    """Return the names in a folder that are neither files, links nor folders."""
    modes = {name: os.lstat(f"{folder}/{name}").st_mode for name in names}
    kinds = (stat.S_ISREG, stat.S_ISLNK, stat.S_ISDIR)
    return [name for name, mode in modes.items() if not any(is_kind(mode) for is_kind in kinds)]


def _remove(folder: Path) -> None:
    for parent, names, _ in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            if not path.is_symlink():
                path.chmod(0o755)
    sys.setrecursionlimit(20_000)
    shutil.rmtree(os.fsencode(folder), ignore_errors=True)


def _short(text: str, length: int) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= length else f"{text[: length // 2]} ... {text[-length // 2 :]}"
