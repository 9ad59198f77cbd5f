"""Text keeps to its room and can be read, also where the system has no fonts."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snl.drawing import text
from snl.drawing.text import Text, flow


@given(st.text(max_size=60), st.integers(20, 200))
def test_text_fits_its_room(words: str, room: int) -> None:
    assert Text(words, room).width <= room


def test_what_fits_is_not_shortened() -> None:
    whole = Text("bottle (recognised)")
    assert Text("bottle (recognised)", whole.width).text == "bottle (recognised)"
    shorter = Text("bottle (recognised)", whole.width - 1).text
    assert shorter.endswith("…") and "bottle (recognised)".startswith(shorter[:-1])
    assert len(shorter) >= 16


@given(st.lists(st.text(max_size=30), min_size=1, max_size=8), st.integers(60, 400))
def test_pieces_flow_in_order_within_the_room(pieces: list[str], room: int) -> None:
    placed, height = flow(pieces, room)
    ends = [(middle, x, x + piece.width) for piece, x, middle in placed]
    assert all(x >= 0 and end <= room and middle < height for middle, x, end in ends)
    for (line, _, end), (next_line, x, _) in pairwise(ends):
        assert next_line > line or x > end


def test_without_fonts_of_the_system_accents_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_SYSTEM", ())
    assert Text("1.3 mm² é").text == "1.3 mm2 e"
    assert Text("螺栓 12").text == "螺栓 12" and Text("螺栓 12").width > 0
