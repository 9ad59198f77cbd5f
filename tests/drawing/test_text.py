"""Text keeps to its maximum width and stays readable, also on a system without fonts."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snl.drawing import text
from snl.drawing.text import Text, flow


@given(st.text(max_size=60), st.integers(20, 200))
def test_text_keeps_to_its_maximum_width(words: str, max_width: int) -> None:
    assert Text(words, max_width).width <= max_width


def test_text_that_fits_is_not_shortened() -> None:
    whole = Text("bottle (recognised)")
    assert Text("bottle (recognised)", whole.width).text == "bottle (recognised)"
    shorter = Text("bottle (recognised)", whole.width - 1).text
    assert shorter.endswith("…") and "bottle (recognised)".startswith(shorter[:-1])
    assert len(shorter) >= 16


@given(st.lists(st.text(max_size=30), min_size=1, max_size=8), st.integers(60, 400))
def test_pieces_flow_in_order_within_the_width(pieces: list[str], max_width: int) -> None:
    placed, height = flow(pieces, max_width)
    ends = [(middle, x, x + piece.width) for piece, x, middle in placed]
    assert all(x >= 0 and end <= max_width and middle < height for middle, x, end in ends)
    for (line, _, end), (next_line, x, _) in pairwise(ends):
        assert next_line > line or x > end


def test_without_system_fonts_accents_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_SYSTEM", ())
    assert Text("1.3 mm² é").text == "1.3 mm2 e"
    assert Text("螺栓 12").text == "螺栓 12" and Text("螺栓 12").width > 0
