"""Parts that several images show: their names, and splits that keep their images together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from snl.data.listing import inside, shown
from snl.data.records import Record
from snl.errors import DataError


class PartPattern:
    """A regular expression that names the part in a path.

    >>> PartPattern("^(.*)_view").name("bolt/0001_view3.png")
    'bolt/0001'

    Args:
        text: the expression. Its first group names the part, or without groups the whole match.

    Raises:
        DataError: it is not a valid regular expression.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._expression = re.compile(text)
        except (re.error, OverflowError, RecursionError) as error:
            raise DataError(
                f"the part pattern '{shown(text)}' is not a valid regular expression ({error}); "
                r"give one such as '(\d+)_view' or '.*(?=_view)'"
            ) from None

    def name(self, path: str) -> str:
        """Return the name of the part for a path with `/`; empty if the pattern does not match."""
        found = self._expression.search(path)
        if found is None:
            return ""
        return (found[1] if self._expression.groups else found[0]) or ""

    def names(self, paths: Sequence[Path], root: Path) -> tuple[dict[Path, str], list[str]]:
        """Return the part of each image, and notes on what is unusual.

        Args:
            paths: of the images.
            root: the folder that the pattern's paths are relative to.

        Raises:
            DataError: the pattern matches no path.
        """
        names = {path: self.name(relative(path, root)) for path in paths}
        missing = [path for path, name in names.items() if not name]
        if paths and len(missing) == len(names):
            raise DataError(
                f"the part pattern '{shown(self.text)}' matches no image; it is searched in paths "
                f"such as {shown(relative(missing[0], root))}"
            )
        notes = []
        if missing:
            notes.append(
                f"the part pattern '{shown(self.text)}' does not match {len(missing)} of "
                f"{len(names)} images ({shown(relative(missing[0], root))}"
                f"{', ...' if len(missing) > 1 else ''}); each of them is a part of its own"
            )
        sizes = Counter(name for name in names.values() if name)
        if max(sizes.values(), default=0) == 1:
            notes.append(
                f"every part has one image by the part pattern '{shown(self.text)}', the first is "
                f"'{shown(min(sizes))}'; the pattern must not match what differs between views"
            )
        elif len(sizes) == 1:
            notes.append(
                f"all images show one part, '{shown(min(sizes))}', by the part pattern "
                f"'{shown(self.text)}'"
            )
        return names, notes


def relative(path: Path, root: Path) -> str:
    """Return a path relative to a folder, with `/`; a path outside of it as it is."""
    return (inside(path, root) or path).as_posix()


def named(
    records: Sequence[Record], pattern: PartPattern, root: Path
) -> tuple[list[Record], list[str]]:
    """Return the records with the parts that a pattern names, and notes.

    Raises:
        DataError: the pattern matches no path, or records have parts already.
    """
    if any(record.part for record in records):
        raise DataError(
            f"the column 'part' of the manifest in {shown(root)} names the parts already; leave "
            "out the part pattern or the column"
        )
    names, notes = pattern.names([record.path for record in records], root)
    return [replace(record, part=names[record.path]) for record in records], notes


def keep_together(records: Iterable[Record]) -> tuple[list[Record], list[str]]:
    """Return the records with every tested part entirely in the test split, and notes.

    If one view of a part is used for training, no other view of it may be used for testing.
    """
    given = list(records)
    tested = {r.part for r in given if r.part and r.split == "test" and r.label is not None}
    moved = [r for r in given if r.part in tested and r.split == "train"]
    if not moved:
        return given, []
    parts = sorted({record.part for record in moved})
    note = (
        f"{len(moved)} training images show parts that test images show, too ('{shown(parts[0])}'"
        f"{', ...' if len(parts) > 1 else ''}), and are test images; if these are different parts, "
        "give them different names"
    )
    return [replace(r, split="test") if r.part in tested else r for r in given], [note]
