"""Hook of MkDocs: files outside docs/ that pages link to become pages of the site.

A page links to `../deploy/snl.toml` as a reader of the repository needs it. The site has no such
file, so that one is shown as a page of its own, `repository/deploy/snl.toml.md`, and links lead
there. Nothing outside the site is needed to read it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

FOLDER = "repository"
"""Folder of the site for files from outside docs/."""

ALWAYS = ("CHANGELOG.md", "CONTRIBUTING.md")
"""Files that the navigation names."""

_LINK = re.compile(r"(?<=\]\()(?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?(?=\))")
_LANGUAGES = {".cpp": "cpp", ".json": "json", ".py": "python", ".toml": "toml", ".yaml": "yaml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file that is linked to, and for those that these link to."""
    root = Path(config.config_file_path).parent
    docs = Path(config.docs_dir).name
    waiting = [f"{docs}/{file.src_uri}" for file in files.documentation_pages()]
    waiting += ALWAYS
    done: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in done:
            continue
        done.add(path)
        inside = path.startswith(f"{docs}/")
        if not inside:
            files.append(File.generated(config, site_path(path), content=_page(root, path)))
        if path.endswith(".md"):
            text = (root / path).read_text(encoding="utf-8")
            waiting += [to for to in _targets(text, path) if _is_outside(root, to, docs)]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to files outside docs/, and links of those files, to their place in the site."""
    root = Path(config.config_file_path).parent
    docs = Path(config.docs_dir).name
    here = page.file.src_uri
    inside = not here.startswith(f"{FOLDER}/")
    path = f"{docs}/{here}" if inside else here.removeprefix(f"{FOLDER}/")

    def replace(match: re.Match[str]) -> str:
        to = posixpath.normpath(posixpath.join(posixpath.dirname(path), match["target"]))
        if _is_outside(root, to, docs):
            place = site_path(to)
        elif not inside and to.startswith(f"{docs}/"):
            place = to.removeprefix(f"{docs}/")
        else:
            return match[0]
        return posixpath.relpath(place, posixpath.dirname(here) or ".") + (match["anchor"] or "")

    return _LINK.sub(replace, markdown)


def site_path(path: str) -> str:
    """Return the source path in the site of a file outside docs/."""
    return f"{FOLDER}/{path}" + ("" if path.endswith(".md") else ".md")


def _targets(text: str, path: str) -> Iterator[str]:
    """Yield the paths in the repository that a text links to."""
    for match in _LINK.finditer(text):
        yield posixpath.normpath(posixpath.join(posixpath.dirname(path), match["target"]))


def _is_outside(root: Path, path: str, docs: str) -> bool:
    """Tell whether a path is a file of the repository outside docs/."""
    return not path.startswith(("..", f"{docs}/")) and (root / path).is_file()


def _page(root: Path, path: str) -> str:
    """Return a file as a page: Markdown as it is, anything else as a block of code."""
    text = (root / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    language = _LANGUAGES.get(Path(path).suffix, "text")
    name = posixpath.basename(path)
    return f"# {name}\n\n`{path}` of the repository.\n\n````{language}\n{text.rstrip()}\n````\n"
