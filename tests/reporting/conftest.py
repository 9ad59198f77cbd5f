"""Fixtures for the tests of the page: one browser and one demo report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snl.reporting.page import ReportData, Shown, write_page
from tests.reporting.browser import Page, chromium
from tests.reporting.made_up import demo_report

Demo = tuple[ReportData, list[Shown]]


@pytest.fixture(scope="package")
def driver() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="package")
def demo() -> Demo:
    """A report on about a hundred small images of the demo set."""
    return demo_report(size=96, n_good=6, n_defect=2)


@pytest.fixture(scope="package")
def demo_file(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("demo") / "report.html", *demo)


@pytest.fixture
def page(driver: Any) -> Iterator[Page]:
    """A page; afterwards it must have requested nothing and have written nothing to the console."""
    opened = Page(driver)
    yield opened
    console, requested = opened.logs()
    loaded = opened.js("return performance.getEntriesByType('resource').map(e => e.name)")
    assert console == []
    assert [url for url in [*requested, *loaded] if not url.startswith("data:")] == []
