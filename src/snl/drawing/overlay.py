"""Pictures a person can read: image, map over it, defect regions, decision, scales, words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

from snl.decision.regions import Region
from snl.drawing import scales
from snl.drawing.heat import COLOURS, INK, PAPER, colours, heat
from snl.drawing.scales import short
from snl.drawing.text import Text, flow

__all__ = ["LONGEST", "SHORTEST", "Drawable", "colours", "draw", "heat", "panels"]

LONGEST = 1024
"""Panels are shrunk to this many pixels on their longer side."""
SHORTEST = 256
"""... and small images enlarged so that the text fits."""

_GAP, _MARGIN, _EDGE = 6, 12, 16  # pixels between the panels, at the right, at the left
_LOWEST = 48  # pixels of height that panels get at least, for the numbers of regions
_NUMBERED = 9  # regions with a number
_NAME = 28  # letters of a product's name


class Drawable(Protocol):
    """What is asked of an inspection here; see `snl.runtime.inspector.Inspection`."""

    @property
    def image(self) -> np.ndarray: ...
    @property
    def anomaly_map(self) -> np.ndarray: ...
    @property
    def map_range(self) -> tuple[float, float]: ...
    @property
    def regions(self) -> Sequence[Region]: ...
    @property
    def region_threshold(self) -> float | None: ...
    @property
    def score(self) -> float: ...
    @property
    def p_value(self) -> float | None: ...
    @property
    def uncertain_threshold(self) -> float | None: ...
    @property
    def threshold(self) -> float | None: ...
    @property
    def decision(self) -> str: ...
    @property
    def product(self) -> str | None: ...
    @property
    def product_from(self) -> str: ...


def panels(inspection: Drawable) -> tuple[Image.Image, Image.Image]:
    """The image, and the map in colours over it with the contours of the regions.

    Returns:
        Two RGB pictures of one size: the longer side at most `LONGEST` pixels, the shorter at
        least `SHORTEST` where that leaves room for the longer.
    """
    height, width = inspection.image.shape[:2]
    factor = min(LONGEST / max(height, width), max(1.0, SHORTEST / min(height, width)))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    image = Image.fromarray(inspection.image).resize(size, Image.Resampling.BILINEAR)
    levels = Image.fromarray(np.asarray(inspection.anomaly_map, np.float32))
    anomaly_map = np.asarray(levels.resize(size, Image.Resampling.BILINEAR))
    over = Image.fromarray(heat(np.asarray(image), anomaly_map, inspection.map_range))
    pen = ImageDraw.Draw(over)
    lines = []
    for region in inspection.regions:
        points = np.array([*region.polygon, *region.polygon[:2]]) * size / (width, height) - 0.5
        lines.append([tuple(p) for p in np.clip(points, 0, np.array(size) - 1).tolist()])
    for colour, thickness in ((INK, 3), (PAPER, 1)):
        for line in lines:
            pen.line(line, fill=colour, width=thickness)
    return image, over


def draw(inspection: Drawable) -> Image.Image:
    """Image and overlay side by side above decision, numbers in words, scales of score and map."""
    image, over = panels(inspection)
    column, row = max(image.width, SHORTEST), max(image.height, _LOWEST)
    width = 2 * column + _GAP
    words, text_height = flow(_words(inspection), width - _EDGE - _MARGIN)
    sheet = Image.new("RGB", (width, row + 6 + text_height + scales.HEIGHT), PAPER)
    pen = ImageDraw.Draw(sheet)
    x, y = (column - image.width) // 2, (row - image.height) // 2
    sheet.paste(image, (x, y))
    x += column + _GAP
    sheet.paste(over, (x, y))
    height, across = inspection.image.shape[:2]
    factors = over.width / across, over.height / height
    spots = [
        (x + (r.peak_at[0] + 0.5) * factors[0], y + (r.peak_at[1] + 0.5) * factors[1])
        for r in inspection.regions[:_NUMBERED]
    ]
    inner = (x, y, x + over.width, y + over.height)
    _number(pen, spots, inner, (column + _GAP, 0, width, row))
    colour = COLOURS.get(inspection.decision, INK)
    pen.rectangle((0, row, 8, sheet.height), fill=colour)
    for i, (text, left, middle) in enumerate(words):
        text.draw(pen, _EDGE + left, row + 5 + middle, fill=INK if i else colour)
    top = row + 6 + text_height
    left_span, right_span = (_EDGE, column - _MARGIN), (column + _GAP, width - _MARGIN)
    limits = inspection.uncertain_threshold, inspection.threshold
    scales.score_scale(pen, inspection.score, inspection.decision, limits, left_span, top)
    scales.map_scale(sheet, inspection.map_range, inspection.region_threshold, right_span, top)
    return sheet


def _words(inspection: Drawable) -> list[str]:
    """The decision and what it rests on, piece by piece."""
    words = [inspection.decision.upper(), f"score {short(inspection.score)}"]
    if inspection.p_value is not None:
        words.append(f"p {inspection.p_value:.2g}")
    if inspection.uncertain_threshold is not None:
        words.append(f"uncertain above {short(inspection.uncertain_threshold)}")
    limit = inspection.threshold
    words.append("no threshold" if limit is None else f"anomalous above {short(limit)}")
    if inspection.product:
        name = inspection.product
        name = name if len(name) <= _NAME else name[: _NAME - 1].rstrip() + "…"
        words.append(name + (" (recognised)" if inspection.product_from == "recognised" else ""))
    if inspection.regions:
        count, largest = len(inspection.regions), max(inspection.regions, key=lambda r: r.area)
        area = f"{largest.area} px"
        if largest.area_mm2 is not None:
            area = f"{largest.area_mm2:.2g} mm² / {area}"
        words.append(f"{count} regions, largest {area}" if count > 1 else f"1 region, {area}")
    elif inspection.region_threshold is not None:
        words.append("no regions")
    return words


def _number(
    pen: ImageDraw.ImageDraw,
    spots: list[tuple[float, float]],
    inner: tuple[int, int, int, int],
    outer: tuple[int, int, int, int],
) -> None:
    """1, 2, 3 beside the peaks: inside the panel, else inside its column; none over another, and
    none at all where there is no room."""
    taken: list[tuple[float, float, float, float]] = []
    for number, (x, y) in enumerate(spots, 1):
        text = Text(str(number))
        wide, high = text.width + 4, 16
        places = [
            (x + dx * (wide / 2 + 4 + far), y + dy * (high / 2 + 4 + far))
            for far in (0, 12, 24)
            for dx, dy in ((1, -1), (1, 0), (1, 1), (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1))
        ]
        boxes = [(a - wide / 2, b - high / 2, a + wide / 2, b + high / 2) for a, b in places]
        free = [
            box
            for area in (inner, outer)
            for box in boxes
            if area[0] <= box[0] and area[1] <= box[1] and box[2] <= area[2] and box[3] <= area[3]
            if not any(
                box[0] < o[2] and o[0] < box[2] and box[1] < o[3] and o[1] < box[3] for o in taken
            )
        ]
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=PAPER, outline=INK)
        if free:
            left, upper, _, lower = free[0]
            taken.append(free[0])
            text.draw(
                pen, left + 2, (upper + lower) / 2, fill=PAPER, stroke_width=2, stroke_fill=INK
            )
