"""Retention: the right files are deleted, and never one that somebody needs."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from snl.service.blobs import FOLDERS, Blobs
from snl.service.retention import Limits, Retention
from snl.service.shadow import Shadows
from snl.service.store import Filter, Store
from snl.service.tables import InspectionRow, JobRow, SetImageRow
from tests.service.conftest import post
from tests.service.in_process import client_of, service_of
from tests.service.rows import START, inspection
from tests.trees import save_varied

ALARMS = ("anomalous", "uncertain", "unknown product")


class NoShadows:
    """What the retention asks of shadows."""

    def __init__(self, *ids: str) -> None:
        self.ids = set(ids)

    def needed(self) -> set[str]:
        return self.ids


def retention_of(store: Store, folder: Path, *needed: str, **limits: Any) -> Retention:
    return Retention(store, Blobs(folder / "files"), cast(Shadows, NoShadows(*needed)), **limits)


def put(retention: Retention, number: int, **values: Any) -> InspectionRow:
    """Store an inspection with its files; `image` and `prediction` are contents."""
    image = values.pop("image", f"image {number}".encode() * 20)
    prediction = values.pop("prediction", f"prediction {number}".encode() * 10)
    with retention.blobs.keeping() as write:
        row = inspection(
            number, image=write(image), prediction=write(prediction),
            bytes=len(image) + len(prediction), **values,
        )  # fmt: skip
        retention.store.add(row).result()
    return row


def files(retention: Retention) -> dict[str, int]:
    """Names and sizes of the files on the disk."""
    sizes = {}
    for path in retention.blobs.folder.rglob("*"):
        with suppress(FileNotFoundError):  # it was moved, or deleted, meanwhile
            if path.is_file():
                sizes[path.name] = path.stat().st_size
    return sizes


def rows_of(store: Store) -> dict[str, InspectionRow]:
    return {row.id: row for row in store.list(Filter(newest_first=False), 10_000)}


# --- what is deleted ---


@pytest.mark.parametrize("seed", range(2))
def test_the_oldest_go_first_and_protected_ones_stay(
    store: Store, tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    retention = retention_of(store, tmp_path)
    shared = [f"shared {n}".encode() * draw.randrange(1, 60) for n in range(4)]
    rows: list[InspectionRow] = []
    for number in range(40):
        values: dict[str, Any] = {
            "decision": draw.choice(("normal", "normal", *ALARMS)),
            "review": draw.choice((None, None, "confirmed", "false alarm")),
        }
        if draw.random() < 0.3:
            values["image"] = draw.choice(shared)
        rows.append(put(retention, number, **values))
    in_set = next(row for row in rows if row.decision == "normal").image  # an old one
    with store.writing() as session:
        session.add(
            SetImageRow(
                id="s1", set="a", name="", image=in_set, image_type="", bytes=1, created=START,
                who="a",
            )
        )  # fmt: skip
    before = files(retention)
    limit = draw.choice((0, sum(before.values()) // 2, sum(before.values()) * 3 // 4))
    retention.limit(Limits(limit), "me")
    retention.run()

    kept, left = rows_of(store), files(retention)
    protected = {row.id for row in rows if row.decision in ALARMS and row.review is None}
    assert len(kept) == len(rows)
    with_files = {id for id, row in kept.items() if row.bytes}
    assert protected <= with_files
    needed = {in_set} | {
        name for id in with_files for name in (kept[id].image, kept[id].prediction)
    }
    assert left.keys() == needed  # nothing that is used is gone, and nothing else is left
    free = [row.id for row in rows if row.id not in protected]
    dropped = [id for id in free if id not in with_files]
    assert dropped == free[: len(dropped)]  # the oldest
    size = sum(left.values())
    assert size <= limit or (dropped == free and retention.problem)
    if dropped:  # with the last one, it was too much
        last = kept[dropped[-1]]
        extra = {last.image, last.prediction} - needed
        assert size + sum(before[name] for name in extra) > limit
    usage = retention.blobs.usage()
    assert usage is not None and (usage.files, usage.bytes) == (len(left), size)
    storage = retention.storage()
    assert (storage.files, storage.bytes) == (len(left), size)
    assert storage.inspections == len(with_files) and storage.protected == len(protected)
    assert storage.oldest == min((kept[id].created for id in with_files), default=None)


def test_age(store: Store, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    retention = retention_of(store, tmp_path, keep_days=2)
    minutes = {age: (now - timedelta(days=age) - START).total_seconds() // 60 for age in range(5)}
    for age, number in minutes.items():
        put(
            retention,
            int(number) - 1,
            name=f"{age}",
            decision="normal" if age != 4 else "anomalous",
        )
    retention.run()
    kept = {row.name: row.bytes > 0 for row in rows_of(store).values()}
    assert kept == {"0": True, "1": True, "2": False, "3": False, "4": True}


def test_what_jobs_and_shadows_need_stays(store: Store, tmp_path: Path) -> None:
    ids = [inspection(number).id for number in range(4)]
    retention = retention_of(store, tmp_path, ids[0], keep_bytes=0)
    for number in range(4):
        put(
            retention, number,
            product="bolt" if number < 3 else "plate", review=None if number == 1 else "confirmed",
        )  # fmt: skip
    job = JobRow(
        id="j", kind="recalibrate", model="parts", base=None, created=START, who="a", error="",
        settings={"product": "bolt", "reviewed": True}, state="queued", progress={}, result=None,
    )  # fmt: skip
    page = retention._page("", "~")
    with store.writing() as session:
        session.add(job)
    assert [row.id for row in page] == ids
    retention._drop([row for row in page if row.id == ids[2]])  # chosen before the job came
    retention.run()
    assert [row.bytes > 0 for row in rows_of(store).values()] == [True, False, True, False]
    with store.writing() as session:
        session.get_one(JobRow, "j").state = "done"
    retention.run()
    assert [row.bytes > 0 for row in rows_of(store).values()] == [True, False, False, False]


def test_a_limit_that_cannot_be_met_is_said_once(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    retention = retention_of(store, tmp_path, keep_bytes=10)
    row = put(retention, 1, decision="anomalous")
    with caplog.at_level(logging.WARNING, "snl.service"):
        for _ in range(3):
            retention.run()
    assert len(caplog.records) == 1 and "review the alarms" in caplog.text
    assert "review the alarms" in retention.storage().problem and files(retention)
    with store.writing() as session:
        session.get_one(InspectionRow, row.id).review = "confirmed"
    retention.run()
    assert retention.storage().problem == "" and not files(retention)


# --- races and crashes ---


def test_content_that_is_put_again_meanwhile_stays(store: Store, tmp_path: Path) -> None:
    """A new upload of the same content: before the check, during it, and before its commit."""
    retention = retention_of(store, tmp_path)
    blobs, content = retention.blobs, b"the same" * 9
    name = hashlib.sha256(content).hexdigest()
    with blobs.keeping() as write:
        write(content)
    with blobs.keeping() as write:  # the file is there; its row is not committed
        write(content)
        assert not blobs.delete(name, lambda _: False)
        with blobs.keeping() as other:
            other(content)
        assert not blobs.delete(name, lambda _: False)
        assert blobs.get(name) == content
    entered, done = threading.Event(), threading.Event()

    def late() -> None:
        entered.wait(10)
        with blobs.keeping() as write:
            write(content)
            done.set()
            time.sleep(0.2)

    thread = threading.Thread(target=late)
    thread.start()

    def check(_: str) -> bool:
        entered.set()
        return done.wait(0.2)  # the upload waits for this check, and then writes the file again

    assert blobs.delete(name, check)
    assert done.wait(10) and blobs.get(name) == content
    assert not blobs.delete(name, lambda _: False)
    thread.join()
    assert blobs.delete(name, lambda _: False) and blobs.get(name) is None


def test_uploads_of_the_same_content_under_deletion(store: Store, tmp_path: Path) -> None:
    """Threads upload a few contents again and again while all that may be deleted is deleted."""
    retention = retention_of(store, tmp_path, keep_days=1)
    contents = [f"content {n}".encode() * 50 for n in range(3)]
    numbers = iter(range(100_000))
    lock, stop = threading.Lock(), threading.Event()
    lost: list[str] = []

    def upload(draw: random.Random) -> None:
        while not stop.is_set():
            with lock:
                number = next(numbers)
            alarm = draw.random() < 0.5
            row = put(
                retention, number, image=draw.choice(contents), prediction=draw.choice(contents),
                decision="anomalous" if alarm else "normal",
            )  # fmt: skip
            time.sleep(draw.random() / 100)
            if not alarm:
                continue
            if None in (retention.blobs.get(row.image), retention.blobs.get(row.prediction)):
                lost.append(row.id)
            with store.writing() as session:  # then it may be deleted too
                session.get_one(InspectionRow, row.id).review = "confirmed"

    threads = [threading.Thread(target=upload, args=(random.Random(n),)) for n in range(3)]
    for thread in threads:
        thread.start()
    deleted, begin = 0, time.monotonic()
    try:
        while time.monotonic() < begin + 0.5 or deleted < 5:
            assert time.monotonic() < begin + 60
            before = files(retention).keys()
            retention.run()
            deleted += len(before - files(retention).keys())
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not lost
    left = files(retention)
    for row in rows_of(store).values():
        if row.bytes:
            assert {row.image, row.prediction} <= left.keys()


def test_a_crash_leaves_files_that_are_found_later(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retention = retention_of(store, tmp_path, keep_bytes=0)
    rows = [put(retention, number) for number in range(3)]

    def crash(name: str, is_used: Callable[[str], bool]) -> bool:
        raise OSError("the process ends here")

    with monkeypatch.context() as patch:
        patch.setattr(retention.blobs, "delete", crash)
        with pytest.raises(OSError, match="ends here"):
            retention.run()
    assert {row.bytes for row in rows_of(store).values()} == {0} and len(files(retention)) == 6
    kept = put(retention, 9, decision="anomalous")
    old = time.time() - 25 * 3600
    for name in (rows[0].image, rows[0].prediction, kept.image):
        os.utime(retention.blobs.path(name), (old, old))
    other = retention.blobs.folder / "ab" / "notes.txt"
    other.parent.mkdir(exist_ok=True)
    other.write_text("of somebody else")
    os.utime(other, (old, old))
    again = retention_of(store, tmp_path)  # after the restart
    again.run()
    expected = {name for row in rows[1:] for name in (row.image, row.prediction)}
    assert files(again).keys() == {*expected, kept.image, kept.prediction, "notes.txt"}


def test_no_store_means_no_deletion(store: Store, tmp_path: Path) -> None:
    retention = retention_of(store, tmp_path, keep_bytes=0)
    row = put(retention, 1)

    def fail(name: str) -> bool:
        raise RuntimeError("no answer")

    with pytest.raises(RuntimeError):
        retention.blobs.delete(row.image, fail)
    assert retention.blobs.get(row.image) is not None
    assert all(lock.acquire(blocking=False) for lock in retention.blobs._locks.values())
    assert len(FOLDERS) == len(retention.blobs._locks)


# --- in the service ---


def test_storage_over_http(calibrated: Path, tmp_path: Path) -> None:
    image = save_varied(tmp_path / "a.png", 4000, product="bolt")
    data = tmp_path / "data"
    with ExitStack() as stack:
        service = stack.enter_context(service_of(data, calibrated, keep_bytes=10**9, keep_days=3))
        client = stack.enter_context(client_of(service))
        for _ in range(3):
            assert post(client, image).status_code == 200
        first = post(client, image).json()["results"][0]["inspection"]
        for _ in range(500):
            found = client.get("/v1/storage").json()
            if found["files"] is not None:
                break
            time.sleep(0.02)
        paths = [p for p in (data / "files").rglob("*") if p.is_file()]
        assert found["files"] == len(paths) >= 2
        assert found["bytes"] == sum(path.stat().st_size for path in paths)
        assert found["inspections"] == 4 and found["keep_bytes"] == 10**9
        assert found["keep_days"] == 3 and found["problem"] == ""
        alarms = client.get("/v1/inspections", params={"review": "none"}).json()["inspections"]
        assert found["protected"] == sum(one["decision"] != "normal" for one in alarms)
        for one in alarms:
            client.post(f"/v1/inspections/{one['id']}/review", json={"verdict": "confirmed"})
        least = {"keep_gigabytes": 1e-9, "keep_days": None}
        assert client.put("/v1/storage", json=least).json()["keep_bytes"] == 1
        for _ in range(500):
            found = client.get("/v1/storage").json()
            if not found["files"]:
                break
            time.sleep(0.02)
        assert client.delete("/v1/storage/limits").json()["keep_bytes"] == 10**9
        assert (found["files"], found["bytes"], found["inspections"]) == (0, 0, 0)
        assert found["oldest"] is None
        gone = client.get(first["links"]["image"])
        assert gone.status_code == 404 and gone.json()["error"]["code"] == "gone"
        assert client.get(first["links"]["overlay"]).status_code == 404
        assert client.get(first["links"]["self"]).json()["result"] == first["result"]
        assert post(client, image).status_code == 200
        assert len([p for p in (data / "files").rglob("*") if p.is_file()]) == 2
