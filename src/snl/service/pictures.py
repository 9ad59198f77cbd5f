"""Pictures of inspections that are in the store."""

import io
from typing import Any

import numpy as np
from PIL import Image

from snl.errors import DataError, ImageError
from snl.service.answers import RefusedError
from snl.service.inspecting import Line
from snl.service.tables import InspectionRow


def map_png(line: Line, row: InspectionRow) -> bytes:
    """Return the map as a PNG: the range of colours of the overlay as 0 to 255."""
    inspection = _again(line, row)
    low, high = inspection.map_range
    height, width = inspection.prediction.anomaly_map.shape
    levels = np.clip((inspection.map_at(width, height) - low) / (high - low), 0, 1)
    return _png(Image.fromarray((levels * 255).astype(np.uint8)))


def overlay_png(line: Line, row: InspectionRow) -> bytes:
    """Return the overlay as a PNG."""
    try:
        return _png(_again(line, row).overlay())
    except ImageError:
        raise RefusedError(404, "gone", "the image of this inspection is no longer kept") from None


def _again(line: Line, row: InspectionRow) -> Any:
    try:
        return line.again(row)
    except DataError as error:
        raise RefusedError(404, "gone", str(error)) from None


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
