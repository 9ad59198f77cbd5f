"""What the readers of layouts record while they read, besides the images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from snl.data.listing import shown
from snl.data.records import Record, assign_splits
from snl.limits import TEST_SHARE

_MOST_LINES = 6
"""Groups that get a line each."""


@dataclass
class Reading:
    """Remarks of one reader. It is filled while a data set is read."""

    root: Path
    notes: list[str] = field(default_factory=list)
    """Assumptions, one sentence each."""
    used: set[Path] = field(default_factory=set)
    """Files that were used although no record has them, such as masks without a marked pixel."""
    reasons: dict[Path, str] = field(default_factory=dict)
    """Why the files below a folder are not used."""
    default_reason: str = "not part of the layout"
    """Why other images are not used."""
    mask_reason: str = "they fit no image"
    """Why files in mask folders are not used."""
    tested: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By product: how many of how many normal images were made test images."""
    unsplit: dict[str, Path] = field(default_factory=dict)
    """Products whose records have no split yet, with the folder that paths are relative to."""
    test_share: float = TEST_SHARE
    """Share of the normal images of such products that are test images, if there are defects."""
    part_of: Callable[[Path], str] | None = None
    """The part that an image shows, by its path; None: only records say it."""

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def note_groups(self, groups: Mapping[str, Sequence[Path]], what: str, rest: str) -> None:
        """Add a note for each group of files, or one for all if there are many groups.

        Args:
            groups: files by what they are in: `product bolt`.
            what: the noun of the files, in the singular.
            rest: the rest of the sentence.
        """
        if len(groups) > _MOST_LINES:
            every = [path for paths in groups.values() for path in paths]
            groups = {f"{len(groups)} products or folders": every}
        for name, paths in groups.items():
            example = self.name(paths[0]) + (", ..." if len(paths) > 1 else "")
            self.note(f"{name}: {count_of(len(paths), what)} ({example}) {rest}")

    def split(self, records: Iterable[Record], base: Path) -> list[Record]:
        """Return the records of one product, which has no split, with splits; see
        `snl.data.records.assign_splits`."""
        split = assign_splits(records, base, self.part_of, self.test_share)
        normal = [record for record in split if record.label == "normal"]
        tested = sum(record.split == "test" for record in normal)
        if tested:
            self.tested[normal[0].product] = tested, len(normal)
        return split

    def split_note(self) -> str:
        """Return what was decided about products without a split; empty: nothing."""
        if not self.tested:
            return ""
        tested, total = (sum(counts) for counts in zip(*self.tested.values(), strict=True))
        names = [shown(name) for name in sorted(self.tested)]
        some = f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        return (
            f"{tested} of {total} normal images of {some} are not trained on but test images, "
            "chosen by their names, because there are anomalous ones to test with; another share: "
            "snl train --set training.test_share=S"
        )

    def name(self, path: Path) -> str:
        """Return a path relative to the root, for messages."""
        inside = path.relative_to(self.root) if path.is_relative_to(self.root) else path
        return shown(inside.as_posix())


def count_of(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is 1."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
