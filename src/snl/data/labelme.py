"""Read the shapes of LabelMe files as masks (https://github.com/wkentaro/labelme)."""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from snl.data.source import name_of, open_image
from snl.errors import ImageError
from snl.limits import MAX_PIXELS

_LARGEST_FILE = 200_000_000
_KEYS = {"shapes", "imageWidth", "imageHeight"}


def is_labelme(path: Path) -> bool:
    """Return True if a file is LabelMe JSON: it has shapes and the size of the image."""
    try:
        content = _read(path)
    except ImageError:
        return False
    return isinstance(content, dict) and content.keys() >= _KEYS


def read_labelme(path: Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """Return the areas of all shapes of a LabelMe file, (H, W) bool at the size it states.

    Polygons, rectangles, circles, lines, points and masks are drawn, with their outlines. Corners
    of pixels have whole coordinates, as LabelMe draws them.

    Raises:
        ImageError: the file cannot be read or is no LabelMe file.
    """
    name = name_of(path)
    content = _read(path)
    try:
        width, height = int(content["imageWidth"]), int(content["imageHeight"])
        if not 0 < width * height <= max_pixels or width < 0:
            raise ImageError(f"{name} states an image of {width} x {height} pixels; save it again")
        canvas = Image.new("1", (width, height))
        draw = ImageDraw.Draw(canvas)
        for shape in content["shapes"]:
            _draw(canvas, draw, shape, name)
    except ImageError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ImageError(
            f"{name} is not a LabelMe file ({type(error).__name__}: {name_of(str(error))}); it "
            "needs imageWidth, imageHeight, and shapes with shape_type and points"
        ) from error
    return np.asarray(canvas, np.bool_)


def _draw(canvas: Image.Image, draw: ImageDraw.ImageDraw, shape: dict[str, Any], name: str) -> None:
    kind = shape.get("shape_type") or "polygon"
    points = [(_coordinate(x), _coordinate(y)) for x, y in shape["points"]]
    if kind == "polygon" and len(points) > 2:
        draw.polygon(points, fill=1, outline=1)
    elif kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), fill=1)
    elif kind == "circle" and len(points) == 2:
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    elif kind in ("line", "linestrip") and len(points) > 1:
        draw.line(points, fill=1)
    elif kind in ("point", "points") and points:
        draw.point(points, fill=1)
    elif kind == "mask" and len(points) == 2:
        part = _decode_mask(shape["mask"], name)
        canvas.paste(1, (round(points[0][0]), round(points[0][1])), part)
    else:
        raise ImageError(
            f"{name} has a shape of type {str(kind)[:40]!r} with {len(points)} points, which is "
            "not supported; draw a polygon instead"
        )


def _coordinate(value: object) -> float:
    if not isinstance(value, int | float) or not abs(value) < 1e7:  # NaN fails, too
        raise ValueError(f"coordinate {str(value)[:40]}")
    return float(value)


def _decode_mask(text: str, name: str) -> Image.Image:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ImageError(f"{name} has a mask that is not base64; save it again") from error
    return open_image(io.BytesIO(data)).convert("L").point(lambda v: 255 * (v > 0)).convert("1")


def _read(path: Path) -> Any:
    name = name_of(path)
    try:
        if not path.is_file():
            raise ImageError(f"{name} does not exist; check the path")
        if path.stat().st_size > _LARGEST_FILE:
            raise ImageError(f"{name} is too large for a LabelMe file; save it without imageData")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ImageError(
            f"{name} cannot be read as JSON ({type(error).__name__}); save it again"
        ) from error
