"""A loaded version of a model: it decodes, predicts and decides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from threading import BoundedSemaphore

import numpy as np

from snl.data.source import opened
from snl.data.stream import load as load_image
from snl.decision.calibration import Calibration
from snl.decision.decide import decide
from snl.decision.inspection import Inspection
from snl.decision.prediction import Prediction
from snl.decision.recognition import source_of
from snl.runtime.inspector import Inspector
from snl.service.batching import Batcher

TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "BMP": "image/bmp",
    "GIF": "image/gif",
    "PPM": "image/x-portable-anymap",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
}
"""Media types by the format that the content has, whatever the client says."""
MOST_DECODING = 4
"""Images that are decoded at a time: each may take the memory of the largest allowed one."""

decoding = BoundedSemaphore(MOST_DECODING)
"""Held while an image is decoded."""


@dataclass(frozen=True)
class Decided:
    """What a version said about an image.

    Attributes:
        inspection: the decision; without the image.
        prediction: what it was decided from, with a map in half precision.
        media_type: of the image file.
    """

    inspection: Inspection
    prediction: Prediction
    media_type: str


class Serving:
    """A version of a model that is loaded.

    Args:
        id: of its row.
        name: of the model.
        version: number of the version.
        inspector: the model.
        batch_size, waiting: see `Batcher`.
    """

    def __init__(
        self,
        id: str,
        name: str,
        version: int,
        inspector: Inspector,
        *,
        batch_size: int = 16,
        waiting: int = 64,
    ) -> None:
        self.id, self.name, self.version, self.inspector = id, name, version, inspector
        self.batcher = Batcher(
            inspector.predictor, inspector.calibration, batch_size=batch_size, waiting=waiting
        )

    @property
    def calibration(self) -> Calibration:
        """The calibration in force."""
        return self.inspector.calibration

    def inspect(
        self, path: Path, product: str | None = None, deadline: float = float("inf")
    ) -> Decided:
        """Inspect an image file.

        Args:
            path: file; its name is not looked at.
            product: that it shows; None: it is recognised.
            deadline: `time.monotonic()` after which nobody needs the result.

        Raises:
            ImageError, SettingsError: wrong input.
            FullError, LateError, ClosedError: see `Batcher`.
        """
        calibration, inspector = self.calibration, self.inspector
        calibration.check_product(product)
        with decoding:
            with opened(path, max_pixels=inspector.max_pixels) as image:
                kind = TYPES.get(str(image.format), "application/octet-stream")
            loaded = load_image(
                source_of(path, calibration, product),
                inspector.image_size,
                whole=calibration.tile > 0,
                max_pixels=inspector.max_pixels,
                white_level=inspector.white_level,
            )
        future = self.batcher.submit(loaded, deadline)
        del loaded
        prediction = replace(future.result(), path=None, file=None, image=None)
        inspection = decide(prediction, calibration, product)
        return Decided(inspection, compact(prediction), kind)

    def close(self) -> None:
        """Process what was accepted, and release the network."""
        self.batcher.close()


def compact(prediction: Prediction) -> Prediction:
    """Return a prediction whose map takes half of the memory."""
    small = prediction.anomaly_map.astype(np.float16)
    limit = float(np.finfo(np.float16).max)
    if not np.isfinite(small).all():
        small = np.clip(prediction.anomaly_map, 0, limit).astype(np.float16)
    return replace(prediction, anomaly_map=small)
