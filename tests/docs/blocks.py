"""The code blocks of a page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "plugin" / "README.md"]
PAGES += sorted(DOCS.rglob("*.md"))

_TITLE = re.compile(r'title="([^"]+)"')
_VARIABLE = re.compile(r"\$\w+")
_ENDS = ("&&", "||", ";", "|", ">", "&")


@dataclass(frozen=True)
class Block:
    """A block of code of a page.

    Attributes:
        language: of a fenced block; empty: none, or an indented block.
        title: `title="..."` after the language: the file that the block is.
    """

    page: str
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> Iterator[list[str]]:
        """Yield the words of every command of a block of commands."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def name_of(page: Path) -> str:
    """Return the path of a page in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """Return the blocks of code of a page, in their order."""
    found = []
    for token in MarkdownIt("gfm-like", {"linkify": False}).parse(page.read_text("utf-8")):
        if token.type in ("fence", "code_block"):
            language = token.info.split(maxsplit=1)[0] if token.info else ""
            title = match[1] if (match := _TITLE.search(token.info)) else ""
            line = (token.map or [0])[0] + 1
            found.append(Block(name_of(page), line, language, title, token.content))
    return found


def snl_commands(page: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line and arguments of every command `snl ...` of a page's blocks."""
    for block in blocks(page):
        if block.language in ("", "sh"):
            for line in block.text.replace("\\\n", " ").splitlines():
                if line.lstrip("$ ").startswith("snl "):
                    line = _VARIABLE.sub("0", line.lstrip("$ ")).replace("; ", " ; ")  # of a loop
                    words = shlex.split(line, comments=True)[1:]
                    ends = [n for n, word in enumerate(words) if word in _ENDS]
                    yield block.line, words[: ends[0] if ends else None]


def code_of_tables(page: Path, first: str) -> Iterator[list[str]]:
    """Yield the words of every piece of code in a page's tables that begins with a word."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(page.read_text("utf-8"))
    cells = [n + 1 for n, token in enumerate(tokens) if token.type == "td_open"]
    for token in (one for n in cells for one in tokens[n].children or ()):
        words = shlex.split(token.content) if token.type == "code_inline" else []
        if words[:1] == [first]:
            yield words[1:]
