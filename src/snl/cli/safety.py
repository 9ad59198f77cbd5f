"""The last safety net: every error ends in one line and an exit status, never in a traceback.

Errors that have a remedy (no space, no permission, no memory, ...) are explained and exit with 2.
An error that nobody expected exits with 70; its traceback is written to a file. With SNL_DEBUG=1
tracebacks are printed too. Imports nothing heavy, because it guards the imports of the rest.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence

from snl.cli.console import BAD_INPUT, INTERNAL, OK, STOPPED, say
from snl.cli.failures import explain
from snl.signals import Stopped

DEBUG = "SNL_DEBUG"
"""Environment variable: 1 prints tracebacks."""


SPINS = "1000"
"""Rounds, some microseconds, that a thread of the network waits actively for the next work."""


def guard(run: Callable[[], int], arguments: Sequence[str] = ()) -> int:
    """Run a function and return its exit status; explain its error in one line.

    What is still buffered for standard output is written, so that a full disk behind it is an
    error and not lost.

    Args:
        run: returns an exit status. `SystemExit` passes through.
        arguments: words of the command line, for the file with the details of an internal error.
    """
    try:
        try:
            status = run()
        finally:
            _flush()  # the text of --help and --version too, whose errors argparse hides
    except SystemExit:
        raise
    except KeyboardInterrupt as stop:
        say("stopped")
        return stop.status if isinstance(stop, Stopped) else STOPPED
    except BaseException as error:  # the last net: whatever it is, the user gets one line
        return _failed(error, arguments)
    return status


def prepare() -> None:
    """Make the standard streams, the hooks and the waiting of this process safe; called once, at
    its start."""
    _wait_without_spinning()
    _open_streams()
    if debugging():
        return
    import threading
    import warnings

    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries, to developers
    threading.excepthook = _thread_failed
    sys.unraisablehook = lambda unraisable: None  # errors of destructors, mostly at exit


def debugging() -> bool:
    """Return whether SNL_DEBUG is set to anything but 0."""
    return os.environ.get(DEBUG, "0") not in ("", "0")


def _failed(error: BaseException, arguments: Sequence[str]) -> int:
    """Say what happened and return the exit status."""
    try:
        if isinstance(error, BrokenPipeError):  # head or less has closed the pipe: nobody reads on
            _drop_output()
            return OK
        if debugging():
            import traceback

            traceback.print_exception(error)
        message = explain(error, from_stdout=isinstance(error, OSError) and _output_is_broken())
        if message is not None:
            say(f"snl: error: {message}")
            return BAD_INPUT
        _report(error, arguments)
        return INTERNAL
    except KeyboardInterrupt:
        return STOPPED
    except BaseException:  # not even the explanation works: out of memory or of stack
        say(f"snl: internal error: {type(error).__name__}; details could not be written")
        return INTERNAL


def _report(error: BaseException, arguments: Sequence[str]) -> None:
    from snl.cli.failures import write_details

    file = write_details(error, arguments)
    where = "details could not be written" if file is None else f"details: {file}"
    name = type(error).__name__
    say(f"snl: internal error: {name}{f': {error}' if str(error) else ''}; {where}")


def _thread_failed(failure: object) -> None:
    """Report an error of a background thread, whose own traceback nobody asked for."""
    error = getattr(failure, "exc_value", None)
    if error is not None and not isinstance(error, SystemExit):
        _failed(error, sys.argv[1:])


def _open_streams() -> None:
    """Replace closed standard streams, and let no message end the work.

    Without this, the next file that is opened would get the number of a closed stream, and
    messages of libraries would be written into it. Writing results to a closed standard output
    stays an error; messages that cannot be written are dropped.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)  # results written to a read-only file are an error
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        old = sys.stdout
        lines, through = old.line_buffering, old.write_through
        sys.stdout = _Results(
            old.detach(),
            old.encoding,
            "backslashreplace",
            line_buffering=lines,
            write_through=through,
        )
    errors = io.FileIO(2, "w", closefd=False)
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    sys.stderr = _Messages(
        io.BufferedWriter(errors), encoding, "backslashreplace", line_buffering=True
    )


class _Results(io.TextIOWrapper):
    """Standard output that remembers its first error: nothing that was lost is forgotten."""

    failure: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self.failure = self.failure or error
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self.failure = self.failure or error
            raise


class _Messages(io.TextIOWrapper):
    """Standard error that drops what cannot be written, as after `2>&1 | head`."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except (OSError, ValueError):
            _to_null(2)


def _flush() -> None:
    """Write what is buffered for standard output; raise its first error, now or earlier."""
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()
        failure = getattr(sys.stdout, "failure", None)
        if failure is not None:
            raise failure


def _output_is_broken() -> bool:
    """Return whether standard output cannot be written; it is dropped then."""
    try:
        _flush()
    except OSError:
        _drop_output()
        return True
    return False


def _drop_output() -> None:
    """Send what is still buffered nowhere, so that the interpreter does not fail on it at exit."""
    try:
        _to_null(sys.stdout.fileno())
        if isinstance(sys.stdout, _Results):
            sys.stdout.failure = None  # it is being reported
    except (OSError, ValueError, AttributeError):
        sys.stdout = io.StringIO()


def _to_null(number: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


def _wait_without_spinning() -> None:
    """Let idle threads of the network sleep soon, unless the environment says how they wait.

    By default GNU OpenMP's threads spin for milliseconds, which takes the core from whatever else
    runs on the machine; beside one busy process an inspection then takes several times as long
    (docs/results, "Speed as felt"). It must be set before PyTorch is loaded.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        os.environ["GOMP_SPINCOUNT"] = SPINS
