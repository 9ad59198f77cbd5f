"""Two scales: the score with its thresholds, and the map's colours with their values."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from snl.drawing.heat import COLOURS, INK, heat
from snl.drawing.text import Text

HEIGHT = 58
"""Height of a scale in pixels."""
_RAIL = (225, 227, 230)  # bar colour where no threshold is known
_ABOVE, _BAR, _BELOW = 10, 27, 46  # y of the centres of the labels above, the bar, the labels below


def score_scale(
    pen: ImageDraw.ImageDraw,
    score: float,
    decision: str,
    limits: tuple[float | None, float | None],
    span: tuple[int, int],
    top: int,
) -> None:
    """Draw a bar tinted in the decisions' colours, filled up to the score, with threshold ticks.

    The scale begins at 0, or at the lowest threshold if this is negative. It ends so that the
    highest threshold lies in its middle; a score beyond the end fills the whole bar.

    Args:
        pen: drawing context of an RGB picture.
        score: raw anomaly score.
        decision: determines the colour of the bar.
        limits: thresholds of `uncertain` and `anomalous`; None if there is none.
        span: left and right end in pixels of label and bar together.
        top: y in pixels of the scale's upper edge.
    """
    names = ("uncertain", "anomalous")
    known = [
        (n, v) for n, v in zip(names, limits, strict=True) if v is not None and math.isfinite(v)
    ]
    values = [v for _, v in known]
    low, high = min([0.0, *values]), max([0.0, *values])
    if known and high > low:
        high = high + (high - low)
    else:  # without thresholds only the score gives the scale its length
        high = low + (abs(score - low) if math.isfinite(score) and score != low else 1.0)
    left, right = _frame(pen, "score", (low, high), values, span, top)
    edges = [left, *(_position(v, (low, high), (left, right)) for v in values), right]
    for i, name in enumerate(["normal", *(n for n, _ in known)] if known else [""]):
        tint = tuple((c + 3 * 255) // 4 for c in COLOURS[name]) if name else _RAIL
        pen.rectangle((edges[i], top + 22, max(edges[i : i + 2]), top + 32), fill=tint)
    end = left if math.isnan(score) else _position(score, (low, high), (left, right))
    if end > left:
        pen.rectangle((left, top + 24, end, top + 30), fill=COLOURS.get(decision, INK))
    for x in edges[1:-1]:
        pen.line((x, top + 19, x, top + 35), fill=INK, width=2)


def map_scale(
    sheet: Image.Image,
    map_range: tuple[float, float],
    threshold: float | None,
    span: tuple[int, int],
    top: int,
) -> None:
    """Draw the map's colours over grey, with a tick at the region threshold.

    Args:
        sheet: RGB picture to draw on.
        map_range: map values of the first and the last colour.
        threshold: region threshold; None if there is none. Outside the range its tick is at the
            nearer end and its label shows this: `< 0.3`.
        span: left and right end in pixels of label and bar together.
        top: y in pixels of the scale's upper edge.
    """
    pen = ImageDraw.Draw(sheet)
    ticks = [] if threshold is None or math.isnan(threshold) else [threshold]
    left, right = _frame(pen, "map", map_range, ticks, span, top)
    ramp = np.linspace(*map_range, right - left + 1)[None]
    row = heat(np.full((*ramp.shape, 3), 150, np.uint8), ramp, map_range)
    strip = np.repeat(row, 11, axis=0)
    sheet.paste(Image.fromarray(strip), (left, top + 22))
    for value in ticks:
        x = _position(value, map_range, (left, right))
        pen.line((x, top + 19, x, top + 35), fill=INK, width=2)


def short(value: float) -> str:
    """Return a number with three significant digits."""
    return f"{value:.3g}"


def _frame(
    pen: ImageDraw.ImageDraw,
    name: str,
    ends: tuple[float, float],
    ticks: list[float],
    span: tuple[int, int],
    top: int,
) -> tuple[int, int]:
    """Draw a scale's labels: its name on the left, tick values above, values of the ends below.

    Returns:
        x of the bar's left and right end in pixels.
    """
    title, first, last = Text(name), Text(short(ends[0])), Text(short(ends[1]))
    left, right = span[0] + title.width + 8, span[1]
    title.draw(pen, span[0], top + _BAR, fill=INK)
    first.draw(pen, left, top + _BELOW, fill=INK)
    last.draw(pen, right - last.width, top + _BELOW, fill=INK)
    labels: list[tuple[Text, int]] = []
    next_free = left
    for value in sorted(set(ticks)):
        number = short(value)
        label = Text(
            f"< {number}" if value < ends[0] else f"{number} >" if value > ends[1] else number
        )
        middle = _position(value, ends, (left, right))
        labels.append((label, max(next_free, round(middle - label.width / 2))))
        next_free = labels[-1][1] + label.width + 8
    end = right
    for label, begin in reversed(labels):  # move labels left where they would pass the end
        begin = min(begin, end - label.width)
        label.draw(pen, begin, top + _ABOVE, fill=INK)
        end = begin - 8
    return left, right


def _position(value: float, ends: tuple[float, float], pixels: tuple[int, int]) -> float:
    """Return the x of a value on a bar; the nearer end for values outside the scale."""
    fraction = (value - ends[0]) / max(ends[1] - ends[0], 1e-12)
    return pixels[0] + (pixels[1] - pixels[0]) * min(max(fraction, 0.0), 1.0)
