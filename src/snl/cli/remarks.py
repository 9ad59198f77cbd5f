"""Remarks about images, printed once for each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from snl.cli.common import say


class Remarks:
    """Prints the first remark of each kind at once, and the number of images at the end."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, name: str | None, remarks: Iterable[str]) -> None:
        """Count the remarks about an image; print those that are new."""
        for text in remarks:
            self._counts[text] += 1
            if self._counts[text] == 1:
                say(f"note: {name or 'the image'} {text}")

    def summarise(self) -> None:
        """Print how many images each remark is about, where it is more than one."""
        for text, count in self._counts.items():
            if count > 1:
                say(f"note: {count} images: each {text}")
