"""What an attempt is: how its files are made, its command, and the outcome expected of it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.hostile.site import Site

KINDS = {
    1: "images",
    2: "folders and masks",
    3: "manifests",
    4: "outputs",
    5: "lost work",
    6: "sharing",
    7: "silent corruption",
    8: "hangs, tracebacks",
    9: "feedback",
    10: "memory",
    11: "advice",
}
"""The kinds of fault, by number."""

FAILURES = (
    *("traceback", "hang", "silent error", "input overwritten", "result lost"),
    *("refused wrongly", "unclear", "left behind", "broken attempt"),
)
"""Verdicts other than `ok`."""


@dataclass(frozen=True)
class Command:
    """A command line, or a call of the library, and the environment it runs in.

    Attributes:
        arguments: of `snl`; None: `call` runs instead.
        call: returns a JSON value; an SnlError that it raises counts as a refusal.
        real: start a new interpreter (`python -m snl`) rather than fork a warm one.
        environment: variables to set; None removes one.
        before: runs in the child just before the command (limits, user id, closed streams).
        stdout, stderr: file to connect instead of the captured one; `closed`: none.
        folder: working directory.
        stop: signal to send, and what has to be true first; it gets the folder of the captured
            streams `out` and `err`.
    """

    arguments: Sequence[str | bytes | Path] | None = None
    call: Callable[[], Any] | None = None
    real: bool = False
    environment: Mapping[str, str | None] = field(default_factory=dict)
    before: Callable[[], None] | None = None
    stdout: str = ""
    stderr: str = ""
    folder: Path | None = None
    stop: tuple[signal.Signals, Callable[[Path], bool]] | None = None

    def line(self) -> str:
        """Return the command as text, for reports."""
        if self.arguments is None:
            return f"call {getattr(self.call, '__qualname__', self.call)}"
        extra = [f"{k}={v}" for k, v in self.environment.items()]
        return " ".join([*extra, "snl", *(_quoted(os.fsdecode(a)) for a in self.arguments)])


@dataclass(frozen=True)
class Result:
    """What a command did.

    Attributes:
        status: exit status; negative: the signal that ended it; None: it ran out of time.
        out, err: what it printed.
        value: what a call returned.
        seconds: wall time.
        memory: largest resident memory in bytes.
    """

    status: int | None
    out: str
    err: str
    value: Any = None
    seconds: float = 0.0
    memory: int = 0


Check = Callable[["Site", Result], str | None]
"""Returns what is wrong with a result; None: nothing."""


@dataclass(frozen=True)
class Outcome:
    """One of the outcomes that are accepted.

    Attributes:
        name: `right`, `refused` or `partial`.
        statuses: exit statuses that fit.
        says: regular expressions, each of which must be found in a line on stderr or stdout.
        check: of files and values.
    """

    name: str
    statuses: tuple[int, ...]
    says: tuple[str, ...] = ()
    check: Check | None = None


def right(check: Check | None = None, *says: str, status: tuple[int, ...] = (0,)) -> Outcome:
    """Return the outcome that the command does what it should."""
    return Outcome("right", status, says, check)


def refused(*says: str, check: Check | None = None) -> Outcome:
    """Return the outcome of one clear line, status 2 and nothing written."""
    return Outcome("refused", (2,), says, check)


def partial(*says: str, check: Check | None = None, status: tuple[int, ...] = (0, 1, 2)) -> Outcome:
    """Return the outcome of one clear line for each bad thing, and the rest done."""
    return Outcome("partial", status, says, check)


@dataclass(frozen=True)
class Attempt:
    """One hostile test.

    Attributes:
        id: unique name.
        kind: number of KINDS.
        make: makes the files and returns the command; runs in the attempt's own folder.
        expected: the outcomes accepted, the best first.
        writes: patterns of files that the command may create or change, relative to the folder.
        timeout: seconds after which it counts as a hang.
        fast: part of `make test`.
        alone: runs while nothing else does, because it needs memory or the clock.
    """

    id: str
    kind: int
    make: Callable[[Site], Command]
    expected: tuple[Outcome, ...]
    writes: tuple[str, ...] = ()
    timeout: float = 60.0
    fast: bool = False
    alone: bool = False


def _quoted(text: str) -> str:
    shown = text.encode("unicode_escape", "surrogateescape").decode("ascii", "replace")
    return shown if re.fullmatch(r"[\w./=:,+\-]+", shown) else f"'{shown[:200]}'"
