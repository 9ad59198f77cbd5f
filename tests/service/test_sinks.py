"""Sinks with a real store, real receivers and faults."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from snl.errors import PluginError, SettingsError
from snl.service.access import create
from snl.service.api.schemas import Inspection
from snl.service.events import shown
from snl.service.policy import Policy
from snl.service.sinks.base import DeliveryError
from snl.service.sinks.outbox import Sinks
from snl.service.store import DuplicateError, NotThereError
from tests.service.conftest import free_port, post
from tests.service.in_process import client_of, service_of
from tests.service.receivers import SECRET, Line, Receiver, inspection_row, until
from tests.trees import save_varied

ROOT = Path(__file__).parents[2]


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    with Line(tmp_path) as one:
        yield one


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as one:
        yield one


def webhook(receiver: Receiver, **settings: Any) -> dict[str, Any]:
    return {"kind": "webhook", "url": receiver.url, "secret": SECRET, "timeout": 5, **settings}


# --- webhooks ---


def test_events_come_in_order_signed_and_as_the_api_shows_them(
    line: Line, receiver: Receiver
) -> None:
    sinks = line.start({"mes": webhook(receiver, headers={"Authorization": "Bearer abc"})})
    strange = {"name": "pärt\u2028\n'\"</script>", "product": "=cmd|' /C calc'!A0", "part": "7"}
    row = inspection_row(**strange, score=1e300, result={"worst": float("nan"), "at": [1, 2]})
    expected = Inspection(**shown(row)).model_dump(mode="json")
    line.store.add(row).result()
    ids = [row.id, *line.inspect(30)]
    until(lambda: len(receiver.got) == 31, "all events")
    assert [one.body["id"] for one in receiver.got] == ids
    assert all(one.signed and one.path == "/events?line=1" for one in receiver.got)
    assert {one.headers["Authorization"] for one in receiver.got} == {"Bearer abc"}
    assert [one.headers["Snl-Event-Id"] for one in receiver.got] == ids
    first = receiver.got[0].body
    assert first["inspection"] == {**expected, "result": {"worst": None, "at": [1, 2]}}
    assert first["type"] == "inspection" and first["created"] == expected["created"]
    until(lambda: line.outbox() == 0, "an empty outbox")
    status = sinks.one("mes")
    assert (status.waiting, status.dead, status.bytes, status.state) == (0, 0, 0, "running")
    assert status.last_delivery is not None and status.oldest is None


def test_a_receiver_that_is_away_gets_everything_in_order(line: Line) -> None:
    port = free_port()
    away = {"kind": "webhook", "url": f"http://127.0.0.1:{port}/", "secret": SECRET}
    sinks = line.start({"mes": away})
    line.inspect(5)
    until(lambda: sinks.one("mes").state == "retrying", "a failed try")
    status = sinks.one("mes")
    assert status.waiting == 5 and "cannot be reached" in status.last_error
    assert status.oldest is not None and 5 * 500 < status.bytes < 5 * 2000
    with Receiver(port) as receiver:
        line.inspect(5)
        until(lambda: line.outbox() == 0, "delivery")
        assert receiver.parts == list(range(10))
    line.inspect(3)  # away again, with a connection that was open
    time.sleep(0.1)
    with Receiver(port) as again:
        until(lambda: line.outbox() == 0, "delivery")
        assert list(dict.fromkeys(again.parts)) == [10, 11, 12]


def test_temporary_refusals_are_tried_again_before_anything_else(
    line: Line, receiver: Receiver
) -> None:
    receiver.answers = [(500, {}), (429, {"Retry-After": "1"}), (408, {}), (503, {}), (425, {})]
    line.start({"mes": webhook(receiver)})
    line.inspect(4)
    until(lambda: line.outbox() == 0, "delivery")
    assert receiver.parts == [0, 1, 2, 3]
    assert [one.status for one in receiver.got[:6]] == [500, 429, 408, 503, 425, 200]
    assert len({one.headers["Snl-Event-Id"] for one in receiver.got[:6]}) == 1
    assert receiver.got[2].time - receiver.got[1].time >= 1.0
    assert receiver.got[1].time - receiver.got[0].time < 0.9


def test_refused_events_become_dead_letters_and_block_nothing(
    line: Line, receiver: Receiver
) -> None:
    receiver.refuse = lambda body: body["inspection"]["part"] in ("1", "3")
    sinks = line.start({"mes": webhook(receiver)})
    ids = line.inspect(5)
    until(lambda: sinks.counts() == {"mes": (0, 2)}, "dead letters")
    assert receiver.parts == [0, 2, 4]
    first, second = sinks.dead("mes")
    assert [first.inspection, second.inspection] == [ids[1], ids[3]]
    assert "400" in first.error and "hello" in first.error and first.attempts == 1
    assert [one.id for one in sinks.dead("mes", after=first.id)] == [second.id]
    sinks = line.start({"mes": webhook(receiver)})
    assert sinks.counts() == {"mes": (0, 2)}
    receiver.refuse = lambda body: body["inspection"]["part"] == "3"
    assert sinks.retry_dead("mes", "ann") == 2
    until(lambda: sinks.counts() == {"mes": (0, 1)}, "one dead letter")
    assert receiver.parts == [0, 2, 4, 1]
    assert sinks.delete_dead("mes", "ann") == 1 and line.outbox() == 0
    assert line.audits() == [
        ("sink retry dead", "mes", {"events": 2}),
        ("sink delete dead", "mes", {"events": 1}),
    ]
    with pytest.raises(NotThereError):
        sinks.dead("none")


def test_a_receiver_that_hangs_loses_nothing_and_holds_up_no_other(
    line: Line, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.hang.set()
    file = {"kind": "jsonl", "path": str(tmp_path / "all.jsonl")}
    sinks = line.start({"mes": webhook(receiver, timeout=0.2), "file": file})
    line.inspect(3)
    until(lambda: "no answer within 0.2 s" in sinks.one("mes").last_error, "a time-out")
    assert sinks.counts() == {"file": (0, 0), "mes": (3, 0)}
    receiver.hang.clear()
    until(lambda: line.outbox() == 0, "delivery")
    numbers = receiver.parts
    assert numbers == sorted(numbers) and set(numbers) == {0, 1, 2}


def test_a_receiver_that_sends_a_byte_now_and_then_is_given_up(line: Line) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                for letter in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100:
                    connection.sendall(bytes([letter]))
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        sinks = line.start({"mes": {"kind": "webhook", "url": url, "timeout": 0.5}})
        line.inspect()
        until(lambda: "no answer within 0.5 s" in sinks.one("mes").last_error, "a time-out", 5)
        assert sinks.counts() == {"mes": (1, 0)}


@pytest.mark.parametrize("status", [301, 307])
def test_redirects_are_not_followed(line: Line, receiver: Receiver, status: int) -> None:
    with Receiver() as other:
        receiver.answers = [(status, {"Location": other.url})] * 2
        sinks = line.start({"mes": webhook(receiver)})
        line.inspect()
        until(lambda: line.outbox() == 0, "delivery to the receiver itself")
        assert [one.status for one in receiver.got] == [status, status, 200]
        assert not other.got and "a redirect; it is not followed" in sinks.one("mes").last_error


def test_proxies_of_the_environment_are_not_used(
    line: Line, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("NO_PROXY", "")
    line.start({"mes": webhook(receiver)})
    line.inspect()
    until(lambda: receiver.parts == [0], "delivery")


# --- crashes ---

PROCESS = """
import sys, time
from pathlib import Path
from snl.service.sinks.courier import Backoff
from snl.service.sinks.outbox import Sinks
from snl.service.store import Store, sqlite_url
from tests.service.receivers import inspection_row
store = Store(sqlite_url(Path(sys.argv[1])))
sinks = Sinks(store, {"mes": {"kind": "webhook", "url": sys.argv[2]},
                      "file": {"kind": "jsonl", "path": sys.argv[3]}}, None, Backoff(0.02, 0.1))
store.events_of = sinks.events_of
for number in range(1000000):
    store.add(inspection_row(number)).result()
    sinks.wake()
    print(number, flush=True)
"""


def test_what_was_stored_is_delivered_after_kill_9(line: Line, receiver: Receiver) -> None:
    """The receiver hangs after a while, so that there are events between commit and delivery."""
    path = line.folder / "all.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, *map(str, (line.folder, receiver.url, path))],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    until(lambda: len(receiver.got) > 3, "deliveries", 60)
    receiver.hang.set()
    for _ in range(len(receiver.got) + 10):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    receiver.hang.clear()
    stored = line.outbox("SELECT count(*) FROM inspections")
    assert line.outbox("SELECT count(*) FROM outbox WHERE sink = 'mes'") > 0 and stored > 13
    mes = {"kind": "webhook", "url": receiver.url}
    line.start({"mes": mes, "file": {"kind": "jsonl", "path": str(path)}})
    until(lambda: line.outbox() == 0, "delivery of all")
    with closing(sqlite3.connect(line.folder / "snl.db")) as database:
        ids = [id for (id,) in database.execute("SELECT id FROM inspections ORDER BY id")]
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    for bodies in ([one.body for one in receiver.got], lines):
        assert list(dict.fromkeys(body["id"] for body in bodies)) == ids
        assert len(bodies) <= len(ids) + 200  # a batch twice, at each kill


def test_an_inspection_that_is_not_stored_has_no_event(line: Line, receiver: Receiver) -> None:
    line.start({"mes": webhook(receiver)})
    line.inspect(idempotency_key="a")
    with pytest.raises(DuplicateError):
        line.inspect(idempotency_key="a")
    line.inspect(idempotency_key="b")
    until(lambda: line.outbox() == 0, "delivery")
    assert receiver.parts == [0, 2]


def test_what_cannot_be_deleted_is_not_sent_again_and_again(line: Line, receiver: Receiver) -> None:
    sinks = line.start({"mes": webhook(receiver)})
    with closing(sqlite3.connect(line.folder / "snl.db")) as database:
        database.execute(
            "CREATE TRIGGER full BEFORE DELETE ON outbox BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
        line.inspect(2)
        until(lambda: "full" in sinks.one("mes").last_error, "a failure of the store")
        time.sleep(0.3)
        assert receiver.parts == [0] and line.outbox() == 2
        database.execute("DROP TRIGGER full")
    until(lambda: line.outbox() == 0, "delivery")
    assert receiver.parts == [0, 1] and sinks.one("mes").state == "running"


# --- setting up ---


def test_sinks_of_the_api_reach_only_what_is_allowed(
    line: Line, receiver: Receiver, tmp_path: Path
) -> None:
    allowed = tmp_path / "out"
    allowed.mkdir()
    (allowed / "link").symlink_to(tmp_path)
    origin = f"http://127.0.0.1:{receiver.port}"
    policy = Policy((origin, "mqtts://broker"), (allowed,))
    sinks = line.start(policy=policy)
    for url in (
        *("http://169.254.169.254/latest", f"http://localhost:{receiver.port}/", "http://[::1]/"),
        *(f"http://2130706433:{receiver.port}", f"http://127.1:{receiver.port}"),
        *(f"{origin}@evil.example/", f"http://u:p@127.0.0.1:{receiver.port}/"),
        *(f"mqtt://127.0.0.1:{receiver.port}", f"{origin}1/", "file:///etc/passwd"),
    ):
        for kind in ("webhook", "mqtt"):
            with pytest.raises(SettingsError):
                sinks.put("x", kind, {"url": url}, "ann")
    for path in ("/etc/x.csv", f"{allowed}/link/x.csv", f"{allowed}/../x.csv", f"{allowed}/x.db"):
        with pytest.raises(SettingsError):
            sinks.put("x", "csv", {"path": path}, "ann")
    with pytest.raises(SettingsError, match="in no allowed folder"):
        sinks.put("x", "mqtt", {"url": "mqtts://broker", "ca": "/etc/shadow"}, "ann")
    assert sinks.status() == [] and not line.audits() and not receiver.got
    sinks.put("x", "webhook", {"url": receiver.url}, "ann")
    line.inspect()
    until(lambda: receiver.parts == [0], "delivery")


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("fax", {}, "there is no kind of sink 'fax'; installed: webhook, mqtt, jsonl, csv"),
    ("webhook", {}, "sink x: give the setting 'url'"),
    ("webhook", {"url": "https://a", "uri": 1}, "unknown setting 'uri'"),
    ("webhook", {"url": "https://a", "secret": "short"}, "secret: "),
    ("webhook", {"url": "https://a", "timeout": 1e9}, "timeout: "),
    ("webhook", {"url": "https://a", "headers": {"Host": "b"}}, "'Host' cannot be set"),
    ("webhook", {"url": "https://a", "headers": {"A": "b\r\nC: d"}}, "one line of ASCII"),
    ("webhook", {"url": "https://a", "headers": {"A": "*" * 10}}, "give secrets in full"),
    ("webhook", {"url": "https://a", "decisions": ["bad"]}, "decisions.0: "),
    ("mqtt", {"url": "mqtt://a", "topic": "x/#"}, "topic: "),
    ("mqtt", {"url": "mqtt://a", "topic": "x/{score}"}, "{product}"),
    ("mqtt", {"url": "mqtt://a", "topic": "x/{product.__class__}"}, "{product}"),
    ("mqtt", {"url": "https://a"}, "begins with mqtt"),
    ("csv", {"path": "out.csv"}, "absolute path"),
    ("jsonl", {"path": "/tmp/x.csv"}, "ends with .jsonl"),
]


def test_wrong_settings_are_one_line(line: Line) -> None:
    sinks = line.start(policy=Policy(("https://a", "mqtt://a"), (Path("/tmp"),)))
    for kind, settings, message in WRONG:
        for attempt in (
            lambda: sinks.put("x", kind, settings, "ann"),  # noqa: B023
            lambda: Sinks(line.store, {"x": {"kind": kind, **settings}}),  # noqa: B023
        ):
            with pytest.raises((SettingsError, PluginError)) as wrong:
                attempt()
            text = str(wrong.value)
            assert message in text and "\n" not in text and "short" not in text
    assert sinks.status() == []


def test_the_life_of_a_sink(line: Line, receiver: Receiver) -> None:
    with Receiver() as other:
        urls = [f"http://127.0.0.1:{one.port}" for one in (receiver, other)]
        policy = Policy(tuple(urls))
        sinks = line.start(policy=policy)
        settings = {
            "url": receiver.url, "secret": SECRET, "headers": {"X-Key": "abc-abc"},
            "decisions": ["anomalous"], "products": ["bolt"],
        }  # fmt: skip
        status = sinks.put("mes", "webhook", settings, "ann")
        text = json.dumps([status.settings, line.audits()])
        assert SECRET not in text and "abc-abc" not in text and receiver.url in text
        with pytest.raises(SettingsError, match="in full"):
            sinks.put("mes", "webhook", dict(status.settings), "ann")
        line.inspect()
        line.inspect(product="plate")
        line.inspect(decision="normal")
        line.inspect()
        until(lambda: receiver.parts == [0, 3], "delivery")
        until(lambda: line.outbox() == 0, "an empty outbox")
        assert receiver.got[0].signed

        sinks.pause("mes", True, "ann")
        line.inspect(2)
        sinks = line.start(policy=policy)  # it stays paused
        line.inspect()
        time.sleep(0.1)
        assert sinks.one("mes").state == "paused" and sinks.counts() == {"mes": (3, 0)}
        with pytest.raises(SettingsError, match="3 events wait"):
            sinks.delete("mes", "ann")
        line.inspect()
        sinks.put("mes", "webhook", {"url": other.url}, "bob")
        sinks.pause("mes", False, "bob")
        until(lambda: other.parts == [4, 5, 6, 7], "delivery to the other receiver")
        assert receiver.parts == [0, 3]

        sinks.test("mes", "bob")
        assert other.got[-1].body["type"] == "test" and other.got[-1].body["sink"] == "mes"
        other.answers = [(403, {})]
        with pytest.raises(DeliveryError, match="403"):
            sinks.test("mes", "bob")

        sinks.pause("mes", True, "bob")
        line.inspect(2)
        sinks.delete("mes", "bob", discard=True)
        line.inspect()
        assert sinks.status() == [] and line.outbox() == 0
        assert [action for action, _, _ in line.audits()] == [
            "sink add", "sink pause", "sink replace", "sink resume", "sink test", "sink test",
            "sink pause", "sink remove", "sink discard",
        ]  # fmt: skip
        with pytest.raises(NotThereError):
            sinks.delete("mes", "bob")
        assert line.start(policy=policy).status() == []


def test_a_sink_that_is_no_longer_allowed_keeps_its_events(line: Line, receiver: Receiver) -> None:
    policy = Policy((f"http://127.0.0.1:{receiver.port}",))
    settings = {"url": receiver.url, "decisions": ["anomalous"]}
    line.start(policy=policy).put("mes", "webhook", settings, "ann")
    sinks = line.start(policy=Policy())
    line.inspect(decision="normal")
    line.inspect(2)
    status = sinks.one("mes")
    assert status.state == "failed" and "is not allowed" in status.last_error
    assert status.waiting == 2 and not receiver.got
    with pytest.raises(DeliveryError):
        sinks.test("mes", "ann")
    line.start(policy=policy)
    until(lambda: receiver.parts == [1, 2], "delivery")


def test_sinks_of_the_configuration(line: Line, receiver: Receiver) -> None:
    configured = {"mes": webhook(receiver)}
    policy = Policy((f"http://127.0.0.1:{receiver.port}",))
    sinks = line.start(configured, policy)
    for change in (
        lambda: sinks.put("mes", "webhook", {"url": receiver.url}, "ann"),
        lambda: sinks.delete("mes", "ann", discard=True),
    ):
        with pytest.raises(SettingsError, match="is in the configuration file"):
            change()
    sinks.pause("mes", True, "ann")
    line.inspect(2)
    sinks = line.start()  # it was taken out of the file
    status = sinks.one("mes")
    assert (status.state, status.waiting, status.configured) == ("absent", 2, False)
    with pytest.raises(SettingsError, match="2 events wait"):
        sinks.delete("mes", "ann")
    sinks.delete("mes", "ann", discard=True)
    assert line.outbox() == 0
    with pytest.raises(SettingsError, match="sink a: give its kind"):
        Sinks(line.store, {"a": {"url": receiver.url}})


# --- other packages ---

PLUGIN = """
from snl.service.sinks.base import DeliveryError, SinkSettings
class Settings(SinkSettings):
    file: str
class Sink:
    Settings, batch = Settings, 4
    def __init__(self, settings, policy):
        self.settings, self.calls = settings, 0
    def deliver(self, events):
        self.calls += 1
        if self.calls == 1:
            raise RuntimeError("a defect\\nof it")
        if self.calls == 2:
            raise DeliveryError("only one", done=1)
        with open(self.settings.file, "a") as file:
            file.write("".join(event.inspection["part"] + " " for event in events))
    def close(self):
        raise RuntimeError
class Without:
    pass
"""


def test_a_sink_of_another_package(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "site" / "snl_other-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: snl-other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[snl.sinks]\nother = snl_other:Sink\nbroken = snl_none:Sink\nwithout = snl_other:Without\n"
    )
    (tmp_path / "site" / "snl_other.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path / "site")
    for kind, message in (("broken", "cannot be imported"), ("without", "has no `Settings`")):
        with pytest.raises(PluginError, match=message):
            line.start().put("x", kind, {}, "ann")
    file = tmp_path / "out"
    sinks = line.start()
    sinks.put("x", "other", {"file": str(file)}, "ann")
    sinks.pause("x", True, "ann")
    line.inspect(6)
    sinks.pause("x", False, "ann")
    until(lambda: line.outbox() == 0, "delivery")
    assert file.read_text() == "1 2 3 4 5 "
    assert sinks.one("x").last_error == "only one"


# --- the API ---


def test_sinks_over_http(calibrated: Path, receiver: Receiver, tmp_path: Path) -> None:
    image = save_varied(tmp_path / "bolt.png", 4000, product="bolt")
    policy = Policy((f"http://127.0.0.1:{receiver.port}",), (tmp_path,))
    configured = {"all": {"kind": "jsonl", "path": str(tmp_path / "all.jsonl")}}
    with (
        service_of(tmp_path / "data", calibrated, policy=policy, sinks=configured) as service,
        client_of(service, open=False) as client,
    ):
        tokens = {role: create(service.store, role, role) for role in ("inspect", "admin")}
        client.headers["Authorization"] = f"Bearer {tokens['inspect']}"
        for method, path in (("GET", ""), ("PUT", "/mes"), ("DELETE", "/mes"), ("GET", "/mes/dead"),
                             ("POST", "/mes/pause"), ("POST", "/mes/test"),
                             ("DELETE", "/mes/dead"), ("POST", "/mes/dead/retry")):  # fmt: skip
            assert client.request(method, f"/v1/sinks{path}").status_code == 403
        client.headers["Authorization"] = f"Bearer {tokens['admin']}"
        wrong = client.put("/v1/sinks/x", json={"kind": "webhook", "settings": {"url": "http://a"}})
        assert wrong.status_code == 422 and "is not allowed" in wrong.json()["error"]["message"]
        new = {"kind": "webhook", "settings": {"url": receiver.url, "secret": SECRET}}
        made = client.put("/v1/sinks/mes", json=new)
        assert made.status_code == 200 and SECRET not in made.text
        assert client.post("/v1/sinks/mes/test").json() == {"ok": True, "error": ""}
        answer = post(client, image, part="7").json()["results"][0]["inspection"]
        until(lambda: len(receiver.got) == 2, "the event")
        assert receiver.got[1].signed
        assert receiver.got[1].body["inspection"] == answer
        assert answer == client.get(answer["links"]["self"]).json()
        until(lambda: service.sinks.counts() == {"all": (0, 0), "mes": (0, 0)}, "delivery")
        (line,) = (tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()
        assert json.loads(line) == receiver.got[1].body

        receiver.refuse = lambda body: body["type"] == "inspection"
        post(client, image)
        until(lambda: service.sinks.counts()["mes"] == (0, 1), "a dead letter")
        assert 'snl_sink_dead{sink="mes"} 1.0' in client.get("/metrics").text
        (dead,) = client.get("/v1/sinks/mes/dead").json()
        assert "400" in dead["error"] and dead["attempts"] == 1
        assert client.post("/v1/sinks/mes/pause").json()["state"] == "paused"
        assert client.post("/v1/sinks/mes/dead/retry").json() == {"events": 1}
        listed = {one["name"]: one for one in client.get("/v1/sinks").json()}
        assert listed["mes"]["waiting"] == 1 and listed["mes"]["bytes"] > 500
        assert listed["all"]["configured"] and SECRET not in json.dumps(listed)
        assert 'snl_sink_waiting{sink="mes"} 1.0' in client.get("/metrics").text
        assert client.delete("/v1/sinks/all").status_code == 422
        assert client.delete("/v1/sinks/mes").status_code == 422
        assert client.post("/v1/sinks/mes/resume").json()["state"] != "paused"
        until(lambda: service.sinks.counts()["mes"] == (0, 1), "a dead letter again")
        assert client.delete("/v1/sinks/mes/dead").json() == {"events": 1}
        assert client.delete("/v1/sinks/mes").status_code == 204
        for path in ("mes/dead", "none/dead"):
            assert client.get(f"/v1/sinks/{path}").status_code == 404
        actions = {one["action"] for one in client.get("/v1/audit").json()}
        assert {"sink add", "sink pause", "sink delete dead", "sink remove"} <= actions
        assert SECRET not in client.get("/v1/audit").text
