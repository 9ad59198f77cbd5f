"""`snl inspect --part-pattern`: one decision for all images of a part."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from snl.cli.common import say
from snl.cli.inspect_outputs import Outputs
from snl.text import printable

if TYPE_CHECKING:
    from snl.decision.calibration import Rates
    from snl.decision.inspection import Inspection
    from snl.decision.parts import PartDecision
    from snl.runtime.inspector import Inspector

_MOST_LINES = 20
"""Parts that are listed at the end."""


class PartOptions(Protocol):
    """The options that parts depend on."""

    part_pattern: str | None
    file: str
    paths: list[str]
    product: str | None


class PartRun:
    """The parts of a run: each is decided when its images have been inspected.

    Args:
        options: with the pattern.
        paths: of all images, in the order in which they are inspected.
        inspector: its calibration decides.
        rates: instead of those of the calibration.

    Raises:
        DataError: the pattern matches no image.
    """

    def __init__(
        self,
        options: PartOptions,
        paths: Sequence[Path],
        inspector: Inspector,
        rates: Rates | None,
    ) -> None:
        from snl.data.parts import PartPattern
        from snl.decision.parts import PartTracker

        absolute = [Path(os.path.normpath(path.absolute())) for path in paths]
        pattern = PartPattern(options.part_pattern or "")
        found, notes = pattern.names(absolute, _root(options.paths))
        for text in notes:
            say(f"note: {text}")
        self._names = [found[path] for path in absolute]
        self._tracker = PartTracker(
            self._names, [str(path) for path in paths], inspector.calibration, rates
        )
        views = max(Counter(filter(None, self._names)).values())
        note_few_images(options.file, inspector, views, rates, options.product)
        self._counts: Counter[str] = Counter()
        self._listed: list[PartDecision] = []

    def name(self, result: Inspection) -> str | None:
        """Return the part of an image; None if it belongs to none."""
        return self._names[result.prediction.index] or None

    def add(self, result: Inspection, outputs: Outputs) -> None:
        """Write the parts that are complete with the next image."""
        self._write(self._tracker.add(result.prediction.index, result.verdict()), outputs)

    def finish(self, outputs: Outputs) -> None:
        """Write the remaining parts after the last image."""
        self._write(self._tracker.finish(), outputs)

    def summarise(self) -> None:
        """Print the number of parts by decision, and those that are not normal."""
        from snl.evaluation.decision_counts import DECISIONS

        counts = ", ".join(f"{self._counts[decision]} {decision}" for decision in DECISIONS)
        say(f"parts: {self._counts.total()}: {counts}")
        for part in self._listed:
            p = "" if part.p_value is None else f", p-value {part.p_value:.3g}"
            by = f" by {printable(part.worst)}" if part.worst else ""
            unreadable = f", {part.unreadable} images not inspected" if part.unreadable else ""
            say(f"part {printable(part.part)}: {part.decision}{p}{by}{unreadable}")
        more = self._counts.total() - self._counts["normal"] - len(self._listed)
        if more:
            say(f"and {more} more parts that are not normal")
        if self._tracker.waiting:
            say(f"{self._tracker.waiting} parts are not decided: not all their images were seen")

    def _write(self, decisions: Sequence[PartDecision], outputs: Outputs) -> None:
        for part in decisions:
            self._counts[part.decision] += 1
            if part.decision != "normal" and len(self._listed) < _MOST_LINES:
                self._listed.append(part)
            outputs.add_part(part.to_dict())


def _root(paths: Sequence[str]) -> Path:
    """Return the folder that paths of the pattern are relative to: the folder given, or the one
    that contains everything given."""
    given = [Path(os.path.normpath(Path(path).absolute())) for path in paths]
    folders = [path if path.is_dir() else path.parent for path in given]
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # on several drives of Windows
        return folders[0]


def note_few_images(
    file: str,
    inspector: Inspector,
    views: int,
    rates: Rates | None = None,
    product: str | None = None,
) -> None:
    """Say if too few images are held out for a decision on a part of this many images."""
    from snl.decision.parts import allows, part_images_needed

    calibration = inspector.calibration
    for name in [product] if product else inspector.products:
        rate = (rates or calibration.rates_for(name)).anomalous
        if allows(calibration, rate, views, name):
            continue
        possible = calibration.possible_rate()
        other = ""
        if possible is not None and views * possible < 1:
            other = f", or inspect with --rate {views * possible:.6g} or more"
        held = sum(map(len, calibration.sets.values()))
        say(
            f"note: with {held} held-out normal images no decision on a part of {views} images at "
            f"a false-alarm rate of {rate:g} is possible, so it is 'uncertain'; "
            f"{part_images_needed(rate, views)} are needed: add normal images with snl calibrate "
            f"{file} NORMALS --add{other}"
        )
        return
