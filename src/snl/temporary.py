"""Temporary files and folders whose names say which process made them.

A killed process cannot remove its temporary files. Their names contain the machine and the process
that made them, so that the next run recognises and removes them.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

FOREIGN_AGE = 24 * 3600.0
"""Seconds without a change after which a file of a process on another machine is stale."""
_LONGEST = 200
"""Bytes of a file's name that its temporary file repeats; file systems allow 255 in all."""
_PATTERN = re.compile(
    r"\.(?P<name>.+)\.(?:(?P<host>[0-9a-f]{8})-)?(?P<pid>\d{1,20})(?:-\d+)?\.tmp", re.DOTALL
)
_PAUSE = 100
"""A folder is not searched again before this many times the duration of the last search."""

_numbers = itertools.count()
_active: set[str] = set()
"""Names of this process's own temporary files and folders."""
_next_search: dict[Path, float] = {}


def temporary_path(target: Path) -> Path:
    """Return the name of a new temporary file in the folder of `target`; nothing is created."""
    name = f".{_short(target.name)}.{_host()}-{os.getpid()}-{next(_numbers)}.tmp"
    return target.with_name(name)


@contextmanager
def temporary_file(target: Path, mode: int = 0o666) -> Iterator[Path]:
    """Create an empty temporary file in the folder of `target`; it is removed after the block.

    Args:
        target: the file that it will replace. Files that killed runs left are removed.
        mode: permissions, from which the umask is taken.

    Raises:
        OSError: it cannot be created.
    """
    remove_stale(target)
    path = temporary_path(target)
    _active.add(path.name)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        yield path
    finally:
        with suppress(OSError):  # it was renamed, or its folder does not exist
            path.unlink()
        _active.discard(path.name)


@contextmanager
def temporary_folder(name: str, parent: Path | None = None) -> Iterator[Path]:
    """Create a folder for temporary files; it is removed after the block, with its contents.

    Args:
        name: the beginning of its name. Folders of this name that killed runs left are removed.
        parent: where; None: the system's folder for temporary files.

    Raises:
        OSError: it cannot be created.
    """
    target = Path(parent or tempfile.gettempdir()) / name
    remove_stale(target)
    path = temporary_path(target)
    _active.add(path.name)
    try:
        path.mkdir(mode=0o700)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        _active.discard(path.name)


def remove_stale(target: Path) -> None:
    """Remove the temporary files in the folder of `target` whose process no longer runs.

    Large folders are not searched at every call: the search takes at most one percent of the time.
    """
    folder = target.parent
    started = time.monotonic()
    if started < _next_search.get(folder, 0.0):
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".tmp") and _is_stale(entry, target.name):
                _remove(entry)
    now = time.monotonic()
    _next_search[folder] = now + _PAUSE * (now - started)


def _is_stale(entry: os.DirEntry[str], name: str) -> bool:
    match = _PATTERN.fullmatch(entry.name)
    if match is None or entry.name in _active:
        return False
    if match["host"] is None and match["name"] != name:
        return False  # a name of earlier versions, which other programs may use too
    if match["host"] not in (None, _host()):
        with suppress(OSError):
            return time.time() - entry.stat(follow_symlinks=False).st_mtime > FOREIGN_AGE
        return False
    pid = int(match["pid"])
    return pid == os.getpid() or not _is_running(pid)


def _remove(entry: os.DirEntry[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path, ignore_errors=True)
    else:
        with suppress(OSError):
            Path(entry.path).unlink()


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # os.kill would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OverflowError:
        return False
    except OSError:  # a process of another user
        return True
    return True


@lru_cache(maxsize=1)
def _host() -> str:
    """Return eight hexadecimal digits for what process numbers belong to: machine or container."""
    spaces = platform.node()
    with suppress(OSError):
        spaces += str(Path("/proc/self/ns/pid").readlink())
    return hashlib.blake2b(spaces.encode(), digest_size=4).hexdigest()


def _short(name: str) -> str:
    """Return a name, or its beginning and a hash if it is too long to be extended."""
    encoded = os.fsencode(name)
    if len(encoded) <= _LONGEST:
        return name
    digest = hashlib.blake2b(encoded, digest_size=8).hexdigest()
    return os.fsencode(name)[: _LONGEST - 17].decode("utf-8", "ignore") + "-" + digest
