"""Receivers of inspections for tests: a real HTTP server and a real MQTT broker."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from snl.service.ids import new_id
from snl.service.policy import Policy
from snl.service.sinks.courier import Backoff
from snl.service.sinks.outbox import Sinks
from snl.service.store import Store, sqlite_url
from snl.service.tables import InspectionRow

SECRET = "a secret of both sides"


def inspection_row(number: int = 0, **values: Any) -> InspectionRow:
    """Return an inspection as the service stores it; the part is its number."""
    row: dict[str, Any] = {
        "id": new_id(), "created": datetime.now(UTC), "idempotency_key": None, "client": "test",
        "name": f"part-{number}.png", "part": str(number), "product": "bolt",
        "decision": "anomalous", "score": 2.5, "p_value": 0.004, "model": "m" * 32,
        "network": "8a0e19da41b2c3d4", "calibration": "2026-11-20T08:12:09+00:00",
        "result": {"regions": [{"box": [1, 2, 3, 4]}]}, "image": "0" * 64,
        "image_type": "image/png", "prediction": "1" * 64, "bytes": 10, "review": None,
    }  # fmt: skip
    return InspectionRow(**{**row, **values})


def until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.005)


def hmac_sha256(key: bytes, message: bytes) -> str:
    """HMAC by its definition (RFC 2104), without the module `hmac`."""
    key = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(k ^ 0x36 for k in key) + message).digest()
    return hashlib.sha256(bytes(k ^ 0x5C for k in key) + inner).hexdigest()


FAST = Backoff(0.02, 0.1)


class Line:
    """A store with sinks, as the service has them; the sinks can be started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        self.store = Store(sqlite_url(folder))
        self.sinks: Sinks | None = None

    def start(self, configured: Any = None, policy: Policy | None = None) -> Sinks:
        self.stop()
        self.sinks = Sinks(self.store, configured, policy, FAST)
        self.store.events_of = self.sinks.events_of
        return self.sinks

    def stop(self) -> None:
        if self.sinks is not None:
            self.sinks.close()

    def inspect(self, count: int = 1, **values: Any) -> list[str]:
        """Store inspections, whose parts are numbered; return their ids."""
        rows = [inspection_row(self.number + n, **values) for n in range(count)]
        self.number += count
        for future in [self.store.add(row) for row in rows]:
            future.result()
        assert self.sinks is not None
        self.sinks.wake()
        return [row.id for row in rows]

    def outbox(self, query: str = "SELECT count(*) FROM outbox") -> Any:
        """The result of a query, read without snl."""
        with contextlib.closing(sqlite3.connect(self.folder / "snl.db")) as database:
            return database.execute(query).fetchone()[0]

    def audits(self) -> list[tuple[str, str, dict[str, Any]]]:
        return [(a.action, a.subject, a.details) for a in reversed(self.store.audits(0, 100))]

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.store.close()


@dataclass
class Got:
    """A request that came.

    Attributes:
        status: that it was answered with.
        signed: whether the signature is right, and of now.
        time: when it came, `time.monotonic()`.
    """

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    status: int
    signed: bool
    time: float = field(default_factory=time.monotonic)


class Receiver:
    """An HTTP server that keeps what it gets.

    Attributes:
        got: the requests in their order.
        answers: status and headers of the next requests, then 200.
        hang: while it is set, requests are read and not answered.
    """

    def __init__(self, port: int = 0) -> None:
        self.got: list[Got] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.refuse: Callable[[dict[str, Any]], bool] = lambda body: False
        self.hang = threading.Event()
        self._connections: list[socket.socket] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                status, headers = receiver.note(self, content)
                while receiver.hang.is_set():
                    time.sleep(0.01)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": "5"}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"hello")

            def do_GET(self) -> None:
                self.do_POST()

            def setup(self) -> None:
                super().setup()
                receiver._connections.append(self.connection)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events?line=1"

    @property
    def accepted(self) -> list[Got]:
        return [one for one in self.got if one.status == 200]

    @property
    def parts(self) -> list[int]:
        """Numbers of the inspections that were accepted."""
        return [int(one.body["inspection"]["part"]) for one in self.accepted]

    def note(self, request: BaseHTTPRequestHandler, content: bytes) -> tuple[int, dict[str, str]]:
        body = json.loads(content)
        status, headers = self.answers.pop(0) if self.answers else (200, {})
        if self.refuse(body):
            status = 400
        stamp = request.headers.get("Snl-Timestamp", "0")
        wanted = "sha256=" + hmac_sha256(SECRET.encode(), stamp.encode() + b"." + content)
        signed = request.headers.get("Snl-Signature") == wanted
        signed = signed and abs(time.time() - int(stamp)) < 5
        self.got.append(Got(request.path, dict(request.headers), body, status, signed))
        return status, headers

    def close(self) -> None:
        self.hang.clear()
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Broker:
    """A process of mosquitto on a port that stays the same when it is started again."""

    def __init__(self, folder: Path, port: int, lines: str = "allow_anonymous true") -> None:
        program = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
        if program is None:
            reason = "mosquitto is not installed"
            if os.environ.get("SNL_REQUIRE_BROWSER") == "1":
                pytest.fail(f"SNL_REQUIRE_BROWSER=1, but {reason}")
            pytest.skip(f"{reason}: apt-get install mosquitto")
        self.port, self._file = port, folder / f"mosquitto-{port}.conf"
        user = "user root\n" if hasattr(os, "geteuid") and os.geteuid() == 0 else ""
        self._file.write_text(f"{user}listener {port} 127.0.0.1\n{lines}\n")
        self._command = [program, "-c", str(self._file)]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._answers, "mosquitto listens")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _answers(self) -> bool:
        assert self.process.poll() is None, self._file.read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


@contextlib.contextmanager
def broker(folder: Path, port: int, lines: str = "allow_anonymous true") -> Iterator[Broker]:
    """A broker for the block."""
    one = Broker(folder, port, lines)
    try:
        yield one
    finally:
        one.kill()
