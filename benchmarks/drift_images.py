"""How soon the drift monitor finds changed images of the demo's parts, and how often it is wrong.

    snl demo --out demo
    python benchmarks/drift_images.py run demo/demo.snl -o docs/results/drift-images.json
    python benchmarks/drift_images.py table docs/results/drift-images.json

New normal parts of other seeds than the demo's go the way of `snl inspect`: network, verdict,
monitor. After a quiet time, or from the first one on, every image is changed, until the alarm of
any product. Twice: by the bundle's own calibration, and with more normal images added to it. Five
to eight minutes on one core.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
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

import drift_images_table
import snl
from snl.data.catalog import Record
from snl.data.images import to_input
from snl.decision.calibration import ANOMALOUS, UNKNOWN, Calibration, Normals, Verdict
from snl.demo.dataset import demo_image
from snl.demo.parts import PARTS
from snl.demo.scene import Light, Scene, clouds, illuminate, noise, photograph
from snl.files import write_text
from snl.monitoring import baseline as monitoring
from snl.monitoring.drift import DriftMonitor
from snl.runtime.recalibrate import set_normals

Pixels = NDArray[np.uint8]

SEED = 1000  # not the demo's, which is 0
STREAMS, QUIET, WAIT, ADDED = 2, 60, 100, 60
SHUFFLES, HELD, SHUFFLED_RATE = 40, 20, 0.1
SIZE = 256
BACKGROUND = "other background"
GROUND = np.array([0.3, 0.3, 0.29], np.float32)  # pale grey; those of the demo are darker


def brighter(image: Pixels, factor: float) -> Pixels:
    found: Pixels = np.clip(np.rint(image * factor), 0, 255).astype(np.uint8)
    return found


def blurred(image: Pixels, sigma: float) -> Pixels:
    found: Pixels = ndimage.gaussian_filter(image, (sigma, sigma, 0))
    return found


CHANGES: Mapping[str, Callable[[Pixels, int], Pixels]] = {
    "brightness x 0.8": lambda image, k: brighter(image, 0.8),
    "brightness x 1.2": lambda image, k: brighter(image, 1.2),
    "blur 1 px": lambda image, k: blurred(image, 1),
    "blur 2 px": lambda image, k: blurred(image, 2),
    "brightness -0.2 % an image": lambda image, k: brighter(image, 1 - 0.002 * (k + 1)),
}


def on_other_ground(product: str, index: int, seed: int) -> Pixels | None:
    """A new normal part of the demo on another ground; None: the product fills the image."""
    rng = np.random.default_rng([seed, *f"{product}/ground/{index}".encode()])
    scene = Scene.empty(SIZE, Light.draw(rng))
    PARTS[product].build(scene, rng, None)
    if scene.body.min() > 0:
        return None
    tone = 1 + 0.05 * noise(rng, SIZE, 0.03) + 0.05 * clouds(rng, SIZE, 0.6)  # as `backdrop`
    scene.rgb += (GROUND[:, None, None] * tone - scene.rgb) * (1 - scene.body)
    return photograph(illuminate(scene), rng)


@dataclass(frozen=True)
class Seen:
    """What the network says of images, in their order."""

    scores: list[float]
    distances: list[dict[str, float]]
    """To every product."""

    def verdicts(self, calibration: Calibration, product: str | None) -> list[Verdict]:
        both = zip(self.scores, self.distances, strict=True)
        return [calibration.judge(score, row, product) for score, row in both]

    def __add__(self, other: Seen) -> Seen:
        return Seen(self.scores + other.scores, self.distances + other.distances)


def look(inspector: snl.Inspector, images: Sequence[Pixels]) -> Seen:
    scores: list[float] = []
    rows: list[np.ndarray] = []
    for first in range(0, len(images), 16):
        group = [to_input(image, inspector.image_size) for image in images[first : first + 16]]
        found = inspector.predict(np.stack(group))
        scores += found.scores.tolist()
        rows += list(inspector.prototypes.distances(found.embeddings))
    names = inspector.prototypes.names
    return Seen(scores, [dict(zip(names, row.tolist(), strict=True)) for row in rows])


@dataclass(frozen=True)
class Stream:
    """Quiet images of a product, WAIT more of them, and those changed."""

    product: str
    quiet: Seen
    unchanged: Seen
    changed: dict[str, Seen]


def streams(inspector: snl.Inspector) -> Iterator[Stream]:
    for product in inspector.products:
        for number in range(STREAMS):
            seed = SEED + number
            count = QUIET + WAIT
            images = [
                demo_image(product, index=i, seed=seed, size=SIZE).image for i in range(count)
            ]
            later = images[QUIET:]
            changed = {
                name: look(inspector, [change(image, k) for k, image in enumerate(later)])
                for name, change in CHANGES.items()
            }
            other = [on_other_ground(product, i, seed) for i in range(WAIT)]
            there = [image for image in other if image is not None]
            if there:
                changed[BACKGROUND] = look(inspector, there)
            yield Stream(product, look(inspector, images[:QUIET]), look(inspector, later), changed)
            sys.stderr.write(f"{product} {number + 1} of {STREAMS}\n")


def add_normals(inspector: snl.Inspector) -> None:
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
    """The first alarm after the quiet time, and what was decided of the images meanwhile."""
    monitor = DriftMonitor.from_dict(state)
    found: dict[str, Any] = {"delay": None}
    for k, verdict in enumerate(verdicts):
        drift = monitoring.watch(monitor, calibration, verdict, str(k))
        if drift.alarm:
            since = int(drift.since_when or 0)  # negative: in the quiet time
            found = {"delay": k + 1, "product": drift.product, "reason": drift.reason}
            found["since_error"] = since
            break
    decisions = [verdict.decision for verdict in verdicts]
    found["rejected"] = np.mean([d in (ANOMALOUS, UNKNOWN) for d in decisions]).item()
    found["unknown"] = np.mean([d == UNKNOWN for d in decisions]).item()
    return found


def delays(
    calibration: Calibration, all_streams: Sequence[Stream], known: bool
) -> list[dict[str, Any]]:
    """A row for each stream and change, after the quiet time and from the first image on."""
    rows = []
    for stream in all_streams:
        product = stream.product if known else None
        start = monitoring.start(calibration).to_dict()
        monitor = DriftMonitor.from_dict(start)
        for k, verdict in enumerate(stream.quiet.verdicts(calibration, product)):
            monitoring.watch(monitor, calibration, verdict, str(k - QUIET))
        early = any(drift.alarm for drift in monitor.status().values())
        states = {QUIET: monitor.to_dict(), 0: start}
        for change, seen in stream.changed.items():
            verdicts = seen.verdicts(calibration, product)
            elsewhere = np.mean([verdict.recognised != stream.product for verdict in verdicts])
            for quiet, state in states.items():
                row: dict[str, Any] = {"product": stream.product, "change": change, "quiet": quiet}
                row |= {"early": early and quiet > 0, "elsewhere": elsewhere.item()}
                rows.append(row | {"found": follow(state, calibration, verdicts)})
    return rows


def quiet_alarms(calibration: Calibration, all_streams: Sequence[Stream]) -> dict[str, Any]:
    """Alarms of one monitor over all products' unchanged images, one product after the other."""
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
    """Calibration and stream drawn anew from all unchanged images of a product: as often as this
    is done, any order is as likely, so that even false alarms of a higher rate can be counted."""
    alarms = fewer = count = images = 0
    for product, normals in calibration.normals.items():
        own = [s.quiet + s.unchanged for s in all_streams if s.product == product]
        scores = np.concatenate([normals.scores[:HELD], *(seen.scores for seen in own)])
        rows = [row for seen in own for row in seen.distances]
        near = [min(row.values()) for row in rows]
        distances = np.concatenate([normals.distances[:HELD], near])
        for number in range(SHUFFLES):
            order = np.random.default_rng([number, *product.encode()]).permutation(len(scores))
            first, later = order[:HELD], order[HELD:]
            drawn = Normals(
                scores[first].astype(np.float32),
                distances[first].astype(np.float32),
                normals.peaks[:HELD],
                normals.hashes[:HELD],
            )
            law = dataclasses.replace(calibration, normals={**calibration.normals, product: drawn})
            monitor = monitoring.start(law, SHUFFLED_RATE)
            for score, distance in zip(scores[later], distances[later], strict=True):
                verdict = law.judge(float(score), {product: float(distance)})
                monitoring.watch(monitor, law, verdict)
            evidence = monitor.status()[product].evidence
            alarms += evidence >= 1
            fewer += evidence >= SHUFFLED_RATE / monitoring.FALSE_ALARM
            count, images = count + 1, len(later)
    return {
        "streams": count,
        "images": images,
        "held_back": HELD,
        "alarms": {str(SHUFFLED_RATE): int(alarms), str(monitoring.FALSE_ALARM): int(fewer)},
    }


def run(bundle: Path) -> dict[str, Any]:
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
                "held_back": {name: len(n) for name, n in calibration.normals.items()},
                "baseline": {n: len(v) for n, v in monitoring.baseline(calibration).items()},
                "unchanged": quiet_alarms(calibration, all_streams),
                "recognised": delays(calibration, all_streams, known=False),
                "given": delays(calibration, all_streams, known=True),
            }
        )
    results["seconds"] = round(time.perf_counter() - began)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    runner = verbs.add_parser("run")
    runner.add_argument("bundle", type=Path)
    runner.add_argument("-o", "--output", type=Path, required=True)
    verbs.add_parser("table").add_argument("results", type=Path)
    arguments = parser.parse_args()
    if arguments.verb == "run":
        write_text(arguments.output, json.dumps(run(arguments.bundle), allow_nan=False) + "\n")
    else:
        print(drift_images_table.table(json.loads(arguments.results.read_text())))


if __name__ == "__main__":
    main()
