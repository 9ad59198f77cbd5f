"""Tokens, limits of the retention and backups over HTTP."""

from __future__ import annotations

import re
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from snl.cli.main import main
from snl.errors import SnlError
from snl.service import download
from snl.service.access import create
from snl.service.backup import back_up
from snl.service.download import Downloads
from snl.service.restore import check, restore
from snl.service.retention import Limits
from snl.service.service import Service
from snl.service.store import LastAdminError, Store
from snl.service.upload import Upload
from tests.service.in_process import client_of, serve, service_of
from tests.service.rows import inspection
from tests.trees import save_varied


@pytest.fixture(scope="module")
def service(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with service_of(folder / "data", calibrated) as service:
        for n in range(4):
            image = save_varied(folder / f"{n}.png", 5200 + n)
            service.inspect(Upload(image.read_bytes(), image.name))
        yield service


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def message(answer: httpx.Response) -> str:
    text: str = answer.json()["error"]["message"]
    assert "\n" not in text and "/tmp" not in text
    return text


# --- tokens ---


def test_tokens_are_created_listed_and_revoked(calibrated: Path, tmp_path: Path) -> None:
    with service_of(tmp_path, calibrated) as service:
        first = create(service.store, "anna", "admin")
        with client_of(service, open=False) as client:
            client.headers.update(bearer(first))
            made = client.post("/v1/tokens", json={"name": " line-1 ", "role": "inspect"})
            assert made.status_code == 201
            token = made.json()
            assert token["name"] == "line-1" and token["role"] == "inspect"
            assert token["revoked"] is None and token["needs_restart"] is False
            assert client.get("/v1/stats", headers=bearer(token["token"])).status_code == 200
            assert client.get("/v1/tokens", headers=bearer(token["token"])).status_code == 403
            listed = client.get("/v1/tokens")
            assert [one["name"] for one in listed.json()] == ["anna", "line-1"]
            assert first not in listed.text and token["token"].split("_", 2)[2] not in listed.text
            assert client.delete(f"/v1/tokens/{token['id']}").status_code == 204
            assert client.get("/v1/stats", headers=bearer(token["token"])).status_code == 401
            again = client.delete(f"/v1/tokens/{token['id']}")
            assert again.status_code == 404 and "no token in use" in message(again)
            assert client.get("/v1/tokens").json()[1]["revoked"] is not None
            audits = client.get("/v1/audit").json()
            assert [one["action"] for one in audits[:2]] == ["token revoke", "token create"]
            assert {one["who"] for one in audits[:2]} == {"anna"}
            for wrong in (
                {"name": "x", "role": "root"}, {"name": "", "role": "read"}, {"name": "x"},
                {"name": " ", "role": "read"}, {"name": "x" * 101, "role": "read"},
            ):  # fmt: skip
                assert client.post("/v1/tokens", json=wrong).status_code == 422


def test_the_last_admin_token_stays_unless_the_server_is_open(
    calibrated: Path, tmp_path: Path
) -> None:
    with service_of(tmp_path, calibrated) as service:
        first = create(service.store, "anna", "admin")
        create(service.store, "line-1", "inspect")
        id = first.split("_")[1]
        with client_of(service, open=False) as client:
            client.headers.update(bearer(first))
            refused = client.delete(f"/v1/tokens/{id}")
            assert refused.status_code == 409 and "last token" in message(refused)
            assert client.get("/v1/tokens").status_code == 200  # nothing was changed
            assert client.get("/v1/audit").json()[0]["action"] == "token create"
            second = client.post("/v1/tokens", json={"name": "bob", "role": "admin"}).json()
            assert client.delete(f"/v1/tokens/{id}").status_code == 204  # its own
            client.headers.update(bearer(second["token"]))
            assert client.delete(f"/v1/tokens/{second['id']}").status_code == 409
        with client_of(service) as client:
            made = client.post("/v1/tokens", json={"name": "eve", "role": "admin"}).json()
            assert made["needs_restart"] is True
            for id in (made["id"], second["id"]):
                assert client.delete(f"/v1/tokens/{id}").status_code == 204


def test_of_two_admins_who_revoke_each_other_one_stays(store: Store) -> None:
    for turn in range(5):
        ids = [create(store, f"{turn} {n}", "admin").split("_")[1] for n in range(2)]
        done: list[bool | Exception] = []
        start = threading.Barrier(2)

        def revoke(id: str, start: threading.Barrier, done: list[bool | Exception]) -> None:
            start.wait()
            try:
                done.append(store.revoke(id, "me", keep_admin=True))
            except LastAdminError as error:
                done.append(error)

        threads = [threading.Thread(target=revoke, args=(id, start, done)) for id in ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(map(str, done))[0] == "True" and len(done) == 2
        assert sum(isinstance(one, LastAdminError) for one in done) == 1
        left = [one.id for one in store.tokens() if one.revoked is None]
        assert len(left) == 1
        store.revoke(left[0], "me")


# --- retention ---


def test_limits_count_at_once_and_after_a_restart(
    calibrated: Path, tmp_path: Path, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    service_at = partial(service_of, data, calibrated, url=store_url)
    with service_at(keep_days=3) as service, client_of(service) as client:
        found = client.get("/v1/storage").json()
        assert (found["keep_days"], found["limits_from"]) == (3, "configuration")
        new = {"keep_gigabytes": 2.5, "keep_days": None, "why": "a larger disk"}
        found = client.put("/v1/storage", json=new).json()
        assert (found["keep_bytes"], found["keep_days"]) == (2_500_000_000, None)
        assert found["limits_from"] == "api" and client.get("/v1/storage").json() == found
        (audit, *_) = client.get("/v1/audit").json()
        assert (audit["action"], audit["who"]) == ("retention change", "local")
        assert audit["details"]["why"] == "a larger disk"
        assert audit["details"]["keep_bytes"] == 2_500_000_000
        for wrong in (
            {}, {"keep_days": 3}, {"keep_gigabytes": 0, "keep_days": 1}, {**new, "extra": 1},
            {"keep_gigabytes": -1, "keep_days": None}, {"keep_gigabytes": None, "keep_days": 1e9},
            {"keep_gigabytes": "inf", "keep_days": None},
        ):  # fmt: skip
            assert client.put("/v1/storage", json=wrong).status_code == 422, wrong
    assert "DELETE /v1/storage/limits" not in caplog.text
    with service_at(keep_days=7) as service, client_of(service) as client:
        assert service.retention.limits == Limits(2_500_000_000, None)
        found = client.delete("/v1/storage/limits", params={"why": "as before"}).json()
        assert (found["keep_bytes"], found["keep_days"]) == (None, 7)
        assert found["limits_from"] == "configuration"
        assert client.get("/v1/audit").json()[0]["action"] == "retention reset"
    assert "DELETE /v1/storage/limits" in caplog.text
    with service_at(keep_days=9) as service:
        assert service.retention.limits == Limits(None, 9)


# --- backups ---


def test_a_download_is_a_backup(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "a.snlbackup"
    with client_of(service) as client:
        answer = client.get("/v1/backup")
        before = client.get("/v1/inspections").json()
        assert client.get("/v1/audit").json()[0]["action"] == "backup download"
    assert answer.status_code == 200
    name = re.fullmatch(
        r'attachment; filename="(snl-\d{8}-\d{6}\.snlbackup)"',
        answer.headers["content-disposition"],
    )
    assert name and answer.headers["cache-control"] == "no-store"
    file.write_bytes(answer.content)
    assert main(["backup", "--check", str(file), "--quiet"]) == 0
    data = tmp_path / "new"
    assert main(["restore", str(file), "--data", str(data), "--quiet"]) == 0
    with service_of(data) as again, client_of(again) as client:
        assert client.get("/v1/inspections").json() == before
        for one in before["inspections"]:
            assert client.get(one["links"]["image"]).status_code == 200
    assert not list(service.data.glob(".*.tmp"))

    written = tmp_path / "b.snlbackup"
    back_up(written, service.data)
    with tarfile.open(file) as one, tarfile.open(written) as other:
        names = [member.name for member in one]
        assert names == [member.name for member in other]
    assert check(file).files == check(written).files
    cut = tmp_path / "cut.snlbackup"
    cut.write_bytes(answer.content[: len(answer.content) // 2])
    with pytest.raises(SnlError, match="damaged or not complete"):
        check(cut)


def test_a_download_of_any_store(calibrated: Path, tmp_path: Path, store_url: str) -> None:
    image = save_varied(tmp_path / "a.png", 5300)
    with service_of(tmp_path / "data", calibrated, url=store_url) as service:
        service.inspect(Upload(image.read_bytes(), image.name))
        with client_of(service) as client:
            content = client.get("/v1/backup").content
    file = tmp_path / "a.snlbackup"
    file.write_bytes(content)
    manifest = check(file)
    assert (manifest.rows["inspections"], manifest.files) == (1, 2)


def test_one_backup_at_a_time_and_nothing_is_left_of_one_that_is_cut(
    calibrated: Path, tmp_path: Path
) -> None:
    with service_of(tmp_path, calibrated) as service, serve(service) as url:
        noise = bytes(range(256)) * 2**14  # 4 MiB a file: more than the sockets hold
        with service.blobs.keeping() as put, service.store.writing() as session:
            for n in range(24):
                content = n.to_bytes(2, "big") + noise
                row = inspection(n, image=put(content), prediction=put(b"p%d" % n), bytes=1)
                session.add(row)
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port)) as connection:
            connection.sendall(b"GET /v1/backup HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert b" 200 " in connection.recv(100)
            assert list(service.data.glob(".*.tmp"))
            refused = httpx.get(f"{url}/v1/backup")
            assert refused.status_code == 409 and "another backup" in message(refused)
        end = time.monotonic() + 20
        while list(service.data.glob(".*.tmp")) and time.monotonic() < end:
            time.sleep(0.05)
        assert not list(service.data.glob(".*.tmp"))
        while (answer := httpx.get(f"{url}/v1/backup", timeout=60)).status_code == 409:
            assert time.monotonic() < end
            time.sleep(0.05)
        file = tmp_path.with_suffix(".snlbackup")
        file.write_bytes(answer.content)
        assert check(file).files == 48
        restore(file, tmp_path / "new")


def test_a_client_that_takes_nothing_is_given_up(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "STALL_SECONDS", 1.0)
    monkeypatch.setattr(download, "_WAITING", 1)
    downloads = Downloads(service.store, service.data)
    stalled = downloads.start("me")
    with pytest.raises(download.BusyError):
        downloads.start("me")
    stalled._thread.join(20)
    assert not stalled.is_alive and not list(service.data.glob(".*.tmp"))
    with pytest.raises(download.BrokenOffError, match="took nothing"):
        while stalled.read() is not None:
            pass
    other = downloads.start("me")
    downloads.close()
    assert not other.is_alive


def test_a_backup_that_cannot_be_made_is_refused_without_paths(
    calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service_of(tmp_path, calibrated) as service, client_of(service) as client:

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device", str(service.data))

        monkeypatch.setattr("snl.service.download.write_backup", fail)
        refused = client.get("/v1/backup")
        assert refused.status_code == 503 and "log" in message(refused)


def test_a_backup_that_breaks_off_ends_without_its_end(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def part(stream: object, *_: object) -> None:
        for _ in range(40):
            stream.write(b"x" * 2**16)  # type: ignore[attr-defined]
        raise SnlError("a file cannot be read")

    monkeypatch.setattr("snl.service.download.write_backup", part)
    with client_of(service) as client, pytest.raises(httpx.RemoteProtocolError):
        client.get("/v1/backup")
