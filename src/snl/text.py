"""Make text from outside safe to show on a terminal and in a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from typing import Any

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters: escape sequences, bells, carriage returns
    "\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"  # invisible, or turn the text
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""Characters that move the cursor, change colours, hide text or reverse its direction."""
_UNSAFE_IN_LINES = re.compile(rf"(?!\n){_UNSAFE.pattern}")
_FORMULAS = ("=", "+", "-", "@")
"""Beginnings of a cell that a spreadsheet calculates."""
_DIGITS = 7
"""Significant digits of numbers in tables."""
_SPACES = re.compile(r"[ \t\n\r\f\v\x1c-\x1f\x85\u2028\u2029]+")


def printable(text: object, *, lines: bool = False) -> str:
    r"""Return text in which no character controls the terminal or the direction of writing.

    White space becomes single spaces, and each other unsafe character is written as its Python
    escape. Letters of all languages, emoji and joiners inside words stay as they are. File names,
    product names and everything else that comes from outside pass through here on their way to a
    terminal; JSON and other files keep the exact text.

    Args:
        text: converted with `str`.
        lines: keep line breaks and the number of spaces, for text of several lines.

    Example:
        >>> printable("bottle\x1b[31m\n1.png")
        'bottle\\x1b[31m 1.png'
    """
    if lines:
        return _UNSAFE_IN_LINES.sub(_escape, str(text))
    return _UNSAFE.sub(_escape, _SPACES.sub(" ", str(text)).strip(" "))


def csv_line(values: Iterable[Any]) -> bytes:
    r"""Return values as one line of a CSV file (RFC 4180, UTF-8).

    Line breaks and other unprintable characters become spaces. A text that a spreadsheet would
    calculate gets an apostrophe before it. Numbers have 7 digits, as many as float32 has.

    Args:
        values: text, numbers, or None for an empty cell.

    Example:
        >>> csv_line(["=1+1", 0.5, None, "a,b"])
        b'\'=1+1,0.5,,"a,b"\r\n'
    """
    line = io.StringIO(newline="")
    csv.writer(line).writerow([_cell(value) for value in values])
    return line.getvalue().encode("utf-8", "replace")


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if not isinstance(value, str):
        return value
    text = "".join(c if c.isprintable() else " " for c in value)
    return f"'{text}" if text.lstrip().startswith(_FORMULAS) else text


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
