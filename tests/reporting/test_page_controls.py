"""The report in a real browser: the unknown-product rate, the bar that stays, and barriers."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import snl
from snl.decision.decide import judge
from snl.evaluation.result import Evaluation
from snl.reporting.collect import report as report_on
from snl.reporting.page import write_page
from tests.reporting.browser import Page
from tests.station.test_views import axe, violations
from tests.trees import save_varied

SIZES = ((1440, 900), (1024, 600), (420, 800))


@pytest.fixture(scope="module")
def inspector(calibrated: Path) -> snl.Inspector:
    """An inspector that calls some images an unknown product."""
    return snl.load(calibrated, "cpu")


@pytest.fixture(scope="module")
def evaluated(
    inspector: snl.Inspector, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Evaluation]:
    """The report on sixty images, and its evaluation."""
    root = tmp_path_factory.mktemp("evaluated")
    for n, product in itertools.product(range(15), ("bolt", "plate")):
        for kind in ("good", "dent"):
            path = root / f"data/{product}/test/{kind}/{n:02}.png"
            save_varied(path, 9000 + n, defect=kind == "dent", product=product)
    save_varied(root / "data/bolt/train/good/0.png", 1)
    save_varied(root / "data/plate/train/good/0.png", 2, product="plate")
    page = root / "report.html"
    return page, report_on(inspector, root / "data", page)


def decisions(
    inspector: snl.Inspector, evaluation: Evaluation, **rates: float
) -> Counter[tuple[str, str]]:
    """Return the number of images by label and decision, judged again at other rates."""
    calibration = inspector.calibration
    counts: Counter[tuple[str, str]] = Counter()
    for image in evaluation.scores:
        verdict = image.verdict
        assert verdict is not None
        again = judge(
            calibration,
            verdict.score,
            verdict.recognised,
            verdict.distance,
            rates=dataclasses.replace(calibration.rates, **rates),
            second=verdict.second_distance or float("inf"),
            strangeness=verdict.strangeness,
        )
        counts[str(image.label), again.decision] += 1
    return counts


DECISIONS = {
    ("normal", "pass"): "normal",
    ("normal", "false_alarm"): "anomalous",
    ("anomalous", "miss"): "normal",
    ("anomalous", "hit"): "anomalous",
}


def shown(page: Page) -> Counter[tuple[str, str]]:
    """Return the number of images by label and decision, as the page counts them."""
    names = {"uncertain": "uncertain", "unknown": "unknown product"}
    return Counter(
        {
            (kind, DECISIONS.get((kind, key)) or names[key]): n
            for (kind, key), n in page.summary().items()
        }
    )


def test_decisions_at_other_rates_are_those_of_python(
    page: Page, inspector: snl.Inspector, evaluated: tuple[Path, Evaluation]
) -> None:
    """Also below the rates that the calibration images allow: of unknown products the smallest
    possible rate is used, and of anomalous ones nothing can be decided."""
    path, evaluation = evaluated
    page.open(path)
    unknown = set()
    for rate, uncertain, strange in (
        (0.05, 0.1, 0.01),
        (0.05, 0.1, 0.001),
        (0.2, 0.3, 0.12),
        (0.05, 0.1, 0.5),
        (0.002, 0.1, 0.02),
        (0.002, 0.3, 0.5),
    ):
        page.enter("#rate-number", 100 * rate)
        page.enter("#uncertain-number", 100 * uncertain)
        page.enter("#unknown-number", 100 * strange)
        assert page.rate("unknown") == pytest.approx(strange)
        expected = decisions(
            inspector, evaluation, anomalous=rate, uncertain=uncertain, unknown=strange
        )
        assert shown(page) == expected, (rate, uncertain, strange)
        unknown.add(
            expected["normal", "unknown product"] + expected["anomalous", "unknown product"]
        )
    assert len(unknown) > 2  # the rate makes a difference


def test_the_unknown_rate_is_in_the_address_and_in_the_curves(
    page: Page, demo: Any, demo_file: Path
) -> None:
    _, images = demo
    page.open(demo_file)
    line = "#tradeoff .line.detection"
    (before,) = page.all(line, "n.getAttribute('points')")
    page.js("document.getElementById('unknown').focus()")
    page.keys("\ue010")  # End
    assert page.rate("unknown") == 0.5 and "unknown=0.5" in page.driver.current_url
    (after,) = page.all(line, "n.getAttribute('points')")
    assert before != after
    expected = sum(i.unknown_p <= 0.5 for i in images)
    page.click("#chips [data-outcome='unknown']")
    assert page.count() == expected
    page.open(demo_file, after="#unknown=0.5&outcome=unknown")
    assert page.count() == expected
    page.click("#reset")
    assert page.rate("unknown") == 0.01 and "#" not in page.driver.current_url


def test_without_recognition_there_is_no_unknown_rate(
    page: Page, demo: Any, tmp_path: Path
) -> None:
    data, images = demo
    given = [dataclasses.replace(i, unknown_p=None, recognised=None) for i in images[:5]]
    page.open(write_page(tmp_path / "given.html", data, given))
    assert not page.element("#unknown").is_displayed()


@pytest.mark.parametrize(("width", "height"), [*SIZES, (1440, 400)])
def test_the_bar_that_stays_is_never_cut_off(
    page: Page, demo_file: Path, width: int, height: int
) -> None:
    """While the page scrolls, the slider is wholly inside the window, or scrolls away with it."""
    page.open(demo_file, width, height)
    box = "return document.getElementById('rate').closest('.control').getBoundingClientRect().%s"
    for selector in ("#outcomes", "#scores", "#curves", "#gallery-title", "#provenance"):
        page.scroll_to(selector)
        top, bottom = page.js(box % "top"), page.js(box % "bottom")
        if height < 460:
            assert selector == "#outcomes" or bottom < 0  # that one is just below the bar
            continue
        assert top >= 0 and bottom <= 0.4 * height, selector
        inside = page.js(
            "const n = document.getElementById('rate'), b = n.getBoundingClientRect();"
            "return document.elementFromPoint(b.left + 3, b.top + b.height / 2) === n"
        )
        assert inside
    overflow = "const d = document.documentElement; return d.scrollWidth - d.clientWidth"
    assert page.js(overflow) == 0


@pytest.mark.parametrize(
    ("width", "height", "dark"), [(1440, 900, False), (1024, 600, True), (420, 800, False)]
)
def test_the_page_has_no_barriers(
    page: Page, demo: Any, tmp_path: Path, width: int, height: int, dark: bool
) -> None:
    """By axe-core: the page with images near the window, and the open dialog."""
    data, images = demo
    path = write_page(tmp_path / "few.html", data, images[:: len(images) // 6])
    script = axe()
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    try:
        page.open(path, width, height)
        page.scroll_to("#gallery-title")
        page.js("document.querySelector('#gallery .card').focus()")
        page.keys("c")
        assert violations(page, script) == []  # type: ignore[arg-type]
        if dark:
            page.keys("\ue007")
            assert page.js("return document.getElementById('view').open")
            page.js("for (const n of document.querySelectorAll('main, header')) n.hidden = true")
            assert violations(page, script) == []  # type: ignore[arg-type]
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
