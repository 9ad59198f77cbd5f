"""`snl remove`: remove products from a bundle or an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snl.cli import options as shared
from snl.cli.changes import changing
from snl.cli.common import OK, say

SUMMARY = "remove products from a bundle or an export"


class Options(shared.QuietOption):
    """Options of `snl remove`."""

    file: str
    products: list[str]
    output: Path | None


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "remove",
        SUMMARY,
        "snl remove parts.snl gear",
        "snl remove parts.snl gear nut -o fewer.snl",
        more="The decisions about the other products do not change. It cannot be undone: the "
        "images of the products and the earlier versions of the file, which contain them, are "
        "gone. With -o the former file stays.",
    )
    verb.add_argument("file", metavar="FILE", help="bundle or export; it is changed in place")
    verb.add_argument("products", nargs="+", metavar="PRODUCT", help="product to remove")
    verb.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write to this file, leave FILE unchanged"
    )
    shared.add_quiet(verb)


def run(options: Options) -> int:
    """Remove the products and write the file."""
    import snl
    from snl.runtime.inspector import open_file
    from snl.signals import deferred

    with changing(options.file, options.output) as target:
        inspector = open_file(options.file)
        snl.remove(inspector, options.products)
        with deferred():
            inspector.save(target)
        count = len(inspector.products)
        kept = f"; {options.file} is as before" if options.output else ""
        say(
            f"{target}: {count} product{'' if count == 1 else 's'} left; this and earlier changes "
            f"cannot be undone in it{kept}"
        )
    return OK
