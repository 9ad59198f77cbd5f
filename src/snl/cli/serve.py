"""`snl serve`: an HTTP server that inspects images and keeps what it decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snl.cli import options as shared
from snl.cli.common import OK, say

SUMMARY = "inspect images over HTTP, and keep every result"


class Options(shared.DeviceOption):
    """Options of `snl serve`."""

    files: list[Path]
    host: str
    port: int
    data: Path
    store: str | None
    batch_size: int
    waiting: int
    threads: int


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "serve",
        SUMMARY,
        "snl serve parts.snl",
        "snl serve parts.onnx --data /var/lib/snl --port 8080",
        "snl serve parts.snl --host 0.0.0.0 --store postgresql+psycopg://snl@db/snl",
        more="Without a token only this machine may use the server; snl token create makes one. "
        "An answer means that the inspection is on the disk. Ctrl-C and SIGTERM finish what was "
        "accepted.",
    )
    verb.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="bundles of snl train, or exports; each is a model named like its file (default: the "
        "models that DIR has)",
    )
    verb.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine alone)"
    )
    verb.add_argument(
        "--port", type=shared.whole(0, 65535), default=8000, help="port (default: 8000; 0: any)"
    )
    verb.add_argument(
        "--data",
        type=Path,
        default=Path("snl-data"),
        metavar="DIR",
        help="folder of images, maps and the database (default: snl-data)",
    )
    verb.add_argument(
        "--store", metavar="URL", help="database instead of the one in DIR, such as PostgreSQL"
    )
    verb.add_argument(
        "--batch-size",
        type=shared.batch_size,
        default=16,
        metavar="N",
        help="images that the network processes together at the most (default: 16)",
    )
    verb.add_argument(
        "--waiting",
        type=shared.whole(1, 10_000),
        default=64,
        metavar="N",
        help="images that may wait; more are refused with 429 (default: 64)",
    )
    verb.add_argument(
        "--threads",
        type=shared.threads,
        default=0,
        metavar="N",
        help="CPU threads of the network (default: the runtime's choice)",
    )
    shared.add_device(verb)


def run(options: Options) -> int:
    """Serve until a signal comes."""
    from snl.dependencies import require

    require(
        ("fastapi", "uvicorn", "sqlalchemy", "alembic", "prometheus_client", "python_multipart"),
        "service",
        "The service",
    )
    from snl.service.server import serving

    with serving(
        options.files,
        host=options.host,
        port=options.port,
        data=options.data,
        store=options.store,
        device=options.device,
        threads=options.threads,
        batch_size=options.batch_size,
        waiting=options.waiting,
    ) as (address, run_server):
        shown = ", ".join(file.name for file in options.files) or "known models"
        say(f"{shown}: {address}, data in {options.data}")
        run_server()
    return OK
