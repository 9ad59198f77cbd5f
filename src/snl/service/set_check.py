"""Whether a set of images is fit to be learned from: what `snl doctor` says, and odd images.

The work is bounded: of a large set evenly spaced images are looked at, and not for longer than
about a minute. Checks run one at a time, and the last results are kept.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snl.data.catalog import Catalog
from snl.data.diagnosis import Diagnosis
from snl.data.doctor import FEW_IMAGES, diagnose
from snl.data.records import Record
from snl.data.stream import Loaded
from snl.data.stream import load as load_image
from snl.decision.prediction import Prediction
from snl.errors import ImageError, NotFiniteError, SnlError
from snl.service.batching import ClosedError, FullError, LateError
from snl.service.models import Models
from snl.service.serving import Serving, decoding
from snl.service.sets import Sets
from snl.service.tables import SetImageRow

MOST_IMAGES = 200
"""Images of a set that are looked at."""
DECODING_SECONDS, NETWORK_SECONDS = 25.0, 25.0
"""How long images are checked, and then embedded."""
MOST_ODD = 12
ENOUGH = 10
"""Images from which on a set says what is usual in it."""
ODD = 3.5
"""Robust standard deviations from which an image is unlike the others."""
NEIGHBOURS = 3
_LEAST_DEVIATION = 0.1
"""Of the logarithm of a distance: where all distances are nearly equal, none is odd."""
_TOGETHER = 4
"""Images that wait for the network at a time; requests come between them."""
_SHOWN = 10
"""Problems of a kind that are listed."""
_KEPT = 8
_NOT_OF_SETS = ("too few images for a threshold", "colliding names")
"""Kinds of problems that a set of normal images cannot have."""
_FEW = ("too few training images", "few training images")
"""Kinds that count images; of a larger set the doctor may have looked at few."""


class BusyError(SnlError):
    """Another set is being checked."""


@dataclass(frozen=True)
class Finding:
    """A sentence about a set.

    Attributes:
        level: `error`, `warning` or `note`.
        message: in words.
        image: id of the image that it is about; None: the set.
    """

    level: str
    message: str
    image: str | None = None


@dataclass(frozen=True)
class OddImage:
    """An image that looks unlike the others of its set.

    Attributes:
        id, name: of the image.
        why: in words.
        z: robust standard deviations beyond the median image.
    """

    id: str
    name: str
    why: str
    z: float


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        images: of the set.
        checked: images that were decoded and checked.
        compared: images that were compared with one another.
        findings: errors first, then warnings, then notes.
        odd: images unlike the others, the most unlike first.
        model: version whose network compared them; empty: there is no model.
    """

    images: int
    checked: int
    compared: int
    findings: tuple[Finding, ...]
    odd: tuple[OddImage, ...]
    model: str


class SetChecks:
    """Checks sets.

    Args:
        sets: of images.
        models: the active version of the first one compares images.
    """

    def __init__(self, sets: Sets, models: Models) -> None:
        self.sets, self.models = sets, models
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, ...], Check] = OrderedDict()

    def check(self, name: str, model: str = "") -> Check:
        """Return what there is to say about a set.

        Args:
            name: of the set.
            model: whose active version compares the images; empty: the first one.

        Raises:
            NotThereError: there is no such set, or no model of this name.
            BusyError: another set is being checked.
        """
        rows = self.sets.images(name)
        serving = self.models.active(model) if model or self.models.names() else None
        key = ("" if serving is None else serving.id, *(row.id for row in rows))
        if (kept := self._kept.get(key)) is not None:
            return kept
        with _only_one(self._lock):
            found = self._kept[key] = self._checked(rows, serving)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return found

    def _checked(self, rows: Sequence[SetImageRow], serving: Serving | None) -> Check:
        chosen = _evenly(rows, MOST_IMAGES)
        paths = {self.sets.blobs.path(row.image): row for row in chosen}
        diagnosis, checked = _diagnose(paths, self.models.limits()[0])
        findings = _findings(diagnosis, paths)
        embedded: list[tuple[SetImageRow, NDArray[np.floating]]] = []
        if serving is None:
            text = "there is no model yet, so the images were not compared with one another"
            notes = [Finding("note", text)]
        else:
            embedded, notes = _embedded(paths, serving)
        if checked < len(rows):
            text = f"{checked} of {len(rows)} images were checked, evenly spread over the set"
            notes.insert(0, Finding("note", text))
        order = {"error": 0, "warning": 1, "note": 2}
        findings = sorted([*findings, *notes], key=lambda one: order[one.level])
        odd = odd_images(embedded)
        model = "" if serving is None else serving.id
        return Check(len(rows), checked, len(embedded), tuple(findings), tuple(odd), model)


def odd_images(embedded: Sequence[tuple[SetImageRow, NDArray[np.floating]]]) -> list[OddImage]:
    """Return the images that are unlike the others, the most unlike first, at most `MOST_ODD`.

    An image is odd if the logarithm of its mean distance to its nearest `NEIGHBOURS` is more than
    `ODD` robust standard deviations (1.4826 times the median absolute deviation, at least 0.1)
    above the median of the set.

    Args:
        embedded: images with their embeddings (D,); fewer than `ENOUGH` say nothing.
    """
    if len(embedded) < ENOUGH:
        return []
    rows = np.stack([values for _, values in embedded]).astype(np.float64)
    squares = (rows**2).sum(1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0))
    np.fill_diagonal(distances, np.inf)
    near = np.sort(distances, axis=1)[:, :NEIGHBOURS].mean(1)
    logs = np.log(np.maximum(near, 1e-6))
    median = float(np.median(logs))
    deviation = max(1.4826 * float(np.median(np.abs(logs - median))), _LEAST_DEVIATION)
    deviations = (logs - median) / deviation
    found = [
        OddImage(
            row.id,
            row.name,
            f"{np.exp(logs[i] - median):.1f} times as far from the images most like it as is usual "
            "in this set",
            round(float(deviations[i]), 2),
        )
        for i, (row, _) in enumerate(embedded)
        if deviations[i] > ODD
    ]
    return sorted(found, key=lambda one: -one.z)[:MOST_ODD]


def _diagnose(paths: dict[Path, SetImageRow], max_pixels: int) -> tuple[Diagnosis, int]:
    """Return what the doctor says, and the number of images that it has looked at."""
    records = tuple(Record(path, "set", "train", "normal") for path in paths)
    done = 0

    def count(number: int, _: int) -> None:
        nonlocal done
        done = number

    diagnosis = diagnose(
        Catalog(next(iter(paths)).parents[2], "folders", records),
        workers=2,
        max_pixels=max_pixels,
        seconds=DECODING_SECONDS,
        progress=count,
    )
    return diagnosis, done


def _findings(diagnosis: Diagnosis, paths: dict[Path, SetImageRow]) -> list[Finding]:
    """Return the problems as sentences that name images as their owner has named them."""
    names = {diagnosis.catalog.relative(path): row for path, row in paths.items()}
    shown: dict[str, int] = {}
    found = []
    ignored = _NOT_OF_SETS + (_FEW if len(paths) >= FEW_IMAGES else ())
    for problem in diagnosis.problems:
        if problem.kind in ignored:
            continue
        row = names.get(problem.where)
        shown[problem.kind] = shown.get(problem.kind, 0) + 1
        if shown[problem.kind] <= _SHOWN:
            subject = "the set" if row is None else row.name or f"image {row.id}"
            text = f"{subject}: {problem.what}"
            found.append(Finding(problem.severity, text, None if row is None else row.id))
    for kind, count in shown.items():
        if count > _SHOWN:
            found.append(Finding("note", f"{kind}: {count - _SHOWN} more images"))
    return found


def _embedded(
    paths: dict[Path, SetImageRow], serving: Serving
) -> tuple[list[tuple[SetImageRow, NDArray[np.floating]]], list[Finding]]:
    """Return the images that the network has embedded, and what is to be said about the others."""
    end = time.monotonic() + NETWORK_SECONDS
    embedded: list[tuple[SetImageRow, NDArray[np.floating]]] = []
    if len(paths) < ENOUGH:
        text = f"fewer than {ENOUGH} images: too few to say which of them look unlike the others"
        return [], [Finding("note", text)]
    files = list(paths)
    done = 0
    try:
        while done < len(files) and time.monotonic() < end:
            some = files[done : done + _TOGETHER]
            embedded += [(paths[path], values) for path, values in _batch(some, serving, end)]
            done += len(some)
    except (FullError, LateError, ClosedError):
        pass  # the service has other things to do; what was embedded counts
    if done == len(files):
        return embedded, []
    text = f"{len(embedded)} of {len(files)} images were compared: the service has no time for more"
    return embedded, [Finding("note", text)]


def _batch(
    files: Sequence[Path], serving: Serving, end: float
) -> list[tuple[Path, NDArray[np.floating]]]:
    """Return the embeddings of whole images; those that cannot be read are left out.

    Raises:
        FullError, LateError, ClosedError: see `Batcher`.
    """
    inspector, waiting = serving.inspector, []
    for path in files:
        try:
            with decoding:
                loaded = load_image(
                    path,
                    inspector.image_size,
                    whole=serving.calibration.tile > 0,
                    max_pixels=inspector.max_pixels,
                    white_level=inspector.white_level,
                )
        except ImageError:
            continue  # the doctor has said so
        waiting.append((path, _submitted(serving, loaded, end)))
    found = []
    for path, future in waiting:
        try:
            found.append((path, future.result().embedding))
        except NotFiniteError:
            continue
    return found


def _submitted(serving: Serving, loaded: Loaded, end: float) -> Future[Prediction]:
    """Give an image to the network; where requests fill the queue, wait for room.

    Raises:
        FullError: there was none until the end.
        ClosedError: another version has become active.
    """
    while True:
        try:
            return serving.batcher.submit(loaded, end)
        except FullError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def _evenly(rows: Sequence[SetImageRow], most: int) -> list[SetImageRow]:
    """Return at most so many rows, evenly spaced, in an order whose beginning is so, too."""
    places = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int).tolist()
    return [rows[place] for first in range(8) for place in places[first::8]]


@contextmanager
def _only_one(lock: threading.Lock) -> Iterator[None]:
    """Hold a lock for the `with` block.

    Raises:
        BusyError: it is held.
    """
    if not lock.acquire(blocking=False):
        raise BusyError("a set is being checked; try again later")
    try:
        yield
    finally:
        lock.release()
