"""`snl undo`: undo the last change of a bundle or an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snl.cli import options as shared
from snl.cli.changes import changing
from snl.cli.common import OK, say

SUMMARY = "undo the last change of a bundle or an export"


class Options(shared.QuietOption):
    """Options of `snl undo`."""

    file: str
    output: Path | None


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "undo",
        SUMMARY,
        "snl undo parts.snl",
        "snl undo parts.snl -o before.snl",
        more="Changes of the calibration can be undone one after another, and then the last "
        "addition of products (snl add). snl history FILE shows all changes.",
    )
    verb.add_argument("file", metavar="FILE", help="bundle or export; it is changed in place")
    verb.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write to this file, leave FILE unchanged"
    )
    shared.add_quiet(verb)


def run(options: Options) -> int:
    """Undo the last change and say which it was."""
    import snl
    from snl.signals import deferred

    with changing(options.file, options.output) as target, deferred():
        undone = snl.undo(options.file, target)
    say(f"{target}: undone: {undone}")
    return OK
