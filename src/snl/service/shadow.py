"""Shadow runs: what another version would decide on the same images, without a say in it."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from snl.decision.decide import decide
from snl.decision.inspection import Inspection
from snl.decision.prediction import Prediction
from snl.errors import ImageError, SnlError
from snl.service.batching import ClosedError
from snl.service.blobs import Blobs
from snl.service.models import Models
from snl.service.serving import Serving
from snl.service.store import Store
from snl.service.tables import InspectionRow, ModelRow, ShadowRow

log = logging.getLogger("snl.service")

WAITING = 64
"""Inspections that may wait for their shadows; while more wait, live ones are left out."""
MOST_REPLAYED = 10_000
"""Stored inspections of one replay."""


@dataclass(frozen=True)
class Comparison:
    """Decisions of a version beside those that were made.

    Attributes:
        inspections: how many both have decided.
        counts: of (decision that was made, decision of the version).
        changed: ids whose decision or product differs, newest first.
        better: changed ones with a review by which the version is right.
        worse: those by which it is wrong.
    """

    inspections: int
    counts: dict[tuple[str, str], int]
    changed: Sequence[str]
    better: int
    worse: int


class Shadows:
    """Lets shadow versions decide what the active ones have decided, in one thread.

    Live inspections never wait for it: where it cannot follow, they are left out, and counted.

    Args:
        store, blobs: of the inspections.
        models: that may have shadows.
    """

    def __init__(self, store: Store, blobs: Blobs, models: Models) -> None:
        self.store, self.blobs, self.models = store, blobs, models
        self.dropped = 0
        self._queue: queue.Queue[tuple[InspectionRow, str] | None] = queue.Queue()
        self._closed = False
        self._deciding = ""
        """Id of the inspection that is decided now."""
        self._thread = threading.Thread(target=self._run, name="snl-shadow", daemon=True)
        self._thread.start()

    def follow(self, row: InspectionRow, model: str) -> None:
        """Let the shadows of a model decide an inspection that was just stored."""
        for serving in self.models.shadows(model):
            if self._queue.qsize() >= WAITING:
                self.dropped += 1
            else:
                self._queue.put((row, serving.id))

    def replay(self, id: str, most: int = 1000) -> int:
        """Let a shadow version decide the newest stored inspections of its model.

        Returns:
            How many it will decide; those that it has decided already are left out.

        Raises:
            ModelError: there is no such version.
        """
        version = self.models.row(id)
        versions = select(ModelRow.id).where(ModelRow.name == version.name)
        done = select(ShadowRow.inspection).where(ShadowRow.model == id)
        query = (
            select(InspectionRow)
            .where(InspectionRow.model.in_(versions), InspectionRow.bytes > 0)
            .where(InspectionRow.id.not_in(done))
            .order_by(InspectionRow.id.desc())
            .limit(min(most, MOST_REPLAYED))
        )
        with self.store.reading() as session:
            rows = session.scalars(query).all()
        for row in rows:
            self._queue.put((row, id))
        return len(rows)

    @property
    def waiting(self) -> int:
        """Number of inspections that a shadow has yet to decide."""
        return self._queue.unfinished_tasks

    def needed(self) -> set[str]:
        """Return the ids of the inspections whose files are needed now."""
        with self._queue.mutex:
            return {self._deciding, *(job[0].id for job in self._queue.queue if job)}

    def compare(self, id: str, most: int = 100) -> Comparison:
        """Return the decisions of a version beside those that were made.

        Raises:
            ModelError: there is no such version.
        """
        self.models.row(id)
        made, other = InspectionRow, aliased(ShadowRow)
        both = (
            select(made.decision, other.decision, func.count())
            .join(other, other.inspection == made.id)
            .where(other.model == id)
            .group_by(made.decision, other.decision)
        )
        differs = (made.decision != other.decision) | (made.product != other.product)
        changed = (
            select(made.id, made.decision, other.decision, made.review)
            .join(other, other.inspection == made.id)
            .where(other.model == id, differs)
            .order_by(made.id.desc())
        )
        with self.store.reading() as session:
            counts = {(was, now): count for was, now, count in session.execute(both)}
            rows = session.execute(changed).all()
        better = worse = 0
        for _, was, now, review in rows:
            if review is None:
                continue
            is_normal = is_normal_by(was, review)
            flagged = now != "normal"
            if flagged != (was != "normal"):
                better += flagged != is_normal
                worse += flagged == is_normal
        return Comparison(
            sum(counts.values()), counts, [row[0] for row in rows[:most]], better, worse
        )

    def decision(self, id: str, inspection: str) -> ShadowRow | None:
        """Return what a version would have decided about an inspection; None: it has not."""
        with self.store.reading() as session:
            return session.get(ShadowRow, (inspection, id))

    def close(self) -> None:
        """Stop; what waits is left out."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            if self._closed:
                continue
            row, id = job
            self._deciding = row.id
            try:
                if (serving := self.models.loaded(id)) is not None:
                    self._decide(row, serving)
            except ClosedError:
                continue
            except (SnlError, OSError) as error:
                log.warning("shadow version %s, inspection %s: %s", id, row.id, error)
            except Exception:  # the thread must live
                log.exception("shadow version %s, inspection %s", id, row.id)
            finally:
                self._deciding = ""
                self._queue.task_done()

    def _decide(self, row: InspectionRow, serving: Serving) -> None:
        given = row.product if row.result.get("product_from") == "given" else None
        if given not in (None, *serving.calibration.products):
            given = None
        result = self._from_prediction(row, serving, given)
        if result is None:
            path = self.blobs.path(row.image)
            if not path.is_file():
                raise ImageError("the image is no longer kept")
            result = serving.inspect(path, given).inspection
        with self.store.writing() as session:
            session.merge(
                ShadowRow(
                    inspection=row.id,
                    model=serving.id,
                    decision=result.decision,
                    product=result.product,
                    score=result.score,
                    p_value=result.p_value,
                )
            )

    def _from_prediction(
        self, row: InspectionRow, serving: Serving, given: str | None
    ) -> Inspection | None:
        """Decide the stored prediction again, if the version has the network that made it."""
        if row.network != serving.calibration.network:
            return None
        content = self.blobs.get(row.prediction)
        if content is None:
            return None
        before = self.models.read(row.model).calibration
        if (before.tile, before.rois) != (serving.calibration.tile, serving.calibration.rois):
            return None
        return decide(Prediction.from_bytes(content), serving.calibration, given)


def is_normal_by(decision: str, review: str) -> bool:
    """Return whether a review says that the part is normal.

    A confirmed alarm and a miss are anomalous; a confirmed normal part and a false alarm are not.
    """
    return review == "false alarm" or (review == "confirmed" and decision == "normal")
