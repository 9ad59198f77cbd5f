"""A real browser for the report: headless Chromium, found where Debian puts it."""

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
    """A skip, or a failure where the caller said that there is a browser."""
    if os.environ.get("SNL_REQUIRE_BROWSER") == "1":
        pytest.fail(f"SNL_REQUIRE_BROWSER=1, but {reason}")
    pytest.skip(f"{reason}: apt-get install chromium chromium-driver")


def find(names: tuple[str, ...]) -> str | None:
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A driver of Chromium, with its console and its network logged."""
    try:
        from selenium import webdriver
    except ImportError:
        missing("selenium is not installed")
    program, driver_program = find(NAMES), find(DRIVERS)
    if program is None or driver_program is None:
        missing("no Chromium with its driver is installed")
    options = webdriver.ChromeOptions()
    options.binary_location = str(program)
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(driver_program))
    driver.set_page_load_timeout(60)
    driver.set_script_timeout(30)
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """An open report."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.url = ""

    def open(self, path: Path, width: int = 1440, height: int = 900, after: str = "") -> None:
        """Open a file in a window of a size; `after` follows the address, as `#rate=0.1`."""
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
        return self.driver.execute_script(script, *arguments)

    def frames(self) -> None:
        """Until what was asked for is shown."""
        self.driver.execute_async_script(
            "const done = arguments[0]; let n = 3;"
            "const next = () => (n-- ? requestAnimationFrame(next) : setTimeout(done, 20)); next();"
        )

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return str(self.js("return document.querySelector(arguments[0]).textContent", selector))

    def all(self, selector: str, expression: str) -> list[Any]:
        """An expression of every element `n` that a selector finds."""
        script = f"return [...document.querySelectorAll(arguments[0])].map(n => {expression})"
        return list(self.js(script, selector))

    def texts(self, selector: str) -> list[str]:
        return self.all(selector, "n.textContent")

    def scroll_to(self, selector: str, block: str = "start") -> None:
        script = "document.querySelector(arguments[0]).scrollIntoView({block: arguments[1]})"
        self.js(script, selector, block)
        self.frames()

    def click(self, selector: str) -> None:
        """As a script clicks: no matter what is scrolled where."""
        self.js("document.querySelector(arguments[0]).click()", selector)
        self.frames()

    def keys(self, *keys: str) -> None:
        """To whatever has the focus."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver, duration=0).send_keys(*keys).perform()
        self.frames()

    def enter(self, selector: str, value: object) -> None:
        """Put a value into a field."""
        self.js(
            "const [s, v] = arguments; const n = document.querySelector(s); n.value = v;"
            "n.dispatchEvent(new Event('input', {bubbles: true}));"
            "n.dispatchEvent(new Event('change', {bubbles: true}))",
            selector,
            str(value),
        )
        self.frames()

    def summary(self) -> dict[tuple[str, str], int]:
        """Counts by label and outcome, as the page's head tells them."""
        parts = "[n.dataset.kind, n.dataset.outcome, n.querySelector('b').textContent]"
        rows = self.all("#truths [data-outcome]", parts)
        return {(kind, key): int(n.replace(",", "")) for kind, key, n in rows if n != "0"}

    def count(self) -> int:
        """How many images the filters leave."""
        return int(self.text("#count").split(" of ")[0].replace(",", ""))

    def cards(self) -> list[str]:
        """Paths of the gallery's cards that are there now."""
        return [str(title) for title in self.all("#gallery .card", "n.title")]

    def rate(self, key: str = "rate") -> float:
        """Where a slider stands."""
        return float(self.js(f"return document.getElementById('{key}-number').value")) / 100

    def logs(self) -> tuple[list[str], list[str]]:
        """Since the last call: messages of the console, addresses asked for over any network."""
        console = [str(entry["message"]) for entry in self.driver.get_log("browser")]
        asked = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.append(str(message["params"]["request"]["url"]))
        return console, [
            url for url in asked if not url.startswith(("data:", "about:", self.url or "-"))
        ]
