"""The command `snl`. Its words are in `arguments.py`, one function a verb in `verbs/`; heavy
imports happen inside the verbs, so that help is fast."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from snl.cli.arguments import parse
from snl.cli.calibrate import calibrate
from snl.cli.common import BAD_INPUT, OK, STOPPED, say
from snl.cli.export import export
from snl.cli.inspect import inspect
from snl.cli.learn import bench, demo, doctor, train
from snl.cli.measure import evaluate, probe, report
from snl.errors import SnlError

VERBS = {
    "demo": demo,
    "doctor": doctor,
    "train": train,
    "calibrate": calibrate,
    "inspect": inspect,
    "evaluate": evaluate,
    "report": report,
    "probe": probe,
    "export": export,
    "bench": bench,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0: done; 1: done and found problems; 2: bad input, told in one line; 130: stopped by Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):  # a name that the console cannot show is no crash
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = parse(VERBS, arguments)
    try:
        return int(options.run(options))
    except SnlError as error:
        return _complain(" ".join(str(error).split()))
    except KeyboardInterrupt:
        say("stopped")
        return STOPPED
    except BrokenPipeError:  # the reader (head, less) has gone; nothing is left to tell it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (MemoryError, RuntimeError) as error:
        told = f"{type(error).__name__} {error}".lower()
        if not any(words in told for words in ("memoryerror", "out of memory", "allocate memory")):
            raise
        return _complain("out of memory; lower --image-size, --batch-size or --cache-memory")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("torch", "torchvision", "timm"):
            return _complain(f"{error.name} is not installed: pip install 'snl-ad[train]'")
        raise


def _complain(text: str) -> int:
    say(f"snl: error: {text}")
    return BAD_INPUT
