"""Run commands: in a fork of this warm process, or in a new interpreter."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import runpy
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.attempt import Command, Result

PRELOAD = ("torch", "torchvision", "timm", "scipy.ndimage", "scipy.optimize", "PIL.Image", "snl")
"""Modules that the warm process imports once."""


_MOST_MEMORY = 12 * 2**30
"""Address space of a command in bytes: one that reads without end must not take the machine."""


def warm() -> None:
    """Import what every command needs."""
    import importlib

    from PIL import Image

    for name in PRELOAD:
        importlib.import_module(name)
    for name in ("inspector", "torch_engine", "bundle"):
        with contextlib.suppress(ImportError):
            importlib.import_module(f"snl.runtime.{name}")
    for name in ("snl.data.catalog", "snl.training.train", "snl.cli.main"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    Image.init()


def run(command: Command, folder: Path, timeout: float) -> Result:
    """Run a command and return what it did; it is killed after `timeout` seconds."""
    return run_together([command], folder, timeout)[0]


def run_together(commands: list[Command], folder: Path, timeout: float) -> list[Result]:
    """Run commands at the same time and return their results in order."""
    started = time.monotonic()
    children = [_Child(command, folder) for command in commands]
    for child in children:
        child.wait(max(0.1, started + timeout - time.monotonic()))
    return [child.result for child in children]


class _Child:
    """One running command; its streams go to files outside the attempt's folder."""

    def __init__(self, command: Command, folder: Path) -> None:
        self._command = command
        self._capture = Path(tempfile.mkdtemp(prefix="hostile-capture-"))
        self._capture.chmod(0o777)
        self._started = time.monotonic()
        for name in ("out", "err", "value"):
            (self._capture / name).touch()
            (self._capture / name).chmod(0o666)
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            _become(command, folder, self._capture)
        self._descriptor = os.pidfd_open(self._pid)
        self.result = Result(None, "", "")

    def wait(self, timeout: float) -> None:
        """Wait for the end, send the command's signal on the way, and read what it printed."""
        deadline = time.monotonic() + timeout
        stop = self._command.stop
        while time.monotonic() < deadline:
            if stop and stop[1](self._capture):
                os.kill(self._pid, stop[0])
                stop = None
            step = 0.02 if stop else deadline - time.monotonic()
            if select.select([self._descriptor], [], [], max(0.0, step))[0]:
                break
        ended = bool(select.select([self._descriptor], [], [], 0)[0])
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)  # also what it left running
        _, status, usage = os.wait4(self._pid, 0)
        os.close(self._descriptor)
        read = {n: (self._capture / n).read_bytes() for n in ("out", "err", "value")}
        for path in self._capture.iterdir():
            path.unlink()
        self._capture.rmdir()
        self.result = Result(
            os.waitstatus_to_exitcode(status) if ended else None,
            read["out"].decode("utf-8", "surrogateescape"),
            read["err"].decode("utf-8", "surrogateescape"),
            json.loads(read["value"]) if read["value"] else None,
            time.monotonic() - self._started,
            usage.ru_maxrss * 1024,
        )


def _become(command: Command, folder: Path, capture: Path) -> None:
    """Turn this forked child into the command; never returns."""
    status = 99
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(command.folder or folder)
        for name, value in command.environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        descriptors = _connect(command, capture)
        if command.arguments is not None and command.real:
            _execute(command, descriptors)
        _redirect(descriptors)
        if command.before:
            command.before()
        status = _forked(command, capture / "value")
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(status)


def _connect(command: Command, capture: Path) -> dict[int, int | None]:
    """Open the three standard streams; None: closed."""
    opened: dict[int, int | None] = {0: os.open(os.devnull, os.O_RDONLY)}
    for number, name, file in ((1, command.stdout, "out"), (2, command.stderr, "err")):
        path = name or str(capture / file)
        opened[number] = None if name == "closed" else os.open(path, os.O_WRONLY | os.O_APPEND)
    return opened


def _redirect(descriptors: dict[int, int | None]) -> None:
    for number, source in descriptors.items():
        if source is None:
            os.close(number)
        else:
            os.dup2(source, number)
    sys.stdin = os.fdopen(0, "r", closefd=False)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream: Any = None
        if descriptors[number] is not None:
            errors = "strict" if number == 1 else "backslashreplace"
            stream = open(number, "w", encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _execute(command: Command, descriptors: dict[int, int | None]) -> None:
    """Replace this process by a new interpreter that runs the command."""
    assert command.arguments is not None
    line = [sys.executable, "-m", "snl", *map(os.fsencode, command.arguments)]
    for number, source in descriptors.items():
        if source is not None:
            os.dup2(source, number)
            os.set_inheritable(number, True)
    if command.before:
        command.before()
    for number, source in descriptors.items():
        if source is None:
            os.close(number)
    os.execv(sys.executable, line)


def _forked(command: Command, value: Path) -> int:
    """Run the command in this process, as `python -m snl` does, and return the exit status."""
    if command.arguments is None:
        assert command.call is not None
        return _called(command.call, value)
    sys.argv = ["snl", *(os.fsdecode(a) for a in command.arguments)]
    try:
        runpy.run_module("snl", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return _finish(_status(end.code))
    except KeyboardInterrupt:
        traceback.print_exc()
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
    return _finish(0)


def _status(code: Any) -> int:
    if code is None or isinstance(code, int):
        return int(code or 0)
    sys.stderr.write(f"{code}\n")
    return 1


def _finish(status: int) -> int:
    """Flush the streams as the interpreter does at exit: a failure is status 120."""
    import atexit

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except Exception as error:
            sys.stderr.write(f"Exception ignored in: {stream}\n{error}\n")
            return 120
    return status


def _called(call: Callable[[], Any], value: Path) -> int:
    from snl.errors import SnlError

    try:
        result = call()
    except SnlError as error:
        sys.stderr.write(f"snl: error: {error}\n")
        return 2
    except BaseException:
        traceback.print_exc()
        return 1
    value.write_text(json.dumps(result), encoding="utf-8")
    return 0
