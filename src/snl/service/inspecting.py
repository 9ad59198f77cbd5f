"""From an uploaded image to an inspection in the store, and from the store to pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import BoundedSemaphore
from typing import Any

import numpy as np

from snl.data.image_file import ImageFile
from snl.data.source import opened
from snl.data.stream import load
from snl.decision.decide import decide
from snl.decision.inspection import Inspection
from snl.decision.prediction import Prediction
from snl.decision.recognition import source_of
from snl.errors import DataError, ImageError
from snl.runtime.inspector import Inspector
from snl.service.batching import Batcher
from snl.service.blobs import Blobs
from snl.service.ids import new_id
from snl.service.store import Store
from snl.service.tables import InspectionRow

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


@dataclass(frozen=True)
class Upload:
    """An image that a client sent.

    Attributes:
        content: of the file.
        name: that the client gave; it is only shown.
        product: that the image shows; None: it is recognised.
        part: physical part.
        key: idempotency key; None: none.
        client: who sent it.
        deadline: `time.monotonic()` after which nobody needs the answer.
    """

    content: bytes
    name: str = ""
    product: str | None = None
    part: str = ""
    key: str | None = None
    client: str = ""
    deadline: float = float("inf")


class Line:
    """A model with the store that its inspections go to.

    Args:
        inspector: the model.
        store: of inspections.
        blobs: for images and predictions.
        name: of the model's file, as the API shows it.
        batch_size: images that the network processes together.
        waiting: images that may wait.
    """

    def __init__(
        self,
        inspector: Inspector,
        store: Store,
        blobs: Blobs,
        *,
        name: str = "",
        batch_size: int = 16,
        waiting: int = 64,
    ) -> None:
        self.name = name
        self.inspector, self.store, self.blobs = inspector, store, blobs
        self.batcher = Batcher(
            inspector.predictor, inspector.calibration, batch_size=batch_size, waiting=waiting
        )
        self._decoding = BoundedSemaphore(MOST_DECODING)

    def inspect(self, upload: Upload) -> InspectionRow:
        """Inspect an image; when this returns, the inspection is in the store.

        Raises:
            ImageError, SettingsError: wrong input.
            FullError, LateError, ClosedError: see `Batcher`.
            DuplicateError: the idempotency key was used, at the same time or before.
            StoreError, OSError: it could not be stored.
        """
        calibration = self.inspector.calibration
        calibration.check_product(upload.product)
        if not upload.content:
            raise ImageError("the image is empty")
        with self.blobs.incoming(upload.content) as path:
            try:
                with self._decoding:
                    with opened(path, max_pixels=self.inspector.max_pixels) as image:
                        kind = TYPES.get(str(image.format), "application/octet-stream")
                    loaded = load(
                        source_of(path, calibration, upload.product),
                        self.inspector.image_size,
                        whole=calibration.tile > 0,
                        max_pixels=self.inspector.max_pixels,
                        white_level=self.inspector.white_level,
                    )
            except ImageError as error:
                text = str(error).replace(str(path), upload.name or "the image")
                raise ImageError(text) from None
            future = self.batcher.submit(loaded, upload.deadline)
            del loaded
            prediction = replace(future.result(), path=upload.name or None, file=None, image=None)
        result = decide(prediction, calibration, upload.product)
        row = InspectionRow(
            id=new_id(),
            created=datetime.now(UTC),
            idempotency_key=upload.key,
            client=upload.client[:100],
            name=upload.name[:300],
            part=upload.part[:200],
            product=result.product,
            decision=result.decision,
            score=result.score,
            p_value=result.p_value,
            network=calibration.network,
            calibration=calibration.created,
            result=result.to_dict(),
            image=self.blobs.put(upload.content),
            image_type=kind,
            prediction=self.blobs.put(compact(prediction).to_bytes()),
            review=None,
        )
        self.store.add(row).result()
        return row

    def again(self, row: InspectionRow) -> Inspection:
        """Return an inspection of the store with its map and image, as it was decided.

        Raises:
            DataError: what it was made from is no longer kept.
        """
        content = self.blobs.get(row.prediction) if row.prediction else None
        if content is None:
            raise DataError("the map of this inspection is no longer kept")
        prediction = Prediction.from_bytes(content)
        path = self.blobs.path(row.image)
        file = ImageFile(
            str(path),
            prediction.size,
            max_pixels=self.inspector.max_pixels,
            white_level=self.inspector.white_level,
        )
        given = row.product if row.result.get("product_from") == "given" else None
        found = decide(replace(prediction, file=file), self.inspector.calibration, given)
        return replace(found, **_stored(row.result))

    def close(self) -> None:
        """Process what was accepted, and stop."""
        self.batcher.close()


def compact(prediction: Prediction) -> Prediction:
    """Return a prediction whose map takes half of the memory."""
    small = prediction.anomaly_map.astype(np.float16)
    limit = float(np.finfo(np.float16).max)
    if not np.isfinite(small).all():
        small = np.clip(prediction.anomaly_map, 0, limit).astype(np.float16)
    return replace(prediction, anomaly_map=small)


def _stored(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the verdict of an inspection as it was."""
    names = (
        *("decision", "product", "product_from", "recognised", "distance", "second_distance"),
        *("unknown_distance", "unknown_p", "unusual_p", "strangeness", "score", "calibrated"),
        *("p_value", "p_value_from", "threshold", "uncertain_threshold", "threshold_from"),
        "region_threshold",
    )
    return {name: result[name] for name in names}
