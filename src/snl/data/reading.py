"""What the readers of layouts record while they read, besides the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from snl.data.listing import shown

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
    unsplit: dict[str, Path] = field(default_factory=dict)
    """Products whose records have no split yet, with the folder that paths are relative to."""
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

    def name(self, path: Path) -> str:
        """Return a path relative to the root, for messages."""
        inside = path.relative_to(self.root) if path.is_relative_to(self.root) else path
        return shown(inside.as_posix())


def count_of(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is 1."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
