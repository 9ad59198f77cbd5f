"""Teach a product with the camera of the device, a region of interest and an ignore mask."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from tests.service.conftest import Server
from tests.station.conftest import Station


def test_pictures_of_the_camera_become_images_of_the_set(page: Station, server: Server) -> None:
    page.connect(server.url)
    page.open("products/new")
    page.find("#product-name").send_keys("camera part")
    page.click("Use the camera of this device")
    page.until(lambda: page.js("return !document.querySelector('.camera .primary').disabled"), "on")
    for count in (1, 2):
        page.click("Take a picture")
        page.sees(f"{count} picture")
    page.until(lambda: len(page.all(".set-image")) >= 2, "both are in the set")
    with server.client() as client:
        images = client.get("/v1/sets/product camera part/images").json()
        assert len(images) == 2
        content = client.get(f"/v1/sets/product camera part/images/{images[0]['id']}").content
        assert Image.open(io.BytesIO(content)).format == "PNG"
    page.js("document.querySelector('.set-image .remove').click()")
    page.until(lambda: len(page.all(".set-image")) == 1, "one is removed")
    page.until(lambda: page.all(".messages"), "the doctor says that it is too few")
    assert page.js("return document.querySelector('.step .primary[disabled]') !== null")
    assert page.logs()[0] == []


def test_an_ignore_mask_is_drawn_by_keyboard_applied_and_removed(
    page: Station, server: Server, inspected: list[dict[str, Any]]
) -> None:
    page.connect(server.url)
    page.open("areas/bolt")
    page.click("Add a box")
    page.click("Apply the mask", "main button")
    page.find("dialog input").send_keys("a clamp")
    page.click("Apply the mask")
    page.sees("In force")
    with server.client() as client:
        (bolt,) = [one for one in client.get("/v1/products").json() if one["name"] == "bolt"]
        assert bolt["has_ignore_mask"]
        content = client.get("/v1/products/bolt/ignore-mask").content
        mask = np.asarray(Image.open(io.BytesIO(content)).convert("L")) > 127
        height, width = mask.shape
        expected = np.zeros_like(mask)
        expected[int(0.4 * height) : int(0.6 * height), int(0.4 * width) : int(0.6 * width)] = True
        assert np.mean(mask != expected) < 0.05 and 0.02 < mask.mean() < 0.07
    page.open("areas/bolt")  # it is shown again, and removed by emptying it
    page.until(lambda: page.js("return document.querySelector('.mask-canvas') !== null"), "canvas")
    page.click("Clear", "main button")
    page.click("Apply the mask", "main button")
    with server.client() as client:
        page.until(
            lambda: not any(one["has_ignore_mask"] for one in client.get("/v1/products").json()),
            "it is removed",
        )
    page.open("areas/bolt")
    field = page.find(".field", "Millimetres").find_element("css selector", "input")
    field.send_keys("0.25")
    page.click("Save")
    page.sees("In force")
    with server.client() as client:
        (bolt,) = [one for one in client.get("/v1/products").json() if one["name"] == "bolt"]
        assert bolt["mm_per_pixel"] == 0.25
    assert page.logs()[0] == []


def test_settings_make_and_revoke_tokens_limits_and_backups(page: Station, server: Server) -> None:
    page.connect(server.url)
    page.open("settings/access")
    page.click("Create a token", "main button")
    page.find("dialog input").send_keys("anna")
    page.click("Create", "button.primary")
    shown = "return document.querySelector('dialog input').value"
    page.until(lambda: str(page.js(shown)).startswith("snl_"), "the token is shown once")
    page.click("Close", "button.primary")
    with server.client() as client:
        assert [one["name"] for one in client.get("/v1/tokens").json()] == ["anna"]
        page.click("Revoke", "main button")
        page.click("Revoke", "button.primary")
        page.until(lambda: client.get("/v1/tokens").json()[0]["revoked"], "revoked")
        page.go("settings/storage")
        page.find(".field", "Keep at most (days)").find_element("css selector", "input").send_keys(
            "30"
        )
        page.click("Save", "main button")
        page.until(lambda: client.get("/v1/storage").json()["keep_days"] == 30, "the limit")
        page.go("settings/history")
        page.sees("token revoke")
    assert page.logs()[0] == []
