"""Commands in the documentation: the real parsers accept them."""

from __future__ import annotations

from pathlib import Path

import pytest

from snl.cli.main import VERBS, parse
from tests.benchmarks.test_documented_commands import parser_of
from tests.docs.blocks import DOCS, PAGES, blocks, code_of_tables, name_of, snl_commands
from tests.docs.running import RUN
from tests.test_public import PAGES as PUBLIC

ELSEWHERE = {
    "docs/extending.md": "examples/plugin, which tests/test_plugin.py installs and uses",
    "docs/service.md": "tests/service/test_client.py, and test_sinks.py for the signature",
}
"""Pages whose Python is not run as it is printed: what runs it."""
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
            for words in block.commands() if block.language == "sh" else ():
                if words[:2] == ["python", "-m"]:
                    parser_of(words[2].removeprefix("benchmarks.")).parse_args(words[3:])
                    found += 1
    assert found > 0


def test_python_of_every_page_is_run() -> None:
    """By test_howto, test_tutorial or tests/test_public.py, or there is a reason."""
    python = {
        name_of(page)
        for page in PAGES
        if any(block.language == "python" and not block.title for block in blocks(page))
    }
    assert python == {*RUN, *PUBLIC, *ELSEWHERE} & python
    assert not {*RUN, *PUBLIC} & set(ELSEWHERE)


def test_all_blocks_of_the_new_pages_are_run() -> None:
    pages = {name_of(page) for page in PAGES if page.parent in (DOCS / "howto", DOCS / "reference")}
    pages |= {"docs/index.md", "docs/tutorial.md"}
    assert {page for page in pages if blocks(DOCS.parent / page)} == set(RUN)


def accept(words: list[str], where: str) -> None:
    """Fail if the command line does not accept these words."""
    try:
        parse(words)
    except SystemExit as stop:
        asks = any(word in HELP for word in words)
        assert asks and stop.code == 0, f"{where}: snl {' '.join(words)}"
