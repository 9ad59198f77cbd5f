"""The sink `mqtt` with a real broker, mosquitto."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from snl.service.events import inspection_event
from snl.service.sinks.base import DeliveryError, Event, Sink
from snl.service.sinks.kinds import plan
from tests.service.conftest import free_port
from tests.service.receivers import Broker, Line, broker, inspection_row, until
from tests.service.test_limits import _certificate as certificate


class Subscriber:
    """A client that keeps the messages of a broker that come while it is connected."""

    def __init__(self, port: int) -> None:
        self.got: list[tuple[str, dict[str, Any]]] = []
        self._ready = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self.client.on_subscribe = lambda *_: self._ready.set()
        self.client.on_message = lambda _, __, message: self.got.append(
            (message.topic, json.loads(message.payload))
        )
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self._ready.wait(10)

    @property
    def parts(self) -> list[int]:
        return [int(body["inspection"]["part"]) for _, body in self.got]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker for the tests of the module, which leave it running; small messages only."""
    folder = tmp_path_factory.mktemp("broker")
    (folder / "acl").write_text("topic readwrite snl/#\n")
    lines = f"allow_anonymous true\nacl_file {folder / 'acl'}\nmax_packet_size 5000"
    with broker(folder, free_port(), lines) as one:
        yield one


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    with Line(tmp_path) as one:
        yield one


def mqtt(port: int, **settings: Any) -> dict[str, Any]:
    return {"kind": "mqtt", "url": f"mqtt://127.0.0.1:{port}", "timeout": 5, **settings}


def sink_of(port: int, **settings: Any) -> Sink:
    return plan("x", mqtt(port, **settings), None).make()


def event_of(**values: Any) -> Event:
    row = inspection_row(**values)
    return Event(row.id, inspection_event(row))


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_events_come_in_order_at_their_topics(running: Broker, line: Line, version: str) -> None:
    subscriber = Subscriber(running.port)
    sinks = line.start({"broker": mqtt(running.port, version=version)})
    ids = line.inspect(40)
    ids += line.inspect(product="a/b+c#\n$d é", decision="unknown product")
    ids += line.inspect(product="$SYS/x")
    until(lambda: line.outbox() == 0 and len(subscriber.got) == 42, "all events")
    assert [body["id"] for _, body in subscriber.got] == ids
    topics = [topic for topic, _ in subscriber.got]
    assert set(topics[:40]) == {"snl/bolt/anomalous"}
    assert topics[40:] == ["snl/a_b_c__$d_é/unknown_product", "snl/_SYS_x/anomalous"]
    assert subscriber.got[40][1]["inspection"]["product"] == "a/b+c#\n$d é"
    sinks.test("broker", "ann")
    until(lambda: len(subscriber.got) == 43, "the test")
    assert subscriber.got[42][0] == "snl/test/test" and subscriber.got[42][1]["type"] == "test"
    subscriber.close()


def test_a_broker_that_is_killed_and_comes_again(line: Line, tmp_path: Path) -> None:
    with broker(tmp_path, free_port()) as one:
        subscriber = Subscriber(one.port)
        sinks = line.start({"broker": mqtt(one.port)})
        line.inspect(5)
        until(lambda: line.outbox() == 0 and len(subscriber.got) == 5, "the first events")
        one.kill()
        line.inspect(5)
        until(lambda: sinks.one("broker").state == "retrying", "a failed try")
        assert sinks.counts() == {"broker": (5, 0)}
        subscriber.close()
        sinks.pause("broker", True, "ann")  # until the subscriber is there again
        one.start()
        second = Subscriber(one.port)
        sinks.pause("broker", False, "ann")
        line.inspect(5)
        until(lambda: line.outbox() == 0 and len(second.got) >= 10, "the others")
        assert subscriber.parts == list(range(5)) and second.parts == list(range(5, 15))
        second.close()


def test_messages_that_a_broker_refuses_become_dead_letters(running: Broker, line: Line) -> None:
    subscriber = Subscriber(running.port)
    settings = mqtt(running.port, topic="{product}/results")
    sinks = line.start({"broker": settings})
    line.inspect(product="snl")
    line.inspect(product="forbidden")
    line.inspect(product="snl", result={"regions": ["x" * 6000]})
    line.inspect(product="snl")
    until(lambda: sinks.counts() == {"broker": (0, 2)}, "two dead letters")
    until(lambda: len(subscriber.got) == 2, "the others")
    assert subscriber.parts == [0, 3]
    refused, large = sinks.dead("broker")
    assert "reason 0x87" in refused.error and "larger than the broker takes (5000" in large.error
    subscriber.close()


def test_a_broker_that_wants_a_password(tmp_path: Path) -> None:
    salt, rounds = b"salt-of-test", 101
    key = hashlib.pbkdf2_hmac("sha512", b"right", salt, rounds)
    entry = f"ann:$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}\n"
    (tmp_path / "passwords").write_text(entry)
    (tmp_path / "passwords").chmod(0o600)
    lines = f"allow_anonymous false\npassword_file {tmp_path / 'passwords'}"
    with broker(tmp_path, free_port(), lines) as one:
        for version in ("5", "3.1.1"):
            sink = sink_of(one.port, username="ann", password="wrong", version=version)
            with pytest.raises(DeliveryError, match="refuses the connection") as refused:
                sink.deliver([event_of()])
            assert not refused.value.permanent and "wrong" not in str(refused.value)
            sink.close()
        sink = sink_of(one.port, username="ann", password="right")
        sink.deliver([event_of()])
        sink.close()


def test_tls_checks_who_the_broker_is(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    lines = f"allow_anonymous true\ncertfile {cert}\nkeyfile {key}"
    with broker(tmp_path, free_port(), lines) as one:
        url = f"mqtts://127.0.0.1:{one.port}"
        sink = sink_of(one.port, url=url, ca=str(cert))
        sink.deliver([event_of()])
        sink.close()
        unknown = sink_of(one.port, url=url)
        other = sink_of(one.port, url=f"mqtts://localhost:{one.port}", ca=str(cert))
        for sink in (unknown, other):
            with pytest.raises(DeliveryError, match="certificate"):
                sink.deliver([event_of()])
            sink.close()


def test_a_broker_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sink = sink_of(listener.getsockname()[1], timeout=0.2)
        with pytest.raises(DeliveryError, match=r"no answer within 0\.2 s"):
            sink.deliver([event_of()])
        sink.close()
