"""Locks between processes, for files that are read, changed and written again.

Files are replaced as a whole, so readers need no lock. A lock is an open file beside the one it
protects, `.NAME.lock`, which the operating system locks: it ends with its process, however that
ends. The file itself is removed with the lock where that is possible.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from snl.errors import SnlError
from snl.files import is_device, not_writable, real_path

_INTERVAL = 0.05
_PATIENCE = 0.5
"""Seconds of waiting before it is said."""
_TAKEN = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


@contextmanager
def locked(
    path: str | Path,
    busy: str,
    *,
    wait: float = 0.0,
    note: Callable[[str], None] = lambda text: None,
    error: type[SnlError] = SnlError,
) -> Iterator[None]:
    """Keep other processes that lock the same file away from it during the block.

    The threads of one process exclude each other as well. On file systems without locks the block
    runs without one.

    Args:
        path: the file; it need not exist. A symbolic link has the lock of its target.
        busy: what to say if another process has the lock, after the path.
        wait: seconds to wait for it.
        note: called once with a sentence if it takes long.
        error: what is raised if another process has the lock.

    Raises:
        SnlError: another process has the lock, or its file cannot be written.
    """
    path = Path(path)
    if is_device(path):
        yield
        return
    try:
        target = real_path(path)
        file = lock_path(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        number = _acquire(file, path, wait, note)
    except OSError as failure:
        raise not_writable(path, failure) from None
    if number is None:
        raise error(f"{path}: {busy}")
    try:
        yield
    finally:
        with suppress(OSError):  # while it is locked, so that nobody else holds it
            file.unlink()
        os.close(number)


def lock_path(target: Path) -> Path:
    """Return the lock file of a file."""
    return target.with_name(f".{target.name[:200]}.lock")


def _acquire(file: Path, path: Path, wait: float, note: Callable[[str], None]) -> int | None:
    """Return the descriptor of the locked file; None: another process had the lock all the time."""
    started = time.monotonic()
    said = False
    while True:
        number = _try(file)
        waited = time.monotonic() - started
        if number is not None or waited >= wait:
            return number
        if waited >= _PATIENCE and not said:
            said = True
            note(f"{path}: another process is changing it; waiting for up to {wait:.0f} s")
        time.sleep(_INTERVAL)


def _try(file: Path) -> int | None:
    """Return the descriptor of the locked file; None: another process has the lock."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    number = os.open(file, flags, 0o666)
    try:
        if _lock(number) and _is_current(number, file):
            return number
    except BaseException:
        os.close(number)
        raise
    os.close(number)
    return None


def _lock(number: int) -> bool:
    """Lock an open file; return False if another process has it."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as failure:
        if failure.errno in _TAKEN:
            return False
        if failure.errno not in _UNSUPPORTED:
            raise
    return True


def _is_current(number: int, file: Path) -> bool:
    """Return whether the file was not removed by its last owner before it was locked."""
    try:
        return os.path.samestat(os.fstat(number), file.stat())
    except FileNotFoundError:
        return False
