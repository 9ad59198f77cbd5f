"""The page of a real server in a real browser."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.reporting.browser import chromium
from tests.service.conftest import Server, starting

SECONDS = 30.0


class Station:
    """The page of a server, as a person uses it."""

    def __init__(self, driver: Any) -> None:
        self.driver, self.url = driver, ""
        self.steps: list[str] = []
        """What was clicked and typed."""

    def connect(self, url: str) -> None:
        """Use the page of this server from now on, as a browser that was never there."""
        self.url = url
        self.size(1440, 900)
        self.driver.get("about:blank")
        self.driver.delete_all_cookies()
        self.logs()
        self.driver.get(f"{url}/")
        self.js("localStorage.clear()")

    def open(self, route: str = "live") -> None:
        """Load the page anew at a view."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.url}/#/{route}")
        self.settle()

    def go(self, route: str) -> None:
        """Change to a view without loading the page."""
        self.js(
            "delete document.documentElement.dataset.ready;"
            "if (location.hash === arguments[0]) dispatchEvent(new HashChangeEvent('hashchange'));"
            "else location.hash = arguments[0]",
            f"#/{route}",
        )
        self.settle()

    def settle(self) -> None:
        self.until(lambda: self.js("return document.documentElement.dataset.ready"), "the view")

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, f"{what}: {self.text()[:1500]}"
            time.sleep(0.05)
        return found

    def text(self) -> str:
        return str(self.js("return document.body.innerText"))

    def sees(self, text: str, seconds: float = SECONDS) -> None:
        self.until(lambda: text.lower() in self.text().lower(), f"{text!r} is not shown", seconds)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def find(self, selector: str, text: str = "") -> Any:
        """The first element of a selector that is shown and contains a text."""

        def look() -> Any:
            return self.js(
                "return [...document.querySelectorAll(arguments[0])].find((node) =>"
                " node.checkVisibility() &&"
                " (node.innerText || node.getAttribute('aria-label') || '').toLowerCase()"
                ".includes(arguments[1]))",
                selector, text.lower(),
            )  # fmt: skip

        return self.until(look, f"{selector} with {text!r}")

    def click(self, text: str, selector: str = "button, a, summary") -> None:
        """Click what has a text; what the page draws anew in between is sought again."""
        from selenium.common.exceptions import StaleElementReferenceException

        self.steps.append(f"click {text}")
        for last in (False, False, True):
            node = self.find(
                f"dialog[open] :is({selector})" if self.all("dialog[open]") else selector, text
            )
            try:
                self.js("arguments[0].scrollIntoView({block: 'center'})", node)
                node.click()
                return
            except StaleElementReferenceException:
                if last:
                    raise

    def keys(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        self.steps.append(f"keys {' '.join(keys)}")
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def size(self, width: int, height: int, dark: bool = False) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def logs(self) -> tuple[list[str], list[str]]:
        """Errors of the console, and requested addresses, since the last call."""
        errors = [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE"
        ]
        urls = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                urls.append(message["params"]["request"]["url"])
        return errors, urls


@pytest.fixture(scope="session")
def driver() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


@pytest.fixture
def page(driver: Any) -> Station:
    return Station(driver)


@pytest.fixture(scope="module")
def server(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a model, whose data the tests of a module share."""
    with starting(tmp_path_factory.mktemp("server")) as begin:
        yield begin(trained)


@pytest.fixture(scope="module")
def inspected(server: Server, plant: Path) -> list[dict[str, Any]]:
    """Inspections of all test images of the plant."""
    with server.client() as client:
        return [send(client, path) for path in sorted(plant.glob("*/test/*/*.png"))]


def send(client: httpx.Client, path: Path, name: str = "", **query: Any) -> dict[str, Any]:
    """Inspect an image; return the inspection."""
    answer = client.post(
        "/v1/inspections", params={"name": name or path.name, **query}, content=path.read_bytes()
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["results"][0]["inspection"])
