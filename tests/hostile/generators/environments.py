"""Hostile environments: limits, users, folders and variables of the process."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

NOBODY = 65534
"""A user without rights."""

VARIABLES: dict[str, Mapping[str, str | None]] = {
    "no-home": {"HOME": None},
    "home-missing": {"HOME": "/nowhere/at/all"},
    "tmpdir-missing": {"TMPDIR": "/nowhere/at/all"},
    "tmpdir-is-file": {"TMPDIR": "/etc/hostname"},
    "c-locale": {"LC_ALL": "C", "LANG": "C"},
    "posix-ascii": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ascii-streams": {"PYTHONIOENCODING": "ascii"},
    "latin1-streams": {"PYTHONIOENCODING": "latin-1"},
    "columns-0": {"COLUMNS": "0"},
    "columns-1": {"COLUMNS": "1"},
    "columns-text": {"COLUMNS": "wide"},
    "no-path": {"PATH": None},
    "utc-odd": {"TZ": "Nowhere/Odd"},
    "threads-0": {"OMP_NUM_THREADS": "0"},
    "no-user": {"USER": None, "LOGNAME": None},
    "dumb": {"TERM": "dumb", "NO_COLOR": "1"},
}
"""Environment variables that surprise programs."""


def file_size(limit: int) -> Callable[[], None]:
    """Return the function that lets no file grow beyond `limit` bytes, as a full disk does."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def open_files(limit: int) -> Callable[[], None]:
    """Return the function that allows so many open files."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def address_space(limit: int) -> Callable[[], None]:
    """Return the function that allows so many bytes of address space."""
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def unprivileged() -> None:
    """Become a user who owns nothing; does nothing for one who is not root."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def folder_gone(folder: Path) -> Callable[[], None]:
    """Return the function that deletes the working directory after going there."""

    def remove() -> None:
        folder.mkdir(exist_ok=True)
        os.chdir(folder)
        shutil.rmtree(folder)

    return remove


def after(seconds: float) -> Callable[[Path], bool]:
    """Return a condition that holds after so many seconds from its first call."""
    started: list[float] = []

    def passed(_: Path) -> bool:
        if not started:
            started.append(time.monotonic())
        return time.monotonic() - started[0] >= seconds

    return passed


def grown(
    folder: Path | None, pattern: str, least: int = 1, delay: float = 0.0, patience: float = 6.0
) -> Callable[[Path], bool]:
    """Return a condition: `delay` seconds after a file has `least` bytes, or out of patience.

    Args:
        folder: of the file; None: of the captured streams.
        pattern: of the file's name, relative to the folder.
        least: bytes.
        delay, patience: seconds.
    """
    late, wait = after(patience), after(delay)

    def large(path: Path) -> bool:
        try:
            return path.is_file() and path.stat().st_size >= least
        except OSError:
            return False

    seen: list[Path] = []

    def reached(captured: Path) -> bool:
        if late(captured):
            return True
        if not seen:
            seen.extend(filter(large, (folder or captured).glob(pattern)))
        return bool(seen) and wait(captured)

    return reached
