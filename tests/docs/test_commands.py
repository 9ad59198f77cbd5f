"""Commands in the documentation: the real parsers accept them."""

from __future__ import annotations

from pathlib import Path

import pytest

from snl.cli.main import VERBS, parse
from tests.benchmarks.test_documented_commands import parser_of
from tests.docs.blocks import DOCS, PAGES, blocks, code_of_tables, name_of, snl_commands

HELP = ("--help", "--version", "-h")
SHAPES = {"VERB", "..."}
"""Words that stand for others: such a line shows the form of a command."""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_parsed(page: Path) -> None:
    for line, words in snl_commands(page):
        if SHAPES.intersection(words):
            assert words[0] in VERBS, f"{page}:{line}"
        else:
            accept(words, f"{name_of(page)}:{line}")


def test_commands_in_the_tables_beside_another_tool_are_parsed() -> None:
    commands = list(code_of_tables(DOCS / "howto" / "from-anomalib.md", "snl"))
    assert len(commands) > 8
    for words in commands:
        accept(words, "from-anomalib.md")


def test_commands_of_benchmarks_in_the_pages_are_parsed() -> None:
    found = 0
    for page in PAGES:
        for block in blocks(page):
            for words in block.commands() if block.language == "console" else ():
                if words[:2] == ["python", "-m"]:
                    parser_of(words[2].removeprefix("benchmarks.")).parse_args(words[3:])
                    found += 1
    assert found > 0


def accept(words: list[str], where: str) -> None:
    """Fail if the command line does not accept these words."""
    try:
        parse(words)
    except SystemExit as stop:
        asks = any(word in HELP for word in words)
        assert asks and stop.code == 0, f"{where}: snl {' '.join(words)}"
