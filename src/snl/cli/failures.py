"""Explain errors of the system in one line, and write the details of unexpected ones to a file."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from snl.errors import SnlError
from snl.text import printable

KEPT = 20
"""Files with details that are kept; older ones are deleted."""
_INSTALL = {
    **dict.fromkeys(("torch", "torchvision", "timm"), "pip install 'snl-ad[train]'"),
    **dict.fromkeys(("numpy", "scipy", "PIL", "safetensors", "tqdm"), "pip install snl-ad"),
}
"""How to install a missing module."""
_OUT_OF_MEMORY = (
    *("out of memory", "allocate memory", "unable to allocate", "bad_alloc", "not enough memory"),
    *("failed to map segment", "alloc_cpu"),
)
_NO_THREAD = ("can't start new thread", "cannot create thread", "thread creation failed")
_REMEDIES = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some space or choose another folder",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f) or choose another folder",
    errno.EACCES: "change the permissions or choose another folder",
    errno.EPERM: "change the permissions or choose another folder",
    errno.EROFS: "choose a folder that can be written",
    errno.EMFILE: "raise the limit of open files: ulimit -n 4096",
    errno.ENFILE: "close other programs: the system has too many open files",
    errno.EIO: "check the disk, the cable or the network share",
    errno.ESTALE: "check the network share and mount it again",
    errno.ENOTCONN: "check the network share and mount it again",
    errno.ETIMEDOUT: "check the network",
    errno.ENAMETOOLONG: "use shorter names",
    errno.ELOOP: "remove the symbolic link that leads back to itself",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file; check the path",
    errno.EISDIR: "give the path of a file",
    errno.ENXIO: "give a regular file, not a device or a socket",
    errno.ENODEV: "give a regular file, not a device or a socket",
    errno.ENOMEM: "close other programs or raise the limit of memory (ulimit -v)",
    errno.EAGAIN: "raise the limit of processes and threads (ulimit -u) or close other programs",
    errno.EBADF: "it is closed; leave out >&-",
}


def explain(error: BaseException, from_stdout: bool = False) -> str | None:
    """Return what an error means and how to fix it in one line, or None for a defect of snl.

    Args:
        error: any exception.
        from_stdout: an `OSError` came from writing to standard output.
    """
    if isinstance(error, SnlError):
        return printable(error)
    if isinstance(error, OSError):
        return _explain_system(error, from_stdout)
    if is_out_of_memory(error):
        return "out of memory; close other programs or raise the limit of memory (ulimit -v)"
    text = str(error).lower()
    if isinstance(error, RuntimeError) and any(words in text for words in _NO_THREAD):
        return (
            "no further thread can be started; raise the limit of processes and threads "
            "(ulimit -u) or close other programs"
        )
    if isinstance(error, RuntimeError) and text.startswith("symlink loop"):
        name = _name(str(error).partition(" from ")[2].strip("'"))
        return f"{name}: {os.strerror(errno.ELOOP)}; {_REMEDIES[errno.ELOOP]}"
    if isinstance(error, RecursionError):
        return (
            f"an input is nested too deeply to be read ({printable(error)[:80]}); check the JSON "
            "and manifest files given"
        )
    if isinstance(error, UnicodeEncodeError):
        return (
            f"a name contains characters that cannot be written as {error.encoding} "
            f"({printable(ascii(error.object[error.start : error.end]))[:40]}); rename the file"
        )
    if isinstance(error, UnicodeDecodeError):
        return f"a text file is not {error.encoding} ({error.reason}); save it as UTF-8"
    if isinstance(error, ImportError):
        return _explain_import(error)
    if isinstance(error, ValueError) and "embedded null" in text:
        return "a path contains a NUL character; correct the file that names it"
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python, a library or a GPU means that memory is exhausted."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError | ImportError | OSError):
        return False
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def _explain_system(error: OSError, from_stdout: bool) -> str:
    reason = error.strerror or printable(error) or type(error).__name__
    number = error.errno or 0
    remedy = _REMEDIES.get(number, "check the path and the disk")
    if from_stdout:
        if number in (errno.EACCES, errno.EPERM, errno.ENOENT):
            remedy = "redirect it to another place"
        return f"standard output cannot be written ({reason}); {remedy}"
    names = [n for n in (error.filename, error.filename2) if n is not None and n != ""]
    if not names:
        return f"{reason}; {remedy}"
    shown = " -> ".join(_name(name) for name in names)
    return f"{shown}: {reason}; {remedy}"


def _name(name: object) -> str:
    """Return a file name for a message: printable, and not longer than messages can be read."""
    text = printable(os.fsdecode(name) if isinstance(name, bytes) else name)
    return text if len(text) <= 300 else f"{text[:150]}...{text[-100:]}"


def check_working_directory() -> None:
    """Check that the working directory exists.

    Raises:
        SnlError: it was deleted.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise SnlError(
            "the working directory does not exist any more; change to another folder"
        ) from None
    except OSError:  # one that cannot be read can be used
        return


def _explain_import(error: ImportError) -> str | None:
    name = (error.name or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError):
        install = _INSTALL.get(name)
        return None if install is None else f"{error.name} is not installed: {install}"
    if name in ("", "snl"):  # a shared library that the loader refuses has no name
        library = ".so" in str(error) or ".dll" in str(error) or ".dylib" in str(error)
        if name == "snl" or not library:
            return None
    return (
        f"{name or 'a package'} is installed but cannot be imported ({printable(error)[:150]}); "
        "see snl doctor, and install it again"
    )


def write_details(error: BaseException, arguments: Sequence[str]) -> Path | None:
    """Write traceback, versions and command line to a new file; return its path.

    Returns:
        None: no folder can be written.
    """
    try:
        text = _details(error, arguments)
    except Exception:  # an exception whose own text raises, or no memory
        text = f"{type(error).__name__}\n"
    for folder in _folders():
        try:
            return _write_new(folder, text)
        except (OSError, ValueError):
            continue
    return None


def _folders() -> Iterator[Path]:
    """Yield the folders for the details: the user's state folder, then one for temporary files."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if state.is_absolute():
        yield state / "snl"
    else:
        with suppress(RuntimeError, KeyError, OSError):  # this user has no home
            home = Path.home()
            if home.is_absolute():
                yield home / ".local" / "state" / "snl"
    import tempfile

    with suppress(OSError):
        user = getattr(os, "getuid", lambda: 0)()
        yield Path(tempfile.gettempdir()) / f"snl-{user}"


def _write_new(folder: Path, text: str) -> Path:
    """Write a file that did not exist, readable by its owner only; return its path."""
    import time

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = time.time_ns()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now // 10**9))
    path = folder / f"error-{stamp}-{now // 1000 % 10**6:06}-{os.getpid()}.txt"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    number = os.open(path, flags, 0o600)
    with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    with suppress(OSError):
        for old in sorted(folder.glob("error-*.txt"))[:-KEPT]:
            old.unlink()
    return path


def _details(error: BaseException, arguments: Sequence[str]) -> str:
    """Return what a report of a defect needs: no content of files, no environment variables."""
    import platform
    import traceback

    lines = [
        f"snl {_version('snl-ad')}, Python {sys.version.split()[0]}, {platform.platform()}",
        f"command: snl {' '.join(map(repr, arguments))}",
        *(f"{n} {_version(n)}" for n in ("numpy", "pillow", "torch", "onnxruntime", "openvino")),
        "",
        "".join(traceback.format_exception(error)),
    ]
    return "\n".join(lines)


def _version(name: str) -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version(name)
    except Exception:  # not installed, or its metadata is damaged
        return "-"
