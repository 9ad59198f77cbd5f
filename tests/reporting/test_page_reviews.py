"""The report in a real browser: verdicts by key and button, kept, saved, and taken by calibrate."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import snl
from snl.cli.main import main
from snl.reporting.collect import report as report_on
from snl.reporting.page import write_page
from snl.reporting.reviews import Review, file_sha256, read_reviews
from tests.reporting.browser import Page
from tests.reporting.made_up import HOSTILE, many, report
from tests.trees import save_varied

LEFT, RIGHT, ENTER, ESCAPE, DELETE = "\ue012", "\ue014", "\ue007", "\ue00c", "\ue017"
ALARM, NORMAL, MISS = 0.01, 0.5, 0.6


@pytest.fixture(autouse=True)
def nothing_kept(request: pytest.FixtureRequest) -> Iterator[None]:
    """Remove what the browser keeps, before and after a test that uses it."""
    page = request.getfixturevalue("page") if "page" in request.fixturenames else None
    if page is not None and page.driver.current_url.startswith("file:"):
        page.js("localStorage.clear()")
    yield
    if page is not None:
        page.js("localStorage.clear()")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A report of three images: a false alarm, one that passes, a miss; hostile names."""
    _, stream = many(3)
    template = next(stream)
    names = ("a/1.png", f"b/{HOSTILE}.png", "c/3.png")
    images = [
        dataclasses.replace(template, path=path, p_value=p, label=label, sha256=None)
        for path, p, label in zip(
            names, (ALARM, NORMAL, MISS), ("normal", "normal", "anomalous"), strict=True
        )
    ]
    data = report(images, {template.product: [1.0] * 30}, title=f"parts {HOSTILE}")
    data = dataclasses.replace(data, reviews={"network": "net", "calibration": "then"})
    return write_page(tmp_path / "report.html", data, images)


def verdicts(page: Page) -> list[str]:
    """Return the verdicts on the gallery's cards, by path."""
    return page.all("#gallery .card .verdict", "n.textContent")


def save(page: Page, folder: Path) -> Path:
    """Save the reviews by the page's button, and return the file."""
    folder.mkdir(exist_ok=True)
    page.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)}
    )
    page.click("#review-save")
    for _ in range(100):
        files = [path for path in folder.iterdir() if path.suffix == ".json"]
        if files:
            return files[0]
        time.sleep(0.05)
    raise AssertionError("nothing was downloaded")


def focus_first(page: Page) -> None:
    page.scroll_to("#gallery-title")
    page.js("document.querySelector('#gallery .card').focus()")


def test_verdicts_by_key_are_kept_and_saved(page: Page, small: Path, tmp_path: Path) -> None:
    page.open(small, after="#order=path")
    assert not page.element("#review-save").is_enabled()
    focus_first(page)
    page.keys("n", RIGHT, "a")
    assert verdicts(page) == ["reviewed: false alarm", "reviewed: miss", ""]
    page.keys(RIGHT, ENTER, "c", LEFT, LEFT)  # in the dialogue
    pressed = "#view-verdicts [aria-pressed=true]"
    assert page.all(pressed, "n.dataset.verdict") == ["false alarm"]
    page.keys("a")  # it was called anomalous, so it is no miss
    assert page.all(pressed, "n.dataset.verdict") == ["false alarm"]
    page.keys(RIGHT, DELETE)
    assert page.all(pressed, "n.dataset.verdict") == []
    page.click("#view-verdicts [data-verdict=correct]")
    page.keys(ESCAPE)
    expected = ["reviewed: false alarm", "reviewed: correct", "reviewed: correct"]
    assert verdicts(page) == expected
    page.open(small, after="#order=path")  # as after a restart of the browser
    page.scroll_to("#gallery-title")
    assert verdicts(page) == expected
    assert page.text("#review-count") == "3 images reviewed: 2 correct, 1 false alarm, 0 misses."
    label = page.all("#gallery .card", "n.ariaLabel")[0]
    assert label.endswith("; reviewed: false alarm")

    path = save(page, tmp_path / "downloads")
    assert path.name.startswith("reviews-parts-") and "<" not in path.name
    content = json.loads(path.read_text("utf-8"))
    assert content["format"] == "snl reviews" and content["version"] == 1
    assert content["network"] == "net" and content["title"].startswith("parts </script>")
    hostile = f"b/{HOSTILE}.png".replace("\udcff", "\\udcff")
    read = read_reviews(path)
    assert (read.network, read.calibration) == ("net", "then")
    assert read.reviews == (
        Review("a/1.png", "product 000", "false alarm"),
        Review(hostile, "product 000", "correct"),
        Review("c/3.png", "product 000", "correct"),
    )
    assert [review["decision"] for review in content["reviews"]] == [
        *("anomalous", "normal", "normal")
    ]


def test_verdicts_of_another_report_are_not_shown(page: Page, small: Path, tmp_path: Path) -> None:
    page.open(small, after="#order=path")
    focus_first(page)
    page.keys("c")
    _, stream = many(3)
    images = list(stream)
    other = report(images, {"product 000": [1.0] * 30})
    page.open(write_page(tmp_path / "other.html", other, images))
    page.scroll_to("#gallery-title")
    assert set(verdicts(page)) == {""}
    page.open(small)
    page.js("window.confirm = () => true")
    page.click("#review-clear")
    assert page.text("#review-count") == "No image is reviewed yet."
    assert page.js("return localStorage.length") == 0


def test_foreign_verdicts_in_the_store_are_ignored(page: Page, small: Path) -> None:
    page.open(small)
    key = page.js(
        "return 'snl reviews ' + JSON.parse(document.getElementById('data').textContent)"
        ".reviews.report"
    )
    for stored in ("{", "[1]", '{"0":"__proto__","9":"miss","-1":"miss"}', "7"):
        page.js("localStorage.setItem(arguments[0], arguments[1])", key, stored)
        page.js("dispatchEvent(new StorageEvent('storage', {key: arguments[0]}))", key)
        assert page.text("#review-count") == "No image is reviewed yet."
    page.open(small)
    assert page.text("#review-count") == "No image is reviewed yet."


def test_from_the_page_to_the_calibration(
    page: Page, calibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A report of a real inspector; what was reviewed in the page changes its calibration."""
    file = Path(shutil.copy(calibrated, tmp_path / "parts.snl"))
    inspector, root = snl.load(file, "cpu"), tmp_path / "my parts"
    save_varied(root / "bolt/train/good/0.png", 1)
    for n in range(60):
        save_varied(root / f"bolt/test/good/{n:02}.png", 5000 + n)
    evaluation = report_on(inspector, root, tmp_path / "report.html", products_given=True)
    flagged = [s for s in evaluation.scores if s.verdict and s.verdict.decision == "anomalous"]
    assert flagged
    page.open(tmp_path / "report.html", after="#outcome=false_alarm&order=path")
    focus_first(page)
    page.keys("n")
    path = save(page, tmp_path / "downloads")
    image = flagged[0].path
    place = image.relative_to(root).as_posix()
    read = read_reviews(path)
    assert read.reviews == (Review(place, "bolt", "false alarm", file_sha256(image)),)
    assert read.network == inspector.predictor.metadata.network
    assert read.calibration == inspector.calibration.created
    line = ["calibrate", str(file), "--reviews", str(path), "--data", str(root), "--quiet"]
    assert main(line) == 0
    assert f"{image}: normal image of bolt from now on" in capsys.readouterr().err
    before, after = (i.calibration.sets for i in (inspector, snl.load(file, "cpu")))
    assert len(after["bolt"]) == len(before["bolt"]) + 1
    assert after["bolt"].scores.max() == pytest.approx(flagged[0].score, rel=1e-3)


def test_the_report_of_an_evaluation_has_details_and_hashes(
    calibrated: Path, tmp_path: Path
) -> None:
    """Thumbnails come from the file, not from the network's small input."""
    root = tmp_path / "data"
    save_varied(root / "bolt/train/good/0.png", 1)
    image = save_varied(root / "bolt/test/good/0.png", 2)
    large = tmp_path / "report.html"
    Image.open(image).resize((900, 600)).save(image)
    report_on(snl.load(calibrated, "cpu"), root, large)
    text = large.read_text("utf-8")
    block: list[Any] = json.loads(text.split('id="p0">')[1].split("</script>")[0])
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert data["images"]["sha256"] == [file_sha256(image)]
    assert len(block) == 5 and block[4][2:] == pytest.approx([160 / 900, 160 / 600], abs=1e-4)
