"""What the page of the service reads: queues, events, sessions, statistics, stored scores."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from snl.service.access import create
from snl.service.api.app import make_app
from snl.service.service import Service
from snl.service.statistics import statistics
from snl.service.store import UNUSUAL_P, Filter, Store
from snl.service.tables import ReviewRow
from tests.service import rows
from tests.service.conftest import post
from tests.service.in_process import client_of, service_of


@pytest.fixture(scope="module")
def service(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service_of(tmp_path_factory.mktemp("data"), calibrated) as service:
        yield service


@pytest.fixture(scope="module")
def tiny_images(varied: Path) -> list[Path]:
    """Test images of two products, with and without defects."""
    return sorted(varied.glob("*/test/*/*.png"))[::3][:12]


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with client_of(service) as client:
        yield client


def inspected(client: httpx.Client, images: list[Path], **query: Any) -> list[dict[str, Any]]:
    answers = [post(client, image, **query) for image in images]
    assert {answer.status_code for answer in answers} == {200}
    return [answer.json()["results"][0]["inspection"] for answer in answers]


@pytest.fixture(scope="module")
def some(client: httpx.Client, tiny_images: list[Path]) -> list[dict[str, Any]]:
    return inspected(client, tiny_images)


# --- the store ---


def fill(store: Store, *values: dict[str, Any]) -> list[str]:
    found = [rows.inspection(n, **one) for n, one in enumerate(values)]
    for future in [store.add(row) for row in found]:
        future.result(10)
    return [row.id for row in found]


def listed(store: Store, **which: Any) -> list[str]:
    return [row.id for row in store.list(Filter(**which), 100)]


def test_queues_have_what_nobody_has_reviewed_newest_first(store: Store) -> None:
    ids = fill(
        store,
        {"decision": "normal", "p_value": 0.9},
        {"decision": "anomalous"},
        {"decision": "uncertain"},
        {"decision": "unknown product"},
        {"decision": "anomalous", "review": "confirmed"},
        {"decision": "normal", "p_value": UNUSUAL_P},
        {"decision": "normal", "p_value": None},
        {"decision": "anomalous", "seen": datetime.now(UTC)},
    )
    expected = {
        "open": [7, 3, 2, 1],
        "alarm": [7, 1],
        "uncertain": [2],
        "unknown": [3],
        "unusual": [5],
    }
    for queue, numbers in expected.items():
        assert listed(store, queue=queue) == [ids[n] for n in numbers], queue
    assert listed(store, unseen=True) == [ids[n] for n in (3, 2, 1)]
    assert listed(store, queue="open", product="nut") == []


def test_seen_alarms_are_counted_once(store: Store) -> None:
    ids = fill(store, {"decision": "anomalous"}, {"decision": "uncertain"})
    assert store.see([ids[0], "not there"], "anna") == 1
    assert store.see(ids, "bert") == 1
    assert store.see(ids, "bert") == 0
    assert [(row.who, row.details) for row in store.audits(0, 10)] == [
        ("bert", {"inspections": 1}),
        ("anna", {"inspections": 1}),
    ]


def review(id: str, verdict: str, who: str = "anna") -> ReviewRow:
    return ReviewRow(
        inspection=id, created=datetime.now(UTC), who=who, verdict=verdict, note="", regions=[]
    )


def test_undoing_reviews_goes_back_one_by_one_and_forgets_nothing(store: Store) -> None:
    (id,) = fill(store, {"decision": "anomalous"})
    for verdict in ("confirmed", "false alarm"):
        assert store.review(review(id, verdict))

    def verdict() -> str | None:
        row = store.inspection(id)
        assert row is not None
        return row.review

    assert verdict() == "false alarm"
    first = store.undo_review(id, "bert")
    assert first is not None and first.verdict == "false alarm" and verdict() == "confirmed"
    assert store.review(review(id, "miss")) and verdict() == "miss"
    assert store.undo_review(id, "bert") is not None and verdict() == "confirmed"
    assert store.undo_review(id, "bert") is not None and verdict() is None
    assert store.undo_review(id, "bert") is None
    assert [(row.verdict, row.withdrawn is not None) for row in store.reviews(id)] == [
        ("confirmed", True), ("false alarm", True), ("miss", True)
    ]  # fmt: skip
    assert Counter(row.action for row in store.audits(0, 20)) == {"review": 3, "review undo": 3}


@pytest.mark.parametrize("offset", [0, 330, -480])
def test_statistics_count_by_local_hour_and_day(store: Store, offset: int) -> None:
    values = [
        {"product": ("bolt", "nut")[n % 2], "decision": ("normal", "anomalous")[n % 3 == 0],
         "review": (None, "confirmed")[n % 5 == 0]}
        for n in range(0, 50)
    ]  # fmt: skip
    found = [rows.inspection(n * 47, **one) for n, one in enumerate(values)]  # 47 minutes apart
    for future in [store.add(row) for row in found]:
        future.result(10)
    for hours, pattern in ((True, "%Y-%m-%dT%H"), (False, "%Y-%m-%d")):
        expected = Counter(
            ((row.created + timedelta(minutes=offset)).strftime(pattern), row.product,
             row.decision, row.review)
            for row in found[10:40]
        )  # fmt: skip
        got = statistics(store, found[10].created, found[40].created, hours, offset)
        assert {tuple(one[:4]): one[4] for one in got} == expected
        assert [one[0] for one in got] == sorted(one[0] for one in got)


def test_changes_are_announced_after_they_are_in_the_store(store: Store) -> None:
    (id,) = fill(store, {"decision": "anomalous"})
    told: list[tuple[str, str, int]] = []
    store.changed = lambda kind, about: told.append((kind, about, len(store.reviews(id))))
    store.review(review(id, "confirmed"))
    with pytest.raises(RuntimeError), store.writing() as session:
        session.add(review(id, "miss"))
        raise RuntimeError
    assert told == [("review", id, 1)]


# --- routes ---


def test_a_review_is_undone_and_the_alarm_waits_again(
    client: httpx.Client, some: list[dict[str, Any]]
) -> None:
    path = f"/v1/inspections/{some[0]['id']}"
    assert client.delete(f"{path}/review").status_code == 409
    client.post(f"{path}/review", json={"verdict": "confirmed", "note": "<b>bent</b>"})
    shown = client.get(path).json()
    assert shown["review"] == "confirmed" and shown["seen"]
    assert client.delete(f"{path}/review").json()["review"] is None
    (row,) = client.get(f"{path}/reviews").json()
    assert row["withdrawn"] and row["note"] == "<b>bent</b>"
    assert client.delete("/v1/inspections/nothing/review").status_code == 404


def test_the_nearest_normal_image_is_one_that_people_or_the_model_called_normal(
    service: Service, client: httpx.Client, tiny_images: list[Path]
) -> None:
    product = service.models.active().calibration.products[0]
    found = inspected(client, tiny_images[:4], product=product)
    for one in found:
        client.post(f"/v1/inspections/{one['id']}/review", json={"verdict": "miss"})
    first = f"/v1/inspections/{found[0]['id']}"
    normal = {
        one["id"]
        for one in client.get("/v1/inspections", params={"limit": 1000}).json()["inspections"]
        if one["product"] == product and (
            one["review"] == "false alarm"
            or (one["decision"] == "normal" and one["review"] is None)
        )
    }  # fmt: skip
    near = client.get(f"{first}/nearest").json()["inspection"]
    assert near is None or near["id"] in normal
    verdict = "false alarm" if found[1]["decision"] != "normal" else "confirmed"
    client.post(f"/v1/inspections/{found[1]['id']}/review", json={"verdict": verdict})
    near = client.get(f"{first}/nearest").json()["inspection"]
    assert near is not None and near["product"] == product and near["id"] != found[0]["id"]


def test_scores_are_decided_again_by_the_calibration_in_force(
    service: Service, client: httpx.Client, some: list[dict[str, Any]]
) -> None:
    calibration = service.models.active().calibration
    for product in calibration.products:
        got = client.get(f"/v1/products/{product}/scores").json()
        stored = client.get("/v1/inspections", params={"product": product, "limit": 1000}).json()
        by_id = {one["id"]: one for one in stored["inspections"]}
        assert got["ids"] == list(by_id) and got["left_out"] == 0 and not got["more"]
        for id, score, p, decision in zip(
            got["ids"], got["scores"], got["p_values"], got["decisions"], strict=True
        ):
            assert score == by_id[id]["score"] and decision == by_id[id]["decision"]
            assert p == calibration.scores.p_value(score, product)
        for rate, threshold in got["curve"]:
            assert threshold == calibration.scores.threshold(rate, product)[0]
            assert rate >= got["least_rate"]
    assert client.get("/v1/products/nothing/scores").status_code == 422


def test_the_heat_lies_over_the_image(client: httpx.Client, some: list[dict[str, Any]]) -> None:
    import io

    from PIL import Image

    answer = client.get(f"/v1/inspections/{some[0]['id']}/heat.png")
    picture = Image.open(io.BytesIO(answer.content))
    width, height = (some[0]["result"][side] for side in ("width", "height"))
    assert picture.mode == "RGBA"
    assert picture.width / picture.height == pytest.approx(width / height, rel=0.02)


def test_schemas_of_all_kinds_can_become_forms(client: httpx.Client) -> None:
    kinds = client.get("/v1/connectors").json()
    assert {"folder", "mqtt"} <= kinds["sources"].keys()
    assert {"webhook", "mqtt", "csv", "jsonl"} <= kinds["sinks"].keys()
    assert "folder" in kinds["sources"]["folder"]["required"]
    assert kinds["sources"]["mqtt"]["properties"]["password"]["format"] == "password"


# --- events ---


class Stream:
    """A stream of events that is read in a thread."""

    def __init__(self, client: httpx.Client, **headers: str) -> None:
        self.events: list[tuple[str, str, Any]] = []
        self.ended = threading.Event()
        self._client, self._headers = client, headers
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.ready = threading.Event()
        self._thread.start()
        assert self.ready.wait(10)

    def _read(self) -> None:
        with suppress(httpx.TransportError):  # the server ends
            self._follow()
        self.ended.set()

    def _follow(self) -> None:
        with self._client.stream("GET", "/v1/events", headers=self._headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            event: dict[str, str] = {}
            for line in answer.iter_lines():
                self.ready.set()
                name, _, value = line.partition(": ")
                if line:
                    event[name] = value
                elif "event" in event:
                    self.events.append((event["event"], event.get("id", ""),
                                        json.loads(event["data"])))  # fmt: skip
                    event = {}

    def wait(self, count: int) -> list[tuple[str, str, Any]]:
        end = time.monotonic() + 20
        while len(self.events) < count:
            assert time.monotonic() < end, self.events
            time.sleep(0.02)
        return self.events


def test_events_arrive_as_they_happen_and_missed_ones_come_first(
    service: Service, client: httpx.Client, tiny_images: list[Path]
) -> None:
    (before,) = inspected(client, tiny_images[:1])
    (missed,) = inspected(client, tiny_images[1:2])
    with httpx.Client(base_url=client.base_url, timeout=30) as other:
        stream = Stream(other, **{"Last-Event-ID": before["id"]})
        assert stream.wait(1)[0] == ("inspection", missed["id"], missed)
        (new,) = inspected(client, tiny_images[2:3])
        client.post(f"/v1/inspections/{new['id']}/review", json={"verdict": "confirmed"})
        assert stream.wait(3)[1:] == [
            ("inspection", new["id"], new),
            ("change", "", {"what": "review", "id": new["id"]}),
        ]


def test_a_stream_that_missed_too_much_begins_anew(
    client: httpx.Client, some: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from snl.service.api import live

    monkeypatch.setattr(live, "MOST_MISSED", 2)
    with httpx.Client(base_url=client.base_url, timeout=30) as other:
        stream = Stream(other, **{"Last-Event-ID": "0"})
        assert stream.wait(1)[0] == ("reset", "", {})


def test_open_streams_do_not_delay_the_end_of_the_server(calibrated: Path, tmp_path: Path) -> None:
    with service_of(tmp_path, calibrated) as service:
        with client_of(service) as client:
            Stream(client)
            began = time.monotonic()
        assert time.monotonic() - began < 5
        assert not service.feed._listeners


# --- sessions ---


def test_a_browser_signs_in_with_a_cookie_that_other_sites_cannot_use(service: Service) -> None:
    token = create(service.store, "anna", "review")
    with client_of(service, open=False) as client:
        assert client.get("/v1/session").status_code == 401
        assert client.post("/v1/session", json={"token": token + "x"}).status_code == 401
        answer = client.post("/v1/session", json={"token": token})
        assert answer.json() == {"name": "anna", "role": "review", "open": False}
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie
        assert client.get("/v1/session").json()["name"] == "anna"
        assert client.get("/v1/inspections").status_code == 200
        seen = {"ids": ["nothing"]}
        own = {"Origin": str(client.base_url).rstrip("/")}
        assert client.post("/v1/inspections/seen", json=seen).status_code == 403
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
            answer = client.post("/v1/inspections/seen", json=seen, headers={"Origin": origin})
            assert answer.status_code == 403, origin
        sites = {**own, "Sec-Fetch-Site": "cross-site"}
        assert client.post("/v1/inspections/seen", json=seen, headers=sites).status_code == 403
        assert client.post("/v1/inspections/seen", json=seen, headers=own).status_code == 200
        assert client.get("/v1/audit").status_code == 403  # the role counts as ever
        client.delete("/v1/session")
        assert client.get("/v1/session").status_code == 401


# --- a service without a model ---


def test_a_service_without_a_model_says_so_and_takes_one(
    calibrated: Path, tmp_path: Path, tiny_images: list[Path]
) -> None:
    with service_of(tmp_path) as service, client_of(service) as client:
        assert client.get("/readyz").status_code == 200
        assert client.get("/v1/models").json() == []
        for path in ("/v1/products", "/v1/drift"):
            answer = client.get(path)
            assert answer.status_code == 404 and "no model yet" in answer.text
        assert "no model yet" in post(client, tiny_images[0]).text
        assert client.get("/metrics").status_code == 200
        made = client.post("/v1/models", content=calibrated.read_bytes()).json()
        assert [one["id"] for one in client.get("/v1/versions").json()] == [made["id"]]
        assert client.post(f"/v1/models/{made['id']}/promote", json={}).status_code == 200
        assert post(client, tiny_images[0]).status_code == 200
        assert client.get("/v1/models").json()[0]["name"] == "parts"
        assert client.post(f"/v1/models/{made['id']}/discard", json={}).status_code == 422


def test_the_paths_of_the_page_are_those_of_the_api(service: Service) -> None:
    """Every address in the page's script is a route."""
    import re

    from snl.station.pages import page_script

    paths = make_app(service).openapi()["paths"]
    patterns = [re.sub(r"\{[^}]+\}", "[^/]+", path) + "$" for path in paths]
    script = page_script().replace("${base}", "/v1/products/x").replace("${role}", "sinks")
    script = script.replace("models/${id}/${action}", "models/${id}/promote")
    script = script.replace("${encodeURIComponent(one.name)}/${action}", "x/pause")
    used = {
        re.sub(r"\$\{[^}]*\}", "x", one).split("?")[0]
        for one in re.findall(r"[`\"](/v1/[^`\"\s]*)", script)
    }
    assert len(used) > 20
    for one in used - {"/v1/products/x"}:
        assert any(re.match(pattern, one) for pattern in patterns), one
