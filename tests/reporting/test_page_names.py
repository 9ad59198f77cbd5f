"""The report in a real browser: products may have the same names as the aggregates."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from snl.reporting.page import Shown, write_page
from tests.reporting.browser import Page
from tests.reporting.made_up import many, report

NAMES = ["all products", "mean", "pooled"]
HELD = {"all products": [0.9] * 9, "mean": [0.8, 1.1], "pooled": [0.7] * 24}


@pytest.fixture
def images() -> list[Shown]:
    """Thirty images of each of three products, which differ in their scores."""
    _, stream = many(90, products=3)
    product_of = dict(zip(("product 000", "product 001", "product 002"), NAMES, strict=True))
    return [dataclasses.replace(image, product=product_of[image.product]) for image in stream]


def test_each_product_keeps_its_tables_curves_and_counts(
    page: Page, images: list[Shown], tmp_path: Path
) -> None:
    data = report(images, HELD)
    page.open(write_page(tmp_path / "names.html", data, images))
    rows = page.all("#metrics-table tbody tr", "[...n.cells].map(c => c.textContent)")
    assert [row[0] for row in rows] == NAMES
    for name, auroc, *_ in rows:
        assert float(auroc) == pytest.approx(
            100 * data.metrics["products"][name]["image_auroc"], abs=0.051
        )
    assert page.texts("#metrics-table tfoot th") == ["mean over products", "pooled over products"]
    assert page.texts("#legend bdi") == NAMES
    assert len(page.texts("#legend [aria-pressed]")) == len(NAMES) + 1
    roc = page.all("#curve-charts figure:first-child polyline", "n.getAttribute('points')")
    assert len(set(roc)) == len(roc) == len(NAMES) + 1
    assert len(page.texts("#curve-charts figure:first-child .curve.pooled:not(.dot)")) == 1
    assert page.texts("#confusion tbody th") == NAMES
    assert page.texts("#product option") == ["all products", *NAMES]
    counts = Counter(image.product for image in images)
    for name in NAMES:
        page.enter("#product", f"={name}")
        assert sum(page.summary().values()) == counts[name]
    page.enter("#product", "")
    assert sum(page.summary().values()) == len(images)


def test_a_product_keeps_its_smallest_possible_rate(
    page: Page, images: list[Shown], tmp_path: Path
) -> None:
    page.open(write_page(tmp_path / "names.html", report(images, HELD), images))
    marks = page.all("#scale .mark", "n.dataset.tip")
    smallest = {"all products": "10", "mean": "33.3", "pooled": "4"}
    assert len(marks) == 3
    for name, percent in smallest.items():
        (tip,) = [tip for tip in marks if tip.startswith(name)]
        assert f" {percent}\u202f%" in tip
    # the pooled limit is 1 / (35 + 1) = 2.78 %
    page.enter("#rate-number", 3)
    assert "0 of 3 products" in page.text("#guarantee")
    assert page.text("#guarantee").endswith("the calibration images of all products are pooled.")
    page.enter("#rate-number", 2)
    assert "guarantee only 2.78\u202f% or more" in page.text("#guarantee")


def test_a_rate_that_is_only_measured_is_not_called_guaranteed(
    page: Page, images: list[Shown], tmp_path: Path
) -> None:
    data = report(images, HELD)
    curve = [[0.04, 0.5], [2.0, 1.0]]
    shared = dict.fromkeys(data.calibration_scores, curve)
    least = dict.fromkeys(data.calibration_scores, 0.04)
    data = dataclasses.replace(data, threshold_curves=shared, least_rates=least)
    page.open(write_page(tmp_path / "shared.html", data, images))
    page.enter("#rate-number", 5)
    text = page.text("#guarantee")
    assert text.startswith("For 3 of 3 products, thresholds follow from their own held-out images")
    assert text.endswith("was measured to hold, it is not guaranteed.") and "allow only" not in text
    assert all(
        "allow 4\u202f%" in tip and "guarantee" not in tip
        for tip in page.all("#scale .mark", "n.dataset.tip")
    )
    page.enter("#rate-number", 2)
    assert page.text("#guarantee").endswith("the calibration images allow only 4\u202f% or more.")
    one = dict(list(shared.items())[:1])
    page.open(
        write_page(tmp_path / "both.html", dataclasses.replace(data, threshold_curves=one), images)
    )
    page.enter("#rate-number", 5)
    text = page.text("#guarantee")
    assert text.startswith("For 1 of 3 products, thresholds follow from")
    assert "For 2 of 3 products, their own held-out calibration images guarantee" in text
