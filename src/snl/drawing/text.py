"""Text in pictures: measured before it is drawn, shortened to a maximum width, in any script.

Pillow's built-in font has Latin letters without accents only. Other text is drawn in the first
system font that has all its characters. If there is none, accents are removed, and characters that
no font has are drawn as boxes.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Any

from PIL import ImageDraw, ImageFont

from snl.data.source import one_line

SIZE = 14
"""Default font size in pixels."""
_LINE_HEIGHT = 20  # pixels
_SPACE = 14  # pixels between two pieces of text on one line
_CANDIDATES = """
DejaVuSans.ttf, NotoSans-Regular.ttf, LiberationSans-Regular.ttf, FreeSans.ttf, arial.ttf, Arial.ttf
segoeui.ttf, Helvetica.ttc, Arial Unicode.ttf, NotoSansCJK-Regular.ttc, wqy-microhei.ttc
DroidSansFallbackFull.ttf, msyh.ttc, PingFang.ttc, Hiragino Sans GB.ttc, meiryo.ttc, malgun.ttf
"""
_SYSTEM = tuple(name for line in _CANDIDATES.split("\n") for name in line.split(", ") if name)


class Text:
    """One line of text and the font that it is drawn in.

    Args:
        text: any string; line breaks are replaced by spaces.
        max_width: in pixels; longer text is cut and ends in an ellipsis.
        size: font size in pixels.

    Attributes:
        text: the text as drawn.
        width: its width in pixels.
    """

    def __init__(self, text: str, max_width: float = float("inf"), size: int = SIZE) -> None:
        self.text, self._font = _readable(one_line(text), size)
        self.width = _width(self.text, self._font)
        if self.width > max_width:
            fits, too_long = 0, len(self.text)  # bisection: lengths of two beginnings of the text
            while too_long - fits > 1:
                middle = (fits + too_long) // 2
                if _width(self.text[:middle].rstrip() + "…", self._font) <= max_width:
                    fits = middle
                else:
                    too_long = middle
            self.text = self.text[:fits].rstrip() + "…"
            self.width = _width(self.text, self._font)

    def draw(self, pen: ImageDraw.ImageDraw, x: float, middle: float, **colours: Any) -> None:
        """Draw the text.

        Args:
            pen: drawing context of a picture.
            x: left edge in pixels.
            middle: y in pixels of the centre of capital letters.
            **colours: colour arguments of `ImageDraw.text`.
        """
        pen.text((round(x), round(middle)), self.text, font=self._font, anchor="lm", **colours)


def flow(pieces: list[str], max_width: int) -> tuple[list[tuple[Text, int, int]], int]:
    """Place pieces of text side by side, on as many lines as necessary.

    Args:
        pieces: texts in reading order; a piece wider than `max_width` is shortened.
        max_width: of a line, in pixels.

    Returns:
        Each piece with its x and the y of its line's centre, in pixels from 0; and the total
        height in pixels.
    """
    placed: list[tuple[Text, int, int]] = []
    x = line = 0
    for piece in pieces:
        text = Text(piece, max_width)
        if x and x + text.width > max_width:
            x, line = 0, line + 1
        placed.append((text, x, line * _LINE_HEIGHT + _LINE_HEIGHT // 2))
        x += text.width + _SPACE
    return placed, (line + 1) * _LINE_HEIGHT


def _width(text: str, font: Any) -> int:
    return int(max(font.getbbox(text)[2], font.getlength(text))) + 1 if text else 0


def _readable(text: str, size: int) -> tuple[str, Any]:
    """Return the text, without accents if necessary, and the first font with all its characters.

    If no font has all characters, the font that lacks the fewest is used.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    best: tuple[int, str, Any] | None = None
    for candidate in (text, plain):
        for name in (None, *_SYSTEM):
            font = _font(name, size)
            if font is None:
                continue
            missing = sum(_lacks(name, size, c) for c in set(candidate) if not c.isspace())
            if best is None or missing < best[0]:
                best = missing, candidate, font
            if not missing:
                return candidate, font
    assert best is not None  # Pillow's built-in font always exists
    return best[1], best[2]


@lru_cache(maxsize=128)
def _font(name: str | None, size: int) -> Any:
    """Return a font; None if the system does not have it.

    Args:
        name: file name of a system font; None for Pillow's built-in font.
        size: in pixels.
    """
    try:
        return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    except OSError:  # not on this system
        return None


@lru_cache(maxsize=4096)
def _lacks(name: str | None, size: int, character: str) -> bool:
    """Return whether a font draws a character as it draws those that it does not have."""
    return _glyph(name, size, character) == _glyph(name, size, "\uffff")


@lru_cache(maxsize=1024)
def _glyph(name: str | None, size: int, character: str) -> tuple[tuple[int, int], bytes]:
    """Return size and pixels of a character's glyph."""
    mask = _font(name, size).getmask(character)
    return mask.size, bytes(mask)
