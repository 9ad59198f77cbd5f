"""Remarks about images, printed once for each kind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from snl.cli.common import say

_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e[-+]\d+)?")


class Remarks:
    """Prints the first remark of each kind at once, and the number of images at the end.

    Remarks of one kind differ in their numbers only.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, name: str | None, remarks: Iterable[str]) -> None:
        """Count the remarks about an image; print those that are new."""
        for text in remarks:
            kind = _NUMBER.sub("...", text)
            self._counts[kind] += 1
            if kind not in self._first:
                self._first[kind] = text
                say(f"note: {name or 'the image'} {text}")
            elif self._first[kind] != text:
                self._first[kind] = kind

    def summarise(self) -> None:
        """Print how many images each remark is about, where it is more than one."""
        say_remarks({self._first[k]: count for k, count in self._counts.items() if count > 1})


def say_remarks(counts: Mapping[str, int]) -> None:
    """Print remarks with the number of images that each is about."""
    for text, count in counts.items():
        subject = "1 image" if count == 1 else f"{count} images: each"
        say(f"note: {subject} {text}")
