"""`snl history`: what was changed in a bundle or an export, when, by whom and why."""

from __future__ import annotations

import argparse
from typing import Any

from snl.cli import options as shared
from snl.cli.common import OK, show, table

SUMMARY = "show what was changed in a bundle or an export, when, by whom and why"


class Options(argparse.Namespace):
    """Options of `snl history`."""

    file: str
    json: bool


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "history",
        SUMMARY,
        "snl history parts.snl",
        "snl history parts.snl --json",
        more="Who made a change is the user of the process, or what SNL_USER names.",
    )
    verb.add_argument("file", metavar="FILE", help="bundle or export")
    verb.add_argument("--json", action="store_true", help="print JSON")


def run(options: Options) -> int:
    """Print the history."""
    import json
    from dataclasses import asdict

    import snl

    events = snl.history(options.file)
    if options.json:
        show(json.dumps([asdict(event) for event in events], indent=2, ensure_ascii=False))
        return OK
    rows = [
        [one.when or "-", one.who or "-", one.network[:8] or "-", str(one.products), one.what]
        for one in events
    ]
    show(table([["when (UTC)", "who", "network", "products", "what"], *rows], left=5))
    return OK
