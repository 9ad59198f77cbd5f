"""The report in a real browser: every number follows the sliders, by mouse and by keyboard."""

from __future__ import annotations

import base64
import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snl.reporting.page import write_page
from tests.reporting.browser import Page
from tests.reporting.made_up import many, outcome, outcomes, report

UP, DOWN, LEFT, RIGHT = "\ue013", "\ue015", "\ue012", "\ue014"
HOME, END, TAB, ENTER, ESCAPE, PAGE_UP = "\ue011", "\ue010", "\ue004", "\ue007", "\ue00c", "\ue00e"
STOPS = ["skip", "cost-miss", "cost-alarm", "defect-share"]
STOPS += ["rate-number", "rate", "uncertain-number", "uncertain", "unknown-number", "unknown"]
STOPS += ["product", "reset"]
STOPS += ["confusion", "detection-table", "metrics-table", "query", "sort"]
TITLE = "return document.activeElement.title"
OPEN = "return document.getElementById('view').open"


LIVE = ("hit", "uncertain", "unknown")


def whole(share: float) -> str:
    """Return a share as the page shows it for fewer than 200 images."""
    return f"{int(100 * share + 0.5)}\u202f%"


def by_product(page: Page) -> dict[str, list[str]]:
    """Return the counts of the outcome table by product."""
    buttons = "[...n.querySelectorAll('td button')].map(b => b.textContent)"
    rows = page.all("#confusion tbody tr", f"[n.cells[0].textContent, {buttons}]")
    return dict(rows)


def test_counts_follow_the_sliders(page: Page, demo: Any, demo_file: Path) -> None:
    _, images = demo
    page.open(demo_file)
    settings = set()
    for key, presses in (
        ("rate", [HOME]),
        ("rate", [RIGHT] * 3),
        ("uncertain", [LEFT] * 4),
        ("rate", [END]),
        ("rate", [PAGE_UP, LEFT, DOWN]),
        ("uncertain", [END]),
        ("rate", [HOME, *[PAGE_UP] * 4, UP]),
    ):
        page.js(f"document.getElementById('{key}').focus()")
        page.keys(*presses)
        rate, uncertain = page.rate(), page.rate("uncertain")
        settings.add((rate, uncertain))
        expected = outcomes(images, rate, uncertain)
        assert page.summary() == expected
        for product, row in by_product(page).items():
            product_counts = outcomes([i for i in images if i.product == product], rate, uncertain)
            order = [("normal", k) for k in ("pass", "uncertain", "unknown", "false_alarm")]
            order += [("anomalous", k) for k in ("hit", "uncertain", "unknown", "miss")]
            assert row == [str(product_counts.get(k, 0)) for k in order]
        sentence = page.text("#defect-words")
        for key, word in (("hit", "detected"), ("miss", "missed")):
            count = expected.get(("anomalous", key), 0)
            verb = "were" if count > 1 else "was"
            assert f" {count or 'none'} {verb} {word}" in sentence
    assert len(settings) == 7
    for typed in (0.571, 7, 33.3):
        page.enter("#rate-number", typed)
        assert page.summary() == outcomes(images, typed / 100, page.rate("uncertain"))
    page.enter("#rate-number", "-3")
    assert page.rate() == pytest.approx(0.333)
    page.click("#reset")
    assert (page.rate(), page.rate("uncertain")) == (0.05, 0.10)
    assert page.summary() == outcomes(images, 0.05, 0.10)


def test_a_p_value_equal_to_the_rate_is_anomalous(page: Page, tmp_path: Path) -> None:
    _, stream = many(3)
    image = next(stream)
    images = [dataclasses.replace(image, p_value=n / 1000, unknown_p=None) for n in range(1, 501)]
    page.open(write_page(tmp_path / "a.html", report([], {}), images))
    page.js("document.getElementById('rate').focus()")
    page.keys(HOME)
    for _ in range(8):
        assert (
            page.summary().get(("anomalous", "hit"))
            == outcomes(images, page.rate(), 0.1)[("anomalous", "hit")]
        )
        page.keys(*[RIGHT] * 9)


def test_filters_and_address(page: Page, demo: Any, demo_file: Path) -> None:
    _, images = demo
    page.open(demo_file)
    page.scroll_to("#gallery-title")

    def shows(paths: list[str]) -> bool:
        cards = page.cards()
        return page.count() == len(paths) and set(cards) <= set(paths) and len(cards) > 0

    for key in ("miss", "false_alarm", "uncertain", "unknown", "hit", "pass"):
        page.click(f"#chips [data-outcome='{key}']")
        assert shows([i.path for i in images if outcome(i, 0.05, 0.1) == key])
        assert f"outcome={key}" in page.driver.current_url
        page.click(f"#chips [data-outcome='{key}']")
    page.enter("#query", "SCRATCH")
    assert shows([i.path for i in images if "scratch" in i.defect])
    page.enter("#product", "=gear")
    page.enter("#rate-number", 20)
    page.click("#chips [data-outcome='hit']")
    page.enter("#sort", "path")
    gears = [i for i in images if i.product == "gear"]
    hits = [i for i in gears if outcome(i, 0.2, 0.1) == "hit"]
    expected = sorted(i.path for i in hits if "scratch" in i.defect)
    assert page.cards() == expected and page.summary() == outcomes(gears, 0.2, 0.1)
    address = page.driver.current_url.split("#")[1]
    page.open(demo_file, after=f"#{address}")
    page.scroll_to("#gallery-title")
    assert page.cards() == expected and page.rate() == 0.2
    page.enter("#query", "no such image")
    assert page.cards() == [] and page.element("#nothing").is_displayed()
    page.click("#clear")
    assert page.count() == len(images) and page.rate() == 0.2
    page.click("#reset")
    assert "#" not in page.driver.current_url and page.rate() == 0.05
    row = 1 + page.texts("#confusion tbody th").index("wood")
    page.click(f"#confusion tbody tr:nth-child({row}) td button:not(:disabled)")
    page.scroll_to("#gallery-title")
    assert shows(
        [i.path for i in images if i.product == "wood" and outcome(i, 0.05, 0.1) == "pass"]
    )


@pytest.mark.parametrize("word", ["__proto__", "constructor", "hit-toString", "miss-", "-"])
def test_invalid_values_in_the_address_are_ignored(
    page: Page, demo: Any, demo_file: Path, word: str
) -> None:
    page.open(demo_file, after=f"#rate=7e9&uncertain=x&product={word}&outcome={word}&order={word}")
    assert page.rate() == 0.05 and page.count() == len(demo[1])
    assert page.element("#sort").get_attribute("value") == "worst"


def test_sort_orders(page: Page, demo: Any, demo_file: Path) -> None:
    _, images = demo
    page.open(demo_file)
    page.scroll_to("#images")
    rows = page.all(".strip", "[...n.querySelectorAll('.card')].map(card => card.title)")
    page.scroll_to("#gallery-title")
    cards = page.cards()
    kinds = {i.path: outcome(i, 0.05, 0.1) for i in images}
    wrong = [path for path, kind in kinds.items() if kind in ("miss", "false_alarm")]
    assert set(cards[: len(wrong)]) <= set(wrong) and len(cards) >= 12
    for order in ("calibrated", "score"):
        page.enter("#sort", order)
        values = {i.path: getattr(i, order) for i in images}
        cards = page.cards()
        expected = sorted(values.values(), reverse=True)[: len(cards)]
        assert [values[path] for path in cards] == expected
    page.enter("#sort", "path")
    assert page.cards() == sorted(kinds)[: len(page.cards())]
    p = {i.path: i.p_value for i in images}
    for key, row, sign in (("miss", rows[0], -1), ("false_alarm", rows[1], 1)):
        p_values = sorted(sign * p[path] for path, kind in kinds.items() if kind == key)[:12]
        assert [sign * p[path] for path in row] == p_values
        assert all(kinds[path] == key for path in row)


def test_views_of_a_part_are_shown_together(page: Page, tmp_path: Path) -> None:
    """Parts with the worst error first; their views by path. Names are text, whatever they are."""
    data, stream = many(60)
    images = [
        dataclasses.replace(image, part="" if n % 7 == 0 else f"<b>{n % 13}</b>")
        for n, image in enumerate(stream)
    ]
    page.open(write_page(tmp_path / "report.html", data, images))
    page.scroll_to("#gallery-title")
    page.enter("#sort", "part")
    parts = {image.path: image.part or image.path for image in images}
    level = {"miss": 3, "false_alarm": 3, "unknown": 2, "uncertain": 1}
    levels: dict[str, int] = {}
    for image in images:
        worst = level.get(outcome(image, 0.05, 0.1), 0)
        levels[parts[image.path]] = max(levels.get(parts[image.path], 0), worst)
    cards = page.cards()
    shown = [parts[path] for path in cards]
    order = list(dict.fromkeys(shown))
    assert len(cards) > 9 and shown == [part for part in order for _ in range(shown.count(part))]
    assert [levels[part] for part in order] == sorted(levels.values(), reverse=True)[: len(order)]
    for part in order[:-1]:  # the last one may be cut off by the window
        assert [p for p in cards if parts[p] == part] == sorted(
            p for p in parts if parts[p] == part
        )
    first = next(image for image in images if image.path == cards[0])
    if first.part:
        assert page.texts("#gallery .card .part")[0] == f"part {first.part}"
    page.enter("#query", "<b>12</b>")
    assert page.count() == sum(image.part == "<b>12</b>" for image in images)


def test_a_report_without_parts_has_no_order_by_part(page: Page, demo_file: Path) -> None:
    page.open(demo_file, after="#order=part")
    assert "part" not in page.all("#sort option", "n.value")
    assert page.element("#sort").get_attribute("value") == "worst"


def test_tab_reaches_every_control(page: Page, demo_file: Path) -> None:
    page.open(demo_file)
    stops: list[str] = []
    for _ in range(200):
        page.driver.switch_to.active_element.send_keys(TAB)
        stop, outlined, named = page.js(
            "const n = document.activeElement, style = getComputedStyle(n);"
            "return [n.id || n.className || n.tagName, style.outlineStyle !== 'none',"
            "Boolean(n.ariaLabel || n.textContent || n.labels?.length)]"
        )
        assert outlined and named, stop
        stops.append(str(stop))
        if stop == "SUMMARY" and "sort" in stops:
            break
    assert [stop for stop in stops if stop in STOPS] == STOPS
    gallery = stops[stops.index("sort") :]
    assert len([stop for stop in gallery if stop.startswith("card")]) == 1  # one stop for all cards


def test_gallery_and_dialog_by_keyboard(page: Page, demo: Any, demo_file: Path) -> None:
    titles = sorted(image.path for image in demo[1])
    page.open(demo_file, after="#order=path")
    page.scroll_to("#gallery-title")
    tops = page.all("#gallery li", "n.getBoundingClientRect().top")
    columns = tops.count(tops[0])
    page.js("document.querySelector('#gallery .card').focus()")
    page.keys(RIGHT, RIGHT)
    assert page.js(TITLE) == titles[2]
    page.keys(DOWN, LEFT)
    assert page.js(TITLE) == titles[1 + columns]
    page.keys(ENTER)
    assert page.js(OPEN) and page.text("#view-title") == titles[1 + columns]
    page.keys(RIGHT)
    assert page.text("#view-title") == titles[2 + columns]
    page.keys(TAB, TAB, LEFT, LEFT)
    assert page.text("#view-title") == titles[columns]
    assert page.js("return document.activeElement.closest('dialog') !== null")
    page.keys(ESCAPE)
    assert not page.js(OPEN) and page.js(TITLE) == titles[columns]
    page.keys(END)
    assert page.js(TITLE) == titles[-1]
    bottom = "return document.activeElement.getBoundingClientRect().bottom - innerHeight"
    assert page.js(bottom) <= 1
    page.keys(HOME)
    assert page.js(TITLE) == titles[0]
    page.keys(ENTER, LEFT, UP)
    assert page.text("#view-title") == titles[0]
    page.keys(*[RIGHT] * 3, ESCAPE)
    assert page.js(TITLE) == titles[3]


def test_dialog_shows_all_values(page: Page, demo: Any, demo_file: Path) -> None:
    image = next(i for i in demo[1] if i.mask and i.product == "tile")
    page.open(demo_file)
    page.enter("#query", image.path)
    page.scroll_to("#gallery-title")
    page.click("#gallery .card")
    pictures = page.all("#view-panels img", "[n.src, n.naturalWidth]")
    contents = [base64.b64decode(source.split(",")[1]) for source, _ in pictures]
    assert contents == [image.image, image.image, image.overlay, image.mask]
    kinds = [source.split(";")[0] for source, _ in pictures]
    assert kinds == [*["data:image/webp"] * 3, "data:image/png"]
    assert all(width == 96 for _, width in pictures)
    values = dict(zip(page.texts("#view-figures dt"), page.texts("#view-figures dd"), strict=True))
    assert values["Product"] == "tile" and values["Defect"] == image.defect
    assert float(values["Raw score"]) == pytest.approx(image.score, rel=1e-3)
    assert float(values["Calibrated score"]) == pytest.approx(image.calibrated, rel=1e-3)
    p_value = float(values["p-value"].rstrip("\u202f%")) / 100
    assert p_value == pytest.approx(image.p_value, rel=5e-3)
    page.click("#view-close")
    assert not page.js(OPEN)


def test_thresholds_follow_the_rate(page: Page, demo: Any, demo_file: Path) -> None:
    data, _ = demo
    page.open(demo_file)
    for rate in (0.05, 0.02, 0.2):
        page.enter("#rate-number", rate * 100)
        for product, held in data.calibration_scores.items():
            card = f'.histogram[data-product="{product}"]'
            page.scroll_to(card, "center")
            line = f"{card} .limit.anomalous"
            (drawn,) = page.all(line, "!n.classList.contains('off')")
            above = {t: sum(score > t for score in held) for t in held}
            allowed = [t for t in held if (1 + above[t]) / (len(held) + 1) <= rate]
            expected = min(allowed, default=None)
            assert drawn == (expected is not None)
            if expected is None:
                note = page.text(f"{card} .note")
                assert f"{len(held)} calibration images guarantee" in note
            else:
                assert float(page.text(line)) == pytest.approx(expected, rel=1e-3)


def test_a_pooled_threshold_is_drawn_if_it_is_known(page: Page, tmp_path: Path) -> None:
    _, stream = many(20, products=1)
    given = {"product 000": {"anomalous": 1.25, "uncertain": None}}
    data = report(images := list(stream), {"product 000": [0.8, 1.0]}, thresholds=given)
    page.open(write_page(tmp_path / "a.html", data, images))
    page.scroll_to(".histogram", "center")
    assert page.text(".histogram .limit.anomalous") == "1.25"
    assert page.text(".histogram .note").endswith(
        "The threshold drawn here is such a pooled threshold."
    )
    page.enter("#rate-number", 4)
    assert page.all(".histogram .off", "n.classList[1]") == ["uncertain", "anomalous"]


def test_thresholds_of_the_shared_tail_follow_the_slider(page: Page, tmp_path: Path) -> None:
    _, stream = many(20, products=1)
    name = "product 000"
    data = report(
        images := list(stream),
        {name: [0.8, 1.0]},
        thresholds={name: {"anomalous": 1.25, "uncertain": 1.0}},
        threshold_curves={name: [[0.02, 0.1, 0.5], [1.4, 1.2, 0.4]]},
        true_rates={name: (0.0123, 0.0876)},
    )
    page.open(write_page(tmp_path / "a.html", data, images))
    page.scroll_to(".histogram", "center")
    assert page.text(".histogram .limit.anomalous") == "1.25"
    assert "1.2\u202f% to 8.8\u202f%" in page.text(".histogram .note")
    page.enter("#rate-number", 6)  # half way between the two rates
    assert float(page.text(".histogram .limit.anomalous")) == pytest.approx(1.3)
    assert "True rate" not in page.text(".histogram .note")
    page.enter("#rate-number", 1)  # below the smallest
    assert "anomalous" in page.all(".histogram .off", "n.classList[1]")
    assert "of all products allow" in page.text(".histogram .note")


def test_detection_by_kind_follows_the_rate_beside_what_the_scores_allow(
    page: Page, demo: Any, demo_file: Path
) -> None:
    data, images = demo
    rates = data.metrics["detection_rates"]["products"]
    page.open(demo_file)
    for rate in (0.05, 0.3):
        page.enter("#rate-number", 100 * rate)
        rows = page.all("#detection-table tbody tr", "[...n.cells].map(c => c.innerText.trim())")
        expected = []
        for product in sorted(rates):
            own = [i for i in images if i.product == product]
            normal = [outcome(i, rate, 0.1) for i in own if i.label == "normal"]
            for kind in (None, *rates[product]["kinds"]):
                chosen = [i for i in own if i.label != "normal" and kind in (None, i.defect)]
                shares = [outcome(i, rate, 0.1) for i in chosen]
                limits = rates[product]["kinds"][kind] if kind else rates[product]["anomalous"]
                expected.append(
                    [
                        kind or product,
                        "" if kind else whole(normal.count("false_alarm") / len(normal)),
                        str(len(chosen)),
                        *(whole(shares.count(key) / len(shares)) for key in LIVE),
                        *("*" + whole(limits[key]) for key in ("at_1", "at_5")),  # six normals
                    ]
                )
        assert rows == expected
    tips = set(page.all("#detection-table td[data-tip]", "n.dataset.tip.split(': ')[1]"))
    assert tips == {"0 of 6 normal test images are above it"}
    product = sorted(rates)[1]
    page.enter("#product", f"={product}")
    shown = page.all("#detection-table tbody tr", "n.checkVisibility() ? n.cells[0].innerText : ''")
    assert [name for name in shown if name] == [product, *rates[product]["kinds"]]


def test_a_report_without_detection_rates_has_no_table_of_them(
    page: Page, demo: Any, tmp_path: Path
) -> None:
    data, images = demo
    metrics = {key: value for key, value in data.metrics.items() if key != "detection_rates"}
    changed = dataclasses.replace(data, metrics=metrics)
    page.open(write_page(tmp_path / "old.html", changed, images))
    assert not page.js("return document.getElementById('detection').checkVisibility()")


def test_metrics_are_sorted_and_explained(page: Page, demo: Any, demo_file: Path) -> None:
    tables = demo[0].metrics["products"]
    page.open(demo_file)
    assert page.texts("#metrics-table tbody th") == sorted(tables)
    for sign in (1, -1):
        page.click("#metrics-table thead th:nth-child(2) button")
        rows = page.all("#metrics-table tbody tr", "[...n.cells].map(c => c.textContent)")
        values = [tables[row[0]]["image_auroc"] for row in rows]
        assert values == sorted(values, reverse=sign < 0)
        np.testing.assert_allclose([float(r[1]) for r in rows], 100 * np.array(values), atol=0.0501)
    assert len(page.texts("#metrics-table tfoot tr")) == 2
    assert set(page.texts("#metrics-table thead button")[1:]) <= set(page.texts("#glossary dt"))


def test_curves_can_be_selected_and_read(page: Page, demo_file: Path) -> None:
    page.open(demo_file)
    names = page.all("#legend [aria-pressed=true]", "n.dataset.curve ?? null")
    assert names[0] is None and len(names) == 9  # pooled and the first eight products
    drawn = page.all("#curve-charts polyline", "n.dataset.curve ?? null")
    assert Counter(drawn) == dict.fromkeys(names, 2)
    page.click("#legend [data-curve='gear']")
    assert "gear" not in page.all("#curve-charts polyline", "n.dataset.curve")
    page.scroll_to("#curve-charts svg", "center")
    (box,) = page.all(
        "#curve-charts figure:first-child > svg", "n.getBoundingClientRect().toJSON()"
    )
    middle = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", **middle})
    page.frames()
    assert page.js("return document.getElementById('tip').matches(':popover-open')")
    assert "pooled over products" in page.text("#tip") and "gear" not in page.text("#tip")
