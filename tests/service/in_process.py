"""A real HTTP server in a thread of the test, where nothing is lost by it: it starts at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from snl.service.api.app import make_app
from snl.service.api.guard import ServerSettings
from snl.service.api.limits import Protocol
from snl.service.server import open_store
from snl.service.service import Service


@contextmanager
def serve(service: Service, **settings: Any) -> Iterator[str]:
    """Serve a service on this machine; yield the address."""
    limits = ServerSettings(**{"open": True, **settings})
    config = uvicorn.Config(
        make_app(service, limits),
        port=0,
        http=Protocol,
        ws="none",
        log_level="critical",
        # setting up logging closes the handlers of others, and absl's handler its stream: pytest's
        log_config=None,
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < end, "the server does not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


@contextmanager
def service_of(data: Path, *models: Path, **words: Any) -> Iterator[Service]:
    """A service with its store in a folder."""
    store = open_store(data, words.pop("url", None))
    service = Service(store, data, models, **words)
    try:
        yield service
    finally:
        service.close()
        store.close()


@contextmanager
def client_of(service: Service, **settings: Any) -> Iterator[httpx.Client]:
    """A client of a service that is served."""
    with serve(service, **settings) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client
