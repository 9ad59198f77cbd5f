"""The store in SQLite and in PostgreSQL: the same behaviour, also when it goes away."""

from __future__ import annotations

import hashlib
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.engine import make_url

from snl.cli.main import main
from snl.errors import SnlError
from snl.service.access import caller_of, create
from snl.service.database import make_engine
from snl.service.store import DuplicateError, Filter, Store, StoreError, sqlite_url
from snl.service.tables import Base, ReviewRow
from tests.service.conftest import Server, Start, post
from tests.service.in_process import client_of, service_of
from tests.service.postgresql import Cluster
from tests.service.rows import START, inspection, model
from tests.trees import save_varied

# --- tables ---


@pytest.fixture(params=["sqlite", "postgresql"])
def own_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a store whose tables the test changes."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    cluster: Cluster = request.getfixturevalue("postgresql")
    return cluster.database()


def test_migrations_make_the_tables(own_url: str) -> None:
    store = Store(own_url)

    def differences() -> list[Any]:
        with store.engine.connect() as connection:
            return compare_metadata(MigrationContext.configure(connection), Base.metadata)

    assert differences() == []
    with store.engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit ADD COLUMN more INTEGER"))
        connection.execute(text("DROP INDEX ix_inspections_kept"))
    assert len(differences()) == 2
    store.close()


def test_one_process_at_a_time_makes_the_tables(own_url: str) -> None:
    other = make_engine(own_url)
    with ThreadPoolExecutor(1) as pool:
        with other.connect() as connection:
            if other.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7564908)")
            waiting = pool.submit(Store, own_url)
            time.sleep(0.5)
            assert not waiting.done()
            connection.rollback()
        store = waiting.result(30)
    store.check()
    store.close()
    other.dispose()


def test_a_newer_store_is_refused(own_url: str) -> None:
    store = Store(own_url)
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '999'"))
    store.close()
    with pytest.raises(StoreError, match="newer version of snl") as caught:
        Store(own_url)
    assert "\n" not in str(caught.value)


# --- rows ---

TEXTS = (
    *("", "Teil 5 ", "部品 🔩 é", "a'b\"c\\d;--", "%s %(x)s :y", "\u202e\ufeff\x01\x7f"),
    "x" * 300,
)


def test_rows_come_back_as_they_went(store: Store) -> None:
    rows = [
        inspection(
            n, name=name, score=score, p_value=score / 3, idempotency_key=f"{n}" + "k" * 284,
            result={"path": name, "deep": [{"a": [1, 2.5, None, True, "\x00"]}]},
        )
        for n, (name, score) in enumerate(
            zip(TEXTS, (0.1, 1e-300, -2.5, 1 / 3, 5e-324, 1.7976931348623157e308, 0.0), strict=True)
        )
    ]  # fmt: skip
    expected = {row.id: {**vars(row)} for row in rows}
    for future in [store.add(row) for row in rows]:
        future.result()
    for id, values in expected.items():
        found = store.inspection(id)
        assert found is not None
        for name in Base.metadata.tables["inspections"].columns.keys():  # noqa: SIM118
            assert getattr(found, name) == values[name], name
        assert found.created.utcoffset() == timedelta(0)
    assert store.by_key("3" + "k" * 284) is not None
    for odd in ("\x00", "a\x00b", "\x00" * 300):  # PostgreSQL stores no NUL
        row = inspection(100 + len(odd), name=odd)
        store.add(row).result()
        found = store.inspection(row.id)
        assert found is not None and found.name.replace("\ufffd", "\x00") == odd
        assert store.inspection(odd) is None and store.by_key(odd) is None
        assert store.list(Filter(product=odd), 10) == [] and store.token(odd) is None
        assert caller_of(store, f"snl_{odd[:5]}_x") is None


def test_filters_and_pages_against_a_list(store: Store) -> None:
    draw = random.Random(5)
    rows = [
        inspection(
            n,
            product=draw.choice(("bolt", "plate", "Bolt")),
            decision=draw.choice(("normal", "uncertain", "anomalous", "unknown product")),
            part=draw.choice(("", "p 1", "p%", "P 1")),
            model=draw.choice((f"{1:032x}", f"{2:032x}", "other")),
            review=draw.choice((None, "confirmed", "false alarm")),
        )
        for n in range(120)
    ]
    values = [dict(vars(row)) for row in rows]
    with store.writing() as session:
        session.add_all([model(1), model(2), *rows])
    draw.shuffle(values)
    for _ in range(60):
        since = draw.choice((None, START + timedelta(minutes=draw.randrange(120))))
        which = Filter(
            product=draw.choice(("", "bolt", "plate")),
            decision=draw.choice(("", "anomalous")),
            review=draw.choice(("", "none", "confirmed")),
            since=since,
            until=draw.choice((None, START + timedelta(minutes=draw.randrange(120)))),
            newest_first=draw.random() < 0.5,
            model=draw.choice(("", "parts", f"{2:032x}", "none")),
            part=draw.choice(("", "p 1", "p%")),
        )
        names = {"": None, "parts": {f"{1:032x}", f"{2:032x}"}}.get(which.model, {which.model})
        expected = [
            row["id"]
            for row in sorted(values, key=lambda row: row["id"], reverse=which.newest_first)
            if (not which.product or row["product"] == which.product)
            and (not which.decision or row["decision"] == which.decision)
            and (not which.review or (row["review"] or "none") == which.review)
            and (which.since is None or row["created"] >= which.since)
            and (which.until is None or row["created"] < which.until)
            and (names is None or row["model"] in names)
            and (not which.part or row["part"] == which.part)
        ]
        assert [row.id for row in store.list(which, 1000)] == expected
        if len(expected) > 3:
            after = Filter(**{**vars(which), "after": expected[2]})
            assert [row.id for row in store.list(after, 2)] == expected[3:5]


def test_a_key_that_was_used_fails_alone(store: Store) -> None:
    rows = [inspection(n, idempotency_key=f"key {n % 40}") for n in range(80)]
    futures = [store.add(row) for row in rows]  # together, so that they make groups
    failed = [n for n, future in enumerate(futures) if future.exception() is not None]
    assert len(failed) == 40 and {n % 40 for n in failed} == set(range(40))
    assert all(isinstance(futures[n].exception(), DuplicateError) for n in failed)
    assert sum(store.counts().values()) == 40


def test_a_commit_whose_answer_was_lost_counts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection dies after the commit: the row is there, and so it is acknowledged once."""
    writing, failures = store.writing, [2]

    @contextmanager
    def losing() -> Iterator[Any]:
        with writing() as session:
            yield session
        if failures[0]:
            failures[0] -= 1
            raise StoreError("the connection was lost")

    monkeypatch.setattr(store, "writing", losing)
    row = inspection(1)
    store.add(row).result(timeout=30)
    store.add(inspection(2)).result(timeout=30)
    store.add(inspection(3)).result(timeout=30)
    assert failures == [0] and sum(store.counts().values()) == 3


def test_the_writer_survives_every_error(store: Store) -> None:
    def fail(row: Any) -> Any:
        raise RuntimeError("a defect")

    store.events_of = fail
    with pytest.raises(RuntimeError):
        store.add(inspection(1)).result(timeout=30)
    store.events_of = lambda row: ()
    with pytest.raises((SnlError, ValueError)):
        store.add(inspection(2, name=1j)).result(timeout=30)
    store.add(inspection(3)).result(timeout=30)
    assert sum(store.counts().values()) == 1


def test_reviews_tokens_and_audit(store: Store) -> None:
    store.add(inspection(1)).result()
    id = inspection(1).id
    for verdict in ("miss", "confirmed"):
        done = ReviewRow(
            inspection=id, created=datetime.now(UTC), who="a", verdict=verdict, note="é", regions=[]
        )
        assert store.review(done)
    assert [row.verdict for row in store.reviews(id)] == ["miss", "confirmed"]
    row = store.inspection(id)
    assert row is not None and row.review == "confirmed"
    token = create(store, "a", "read")
    caller = caller_of(store, token)
    assert caller is not None and caller.name == "a"
    assert store.revoke(token.split("_")[1], "b") and caller_of(store, token) is None
    actions = [row.action for row in store.audits(0, 10)]
    assert actions == ["token revoke", "token create", "review", "review"]


def test_times_at_the_ends_of_the_calendar(store: Store) -> None:
    store.add(inspection(1)).result()
    for text_, count in (("0001-01-01T00:00:00+14:00", 1), ("9999-12-31T23:59:59-14:00", 0)):
        assert len(store.list(Filter(since=datetime.fromisoformat(text_)), 9)) == count


# --- a database that goes away ---


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    return [save_varied(folder / f"{n}.png", 9000 + n, product="bolt") for n in range(4)]


@pytest.mark.parametrize("address", ["postgresql://snl@/snl?host={}", "postgres://127.0.0.1:1/x"])
def test_no_database_is_one_line(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["token", "list", "--data", str(tmp_path), "--store", address.format(tmp_path)]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "the store cannot be opened" in line and "Traceback" not in line


def test_a_restart_of_the_database_loses_nothing(
    postgresql: Cluster, calibrated: Path, images: list[Path], tmp_path: Path
) -> None:
    url = postgresql.database()
    done: list[str] = []
    refused: list[httpx.Response] = []
    stop = threading.Event()

    def send(number: int) -> None:
        for n in range(10_000):
            if stop.is_set():
                return
            answer = post(client, images[n % 4], key=f"{number}-{n}")
            if answer.status_code == 200:
                done.append(answer.json()["results"][0]["inspection"]["id"])
            else:
                refused.append(answer)
                time.sleep(0.1)

    with service_of(tmp_path, calibrated, url=url) as service, client_of(service) as client:
        threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        try:
            _wait(lambda: len(done) >= 5)
            postgresql.stop("immediate")  # as if it was killed
            try:
                _wait(lambda: len(refused) > 8)
                for path in ("/readyz", "/v1/inspections", "/v1/stats", "/v1/inspections.csv"):
                    refused.append(client.get(path))
                    assert refused[-1].status_code == 503
                assert client.get("/healthz").status_code == 200
            finally:
                postgresql.start()
            before = len(done)
            _wait(lambda: len(done) >= before + 5)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert client.get("/readyz").status_code == 200
    for answer in refused:
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "store"
        assert str(postgresql.folder) not in answer.text
    name = make_url(url).database
    assert name is not None
    stored = [row[0] for row in postgresql.execute("SELECT id FROM inspections", name)]
    assert set(done) <= set(stored) and len(done) == len(set(done))


def test_what_was_answered_survives_kill_9_of_the_server(
    postgresql: Cluster, start: Start, calibrated: Path, images: list[Path]
) -> None:
    url = postgresql.database()
    server = start(calibrated, "--store", url)
    done: list[str] = []
    threads = [threading.Thread(target=_send, args=(server, images, done)) for _ in range(4)]
    for thread in threads:
        thread.start()
    _wait(lambda: len(done) >= 12)
    server.stop(signal.SIGKILL)
    for thread in threads:
        thread.join()
    name = make_url(url).database
    assert name is not None
    query = "SELECT id, image, prediction FROM inspections"
    rows = {id: files for id, *files in postgresql.execute(query, name)}
    for id in done:
        for file in rows[id]:
            content = (server.data / "files" / file[:2] / file[2:4] / file).read_bytes()
            assert hashlib.sha256(content).hexdigest() == file


def _send(server: Server, images: list[Path], done: list[str]) -> None:
    with server.client() as client:
        for n in range(10_000):
            try:
                answer = post(client, images[n % 4])
            except httpx.TransportError:
                return
            if answer.status_code == 200:
                done.append(answer.json()["results"][0]["inspection"]["id"])


def _wait(ready: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.01)
