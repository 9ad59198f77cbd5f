"""A real server: the command in a process of its own, its store, and HTTP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from snl.locks import locked
from snl.service.server import BUSY
from snl.service.store import Store, sqlite_url
from tests.service.in_process import serve, service_of
from tests.service.postgresql import Cluster, programs

STARTS = 60.0
"""Seconds within which a server answers."""


@dataclass
class Server:
    """A process of `snl serve`."""

    data: Path
    port: int
    process: subprocess.Popen[str]
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; return the exit status and what was written to standard error."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@dataclass
class Served:
    """A server in a thread of the test."""

    data: Path
    url: str

    @property
    def port(self) -> int:
        port = httpx.URL(self.url).port
        assert port is not None
        return port

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30)


Start = Callable[..., Server]


@contextmanager
def starting(folder: Path) -> Iterator[Start]:
    """Start servers whose data are in a folder; they end with the block."""
    servers: list[Server] = []

    def begin(
        file: Path | None,
        *options: object,
        data: Path | None = None,
        wait: bool = True,
        port: int = 0,
    ) -> Server:
        data = data or folder / "data"
        port = port or free_port()
        files = [] if file is None else [file]
        words = [*files, "--port", port, "--data", data, "--device", "cpu", *options]
        process = subprocess.Popen(
            [sys.executable, "-m", "snl", "serve", *map(str, words)],
            stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        server = Server(data, port, process)
        servers.append(server)
        if wait:
            wait_for(server)
        return server

    yield begin
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start servers that end with the test."""
    with starting(tmp_path) as begin:
        yield begin


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """A PostgreSQL cluster; a test that stops it starts it again."""
    binaries = programs()
    if binaries is None:
        text = "PostgreSQL is not installed (apt-get install postgresql)"
        if os.environ.get("SNL_REQUIRE_BROWSER") == "1":
            pytest.fail(text)
        pytest.skip(text)
    cluster = Cluster(binaries)
    yield cluster
    cluster.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store, of both kinds."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    cluster: Cluster = request.getfixturevalue("postgresql")
    return cluster.emptied()


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """An empty store, of both kinds."""
    store = Store(store_url)
    yield store
    store.close()


@pytest.fixture(scope="module")
def served(
    request: pytest.FixtureRequest, calibrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server of `calibrated` for the tests of a module, which leave it running.

    A module that parametrises it with `postgresql` gets one whose store is there.
    """
    words: dict[str, Any] = {}
    if getattr(request, "param", "sqlite") == "postgresql":
        cluster: Cluster = request.getfixturevalue("postgresql")
        words = {"url": cluster.database()}
    data = tmp_path_factory.mktemp("served")
    with (
        locked(data, BUSY),
        service_of(data, calibrated, **words) as service,
        serve(service) as url,
    ):
        yield Served(data, url)


def wait_for(server: Server) -> None:
    """Wait until a server is ready."""
    end = time.monotonic() + STARTS
    while time.monotonic() < end:
        if server.process.poll() is not None:
            raise AssertionError(server.process.communicate()[1])
        try:
            if httpx.get(f"{server.url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("the server does not answer")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


def post(client: httpx.Client, image: Path, **query: Any) -> httpx.Response:
    """Inspect an image file."""
    key = query.pop("key", None)
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post(
        "/v1/inspections",
        content=image.read_bytes(),
        params={"name": image.name, **query},
        headers={"Content-Type": "application/octet-stream", **headers},
    )
