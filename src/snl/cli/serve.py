"""`snl serve`: an HTTP server that inspects images and keeps what it decided."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli import options as shared
from snl.cli.common import OK, say

if TYPE_CHECKING:
    from snl.service.config import Config

SUMMARY = "inspect images over HTTP, and keep every result"

_SERVER = (
    *("host", "port", "data", "store", "tls_cert", "tls_key"),
    *("device", "threads", "batch_size", "waiting"),
)
"""Options that are keys of the section `server` of the configuration file."""


class Options(shared.QuietOption):
    """Options of `snl serve`; None: as in the configuration file, or the default."""

    files: list[Path]
    config: Path | None
    demo: bool
    host: str | None
    port: int | None
    data: Path | None
    store: str | None
    tls_cert: Path | None
    tls_key: Path | None
    batch_size: int | None
    waiting: int | None
    threads: int | None
    device: str | None
    keep_days: float | None
    keep_gigabytes: float | None


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "serve",
        SUMMARY,
        "snl serve --demo",
        "snl serve parts.snl",
        "snl serve parts.onnx --data /var/lib/snl --port 8080",
        "snl serve --config snl.toml",
        "snl serve parts.snl --host 0.0.0.0 --store postgresql+psycopg://snl@db/snl",
        more="Without a token only this machine may use the server; snl token create makes one. "
        "An answer means that the inspection is on the disk. Ctrl-C and SIGTERM finish what was "
        "accepted. A file whose content is new becomes the next version of its model.",
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
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML file with all settings, sources and sinks; options of the command line come "
        "before it",
    )
    verb.add_argument(
        "--demo",
        action="store_true",
        help="serve the demo's inspector and its parts; it is trained first, in some minutes",
    )
    verb.add_argument("--host", help="address to listen on (default: 127.0.0.1, this machine)")
    verb.add_argument(
        "--port", type=shared.whole(0, 65535), metavar="N", help="port (default: 8000; 0: any)"
    )
    verb.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of images, maps, models and the database (default: snl-data)",
    )
    verb.add_argument(
        "--store", metavar="URL", help="database instead of the one in DIR, such as PostgreSQL"
    )
    verb.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate for HTTPS, PEM")
    verb.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, without a password")
    verb.add_argument(
        "--batch-size",
        type=shared.batch_size,
        metavar="N",
        help="images that the network processes together at the most (default: 16)",
    )
    verb.add_argument(
        "--waiting",
        type=shared.whole(1, 10_000),
        metavar="N",
        help="images that may wait; more are refused with 429 (default: 64)",
    )
    verb.add_argument(
        "--threads",
        type=shared.threads,
        metavar="N",
        help="CPU threads of the network (default: the runtime's choice)",
    )
    verb.add_argument(
        "--keep-days",
        type=shared.number_in(0.01, 100_000),
        metavar="N",
        help="delete images and maps that are older; results stay, and so do the images of alarms "
        "that nobody has reviewed (default: keep all)",
    )
    verb.add_argument(
        "--keep-gigabytes",
        type=shared.number_in(0.001, 1e6),
        metavar="N",
        help="delete the oldest images and maps beyond this size, in the same way",
    )
    shared.add_device(verb)
    verb.set_defaults(device=None)
    shared.add_quiet(verb)


def run(options: Options) -> int:
    """Serve until a signal comes."""
    from snl.dependencies import require

    require(
        (
            *("fastapi", "uvicorn", "sqlalchemy", "alembic", "prometheus_client"),
            *("python_multipart", "httpx", "paho"),
        ),
        "service",
        "The service",
    )
    from snl.service.server import serving
    from snl.station.pages import add_station

    config = _config(options)
    with serving(config, lambda app: add_station(app, config.station.words)) as (
        address,
        run_server,
    ):
        shown = ", ".join(file.name for file in config.server.models) or "station"
        say(f"{shown}: {address}, data in {config.server.data}")
        run_server()
    return OK


def _config(options: Options) -> Config:
    """Return the configuration file with the options of the command line."""
    from snl.service.config import Config, read_config

    config = Config() if options.config is None else read_config(options.config)
    server: dict[str, Any] = {
        name: value for name in _SERVER if (value := getattr(options, name)) is not None
    }
    if options.files:
        server["models"] = options.files
    keep: dict[str, Any] = {}
    if options.keep_days is not None:
        keep["days"] = options.keep_days
    if options.keep_gigabytes is not None:
        keep["gigabytes"] = options.keep_gigabytes
    changes: dict[str, Any] = {
        "server": config.server.model_copy(update=server),
        "retention": config.retention.model_copy(update=keep),
    }
    config = config.model_copy(update=changes)
    return _with_demo(config, options) if options.demo else config


def _with_demo(config: Config, options: Options) -> Config:
    """Return a configuration that serves the demo; what it lacks is made first."""
    folder = config.server.data.resolve() / "demo"
    bundle, line = folder / "demo.snl", folder / "line"
    if not (bundle.is_file() and line.is_dir()):
        _make_demo(folder, bundle, line, config.server.device, options.quiet)
    source = {"kind": "folder", "folder": str(line), "subfolders": True, "interval": 2.0}
    server = config.server.model_copy(update={"models": [*config.server.models, bundle]})
    return config.model_copy(
        update={"server": server, "sources": {**config.sources, "demo": source}}
    )


def _make_demo(folder: Path, bundle: Path, line: Path, device: str, quiet: bool) -> None:
    """Draw the demo's parts, train on them, and put the test parts where a source finds them."""
    import shutil

    import snl
    from snl.cli.common import progress_bar
    from snl.cli.demo import SETTINGS

    parts, begun = folder / "parts", folder / "begun"
    say(f"{folder}: making the demo; this takes some minutes, the first time")
    if not parts.is_dir():
        shutil.rmtree(begun, ignore_errors=True)  # of a start that was interrupted
        snl.make_demo(begun, progress=progress_bar("drawing parts", quiet))
        begun.rename(parts)
    if not bundle.is_file():
        snl.train(parts, output=bundle, overrides=SETTINGS, device=device, quiet=quiet, note=say)
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir()
    for number, path in enumerate(sorted(parts.glob("*/test/*/*.png"), key=lambda p: p.name)):
        product, kind = path.parts[-4], path.parts[-2]
        shutil.copyfile(path, begun / f"{number:04d}-{product}-{kind}.png")
    begun.rename(line)
