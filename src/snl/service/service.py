"""The service: models, store and files together, without HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from snl.data.image_file import ImageFile
from snl.decision.decide import decide
from snl.decision.inspection import Inspection
from snl.decision.prediction import Prediction
from snl.errors import DataError, ImageError
from snl.service.batching import ClosedError
from snl.service.blobs import Blobs
from snl.service.download import Downloads
from snl.service.drift import DriftWatch, verdict
from snl.service.ids import new_id
from snl.service.jobs import Jobs
from snl.service.live import Feed
from snl.service.models import LoadOptions, Models
from snl.service.nearest import Nearest
from snl.service.policy import Policy
from snl.service.retention import Retention
from snl.service.serving import Decided, Serving
from snl.service.set_check import SetChecks
from snl.service.sets import Sets
from snl.service.shadow import Shadows
from snl.service.sinks.outbox import Sinks
from snl.service.sources.manager import Sources
from snl.service.store import Store
from snl.service.tables import InspectionRow
from snl.service.thumbnails import Thumbnails
from snl.service.upload import Upload


class Service:
    """Inspects images with models, and keeps what they decided.

    Args:
        store: of all rows.
        data: folder of the files.
        models: model files; each is a model of the name of the file.
        options: how models are loaded.
        policy: what sources and sinks that are set up later may reach.
        sources, sinks: of the configuration, settings by name.
        keep_bytes: images and maps beyond this size are deleted, oldest first; None: never.
        keep_days: older ones are deleted; None: never. Limits that the store has come first.
    """

    def __init__(
        self,
        store: Store,
        data: Path,
        models: Sequence[Path],
        options: LoadOptions | None = None,
        *,
        policy: Policy | None = None,
        sources: Mapping[str, Mapping[str, Any]] | None = None,
        sinks: Mapping[str, Mapping[str, Any]] | None = None,
        keep_bytes: int | None = None,
        keep_days: float | None = None,
    ) -> None:
        self.store, self.data = store, data
        self.policy = policy or Policy()
        with ExitStack() as stack:
            self.blobs = Blobs(data / "files")
            self.sinks = Sinks(store, sinks, self.policy)
            stack.callback(self.sinks.close)
            store.events_of = self.sinks.events_of
            self.feed = Feed()
            store.changed = self.feed.publish
            self.models = Models(store, data / "models", options)
            stack.callback(self.models.close)
            self.models.start(models)
            self.drift = DriftWatch(store, self.models, data / "drift")
            stack.callback(self.drift.close)
            self.shadows = Shadows(store, self.blobs, self.models)
            stack.callback(self.shadows.close)
            self.nearest = Nearest(store, self.blobs)
            self.sets = Sets(store, self.blobs)
            self.set_checks = SetChecks(self.sets, self.models)
            self.thumbnails = Thumbnails(self.blobs)
            self.downloads = Downloads(store, data)
            stack.callback(self.downloads.close)
            self.jobs = Jobs(store, self.models, self.sets, data / "jobs")
            stack.callback(self.jobs.close)
            self.retention = Retention(store, self.blobs, self.shadows, keep_bytes, keep_days)
            self.retention.start()
            stack.callback(self.retention.close)
            self.sources = Sources(store, self.models, self.inspect, sources or {}, self.policy)
            stack.callback(self.sources.close)  # before everything that they need
            self.sources.start()
            self._stack = stack.pop_all()

    def inspect(self, upload: Upload) -> InspectionRow:
        """Inspect an image; when this returns, the inspection is in the store.

        Raises:
            ImageError, SettingsError: wrong input.
            ModelError: there is no such model.
            FullError, LateError, ClosedError: see `Batcher`.
            DuplicateError: the idempotency key was used, at the same time or before.
            StoreError, OSError: it could not be stored.
        """
        if not upload.content:
            raise ImageError("the image is empty")
        serving, decided = self._decided(upload)
        with self.blobs.keeping() as put:
            row = self._row(upload, serving, decided, put)
            self.store.add(row).result()
        self.sinks.wake()
        self.feed.publish("inspection", row.id)
        self.drift.watch(row)
        self.shadows.follow(row, serving.name)
        return row

    def _row(
        self, upload: Upload, serving: Serving, decided: Decided, put: Callable[[bytes], str]
    ) -> InspectionRow:
        """Store the files of an inspection, and return its row."""
        calibration, result = serving.calibration, decided.inspection
        prediction = decided.prediction.to_bytes()
        return InspectionRow(
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
            model=serving.id,
            network=calibration.network,
            calibration=calibration.created,
            result=replace(
                result, prediction=replace(result.prediction, path=upload.name or None)
            ).to_dict(),
            image=put(upload.content),
            image_type=decided.media_type,
            prediction=put(prediction),
            bytes=len(upload.content) + len(prediction),
            review=None,
        )

    def _decided(self, upload: Upload) -> tuple[Serving, Decided]:
        """Decide with the active version, also while it is replaced by another."""
        with self.blobs.incoming(upload.content) as path:
            while True:
                serving = self.models.active(upload.model)
                try:
                    return serving, serving.inspect(path, upload.product, upload.deadline)
                except ClosedError:
                    if self.models.active(upload.model) is serving:
                        raise
                except ImageError as error:
                    text = str(error).replace(str(path), upload.name or "the image")
                    raise ImageError(text) from None

    def again(self, row: InspectionRow) -> Inspection:
        """Return an inspection of the store with its map and image, as it was decided.

        Raises:
            DataError: what it was made from is no longer kept.
        """
        content = self.blobs.get(row.prediction) if row.bytes else None
        if content is None:
            raise DataError("the map of this inspection is no longer kept")
        prediction = Prediction.from_bytes(content)
        traits = self.models.read(row.model)
        path = str(self.blobs.path(row.image))
        file = ImageFile(path, prediction.size, white_level=traits.white_level)
        given = row.product if row.result.get("product_from") == "given" else None
        named = replace(prediction, file=file, path=row.name or None)
        found = decide(named, traits.calibration, given)
        return replace(found, **vars(verdict(row.result)))

    def close(self) -> None:
        """Process what was accepted, and stop."""
        self._stack.close()
