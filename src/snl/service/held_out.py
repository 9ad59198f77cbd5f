"""The held-out images of a calibration, with what the store knows about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, or_, select

from snl.decision.calibration import Calibration
from snl.service.store import Store
from snl.service.tables import InspectionRow, SetImageRow

_OF_JOB = re.compile(r"(?:.*/)?\d{4}-(?P<image>[0-9a-f]{32})\.[a-z]+")
"""Names that jobs give to image files."""
_ROWS = 100
"""Images that are looked up at a time."""


@dataclass(frozen=True)
class HeldOutImage:
    """A held-out image.

    Attributes:
        score: to be compared with the thresholds of its product.
        name: of the file; None: not known.
        set, image: of an image that is in a set; None: it is not, or not any more.
        inspection: id of one whose image it is, if that is kept.
    """

    score: float
    name: str | None
    set: str | None = None
    image: str | None = None
    inspection: str | None = None


def held_out(store: Store, calibration: Calibration) -> dict[str, list[HeldOutImage]]:
    """Return the held-out images of every product, by score.

    Images that a job has measured are found in the store by their content.
    """
    found: dict[str, list[HeldOutImage]] = {}
    for product, data in calibration.sets.items():
        scores = calibration.raised_scores(product).tolist()
        rows = sorted(zip(scores, data.names.tolist(), strict=True))
        found[product] = [HeldOutImage(score, name or None) for score, name in rows]
    names = {one.name for images in found.values() for one in images}
    known = _known(store, sorted({start for name in names if (start := _content(name))}))
    return {
        product: [replace(one, **known.get(_content(one.name), {})) for one in images]
        for product, images in found.items()
    }


def _content(name: str | None) -> str:
    """Return the first half of the SHA-256 of a file that a job has named; empty: another file."""
    match = _OF_JOB.fullmatch(name or "")
    return match["image"] if match else ""


def _known(store: Store, starts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return name, set, image and inspection of files, by the first half of their SHA-256."""
    known: dict[str, dict[str, Any]] = {}
    row, one = InspectionRow, SetImageRow
    with store.reading() as session:
        for first in range(0, len(starts), _ROWS):
            some = starts[first : first + _ROWS]
            inspections = select(row.id, row.name, row.image).where(
                row.bytes > 0, _begins(row.image, some)
            )
            for id, name, image in session.execute(inspections.order_by(row.id)):
                known[image[:32]] = {"name": name or None, "inspection": id}
            in_sets = select(one.id, one.name, one.set, one.image).where(_begins(one.image, some))
            for id, name, of, image in session.execute(in_sets.order_by(one.id)):
                facts = {"name": name or None, "set": of, "image": id}
                known[image[:32]] = {**known.get(image[:32], {}), **facts}
    return known


def _begins(column: Any, starts: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that a SHA-256 begins so, which an index can answer."""
    return or_(*(column.between(start, f"{start}g") for start in starts))
