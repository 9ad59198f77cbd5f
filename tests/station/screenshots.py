"""Take the pictures of docs/station.md from a station that runs.

snl serve --demo &
python -m tests.station.screenshots http://127.0.0.1:8000 docs
"""

from __future__ import annotations

import sys
from pathlib import Path

import httpx

from tests.reporting.browser import chromium
from tests.station.conftest import Station


def main() -> None:
    url, folder = sys.argv[1], Path(sys.argv[2])
    with httpx.Client(base_url=url, timeout=30) as client, chromium() as driver:
        alarms = client.get("/v1/inspections?queue=alarm&limit=200").json()["inspections"]
        for n, one in enumerate(alarms):  # what the names of the demo's parts say, for most of them
            if n % 5:
                verdict = "false alarm" if "-good" in one["name"] else "confirmed"
                client.post(f"/v1/inspections/{one['id']}/review", json={"verdict": verdict})
        unsure = client.get("/v1/inspections?queue=uncertain&limit=200").json()["inspections"]
        product = [*unsure, *alarms][0]["product"]
        versions = client.get("/v1/versions").json()
        page = Station(driver)
        page.connect(url)
        candidate = next((one for one in versions if one["state"] != "active"), versions[0])
        views = {
            "live": ("live", 1440, 900, False),
            "review": ("review?queue=open", 1440, 900, False),
            "rates": (f"rates/{product}", 1440, 900, False),
            "tablet": ("live", 1024, 768, True),
            "version": (f"versions/{candidate['id']}", 1024, 768, False),
            "figures": ("figures", 1440, 900, False),
        }
        for name, (route, width, height, dark) in views.items():
            page.size(width, height, dark)
            page.open(route)
            if name == "rates":
                page.js(
                    "const box = document.querySelector('.rate-row input[type=number]');"
                    "box.value = '20'; box.dispatchEvent(new Event('change'))"
                )
            page.until(
                lambda: page.js(
                    "return ![...document.images].some(i => !i.complete && i.loading !== 'lazy')"
                ),
                "the images",
            )
            page.js("return new Promise((done) => setTimeout(done, 1500))")
            driver.save_screenshot(str(folder / f"station-{name}.png"))


if __name__ == "__main__":
    main()
