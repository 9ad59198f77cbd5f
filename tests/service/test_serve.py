"""The service over real HTTP, against the library as the reference."""

from __future__ import annotations

import hashlib
import io
import signal
import socket
import sqlite3
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import snl
from snl.cli.main import main
from snl.service import batching
from snl.service.models import LoadOptions
from tests.service.conftest import Served, Server, Start, post
from tests.service.in_process import client_of, serve, service_of
from tests.trees import save_varied

WITHOUT_STORE = (
    *("test_what_cannot_be_served", "test_bodies_without_a_sensible_length"),
    "test_pages_of_others_are_refused_without_a_token",
)
"""Tests of the server whose result does not depend on the kind of store."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of the server with both kinds of store."""
    if "served" in metafunc.fixturenames:
        both = metafunc.function.__name__ not in WITHOUT_STORE
        kinds = ["sqlite", "postgresql"] if both else ["sqlite"]
        metafunc.parametrize("served", kinds, indirect=True, scope="module")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six images of two products, two with a defect."""
    folder = tmp_path_factory.mktemp("images")
    return [
        save_varied(folder / f"{product}-{n}.png", 4000 + n, defect=n == 2, product=product)
        for product in ("bolt", "plate")
        for n in range(3)
    ]


# --- inspections ---


def test_results_are_those_of_the_library(
    served: Served, calibrated: Path, images: list[Path]
) -> None:
    inspector = snl.load(calibrated, "cpu")
    with served.client() as client:
        for path in images:
            answer = post(client, path, part="p-1")
            assert answer.status_code == 200, answer.text
            (one,) = answer.json()["results"]
            found, expected = one["inspection"], inspector.inspect(path)
            assert found["decision"] == expected.decision
            assert found["product"] == expected.product and found["part"] == "p-1"
            assert found["score"] == pytest.approx(expected.score, rel=1e-5)
            assert found["name"] == path.name and found["result"]["path"] == path.name
            boxes = [region["box"] for region in found["result"]["regions"]]
            assert boxes == [list(region.box) for region in expected.regions]
            again = client.get(found["links"]["self"]).json()
            assert again == found
            assert client.get(found["links"]["image"]).content == path.read_bytes()
            overlay = client.get(found["links"]["overlay"])
            assert overlay.headers["content-type"] == "image/png"
            picture = np.asarray(Image.open(io.BytesIO(overlay.content)).convert("RGB"), int)
            wanted = np.asarray(expected.overlay().convert("RGB"), int)
            assert picture.shape == wanted.shape
            assert np.mean(np.abs(picture - wanted) > 8) < 0.01  # the map has 11 bits
            shown = np.asarray(Image.open(io.BytesIO(client.get(found["links"]["map"]).content)))
            assert shown.shape == expected.prediction.anomaly_map.shape and shown.dtype == np.uint8


def test_a_form_with_several_images(served: Served, images: list[Path]) -> None:
    with served.client() as client:
        files = [("images", (path.name, path.read_bytes())) for path in images[:2]]
        files.append(("images", ("notes.txt", b"hello")))
        answer = client.post("/v1/inspections", files=files)
        assert answer.status_code == 200
        first, second, third = answer.json()["results"]
        assert first["inspection"]["name"] == images[0].name
        assert second["inspection"]["name"] == images[1].name
        assert third["inspection"] is None and third["error"]["code"] == "bad_image"
        assert "notes.txt" in third["error"]["message"]


def test_pages_and_filters(served: Served, images: list[Path]) -> None:
    since = {"since": datetime.now(UTC).isoformat()}
    with served.client() as client:
        ids = []
        for path in (images[n % 6] for n in range(15)):
            answer = post(client, path, product=path.name.split("-")[0])
            ids.append(answer.json()["results"][0]["inspection"]["id"])
        assert ids == sorted(ids)
        seen: list[str] = []
        after: str | None = ""
        while after is not None:
            page = client.get(
                "/v1/inspections", params={"limit": 4, "after": after, **since}
            ).json()
            seen += [one["id"] for one in page["inspections"]]
            after = page["next"]
        assert seen == ids[::-1]
        bolts = client.get("/v1/inspections", params={"product": "bolt", **since}).json()[
            "inspections"
        ]
        assert {one["product"] for one in bolts} == {"bolt"} and len(bolts) == 9
        anomalous = client.get("/v1/inspections", params={"decision": "anomalous", **since}).json()
        assert {one["decision"] for one in anomalous["inspections"]} == {"anomalous"}
        stats = client.get("/v1/stats", params=since).json()
        assert stats["total"] == 15 and sum(stats["by_product"]["bolt"].values()) == 9
        assert client.get("/v1/inspections", params={"limit": 0}).status_code == 422


def test_an_idempotency_key_inspects_once(served: Served, images: list[Path]) -> None:
    since = {"since": datetime.now(UTC).isoformat()}
    with served.client() as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(client, images[0], key="k-1"), range(8)))
        ids = {a.json()["results"][0]["inspection"]["id"] for a in answers if a.status_code == 200}
        assert len(ids) == 1 and {a.status_code for a in answers} <= {200, 409}
        other = post(client, images[0], key="k-2").json()["results"][0]["inspection"]["id"]
        assert other not in ids
        assert client.get("/v1/stats", params=since).json()["total"] == 2


def test_reviews(served: Served, images: list[Path]) -> None:
    since = {"since": datetime.now(UTC).isoformat()}
    with served.client() as client:
        id = post(client, images[2]).json()["results"][0]["inspection"]["id"]
        new = {"verdict": "confirmed", "note": "a dent", "regions": [{"box": [1, 2, 3, 4]}]}
        done = client.post(f"/v1/inspections/{id}/review", json=new)
        assert done.status_code == 200 and done.json()["who"] == "local"
        client.post(f"/v1/inspections/{id}/review", json={"verdict": "false alarm"})
        verdicts = [r["verdict"] for r in client.get(f"/v1/inspections/{id}/reviews").json()]
        assert verdicts == ["confirmed", "false alarm"]
        assert client.get(f"/v1/inspections/{id}").json()["review"] == "false alarm"
        none = client.get("/v1/inspections", params={"review": "none", **since}).json()[
            "inspections"
        ]
        assert not none
        wrong = client.post(f"/v1/inspections/{id}/review", json={"verdict": "maybe"})
        assert wrong.status_code == 422
        missing = client.post("/v1/inspections/0/review", json={"verdict": "miss"})
        assert missing.status_code == 404


def test_products_models_and_metrics(served: Served, calibrated: Path, images: list[Path]) -> None:
    inspector = snl.load(calibrated, "cpu")
    with served.client() as client:
        post(client, images[0])
        products = {one["name"]: one for one in client.get("/v1/products").json()}
        assert products.keys() == set(inspector.products)
        assert products["bolt"]["threshold"] == inspector.threshold("bolt")
        (model,) = client.get("/v1/models").json()
        assert model["name"] == calibrated.stem
        (version,) = model["versions"]
        assert version["id"] == model["active"] and version["state"] == "active"
        assert version["network"] == inspector.calibration.network
        text = client.get("/metrics").text
        total = client.get("/v1/stats").json()["total"]
        assert f"snl_inspection_seconds_count {total}.0" in text
        assert f'snl_images_waiting{{model="{calibrated.stem}"}} 0.0' in text
        api = client.get("/v1/openapi.json").json()
        assert "/v1/inspections/{id}/review" in api["paths"]


# --- wrong input ---


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 400), (b"not an image", 422), (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, 422)],
)
def test_wrong_bodies(served: Served, content: bytes, status: int) -> None:
    with served.client() as client:
        before = client.get("/v1/stats").json()
        answer = client.post("/v1/inspections", content=content, params={"name": "a.png"})
        assert answer.status_code == status
        error = answer.json()["error"]
        assert str(served.data) not in error["message"] and "Traceback" not in answer.text
        unknown = client.post("/v1/inspections", content=b"x", params={"product": "nut"})
        assert unknown.status_code == 422 and "nut" in unknown.json()["error"]["message"]
        assert client.get("/v1/inspections/../../etc/passwd").status_code == 404
        assert client.get("/v1/inspections/x/image").status_code == 404
        assert client.get("/v1/stats").json() == before
        assert not list((served.data / "files" / "incoming").iterdir())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Content-Length: 1000000000", b"413"),
        ("Transfer-Encoding: chunked", b"411"),
        ("Content-Length: -1", b"400"),
    ],
)
def test_bodies_without_a_sensible_length(served: Served, headers: str, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        text = f"POST /v1/inspections HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n\r\n"
        connection.sendall(text.encode() + b"5\r\nhello\r\n0\r\n\r\n")
        assert connection.recv(200).split()[1] == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:8000"}, 200),
    ],
)
def test_pages_of_others_are_refused_without_a_token(
    served: Served, headers: dict[str, str], status: int
) -> None:
    with served.client() as client:
        assert client.get("/v1/inspections", headers=headers).status_code == status


def test_what_cannot_be_served(
    served: Served, calibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", tmp_path / "data"]
    for words, message in (
        (["none.snl", *data], "none.snl"),
        ([calibrated, "--host", "0.0.0.0", *data], "no token"),
        ([calibrated, "--store", "nonsense", *data], "the store cannot be opened"),
        ([calibrated, "--store", f"sqlite:///{tmp_path}/none/x.db", *data], "its folder exists"),
        ([calibrated, "--port", served.port, *data], "cannot listen there"),
        ([calibrated, "--port", 0, "--data", served.data], "another snl serve uses this folder"),
    ):
        assert main(["serve", *map(str, words)]) == 2
        errors = capsys.readouterr().err
        assert message in errors and len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "data" / "files").exists()
    with pytest.raises(SystemExit):
        main(["serve", str(calibrated), "--port", "70000"])
    with served.client() as client:
        assert client.get("/v1/openapi.json").json()["info"]["title"] == "snl inspection service"


# --- access ---


def test_tokens_and_roles(
    calibrated: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def token(*words: str) -> tuple[int, str]:
        status = main(["token", *words, "--data", str(tmp_path)])
        return status, capsys.readouterr().out

    roles = ("read", "inspect", "review", "admin")
    tokens = {role: token("create", role, "--role", role)[1].strip() for role in roles}
    may = {"read": {"list"}, "inspect": {"list", "inspect"}}
    may["review"] = may["admin"] = {"list", "inspect", "review"}
    with service_of(tmp_path, calibrated) as service, client_of(service, open=False) as client:

        def use(token: str) -> None:
            client.headers["Authorization"] = f"Bearer {token}"

        assert client.get("/healthz").status_code == 200
        refused = client.get("/v1/inspections")
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
        use("snl_000000000000_wrong")
        assert client.get("/v1/inspections").status_code == 401
        use(tokens["inspect"])
        id = post(client, images[0]).json()["results"][0]["inspection"]["id"]
        for role in roles:
            use(tokens[role])
            review = {"verdict": "miss"}
            status = {
                "list": client.get("/v1/inspections").status_code,
                "inspect": post(client, images[0]).status_code,
                "review": client.post(f"/v1/inspections/{id}/review", json=review).status_code,
            }
            assert {name for name, code in status.items() if code == 200} == may[role]
            assert set(status.values()) <= {200, 403}
        number = tokens["read"].split("_")[1]
        assert token("revoke", number)[0] == 0
        assert "revoked" in token("list")[1]
        assert token("revoke", number)[0] == 2
        use(tokens["read"])
        assert client.get("/v1/inspections").status_code == 401
    database = (tmp_path / "snl.db").read_bytes()
    assert not any(one.split("_", 2)[2].encode() in database for one in tokens.values())


# --- load, stops and kills ---


def test_what_waits_is_bounded(calibrated: Path, images: list[Path], tmp_path: Path) -> None:
    """Many clients at once: every request is answered, by a result or by 429."""
    options = LoadOptions("cpu", batch_size=1, waiting=2)
    with (
        service_of(tmp_path, calibrated, options=options) as service,
        client_of(service) as client,
        ThreadPoolExecutor(24) as pool,
    ):
        answers = list(pool.map(lambda n: post(client, images[n % 6]), range(96)))
        counts = Counter(answer.status_code for answer in answers)
        assert counts.keys() <= {200, 429} and counts[200] > 0
        for answer in answers:
            if answer.status_code == 429:
                assert int(answer.headers["retry-after"]) >= 1
        assert client.get("/v1/stats").json()["total"] == counts[200]


def test_what_is_too_much_is_refused_at_once(
    calibrated: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the network is slow, as many as may wait are accepted, and the others do not wait."""
    slow = batching.predict_loaded

    def predict(*words: Any, **options: Any) -> Any:
        time.sleep(3)
        return slow(*words, **options)

    monkeypatch.setattr(batching, "predict_loaded", predict)
    options = LoadOptions("cpu", batch_size=64)
    with service_of(tmp_path, calibrated, options=options) as service, serve(service) as url:
        clients = [httpx.Client(base_url=url, timeout=60, verify=False) for _ in range(150)]
        together = threading.Barrier(len(clients))

        def send(client: httpx.Client) -> tuple[int, float]:
            together.wait()
            began = time.perf_counter()
            status = post(client, images[0]).status_code
            return status, time.perf_counter() - began

        with ThreadPoolExecutor(len(clients)) as pool:
            found = list(pool.map(send, clients))
        for client in clients:
            client.close()
    counts = Counter(status for status, _ in found)
    assert counts == {200: 64, 429: 86}
    assert max(took for status, took in found if status == 429) < 2.5


def test_a_signal_finishes_what_was_accepted(
    start: Start, calibrated: Path, images: list[Path], number: int = signal.SIGTERM
) -> None:
    server = start(calibrated)
    done: list[str] = []
    thread = threading.Thread(target=_send, args=(server, images, done))
    thread.start()
    while len(done) < 3:
        time.sleep(0.01)
    status, errors = server.stop(number)
    thread.join()
    assert status in (0, 128 + number, -number) and "Traceback" not in errors
    assert set(done) <= _stored(server.data).keys()


def test_what_was_answered_survives_kill_9(
    start: Start, calibrated: Path, images: list[Path]
) -> None:
    data: Path | None = None
    done: list[str] = []
    for moment in range(2):
        server = start(calibrated, data=data)
        data = server.data
        before = len(done)
        threads = [threading.Thread(target=_send, args=(server, images, done)) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(done) < before + 8:
            time.sleep(0.01)
        time.sleep(0.07 * moment)
        server.stop(signal.SIGKILL)
        for thread in threads:
            thread.join()
    assert data is not None and len(done) >= 16
    rows = _stored(data)
    for id in done:
        for name in rows[id]:
            content = (data / "files" / name[:2] / name[2:4] / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == name


def _send(server: Server, images: list[Path], done: list[str]) -> None:
    """Inspect images until the server is gone; collect the answers."""
    with server.client() as client:
        for n in range(10_000):
            try:
                answer = post(client, images[n % 6])
            except httpx.TransportError:
                return
            if answer.status_code == 200:
                done.append(answer.json()["results"][0]["inspection"]["id"])


def _stored(data: Path) -> dict[str, tuple[str, str]]:
    """Return the files of image and prediction of every inspection, read without snl."""
    with closing(sqlite3.connect(data / "snl.db")) as database:
        query = "SELECT id, image, prediction FROM inspections"
        return {id: (image, prediction) for id, image, prediction in database.execute(query)}
