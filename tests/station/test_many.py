"""A store of 100,000 inspections, and eight stations at once.

The times are those of a page on a machine that does nothing else; this test allows
SNL_SLOW times as much (default 5), because other tests may run beside it. SNL_STATION_TIMES=FILE
writes them (docs/results/station-times.json).
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import insert

from snl.service.server import open_store
from snl.service.tables import InspectionRow
from tests.service import rows
from tests.service.conftest import Server, starting
from tests.station.conftest import Station, send

ROWS = 100_000
SLOW = float(os.environ.get("SNL_SLOW", "5"))
FIRST_VIEW, CHANGE = 1.0, 0.2
"""Seconds: until the first view is complete, and until a filter or a page of the list is."""


@pytest.fixture(scope="module")
def full(trained: Path, plant: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose store has ROWS inspections, with the images of a few."""
    with starting(tmp_path_factory.mktemp("full")) as begin:
        server = begin(trained)
        with server.client() as client:
            real = [send(client, path) for path in sorted(plant.glob("*/test/*/*.png"))]
        server.stop()
        store = open_store(server.data, None)
        start = datetime.now(UTC) - timedelta(days=25)
        with store.reading() as session:
            templates = [session.get_one(InspectionRow, one["id"]) for one in real]
        columns = [column.key for column in InspectionRow.__table__.columns]
        values = []
        for n in range(ROWS):
            template = templates[n % len(templates)]
            one = {name: getattr(template, name) for name in columns}
            minute = rows.inspection(n)
            one |= {
                "id": minute.id, "created": start + timedelta(seconds=21 * n),
                "name": minute.name, "seen": start, "part": f"part {n // 3}",
                "review": ("confirmed", None, None)[n % 3],
                "decision": "normal" if n % 20 else template.decision,
            }  # fmt: skip
            values.append(one)
        with store.writing() as session:
            for n in range(0, ROWS, 5000):
                session.execute(insert(InspectionRow), values[n : n + 5000])
        store.close()
        yield begin(None, data=server.data)


def timed(page: Station, script: str) -> float:
    """Seconds until a promise of the page is kept."""
    page.js("return 0")
    return float(
        page.driver.execute_async_script(
            "const done = arguments[0], began = performance.now();"
            f"(async () => {{ {script} }})().then(() => done((performance.now() - began) / 1000))"
        )
    )


WAIT = """
const until = async (test) => { for (let n = 0; n < 2000 && !test(); n += 1)
  await new Promise((next) => setTimeout(next, 5)); };
"""


def measured(page: Station, server: Server) -> dict[str, float]:
    """Times of what a person does, in seconds."""
    page.connect(server.url)
    found: dict[str, float] = {}
    for view in ("live", "review?queue=all", "figures"):
        page.driver.get("about:blank")
        began = time.monotonic()
        page.driver.get(f"{page.url}/#/{view}")
        page.settle()
        found[f"first view: {view}"] = time.monotonic() - began
    page.open("review?queue=all")
    cards = "document.querySelectorAll('.queue .card')"
    for name, action in {
        "filter: alarms": "document.querySelectorAll('.filters .chip')[1].click();",
        "filter: nearly flagged": "document.querySelectorAll('.filters .chip')[4].click();",
        "filter: everything": "document.querySelectorAll('.filters .chip')[5].click();",
        "filter: product": "const s = document.querySelectorAll('.filters select')[0];"
        "s.value = 'bolt'; s.dispatchEvent(new Event('change'));",
    }.items():
        change = (
            f"{WAIT} const before = {cards}[0]; {action} await until(() => {cards}[0] !== before);"
        )
        found[name] = min(timed(page, change) for _ in range(2)) if "product" not in name else (
            timed(page, change)
        )  # fmt: skip
    found["scroll: next page"] = max(
        timed(
            page,
            f"{WAIT} const n = {cards}.length, q = document.querySelector('.queue');"
            f"q.scrollTop = q.scrollHeight; await until(() => {cards}.length > n);",
        )
        for _ in range(8)
    )
    found["next image"] = timed(
        page,
        f"{WAIT} const before = document.querySelector('.inspection');"
        "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'j', bubbles: true}));"
        "await until(() => document.querySelector('.inspection') !== before);",
    )
    return found


def test_a_full_store_is_as_quick_as_an_empty_one(page: Station, full: Server) -> None:
    with full.client() as client:
        stats = client.get("/v1/stats").json()
    assert stats["total"] >= ROWS
    found = measured(page, full)
    if where := os.environ.get("SNL_STATION_TIMES"):
        document = {"rows": ROWS, "seconds": found, "machine": {"cores": os.cpu_count()}}
        Path(where).write_text(json.dumps(document, indent=1) + "\n")
    limits = {name: FIRST_VIEW if name.startswith("first") else CHANGE for name in found}
    late = {name: f"{one:.3f} s" for name, one in found.items() if one > SLOW * limits[name]}
    assert late == {}, found
    errors, _ = page.logs()
    assert errors == []


def test_eight_stations_get_every_inspection(full: Server, plant: Path) -> None:
    counts: list[set[str]] = [set() for _ in range(8)]
    ready, wanted = threading.Barrier(9), threading.Event()

    def follow(number: int) -> None:
        with httpx.stream("GET", f"{full.url}/v1/events", timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            ready.wait(30)
            for line in lines:
                if line.startswith("id: "):
                    counts[number].add(line[4:])
                if wanted.is_set() or len(counts[number]) == 20:
                    return

    threads = [threading.Thread(target=follow, args=(n,), daemon=True) for n in range(8)]
    for thread in threads:
        thread.start()
    ready.wait(30)
    images = sorted(plant.glob("*/test/*/*.png"))
    with full.client() as client:
        sent = {send(client, images[n % len(images)], name=f"{n}.png")["id"] for n in range(20)}
        seconds: list[Any] = []
        for _ in range(20):  # the service still answers others at once
            began = time.monotonic()
            client.get("/v1/inspections?limit=60").raise_for_status()
            seconds.append(time.monotonic() - began)
    for thread in threads:
        thread.join(30)
    wanted.set()
    assert counts == [sent] * 8
    assert sorted(seconds)[10] < SLOW * CHANGE
