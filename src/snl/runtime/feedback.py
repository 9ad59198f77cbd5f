"""What speaks against images that a user gives as normal, or as missed anomalies.

The calibration in force is the judge. It never knows better than the user, but it knows which
images it did not expect. `Doubts` collects what it finds; `Doubts.decide` refuses the change,
unless the user insists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from snl.data.words import folder_label
from snl.decision.calibration import Calibration
from snl.decision.fit import raised_scores
from snl.decision.inspection import UNKNOWN, Verdict
from snl.decision.sample import NormalSample
from snl.errors import DataError, SettingsError
from snl.files import content_hash
from snl.runtime.metadata import TrainingInfo

FACTOR = 2.0
"""A change that raises a threshold by more than this factor is refused; a score whose z-score is
more than this many times that of the threshold is named."""
NOTED = 1.25
"""A threshold that rises by more than this factor is noted."""
_LEAST_Z = 2.0
"""z-score at which a threshold counts as at least, where normal images vary little."""
CHANCE = 0.01
"""Images that do not look like their product are refused if so many of them would be found among
images of the product with at most this probability."""
_SHOWN = 20

Note = Callable[[str], None]
_INSIST = "if this is right, repeat it with --force (force=True)"
_TOO_HIGH = f"A score of more than {FACTOR:g} times the threshold is not taken"
_NAME = "name the product with --product NAME (product=), or insist with --force (force=True)"


@dataclass
class Doubts:
    """What was found about images.

    Attributes:
        remarks: one sentence for each image concerned.
        refusals: what forbids the change, with what to do about it.
    """

    remarks: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def decide(self, note: Note, force: bool) -> None:
        """Pass the remarks on; refuse the change if it is forbidden and not insisted on.

        Raises:
            DataError: the change is refused.
        """
        for text in self.remarks[:_SHOWN]:
            note(text)
        if len(self.remarks) > _SHOWN:
            note(f"and {len(self.remarks) - _SHOWN} more remarks like these")
        if self.refusals and not force:
            raise DataError(f"nothing was changed: {self.refusals[0]}")


def doubts_about_normals(
    calibration: Calibration, sample: NormalSample, *, named: bool, single: bool = False
) -> Doubts:
    """Return what speaks against images as normal images of their products.

    Args:
        calibration: in force, of the same engine and tile size.
        sample: measurements of the images.
        named: whether the user named the product for these very images; then only another known
            product speaks against it.
        single: whether every image counts alone, as flagged images do; otherwise images that look
            like none or another of the products are refused only if they are too many for chance.
    """
    doubts = Doubts()
    strange: dict[str, list[str]] = {}
    too_high: list[str] = []
    scores = raised_scores(calibration, sample)
    for row, product in enumerate(sample.products):
        path = sample.paths[row]
        held = calibration.held_out.get(int(sample.hashes[row]), product)
        if held != product:
            reason: str | None = f"it is a held-out normal image of {held}"
        else:
            reason = _strange(calibration, sample.embeddings[row], product, named)
        if reason:
            strange.setdefault(product, []).append(f"{path}: {reason}")
        elif high := _high(calibration, scores[row], product):
            doubts.remarks.append(f"{path}: {high}")
            limit, _ = calibration.scores.threshold(
                calibration.rates_for(product).anomalous, product
            )
            if limit is not None and scores[row] > FACTOR * limit:
                too_high.append(f"{path}: {high} {_TOO_HIGH}; {_INSIST}")
    for product, texts in strange.items():
        doubts.remarks += texts
        count = sample.products.count(product)
        rate = calibration.unknown_rate(calibration.rates_for(product))
        if single or len(texts) > count / 2 or tail(count, len(texts), rate) <= CHANCE:
            many = f"{len(texts)} of {count} images do not look like {product}, first "
            what = f"{many if count > 1 else ''}{texts[0]}"
            doubts.refusals.append(f"{what}; {_INSIST if named else _NAME}")
    doubts.refusals += too_high
    return doubts


def doubts_about_folders(paths: Iterable[Path], label: str) -> Doubts:
    """Return which files lie in a folder of images with the opposite label.

    Args:
        paths: of the images.
        label: `normal` or `anomalous`, as which they are given.
    """
    doubts = Doubts()
    for path in paths:
        found, folder = folder_label(path)
        if found is not None and found != label:
            doubts.remarks.append(f"{path}: its folder '{folder}' is of {found} images")
    if doubts.remarks:
        doubts.refusals.append(
            f"{len(doubts.remarks)} images given as {label} are in folders of the opposite, first "
            f"{doubts.remarks[0]}; {_INSIST}"
        )
    return doubts


def doubts_about_data(data: Path) -> Doubts:
    """Return whether a folder of normal images of several products has a name that says
    otherwise."""
    doubts = Doubts()
    if data.is_dir():
        found, folder = folder_label(data / "image")
        if found == "anomalous":
            doubts.refusals.append(f"{data}: its folder '{folder}' is of {found} images; {_INSIST}")
    return doubts


def doubts_about_thresholds(before: Calibration, after: Calibration) -> Doubts:
    """Return which thresholds a change raises by more than `FACTOR`."""
    doubts = Doubts()
    for product in before.products:
        rate = before.rates_for(product).anomalous
        old, new = (c.scores.threshold(rate, product)[0] for c in (before, after))
        if old is None or new is None or old <= 0 or new <= NOTED * old:
            continue
        change = f"from {old:.4g} to {new:.4g}, {new / old:.2g} times as high"
        shared = len(before.sets[product]) == len(after.sets[product])
        doubts.remarks.append(
            f"{product}: the threshold rises {change}"
            + (", by the tail that all products share (--rule conformal: none)" if shared else "")
        )
        if new > FACTOR * old:
            doubts.refusals.append(
                f"{product}: its threshold would rise {change}, and defects with scores below it "
                f"would pass; {_INSIST}"
            )
    return doubts


def doubts_about_misses(
    calibration: Calibration,
    training: TrainingInfo,
    results: Sequence[tuple[Path, Verdict]],
) -> Doubts:
    """Return what speaks against images as anomalous images that were called normal."""
    doubts = doubts_about_folders((path for path, _ in results), "anomalous")
    normal = {
        content: f"a held-out normal image of {product}"
        for content, product in calibration.held_out.items()
    } | dict.fromkeys(training.hashes.tolist(), "a normal image that was trained on")
    for path, verdict in results:
        known = normal.get(training.content_hash(path))
        remedy = _INSIST
        if known:
            text = f"{path}: it is {known}"
        elif verdict.decision == UNKNOWN:
            text, remedy = f"{path}: it was judged '{UNKNOWN}', so it did not pass as normal", _NAME
        elif verdict.product != verdict.recognised and not _is_unknown(calibration, verdict):
            text = f"{path}: it was recognised as {verdict.recognised}, not as {verdict.product}"
        else:
            continue
        doubts.remarks.append(text)
        doubts.refusals.append(f"{text}; {remedy}")
    return doubts


def check_contradictions(normal: Sequence[Path], anomalous: Sequence[Path]) -> None:
    """Check that no file is given both as normal and as anomalous, by its path or its content.

    Raises:
        SettingsError: one is.
    """
    if not normal or not anomalous:
        return
    places = {path.resolve(): path for path in normal}
    contents = {content: path for path in normal if (content := _content(path)) is not None}
    for path in anomalous:
        other = places.get(path.resolve()) or contents.get(_content(path) or -1)
        if other is not None:
            same = f" (the same image as {other})" if other != path else ""
            raise SettingsError(
                f"{path}{same} is given both as normal and as missed anomaly; leave out one of them"
            )


def once_each(paths: Sequence[Path], note: Note) -> list[Path]:
    """Return files without copies of an earlier one, which are noted."""
    first: dict[object, Path] = {}
    for path in paths:
        content: object = _content(path)
        key = path if content is None else content
        if key in first:
            note(f"{path}: the same image as {first[key]}, which counts once")
        first.setdefault(key, path)
    return list(first.values())


def tail(count: int, least: int, rate: float) -> float:
    """Return the probability of at least `least` of `count` independent events of a probability.

    >>> round(tail(2, 1, 0.5), 3)
    0.75
    """
    fewer = sum(math.comb(count, k) * rate**k * (1 - rate) ** (count - k) for k in range(least))
    return max(0.0, 1.0 - fewer)


def _strange(
    calibration: Calibration, embedding: np.ndarray, product: str, named: bool
) -> str | None:
    """Return why an image does not look like its product; None: it does."""
    nearest = calibration.prototypes.nearest(embedding)
    p = calibration.unknown_p(*nearest)
    if p is not None and p <= calibration.unknown_rate():
        if named:
            return None
        return f"it matches no known product (judged '{UNKNOWN}'; the nearest is {nearest.product})"
    if nearest.product == product:
        return None
    return f"it is recognised as {nearest.product}, not as {product}"


def _is_unknown(calibration: Calibration, verdict: Verdict) -> bool:
    """Return whether an image would be called an unknown product if its product were not given."""
    p = verdict.unknown_p
    return p is not None and p <= calibration.unknown_rate()


def _high(calibration: Calibration, score: float, product: str) -> str | None:
    """Return how far a score is beyond normal ones; None: it is not."""
    limit, _ = calibration.scores.threshold(calibration.rates_for(product).anomalous, product)
    if limit is None:
        limit = float(calibration.sets[product].scores.max(initial=0))
    z, usual = (calibration.scores.standardise(value, product) for value in (score, limit))
    if limit <= 0 or score <= limit or z <= FACTOR * max(usual, _LEAST_Z):
        return None
    return (
        f"its score {score:.4g} (z {z:.1f}) is far above those of normal images of {product} "
        f"(threshold {limit:.4g}, z {usual:.1f}); is it free of defects?"
    )


def _content(path: Path) -> int | None:
    try:
        return content_hash(path)
    except OSError:
        return None  # reported when the image is read
