"""The expected cost in the report, in a real browser: against a sum over the images in Python."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from snl.reporting.page import Shown, write_page
from tests.reporting.browser import Page
from tests.reporting.made_up import demo_report, outcome

LOWEST = re.compile(r"([\d.e+-]+) at ([\d.]+)")


def cost(images: Sequence[Shown], rate: float, miss: float, alarm: float, share: float) -> float:
    """Return the expected cost per part; an unknown product does not pass."""
    defects = [image for image in images if image.label == "anomalous"]
    missed = sum(outcome(image, rate, rate) == "miss" for image in defects)
    undecided = sum(image.p_value is None for image in defects)
    return share * (missed + undecided) / len(defects) * miss + (1 - share) * rate * alarm


def shown_cost(page: Page) -> tuple[float, float]:
    """Return the expected cost at the selected rate, and the lowest one."""
    words = page.text("#cost-words")
    found = re.search(r"per part: ([\d.e+-]+) at", words)
    lowest = LOWEST.search(page.text("#cost-lowest"))
    assert found and lowest
    return float(found[1]), float(lowest[1])


def test_the_cost_follows_the_fields_and_the_slider(page: Page, demo: Any, demo_file: Path) -> None:
    data, images = demo
    page.open(demo_file)
    for product, miss, alarm, share, rate in (
        ("", 100, 1, 0.01, 0.05),
        ("", 2000, 0.5, 0.02, 0.1),
        ("gear", 100, 1, 0.2, 0.03),
        ("wood", 1, 50, 0.001, 0.2),
        ("", 1e9, 1, 0.5, 0.001),
    ):
        page.enter("#product", f"={product}" if product else "")
        page.enter("#cost-miss", miss)
        page.enter("#cost-alarm", alarm)
        page.enter("#defect-share", 100 * share)
        page.enter("#rate-number", 100 * rate)
        chosen = [image for image in images if product in ("", image.product)]
        now, lowest = shown_cost(page)
        assert now == pytest.approx(cost(chosen, page.rate(), miss, alarm, share), rel=1e-3)
        names = {image.product for image in chosen}
        smallest = max(0.001, *(min(data.least_rates[n], data.pooled_least_rate) for n in names))
        rates = [smallest, *(image.p_value for image in chosen if image.p_value is not None)]
        best = min(cost(chosen, r, miss, alarm, share) for r in rates if smallest <= r <= 0.5)
        assert lowest == pytest.approx(best, rel=1e-3)
        if page.element("#cost-best").is_enabled():
            page.click("#cost-best")
        assert not page.element("#cost-best").is_enabled()
        # the button's rate is rounded up, so its nominal cost is slightly higher
        assert shown_cost(page)[0] == pytest.approx(
            cost(chosen, page.rate(), miss, alarm, share), rel=1e-3
        )
        misses = sum(
            outcome(i, page.rate(), 0.1) == "hit" for i in chosen if i.label == "anomalous"
        )
        assert misses == page.summary().get(("anomalous", "hit"), 0)


def test_invalid_fields_keep_their_value_and_the_address_keeps_valid_ones(
    page: Page, demo: Any, demo_file: Path
) -> None:
    page.open(demo_file)

    def fields() -> list[str]:
        ids = ("cost-miss", "cost-alarm", "defect-share")
        return [str(page.js(f"return document.getElementById('{i}').value")) for i in ids]

    assert fields() == ["100", "1", "1"]
    for selector, values in (
        ("#cost-miss", ("0", "-1", "1e13", "x", "")),
        ("#cost-alarm", ("0", "-1", "1e13", "")),
        ("#defect-share", ("0", "100", "-1", "")),
    ):
        for value in values:
            page.enter(selector, value)
            assert fields() == ["100", "1", "1"]
    page.enter("#cost-miss", 250)
    page.enter("#defect-share", 0.3)
    address = page.driver.current_url.split("#")[1]
    page.open(demo_file, after=f"#{address}")
    assert fields() == ["250", "1", "0.3"]
    page.click("#reset")
    assert fields() == ["100", "1", "1"] and "#" not in page.driver.current_url
    page.open(demo_file, after="#cost-miss=-1&cost-alarm=nan&defects=7")
    assert fields() == ["100", "1", "1"]


def test_without_defects(page: Page, tmp_path: Path) -> None:
    data, images = demo_report(size=64, n_good=3, n_defect=1)
    normal = [image for image in images if image.label == "normal"]
    page.open(write_page(tmp_path / "normal.html", data, normal))
    assert "the expected cost is unknown" in page.text("#cost-words")
    assert not page.element("#cost-best").is_displayed()
