"""The site is complete, and its pages read alike in the repository."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from argparse import SUPPRESS
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from markdown_it import MarkdownIt

import snl
from snl import settings
from snl.cli.main import VERBS
from tests.docs.blocks import DOCS, PAGES, ROOT, name_of

pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")

REFERENCE = DOCS / "reference"
TAGS = {"h1", "h2", "h3", "h4", "ul", "ol", "li", "pre", "table", "tr", "td", "th", "img"}
TAGS |= {"strong", "em", "blockquote", "hr"}


def hook(name: str) -> ModuleType:
    """Import a hook as MkDocs does."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "hooks" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documented() -> set[str]:
    """Return what the pages of the reference take from docstrings."""
    text = "".join(page.read_text("utf-8") for page in REFERENCE.glob("*.md"))
    return set(re.findall(r"^::: (\S+)$", text, flags=re.M))


def test_all_public_names_are_in_the_reference() -> None:
    names = {f"snl.{name}" for name in snl.__all__} - {"snl.__version__", "snl.SnlError"}
    assert names <= documented()
    assert {"snl.errors", "snl.model.base"} <= documented()


def test_all_sections_of_the_settings_are_in_the_reference() -> None:
    sections = {type(getattr(snl.resolve(), one.name)) for one in dataclasses.fields(snl.Settings)}
    classes = {f"snl.settings.{one.__name__}" for one in sections if dataclasses.is_dataclass(one)}
    assert classes
    assert classes <= documented()


def test_the_command_line_is_complete() -> None:
    commands = hook("commands")
    text = "\n".join(commands.verbs())
    assert re.findall(r"^## snl (\S+)$", text, flags=re.M) == list(VERBS)
    for _, parser in commands.parsers():
        for action in parser._actions:
            for option in action.option_strings if action.help != SUPPRESS else ():
                assert re.search(rf"`{re.escape(option)}[ `]", text), option
    assert all(f"`{name}`" in "\n".join(commands.settings()) for name in ("tile", "map.memory"))
    rows = "\n".join(commands.methods())
    assert all(f"| `{name}` |" in rows for name in (*settings.METHODS, *settings.PRESETS))


def test_a_page_that_fetches_something_is_refused() -> None:
    from mkdocs.exceptions import PluginError

    check = hook("offline").on_post_page
    page: Any = type("Page", (), {"file": type("File", (), {"src_uri": "page.md"})})
    for text in ('<a href="https://x.y/z">', '<img src="z.png">', "<link href=z.css>"):
        assert check(text, page, None) == text
    for text in ('<script src="https://x.y/z">', "<link href=//x.y/z>", "<img src=http://x.y/z>"):
        with pytest.raises(PluginError, match=r"page\.md: would be fetched from elsewhere"):
            check(text, page, None)


class Shape(HTMLParser):
    """The elements of a page, in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in TAGS:
            self.tags.append(tag)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_of)
def test_a_page_reads_alike_in_the_repository_and_in_the_site(page: Path) -> None:
    """The site's Markdown needs an empty line before a list, and four spaces inside one."""
    import markdown

    text = page.read_text("utf-8")
    there = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    extensions = ["attr_list", "sane_lists", "tables", "pymdownx.superfences"]
    assert Shape(markdown.markdown(text, extensions=extensions)).tags == Shape(there).tags
