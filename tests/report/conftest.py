"""One browser and one demo report for the tests of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snl.report.page import ReportData, Shown, write_page
from tests.report.browser import Page, chromium
from tests.report.made_up import demo_report

Demo = tuple[ReportData, list[Shown]]


@pytest.fixture(scope="package")
def driver() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="package")
def demo() -> Demo:
    """About a hundred images of the demo set, small."""
    return demo_report(size=96, n_good=6, n_defect=2)


@pytest.fixture(scope="package")
def demo_file(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("demo") / "report.html", *demo)


@pytest.fixture
def page(driver: Any) -> Iterator[Page]:
    """A page; in the end nothing was asked for and, unless a test read it, the console is empty."""
    opened = Page(driver)
    yield opened
    console, asked = opened.logs()
    loaded = opened.js("return performance.getEntriesByType('resource').map(e => e.name)")
    assert console == []
    assert [url for url in [*asked, *loaded] if not url.startswith("data:")] == []
