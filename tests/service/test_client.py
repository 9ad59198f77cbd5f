"""The Python client against a real server, and against one that fails."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import snl
from snl.service.client import ServiceError
from snl.service.service import Service
from tests.service.in_process import serve, service_of
from tests.trees import save_varied


@pytest.fixture(scope="module")
def service(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service_of(tmp_path_factory.mktemp("data"), calibrated) as service:
        yield service


def test_a_client_does_what_the_api_does(
    service: Service, calibrated: Path, tmp_path: Path
) -> None:
    began = datetime.now(UTC)
    images = [save_varied(tmp_path / f"{n}.png", 300 + n, defect=n == 1) for n in range(3)]
    expected = [snl.load(calibrated, "cpu").inspect(path) for path in images]
    with serve(service) as url, snl.Client(url) as client:
        client.wait_until_ready()
        found = [client.inspect(path, part="p 1/ä") for path in images]
        assert [one.decision for one in found] == [one.decision for one in expected]
        assert {one.part for one in found} == {"p 1/ä"} and found[0].name == "0.png"
        assert client.inspection(found[0].id) == found[0]
        assert client.image(found[1].id) == images[1].read_bytes()
        assert client.image(found[1].id, "overlay.png").startswith(b"\x89PNG")
        listed = list(client.inspections(since=began))
        assert listed == found[::-1]
        assert list(client.inspections(most=2)) == listed[:2]
        assert client.review(found[1].id, "confirmed", "a dent").who == "local"
        assert [one.id for one in client.inspections(review="confirmed", since=began)] == [
            found[1].id
        ]
        assert {one.name for one in client.products()} == {"bolt", "plate"}
        assert client.models()[0].name == "varied"
        assert client.inspect(images[0].read_bytes(), key="k", name="a").id == (
            client.inspect(images[0].read_bytes(), key="k").id
        )
        for call, code in (
            (lambda: client.inspect(b"no image"), "bad_image"),
            (lambda: client.inspect(images[0], product="nut"), "bad_request"),
            (lambda: client.inspection("../../v1/stats"), "not_found"),
            (lambda: client.review(found[0].id, "maybe"), "bad_request"),
        ):
            with pytest.raises(ServiceError) as refused:
                call()
            assert refused.value.code == code and refused.value.status in (404, 422)


@contextmanager
def _failing(statuses: list[int]) -> Iterator[tuple[str, list[str]]]:
    """A server that answers with these statuses, then well; yields its keys of requests."""
    keys: list[str] = []
    answer = {
        "id": "1", "created": "2026-01-01T00:00:00Z", "name": "", "part": "", "score": 1.0,
        "decision": "normal", "product": "bolt", "p_value": None, "review": None, "model": "m",
        "network": "n", "calibration": "c", "links": {}, "result": {},
    }  # fmt: skip

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            keys.append(self.headers["Idempotency-Key"])
            self.rfile.read(int(self.headers["Content-Length"]))
            status = statuses.pop(0) if statuses else 200
            if status == 0:  # the connection breaks before the answer
                self.close_connection = True
                return
            body = json.dumps({"results": [{"inspection": answer}]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", keys
    finally:
        server.shutdown()
        server.server_close()


def test_requests_are_sent_again_with_the_same_key() -> None:
    with _failing([503, 0, 429]) as (url, keys), snl.Client(url) as client:
        assert client.inspect(b"image").decision == "normal"
        assert len(keys) == 4 and len(set(keys)) == 1
        client.inspect(b"image")
        assert len(set(keys)) == 2


def test_a_client_gives_up_in_time() -> None:
    with _failing([500]) as (url, keys), snl.Client(url) as client:
        with pytest.raises(ServiceError, match="answered 500"):
            client.inspect(b"image")
        assert len(keys) == 1  # a defect is not cured by repeating it
    with _failing([503] * 100) as (url, keys), snl.Client(url, timeout=1.5) as client:
        with pytest.raises(ServiceError) as refused:
            client.inspect(b"image")
        assert refused.value.status == 503 and 2 <= len(keys) < 20
    with (
        snl.Client("http://127.0.0.1:9", timeout=0.5) as client,
        pytest.raises(ServiceError, match="no answer"),
    ):
        client.models()
