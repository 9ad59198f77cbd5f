"""Overlay pictures: normal pixels stay unchanged, defects are coloured, every decision and image
size is drawn, and all text lies inside the picture without overlaps."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from snl.decision.regions import find_regions
from snl.drawing.overlay import LONGEST, colours, draw, heat, panels

DECISIONS = {
    "normal": [46, 160, 67],
    "uncertain": [191, 135, 0],
    "anomalous": [218, 54, 51],
    "unknown product": [130, 80, 223],
}
Box = tuple[float, float, float, float]
Texts = list[tuple[str, Box]]


def inspection(height: int, width: int, **changes: Any) -> SimpleNamespace:
    """Return an anomalous inspection whose map is high in the upper left corner."""
    anomaly_map = np.zeros((height, width), np.float32)
    anomaly_map[: max(1, height // 4), : max(1, width // 4)] = 2.0
    values: dict[str, Any] = {
        "score": 1.93,
        "decision": "anomalous",
        "p_value": 0.012,
        "threshold": 1.41,
        "uncertain_threshold": 1.2,
        "region_threshold": 1.0,
        "product": "bottle",
        "product_from": "recognised",
        "recognised": "bottle",
        "distance": 3.25,
        "unknown_distance": 1.5,
        "anomaly_map": anomaly_map,
        "image": np.full((height, width, 3), 100, np.uint8),
        "map_range": (0.5, 2.0),
        "roi": None,
        "path": "parts/bottle-17.png",
        "regions_note": None,
        **changes,
    }
    if "regions" not in values:
        limit = values["region_threshold"]
        regions = () if limit is None else find_regions(values["anomaly_map"], limit)
        values["regions"] = regions
    shown, levels = values["image"], values["anomaly_map"]
    return SimpleNamespace(
        **values,
        size=shown.shape[:2],
        image_at=lambda *size: resized(shown, *size),
        map_at=lambda *size: resized(levels, *size),
    )


def resized(array: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return an image or a map resized by Pillow."""
    return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR))


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Texts]:
    """Every text drawn, with its bounding box as measured by Pillow."""
    drawn: Texts = []
    write: Callable[..., None] = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, xy: Any, words: str, **options: Any) -> None:
        stroke = options.get("stroke_width", 0)
        box = self.textbbox(xy, words, options["font"], options["anchor"], stroke_width=stroke)
        drawn.append((words, box))
        write(self, xy, words, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    yield drawn


def check(texts: Texts, picture: Image.Image) -> None:
    """Assert that all text lies inside the picture and that no texts overlap."""
    for words, (left, top, right, bottom) in texts:
        assert left >= 0 and top >= 0, words
        assert right <= picture.width and bottom <= picture.height, words
    for (first, a), (second, b) in combinations(texts, 2):
        disjoint = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert disjoint, f"{first} overlaps {second}"


def test_heat_colours_only_pixels_above_the_range() -> None:
    image = np.full((8, 8, 3), 100, np.uint8)
    levels = np.zeros((8, 8), np.float32)
    levels[2, 3] = 9.0
    result = heat(image, levels, (1.0, 2.0))
    changed = (result != image).any(-1)
    assert changed.sum() == 1 and changed[2, 3]
    np.testing.assert_array_equal(heat(image, levels - 5, (5.0, 5.0)), image)


def test_lightness_grows_with_the_value() -> None:
    lightness = colours(np.linspace(0, 1, 50)) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()
    np.testing.assert_array_equal(colours(np.array([-3.0])), colours(np.array([0.0])))


SIZES = [(40, 48), (256, 256), (5, 7), (1, 1), (1500, 3000), (30, 900), (3000, 20), (20, 3000)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("decision", DECISIONS)
def test_every_size_and_decision_is_drawn(
    size: tuple[int, int], decision: str, texts: Texts
) -> None:
    changes: dict[str, Any] = {"decision": decision}
    if decision == "unknown product":
        changes |= {"threshold": None, "uncertain_threshold": None, "region_threshold": None}
        changes |= {"product": None, "product_from": "none", "p_value": None}
    picture = draw(inspection(*size, **changes))
    assert picture.mode == "RGB"
    assert picture.width <= 2 * LONGEST + 10 and picture.height <= LONGEST + 150
    assert np.asarray(picture)[-20, 4].tolist() == DECISIONS[decision]
    assert texts[[w for w, _ in texts].index(decision.upper())][1][0] < 20
    check(texts, picture)


def test_contours_follow_the_regions() -> None:
    white = [255, 255, 255]
    example = inspection(256, 256)
    image, overlay = panels(example)
    assert image.size == overlay.size == (256, 256)
    drawn = (np.asarray(overlay) == white).all(-1)
    rows, columns = np.nonzero(drawn)
    assert (rows.min(), columns.min()) == (0, 0)
    assert {rows.max(), columns.max()} <= {63, 64}  # the region is 64 pixels wide
    assert not drawn[5:60, 5:60].any()
    without_regions = np.asarray(panels(inspection(256, 256, region_threshold=5.0))[1])
    assert not (without_regions == white).all(-1).any()
    np.testing.assert_array_equal(np.asarray(image), example.image)


def test_contours_match_the_map_when_it_is_enlarged_or_shrunk() -> None:
    for side, drawn_side in ((16, 256), (2048, 1024)):
        levels = np.zeros((side, side), np.float32)
        levels[side // 4 : side // 2, side // 2 :] = 2
        overlay = np.asarray(panels(inspection(side, side, anomaly_map=levels))[1])
        white = (overlay == 255).all(-1)
        rows, columns = np.nonzero(white)
        # the middles of the lines: upper, lower and left edge of the region
        upper, lower = (
            line.mean() for line in np.split(np.flatnonzero(white[:, drawn_side * 3 // 4]), 2)
        )
        left = np.flatnonzero(white[drawn_side * 3 // 8, : drawn_side * 3 // 4]).mean()
        assert abs(upper - drawn_side / 4) <= 1 and abs(lower - drawn_side / 2) <= 1
        assert abs(left - drawn_side / 2) <= 1 and columns.max() == drawn_side - 1
        assert np.ptp(rows) < drawn_side / 4 + 4


def test_captions_show_the_numbers_behind_the_decision(texts: Texts) -> None:
    levels = np.zeros((200, 300), np.float32)
    levels[20:40, 30:50], levels[100, 200] = 1.5, 2.0
    regions = find_regions(levels, 1.0, mm_per_pixel=0.05)
    picture = draw(inspection(200, 300, anomaly_map=levels, regions=regions))
    words = [w for w, _ in texts]
    captions = "ANOMALOUS|score 1.93|p 0.012|uncertain above 1.2|anomalous above 1.41"
    for wanted in f"{captions}|bottle (recognised)|score|map|0|2.82|1.2|1.41|0.5|2|1".split("|"):
        assert wanted in words
    area = "2 regions, largest 1 mm{} / 400 px"
    assert area.format("²") in words or area.format("2") in words  # depends on the system's fonts
    # region numbers are next to their peaks in the right panel, highest peak first
    factor = picture.width / 2 / 300
    for number, (x, y) in (("1", (200, 100)), ("2", (30, 20))):
        boxes = [b for w, b in texts if w == number and b[3] < 256]
        assert len(boxes) == 1
        centre = (boxes[0][0] + boxes[0][2]) / 2, (boxes[0][1] + boxes[0][3]) / 2
        spot = picture.width / 2 + x * factor, y * factor
        assert math.dist(centre, spot) < 30  # a small region's number stands beside its ring
    check(texts, picture)


def test_a_small_region_on_a_dark_image_has_a_ring_and_keeps_its_heat() -> None:
    levels = np.zeros((900, 1200), np.float32)
    levels[300:304, 500:504] = 2.0
    dark = np.full((900, 1200, 3), 8, np.uint8)
    overlay = np.asarray(panels(inspection(900, 1200, anomaly_map=levels, image=dark))[1])
    rows, columns = np.nonzero((overlay == 255).all(-1))
    assert min(np.ptp(rows), np.ptp(columns)) >= 24, "a mark of that size is overlooked"
    factor = overlay.shape[1] / 1200
    middle = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
    assert math.dist(middle, (302 * factor, 502 * factor)) < 2
    y, x = round(302 * factor), round(502 * factor)
    red, _, blue = (int(v) for v in overlay[y, x])
    assert red > 150 and red > blue + 50, "the colour of the map is covered"


def test_a_normal_image_has_outlines_only_on_request(texts: Texts) -> None:
    one = inspection(256, 256, decision="normal")
    assert one.regions
    white = [255, 255, 255]
    assert not (np.asarray(panels(one)[1]) == white).all(-1).any()
    assert (np.asarray(panels(one, outline_normal=True)[1]) == white).all(-1).any()
    draw(one)
    assert not any("region" in word for word, _ in texts)
    texts.clear()
    draw(one, outline_normal=True)
    assert any("1 region" in word for word, _ in texts)


def test_the_overlay_names_its_file_and_why_there_is_no_region(texts: Texts) -> None:
    name = "line-3-" + "x" * 80 + "-000123.png"
    draw(inspection(600, 900, region_threshold=9.0, path=f"in/{name}", regions_note="too weak"))
    words = [word for word, _ in texts]
    assert "no region: too weak" in words
    (shown,) = [word for word in words if word.endswith(".png")]
    assert shown.startswith("line-3-") and shown.endswith("-000123.png") and len(shown) <= 40


def test_captions_without_threshold_regions_or_product(texts: Texts) -> None:
    draw(inspection(64, 64, threshold=None, uncertain_threshold=None, product_from="given"))
    words = [w for w, _ in texts]
    assert "no threshold" in words and "bottle" in words and "1 region, 256 px" in words
    texts.clear()
    draw(inspection(64, 64, region_threshold=9.0, product=None))
    words = [w for w, _ in texts]
    assert "no regions" in words and "9 >" in words and "bottle" not in words


def test_at_most_nine_regions_have_a_number(texts: Texts) -> None:
    levels = np.zeros((200, 200), np.float32)
    levels[10::20, 10::20] = np.arange(100).reshape(10, 10) + 2
    picture = draw(inspection(200, 200, anomaly_map=levels))
    numbers = [w for w, b in texts if b[3] < 256]
    assert numbers == [str(i) for i in range(1, 10)]
    check(texts, picture)


@pytest.mark.parametrize(
    "product",
    [
        "housing of the left rear door of the second series",
        "x" * 500,
        "Заглушка левая",
        "左后门壳体",
        "Gehäuse\nlinks",
        "غطاء",
        "\ud800",
        "é",
        " ",
    ],
)
def test_any_product_name_is_drawn(product: str, texts: Texts) -> None:
    picture = draw(inspection(100, 100, product=product))
    check(texts, picture)
    if len(product) > 40:
        assert any("… (recognised)" in w for w, _ in texts)


def test_scales_have_their_ticks_at_the_values() -> None:
    picture = np.asarray(draw(inspection(256, 256, threshold=2.0, uncertain_threshold=1.0)))
    ink = (picture == [32, 33, 36]).all(-1)
    y = picture.shape[0] - 58 + 20  # a row above the bars that crosses the ticks
    ticks = np.flatnonzero(ink[y])
    score_ticks, map_ticks = ticks[ticks < 256], ticks[ticks >= 256]
    bar = picture[picture.shape[0] - 58 + 27]
    rail = np.flatnonzero((bar[:256] == bar[240]).all(-1))  # tint after the last threshold
    left = np.flatnonzero((bar[20:256] == [218, 54, 51]).all(-1))[0] + 20
    length = rail[-1] - left
    assert (score_ticks[[0, -1]] - left) / length == pytest.approx([1 / 4, 2 / 4], abs=0.02)
    scale = np.flatnonzero((bar[295:] != 255).any(-1)) + 295
    fraction = (map_ticks.mean() - scale[0]) / (scale[-1] - scale[0])
    assert fraction == pytest.approx((1.0 - 0.5) / (2.0 - 0.5), abs=0.02)


NUMBERS = st.floats(-1e9, 1e9) | st.floats(-3, 3)
LIMITS = st.none() | NUMBERS


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_texts_never_overlap(data: st.DataObject, texts: Texts) -> None:
    texts.clear()
    pick = data.draw
    height, width = pick(st.integers(1, 90)), pick(st.integers(1, 90))
    rng = np.random.default_rng(pick(st.integers(0, 99)))
    example = inspection(
        height,
        width,
        decision=pick(st.sampled_from([*DECISIONS])),
        score=pick(NUMBERS | st.sampled_from([math.nan, math.inf, -math.inf])),
        p_value=pick(st.none() | st.floats(0, 1)),
        threshold=pick(LIMITS),
        uncertain_threshold=pick(LIMITS),
        region_threshold=pick(LIMITS),
        map_range=tuple(sorted([pick(NUMBERS), pick(NUMBERS)])),
        anomaly_map=rng.normal(size=(height, width)).astype(np.float32),
        product=pick(st.none() | st.text(max_size=40)),
        product_from=pick(st.sampled_from(["given", "recognised", "none"])),
    )
    check(texts, draw(example))


def test_drawing_imports_nothing_from_decision_or_report() -> None:
    """Inspections import `snl.drawing`, so it lies below `snl.decision`."""
    program = (
        "import sys, snl.drawing.overlay, snl.drawing.heat, snl.drawing.scales, snl.drawing.text\n"
        "above = ('snl.decision', 'snl.reporting')\n"
        "print(*(name for name in sys.modules if name.startswith(above)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []
