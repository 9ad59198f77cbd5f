"""The command `snl`: finds the verb, runs it, and turns its errors into messages and exit statuses.

Every verb is a module of this package with `SUMMARY`, `Options`, `add_parser(verbs)` and
`run(options)`. Heavy imports happen inside `run`, and only the parser of the verb that is called
is built with all its options, so that help is fast.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from snl import __version__
from snl.cli import (
    add,
    backup,
    bench,
    calibrate,
    demo,
    doctor,
    drift,
    evaluate,
    export,
    history,
    info,
    inspect,
    probe,
    remove,
    report,
    restore,
    serve,
    token,
    train,
    undo,
)
from snl.cli.console import BAD_INPUT, say
from snl.cli.failures import check_working_directory, is_out_of_memory
from snl.cli.neighbours import option_for, verb_for
from snl.cli.options import format_examples
from snl.cli.safety import guard
from snl.errors import SnlError
from snl.signals import stoppable
from snl.text import printable

VERBS: dict[str, Any] = {
    "demo": demo,
    "doctor": doctor,
    "train": train,
    "add": add,
    "remove": remove,
    "calibrate": calibrate,
    "inspect": inspect,
    "evaluate": evaluate,
    "report": report,
    "drift": drift,
    "probe": probe,
    "export": export,
    "bench": bench,
    "info": info,
    "history": history,
    "undo": undo,
    "serve": serve,
    "token": token,
    "backup": backup,
    "restore": restore,
}
"""The modules of the verbs, in the order of `snl --help`."""

_FEWER = (
    ("image_size", "--image-size"),
    ("tile", "--tile"),
    ("batch_size", "--batch-size"),
    ("cache_memory", "--cache-memory"),
    ("threads", "--threads"),
)
"""Options that a verb may have and that save memory when they are reduced."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    0: done; 1: done, with problems found; 2: wrong input, explained in one line; 70: a defect of
    snl, whose details were written to a file; 130, 143, 129: stopped by Ctrl-C, SIGTERM, SIGHUP.
    Command lines that cannot be parsed raise `SystemExit(2)`.
    """
    words = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):  # a console that cannot show a name must not crash
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return guard(lambda: _run(words), words)


def _run(arguments: Sequence[str]) -> int:
    verb, options = parse(arguments)
    check_working_directory()  # without it, libraries end the process with messages of their own
    try:
        with stoppable():
            return int(verb.run(options))
    except Exception as error:
        if isinstance(error, SnlError) or not is_out_of_memory(error):
            raise
        names = [name for attribute, name in _FEWER if hasattr(options, attribute)]
        fewer = f"reduce {' or '.join(names)}, or " if names else ""
        raise SnlError(f"out of memory; {fewer}close other programs") from error


def parse(arguments: Sequence[str]) -> tuple[Any, argparse.Namespace]:
    """Return the module of the verb and its options.

    Raises:
        SystemExit: 2 for a command line that cannot be parsed, 0 after --help and --version.
    """
    # the options before the verb, --help and --version, take no value
    name = next((word for word in arguments if not word.startswith("-")), None)
    verb = VERBS.get(name or "")
    parser = make_parser(name)
    if name is not None and verb is None and (ours := verb_for(name, VERBS)) is not None:
        parser.error(f"there is no verb {printable(name)!r}; use snl {ours}")
    empty = next((word for word in arguments if word[:2] == "--" and word.endswith("=--")), None)
    if empty is not None:  # argparse would make an empty list of it
        parser.error(f"argument {empty[:-3]}: expected one argument")
    namespace = verb.Options() if verb else None
    options, extra = parser.parse_known_args(arguments, namespace)
    optional = getattr(verb, "OPTIONAL_PATH", None)
    if optional and len(extra) == 1 and extra[0][:1] != "-" and getattr(options, optional) is None:
        # argparse does not find an optional positional argument that comes after options
        setattr(options, optional, Path(extra.pop()))
    options.arguments = list(arguments)  # for verbs that start themselves again
    if extra:
        hint = option_for(extra, _parser_of(parser, name or ""))
        parser.error(f"unrecognized arguments: {' '.join(extra)}" + (f"; {hint}" if hint else ""))
    return verb, options


def _parser_of(parser: argparse.ArgumentParser, verb: str) -> argparse.ArgumentParser:
    """Return the parser of a verb."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and verb in action.choices:
            found: argparse.ArgumentParser = action.choices[verb]
            return found
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with 2."""
        verb = self.prog if len(self.prog) < 40 else "snl"
        say(f"snl: error: {printable(message)}; see {verb} --help")
        raise SystemExit(BAD_INPUT)


def make_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line: one verb with all its options, the others by name."""
    parser = _Parser(
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
        )
        + "\n\nSNL_DEBUG=1 snl ... shows the traceback of an error.",
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
