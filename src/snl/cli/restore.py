"""`snl restore`: make a service from a backup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snl.cli import options as shared
from snl.cli.backup import summary
from snl.cli.common import OK, progress_bar, say

SUMMARY = "make a service from a backup"


class Options(shared.QuietOption):
    """Options of `snl restore`."""

    backup: Path
    data: Path
    store: str | None


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "restore",
        SUMMARY,
        "snl restore monday.snlbackup --data snl-data",
        "snl restore /mnt/backups/snl --data /var/lib/snl --store postgresql+psycopg://snl@db/snl",
        more="Every file is checked. All is restored or nothing. The store may be of another kind "
        "than the one that was backed up: this is how a service moves to PostgreSQL, or back.",
    )
    verb.add_argument(
        "backup",
        type=Path,
        metavar="BACKUP",
        help="file or folder of snl backup; of a folder the newest backup, or one of its tables- "
        "folders",
    )
    verb.add_argument(
        "--data",
        type=Path,
        default=Path("snl-data"),
        metavar="DIR",
        help="folder of the new service, missing or empty (default: snl-data)",
    )
    verb.add_argument(
        "--store", metavar="URL", help="empty database of the new service, if not in DIR"
    )
    shared.add_quiet(verb)


def run(options: Options) -> int:
    """Restore a service."""
    from snl.dependencies import require

    require(("sqlalchemy", "alembic"), "service", "The service")
    from snl.service.restore import restore

    progress = progress_bar("restore", options.quiet, "file")
    manifest = restore(options.backup, options.data, options.store, progress)
    say(f"{options.data}: restored the backup of {manifest.created}: {summary(manifest)}")
    say(f"start it with: snl serve --data {options.data}{' --store URL' if options.store else ''}")
    return OK
