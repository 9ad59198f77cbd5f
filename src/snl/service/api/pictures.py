"""Pictures of inspections that are in the store."""

import io
from typing import Any

import numpy as np
from PIL import Image

from snl.drawing.heat import colours
from snl.drawing.panel import panel_size
from snl.errors import DataError, ImageError
from snl.service.api.answers import RefusedError
from snl.service.service import Service
from snl.service.tables import InspectionRow


def map_png(service: Service, row: InspectionRow) -> bytes:
    """Return the map as a PNG: the range of colours of the overlay as 0 to 255."""
    inspection = _again(service, row)
    low, high = inspection.map_range
    height, width = inspection.prediction.anomaly_map.shape
    levels = np.clip((inspection.map_at(width, height) - low) / (high - low), 0, 1)
    return _png(Image.fromarray((levels * 255).astype(np.uint8)))


def heat_png(service: Service, row: InspectionRow) -> bytes:
    """Return the colours of the overlay alone, transparent where nothing is unusual.

    It has the aspect ratio of the image, and lies over it in any size.
    """
    inspection = _again(service, row)
    low, high = inspection.map_range
    width, height = panel_size(inspection.size)
    level = np.clip((inspection.map_at(width, height) - low) / max(high - low, 1e-12), 0, 1)
    alpha = 0.75 * np.minimum(level * 3, 1)
    layers = np.dstack([colours(level), np.round(alpha * 255).astype(np.uint8)])
    return _png(Image.fromarray(layers, "RGBA"))


def overlay_png(service: Service, row: InspectionRow) -> bytes:
    """Return the overlay as a PNG."""
    try:
        return _png(_again(service, row).overlay())
    except ImageError:
        raise RefusedError(404, "gone", "the image of this inspection is no longer kept") from None


def _again(service: Service, row: InspectionRow) -> Any:
    try:
        return service.again(row)
    except DataError as error:
        raise RefusedError(404, "gone", str(error)) from None


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
