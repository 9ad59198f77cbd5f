"""Hook of MkDocs: the reference of the command line and of the settings, from the program.

In `reference/commands.md`, the line `<!-- verbs -->` becomes one section for each verb, made from
the parser that `snl VERB` uses. In `reference/settings.md`, `<!-- settings -->` becomes a table of
all settings with their default values, and `<!-- methods -->` one of the methods and presets.
"""

from __future__ import annotations

import argparse
import html
from collections.abc import Iterator
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

PLACES = {
    "reference/commands.md": ("verbs",),
    "reference/settings.md": ("settings", "methods"),
}
"""By page: what it has places for."""


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill the places of a page."""
    makers = {"verbs": verbs, "settings": settings, "methods": methods}
    for name in PLACES.get(page.file.src_uri, ()):
        place = f"<!-- {name} -->"
        if place not in markdown:
            raise ValueError(f"{page.file.src_uri}: has no line {place}")
        markdown = markdown.replace(place, "\n".join(makers[name]()))
    return markdown


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield every verb of `snl` with its parser, in the order of `snl --help`."""
    from snl.cli.main import VERBS, make_parser

    for name in VERBS:
        for action in make_parser(name)._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield name, action.choices[name]


def verbs() -> Iterator[str]:
    """Yield the lines of the sections of all verbs."""
    for name, parser in parsers():
        yield from (f"## snl {name}", "", _text(parser.description), "")
        yield from ("```text", _usage(parser), "```", "")
        for title, actions in _groups(parser):
            yield from (f"| {title} | |", "|---|---|")
            yield from (f"| {_names(one)} | {_help(parser, one)} |" for one in actions)
            yield ""
        examples, _, more = (parser.epilog or "").partition("\n\n")
        head, *lines = examples.splitlines() or [""]
        if head.startswith("examples"):
            yield from ("```sh", *(line.strip() for line in lines), "```", "")
        else:
            more = parser.epilog or ""
        if more.startswith("settings for --set"):
            more = "Settings for `--set` are listed in [Settings](settings.md)."
            yield from (more, "")
        elif more:
            yield from (_text(more), "")


def settings() -> Iterator[str]:
    """Yield the lines of a table of all settings."""
    from snl.settings import resolve, setting_values

    yield from ("| setting | default |", "|---|---|")
    for name, value in setting_values(resolve()).items():
        yield f"| `{name}` | {_value(value)} |"


def methods() -> Iterator[str]:
    """Yield the lines of a table of the methods and presets with what each of them changes."""
    from snl.settings import METHODS, PRESETS

    for title, named in (("`--method`", METHODS), ("`--preset`", PRESETS)):
        yield from (f"| {title} | changes |", "|---|---|")
        for name, changes in named.items():
            shown = ", ".join(f"`{key}={_plain(value)}`" for key, value in changes.items())
            yield f"| `{name}` | {shown or 'nothing'} |"
        yield ""


def _groups(parser: argparse.ArgumentParser) -> Iterator[tuple[str, list[argparse.Action]]]:
    """Yield title and options of each group of a parser that has any."""
    for group in parser._action_groups:
        actions = [one for one in group._group_actions if one.help != argparse.SUPPRESS]
        if actions:
            yield (group.title or "options").replace("positional arguments", "arguments"), actions


def _usage(parser: argparse.ArgumentParser) -> str:
    return parser.format_usage().removeprefix("usage: ").rstrip()


def _names(action: argparse.Action) -> str:
    """Return the names of an option with its value, as code."""
    value = _value_name(action)
    names = [f"{name} {value}".rstrip() for name in action.option_strings] or [value]
    return ", ".join(f"`{name}`{{ .option }}" for name in names)


def _value_name(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.metavar is not None:
        name = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar)
    elif action.choices is not None:
        name = "{" + ",".join(map(str, action.choices)) + "}"
    else:
        name = action.dest.upper() if action.option_strings else action.dest
    return f"{name} ..." if action.nargs in ("+", "*") else name


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Return the help of an option for a cell of a table."""
    text = parser._get_formatter()._expand_help(action) if action.help else ""
    return _text(text)


def _text(text: str | None) -> str:
    """Return plain text so that Markdown shows it as it is."""
    escaped = html.escape(text or "", quote=False)
    for character in "\\|*_`[]#":
        escaped = escaped.replace(character, f"&#{ord(character)};")
    return escaped.replace("\n", "  \n")


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _value(value: Any) -> str:
    return f"`{_plain(value)}`" if _plain(value) else "(empty)"
