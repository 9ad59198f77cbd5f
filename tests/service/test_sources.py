"""Folders as sources, and what people do with sources, against the real store."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from snl.errors import DependencyError, PluginError, SettingsError
from snl.service.access import create
from snl.service.batching import FullError
from snl.service.config import read_config
from snl.service.policy import Policy
from snl.service.service import Service
from snl.service.sources.base import KINDS
from snl.service.sources.manager import Sources
from snl.service.sources.runner import Backoff
from snl.service.store import NotThereError, StoreError
from tests.service.conftest import Start
from tests.service.in_process import client_of, service_of
from tests.service.receivers import until
from tests.service.sources import Inspect, actions, digest, names, quick, rows, running
from tests.trees import draw_varied, save_varied

__all__ = ["quick"]
POLL = 0.05


@pytest.fixture(scope="module")
def service(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service_of(tmp_path_factory.mktemp("service") / "data", calibrated) as one:
        yield one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    return path


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "folder", "folder": str(folder), "poll": POLL, **more}


# --- folders ---


@pytest.mark.usefixtures("quick")
def test_only_complete_images_are_taken(service: Service, folder: Path, tmp_path: Path) -> None:
    long = "n" * 251 + ".png"
    odd = b"\xff\xfe-latin.png"
    there = {"first.png": 1, "Schraube ü 螺栓.png": 2, long: 3}
    for name, seed in there.items():
        save_varied(folder / name, seed)
    save_varied(folder / "odd.png", 4).rename(os.fsdecode(os.fsencode(folder) + b"/" + odd))
    (folder / "text.png").write_text("this is no image")
    (folder / "empty.png").touch()
    (folder / "notes.txt").write_text("not of the pattern")
    save_varied(folder / ".hidden.png", 5)
    save_varied(folder / "below" / "deep.png", 6)
    os.mkfifo(folder / "pipe.png")
    whole = save_varied(tmp_path / "slow.png", 7).read_bytes()
    moved = save_varied(tmp_path / "moved.png", 8)
    with running(service, {"f1": settings(folder)}) as sources:
        with (folder / "slow.png").open("wb", buffering=0) as file:
            for n in range(10):  # steadily, then with a break that is longer than two listings
                file.write(whole[n * 50 : (n + 1) * 50])
                time.sleep(POLL / 3)
            until(lambda: len(names(service.store, "f1")) == 4, "the others are inspected")
            moved.rename(folder / "moved.png")
            until(lambda: "moved.png" in names(service.store, "f1"), "the one that was moved")
            file.write(whole[500:])
        until(lambda: "slow.png" in names(service.store, "f1"), "the slow one")
        # text and empty; on a slow machine also the slow one, before it was complete
        until(lambda: sources.get("f1").status.failed >= 2, "text and empty have failed")
        time.sleep(4 * POLL)
        status = sources.get("f1").status
    found = {row.name: row for row in rows(service.store, "f1")}
    assert sorted(found) == sorted([*there, r"\udcff\udcfe-latin.png", "moved.png", "slow.png"])
    for name in (*there, "moved.png", "slow.png"):
        assert found[name].image == digest(folder / name)
    assert (status.state, status.images, status.dropped) == ("running", 6, 0)
    assert status.failed in (2, 3)
    assert any(name in status.error for name in ("text.png", "empty", "slow.png"))
    assert (folder / "text.png").is_file()  # keep: nothing is touched
    assert not (folder / "done").exists() and not (folder / "failed").exists()
    assert found["first.png"].result["decision"] == found["first.png"].decision


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("after", ["move", "delete"])
def test_files_make_way(service: Service, folder: Path, after: str) -> None:
    name, times = f"m-{after}", (1_000_000_000, 1_000_000_000)
    inspect = Inspect(service.store)
    content = [bytes([200 + n]) * 5000 for n in range(3)]

    def put(n: int) -> None:  # always the same name, size and time, as some cameras do
        new = folder / ".new"
        new.write_bytes(content[n])
        os.utime(new, times)
        new.replace(folder / "part.bmp")

    put(0)
    (folder / "broken.png").write_text("no image")
    inspect.during = lambda: put(1) if len(inspect.seen) == 1 else None
    with running(service, {name: settings(folder, after=after)}, inspect) as sources:
        until(lambda: len(rows(service.store, name)) == 1, "the first")
        until(lambda: len(rows(service.store, name)) == 2, "the one that replaced it")
        until(lambda: not list(folder.glob("part*")), "the folder is empty")
        put(2)
        until(lambda: len(rows(service.store, name)) == 3, "the one that came later")
        until(lambda: sources.get(name).status.failed == 1, "the broken one")
        until(lambda: not list(folder.glob("part*")), "the folder is empty again")
    assert [one.content for one in inspect.seen if b"no image" not in one.content] == content
    assert (folder / "failed" / "broken.png").read_text() == "no image"
    done = sorted((folder / "done").glob("*")) if after == "move" else []
    assert {one.read_bytes() for one in done} == set(content[1:] if after == "move" else ())
    assert len(done) == (2 if after == "move" else 0)
    assert not [one for one in folder.iterdir() if one.is_file()]


@pytest.mark.usefixtures("quick")
def test_a_file_that_is_replaced_while_it_is_inspected_is_not_lost(
    service: Service, folder: Path
) -> None:
    inspect = Inspect(service.store)
    (folder / "part.bmp").write_bytes(b"\xf0" * 100)

    def replace() -> None:
        if len(inspect.seen) == 1:
            (folder / ".new").write_bytes(b"\xf1" * 200)
            (folder / ".new").replace(folder / "part.bmp")

    inspect.during = replace
    with running(service, {"r1": settings(folder, after="delete")}, inspect):
        until(lambda: len(rows(service.store, "r1")) == 2, "both are inspected")
        until(lambda: not list(folder.iterdir()), "both are deleted")
    assert [len(one.content) for one in inspect.seen] == [100, 200]


@pytest.mark.usefixtures("quick")
def test_products_of_sub_folders_and_links(service: Service, folder: Path, tmp_path: Path) -> None:
    secret = save_varied(tmp_path / "elsewhere" / "secret.png", 1)
    for product in ("bolt", "plate", "nut"):
        save_varied(folder / product / "2026" / "1.png", 2)
    save_varied(folder / "3.png", 3)
    (folder / "link.png").symlink_to(secret)
    (folder / "inner.png").symlink_to(folder / "3.png")
    (folder / "bolt" / "linked").symlink_to(secret.parent)
    save_varied(folder / "failed" / "old.png", 4)
    save_varied(folder / "done" / "old.png", 4)
    more = {"subfolders": True, "product_from_subfolder": True, "after": "move"}
    with running(service, {"p1": settings(folder, **more)}) as sources:
        until(lambda: sources.get("p1").status.failed == 3, "nut and both links")
        until(lambda: len(rows(service.store, "p1")) == 3, "three images")
    found = {row.name: row for row in rows(service.store, "p1")}
    assert sorted(found) == ["3.png", "bolt/2026/1.png", "plate/2026/1.png"]
    for product in ("bolt", "plate"):
        row = found[f"{product}/2026/1.png"]
        assert row.product == product and row.result["product_from"] == "given"
    assert found["3.png"].result["product_from"] != "given"
    assert (folder / "failed" / "nut" / "2026" / "1.png").is_file()
    assert (folder / "done" / "bolt" / "2026" / "1.png").is_file()
    assert secret.is_file() and (folder / "failed" / "link.png").is_symlink()
    digests = {row.image for row in rows(service.store, "p1")}
    assert digest(secret) not in digests


def test_300_files_once_over_restarts(service: Service, folder: Path) -> None:
    inspect = Inspect(service.store)
    for n in range(300):
        (folder / f"{n:03d}.png").write_bytes(bytes([255, n % 256, n // 256]))
        os.utime(folder / f"{n:03d}.png", (1000 + n, 1000 + n))
    source = {"many": settings(folder)}
    for wanted in (50, 150, 300):
        with running(service, source, inspect):
            until(lambda w=wanted: len(inspect.seen) >= w, f"{wanted} files")
            began = time.monotonic()
        assert time.monotonic() - began < 3  # stops soon
    with running(service, source, inspect) as sources:
        until(lambda: sources.get("many").status.known == 300, "all are known")
        assert sources.get("many").status.images == 0
    found = rows(service.store, "many")
    assert len(found) == len({row.image for row in found}) == 300
    assert [row.name for row in found] == [f"{n:03d}.png" for n in range(300)]  # oldest first
    assert len(inspect.seen) == 300


@pytest.mark.usefixtures("quick")
def test_nothing_is_lost_while_the_service_cannot(service: Service, folder: Path) -> None:
    inspect = Inspect(service.store)
    full = OSError(28, "No space left on device", "/somewhere/private")
    inspect.errors = [FullError("busy"), FullError("busy"), full, StoreError("host db is away"),
                      full, RuntimeError("a defect")]  # fmt: skip
    for n in range(4):
        (folder / f"{n}.png").write_bytes(bytes([250, n]))
    texts = []
    inspect.during = lambda: texts.append(sources.get("w1").status.error)
    with running(service, {"w1": settings(folder, after="move")}, inspect) as sources:
        until(lambda: len(rows(service.store, "w1")) == 4, "all four")
        until(lambda: len(list((folder / "done").glob("*"))) == 4, "all moved")
        status = sources.get("w1").status
    assert (status.dropped, status.failed, status.images) == (0, 0, 4)
    assert any("No space left" in text for text in texts)
    assert not any("private" in text or "host db" in text for text in texts)


@pytest.mark.usefixtures("quick")
def test_a_folder_that_comes_back(service: Service, tmp_path: Path) -> None:
    folder = tmp_path / "share"
    with running(service, {"s1": settings(folder)}) as sources:
        until(lambda: "not there" in sources.get("s1").status.error, "it is missing")
        assert sources.get("s1").status.state == "reconnecting"
        save_varied(folder / "1.png", 1)
        until(lambda: names(service.store, "s1") == ["1.png"], "it is inspected")
        folder.rename(tmp_path / "away")
        until(lambda: sources.get("s1").status.state == "reconnecting", "it is gone")
        (tmp_path / "away").rename(folder)
        save_varied(folder / "2.png", 2)
        until(lambda: names(service.store, "s1") == ["1.png", "2.png"], "the second")
        assert sources.get("s1").status.known == 1


# --- what people do ---


def test_pausing_survives_a_restart(service: Service, folder: Path) -> None:
    source = {"line 1": settings(folder)}
    with running(service, source) as sources:
        until(lambda: sources.get("line 1").status.state == "running", "it runs")
        sources.pause("line 1", "anna")
        save_varied(folder / "1.png", 1)
        time.sleep(4 * POLL)
        assert names(service.store, "line 1") == []
    with running(service, source) as sources:
        time.sleep(4 * POLL)
        assert sources.get("line 1").status.state == "paused"
        assert names(service.store, "line 1") == []
        with pytest.raises(SettingsError, match="paused"):
            sources.trigger("line 1", "anna")
        sources.resume("line 1", "ben")
        until(lambda: names(service.store, "line 1") == ["1.png"], "it is inspected")
        with pytest.raises(SettingsError, match="not paused"):
            sources.resume("line 1", "ben")
        with pytest.raises(SettingsError, match="is running"):
            sources.start_again("line 1", "ben")
        with pytest.raises(SettingsError, match="configuration file"):
            sources.remove("line 1", "ben")
        with pytest.raises(NotThereError):
            sources.pause("other", "ben")
    assert actions(service.store, "line 1") == ["source pause", "source resume"]
    with running(service, source) as sources:
        assert sources.get("line 1").status.state != "paused"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give its kind"),
        ({"kind": "fax"}, "no kind of source 'fax'; installed: folder, camera"),
        ({"kind": "folder"}, "give the setting 'folder'"),
        ({"kind": "folder", "folder": "/x", "pol": 1}, "unknown setting 'pol'; known: model"),
        ({"kind": "folder", "folder": "/x", "poll": 0}, "poll: Input should be greater"),
        ({"kind": "folder", "folder": "x"}, "absolute path"),
        ({"kind": "folder", "folder": "/x", "product_from_subfolder": True}, "subfolders = true"),
        ({"kind": "stream", "url": "rtsp://anna:hunter2@cam/1"}, "settings of their own"),
        ({"kind": "stream", "url": "file:///etc/passwd"}, "address"),
        ({"kind": "stream", "url": "udp://cam:9/"}, "begins with rtsp"),
        ({"kind": "stream", "url": "http://cam/", "password": "*" * 10}, "in full"),
        ({"kind": "camera", "device": -1}, "device: Input should be greater"),
        ({"kind": "video", "file": "http://cam/1.mp4"}, "absolute path"),
        ({"kind": "mqtt", "url": "mqtt://broker", "topic": "a/#/b"}, "topic: it is no topic"),
        ({"kind": "mqtt", "url": "http://broker", "topic": "a"}, "begins with mqtt"),
        ({"kind": "mqtt", "url": "mqtts://b", "topic": "a", "ca": "/none.pem"}, "ca: "),
    ],
)
def test_wrong_settings_are_one_line(service: Service, given: dict[str, Any], message: str) -> None:
    with pytest.raises((SettingsError, PluginError), match=message) as caught:
        Sources(service.store, service.models, service.inspect, {"x": given}, Policy())
    assert "\n" not in str(caught.value) and "hunter2" not in str(caught.value)


def test_a_kind_of_another_package(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "snl_fax.py").write_text(
        "from snl.service.sources.base import Source, SourceImage, SourceSettings\n"
        "class Settings(SourceSettings):\n    pages: int = 1\n"
        "class Fax(Source):\n"
        "    Settings, ends = Settings, True\n"
        "    def open(self): pass\n"
        "    def images(self):\n"
        "        for n in range(self.settings.pages):\n"
        "            yield SourceImage(lambda: open(self.settings.model or FILE, 'rb').read(),\n"
        "                              f'page {n}', f'source:{self.name}/{n}')\n"
        f"FILE = {str(save_varied(tmp_path / '1.png', 1))!r}\n"
    )
    info = tmp_path / "snl_fax-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: snl-fax\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[snl.sources]\nfax = snl_fax:Fax\nbroken = snl_none:None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert {"fax", "broken", "folder"} <= set(KINDS.names())
    with running(service, {"office": {"kind": "fax", "pages": 3}}) as sources:
        until(lambda: sources.get("office").status.state == "ended", "it ends")
    assert names(service.store, "office") == ["page 0", "page 1", "page 2"]
    with pytest.raises(PluginError, match=r"broken.*snl_none"):
        KINDS.get("broken")
    sys.modules.pop("snl_fax", None)


def test_a_missing_package_is_one_line(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "snl.service.sources.mqtt", raising=False)
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(DependencyError, match=r"mqtt.*pip install 'snl-ad\[service\]'"):
        KINDS.get("mqtt")


def test_waits_grow_and_differ() -> None:
    waits = [[backoff.next() for _ in range(9)] for backoff in (Backoff(), Backoff())]
    for wait in waits:
        for n, seconds in enumerate(wait):
            assert min(60, 2**n) <= seconds <= min(60, 1.5 * 2**n)
    assert waits[0] != waits[1]


def test_the_api(calibrated: Path, tmp_path: Path) -> None:
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    other.mkdir()
    image = save_varied(allowed / "1.png", 1)
    policy = Policy(("rtsp://10.1.2.3",), (allowed,))
    data = tmp_path / "data"
    new = {"kind": "folder", "settings": {"folder": str(allowed), "poll": POLL}}
    with service_of(data, calibrated, policy=policy) as one, client_of(one, open=False) as client:
        heads = {
            role: {"Authorization": f"Bearer {create(one.store, role, role)}"}
            for role in ("read", "inspect", "review", "admin")
        }

        def ask(role: str, method: str, path: str, **more: Any) -> httpx.Response:
            return client.request(method, f"/v1/sources{path}", headers=heads[role], **more)

        assert ask("review", "PUT", "/a", json=new).status_code == 403
        answer = ask("admin", "PUT", "/a", json=new)
        assert answer.status_code == 200, answer.text
        until(lambda: ask("read", "GET", "").json()[0]["images"] == 1, "the image is inspected")
        shown = ask("read", "GET", "").json()[0]
        assert shown["state"] == "running" and shown["settings"] is None
        assert ask("admin", "GET", "").json()[0]["settings"]["folder"] == str(allowed)
        for folder in (other, allowed / ".." / "other", tmp_path):
            wrong = {"kind": "folder", "settings": {"folder": str(folder)}}
            refused = ask("admin", "PUT", "/b", json=wrong)
            assert refused.status_code == 422 and "allowed folder" in refused.text
        for url in ("rtsp://10.1.2.4/", "http://127.0.0.1:80/", "rtsp://10.1.2.3:555/"):
            wrong = {"kind": "stream", "settings": {"url": url}}
            refused = ask("admin", "PUT", "/b", json=wrong)
            assert refused.status_code == 422 and "not allowed" in refused.text
        login = {"url": "rtsp://10.1.2.3/live?pwd=hunter2", "username": "u", "password": "hunter2"}
        stream = ask("admin", "PUT", "/cam", json={"kind": "stream", "settings": login})
        assert stream.status_code == 200 and "hunter2" not in stream.text
        assert ask("admin", "DELETE", "/cam").status_code == 204
        assert ask("inspect", "POST", "/a/pause").status_code == 403
        assert ask("review", "POST", "/a/pause").json()["state"] == "paused"
        assert ask("review", "POST", "/a/trigger").status_code == 422
        assert ask("review", "POST", "/a/start").status_code == 403
        assert ask("review", "POST", "/a/fly").status_code == 422
        replaced = {**new, "settings": {**new["settings"], "after": "move"}}
        assert ask("admin", "PUT", "/a", json=replaced).json()["state"] == "paused"
        assert ask("review", "POST", "/none/pause").status_code == 404
        assert ask("admin", "PUT", "/.x", json=new).status_code == 422
        audit = client.get("/v1/audit", headers=heads["admin"]).text
        assert "hunter2" not in audit and str(allowed) in audit
    with service_of(data, calibrated, policy=policy) as one:  # after a restart
        assert one.sources.get("a").status.state == "paused"
        assert one.sources.start_again("a", "admin").status.state != "paused"
        until(lambda: (allowed / "done" / "1.png").is_file(), "it is moved, and not inspected")
        assert len(rows(one.store, "a")) == 1 and not image.exists()
    with service_of(data, calibrated) as one:  # the configuration does not allow it any more
        status = one.sources.get("a").status
        assert status.state == "failed" and "allowed folder" in status.error
        with pytest.raises(SettingsError, match="allowed folder"):
            one.sources.start_again("a", "admin")
        one.sources.remove("a", "admin")
        assert one.sources.list() == []
        assert actions(one.store, "a") == [
            *("source add", "source pause", "source replace", "source start", "source remove")
        ]


def test_kill_9_in_the_middle(start: Start, calibrated: Path, tmp_path: Path) -> None:
    folder, config = tmp_path / "in", tmp_path / "snl.toml"
    folder.mkdir()
    for n in range(60):
        Image.fromarray(draw_varied(n)[0]).save(folder / f"{n}.png", compress_level=0)
    (folder / "no.png").write_text("no image")
    wanted = {digest(path) for path in folder.glob("[0-9]*.png")}
    config.write_text(
        f"[sources.line]\nkind = 'folder'\nfolder = {json.dumps(str(folder))}\n"
        "after = 'move'\npoll = 0.05\n"
    )
    server = start(calibrated, "--config", config)
    until(lambda: len(_stored(server.data)) >= 15, "some are inspected", 60)
    server.stop(signal.SIGKILL)
    assert len(_stored(server.data)) < 60 and len(wanted) == 60
    with service_of(server.data, calibrated, sources=read_config(config).sources) as one:
        until(lambda: len(list((folder / "done").glob("*"))) == 60, "all are moved", 60)
        assert one.sources.get("line").status.images < 60
    assert sorted(_stored(server.data)) == sorted(wanted)


def _stored(data: Path) -> list[str]:
    with closing(sqlite3.connect(data / "snl.db")) as database:
        return [image for (image,) in database.execute("SELECT image FROM inspections")]
