"""Videos, streams and MQTT topics as sources: real files, a real HTTP server, a real broker."""

from __future__ import annotations

import base64
import io
import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from PIL import Image

from snl.errors import SettingsError
from snl.service.batching import FullError
from snl.service.service import Service
from snl.service.sources import live
from snl.service.store import StoreError
from tests.hostile.generators.video import write_video
from tests.service.conftest import free_port
from tests.service.in_process import service_of
from tests.service.receivers import broker, until
from tests.service.sources import Inspect, actions, digest, names, quick, rows, running
from tests.trees import draw_varied, save_varied

__all__ = ["quick"]
STEP = 4
"""Grey levels between two frames of the camera."""


@pytest.fixture(scope="module")
def service(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service_of(tmp_path_factory.mktemp("service") / "data", calibrated) as one:
        yield one


# --- videos ---


def test_a_video_is_inspected_once(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "line.mp4"
    write_video(path, [draw_varied(n)[0] for n in range(12)])
    decoded = _decode(path)
    video = {"kind": "video", "file": str(path)}
    for again in range(2):
        with running(service, {"v1": video}) as sources:
            until(lambda: sources.get("v1").status.state == "ended", "it ends")
            status = sources.get("v1").status
            assert (status.images, status.known) == ((0, 12) if again else (12, 0))
            assert sources.start_again("v1", "anna").status.state != "ended"
            more = status.known + 12
            until(lambda n=more: sources.get("v1").status.known == n, "it ends again")
    found = rows(service.store, "v1")
    assert [row.name for row in found] == [f"line-{n:06d}.png" for n in range(12)]
    for row, frame in zip(found, decoded, strict=True):  # PNG: every pixel is the decoder's
        stored = service.blobs.get(row.image)
        assert stored is not None
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(stored))), frame)
    with running(service, {"v2": {**video, "every": 0.35, "format": "jpeg"}}) as sources:
        until(lambda: sources.get("v2").status.state == "ended", "it ends")
    # 10 frames a second: the first frame at or after 0, 0.35, 0.7 and 1.05 seconds
    assert names(service.store, "v2") == [f"line-{n:06d}.jpeg" for n in (0, 4, 7, 11)]
    assert {row.image_type for row in rows(service.store, "v2")} == {"image/jpeg"}


@pytest.mark.usefixtures("quick")
def test_a_damaged_video_fails_after_its_frames(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "cut.avi"
    write_video(path, [draw_varied(n)[0] for n in range(20)])
    path.write_bytes(path.read_bytes()[:-4000])
    inspect = Inspect(service.store)
    inspect.errors = [FullError("busy")] * 2
    source = {"v3": {"kind": "video", "file": str(path)}}
    with running(service, source, inspect) as sources:
        until(lambda: sources.get("v3").status.state == "failed", "it fails")
        status = sources.get("v3").status
        assert "truncated" in status.error and str(tmp_path) not in status.error
        assert 0 < status.images < 20 and status.dropped == 0
    with running(service, {"v4": {"kind": "video", "file": str(tmp_path / "no.mp4")}}) as sources:
        until(lambda: sources.get("v4").status.state == "failed", "it fails")
        assert "not there" in sources.get("v4").status.error


def _decode(path: Path) -> list[np.ndarray]:
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


# --- streams ---


class Camera:
    """An IP camera: MJPEG over HTTP with a password. Every frame is one grey level brighter.

    Attributes:
        number: of the frame that is being sent; the level is `number % 60 * STEP`.
        viewers: connections that get frames now.
        cut: set: all connections are closed.
    """

    def __init__(self, port: int = 0, answer: bytes | None = None) -> None:
        self.number, self.viewers, self.asked = 0, 0, 0
        self.cut = threading.Event()
        camera = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                camera.asked += 1
                head = b"".join(iter(self.rfile.readline, b"\r\n"))
                if answer is not None:
                    self.wfile.write(answer)
                    return
                login = base64.b64encode(b"anna:p@ss/word")
                if b"Basic " + login not in head:
                    self.wfile.write(
                        b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=a\r\n"
                        b"Content-Length: 0\r\nConnection: close\r\n\r\n"
                    )
                    return
                camera.viewers += 1
                with suppress(OSError):
                    self._send()
                camera.viewers -= 1

            def _send(self) -> None:
                kind = b"multipart/x-mixed-replace; boundary=f"
                self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: " + kind + b"\r\n\r\n")
                while not camera.cut.is_set():
                    camera.number += 1
                    frame = np.full((40, 48, 3), camera.number % 60 * STEP, np.uint8)
                    buffer = io.BytesIO()
                    Image.fromarray(frame).save(buffer, "JPEG", quality=95)
                    body = buffer.getvalue()
                    self.wfile.write(
                        b"--f\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n"
                        % (len(body), body)
                    )
                    time.sleep(0.02)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def close(self) -> None:
        """Be switched off."""
        self.cut.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return the settings of its stream."""
        url = f"http://127.0.0.1:{self.port}/video"
        login = {"username": "anna", "password": "p@ss/word"}
        return {"kind": "stream", "url": url, **login, **more}


def number(content: bytes) -> int:
    """Return the number of a frame, modulo 60, by its grey level."""
    return round(np.asarray(Image.open(io.BytesIO(content))).mean() / STEP)


@pytest.mark.usefixtures("quick")
def test_a_stream_that_is_interrupted_comes_back(service: Service) -> None:
    inspect = Inspect(service.store)
    inspect.during = lambda: time.sleep(0.1)
    with Camera() as camera:
        port, source = camera.port, {"c1": camera.settings(every=0)}
        with running(service, source, inspect) as sources:
            until(lambda: sources.get("c1").status.images >= 3, "some images")
            inspect.errors = [FullError("busy")]
            until(lambda: not inspect.errors, "the service was busy once")
            camera.close()
            until(lambda: sources.get("c1").status.state == "reconnecting", "it is away")
            until(lambda: sources.get("c1").status.error, "there is a reason")
            before = sources.get("c1").status
            assert before.dropped >= 5  # five frames come while one is inspected
            assert "p@ss" not in before.error and "anna" not in before.error
            shown = json.dumps(sources.get("c1").settings)
            assert "p@ss" not in shown and "anna" in shown
            with Camera(port) as again:
                until(lambda: sources.get("c1").status.images >= before.images + 2, "it is back")
                assert sources.get("c1").status.state == "running"
                sources.pause("c1", "ben")
                until(lambda: again.viewers == 0, "nobody looks")
                count = sources.get("c1").status.images
                sources.resume("c1", "ben")
                until(lambda: sources.get("c1").status.images > count, "it goes on")
                until(lambda: again.number > 60, "the frames go on")
                seen = len(inspect.seen)
                until(lambda: len(inspect.seen) > seen + 1, "a frame that came after")
                # newest first: what is inspected is at most some frames old, not a second
                age = (again.number - number(inspect.seen[-1].content)) % 60
                assert age < 25
                began = time.monotonic()
            sources.close()
            assert time.monotonic() - began < 5
    found = rows(service.store, "c1")
    assert len(found) == sources.get("c1").status.images
    assert len({row.name for row in found}) == len(found)


@pytest.mark.usefixtures("quick")
def test_a_trigger_takes_one_image_of_now(service: Service) -> None:
    inspect = Inspect(service.store)
    with Camera() as camera:
        settings = camera.settings(trigger="manual")
        with running(service, {"t1": settings, "a1": camera.settings()}, inspect) as sources:
            until(lambda: sources.get("t1").status.state == "running", "it runs")
            until(lambda: camera.number > 30, "frames come")
            assert rows(service.store, "t1") == []
            for count in (1, 2):
                mark = camera.number
                sources.trigger("t1", "plc")
                until(lambda c=count: len(rows(service.store, "t1")) == c, "the image")
                mine = [one for one in inspect.seen if one.client == "source:t1"]
                frame = number(mine[-1].content)
                # a frame of after the trigger, but for those that were on their way
                assert (frame - mark + 3) % 60 < 30
                time.sleep(0.2)
            inspect.hold.clear()
            sources.trigger("t1", "plc")
            until(lambda: sum(one.client == "source:t1" for one in inspect.seen) == 3, "third")
            sources.trigger("t1", "plc")  # waits for its turn
            with pytest.raises(SettingsError, match="yet to be taken"):
                sources.trigger("t1", "plc")
            inspect.hold.set()
            until(lambda: len(rows(service.store, "t1")) == 4, "both")
            with pytest.raises(SettingsError, match="by itself"):
                sources.trigger("a1", "plc")
            until(lambda: rows(service.store, "a1"), "an image of the other one")
            camera.close()
            until(lambda: sources.get("t1").status.state == "reconnecting", "it is noticed")
            with pytest.raises(SettingsError, match="reconnecting"):
                sources.trigger("t1", "plc")
    assert actions(service.store, "t1") == ["source trigger"] * 4


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("what", ["redirect", "playlist"])
def test_a_stream_leads_nowhere_else(service: Service, what: str) -> None:
    with Camera(answer=b"HTTP/1.0 200 OK\r\n\r\n") as inner:
        url = f"http://127.0.0.1:{inner.port}/secret"
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}.ts\n"
        answers = {
            "redirect": f"HTTP/1.0 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n",
            "playlist": "HTTP/1.0 200 OK\r\nContent-Type: application/vnd.apple.mpegurl\r\n"
            f"Content-Length: {len(playlist)}\r\n\r\n{playlist}",
        }
        with Camera(answer=answers[what].encode()) as outer:
            with running(service, {"x1": outer.settings()}) as sources:
                until(lambda: outer.asked >= 2, "it was asked twice")
                assert sources.get("x1").status.state == "reconnecting"
            assert inner.asked == 0
    assert rows(service.store, "x1") == []


def test_a_camera_that_is_not_there(service: Service) -> None:
    with running(service, {"k1": {"kind": "camera", "device": 63}}) as sources:
        until(lambda: sources.get("k1").status.error, "a reason")
        status = sources.get("k1").status
        assert status.state == "reconnecting" and status.error.startswith("the camera: cannot")
    assert live.encoded(np.zeros((2, 2, 3), np.uint8), "png").startswith(b"\x89PNG")


# --- MQTT ---


class Publisher:
    """A camera that publishes, and waits until the broker has each message."""

    def __init__(self, port: int) -> None:
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id="camera")
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def send(self, topic: str, payload: bytes | str) -> None:
        self.client.publish(topic, payload, qos=1).wait_for_publish(10)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.mark.usefixtures("quick")
def test_a_broker_that_is_killed(service: Service, tmp_path: Path) -> None:
    images = [save_varied(tmp_path / f"{n}.png", 50 + n) for n in range(9)]
    port = free_port()
    lines = (
        "allow_anonymous true\npersistence true\nautosave_interval 1\n"
        f"autosave_on_changes true\npersistence_location {tmp_path}/"
    )
    source = {"q1": {"kind": "mqtt", "url": f"mqtt://127.0.0.1:{port}", "topic": "line/+"}}
    inspect = Inspect(service.store)
    with broker(tmp_path, port, lines) as server:
        camera = Publisher(port)
        with running(service, source, inspect) as sources:
            until(lambda: sources.get("q1").status.state == "running", "it is subscribed")
            camera.send("line/1", images[0].read_bytes())
            until(lambda: len(rows(service.store, "q1")) == 1, "the first")
            sources.pause("q1", "ben")
            camera.send("line/1", images[1].read_bytes())  # waits at the broker
            camera.send("line/1", "{no JSON")
            camera.send("line/1", b"")
            camera.send("elsewhere", images[2].read_bytes())
            time.sleep(0.1)
            assert len(rows(service.store, "q1")) == 1
            sources.resume("q1", "ben")
            until(lambda: len(rows(service.store, "q1")) == 2, "the one that waited")
            until(lambda: sources.get("q1").status.failed == 2, "what is no image")
            # the broker dies while an image is inspected: it is not acknowledged, and comes again
            inspect.hold.clear()
            camera.send("line/1", images[3].read_bytes())
            until(lambda: len(inspect.seen) >= 3 and inspect.seen[-1].content[:4] == b"\x89PNG"
                  and len(rows(service.store, "q1")) == 2, "it is being inspected")  # fmt: skip
            camera.send("line/1", images[4].read_bytes())
            camera.close()
            until(lambda: (tmp_path / "mosquitto.db").is_file(), "the broker has saved")
            time.sleep(0.3)
            server.kill()
            inspect.hold.set()
            until(lambda: sources.get("q1").status.state == "reconnecting", "it is gone")
            server.start()
            until(lambda: sources.get("q1").status.state == "running", "it is back")
            camera = Publisher(port)
            for path in images[3:7]:  # the camera does not know what the broker has kept
                camera.send("line/1", path.read_bytes())
            until(lambda: len(rows(service.store, "q1")) == 6, "all of them")
            # the service ends while the store is away: what was not stored is not acknowledged
            inspect.errors = [StoreError("away")] * 1000
            seen = len(inspect.seen)
            camera.send("line/1", images[7].read_bytes())
            until(lambda: len(inspect.seen) > seen, "it is tried")
        assert len(rows(service.store, "q1")) == 6
        inspect.errors = []
        with running(service, source, inspect):
            until(lambda: len(rows(service.store, "q1")) == 7, "the one of before")
            said = {"image": base64.b64encode(images[8].read_bytes()).decode(), "name": "a\u0000b",
                    "part": "p-9", "product": "plate", "id": "1"}  # fmt: skip
            camera.send("line/2", json.dumps(said))
            camera.send("line/2", json.dumps(said))
            camera.send("line/2", json.dumps({**said, "id": "2"}))
            until(lambda: len(rows(service.store, "q1")) == 9, "both of the same content")
        camera.close()
    time.sleep(0.1)
    found = rows(service.store, "q1")
    wanted = [digest(images[n]) for n in (0, 1, 3, 4, 5, 6, 7, 8, 8)]
    assert sorted(row.image for row in found) == sorted(wanted)
    last = found[-1]
    assert (last.name, last.part, last.product) == (r"a\x00b", "p-9", "plate")
    assert found[0].name == "line/1" and found[0].client == "source:q1"


@pytest.mark.usefixtures("quick")
def test_a_broker_that_refuses(service: Service, tmp_path: Path) -> None:
    port = free_port()
    source = {"kind": "mqtt", "url": f"mqtt://127.0.0.1:{port}", "topic": "a"}
    with running(service, {"q2": source}) as sources:
        until(lambda: "cannot be reached" in sources.get("q2").status.error, "there is none")
        (tmp_path / "passwords").touch()
        with broker(tmp_path, port, f"password_file {tmp_path / 'passwords'}"):
            until(lambda: "Not authorized" in sources.get("q2").status.error, "it refuses")
            assert sources.get("q2").status.state == "reconnecting"
    with socket.create_server(("127.0.0.1", port)):  # takes connections, and says nothing
        with running(service, {"q2": source}) as sources:
            time.sleep(0.2)
            began = time.monotonic()
        assert time.monotonic() - began < 5
