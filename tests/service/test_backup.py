"""Backups of a service that runs, and services made from them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from snl.cli.main import main
from snl.errors import SnlError
from snl.service import archive
from snl.service.backup import Report, back_up
from snl.service.restore import check, restore
from snl.service.service import Service
from snl.service.store import Filter, Store, sqlite_url
from snl.service.tables import InspectionRow, ReviewRow
from snl.service.upload import Upload
from tests.service.in_process import client_of, service_of
from tests.service.postgresql import Cluster
from tests.service.rows import inspection
from tests.trees import save_varied


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    return [
        save_varied(folder / f"{product}-{n}.png", 4100 + n, defect=n == 2, product=product)
        for product in ("bolt", "plate")
        for n in range(3)
    ]


@pytest.fixture(scope="module")
def service(
    calibrated: Path, images: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service that runs, with inspections, reviews, a set, a drift state and an audit."""
    with service_of(tmp_path_factory.mktemp("data") / "snl", calibrated) as service:
        for path in images:
            service.inspect(Upload(path.read_bytes(), path.name))
        service.sets.add("normal", [(path.name, path.read_bytes()) for path in images[:2]], "me")
        for row in service.store.list(Filter(), 2):
            review = ReviewRow(
                inspection=row.id, created=datetime.now(UTC), who="me", verdict="confirmed",
                note="é =1", regions=[{"box": [1, 2, 3, 4], "label": "dent"}],
            )  # fmt: skip
            assert service.store.review(review)
        service.drift._watched(service.models.active().id).save()
        yield service


@pytest.fixture(scope="module")
def file(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of it; tests must not change it."""
    path = tmp_path_factory.mktemp("backup") / "a.snlbackup"
    back_up(path, service.data)
    return path


def content(url: str) -> dict[str, list[Any]]:
    """All rows of a store, by table."""
    store = Store(url)
    with store.engine.connect() as connection:
        found = {
            table.name: [
                list(row)
                for row in connection.execute(table.select().order_by(*table.primary_key.columns))
            ]
            for table in archive.TABLES.values()
        }
    store.close()
    return found


def blobs(data: Path) -> dict[str, bytes]:
    """The files of a service by name; each has the content of its name."""
    found = {
        path.name: path.read_bytes()
        for path in (data / "files").rglob("*")
        if path.is_file() and path.parent.name != "incoming"
    }
    assert all(hashlib.sha256(value).hexdigest() == name for name, value in found.items())
    return found


def said(error: pytest.ExceptionInfo[SnlError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# --- there and back ---


def test_a_restored_service_answers_the_same(service: Service, file: Path, tmp_path: Path) -> None:
    data = tmp_path / "new"
    restore(file, data)
    assert content(sqlite_url(data)) == content(sqlite_url(service.data))
    assert blobs(data) == blobs(service.data)
    states = [path.name for path in (data / "drift").iterdir()]
    assert states == [path.name for path in (service.data / "drift").iterdir()] != []
    assert sorted(path.name for path in data.iterdir()) == ["drift", "files", "models", "snl.db"]
    with service_of(data) as again, client_of(again) as new, client_of(service) as old:
        for path in ("/v1/inspections", "/v1/models", "/v1/sets", "/v1/audit", "/v1/drift"):
            assert new.get(path).json() == old.get(path).json()
        for one in new.get("/v1/inspections").json()["inspections"]:
            for link in ("image", "map", "overlay"):
                answer = new.get(one["links"][link])
                assert answer.status_code == 200
                assert answer.content == old.get(one["links"][link]).content
            reviews = f"{one['links']['self']}/reviews"
            assert new.get(reviews).json() == old.get(reviews).json()


def test_a_backup_while_images_come_is_of_one_moment(
    service: Service, images: list[Path], tmp_path: Path
) -> None:
    stop, rows = threading.Event(), []

    def send() -> None:
        while not stop.is_set():
            rows.append(service.inspect(Upload(images[len(rows) % 6].read_bytes(), "x.png")).id)

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        reports: list[tuple[set[str], Report]] = []
        for n in range(3):
            before = set(rows)
            reports.append((before, back_up(tmp_path / f"{n}.snlbackup", service.data)))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for n, (before, report) in enumerate(reports):
        assert not report.manifest.absent
        data = tmp_path / f"new {n}"
        restore(tmp_path / f"{n}.snlbackup", data)
        with closing(sqlite3.connect(data / "snl.db")) as database:
            found = database.execute("SELECT id, image, prediction FROM inspections").fetchall()
        assert before <= {id for id, *_ in found}
        assert {name for _, *names in found for name in names} <= blobs(data).keys()


def test_tables_are_of_one_moment(
    store: Store, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that come between two tables are in none of them."""
    data, write, numbers = tmp_path / "data", archive.write_rows, iter(range(1, 100))
    data.mkdir()
    store.add(inspection(0)).result()

    def writing(path: Path, table: Any, rows: Any) -> int:
        count = write(path, table, rows)
        row = inspection(next(numbers))
        store.add(row).result()
        review = ReviewRow(
            inspection=row.id, created=row.created, who="", verdict="miss", note="", regions=[]
        )
        assert store.review(review)
        return count

    monkeypatch.setattr(archive, "write_rows", writing)
    report = back_up(tmp_path / "a.snlbackup", data, store_url)
    monkeypatch.undo()
    assert next(numbers) > 5
    rows = report.manifest.rows
    assert (rows["inspections"], rows["reviews"], rows["audit"]) == (1, 0, 0)
    restore(tmp_path / "a.snlbackup", tmp_path / "new")


def test_a_folder_copies_only_what_is_new(
    service: Service, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, words = tmp_path / "backups", ["--data", str(service.data), "--quiet"]
    assert main(["backup", str(folder), *words]) == 0
    first = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    count = sum(service.store.counts().values())
    new = save_varied(tmp_path / "new.png", 77, product="bolt")
    row = service.inspect(Upload(new.read_bytes(), "new.png"))
    report = back_up(folder, service.data)
    assert report.copied == 2 and report.manifest.files == len(blobs(service.data))
    for path, time in first.items():
        assert path.stat().st_mtime_ns == time
    added = {path.name for path in folder.rglob("*") if path.is_file()} - {p.name for p in first}
    assert {row.image, row.prediction} <= added
    one, two = sorted(path for path in folder.iterdir() if path.name.startswith("tables-"))
    assert main(["backup", "--check", str(folder), "--quiet"]) == 0
    assert f"{count + 1} inspections" in capsys.readouterr().err
    for backup, expected in ((one, count), (two, count + 1), (folder, count + 1)):
        data = tmp_path / f"new {backup.name}"
        assert main(["restore", str(backup), "--data", str(data), "--quiet"]) == 0
        with closing(sqlite3.connect(data / "snl.db")) as database:
            query = "SELECT COUNT(*) FROM inspections"
            assert database.execute(query).fetchone() == (expected,)
        assert (row.image in blobs(data)) == (expected == count + 1)


def test_from_sqlite_to_postgresql_and_back(
    service: Service, file: Path, postgresql: Cluster, tmp_path: Path
) -> None:
    url = postgresql.database()
    restore(file, tmp_path / "a", url)
    assert not (tmp_path / "a" / "snl.db").exists()
    before = content(url)
    assert before == content(sqlite_url(service.data)) or len(before["inspections"]) >= 6
    store = Store(url)
    last = {name: before[name][-1][0] for name in ("reviews", "audit")}
    one = store.list(Filter(), 1)[0].id
    new = ReviewRow(
        inspection=one, created=datetime.now(UTC), who="me", verdict="miss", note="", regions=[]
    )
    assert store.review(new) and store.reviews(one)[-1].id == last["reviews"] + 1
    assert store.audits(0, 1)[0].id == last["audit"] + 1
    store.close()
    backup = tmp_path / "b.snlbackup"
    assert main(["backup", str(backup), "--data", str(tmp_path / "a"), "--store", url]) == 0
    assert check(backup).database == "postgresql"
    restore(backup, tmp_path / "c")
    assert content(sqlite_url(tmp_path / "c")) == content(url) != before
    assert blobs(tmp_path / "c") == blobs(tmp_path / "a")
    with pytest.raises(SnlError) as caught:
        restore(file, tmp_path / "d", url)
    assert "is not empty" in said(caught) and not (tmp_path / "d").exists()


# --- files that are gone or damaged ---


@pytest.fixture
def still(file: Path, tmp_path: Path) -> Path:
    """The folder of a service that does not run, for tests that change it."""
    restore(file, tmp_path / "still")
    return tmp_path / "still"


@pytest.mark.parametrize("name", ["a.snlbackup", "folder"])
def test_a_file_that_is_deleted_meanwhile_is_noted(
    still: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(sqlite_url(still))
    newest, oldest = store.list(Filter(), 100)[0], store.list(Filter(newest_first=False), 1)[0]
    store.close()
    victim = max(newest.prediction, oldest.prediction)  # among the last that are copied
    path = still / "files" / victim[:2] / victim[2:4] / victim

    def delete(done: int, total: int) -> None:
        if done == 1:
            path.unlink()

    report = back_up(tmp_path / name, still, progress=delete)
    assert dict(report.manifest.absent) == {victim: "deleted"} and report.absent("deleted") == 1
    assert check(tmp_path / name).absent == report.manifest.absent
    restore(tmp_path / name, tmp_path / "new")
    with closing(sqlite3.connect(tmp_path / "new" / "snl.db")) as database:
        query = "SELECT prediction FROM inspections WHERE bytes = 0"
        assert {row[0] for row in database.execute(query)} == {victim}
    with service_of(tmp_path / "new") as again:
        assert len(again.store.list(Filter(), 100)) >= 6


def test_a_damaged_source_is_said(
    still: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(still), "--quiet"]
    folder = tmp_path / "folder"
    assert main(["backup", str(folder), *words]) == 0
    victim = max(blobs(still))
    path = still / "files" / victim[:2] / victim[2:4] / victim
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["backup", str(folder), *words]) == 0  # an earlier backup has it
    assert check(folder).absent == {}
    capsys.readouterr()
    assert main(["backup", str(tmp_path / "a.snlbackup"), *words]) == 1
    assert "1 files are damaged or missing" in capsys.readouterr().err
    assert check(tmp_path / "a.snlbackup").absent == {victim: "damaged"}


def test_damage_anywhere_is_found(file: Path, tmp_path: Path) -> None:
    """Cut off anywhere, or with a changed byte in any file: refused, and nothing is made."""
    good, draw = file.read_bytes(), random.Random(1)
    bad, data = tmp_path / "bad.snlbackup", tmp_path / "data"
    with tarfile.open(file) as tar:
        members = [(one.name, one.offset_data, one.size) for one in tar.getmembers()]
    ends = [start + size for _, start, size in members[:-1]]
    cuts = [0, 1, 511, *draw.sample(ends, 4), *(draw.randrange(members[-1][1]) for _ in range(4))]
    for cut in cuts:
        bad.write_bytes(good[:cut])
        for function in (check, lambda path: restore(path, data)):
            with pytest.raises(SnlError) as caught:
                function(bad)
            assert "damaged" in said(caught) or "not a backup" in said(caught)
        assert not data.exists()
    seen = set()
    for name, start, size in draw.sample(members, len(members)):
        kind = name.split("/")[0]
        if (kind in seen and kind != "tables") or name == archive.ABOUT:
            continue
        seen.add(kind)
        changed = bytearray(good)
        changed[start + size // 2] ^= 64
        bad.write_bytes(changed)
        with pytest.raises(SnlError):
            check(bad)
        with pytest.raises(SnlError):
            restore(bad, data)
        assert not data.exists()
    assert seen >= {"tables", "models", "files", archive.MANIFEST}


def test_damage_in_a_folder_is_found(service: Service, tmp_path: Path) -> None:
    folder, data = tmp_path / "folder", tmp_path / "data"
    back_up(folder, service.data)
    for path in sorted(path for path in folder.rglob("*") if path.is_file())[::5]:
        content = path.read_bytes()
        for other in (None, content[:-1], content[:-1] + bytes([content[-1] ^ 1])):
            path.unlink() if other is None else path.write_bytes(other)
            if path.name != archive.MANIFEST:
                with pytest.raises(SnlError) as caught:
                    check(folder)
                assert "damaged" in said(caught)
                with pytest.raises(SnlError):
                    restore(folder, data)
                assert not data.exists()
        path.write_bytes(content)
    check(folder)


# --- interrupted ---


@pytest.mark.parametrize("name", ["a.snlbackup", "folder"])
def test_an_interrupted_backup_leaves_the_one_before(
    still: Path, tmp_path: Path, name: str
) -> None:
    """SIGKILL while files are copied; then a full disk."""
    target = tmp_path / name
    back_up(target, still)
    before = {path: path.read_bytes() for path in _files(target)}
    (new := save_varied(tmp_path / "new.png", 5, product="bolt")).read_bytes()
    with closing(sqlite3.connect(still / "snl.db")) as database:
        extra = hashlib.sha256(new.read_bytes()).hexdigest()
        place = still / "files" / extra[:2] / extra[2:4] / extra
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(new.read_bytes())
        database.execute("UPDATE set_images SET image = ? WHERE rowid = 1", (extra,))
        database.commit()
    code = (
        "import os, sys; from pathlib import Path; from snl.service.backup import back_up\n"
        "kill = lambda done, total: os.kill(os.getpid(), 9) if done == total else None\n"
        "back_up(Path(sys.argv[1]), Path(sys.argv[2]), progress=kill)"
    )
    done = subprocess.run([sys.executable, "-c", code, target, still], check=False)
    assert done.returncode == -signal.SIGKILL
    for path, content in before.items():
        assert path.read_bytes() == content
    check(target)
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        "from snl.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["backup", target, "--data", still, "--quiet"]
    full = subprocess.run(
        [sys.executable, "-c", script, *words], check=False, capture_output=True, text=True
    )
    assert full.returncode == 2 and "cannot be written" in full.stderr
    assert len(full.stderr.strip().splitlines()) == 1, full.stderr
    check(target)
    report = back_up(target, still)
    assert extra in {path.name for path in _files(target)} or report.manifest.files
    check(target)
    left = [path.name for path in tmp_path.rglob(".*") if path.name.endswith(".tmp")]
    assert left == []


@pytest.mark.parametrize("verb", ["backup", "restore"])
def test_sigterm_leaves_nothing(
    service: Service, file: Path, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(title: str, quiet: bool, unit: str) -> Any:
        return lambda done, total: os.kill(os.getpid(), signal.SIGTERM)

    target = tmp_path / "x" / ("a.snlbackup" if verb == "backup" else "data")
    target.parent.mkdir()
    words = [str(target), "--data", str(service.data)]
    if verb == "restore":
        words = [str(file), "--data", str(target)]
    monkeypatch.setattr(f"snl.cli.{verb}.progress_bar", stopping)
    assert main([verb, *words]) == 128 + signal.SIGTERM
    assert list(target.parent.iterdir()) == []


def _files(target: Path) -> list[Path]:
    return [target] if target.is_file() else [p for p in target.rglob("*") if p.is_file()]


# --- what is refused ---


def test_places_that_are_refused(service: Service, file: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"a person's file")
    (tmp_path / "other.snlbackup").write_bytes(b"a person's file")
    (tmp_path / "notes").write_bytes(b"a person's file")
    for target, text in (
        ("photos", "holds other files"),
        ("other.snlbackup", "is another file"),
        ("notes", "give a folder"),
        (service.data / "a.snlbackup", "would be lost"),
        (service.data, "would be lost"),
    ):
        with pytest.raises(SnlError) as caught:
            back_up(tmp_path / target, service.data)
        assert text in said(caught)
    assert (tmp_path / "other.snlbackup").read_bytes() == b"a person's file"
    for data in (tmp_path / "none", tmp_path / "photos"):
        with pytest.raises(SnlError) as caught:
            back_up(tmp_path / "a.snlbackup", data)
        assert "holds no service" in said(caught)
    for backup, text in (
        ("none", "not a backup"), ("photos", "not a backup"), ("notes", "not a backup"),
    ):  # fmt: skip
        with pytest.raises(SnlError) as caught:
            restore(tmp_path / backup, tmp_path / "data")
        assert text in said(caught) and not (tmp_path / "data").exists()
    with pytest.raises(SnlError) as caught:
        restore(file, tmp_path / "photos")
    assert "is not empty" in said(caught)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.jpg"]
    full = tmp_path / "full.db"
    restore(file, tmp_path / "first", f"sqlite:///{full}")
    with pytest.raises(SnlError) as caught:
        restore(file, tmp_path / "data", f"sqlite:///{full}")
    assert "is not empty" in said(caught) and not (tmp_path / "data").exists()
    (tmp_path / "mount" / "lost+found").mkdir(parents=True)
    restore(file, tmp_path / "mount")
    assert {"lost+found", "snl.db"} <= {path.name for path in (tmp_path / "mount").iterdir()}


def rewritten(file: Path, target: Path, change: Any) -> Path:
    """A copy of a backup with changed members; the checksums of tables are made to fit."""
    with tarfile.open(file) as tar:
        found = [(one, tar.extractfile(one).read()) for one in tar.getmembers()]  # type: ignore[union-attr]
    parts = {info.name: content for info, content in found}
    change(parts)
    manifest = json.loads(parts[archive.MANIFEST])
    for name in manifest["sha256"]:
        if name in parts:
            manifest["sha256"][name] = hashlib.sha256(parts[name]).hexdigest()
    parts[archive.MANIFEST] = json.dumps(manifest).encode()
    with tarfile.open(target, "w") as tar:
        for name, content in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return target


def _table(parts: dict[str, bytes], name: str, change: Any) -> None:
    path = f"tables/{name}.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(parts[path]).splitlines()]
    for row in rows:
        change(row)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    parts[path] = gzip.compress(text.encode())


def _set(key: str, value: Any) -> Any:
    def change(parts: dict[str, bytes]) -> None:
        for name in (archive.ABOUT, archive.MANIFEST):
            document = json.loads(parts[name])
            if key in document:
                parts[name] = json.dumps({**document, key: value}).encode()

    return change


def _more(name: str) -> Any:
    def change(parts: dict[str, bytes]) -> None:
        manifest = parts.pop(archive.MANIFEST)
        parts[name] = b"evil"
        parts[archive.MANIFEST] = manifest

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda parts: None, ""),
        (_set("format", 2), "newer snl"),
        (_set("format", "1"), "damaged"),
        (_set("kind", "photos"), "not a backup"),
        (_set("rows", [1]), "damaged"),
        (_set("files", 3), "number of files"),
        (_set("tables_version", "999"), "another version"),
        (_more("../evil"), "does not belong"),
        (_more("/tmp/evil"), "does not belong"),
        (_more("models/../../evil.snl"), "does not belong"),
        (_more("files/aa/aa/evil"), "does not belong"),
        (_more(f"files/aa/aa/{'a' * 64}"), "list of files"),
        (lambda p: _table(p, "models", lambda row: row.update(file="../../x.snl")), "damaged"),
        (lambda p: _table(p, "inspections", lambda row: row.update(more=1)), "wrong row"),
        (lambda p: _table(p, "inspections", lambda row: row.update(created="now")), "wrong row"),
        (lambda p: _table(p, "inspections", lambda row: row.update(id="same")), "not possible"),
        (lambda p: _table(p, "inspections", lambda row: row.update(name=[1])), "wrong row"),
        (lambda p: _table(p, "inspections", lambda row: row.update(id=None)), "wrong row"),
        (lambda p: _table(p, "inspections", lambda row: row.update(score="1")), "wrong row"),
        (lambda p: _table(p, "reviews", lambda row: row.update(inspection="x")), "not possible"),
        (lambda p: p.pop("tables/audit.jsonl.gz"), "missing"),
        (lambda p: p.pop("tables/names.txt.gz"), "damaged"),
        (lambda p: p.pop(next(n for n in p if n.startswith("files/"))), "missing"),
        (lambda p: p.update({"tables/audit.jsonl.gz": b"no gzip"}), "cannot be unpacked"),
    ],
)  # fmt: skip
def test_hostile_backups(file: Path, tmp_path: Path, change: Any, text: str) -> None:
    backup, data = tmp_path / "x.snlbackup", tmp_path / "y" / "data"
    rewritten(file, backup, change)
    if not text:
        check(backup)
        restore(backup, data)
        return
    with pytest.raises(SnlError) as caught:
        restore(backup, data)
    assert text in said(caught)
    assert [path.name for path in tmp_path.iterdir() if path.name != "y"] == ["x.snlbackup"]
    assert list((tmp_path / "y").iterdir()) == []


def test_links_and_devices_in_a_tar_file_are_refused(file: Path, tmp_path: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
        backup = tmp_path / "x.snlbackup"
        shutil.copy(file, backup)
        with tarfile.open(file) as tar:
            first = tar.next()
            assert first is not None
            about = tar.extractfile(first).read()  # type: ignore[union-attr]
        with tarfile.open(backup, "w") as tar:
            info = tarfile.TarInfo(archive.ABOUT)
            info.size = len(about)
            tar.addfile(info, io.BytesIO(about))
            info = tarfile.TarInfo("tables/audit.jsonl.gz")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        with pytest.raises(SnlError) as caught:
            restore(backup, tmp_path / "data")
        assert "damaged" in said(caught) or "not a backup" in said(caught)
        assert not (tmp_path / "data").exists()


def test_the_command_line(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backup, data = tmp_path / "sub" / "a.snlbackup", tmp_path / "data"
    assert main(["backup", str(backup), "--data", str(service.data)]) == 0
    first = capsys.readouterr().err
    assert "1 versions of models" in first and "backup:" in first  # a bar
    assert backup.stat().st_mode & 0o777 == 0o600
    assert main(["backup", "--check", str(backup), "--quiet"]) == 0
    assert "complete" in capsys.readouterr().err
    assert main(["restore", str(backup), "--data", str(data), "--quiet"]) == 0
    assert "snl serve --data" in capsys.readouterr().err
    assert main(["restore", str(backup), "--data", str(data), "--quiet"]) == 2
    assert "is not empty" in capsys.readouterr().err
    with service.store.reading() as session:
        assert session.query(InspectionRow).count() == archive_rows(backup, "inspections")


def archive_rows(backup: Path, table: str) -> int:
    """Rows of a table in a backup, read without snl."""
    with tarfile.open(backup) as tar:
        member = tar.extractfile(f"tables/{table}.jsonl.gz")
        assert member is not None
        return len(gzip.decompress(member.read()).splitlines())
