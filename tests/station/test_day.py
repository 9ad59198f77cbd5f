"""A day of a plant: images come by folder and MQTT, people work with the page, the server dies."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.service.conftest import Server, free_port, starting
from tests.service.receivers import broker
from tests.station.conftest import Station
from tests.station.test_views import axe, violations
from tests.trees import PRODUCTS, save_part, save_striped


def images(folder: Path, count: int) -> list[Path]:
    """The parts of a day: one of twelve has a dent."""
    found = []
    for n in range(count):
        product, defect = PRODUCTS[n % 2], n % 12 == 5
        path = folder / f"{n:04d}-{product}-{'dent' if defect else 'good'}.png"
        save_part(path, 3000 + n, defect=defect, product=product)
        found.append(path)
    return found


def publish(port: int, paths: list[Path]) -> None:
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for path in paths:
        client.publish(f"line/{path.name}", path.read_bytes(), qos=1).wait_for_publish(20)
    client.loop_stop()
    client.disconnect()


def all_inspections(server: Server) -> list[dict[str, Any]]:
    with server.client() as client:
        return list(client.get("/v1/inspections", params={"limit": 1000}).json()["inspections"])


@pytest.mark.parametrize("count", [60, 300])
def test_a_day(page: Station, trained: Path, tmp_path: Path, count: int) -> None:
    parts, incoming = images(tmp_path / "parts", count), tmp_path / "incoming"
    incoming.mkdir()
    port = free_port()
    config = tmp_path / "snl.toml"
    config.write_text(
        f'[allow]\nfolders = ["{incoming}"]\naddresses = ["mqtt://127.0.0.1:{port}"]\n'
    )
    with broker(tmp_path, port) as mosquitto, starting(tmp_path) as begin:
        server = begin(trained, "--config", config)
        page.connect(server.url)
        page.open()
        page.sees("Three steps")

        # the sources are set up on the page
        page.click("Connect a source")
        page.click("Connect a source", "main button")
        fields = {"Name": "folder-1", "Folder": str(incoming), "Look every": "0.2"}
        _form(page, "folder", fields)
        page.sees("folder-1")
        page.click("Connect a source", "main button")
        address = {"Name": "plc", "Address": f"mqtt://127.0.0.1:{port}", "Topic": "line/#"}
        _form(page, "mqtt", address)
        page.sees("plc")
        page.keys("1")

        # the morning: 60 % of the images, by both ways
        first, second = parts[: count * 3 // 5], parts[count * 3 // 5 :]
        for path in first[::2]:
            shutil.copyfile(path, incoming / f"{path.name}.part")
            (incoming / f"{path.name}.part").rename(incoming / path.name)
        publish(mosquitto.port, first[1::2])
        page.until(lambda: len(all_inspections(server)) == len(first), "all are inspected", 240)
        page.find(".alarms h2", "that nobody has seen")

        # alarms are reviewed by keyboard: G and D, by what the part's name says
        _review_all(page, server)

        # the server is killed, and goes on where it was
        server.process.kill()
        server.process.wait()
        page.sees("No connection to the service")
        server = begin(None, "--config", config, port=server.port, data=server.data)
        page.until(
            lambda: page.js("return document.getElementById('offline').hidden"), "it is back", 60
        )
        page.open("review")
        page.sees("Nothing waits for a review")

        # the afternoon
        for path in second[::2]:
            shutil.copyfile(path, incoming / path.name)
        publish(mosquitto.port, second[1::2])
        page.until(lambda: len(all_inspections(server)) == count, "all are inspected", 240)
        names = Counter(one["name"] for one in all_inspections(server) if one["name"])
        assert max(names.values()) == 1
        _review_all(page, server)
        _rates(page, server)
        _product(page, server, tmp_path)

        # what the day was
        page.open("figures")
        page.sees("By shift")
        total = page.js("return document.querySelector('.number-card b').innerText")
        assert int(total.replace(",", "")) == len(all_inspections(server))
        errors, urls = page.logs()
        assert {
            url for url in urls if not url.startswith((page.url, "blob:", "about:", "data:"))
        } == set()
        unexpected = [one for one in errors if "ERR_CONNECTION" not in one and "events" not in one]
        assert unexpected == []
        assert server.stop(signal.SIGTERM)[0] in (0, 143)


def _form(page: Station, kind: str, values: dict[str, str]) -> None:
    """Fill the form of a source and store it."""
    page.until(lambda: page.js("return document.querySelector('dialog').open"), "the form")
    page.js(
        "const s = document.querySelector('dialog select'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('change'))",
        kind,
    )
    for label, value in values.items():
        field = page.find("dialog .field:has(input)", label).find_element("css selector", "input")
        field.clear()
        field.send_keys(value)
    page.click("Save")
    page.until(lambda: not page.js("return document.querySelector('dialog').open"), "stored")


def _review_all(page: Station, server: Server) -> None:
    """Review the whole queue by keyboard, and check what was stored."""
    page.open("review")
    seen: dict[str, bool] = {}
    while True:
        id = page.js("return document.querySelector('.queue .chosen')?.dataset.id ?? null")
        if id is None or id in seen:
            break
        with server.client() as client:
            one = client.get(f"/v1/inspections/{id}").json()
        # what comes by MQTT has the topic's last word as its name
        defect = "dent" in one["name"]
        seen[id] = defect
        page.keys("d" if defect else "g")
        page.until(
            lambda id=id: page.js("return document.querySelector('.queue .chosen').dataset.id")
            != id or "That was the last one" in page.text(),
            "the next one",
        )  # fmt: skip
    page.until(lambda: "last one" in page.text() or not seen, "all are reviewed")
    with server.client() as client:
        assert client.get("/v1/inspections?queue=open").json()["inspections"] == []
        for id, defect in seen.items():
            one = client.get(f"/v1/inspections/{id}").json()
            assert one["review"] == ("confirmed" if defect else "false alarm")


def _rates(page: Station, server: Server) -> None:
    """Change a rate by what-if; the page's forecast is what the service decides then."""
    page.open("rates/bolt")
    box = page.find(".rate-row input[type=number]")
    page.js("arguments[0].value = '30'; arguments[0].dispatchEvent(new Event('change'))", box)
    page.sees("At 30")
    forecast = page.js("return document.querySelectorAll('.change-card').length")
    with server.client() as client:
        before = client.get("/v1/products").json()
        page.click("Apply", "main button")
        page.find("dialog input").send_keys("an afternoon of tests")
        page.click("Apply")
        page.sees("in force")
        rates = {
            one["name"]: one["rates"]["anomalous"] for one in client.get("/v1/products").json()
        }
        assert rates["bolt"] == pytest.approx(0.3)
        assert forecast > 0
        audit = client.get("/v1/audit").json()
        assert any("an afternoon of tests" in str(one["details"]) for one in audit)
        page.click("Undo", ".toast button")
        page.until(lambda: client.get("/v1/products").json() == before, "the rates are back")


def _product(page: Station, server: Server, folder: Path) -> None:
    """Teach a product on the page, look at the result, promote it, and roll back."""
    files = [save_striped(folder / "gears" / f"{n}.png", n) for n in range(12)]
    page.open("products")
    page.click("Teach a product")
    page.settle()
    page.find("#product-name").send_keys("gear")
    page.find(".drop")
    page.driver.find_element("css selector", ".drop input[type=file]").send_keys(
        "\n".join(map(str, files))
    )
    page.sees("12 images")
    page.until(lambda: page.all(".messages") or "Nothing stands out" in page.text(), "the check")
    page.js("document.getElementById('quick').click()")
    page.click("Add the product")
    page.until(lambda: "Look at the result" in page.text(), "the training", 180)
    assert violations(page, axe()) == []
    page.click("Look at the result", "a")
    page.sees("Compared with what was decided")
    page.click("Compare on stored inspections")
    page.until(lambda: page.all(".matrix"), "the comparison")
    page.until(
        lambda: page.js("return document.querySelector('.actions .hint')?.innerText") == "",
        "all are compared", 120,
    )  # fmt: skip
    with server.client() as client:
        active = client.get("/v1/models").json()[0]["active"]
        page.click("Promote", "main button")
        page.click("Promote")
        page.sees("This version decides now")
        assert [one["name"] for one in client.get("/v1/products").json()] == [
            "bolt",
            "gear",
            "plate",
        ]
        page.click("Roll back", "main button")
        page.click("Roll back")
        page.sees("Rolled back")
        assert client.get("/v1/models").json()[0]["active"] == active
