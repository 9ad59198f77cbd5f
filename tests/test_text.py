"""Text on a terminal: nothing in it controls the terminal, and everything else stays."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snl.text import printable

BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"


@given(st.text())
def test_no_character_controls_the_terminal(text: str) -> None:
    for lines in (False, True):
        shown = printable(text, lines=lines)
        controls = {c for c in shown if unicodedata.category(c) in ("Cc", "Zl", "Zp")}
        assert controls <= ({"\n"} if lines else set())
        assert not set(shown) & set(BIDI)
        assert printable(shown, lines=lines) == shown


@pytest.mark.parametrize(
    "text",
    ["Flasche 1.png", "瓶子.png", "قطعة", "👩‍🔧", "ß-é", "a\\x1b"],
)
def test_letters_of_all_languages_stay(text: str) -> None:
    assert printable(text) == text


def test_escapes() -> None:
    assert printable("a\x1b[2J\x07b\x9b\u202egnp.exe") == r"a\x1b[2J\x07b\x9b\u202egnp.exe"
    assert printable(" a\n\t b\r\n") == "a b"
    assert printable("a  b\nc\td", lines=True) == "a  b\nc\\x09d"
