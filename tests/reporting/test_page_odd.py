"""The report in a real browser: hostile names, unusual data, window sizes, print, 10,000 images."""

from __future__ import annotations

import base64
import dataclasses
import io
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snl.reporting.page import ReportData, Shown, write_page
from tests.reporting.browser import Page
from tests.reporting.made_up import HOSTILE, many, outcomes, report

VARIANTS = [
    *("no anomalous images", "one product", "no p-values", "no masks", "200 products"),
    *("a product without images", "no scores", "equal scores", "nothing at all"),
]


def test_hostile_names_are_displayed_as_text(page: Page, tmp_path: Path) -> None:
    _, stream = many(4)
    names = [HOSTILE, "a\"b'c`${1}&amp;", "גלגל 歯車 \u202eפגם", "__proto__"]
    images = [
        dataclasses.replace(i, path=f"{n}/x.png", product=n, defect=n, recognised=n, label=label)
        for i, n in zip(stream, names, strict=True)
        for label in ("normal", "anomalous")
    ]
    settings = {"settings": {HOSTILE: HOSTILE}, HOSTILE: {"a": [HOSTILE]}}
    held = {name: [0.5, 1.0] for name in names}
    data = report(images, held, title=HOSTILE, notes=names, provenance=settings)
    page.open(write_page(tmp_path / "<a&b>.html", data, images))
    escaped = [name.replace("\udcff", "\\udcff") for name in names]
    assert page.text("h1") == escaped[0] and page.texts("#notes li") == escaped
    assert set(page.texts("#confusion tbody th")) == set(escaped)
    assert page.texts("#product option") == ["all products", *page.texts("#confusion tbody th")]
    assert escaped[0] in page.texts("#settings-table td")
    assert escaped[0] in page.texts("#settings-table th")
    assert set(escaped) <= set(page.texts("#legend bdi")) & set(page.texts("figcaption bdi"))
    for n, name in enumerate(page.texts("#product option")[1:]):
        page.js("document.getElementById('product').selectedIndex = arguments[0]", n + 1)
        page.js("document.getElementById('product').dispatchEvent(new Event('change'))")
        page.scroll_to("#gallery-title")
        assert page.count() == 2 and set(page.texts("#gallery .names b > bdi")) == {name}
        assert set(page.texts("#gallery .names > span")) == {name}
        page.click("#gallery .card")
        assert page.text("#view-title") == f"{name}/x.png"
        page.click("#view-close")
        page.js("dispatchEvent(new Event('hashchange'))")  # the name survives in the address
        page.frames()
        assert page.count() == 2
    assert page.texts("img[src=x], [onerror], [srcdoc]") == []
    assert len(page.texts("script:not([type])")) == 1


def test_the_policy_forbids_the_network(page: Page, demo_file: Path) -> None:
    page.open(demo_file)
    violations, executed = page.driver.execute_async_script(
        "const done = arguments[0], seen = [], script = document.createElement('script');"
        "addEventListener('securitypolicyviolation', e => seen.push(e.effectiveDirective));"
        "new Image().src = 'http://localhost:9/x.png';"
        "fetch('http://localhost:9/').catch(() => {});"
        "script.textContent = 'window.bad = 1';"
        "document.head.append(script);"
        "setTimeout(() => done([seen, window.bad ?? null]), 300);"
    )
    assert set(violations) == {"img-src", "connect-src", "script-src-elem"}
    assert executed is None
    console, _ = page.logs()
    assert len(console) >= 3 and all("Content Security Policy" in line for line in console[:3])
    page.driver.get("about:blank")
    page.logs()


@cache
def variants() -> dict[str, tuple[ReportData, list[Shown]]]:
    _, stream = many(90, products=3)
    images = list(stream)
    held = {name: [0.5, 1.0, 1.5] for name in sorted({i.product for i in images})}
    normal = [i for i in images if i.label == "normal"]
    single = [i for i in images if i.product == "product 001"]
    undecided = [dataclasses.replace(i, p_value=None, calibrated=None) for i in images]
    unmasked = [dataclasses.replace(i, mask=None) for i in images]
    _, stream = many(400, products=200)
    large = list(stream)
    large_held = {name: [0.9, 1.1] for name in sorted({i.product for i in large})}
    nothing = {
        "metrics": {"products": {}, "mean": {}, "pooled": {}},
        "curves": {},
        "pooled_curves": {},
        "provenance": {},
        "notes": [],
    }
    return {
        "no anomalous images": (report(normal, held), normal),
        "one product": (report(single, {"product 001": held["product 001"]}), single),
        "no p-values": (report(undecided, {n: [] for n in held}), undecided),
        "no masks": (report(unmasked, held), unmasked),
        "200 products": (report(large, large_held), large),
        "a product without images": (report(images, held | {"empty": []}), images),
        "no scores": (
            report(images, held),
            [dataclasses.replace(i, score=float("nan"), calibrated=None) for i in images],
        ),
        "equal scores": (report(images, held), [dataclasses.replace(i, score=0.0) for i in images]),
        "nothing at all": (report([], {}, **nothing), []),
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_unusual_data(page: Page, tmp_path: Path, name: str) -> None:
    data, images = variants()[name]
    page.open(write_page(tmp_path / "odd.html", data, images), width=380, height=800)
    for rate in (0.1, 5, 50):
        page.enter("#rate-number", rate)
        assert page.summary() == outcomes(images, rate / 100, 0.1)
    for section in ("#scores", "#metrics", "#curves", "#images", "#provenance"):
        page.js("document.querySelector(arguments[0]).scrollIntoView()", section)
        page.frames()
    text = page.js("return document.body.innerText")
    assert not [value for value in ("NaN", "undefined", "null", "Infinity") if value in text]
    assert page.js("return document.documentElement.scrollWidth <= innerWidth")
    if images:
        page.scroll_to("#gallery-title")
        page.click("#gallery .card")
        assert page.js("return document.getElementById('view').open")


@pytest.mark.parametrize(("width", "scheme"), [(380, "light"), (820, "dark"), (1600, "light")])
def test_every_width_and_colour_scheme(
    page: Page, demo_file: Path, width: int, scheme: str
) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    try:
        page.open(demo_file, width, 900)
        assert page.js("return document.documentElement.scrollWidth") <= width
        page.scroll_to("#gallery")
        picture = Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("L")
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert picture.size == (width, 900)
    levels = np.asarray(picture)
    assert levels.std() > 20
    assert np.median(levels) > 200 if scheme == "light" else np.median(levels) < 70


def test_print(page: Page, demo_file: Path) -> None:
    page.open(demo_file)
    page.scroll_to("#gallery-title")
    before = page.cards()
    pdf = base64.b64decode(page.driver.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF") and len(pdf) > 200_000
    page.frames()
    assert page.cards() == before


def test_ten_thousand_images(page: Page, tmp_path: Path) -> None:
    """On an idle machine the times are a tenth of these limits."""
    data, images = many(10_000)
    path = write_page(tmp_path / "many.html", data, images)
    assert 20e6 < path.stat().st_size < 60e6
    start = time.perf_counter()
    page.open(path, 1600, 1000)
    assert time.perf_counter() - start < 15
    painted = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
    assert page.js(painted) < 5000
    assert page.count() == 10_000
    page.scroll_to("#gallery-title")
    top, height = page.js(
        "const { top, height } = document.getElementById('gallery').getBoundingClientRect();"
        "return [top + scrollY, height]"
    )
    most_pictures = 0
    for part in (*np.linspace(0, 0.999, 24), 0.5, 0.02):
        page.js("scrollTo(0, arguments[0])", top + float(part) * (height - 1000))
        page.frames()
        most_pictures = max(most_pictures, page.js("return document.images.length"))
        edges = page.all("#gallery li", "[n.getBoundingClientRect().top, n.offsetHeight]")
        assert min(t for t, _ in edges) <= 200 and max(t + h for t, h in edges) >= 900
    assert 40 < most_pictures <= 300
    duration = page.driver.execute_async_script(
        "const done = arguments[0], start = performance.now(), n = document.getElementById('rate');"
        "n.value = 0.8; n.dispatchEvent(new Event('input'));"
        "requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)))"
    )
    assert duration < 2000
    page.scroll_to("#gallery-title")
    page.js("document.querySelector('#gallery .card').focus()")
    page.keys("\ue010")
    assert page.js("return document.activeElement.parentNode.ariaPosInSet") == "10000"
    assert page.js("return document.images.length") <= 300
