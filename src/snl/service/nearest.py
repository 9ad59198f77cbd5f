"""The stored normal image that looks most like another one."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from sqlalchemy import or_, select

from snl.decision.prediction import Prediction
from snl.errors import SnlError
from snl.service.blobs import Blobs
from snl.service.store import Store
from snl.service.tables import InspectionRow

CANDIDATES = 200
"""Normal inspections that are compared: the newest of the product, reviewed ones first."""
MOST_KEPT = 4000
"""Embeddings that are kept in memory."""


class Nearest:
    """Finds the normal image that is nearest in the features of the network.

    Args:
        store, blobs: of the inspections.
    """

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self.store, self.blobs = store, blobs
        self._embeddings: OrderedDict[str, np.ndarray | None] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, row: InspectionRow) -> InspectionRow | None:
        """Return the nearest normal inspection of the same product and network; None: none is
        stored.

        Normal is what a person called so, and what was decided so and not called a miss. The
        distance is the cosine distance of the embeddings.
        """
        embedding = self._embedding(row.prediction)
        if embedding is None:
            return None
        best: tuple[float, InspectionRow] | None = None
        for one in self._candidates(row):
            other = self._embedding(one.prediction)
            if other is None or other.shape != embedding.shape:
                continue
            similarity = float(embedding @ other)
            if best is None or similarity > best[0]:
                best = (similarity, one)
        return None if best is None else best[1]

    def _candidates(self, row: InspectionRow) -> list[InspectionRow]:
        one = InspectionRow
        query = (
            select(one)
            .where(one.product == row.product, one.network == row.network, one.bytes > 0)
            .where(one.id != row.id, one.image != row.image)
            .order_by(one.id.desc())
            .limit(CANDIDATES)
        )
        decided = (one.decision == "normal") & one.review.is_(None)
        confirmed = (one.decision == "normal") & (one.review == "confirmed")
        good = or_(one.review == "false alarm", confirmed)
        with self.store.reading() as session:
            reviewed = session.scalars(query.where(good)).all()
            return [*reviewed, *session.scalars(query.where(decided).limit(CANDIDATES)).all()]

    def _embedding(self, digest: str) -> np.ndarray | None:
        """Return the embedding of a stored prediction, of length 1; None: it is not kept."""
        with self._lock:
            if digest in self._embeddings:
                self._embeddings.move_to_end(digest)
                return self._embeddings[digest]
        embedding: np.ndarray | None = None
        try:
            content = self.blobs.get(digest)
            if content is not None:
                vector = Prediction.from_bytes(content).embedding.astype(np.float32)
                embedding = vector / (float(np.linalg.norm(vector)) or 1.0)
        except (SnlError, OSError):
            embedding = None
        with self._lock:
            self._embeddings[digest] = embedding
            if len(self._embeddings) > MOST_KEPT:
                self._embeddings.popitem(last=False)
        return embedding
