"""`snl token`: create, list and revoke the tokens of the service."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from snl.cli import options as shared
from snl.cli.common import OK, say, show, table
from snl.cli.service_options import add_service

SUMMARY = "create, list and revoke tokens of the service"


class Options(argparse.Namespace):
    """Options of `snl token`."""

    action: str
    name: list[str]
    role: str
    data: Path
    store: str | None


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "token",
        SUMMARY,
        "snl token create line-1 --role inspect",
        "snl token list",
        "snl token revoke 3f9a0c21b7de",
        more="A token is shown once, when it is created; the store keeps its hash. Every role may "
        "do what those before it may: read, inspect, review, admin. A server that runs sees new "
        "tokens at once; one that was started without any asks for them after a restart.",
    )
    verb.add_argument("action", choices=("create", "list", "revoke"), help="what to do")
    verb.add_argument(
        "name", nargs="*", metavar="NAME", help="of the token to create; id of the one to revoke"
    )
    verb.add_argument(
        "--role",
        choices=("read", "inspect", "review", "admin"),
        default="inspect",
        help="what it allows (default: inspect)",
    )
    add_service(verb)


def run(options: Options) -> int:
    """Do it."""
    from snl.dependencies import require
    from snl.errors import SettingsError

    require(("sqlalchemy", "alembic"), "service", "The service")
    from snl.service import access
    from snl.service.server import open_store

    if len(options.name) != (0 if options.action == "list" else 1):
        what = "takes no NAME" if options.action == "list" else "needs one NAME"
        raise SettingsError(f"snl token {options.action} {what}; see snl token --help")
    store = open_store(options.data, options.store)
    try:
        if options.action == "create":
            token = access.create(store, options.name[0], options.role)
            say("keep it: it is not shown again")
            show(token)
        elif options.action == "revoke":
            if not store.revoke(options.name[0], "local"):
                raise SettingsError(
                    f"{options.name[0]}: no token in use has this id; snl token list shows them"
                )
            say(f"{options.name[0]}: revoked")
        else:
            rows = [["id", "name", "role", "created (UTC)", "state"]]
            for t in store.tokens():
                state = "revoked" if t.revoked else "in use"
                rows.append([t.id, t.name, t.role, f"{t.created:%Y-%m-%d %H:%M}", state])
            show(table(rows, left=5))
    finally:
        store.close()
    return OK
