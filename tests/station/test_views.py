"""Every view of the page: no errors, nothing from elsewhere, accessible."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from selenium.webdriver.common.keys import Keys

from tests.reporting.browser import missing
from tests.service.conftest import Server
from tests.station.conftest import Station, send

VIEWS = (
    *("live", "review", "review?queue=all", "figures", "products", "products/new", "rates/bolt"),
    *("areas/bolt", "inspection/{id}", "versions/{version}", "settings/sources"),
    *("settings/sinks", "settings/access", "settings/storage", "settings/history"),
    "settings/browser",
)


def routes(server: Server, inspected: list[dict[str, Any]]) -> list[str]:
    values = {"id": inspected[-1]["id"], "version": inspected[-1]["model"]}
    return [view.format(**values) for view in VIEWS]


def axe() -> str:
    """The script of axe-core, from the package that brings it."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        missing("axe-playwright-python is not installed")
    assert found is not None and found.origin is not None
    return (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")


def violations(page: Station, script: str) -> list[str]:
    """What axe-core finds on the page, serious or worse, by WCAG 2.2 AA and best practice."""
    page.js(script + "\nwindow.axe = axe;")
    found = page.driver.execute_async_script(
        "const done = arguments[0];"
        "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa',"
        " 'best-practice']}).then((result) => done(result.violations))"
    )
    return [
        f"{one['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:300]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]


@pytest.mark.parametrize(
    ("width", "height", "dark"), [(1440, 900, False), (1024, 768, True), (420, 800, False)]
)
def test_no_view_has_errors_requests_elsewhere_or_barriers(
    page: Station, server: Server, inspected: list[dict[str, Any]], width: int, height: int,
    dark: bool,
) -> None:  # fmt: skip
    script = axe()
    page.connect(server.url)
    page.size(width, height, dark)
    page.open()
    found: dict[str, list[str]] = {}
    for route in routes(server, inspected):
        page.go(route)
        page.js("return document.fonts.ready")
        page.until(
            lambda: page.js(
                "return ![...document.images].some((i) => !i.complete && i.loading !== 'lazy')"
            ),
            route,
        )
        errors, urls = page.logs()
        others = {url for url in urls if not url.startswith((page.url, "blob:", "data:"))}
        overflow = page.js("return document.documentElement.scrollWidth - innerWidth")
        wrong = [*errors, *others, *violations(page, script)]
        if overflow > 1:
            wrong.append(f"{overflow} pixels wider than the window")
        if wrong:
            found[route] = wrong
    assert found == {}


def test_help_and_forms_have_no_barriers(page: Station, server: Server) -> None:
    script = axe()
    page.connect(server.url)
    page.open("settings/sources")
    page.keys("?")
    page.sees("What the words mean")
    assert violations(page, script) == []
    page.keys(Keys.ESCAPE)
    page.click("Connect a source")
    page.sees("Look every")
    assert violations(page, script) == []
    page.go("settings/access")


def test_the_page_is_served_with_a_policy_that_allows_nothing_inline(server: Server) -> None:
    with server.client() as client:
        answer = client.get("/")
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy and "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        text = answer.text
        assert " style=" not in text and " onclick" not in text and "<style" not in text
        assert "http://" not in text.replace("http://www.w3.org", "")
        for name in ("station.js", "station.css", "words-en.json", "languages.json", "icon.svg"):
            assert client.get(f"/station/{name}").status_code == 200, name
        for name in ("index.html", "..%2f..%2fetc", "words-..json", "pages.py"):
            assert client.get(f"/station/{name}").status_code == 404, name


HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\'"&{n}\u202e.png'


def test_hostile_names_and_notes_are_text(page: Station, server: Server, plant: Path) -> None:
    image = next(plant.glob("bolt/test/dent/*.png"))
    with server.client() as client:
        one = send(client, image, name=HOSTILE, part=HOSTILE[:150], product="bolt")
        other = send(client, next(plant.glob("bolt/test/good/*.png")), name=HOSTILE,
                     part=HOSTILE[:150], product="bolt")  # fmt: skip
        client.post(
            f"/v1/inspections/{one['id']}/review",
            json={"verdict": "confirmed", "note": HOSTILE, "regions": [{"box": [1, 1, 5, 5],
                  "label": HOSTILE[:90]}]},
        )  # fmt: skip
        client.put("/v1/products/bolt/calibration", json={"anomalous": 0.06, "why": HOSTILE})
        client.post("/v1/tokens", json={"name": HOSTILE[:90], "role": "read"})
        client.post("/v1/sets/x/images", params={"name": HOSTILE}, content=image.read_bytes())
    page.connect(server.url)
    for route in (f"inspection/{one['id']}", f"inspection/{other['id']}", "live",
                  "review?queue=all", "products", "products/new?set=x", "settings/history",
                  "settings/access"):  # fmt: skip
        page.open(route)
        page.until(
            lambda: page.js(
                "return ![...document.images].some((i) => !i.complete && i.loading !== 'lazy')"
            ),
            route,
        )
        assert page.js("return window.hacked") is None, route
        assert not page.all('img[src="x"]'), route
        errors, urls = page.logs()
        assert not [url for url in urls if urlsplit(url).path.endswith("/x")], route
        assert errors == [], route
    page.open(f"inspection/{one['id']}")
    page.sees("<script>window.hacked=1</script>")
    with server.client() as client:
        for token in client.get("/v1/tokens").json():
            client.delete(f"/v1/tokens/{token['id']}")


def test_a_language_of_the_plant(page: Station, server: Server) -> None:
    page.connect(server.url)
    page.open("settings/browser")
    languages = httpx.get(f"{server.url}/station/languages.json").json()
    options = page.js(
        "return [...document.querySelector('.field select').options].map(o => o.text)"
    )
    assert options == list(languages.values())


def test_a_lost_connection_is_said_and_found_again(
    page: Station, server: Server, inspected: list[dict[str, Any]]
) -> None:
    page.connect(server.url)
    page.open("live")
    page.driver.execute_cdp_cmd("Network.enable", {})
    away = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", away)
    page.js("stop()")
    page.keys("4")
    page.sees("cannot be reached")
    back = {**away, "offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", back)
    page.click("Try again")
    page.sees("Held-back images")
    page.logs()
