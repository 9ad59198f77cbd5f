"""`snl serve`: the service as a process."""

from __future__ import annotations

from pathlib import Path

import uvicorn
from fastapi import FastAPI

from snl.errors import SettingsError
from snl.runtime.inspector import load
from snl.service.access import is_loopback
from snl.service.app import ServerSettings, make_app
from snl.service.blobs import Blobs
from snl.service.inspecting import Line
from snl.service.store import Store, sqlite_url

GRACE_SECONDS = 30
"""How long requests that were accepted may take after a signal to stop."""


def open_store(data: Path, url: str | None) -> Store:
    """Open the store in a folder, or at an address.

    Raises:
        StoreError: it cannot be opened.
    """
    if url is None:
        data.mkdir(parents=True, exist_ok=True)
        url = sqlite_url(data)
    return Store(url)


def make_server(
    file: str,
    *,
    host: str,
    port: int,
    data: Path,
    store: str | None = None,
    device: str = "auto",
    threads: int = 0,
    batch_size: int = 16,
    waiting: int = 64,
) -> uvicorn.Server:
    """Return the server of a model file, ready to run.

    Args:
        file: bundle or export.
        host, port: to listen on.
        data: folder of images, maps and, without `store`, of the database.
        store: address of a database.
        device, threads: see `snl.load`.
        batch_size: images that the network processes together.
        waiting: images that may wait.

    Raises:
        SettingsError: another machine could reach the server, and there is no token.
        StoreError, BundleError: it cannot be opened.
    """
    database = open_store(data, store)
    has_token = any(token.revoked is None for token in database.tokens())
    if not has_token and not is_loopback(host):
        database.close()
        raise SettingsError(
            f"--host {host}: other machines could reach the server, and it has no token: leave out "
            f"--host, or create one with snl token create NAME --role admin --data {data}"
        )
    try:
        inspector = load(file, device, threads)
    except BaseException:
        database.close()
        raise
    line = Line(
        inspector,
        database,
        Blobs(data / "files"),
        name=Path(file).name,
        batch_size=batch_size,
        waiting=waiting,
    )
    app: FastAPI = make_app(line, ServerSettings(open=not has_token))
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
