"""The command `snl`: finds the verb, runs it, and turns its errors into messages and exit statuses.

Every verb is a module of this package with `SUMMARY`, `Options`, `add_parser(verbs)` and
`run(options)`. Heavy imports happen inside `run`, and only the parser of the verb that is called
is built with all its options, so that help is fast.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snl import __version__
from snl.cli import (
    bench,
    calibrate,
    demo,
    doctor,
    evaluate,
    export,
    info,
    inspect,
    probe,
    report,
    train,
)
from snl.cli.common import BAD_INPUT, OK, STOPPED, say
from snl.cli.options import format_examples
from snl.errors import SnlError
from snl.signals import Stopped, stoppable

VERBS: dict[str, Any] = {
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
    "info": info,
}
"""The modules of the verbs, in the order of `snl --help`."""

_INSTALL = {
    **dict.fromkeys(("torch", "torchvision", "timm"), "pip install 'snl-ad[train]'"),
    **dict.fromkeys(("numpy", "scipy", "PIL", "safetensors", "tqdm"), "pip install snl-ad"),
}
"""How to install a missing module."""
_OUT_OF_MEMORY = ("memoryerror", "out of memory", "allocate memory")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    0: done; 1: done, with problems found; 2: wrong input, explained in one line; 130, 143, 129:
    stopped by Ctrl-C, SIGTERM, SIGHUP. Command lines that cannot be parsed raise `SystemExit(2)`.
    """
    for stream in (sys.stdout, sys.stderr):  # a console that cannot show a name must not crash
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    verb, options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        with stoppable():
            return int(verb.run(options))
    except SnlError as error:
        return _fail(" ".join(str(error).split()))
    except KeyboardInterrupt as stop:
        say("stopped")
        return stop.status if isinstance(stop, Stopped) else STOPPED
    except BrokenPipeError:  # the reader (head, less) has closed the pipe, so nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (MemoryError, RuntimeError) as error:
        message = f"{type(error).__name__} {error}".lower()
        if not any(words in message for words in _OUT_OF_MEMORY):
            raise
        return _fail("out of memory; reduce --image-size, --batch-size or --cache-memory")
    except ModuleNotFoundError as error:
        install = _INSTALL.get((error.name or "").partition(".")[0])
        if install is None:
            raise
        return _fail(f"{error.name} is not installed: {install}")


def parse(arguments: Sequence[str]) -> tuple[Any, argparse.Namespace]:
    """Return the module of the verb and its options.

    Raises:
        SystemExit: 2 for a command line that cannot be parsed, 0 after --help and --version.
    """
    # the options before the verb, --help and --version, take no value
    name = next((word for word in arguments if not word.startswith("-")), None)
    verb = VERBS.get(name or "")
    parser = make_parser(name)
    namespace = verb.Options() if verb else None
    options, extra = parser.parse_known_args(arguments, namespace)
    optional = getattr(verb, "OPTIONAL_PATH", None)
    if optional and len(extra) == 1 and extra[0][:1] != "-" and getattr(options, optional) is None:
        # argparse does not find an optional positional argument that comes after options
        setattr(options, optional, Path(extra.pop()))
    if extra:
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    return verb, options


def make_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line: one verb with all its options, the others by name."""
    parser = argparse.ArgumentParser(
        prog="snl",
        description="Visual anomaly detection with one model for all products, trained on images "
        "of normal parts.",
        epilog=format_examples(
            "snl demo",
            "snl doctor parts/",
            "snl train parts/ -o parts.snl",
            "snl evaluate parts.snl parts/ --json metrics.json",
            "snl inspect parts.snl new.jpg --out overlays/",
            "snl report parts.snl parts/ -o report.html",
            "snl calibrate parts.snl --rate 0.02",
            "snl info parts.snl",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"snl {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, module in VERBS.items():
        if name == verb:
            module.add_parser(verbs)
        else:
            verbs.add_parser(name, help=module.SUMMARY, add_help=False)
    return parser


def _fail(message: str) -> int:
    say(f"snl: error: {message}")
    return BAD_INPUT
