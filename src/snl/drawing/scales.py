"""Scales with words: the score among its thresholds, the colours of the map and their values."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from snl.drawing.heat import COLOURS, INK, heat
from snl.drawing.text import Text

HEIGHT = 58
"""Pixels that a scale takes."""
_RAIL = (225, 227, 230)
_TOP, _BAR, _LOW = 10, 27, 46  # middles of the words above, the bar and the words below


def score_scale(
    pen: ImageDraw.ImageDraw,
    score: float,
    decision: str,
    limits: tuple[float | None, float | None],
    span: tuple[int, int],
    top: int,
) -> None:
    """A rail tinted as the decisions, filled up to the score, ticks at the thresholds.

    It goes from 0, or the lowest threshold if that is below, as far beyond the highest threshold as
    that is from its beginning; a score beyond it fills it.

    Args:
        pen: draws on an RGB picture.
        score: raw.
        decision: gives the bar its colour.
        limits: thresholds of `uncertain` and of `anomalous`; None where there is none.
        span: pixels across that bar and name take.
        top: pixel down where its `HEIGHT` pixels begin.
    """
    names = ("uncertain", "anomalous")
    known = [
        (n, v) for n, v in zip(names, limits, strict=True) if v is not None and math.isfinite(v)
    ]
    values = [v for _, v in known]
    low, high = min([0.0, *values]), max([0.0, *values])
    if known and high > low:
        high = high + (high - low)
    else:  # nothing to measure by but the score
        high = low + (abs(score - low) if math.isfinite(score) and score != low else 1.0)
    left, right = _frame(pen, "score", (low, high), values, span, top)
    edges = [left, *(_place(v, (low, high), (left, right)) for v in values), right]
    for i, name in enumerate(["normal", *(n for n, _ in known)] if known else [""]):
        tint = tuple((c + 3 * 255) // 4 for c in COLOURS[name]) if name else _RAIL
        pen.rectangle((edges[i], top + 22, max(edges[i : i + 2]), top + 32), fill=tint)
    end = left if math.isnan(score) else _place(score, (low, high), (left, right))
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
    """The colours of the map over grey, a tick at the threshold of regions.

    Args:
        sheet: RGB picture to draw on.
        map_range: values at which the colours begin and end.
        threshold: of regions; None if there is none. Outside the range its tick is at the end and
            its value says so: `< 0.3`.
        span: pixels across that bar and name take.
        top: pixel down where its `HEIGHT` pixels begin.
    """
    pen = ImageDraw.Draw(sheet)
    ticks = [] if threshold is None or math.isnan(threshold) else [threshold]
    left, right = _frame(pen, "map", map_range, ticks, span, top)
    ramp = np.tile(np.linspace(*map_range, right - left + 1), (11, 1))
    strip = heat(np.full((*ramp.shape, 3), 150, np.uint8), ramp, map_range)
    sheet.paste(Image.fromarray(strip), (left, top + 22))
    for value in ticks:
        x = _place(value, map_range, (left, right))
        pen.line((x, top + 19, x, top + 35), fill=INK, width=2)


def short(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}"


def _frame(
    pen: ImageDraw.ImageDraw,
    name: str,
    ends: tuple[float, float],
    ticks: list[float],
    span: tuple[int, int],
    top: int,
) -> tuple[int, int]:
    """Words of a scale: its name before it, values of its ticks above, of its ends below.

    Returns:
        Where its bar begins and ends.
    """
    title, first, last = Text(name), Text(short(ends[0])), Text(short(ends[1]))
    left, right = span[0] + title.width + 8, span[1]
    title.draw(pen, span[0], top + _BAR, fill=INK)
    first.draw(pen, left, top + _LOW, fill=INK)
    last.draw(pen, right - last.width, top + _LOW, fill=INK)
    labels: list[tuple[Text, int]] = []
    free = left
    for value in sorted(set(ticks)):
        words = short(value)
        label = Text(
            f"< {words}" if value < ends[0] else f"{words} >" if value > ends[1] else words
        )
        middle = _place(value, ends, (left, right))
        labels.append((label, max(free, round(middle - label.width / 2))))  # after the one before
        free = labels[-1][1] + label.width + 8
    end = right
    for label, begin in reversed(labels):
        begin = min(begin, end - label.width)  # before the one behind
        label.draw(pen, begin, top + _TOP, fill=INK)
        end = begin - 8
    return left, right


def _place(value: float, ends: tuple[float, float], pixels: tuple[int, int]) -> float:
    """Where a value is on a bar; the nearer end where it is outside."""
    share = (value - ends[0]) / max(ends[1] - ends[0], 1e-12)
    return pixels[0] + (pixels[1] - pixels[0]) * min(max(share, 0.0), 1.0)
