"""`snl serve`: the service as a process."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import uvicorn

from snl.errors import SettingsError
from snl.files import check_readable
from snl.locks import locked
from snl.service.access import is_loopback
from snl.service.api.app import make_app
from snl.service.api.guard import ServerSettings
from snl.service.models import LoadOptions
from snl.service.service import Service
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


@contextmanager
def serving(
    files: Sequence[Path],
    *,
    host: str,
    port: int,
    data: Path,
    store: str | None = None,
    device: str = "auto",
    threads: int = 0,
    batch_size: int = 16,
    waiting: int = 64,
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Prepare the server of model files for the `with` block.

    Args:
        files: bundles or exports, each a model of the name of its file; none: those of before.
        host, port: to listen on.
        data: folder of images, maps and, without `store`, of the database; one server uses it.
        store: address of a database.
        device, threads: see `snl.load`.
        batch_size, waiting: see `Batcher`.

    Yields:
        The server's address, and what runs it until a signal comes.

    Raises:
        SettingsError: another machine could reach the server and there is no token, or it cannot
            listen there.
        StoreError, BundleError: it cannot be opened.
        SnlError: another server uses the folder.
    """
    for file in files:
        check_readable(file, "model file", "of snl train or snl export", "snl train")
    busy = "another snl serve uses this folder; stop it, or give another --data"
    with ExitStack() as stack:
        stack.enter_context(locked(data, busy))
        listener = stack.enter_context(closing(_listen(host, port)))
        database = open_store(data, store)
        stack.callback(database.close)
        has_token = any(token.revoked is None for token in database.tokens())
        if not has_token and not is_loopback(host):
            raise SettingsError(
                f"--host {host}: other machines could reach the server, and it has no token: leave "
                f"out --host, or create one with snl token create NAME --role admin --data {data}"
            )
        options = LoadOptions(device, threads, batch_size, waiting)
        service = Service(database, data, files, options)
        stack.callback(service.close)
        config = uvicorn.Config(
            make_app(service, ServerSettings(open=not has_token)),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}"
        yield address, partial(uvicorn.Server(config).run, sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        SettingsError: the port is taken, or the host is not an address of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise SettingsError(
            f"--host {host} --port {port}: the server cannot listen there "
            f"({error.strerror or error}); give another --port, or stop what uses it"
        ) from error
