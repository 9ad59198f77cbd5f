"""The size at which an overlay shows an image."""

from __future__ import annotations

LONGEST = 1024
"""Maximum length in pixels of a panel's longer side; larger images are shrunk."""
SHORTEST = 256
"""Minimum length in pixels of a panel's shorter side; smaller images are enlarged, so that the
captions fit."""


def panel_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the (width, height) in pixels of an overlay's panel for an image (height, width).

    The longer side has at most `LONGEST` pixels. The shorter side has at least `SHORTEST` pixels,
    unless this would make the longer side too long.

    >>> panel_size((3000, 4000))
    (1024, 768)
    """
    height, width = size
    factor = min(LONGEST / max(height, width), max(1.0, SHORTEST / min(height, width)))
    return max(1, round(width * factor)), max(1, round(height * factor))
