"""Jobs and the sets of images that they use, with the real commands."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

import snl
from snl.service.jobs import Jobs
from snl.service.processes import progress_in
from snl.service.server import open_store
from snl.service.service import Service, Upload
from snl.service.tables import JobRow, ReviewRow
from tests.service.conftest import Start, post
from tests.trees import save_striped, save_varied

SECONDS = 120


@pytest.fixture
def service(calibrated: Path, tmp_path: Path) -> Iterator[Service]:
    store = open_store(tmp_path, None)
    service = Service(store, tmp_path, [calibrated])
    yield service
    service.close()
    store.close()


@pytest.fixture(scope="module")
def gears(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, bytes]]:
    folder = tmp_path_factory.mktemp("gears")
    paths = [save_striped(folder / f"{n}.png", n) for n in range(12)]
    return [(path.name, path.read_bytes()) for path in paths]


def _wait(jobs: Jobs, id: str) -> JobRow:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        row = jobs.row(id)
        if row.state not in ("queued", "running"):
            return row
        time.sleep(0.1)
    raise AssertionError(f"the job does not end: {jobs.log(id)}")


def test_a_product_is_added(
    service: Service, gears: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    rows = service.sets.add("gears", gears, "test")
    assert len({row.image for row in rows}) == 12
    service.sets.add("gears", gears[:2], "test")  # again: they are in it only once
    assert [(one.name, one.images) for one in service.sets.list()] == [("gears", 12)]
    job = service.jobs.submit("add", "", {"product": "gear", "set": "gears", "quick": True}, "test")
    done = _wait(service.jobs, job.id)
    assert done.state == "done", done.error
    assert done.result is not None
    version = service.models.row(done.result)
    assert version.state == "candidate" and service.models.active().version == 1
    service.models.promote(version.id, "test", "")
    new = save_striped(tmp_path / "new.png", 500)
    assert service.inspect(Upload(new.read_bytes())).product == "gear"
    assert not (service.jobs.folder / job.id / "images").exists()


def test_recalibration_from_reviews(service: Service, tmp_path: Path) -> None:
    before = len(service.models.active().calibration.sets["bolt"])
    for n in range(6):
        image = save_varied(tmp_path / f"{n}.png", 9000 + n, product="bolt")
        row = service.inspect(Upload(image.read_bytes(), product="bolt"))
        verdict = "confirmed" if row.decision == "normal" else "false alarm"
        if n < 5:
            service.store.review(
                ReviewRow(
                    inspection=row.id, created=row.created, who="t", verdict=verdict, note="",
                    regions=[],
                )
            )  # fmt: skip
    job = service.jobs.submit("recalibrate", "", {"product": "bolt", "reviewed": True}, "test")
    done = _wait(service.jobs, job.id)
    assert done.state == "done", done.error
    assert done.result is not None
    after = snl.load(service.models.path(service.models.row(done.result)), "cpu").calibration
    assert len(after.sets["bolt"]) == before + 5


def test_a_new_model_is_trained(service: Service, gears: list[tuple[str, bytes]]) -> None:
    service.sets.add("gears", gears, "test")
    settings = {"sets": {"= ../gear": "gears"}, "steps": 3}
    job = service.jobs.submit("train", "second", settings, "test")
    done = _wait(service.jobs, job.id)
    assert done.state == "done", done.error
    assert done.result is not None
    version = service.models.row(done.result)
    assert (version.name, version.version) == ("second", 1)
    assert service.models.read(version.id).calibration.products == ("= ../gear",)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("add", {"product": "gear", "set": "none"}, "there is no set none"),
        ("add", {"product": "", "set": "gears"}, "product ''"),
        ("add", {"product": "gear"}, "either `set` or `reviewed`"),
        ("add", {"product": "gear", "reviewed": True}, "only for recalibrate"),
        ("recalibrate", {"product": "nut", "set": "gears"}, "nut"),
        ("train", {}, "give `sets`"),
        ("train", {"sets": {"a\nb": "gears"}}, "product"),
        ("delete", {}, "choose of add"),
    ],
)
def test_wrong_jobs_are_refused(
    service: Service, gears: list[tuple[str, bytes]], kind: str, settings: Any, message: str
) -> None:
    service.sets.add("gears", gears[:1], "test")
    with pytest.raises(snl.SnlError, match=message):
        service.jobs.submit(kind, "", settings, "test")
    assert not service.jobs.newest()


def test_a_job_that_fails_says_why(service: Service, tmp_path: Path) -> None:
    bolts = [save_varied(tmp_path / f"{n}.png", n, product="bolt") for n in range(6)]
    service.sets.add("nuts", [(path.name, path.read_bytes()) for path in bolts], "test")
    job = service.jobs.submit("add", "", {"product": "nut", "set": "nuts"}, "test")
    failed = _wait(service.jobs, job.id)
    assert failed.state == "failed" and failed.result is None
    assert "bolt" in failed.error and str(tmp_path) not in failed.error
    assert "Traceback" not in service.jobs.log(job.id)
    assert [row.version for row in service.models.rows()] == [1]


def test_a_set_takes_all_images_or_none(service: Service, gears: list[tuple[str, bytes]]) -> None:
    with pytest.raises(snl.SnlError, match=r"notes\.txt"):
        service.sets.add("gears", [*gears, ("notes.txt", b"hello")], "test")
    with pytest.raises(snl.SnlError, match="set"):
        service.sets.add("../gears", gears, "test")
    assert service.sets.list() == []
    service.sets.add("gears", gears, "test")
    service.sets.delete("gears", "test")
    with pytest.raises(snl.SnlError, match="no set"):
        service.sets.images("gears")


def test_progress_is_read_from_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("note: x\ntraining: 60% 120/200 [00:21<01:14, 5.7step/s, loss=0.2]\n")
    assert progress_in(log) == {
        "task": "training", "done": 120, "total": 200, "seconds_left": 74
    }  # fmt: skip
    assert progress_in(tmp_path / "none") == {}


def test_a_job_goes_on_after_kill_9(
    start: Start, calibrated: Path, gears: list[tuple[str, bytes]]
) -> None:
    server = start(calibrated)
    with server.client() as client:
        files = [("images", one) for one in gears]
        sent = client.post("/v1/sets/gears/images", files=files)
        assert sent.status_code == 200 and len(sent.json()) == 12
        new = {"kind": "add", "product": "gear", "set": "gears", "steps": 400}
        assert client.post("/v1/jobs", json={**new, "set": "none"}).status_code == 404
        assert client.post("/v1/jobs", json={**new, "kind": "drop"}).status_code == 422
        job = client.post("/v1/jobs", json=new).json()["id"]
        first = _running(client, job)
        assert client.post("/v1/jobs", json={**new, "product": "wheel"}).status_code == 202
    pid = int((server.data / "jobs" / job / "pid").read_text().split()[0])
    assert first["state"] == "running" and psutil.pid_exists(pid)
    server.stop(signal.SIGKILL)
    again = start(calibrated, data=server.data)
    with again.client() as client:
        waiting = client.get("/v1/jobs").json()[0]
        assert waiting["settings"]["product"] == "wheel"
        cancelled = client.post(f"/v1/jobs/{waiting['id']}/cancel").json()
        assert cancelled["state"] == "cancelled"
        end = time.monotonic() + SECONDS
        while (found := client.get(f"/v1/jobs/{job}").json())["state"] == "running":
            assert time.monotonic() < end
            inspected = post(client, calibrated)  # not an image: refused, and the server goes on
            assert inspected.status_code == 422
            time.sleep(0.2)
        assert found["state"] == "done", found["error"]
        assert not _is_alive(pid)
        promoted = client.post(f"/v1/models/{found['result']}/promote", json={})
        assert promoted.status_code == 200
        assert "gear" in [one["name"] for one in client.get("/v1/products").json()]


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE and pid != os.getpid()
    except psutil.NoSuchProcess:
        return False


def _running(client: httpx.Client, job: str) -> dict[str, Any]:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        found: dict[str, Any] = client.get(f"/v1/jobs/{job}").json()
        if found["state"] != "queued":
            return found
        time.sleep(0.05)
    raise AssertionError("the job does not start")
