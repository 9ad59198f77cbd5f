"""Pictures of inspections that are in the store."""

import io
from typing import Any

import numpy as np
from PIL import Image

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
