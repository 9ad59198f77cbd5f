"""Versions of models: shadow, comparison, promotion, rollback, changes of the calibration."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

import snl
from snl.decision.edit import set_rates
from snl.service import ids
from snl.service.models import ModelError, Models, NoModelError
from snl.service.server import open_store
from snl.service.service import Service, Upload
from snl.service.store import Filter
from snl.service.tables import ModelRow
from tests.service.conftest import post
from tests.service.in_process import client_of
from tests.trees import save_varied

RATE = 0.3


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    return [
        save_varied(folder / f"{product}-{n}.png", 7000 + n, defect=n == 3, product=product)
        for product in ("bolt", "plate")
        for n in range(4)
    ]


@pytest.fixture(scope="module")
def strict(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network with another rate: some decisions differ."""
    inspector = snl.load(calibrated, "cpu")
    inspector.recalibrate(set_rates(inspector.calibration, anomalous=RATE, uncertain=0.4))
    path = tmp_path_factory.mktemp("strict") / "strict.snl"
    inspector.save(path)
    return path


@pytest.fixture
def service(calibrated: Path, tmp_path: Path) -> Iterator[Service]:
    store = open_store(tmp_path, None)
    service = Service(store, tmp_path, [calibrated])
    yield service
    service.close()
    store.close()


def _inspect(service: Service, path: Path) -> str:
    row = service.inspect(Upload(path.read_bytes(), path.name))
    return row.id


def _settle(service: Service) -> None:
    end = threading.Event()
    for _ in range(600):
        if not service.shadows.waiting:
            return
        end.wait(0.05)
    raise AssertionError("the shadows do not become ready")


def test_a_shadow_decides_as_the_library_does(
    service: Service, calibrated: Path, strict: Path, images: list[Path]
) -> None:
    before, after = snl.load(calibrated, "cpu"), snl.load(strict, "cpu")
    expected = Counter(
        (before.inspect(path).decision, after.inspect(path).decision) for path in images
    )
    assert any(was != now for was, now in expected)
    earlier = [_inspect(service, path) for path in images[:4]]
    version = service.models.add(strict, "varied", "test", "a try")
    service.models.set_shadow(version.id, True, "test")
    assert service.shadows.replay(version.id) == len(earlier)
    for path in images[4:]:
        _inspect(service, path)
    _settle(service)
    found = service.shadows.compare(version.id)
    assert found.inspections == len(images) and found.counts == expected
    assert len(found.changed) == sum(n for (was, now), n in expected.items() if was != now)
    assert service.shadows.replay(version.id) == 0
    assert service.models.active("varied").id != version.id  # a shadow decides nothing


def test_a_shadow_of_another_network_reads_the_image(
    service: Service, calibrated: Path, trained: Path, images: list[Path]
) -> None:
    id = _inspect(service, images[0])
    version = service.models.add(trained, "varied", "test", "another network")
    service.models.set_shadow(version.id, True, "test")
    service.shadows.replay(version.id)
    _settle(service)
    expected = snl.load(trained, "cpu").inspect(images[0])
    found = service.shadows.compare(version.id)
    row = service.store.inspection(id)
    assert row is not None
    assert found.counts == {(row.decision, expected.decision): 1}


def test_promotion_and_rollback_drop_no_request(
    service: Service, strict: Path, images: list[Path]
) -> None:
    first = service.models.active().id
    second = service.models.add(strict, "varied", "test", "").id
    stop, ids, errors = threading.Event(), [], []

    def send() -> None:
        while not stop.is_set():
            try:
                ids.append(_inspect(service, images[len(ids) % len(images)]))
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(6):
        while len(ids) < 8 * (turn + 1) and not errors:
            stop.wait(0.01)
        if turn % 2:
            assert service.models.rollback("varied", "test", "back").id == first
        else:
            service.models.promote(second, "test", "try it")
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    used = Counter(row.model for id in ids if (row := service.store.inspection(id)) is not None)
    assert used.keys() == {first, second} and used.total() == len(ids)
    assert service.models.active().id == first
    states = {row.version: row.state for row in service.models.rows("varied")}
    assert states == {1: "active", 2: "retired"}
    actions = [row.action for row in service.store.audits(0, 100)]
    assert actions.count("model promote") == 7  # with the one of the start


def test_what_was_promoted_stays_after_a_restart(
    calibrated: Path, strict: Path, tmp_path: Path
) -> None:
    for turn in range(2):
        store = open_store(tmp_path, None)
        service = Service(store, tmp_path, [calibrated])
        if turn == 0:
            id = service.models.add(strict, "varied", "test", "").id
            service.models.promote(id, "test", "")
        assert service.models.active("varied").id == id
        assert service.models.active().calibration.rates.anomalous == RATE
        service.close()
        store.close()
    store = open_store(tmp_path, None)
    service = Service(store, tmp_path, [])  # without files: those of before
    assert service.models.names() == ["varied"]
    service.close()
    store.close()


def test_several_models_side_by_side(
    calibrated: Path, trained: Path, images: list[Path], tmp_path: Path
) -> None:
    store = open_store(tmp_path, None)
    service = Service(store, tmp_path, [calibrated, trained])
    assert service.models.names() == ["varied", "parts"]
    for name, file in (("varied", calibrated), ("parts", trained)):
        row = service.inspect(Upload(images[0].read_bytes(), model=name))
        assert row.score == pytest.approx(snl.load(file, "cpu").inspect(images[0]).score, rel=1e-5)
    with pytest.raises(NoModelError, match="there is no model nut; known: varied, parts"):
        service.inspect(Upload(images[0].read_bytes(), model="nut"))
    service.close()
    store.close()


def test_garbage_changes_nothing(service: Service, calibrated: Path, tmp_path: Path) -> None:
    files = sorted(service.models.folder.iterdir())
    bad = tmp_path / "bad.snl"
    bad.write_bytes(calibrated.read_bytes()[:5000])
    with pytest.raises(snl.SnlError, match=r"bad\.snl"):
        service.models.add(bad, "varied", "test", "")
    with pytest.raises(ModelError, match="is version 1 of varied already"):
        service.models.add(calibrated, "varied", "test", "")
    with pytest.raises(ModelError, match="no earlier version"):
        service.models.rollback("varied", "test", "")
    with pytest.raises(NoModelError):
        service.models.promote("0", "test", "")
    assert sorted(service.models.folder.iterdir()) == files
    assert [row.version for row in service.models.rows()] == [1]


def test_a_rollback_goes_by_the_order_of_promotions_not_by_the_clock(service: Service) -> None:
    def rate(value: float) -> str:
        return service.models.recalibrate(
            "varied", lambda before: set_rates(before, anomalous=value, uncertain=0.4), "test", ""
        ).id

    second, third = rate(0.1), rate(0.2)
    assert service.models.active().id == third
    with service.store.writing() as session:  # the clock was set back before the second one
        row = session.get_one(ModelRow, second)
        assert row.promoted is not None
        row.promoted -= timedelta(days=400)
    assert service.models.rollback("varied", "test", "").id == second


def test_a_version_whose_file_was_damaged_is_not_promoted(
    service: Service, strict: Path, images: list[Path]
) -> None:
    active = service.models.active().id
    row = service.models.add(strict, "varied", "test", "")
    service.models.path(row).write_bytes(b"garbage")
    with pytest.raises(snl.SnlError):
        service.models.promote(row.id, "test", "")
    assert service.models.active().id == active
    assert service.models.row(row.id).state == "candidate"
    _inspect(service, images[0])


def test_copies_of_a_killed_process_are_removed(
    service: Service, calibrated: Path, tmp_path: Path
) -> None:
    left = service.models.folder / "incoming-0123"
    left.write_bytes(b"half")
    Models(service.store, service.models.folder)
    assert not left.exists()


# --- the clock ---


def test_the_order_is_kept_while_the_clock_goes_back(
    calibrated: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time_ns
    back = [0]
    monkeypatch.setattr(time, "time_ns", lambda: real() - back[0] * 10**9)
    made = []
    for turn in range(2):
        store = open_store(tmp_path, None)
        service = Service(store, tmp_path, [calibrated])
        for path in images[:3]:
            made.append(_inspect(service, path))
            back[0] += 3600
        service.close()
        store.close()
        if turn == 0:
            monkeypatch.setattr(ids, "_last", 0)  # as in a new process
    store = open_store(tmp_path, None)
    listed = [row.id for row in store.list(Filter(), 100)]
    store.close()
    assert listed == made[::-1]


# --- over HTTP ---


def test_the_calibration_changes_by_request_and_comes_back(
    service: Service, calibrated: Path, strict: Path, images: list[Path]
) -> None:
    reference = snl.load(calibrated, "cpu")
    with client_of(service) as client:
        assert _decisions(client, images) == [reference.inspect(path).decision for path in images]
        new = {"anomalous": RATE, "uncertain": 0.4, "why": "the line runs cleaner now"}
        done = client.put("/v1/products/bolt/calibration", json=new)
        assert done.status_code == 200 and done.json()["rates"]["anomalous"] == RATE
        reference.recalibrate(
            set_rates(reference.calibration, "bolt", anomalous=RATE, uncertain=0.4)
        )
        assert _decisions(client, images) == [reference.inspect(path).decision for path in images]
        (model,) = client.get("/v1/models").json()
        assert [one["state"] for one in model["versions"]] == ["active", "retired"]
        assert model["versions"][0]["why"] == new["why"]
        audits = client.get("/v1/audit").json()
        assert audits[0]["action"] == "model promote" and audits[0]["who"] == "local"
        for wrong, status in (
            ({"anomalous": 2}, 422), ({}, 422), ({"anomalous": 0.4, "uncertain": 0.1}, 422),
            ({"rule": "none"}, 422), ({"anomalous": 0.1, "extra": 1}, 422),
        ):  # fmt: skip
            assert client.put("/v1/products/bolt/calibration", json=wrong).status_code == status
        assert client.put("/v1/products/nut/calibration", json=new).status_code == 422
        back = client.post("/v1/rollback", json={"why": "too strict"})
        assert back.status_code == 200 and back.json()["version"] == 1
        first = snl.load(calibrated, "cpu")
        assert _decisions(client, images) == [first.inspect(path).decision for path in images]
        _upload(service, client, strict)


def _upload(service: Service, client: httpx.Client, strict: Path) -> None:
    """Upload a version, compare it in the shadow, and promote it."""
    sent = client.post("/v1/models", content=strict.read_bytes(), params={"why": "stricter"})
    assert sent.status_code == 200, sent.text
    version = sent.json()
    assert version["state"] == "candidate" and version["version"] == 3
    shadow = client.post(f"/v1/models/{version['id']}/shadow", json={"replay": 1000})
    assert shadow.json()["state"] == "shadow"
    for _ in range(200):
        found = client.get(f"/v1/models/{version['id']}/comparison").json()
        if not found["waiting"] and found["inspections"] == 24:
            break
    assert sum(one["count"] for one in found["counts"]) == 24 and found["changed"]
    promoted = client.post(f"/v1/models/{version['id']}/promote", json={})
    assert promoted.json()["state"] == "active"
    again = client.post("/v1/models", content=strict.read_bytes())
    assert again.status_code == 422 and "version 3" in again.json()["error"]["message"]
    garbage = client.post("/v1/models", content=b"garbage" * 100)
    assert garbage.status_code == 422 and str(service.data) not in garbage.text
    assert client.post("/v1/models", content=b"x", params={"suffix": ".pt"}).status_code == 422
    assert client.post("/v1/models/0/promote", json={}).status_code == 404
    assert client.get("/v1/models/0/comparison").status_code == 404


def _decisions(client: httpx.Client, images: list[Path]) -> list[str]:
    answers = [post(client, path) for path in images]
    return [answer.json()["results"][0]["inspection"]["decision"] for answer in answers]
