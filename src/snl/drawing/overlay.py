"""Draw an inspection: image, anomaly map, defect regions, decision, scales and captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

from snl.drawing import scales
from snl.drawing.heat import COLOURS, INK, PAPER, colours, heat
from snl.drawing.panel import LONGEST, SHORTEST, panel_size
from snl.drawing.scales import short
from snl.drawing.text import SIZE, Text, flow
from snl.text import printable

__all__ = ["LONGEST", "SHORTEST", "Drawable", "DrawableRegion", "colours", "draw", "heat", "panels"]

_GAP, _MARGIN, _EDGE = 6, 12, 16  # pixels: between panels, right margin, left margin
_MIN_HEIGHT = 48  # pixels; leaves space for the region numbers
_MAX_NUMBERED = 9  # only this many regions get a number
_SHADE = 0.6  # how dark the image is outside the region of interest
_MAX_NAME = 28  # characters of a product's name
_MAX_FILE = 40  # characters of a file's name
_MARKS = 640  # marks are larger in panels whose longer side has more pixels
# pixels, times the factor of `_MARKS`
_OUTLINE, _EDGES = 1.5, 4.5  # a contour's line, and the line with its dark edges
_SMALL, _RING = 14, 13  # a region with shorter sides has a ring of this radius instead

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


class DrawableRegion(Protocol):
    """Attributes needed for drawing; implemented by `snl.decision.regions.Region`."""

    @property
    def polygon(self) -> Sequence[tuple[float, float]]: ...
    @property
    def area(self) -> int: ...
    @property
    def area_mm2(self) -> float | None: ...
    @property
    def box(self) -> tuple[int, int, int, int]: ...
    @property
    def peak_at(self) -> tuple[int, int]: ...


class Drawable(Protocol):
    """Attributes needed for drawing; implemented by `snl.decision.inspection.Inspection`.

    `size` is the (height, width) of the image. `image_at` and `map_at` return image, uint8
    (height, width, 3), and anomaly map, float32 (height, width), resized (bilinear, antialiased).
    `regions` are sorted by peak, highest first; `regions_note` is the reason why there are none.
    `path` is the image's file, if it has one. `roi` is the part that was inspected (x, y, width,
    height); None: all of it.
    """

    @property
    def path(self) -> str | None: ...
    @property
    def size(self) -> tuple[int, int]: ...
    def image_at(self, width: int, height: int) -> np.ndarray: ...
    def map_at(self, width: int, height: int) -> np.ndarray: ...
    @property
    def roi(self) -> tuple[int, int, int, int] | None: ...
    @property
    def map_range(self) -> tuple[float, float]: ...
    @property
    def regions(self) -> Sequence[DrawableRegion]: ...
    @property
    def regions_note(self) -> str | None: ...
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
    @property
    def recognised(self) -> str: ...
    @property
    def distance(self) -> float: ...
    @property
    def unknown_distance(self) -> float | None: ...


def outlined(inspection: Drawable, outline_normal: bool) -> Sequence[DrawableRegion]:
    """Return the regions that are outlined: none on a normal image unless `outline_normal`."""
    if inspection.decision == "normal" and not outline_normal:
        return ()
    return inspection.regions


def panels(inspection: Drawable, outline_normal: bool = False) -> tuple[Image.Image, Image.Image]:
    """Return the image, and the image with the anomaly map and the region contours over it.

    A region that is small in the picture has a ring around it instead of a contour.

    Args:
        inspection: image, map and regions to draw.
        outline_normal: outline regions also where the decision is normal.

    Returns:
        Two RGB pictures of the same size. The longer side has at most `LONGEST` pixels. The shorter
        side has at least `SHORTEST` pixels, unless this would make the longer side too long.
    """
    height, width = inspection.size
    size = panel_size(inspection.size)
    pixels = inspection.image_at(*size)
    image = Image.fromarray(pixels)
    overlay = Image.fromarray(heat(pixels, inspection.map_at(*size), inspection.map_range))
    pen = ImageDraw.Draw(overlay)
    scale, last = np.array(size) / (width, height), np.array(size) - 1
    unit = _unit(size)
    contours, rings = [], []
    for region in outlined(inspection, outline_normal):
        if _is_small(region, scale, unit):
            middle = np.array(region.box[:2]) + np.array(region.box[2:]) / 2
            rings.append(tuple((middle * scale).tolist()))
            continue
        # the first edge is drawn twice, so that the line join at the first corner is complete
        points = np.array([*region.polygon, *region.polygon[:2]]) * scale - 0.5
        contours.append([tuple(p) for p in np.clip(points, 0, last).tolist()])
    for colour, thickness in ((INK, _odd(_EDGES * unit)), (PAPER, _odd(_OUTLINE * unit))):
        for x, y in rings:
            radius = _RING * unit + thickness / 2  # lines of ellipses grow inwards
            box = (x - radius, y - radius, x + radius, y + radius)
            pen.ellipse(box, outline=colour, width=thickness)
        for contour in contours:
            pen.line(contour, fill=colour, width=thickness)
    if inspection.roi is not None:
        overlay = _framed(overlay, inspection.roi, inspection.size)
    return image, overlay


def _unit(size: tuple[int, int]) -> float:
    """Return how large marks are in a panel of this size, 1 or more."""
    return max(1.0, max(size) / _MARKS)


def _odd(width: float) -> int:
    """Return the nearest odd width: such a line has a pixel in its middle."""
    return 2 * round((width - 1) / 2) + 1


def _is_small(region: DrawableRegion, scale: np.ndarray, unit: float) -> bool:
    """Return whether a region has a ring instead of a contour."""
    return bool((np.array(region.box[2:]) * scale).max() < _SMALL * unit)


def _framed(
    overlay: Image.Image, roi: tuple[int, int, int, int], size: tuple[int, int]
) -> Image.Image:
    """Return an overlay that is darker outside the region of interest.

    Args:
        overlay: of the image.
        roi: x, y, width, height in pixels of the image.
        size: (height, width) of the image.
    """
    x, y, width, height = roi
    across, down = overlay.width / size[1], overlay.height / size[0]
    left, top = round(x * across), round(y * down)
    box = (left, top, round((x + width) * across), round((y + height) * down))
    framed = Image.blend(overlay, Image.new("RGB", overlay.size, INK), _SHADE)
    framed.paste(overlay.crop(box), box)
    return framed


def draw(inspection: Drawable, outline_normal: bool = False) -> Image.Image:
    """Draw image and overlay side by side; below them the decision and the values that explain it.

    Two scales at the bottom show the score and the colours of the map.

    Args:
        inspection: what to draw.
        outline_normal: outline regions also where the decision is normal.

    Returns:
        An RGB picture, at most `2 * LONGEST + 6` pixels wide.
    """
    image, overlay = panels(inspection, outline_normal)
    regions = outlined(inspection, outline_normal)
    column, row = max(image.width, SHORTEST), max(image.height, _MIN_HEIGHT)
    width = 2 * column + _GAP
    captions, captions_height = flow(_captions(inspection, regions), width - _EDGE - _MARGIN)
    sheet = Image.new("RGB", (width, row + 6 + captions_height + scales.HEIGHT), PAPER)
    pen = ImageDraw.Draw(sheet)
    x, y = (column - image.width) // 2, (row - image.height) // 2
    sheet.paste(image, (x, y))
    x += column + _GAP
    sheet.paste(overlay, (x, y))
    image_height, image_width = inspection.size
    factors = overlay.width / image_width, overlay.height / image_height
    unit = _unit(image.size)
    peaks = [
        (
            x + (r.peak_at[0] + 0.5) * factors[0],
            y + (r.peak_at[1] + 0.5) * factors[1],
            _is_small(r, np.array(factors), unit),
        )
        for r in regions[:_MAX_NUMBERED]
    ]
    panel = (x, y, x + overlay.width, y + overlay.height)
    _draw_numbers(pen, peaks, panel, (column + _GAP, 0, width, row), unit)
    colour = COLOURS.get(inspection.decision, INK)
    pen.rectangle((0, row, 8, sheet.height), fill=colour)
    for i, (text, left, middle) in enumerate(captions):
        text.draw(pen, _EDGE + left, row + 5 + middle, fill=INK if i else colour)
    top = row + 6 + captions_height
    left_span, right_span = (_EDGE, column - _MARGIN), (column + _GAP, width - _MARGIN)
    limits = inspection.uncertain_threshold, inspection.threshold
    scales.score_scale(pen, inspection.score, inspection.decision, limits, left_span, top)
    scales.map_scale(sheet, inspection.map_range, inspection.region_threshold, right_span, top)
    return sheet


def _captions(inspection: Drawable, regions: Sequence[DrawableRegion]) -> list[str]:
    """Return the decision, then the values that explain it, one caption each."""
    captions = [inspection.decision.upper()]
    if inspection.path:
        captions.append(_file_name(inspection.path))
    captions.append(f"score {short(inspection.score)}")
    if inspection.decision == "unknown product":
        captions.append(f"nearest product {_name(inspection.recognised)}")
        captions.append(f"distance {short(inspection.distance)}")
        if inspection.unknown_distance is not None:
            captions.append(f"limit {short(inspection.unknown_distance)}")
        return captions
    if inspection.p_value is not None:
        captions.append(f"p {inspection.p_value:.2g}")
    if inspection.uncertain_threshold is not None:
        captions.append(f"uncertain above {short(inspection.uncertain_threshold)}")
    limit = inspection.threshold
    captions.append("no threshold" if limit is None else f"anomalous above {short(limit)}")
    if inspection.product:
        name = _name(inspection.product)
        captions.append(name + (" (recognised)" if inspection.product_from == "recognised" else ""))
    if regions:
        count, largest = len(regions), max(regions, key=lambda r: r.area)
        area = f"{largest.area} px"
        if largest.area_mm2 is not None:
            area = f"{largest.area_mm2:.2g} mm² / {area}"
        captions.append(f"{count} regions, largest {area}" if count > 1 else f"1 region, {area}")
    elif inspection.regions_note:
        captions.append(f"no region: {inspection.regions_note}")
    elif inspection.region_threshold is not None and not inspection.regions:
        captions.append("no regions")
    return captions


def _name(product: str) -> str:
    """Return a product's name, shortened to fit."""
    return product if len(product) <= _MAX_NAME else product[: _MAX_NAME - 1].rstrip() + "…"


def _file_name(path: str) -> str:
    """Return the name of a file, shortened in its middle to fit: its end has the number."""
    name = printable(PurePath(path).name)
    half = _MAX_FILE // 2
    return name if len(name) <= _MAX_FILE else f"{name[: half - 1]}…{name[-half:]}"


def _draw_numbers(
    pen: ImageDraw.ImageDraw,
    peaks: Sequence[tuple[float, float, bool]],
    panel: tuple[int, int, int, int],
    column: tuple[int, int, int, int],
    unit: float,
) -> None:
    """Mark each peak, given with whether it has a ring, by its number (1, 2, ...), and by a dot
    where it has none.

    A number is placed inside the panel if possible, otherwise inside the panel's column. Numbers
    never overlap; a number without free space is left out.
    """
    taken: list[Box] = []
    for number, (x, y, ring) in enumerate(peaks, 1):
        text = Text(str(number), size=round(SIZE * unit))
        away = (_RING * unit / 2**0.5 + 2) if ring else 4.0
        box = _free_box((x, y), (text.width + 4, SIZE * unit + 2), away, (panel, column), taken)
        if not ring:
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=PAPER, outline=INK)
        if box is not None:
            left, top, _, bottom = box
            taken.append(box)
            text.draw(
                pen, left + 2, (top + bottom) / 2, fill=PAPER, stroke_width=2, stroke_fill=INK
            )


def _free_box(
    point: tuple[float, float],
    size: tuple[float, float],
    away: float,
    areas: Sequence[tuple[int, int, int, int]],
    taken: Sequence[Box],
) -> Box | None:
    """Return a box near a point, at least `away` pixels, inside the first area with free space,
    clear of taken boxes."""
    (x, y), (width, height) = point, size
    centres = [
        (x + dx * (width / 2 + away + distance), y + dy * (height / 2 + away + distance))
        for distance in (0, 12, 24)
        for dx, dy in ((1, -1), (1, 0), (1, 1), (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1))
    ]
    boxes = [(a - width / 2, b - height / 2, a + width / 2, b + height / 2) for a, b in centres]
    for area in areas:
        for box in boxes:
            inside = (
                area[0] <= box[0] and area[1] <= box[1] and box[2] <= area[2] and box[3] <= area[3]
            )
            if inside and not any(_overlap(box, other) for other in taken):
                return box
    return None


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
