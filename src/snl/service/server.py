"""`snl serve`: the service as a process."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from snl.errors import SettingsError
from snl.files import check_readable
from snl.locks import locked
from snl.service.access import is_loopback
from snl.service.api.app import make_app
from snl.service.api.guard import ServerSettings
from snl.service.api.limits import Protocol
from snl.service.config import Config, Server
from snl.service.models import LoadOptions
from snl.service.policy import Policy
from snl.service.service import Service
from snl.service.store import Store, sqlite_url

BUSY = "another snl serve uses this folder; stop it, or give another --data"
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
    config: Config, extend: Callable[[FastAPI], None] = lambda app: None
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Prepare the server for the `with` block.

    Args:
        config: all settings.
        extend: adds to the application, such as a page.

    Yields:
        The server's address, and what runs it until a signal comes.

    Raises:
        SettingsError: another machine could reach the server and there is no token, it cannot
            listen there, or the certificate cannot be used.
        StoreError, BundleError: store or model cannot be opened.
        SnlError: another server uses the folder.
    """
    server = config.server
    for file in server.models:
        check_readable(file, "model file", "of snl train or snl export", "snl train")
    _check_tls(server)
    with ExitStack() as stack:
        stack.enter_context(locked(server.data, BUSY))
        listener = stack.enter_context(closing(_listen(server.host, server.port)))
        database = open_store(server.data, server.store)
        stack.callback(database.close)
        has_token = any(token.revoked is None for token in database.tokens())
        if not has_token and not is_loopback(server.host):
            raise SettingsError(
                f"--host {server.host}: other machines could reach the server, and it has no "
                "token: leave out --host, or create one with snl token create NAME --role admin "
                f"--data {server.data}"
            )
        service = _service(database, config)
        stack.callback(service.close)
        app = make_app(service, _limits(config, is_open=not has_token))
        extend(app)
        settings = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=config.limits.connections,
            timeout_graceful_shutdown=GRACE_SECONDS,
            ssl_certfile=server.tls_cert,
            ssl_keyfile=server.tls_key,
        )
        shown = f"[{server.host}]" if ":" in server.host else server.host
        scheme = "http" if server.tls_cert is None else "https"
        address = f"{scheme}://{shown}:{listener.getsockname()[1]}"
        yield address, partial(uvicorn.Server(settings).run, sockets=[listener])


def _service(store: Store, config: Config) -> Service:
    server, keep = config.server, config.retention
    options = LoadOptions(server.device, server.threads, server.batch_size, server.waiting)
    return Service(
        store,
        server.data,
        server.models,
        options,
        policy=Policy(tuple(config.allow.addresses), tuple(config.allow.folders)),
        sources=config.sources,
        sinks=config.sinks,
        keep_bytes=None if keep.gigabytes is None else int(keep.gigabytes * 1e9),
        keep_days=keep.days,
    )


def _limits(config: Config, *, is_open: bool) -> ServerSettings:
    limits = config.limits
    return ServerSettings(
        open=is_open,
        most_bytes=limits.body_mib * 2**20,
        most_model_bytes=limits.model_mib * 2**20,
        seconds=limits.answer_seconds,
        body_seconds=limits.body_seconds,
        requests_per_second=limits.requests_per_second,
        burst=limits.burst,
    )


def _check_tls(server: Server) -> None:
    """Check that certificate and key can be used.

    Raises:
        SettingsError: one is missing, or they do not belong together.
    """
    if server.tls_cert is None and server.tls_key is None:
        return
    if server.tls_cert is None or server.tls_key is None:
        raise SettingsError("TLS needs both --tls-cert and --tls-key")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server.tls_cert, server.tls_key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise SettingsError(
            f"--tls-cert {server.tls_cert} --tls-key {server.tls_key}: cannot be used ({reason}); "
            "give a PEM certificate and its key without a password"
        ) from None


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
