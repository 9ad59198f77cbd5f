"""Hook of MkDocs: a page that would fetch something from another server ends the build."""

from __future__ import annotations

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

_FETCHED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\ssrc=[\"']?(?:https?:)?//[^\"'>\s]+"
    r"|<link\b(?![^>]*rel=[\"']?canonical)[^>]*\shref=[\"']?(?:https?:)?//[^\"'>\s]+"
    r"|@import[^;]*//[^;]+",
    re.IGNORECASE,
)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Check the HTML of a page."""
    if match := _FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri}: would be fetched from elsewhere: {match[0]}")
    return output
