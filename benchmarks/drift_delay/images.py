"""Delays and false alarms of the drift monitor on changed images of the demo's parts.

New normal parts, drawn with other seeds than the demo's, are processed as `snl inspect` does:
network, decision, monitor. After a number of unchanged images, or from the first image on, every
image is changed until the monitor alarms for any product. This is done with the bundle's
calibration, and again after more normal images were added to it.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

import snl
from benchmarks.common import log
from benchmarks.internals import (
    ANOMALOUS,
    UNKNOWN,
    Calibration,
    CalibrationSet,
    Record,
    Verdict,
    judge,
    monitoring,
    set_normals,
    to_input,
)
from snl.demo.dataset import demo_image
from snl.demo.noise import clouds, noise
from snl.demo.parts import PARTS
from snl.demo.scene import Light, Scene, illuminate, photograph
from snl.monitoring.drift import DriftMonitor

Pixels = NDArray[np.uint8]

SEED = 1000
"""First seed of the new parts; the demo uses 0."""
STREAMS, QUIET, WAIT, ADDED = 2, 60, 100, 60
"""Streams per product; unchanged images and changed images of a stream; images per product that
are added to the calibration."""
SHUFFLES, HELD, SHUFFLED_RATE = 40, 20, 0.1
SIZE = 256
BACKGROUND = "other background"
GROUND = np.array([0.3, 0.3, 0.29], np.float32)
"""Colour of the other background, a pale grey; the demo's backgrounds are darker."""


def brighter(image: Pixels, factor: float) -> Pixels:
    """Return an image with its brightness multiplied by a factor."""
    scaled: Pixels = np.clip(np.rint(image * factor), 0, 255).astype(np.uint8)
    return scaled


def blurred(image: Pixels, sigma: float) -> Pixels:
    """Return an image after a Gaussian blur of `sigma` pixels."""
    smooth: Pixels = ndimage.gaussian_filter(image, (sigma, sigma, 0))
    return smooth


CHANGES: Mapping[str, Callable[[Pixels, int], Pixels]] = {
    "brightness x 0.8": lambda image, k: brighter(image, 0.8),
    "brightness x 1.2": lambda image, k: brighter(image, 1.2),
    "blur 1 px": lambda image, k: blurred(image, 1),
    "blur 2 px": lambda image, k: blurred(image, 2),
    "brightness -0.2 % an image": lambda image, k: brighter(image, 1 - 0.002 * (k + 1)),
}
"""Changes of the k-th changed image, by name."""


def on_other_background(product: str, index: int, seed: int) -> Pixels | None:
    """Return a new normal part on another background; None: the product fills the image."""
    rng = np.random.default_rng([seed, *f"{product}/ground/{index}".encode()])
    scene = Scene.empty(SIZE, Light.draw(rng))
    PARTS[product].build(scene, rng, None)
    if scene.body.min() > 0:
        return None
    tone = 1 + 0.05 * noise(rng, SIZE, 0.03) + 0.05 * clouds(rng, SIZE, 0.6)  # as `backdrop`
    scene.rgb += (GROUND[:, None, None] * tone - scene.rgb) * (1 - scene.body)
    return photograph(illuminate(scene), rng)


@dataclass(frozen=True)
class Predictions:
    """Scores and distances of images, in their order."""

    scores: list[float]
    distances: list[dict[str, float]]
    """To each product."""

    def verdicts(self, calibration: Calibration, product: str | None) -> list[Verdict]:
        """Return the decisions, with the product given or (None) recognised."""
        rows = zip(self.scores, self.distances, strict=True)
        return [judge(calibration, score, distances, product) for score, distances in rows]

    def __add__(self, other: Predictions) -> Predictions:
        return Predictions(self.scores + other.scores, self.distances + other.distances)


def predict(inspector: snl.Inspector, images: Sequence[Pixels]) -> Predictions:
    """Return the predictions of images (H, W, 3)."""
    scores: list[float] = []
    rows: list[np.ndarray] = []
    for first in range(0, len(images), 16):
        group = [to_input(image, inspector.image_size) for image in images[first : first + 16]]
        result = inspector.predict(np.stack(group))
        scores += result.scores.tolist()
        rows += list(inspector.calibration.prototypes.distances(result.embeddings))
    names = inspector.calibration.prototypes.names
    return Predictions(scores, [dict(zip(names, row.tolist(), strict=True)) for row in rows])


@dataclass(frozen=True)
class Stream:
    """Images of one product: QUIET unchanged ones, WAIT more, and the latter after each change."""

    product: str
    quiet: Predictions
    unchanged: Predictions
    changed: dict[str, Predictions]


def streams(inspector: snl.Inspector) -> Iterator[Stream]:
    """Yield STREAMS streams of each product."""
    for product in inspector.products:
        for number in range(STREAMS):
            seed = SEED + number
            count = QUIET + WAIT
            images = [
                demo_image(product, index=i, seed=seed, size=SIZE).image for i in range(count)
            ]
            later = images[QUIET:]
            changed = {
                name: predict(inspector, [change(image, k) for k, image in enumerate(later)])
                for name, change in CHANGES.items()
            }
            drawn = [on_other_background(product, i, seed) for i in range(WAIT)]
            other = [image for image in drawn if image is not None]
            if other:
                changed[BACKGROUND] = predict(inspector, other)
            quiet, unchanged = predict(inspector, images[:QUIET]), predict(inspector, later)
            yield Stream(product, quiet, unchanged, changed)
            log(f"{product}, stream {number + 1} of {STREAMS}")


def add_normals(inspector: snl.Inspector) -> None:
    """Add ADDED new normal images of each product to the calibration."""
    with tempfile.TemporaryDirectory() as folder:
        records = []
        for product in inspector.products:
            for i in range(ADDED):
                path = Path(folder) / f"{product}-{i}.png"
                image = demo_image(product, index=i, seed=SEED + STREAMS, size=SIZE).image
                Image.fromarray(image).save(path, compress_level=1)
                records.append(Record(path, product, "test", "normal"))
        set_normals(inspector, records, add=True)


def follow(
    state: dict[str, Any], calibration: Calibration, verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    """Return the first alarm after the change, and shares of the decisions on all its images.

    Args:
        state: of the monitor before the change.
        calibration: of the decisions.
        verdicts: on the changed images.
    """
    monitor = DriftMonitor.from_dict(state)
    alarm: dict[str, Any] = {"delay": None}
    for k, verdict in enumerate(verdicts):
        drift = monitoring.watch(monitor, calibration, verdict, str(k))
        if drift.alarm:
            since = int(drift.since_when or 0)  # negative: before the change
            alarm = {"delay": k + 1, "product": drift.product, "reason": drift.reason}
            alarm["since_error"] = since
            break
    decisions = [verdict.decision for verdict in verdicts]
    alarm["rejected"] = np.mean([d in (ANOMALOUS, UNKNOWN) for d in decisions]).item()
    alarm["unknown"] = np.mean([d == UNKNOWN for d in decisions]).item()
    return alarm


def delays(
    calibration: Calibration, all_streams: Sequence[Stream], known: bool
) -> list[dict[str, Any]]:
    """Return a row per stream and change, after unchanged images and from the first image on.

    Args:
        calibration: of the decisions.
        all_streams: the images.
        known: the product is given; otherwise it is recognised.
    """
    rows = []
    for stream in all_streams:
        product = stream.product if known else None
        start = monitoring.start(calibration).to_dict()
        monitor = DriftMonitor.from_dict(start)
        for k, verdict in enumerate(stream.quiet.verdicts(calibration, product)):
            monitoring.watch(monitor, calibration, verdict, str(k - QUIET))
        early = any(drift.alarm for drift in monitor.status().values())
        states = {QUIET: monitor.to_dict(), 0: start}
        for change, predictions in stream.changed.items():
            verdicts = predictions.verdicts(calibration, product)
            elsewhere = np.mean([verdict.recognised != stream.product for verdict in verdicts])
            for quiet, state in states.items():
                row: dict[str, Any] = {"product": stream.product, "change": change, "quiet": quiet}
                row |= {"early": early and quiet > 0, "elsewhere": elsewhere.item()}
                rows.append(row | {"found": follow(state, calibration, verdicts)})
    return rows


def quiet_alarms(calibration: Calibration, all_streams: Sequence[Stream]) -> dict[str, Any]:
    """Return the alarms of one monitor on the unchanged images, one product after the other."""
    monitor = monitoring.start(calibration)
    rejected = images = 0
    for stream in all_streams:
        for verdict in (stream.quiet + stream.unchanged).verdicts(calibration, None):
            monitoring.watch(monitor, calibration, verdict)
            rejected += verdict.decision in (ANOMALOUS, UNKNOWN)
            images += 1
    alarms = {d.product: d.reason for d in monitor.status().values() if d.alarm}
    evidence = {d.product: d.evidence for d in monitor.status().values()}
    return {"images": images, "rejected": rejected, "alarms": alarms, "evidence": evidence}


def shuffled_alarms(calibration: Calibration, all_streams: Sequence[Stream]) -> dict[str, Any]:
    """Return false alarms where calibration and stream are random draws from unchanged images.

    All images of a product are shuffled SHUFFLES times, so that every order is equally likely and
    false alarms can be counted even at the higher SHUFFLED_RATE.
    """
    alarms = strict_alarms = count = images = 0
    for product, normals in calibration.sets.items():
        unchanged = [s.quiet + s.unchanged for s in all_streams if s.product == product]
        scores = np.concatenate([normals.scores[:HELD], *(part.scores for part in unchanged)])
        rows = [row for part in unchanged for row in part.distances]
        nearest = [min(row.values()) for row in rows]
        distances = np.concatenate([normals.distances[:HELD], nearest])
        for number in range(SHUFFLES):
            order = np.random.default_rng([number, *product.encode()]).permutation(len(scores))
            first, later = order[:HELD], order[HELD:]
            drawn = CalibrationSet(
                scores[first].astype(np.float32),
                distances[first].astype(np.float32),
                normals.peaks[:HELD],
                normals.hashes[:HELD],
            )
            sets = {**calibration.sets, product: drawn}
            shuffled = dataclasses.replace(calibration, sets=sets)
            monitor = monitoring.start(shuffled, SHUFFLED_RATE)
            for score, distance in zip(scores[later], distances[later], strict=True):
                verdict = judge(shuffled, float(score), {product: float(distance)})
                monitoring.watch(monitor, shuffled, verdict)
            evidence = monitor.status()[product].evidence
            alarms += evidence >= 1
            strict_alarms += evidence >= SHUFFLED_RATE / monitoring.FALSE_ALARM
            count, images = count + 1, len(later)
    return {
        "streams": count,
        "images": images,
        "held_back": HELD,
        "alarms": {
            str(SHUFFLED_RATE): int(alarms),
            str(monitoring.FALSE_ALARM): int(strict_alarms),
        },
    }


def run(bundle: Path) -> dict[str, Any]:
    """Return all figures of a bundle of `snl demo`."""
    began = time.perf_counter()
    inspector = snl.load(bundle, "cpu")
    all_streams = list(streams(inspector))
    results: dict[str, Any] = {"quiet": QUIET, "wait": WAIT, "streams": STREAMS, "runs": []}
    results["shuffled"] = shuffled_alarms(inspector.calibration, all_streams)
    for added in (False, True):
        if added:
            add_normals(inspector)
        calibration = inspector.calibration
        results["runs"].append(
            {
                "held_back": {name: len(n) for name, n in calibration.sets.items()},
                "baseline": {n: len(v) for n, v in monitoring.baseline(calibration).items()},
                "unchanged": quiet_alarms(calibration, all_streams),
                "recognised": delays(calibration, all_streams, known=False),
                "given": delays(calibration, all_streams, known=True),
            }
        )
    results["seconds"] = round(time.perf_counter() - began)
    return results
