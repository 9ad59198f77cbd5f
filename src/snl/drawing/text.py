"""Text in pictures: measured before it is drawn, shortened to its room, in any script there is.

Pillow's own font knows Latin letters without accents. Other text is drawn in a font of the system
that has all its letters, where there is one; else accents are left out, and what no font knows
shows as a box.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Any

from PIL import ImageDraw, ImageFont

from snl.data.images import one_line

SIZE = 14
"""Of the letters, in pixels."""
_ROW = 20  # pixels from line to line
_SPACE = 14  # pixels between pieces
_CANDIDATES = """
DejaVuSans.ttf, NotoSans-Regular.ttf, LiberationSans-Regular.ttf, FreeSans.ttf, arial.ttf, Arial.ttf
segoeui.ttf, Helvetica.ttc, Arial Unicode.ttf, NotoSansCJK-Regular.ttc, wqy-microhei.ttc
DroidSansFallbackFull.ttf, msyh.ttc, PingFang.ttc, Hiragino Sans GB.ttc, meiryo.ttc, malgun.ttf
"""
_SYSTEM = tuple(name for line in _CANDIDATES.split("\n") for name in line.split(", ") if name)


class Text:
    """One line of text with the font it is drawn in.

    Args:
        text: anything; line breaks become spaces.
        room: pixels that it may be wide; longer text ends in an ellipsis.
        size: of the letters in pixels.

    Attributes:
        text: what is drawn.
        width: pixels.
    """

    def __init__(self, text: str, room: float = float("inf"), size: int = SIZE) -> None:
        self.text, self._font = _readable(one_line(text), size)
        self.width = _width(self.text, self._font)
        if self.width > room:
            shorter, more = 0, len(self.text)  # the longest beginning that fits, by halves
            while more - shorter > 1:
                middle = (shorter + more) // 2
                if _width(self.text[:middle].rstrip() + "…", self._font) <= room:
                    shorter = middle
                else:
                    more = middle
            self.text = self.text[:shorter].rstrip() + "…"
            self.width = _width(self.text, self._font)

    def draw(self, pen: ImageDraw.ImageDraw, x: float, middle: float, **colours: Any) -> None:
        """From `x` to the right, capitals centred at the height `middle`; colours as PIL's."""
        pen.text((round(x), round(middle)), self.text, font=self._font, anchor="lm", **colours)


def flow(pieces: list[str], room: int) -> tuple[list[tuple[Text, int, int]], int]:
    """Pieces of text side by side, on as many lines as they take.

    Args:
        pieces: in their order; one that is wider than the room is shortened.
        room: pixels.

    Returns:
        Each piece with its x and the middle of its line, from 0; and the height of all lines.
    """
    placed: list[tuple[Text, int, int]] = []
    x = line = 0
    for piece in pieces:
        text = Text(piece, room)
        if x and x + text.width > room:
            x, line = 0, line + 1
        placed.append((text, x, line * _ROW + _ROW // 2))
        x += text.width + _SPACE
    return placed, (line + 1) * _ROW


def _width(text: str, font: Any) -> int:
    return int(max(font.getbbox(text)[2], font.getlength(text))) + 1 if text else 0


def _readable(text: str, size: int) -> tuple[str, Any]:
    """The text, if need be without accents, and the first font that has its letters; else the font
    that lacks the fewest."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    best: tuple[int, str, Any] | None = None
    for wanted in (text, plain):
        for name in (None, *_SYSTEM):
            font, box = _font(name, size)
            if font is None:
                continue
            lacks = sum(_picture(font, c) == box for c in set(wanted) if not c.isspace())
            if best is None or lacks < best[0]:
                best = lacks, wanted, font
            if not lacks:
                return wanted, font
    assert best is not None  # Pillow's font is always there
    return best[1], best[2]


@lru_cache(maxsize=128)
def _font(name: str | None, size: int) -> tuple[Any, Any]:
    """A font, None: Pillow's own, and its picture of a letter it lacks; None where it is not."""
    try:
        font: Any = ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    except OSError:  # not on this system
        return None, None
    return font, _picture(font, "\uffff")


def _picture(font: Any, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)
