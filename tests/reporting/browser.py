"""A real browser for the report: headless Chromium, as installed by Debian and others."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
DRIVERS = ("chromedriver", "/usr/lib/chromium-browser/chromedriver")


def missing(reason: str) -> None:
    """Skip the test; fail it if SNL_REQUIRE_BROWSER=1."""
    if os.environ.get("SNL_REQUIRE_BROWSER") == "1":
        pytest.fail(f"SNL_REQUIRE_BROWSER=1, but {reason}")
    pytest.skip(f"{reason}: apt-get install chromium chromium-driver")


def find(names: tuple[str, ...]) -> str | None:
    """Return the path of the first program that is installed."""
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a driver of Chromium that logs the console and the network requests."""
    try:
        from selenium import webdriver
    except ImportError:
        missing("selenium is not installed")
    program, driver_program = find(NAMES), find(DRIVERS)
    if program is None or driver_program is None:
        missing("Chromium or its driver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = str(program)
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "use-fake-device-for-media-stream",
        "use-fake-ui-for-media-stream",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(driver_program))
    driver.set_page_load_timeout(60)
    driver.set_script_timeout(30)
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """A report that is open in the browser."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.url = ""

    def open(self, path: Path, width: int = 1440, height: int = 900, after: str = "") -> None:
        """Open a file in a window of a given size; `after` is appended to the URL: `#rate=0.1`."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        self.driver.get("about:blank")
        self.logs()
        self.url = path.resolve().as_uri()
        self.driver.get(self.url + after)
        assert self.js("return document.documentElement.dataset.ready") == "yes"
        self.frames()

    def js(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page and return its result."""
        return self.driver.execute_script(script, *arguments)

    def frames(self) -> None:
        """Wait some animation frames, until the page shows the current state."""
        self.driver.execute_async_script(
            "const done = arguments[0]; let n = 3;"
            "const next = () => (n-- ? requestAnimationFrame(next) : setTimeout(done, 20)); next();"
        )

    def element(self, selector: str) -> Any:
        """Return the first element of a selector."""
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        """Return the text of the first element of a selector."""
        return str(self.js("return document.querySelector(arguments[0]).textContent", selector))

    def all(self, selector: str, expression: str) -> list[Any]:
        """Return the value of an expression for every element `n` of a selector."""
        script = f"return [...document.querySelectorAll(arguments[0])].map(n => {expression})"
        return list(self.js(script, selector))

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements of a selector."""
        return self.all(selector, "n.textContent")

    def scroll_to(self, selector: str, block: str = "start") -> None:
        """Scroll until an element is visible."""
        script = "document.querySelector(arguments[0]).scrollIntoView({block: arguments[1]})"
        self.js(script, selector, block)
        self.frames()

    def click(self, selector: str) -> None:
        """Click an element by script, which does not depend on the scroll position."""
        self.js("document.querySelector(arguments[0]).click()", selector)
        self.frames()

    def keys(self, *keys: str) -> None:
        """Send keys to the element that has the focus."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver, duration=0).send_keys(*keys).perform()
        self.frames()

    def enter(self, selector: str, value: object) -> None:
        """Set the value of a form field."""
        self.js(
            "const [s, v] = arguments; const n = document.querySelector(s); n.value = v;"
            "n.dispatchEvent(new Event('input', {bubbles: true}));"
            "n.dispatchEvent(new Event('change', {bubbles: true}))",
            selector,
            str(value),
        )
        self.frames()

    def summary(self) -> dict[tuple[str, str], int]:
        """Return the counts by label and outcome in the summary of the page."""
        parts = "[n.dataset.kind, n.dataset.outcome, n.querySelector('b').textContent]"
        rows = self.all("#labels [data-outcome]", parts)
        return {(kind, key): int(n.replace(",", "")) for kind, key, n in rows if n != "0"}

    def count(self) -> int:
        """Return the number of images that pass the filters."""
        return int(self.text("#count").split(" of ")[0].replace(",", ""))

    def cards(self) -> list[str]:
        """Return the paths of the cards that the gallery contains now."""
        return [str(title) for title in self.all("#gallery .card", "n.title")]

    def rate(self, key: str = "rate") -> float:
        """Return the rate of a slider."""
        return float(self.js(f"return document.getElementById('{key}-number').value")) / 100

    def logs(self) -> tuple[list[str], list[str]]:
        """Return the console messages and the requested URLs since the last call."""
        console = [str(entry["message"]) for entry in self.driver.get_log("browser")]
        requested = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                requested.append(str(message["params"]["request"]["url"]))
        return console, [
            url for url in requested if not url.startswith(("data:", "about:", self.url or "-"))
        ]
