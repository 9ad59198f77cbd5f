"""`snl backup`: back up a service while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli import options as shared
from snl.cli.common import OK, PROBLEMS, progress_bar, say
from snl.cli.service_options import add_service

if TYPE_CHECKING:
    from snl.service.archive import Manifest

SUMMARY = "back up a service while it runs"


class Options(shared.QuietOption):
    """Options of `snl backup`."""

    backup: Path
    data: Path
    store: str | None
    check: bool


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "backup",
        SUMMARY,
        "snl backup monday.snlbackup",
        "snl backup /mnt/backups/snl --data /var/lib/snl",
        "snl backup --check /mnt/backups/snl",
        more="A folder gets a snapshot of all tables each time, and only the images that it does "
        "not have yet; a file is written whole. snl restore makes a service from either. Both "
        "have the images, the results, and the settings of sinks with their passwords.",
    )
    verb.add_argument(
        "backup",
        type=Path,
        metavar="BACKUP",
        help="file that ends in .snlbackup, or a folder, for many backups",
    )
    add_service(verb)
    verb.add_argument(
        "--check", action="store_true", help="read BACKUP and check all of it; write nothing"
    )
    shared.add_quiet(verb)


def run(options: Options) -> int:
    """Write a backup, or check one."""
    from snl.dependencies import require

    require(("sqlalchemy", "alembic"), "service", "The service")
    from snl.service.backup import back_up
    from snl.service.restore import check

    if options.check:
        manifest = check(options.backup, progress_bar("check", options.quiet, "file"))
        say(f"{options.backup}: complete, of {manifest.created}: {summary(manifest)}")
        return OK
    progress = progress_bar("backup", options.quiet, "file")
    report = back_up(options.backup, options.data, options.store, progress)
    say(f"{options.backup}: {summary(report.manifest)}, {report.copied} of them new")
    if deleted := report.absent("deleted"):
        say(f"note: {deleted} files were deleted by the retention since the snapshot")
    problems = report.absent("damaged") + report.absent("missing")
    if problems:
        say(f"{options.data}: {problems} files are damaged or missing, and not in the backup")
    return PROBLEMS if problems else OK


def summary(manifest: Manifest) -> str:
    """Return what a backup has, in words."""
    rows = manifest.rows
    return (
        f"{rows.get('inspections', 0)} inspections, {rows.get('models', 0)} versions of models, "
        f"{manifest.files} files of {manifest.size / 1e6:.1f} MB"
    )
