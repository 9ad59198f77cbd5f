"""Remarks about images, printed once for each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

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
        say_remarks({text: count for text, count in self._counts.items() if count > 1})


def say_remarks(counts: Mapping[str, int]) -> None:
    """Print remarks with the number of images that each is about."""
    for text, count in counts.items():
        subject = "1 image" if count == 1 else f"{count} images: each"
        say(f"note: {subject} {text}")
