"""The files that pages are made of."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from importlib import resources

SHARED_SCRIPTS = ("dom", "tips", "scores")
"""Scripts that every page has, before its own."""


def asset(package: str, name: str) -> str:
    """Return the text of a file of a package."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def style(package: str, name: str) -> str:
    """Return the style of a page: what all pages share, and its own."""
    return asset("snl.web", "base.css") + asset(package, name)


def script(package: str, names: Iterable[str]) -> str:
    """Return the script of a page: all files inside one function, which hides their names."""
    parts = [asset("snl.web", f"{name}.js") for name in SHARED_SCRIPTS]
    parts += [asset(package, name) for name in names]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "\n})();\n"


def symbols() -> str:
    """Return the symbols of the decisions, as SVG for the start of a page's body."""
    return asset("snl.web", "symbols.svg")


def csp_hash(text: str) -> str:
    """Return the hash by which a Content-Security-Policy allows an inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
