"""Reviews, by keyboard alone, and by several stations at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from tests.service.conftest import Server
from tests.station.conftest import Station, send
from tests.station.test_views import axe, violations


@pytest.fixture
def alarms(server: Server, plant: Path) -> list[dict[str, Any]]:
    """Four new inspections of dented parts that are alarms; whatever was before is reviewed."""
    with server.client() as client:
        while open_ones := client.get("/v1/inspections?queue=open&limit=100").json()["inspections"]:
            for one in open_ones:
                client.post(f"/v1/inspections/{one['id']}/review", json={"verdict": "confirmed"})
        found = [send(client, path) for path in sorted(plant.glob("*/test/dent/*.png"))]
        waiting = client.get("/v1/inspections?queue=open&limit=100").json()["inspections"]
        assert len(waiting) >= 4, [one["decision"] for one in found]
        for one in waiting[4:]:
            client.post(f"/v1/inspections/{one['id']}/review", json={"verdict": "confirmed"})
        return list(waiting[:4])


def stored(server: Server, id: str) -> dict[str, Any]:
    with server.client() as client:
        return dict(client.get(f"/v1/inspections/{id}").json())


def reviews(server: Server, id: str) -> list[dict[str, Any]]:
    with server.client() as client:
        return list(client.get(f"/v1/inspections/{id}/reviews").json())


def chosen(page: Station) -> str:
    return str(page.js("return document.querySelector('.queue .chosen')?.dataset.id ?? ''"))


def test_one_key_a_verdict_and_undo(
    page: Station, server: Server, alarms: list[dict[str, Any]]
) -> None:
    page.connect(server.url)
    page.open("live")
    page.keys("2")
    page.until(lambda: chosen(page) == alarms[0]["id"], "the newest alarm is chosen")
    page.keys("d")
    page.until(lambda: chosen(page) == alarms[1]["id"], "the next one")
    page.keys("g")
    page.until(lambda: chosen(page) == alarms[2]["id"], "the next one")
    assert [stored(server, one["id"])["review"] for one in alarms] == [
        "confirmed", "false alarm", None, None
    ]  # fmt: skip
    page.keys("u", "u")  # the second one while the first is on its way
    page.until(lambda: stored(server, alarms[1]["id"])["review"] is None, "it is undone")
    page.until(lambda: stored(server, alarms[0]["id"])["review"] is None, "the one before, too")
    page.until(lambda: chosen(page) == alarms[0]["id"], "it is shown again")
    page.keys("j", "j", "k")
    page.until(lambda: chosen(page) == alarms[1]["id"], "moved by keys")


@pytest.mark.parametrize("route", ["review", "inspection"])
def test_undo_while_the_verdict_is_on_its_way(
    page: Station, server: Server, alarms: list[dict[str, Any]], route: str
) -> None:
    """Whoever sees at once that the key was wrong."""
    first = alarms[0]["id"]
    page.connect(server.url)
    page.open(route if route == "review" else f"inspection/{first}")
    page.until(lambda: page.all(".verdict-panel"), "the inspection")
    page.keys("d", "u")
    page.until(lambda: reviews(server, first), "the verdict")
    page.until(lambda: stored(server, first)["review"] is None, "it is undone")


def test_a_note_and_a_box_by_keyboard(
    page: Station, server: Server, alarms: list[dict[str, Any]]
) -> None:
    page.connect(server.url)
    page.open("review")
    page.until(lambda: chosen(page) == alarms[0]["id"], "the newest alarm is chosen")
    page.keys("n")
    page.keys("deep g and d", Keys.ESCAPE)  # letters in a note are no commands
    page.click("Add a box")
    page.keys(Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.SHIFT + Keys.ARROW_RIGHT + Keys.NULL)
    page.js("document.activeElement.blur()")
    page.keys("d")
    page.until(lambda: reviews(server, alarms[0]["id"]), "it is stored")
    (review,) = reviews(server, alarms[0]["id"])
    assert review["note"] == "deep g and d" and review["verdict"] == "confirmed"
    width, height = (alarms[0]["result"][side] for side in ("width", "height"))
    ((x, y, w, h),) = [region["box"] for region in review["regions"]]
    assert 0 <= x < x + w <= width and 0 <= y < y + h <= height
    assert abs(w - (0.2 * width + 1)) <= 1.5 and x < 0.4 * width and y < 0.4 * height


def test_a_box_by_mouse_lies_where_it_was_drawn(
    page: Station, server: Server, alarms: list[dict[str, Any]]
) -> None:
    from selenium.webdriver import ActionChains

    page.connect(server.url)
    page.open(f"inspection/{alarms[0]['id']}")
    page.keys("b")
    stage = page.find(".inspection .stage")
    size = page.js(
        "const r = arguments[0].getBoundingClientRect(); return [r.width, r.height]", stage
    )
    draw = ActionChains(page.driver).move_to_element_with_offset(
        stage, round(-0.25 * size[0]), round(-0.25 * size[1])
    )
    draw.click_and_hold().move_by_offset(round(0.5 * size[0]), round(0.25 * size[1])).release()
    draw.perform()
    page.sees("1 box")
    page.keys("d")
    page.until(lambda: reviews(server, alarms[0]["id"]), "it is stored")
    (region,) = reviews(server, alarms[0]["id"])[-1]["regions"]
    width, height = (alarms[0]["result"][side] for side in ("width", "height"))
    expected = [0.25 * width, 0.25 * height, 0.5 * width, 0.25 * height]
    assert region["box"] == pytest.approx(expected, abs=2)


def test_what_another_station_says_appears(
    page: Station, server: Server, alarms: list[dict[str, Any]]
) -> None:
    page.connect(server.url)
    page.open("review")
    page.until(lambda: chosen(page) == alarms[0]["id"], "the newest alarm is chosen")
    with server.client() as client:
        for one in alarms[:2]:
            client.post(f"/v1/inspections/{one['id']}/review", json={"verdict": "false alarm"})
    page.until(lambda: len(page.all(".queue .tag")) == 2, "both are marked as reviewed")
    page.until(lambda: page.all('.verdict[aria-pressed="true"]'), "the shown one, too")


def test_alarms_stay_until_somebody_has_seen_them(
    page: Station, server: Server, alarms: list[dict[str, Any]], plant: Path
) -> None:
    page.connect(server.url)
    page.open("live")
    page.sees("4 alarms that nobody has seen")
    with server.client() as client:
        for path in sorted(plant.glob("*/test/good/*.png"))[:3]:  # newer ones do not hide them
            send(client, path)
    page.open("live")
    page.find(".alarms h2", "that nobody has seen")
    page.keys("s")
    page.until(lambda: page.js("return document.querySelector('.alarms').hidden"), "all seen")
    assert all(stored(server, one["id"])["seen"] for one in alarms)
    page.go("review")
    page.until(lambda: chosen(page), "they still wait for a review")


def test_roles_decide_what_the_page_offers(
    page: Station, trained: Path, plant: Path, tmp_path: Path
) -> None:
    from tests.service.conftest import starting

    with starting(tmp_path) as begin:
        first = begin(trained)
        with first.client() as client:
            send(client, next(plant.glob("bolt/test/dent/*.png")))
            tokens = {
                role: client.post("/v1/tokens", json={"name": role, "role": role}).json()["token"]
                for role in ("read", "review", "admin")
            }
        first.stop()
        server = begin(None, data=first.data)
        page.connect(server.url)
        page.driver.get(f"{server.url}/#/live")
        page.sees("Give the token")
        assert violations(page, axe()) == []
        page.js("document.querySelector('dialog input').value = 'snl_wrong'")
        page.click("Sign in", "button")
        page.sees("this token is not valid")
        for role, offers in (("read", False), ("review", True)):
            page.driver.delete_all_cookies()
            page.driver.get("about:blank")
            page.driver.get(f"{server.url}/#/review?queue=all")
            page.sees("Give the token")
            page.driver.find_element("css selector", "dialog input").send_keys(tokens[role])
            page.click("Sign in", "button")
            page.sees(f"{role} (")
            page.until(lambda: chosen(page), "an inspection")
            assert bool(page.all(".verdict")) == offers, page.text()
            page.go("settings/sources")
            assert "Connect a source" not in page.text()
            assert "Access" not in page.js("return document.querySelector('.tabs').innerText")
        page.logs()
