"""Inspections as CSV and Parquet, read by other programs."""

from __future__ import annotations

import csv
import io
import json
import random
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from snl.service import tabular
from snl.service.access import create
from snl.service.service import Service
from snl.service.store import Filter, StoreError
from snl.service.tables import InspectionRow, ReviewRow
from tests.service.in_process import client_of, service_of
from tests.service.rows import START, inspection, model

COUNT = 2300
"""More than two pages."""
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", '=HYPERLINK("http://x")')
COLUMNS = {
    "id": "string", "created": "timestamp[us, tz=UTC]", "name": "string", "part": "string",
    "client": "string", "product": "string", "product_from": "string", "decision": "string",
    "score": "double", "p_value": "double", "threshold": "double", "regions": "string",
    "model": "string", "version": "int64", "model_id": "string", "network": "string",
    "calibration": "string", "review": "string", "review_note": "string", "review_by": "string",
    "reviewed": "timestamp[us, tz=UTC]", "image_sha256": "string", "bytes": "int64",
}  # fmt: skip
"""As documented: others read them by these names."""


@pytest.fixture(scope="module")
def service(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service_of(tmp_path_factory.mktemp("data"), calibrated) as service:
        draw = random.Random(3)
        rows = []
        for n in range(COUNT):
            regions = [{"box": [n, 1, 2, 3], "area": 6, "peak": n / 3}] if n % 3 == 0 else []
            values: dict[str, Any] = {
                "result": {"product_from": "given", "threshold": n / 9, "regions": regions},
                "product": ("bolt", "plate")[n % 2],
                "part": f"p {n % 5}" if n % 4 else "",
                "model": f"{n % 3 + 1:032x}",
                "p_value": None if n % 7 else draw.random(),
                "name": FORMULAS[n // 100] if n % 100 == 7 and n < 800 else f'Teil,"é" {n}.png',
                "score": -draw.random() * 10,
            }
            rows.append(inspection(n, **values))
        reviews = [
            ReviewRow(
                inspection=rows[n].id, created=START + timedelta(days=1, seconds=k), who=f"who {k}",
                verdict=("miss", "confirmed")[k % 2], note=f"=note {n}, {k}", regions=[],
            )
            for n in range(0, COUNT, 50)
            for k in range(n % 3 + 1)
        ]  # fmt: skip
        for review in reviews:
            rows[int(review.inspection[16:], 16)].review = review.verdict
        with service.store.writing() as session:
            session.add_all([model(1), model(2), *rows])
        with service.store.writing() as session:
            session.add_all(reviews)
        yield service


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with client_of(service) as client:
        yield client


def expected(n: int) -> dict[str, Any]:
    """The row of the table for inspection `n`, from what the fixture has stored."""
    k = n % 3
    reviewed = n % 50 == 0
    versions = {1: "parts", 2: "parts"}
    return {
        "name": FORMULAS[n // 100] if n % 100 == 7 and n < 800 else f'Teil,"é" {n}.png',
        "created": START + timedelta(minutes=n),
        "part": f"p {n % 5}" if n % 4 else "",
        "product": ("bolt", "plate")[n % 2],
        "threshold": n / 9,
        "model": versions.get(n % 3 + 1),
        "version": n % 3 + 1 if n % 3 + 1 in versions else None,
        "review": ("miss", "confirmed")[k % 2] if reviewed else None,
        "review_note": f"=note {n}, {k}" if reviewed else None,
        "review_by": f"who {k}" if reviewed else None,
        "reviewed": START + timedelta(days=1, seconds=k) if reviewed else None,
        "bytes": 10,
    }


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_csv_against_the_rows(client: httpx.Client) -> None:
    answer = client.get("/v1/inspections.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "inspections.csv" in answer.headers["content-disposition"]
    rows = read_csv(answer.content.decode("utf-8"))
    assert list(rows[0]) == list(COLUMNS)
    assert [row["id"] for row in rows] == [inspection(n).id for n in range(COUNT)]
    for n, row in enumerate(rows):
        for name, value in expected(n).items():
            cell = row[name]
            if isinstance(value, datetime):
                assert datetime.fromisoformat(cell) == value and cell.endswith("Z")
            elif isinstance(value, float):
                assert float(cell) == value
            elif value is None:
                assert cell == ""
            else:
                text = str(value)
                assert cell == (f"'{text}" if text[:1] in tuple("=+-@\t\r\n") else text)
        assert float(row["score"]) <= 0  # a number stays a number
        boxes = [region["box"] for region in json.loads(row["regions"])]
        assert boxes == ([[n, 1, 2, 3]] if n % 3 == 0 else [])
    dangerous = [c for row in rows for c in row.values() if c[:1] in tuple("=+@\t\r\n")]
    assert not dangerous and sum(row["name"].startswith("'") for row in rows) == 8


def test_parquet_against_the_rows(client: httpx.Client) -> None:
    answer = client.get("/v1/inspections.parquet")
    file = pq.ParquetFile(io.BytesIO(answer.content))
    schema = file.schema_arrow
    assert {field.name: str(field.type) for field in schema} == COLUMNS
    assert file.num_row_groups == 3
    rows = file.read().to_pylist()
    assert [row["id"] for row in rows] == [inspection(n).id for n in range(COUNT)]
    for n, row in enumerate(rows):
        assert {name: row[name] for name in expected(n)} == expected(n)
    same = read_csv(client.get("/v1/inspections.csv").text)
    assert [row["score"] for row in rows] == [float(row["score"]) for row in same]
    assert [row["p_value"] for row in rows] == [
        float(row["p_value"]) if row["p_value"] else None for row in same
    ]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"product": "plate"}, lambda n: n % 2 == 1),
        ({"part": "p 3", "product": "bolt"}, lambda n: n % 4 and n % 5 == 3 and n % 2 == 0),
        ({"model": "parts"}, lambda n: n % 3 < 2),
        ({"model": f"{2:032x}"}, lambda n: n % 3 == 1),
        ({"review": "confirmed"}, lambda n: n % 50 == 0 and n % 3 == 1),
        ({"review": "none"}, lambda n: n % 50 != 0),
        ({"since": "2026-03-01T14:00:00+01:00", "until": "2026-03-01T14:00:00Z"},
         lambda n: 60 <= n < 120),
        ({"decision": "anomalous"}, lambda n: False),
    ],
)  # fmt: skip
def test_filters(client: httpx.Client, query: dict[str, str], wanted: Any) -> None:
    ids = [inspection(n).id for n in range(COUNT) if wanted(n)]
    assert [
        row["id"] for row in read_csv(client.get("/v1/inspections.csv", params=query).text)
    ] == (ids)
    content = client.get("/v1/inspections.parquet", params=query).content
    table = pq.read_table(io.BytesIO(content))
    assert table["id"].to_pylist() == ids and table.schema.names == list(COLUMNS)


def test_wrong_queries_and_callers(service: Service, client: httpx.Client) -> None:
    for path in ("/v1/inspections.csv", "/v1/inspections.parquet"):
        for query in ({"decision": "maybe"}, {"since": "yesterday"}, {"part": "x" * 300}):
            assert client.get(path, params=query).status_code == 422
        assert client.post(path).status_code in (405, 411)
        with client_of(service, open=False) as other:
            assert other.get(path).status_code == 401
            token = create(service.store, "reader", "read")
            headers = {"Authorization": f"Bearer {token}"}
            assert other.get(path, headers=headers).status_code == 200
    assert client.get("/v1/inspections.txt").status_code == 404


def test_pyarrow_is_missing(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    answer = client.get("/v1/inspections.parquet")
    assert answer.status_code == 501 and "snl-ad[parquet]" in answer.json()["error"]["message"]
    assert client.get("/v1/inspections.csv").status_code == 200


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_store_that_fails_in_the_middle_is_no_short_table(
    service: Service, client: httpx.Client, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    calls, real = [0], service.store.list

    def failing(which: Filter, most: int) -> Sequence[InspectionRow]:
        calls[0] += 1
        if calls[0] == good:
            raise StoreError("the disk is gone")
        return real(which, most)

    monkeypatch.setattr(service.store, "list", failing)
    good = 1
    assert client.get(f"/v1/inspections.{suffix}").status_code == 503
    calls[0], good = 0, 3
    with pytest.raises(httpx.TransportError):
        client.get(f"/v1/inspections.{suffix}")
    assert calls[0] == 3


def test_pages_are_read_when_they_are_sent(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded: of many pages, those that nobody took are not read."""
    calls, real = [0], service.store.list

    def counting(which: Filter, most: int) -> Sequence[InspectionRow]:
        calls[0] += 1
        assert most == tabular.PAGE
        return real(which, most)

    monkeypatch.setattr(service.store, "list", counting)
    for form in (tabular.csv_of, tabular.parquet_of):
        calls[0] = 0
        pieces = form(tabular.pages(service.store, Filter()))
        next(pieces)
        assert calls[0] == 1
        next(pieces)
        assert calls[0] == 2


def test_what_comes_after_the_begin_is_left_out(service: Service) -> None:
    now = START + timedelta(minutes=40)
    (rows,) = tabular.pages(service.store, Filter(), now)
    assert len(rows) == 40
    until = START + timedelta(minutes=20)
    (rows,) = tabular.pages(service.store, Filter(until=until), now)
    assert len(rows) == 20
