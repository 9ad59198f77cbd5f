"""From an empty page to the first reviewed alarm, with the default network."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

import snl
from tests.service.conftest import starting
from tests.station.conftest import Station

MINUTES, CLICKS = 5, 12


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated parts; the first product is used."""
    folder = tmp_path_factory.mktemp("demo") / "parts"
    snl.make_demo(folder)
    return next(path for path in sorted(folder.iterdir()) if path.is_dir())


def test_from_the_empty_page_to_the_first_reviewed_alarm(
    page: Station, parts: Path, tmp_path: Path
) -> None:
    """What a newcomer does with the page alone; clicks in the file dialog count as one each."""
    normals = sorted(parts.glob("train/good/*"))[:40]
    new = [next(iter(sorted(kind.iterdir()))) for kind in sorted((parts / "test").iterdir())]
    log: list[tuple[float, str]] = []
    with starting(tmp_path) as begin:
        began = time.monotonic()

        def step(text: str) -> None:
            log.append((round(time.monotonic() - began, 1), text))

        server = begin(None)
        page.connect(server.url)
        page.open()
        page.sees("Three steps to your first review")
        step("the page is open")
        page.click("Teach a product")
        page.sees("Name of the product")
        page.click("Name of the product", "label")
        page.keys(parts.name)
        page.steps.append("click Choose images…")  # a file dialog cannot be driven
        page.steps.append("click Open, in the file dialog")
        chooser = page.driver.find_element("css selector", ".drop input[type=file]")
        chooser.send_keys("\n".join(map(str, normals)))
        page.sees(f"{len(normals)} images")
        page.until(lambda: page.all(".messages") or "stands out" in page.text(), "the check", 90)
        step("images are uploaded and checked")
        page.click("Short training", "label")
        page.click("Train", "main button.primary")
        page.until(lambda: page.all(".job-state"), "the job")
        page.until(lambda: "Look at the result" in page.text(), "the training", 1200)
        step("trained")
        page.click("Look at the result", "a")
        page.sees("Held-back images")
        page.click("Promote", "main button")
        page.click("Promote")
        page.sees("This version decides now")
        step("promoted")
        page.keys("1")
        page.sees("2. Send images")
        page.steps.append("click Choose images…")
        page.steps.append("click Open, in the file dialog")
        page.find(".view-title .file-button")
        page.driver.find_element("css selector", ".view-title input[type=file]").send_keys(
            "\n".join(map(str, new))
        )
        page.until(lambda: page.all(".alarms .card"), "an alarm", 60)
        page.click("", ".alarms .card")  # the first one
        page.until(lambda: page.all(".verdict"), "the alarm")
        page.keys("d")
        page.until(lambda: page.all('.verdict[aria-pressed="true"]'), "reviewed")
        step("the first alarm is reviewed")
        seconds = time.monotonic() - began
        with server.client() as client:
            found = client.get("/v1/inspections?review=confirmed").json()["inspections"]
            assert len(found) == 1
        errors, _ = page.logs()
        assert errors == []
    clicks = [one for one in page.steps if one.startswith("click")]
    if where := os.environ.get("SNL_FIRST_MINUTES"):
        document = {"seconds": round(seconds, 1), "clicks": len(clicks), "log": log,
                    "steps": page.steps, "cores": os.cpu_count()}  # fmt: skip
        Path(where).write_text(json.dumps(document, indent=1) + "\n")
    assert len(clicks) <= CLICKS, page.steps
    slow = float(os.environ.get("SNL_SLOW", "5"))
    assert seconds < 60 * MINUTES * slow
