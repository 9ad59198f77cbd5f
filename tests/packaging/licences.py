"""Write the tables of docs/licences.md that list what pyproject.toml requires.

    python -m tests.packaging.licences

The licences are those that the installed packages state in their metadata.
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib

from tests.packaging.environments import ROOT

FILE = ROOT / "docs" / "licences.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
ALWAYS = "always"
"""In place of an extra: requirements that every installation has."""

_SHORT = {
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "freebsd": "BSD-2-Clause",
    "mit license": "MIT",
    "python software foundation license": "PSF-2.0",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "gnu lesser general public license v3 (lgplv3)": "LGPL-3.0-only",
    "osi approved :: mit license": "MIT",
}
_MISSING = "not installed"


def requirements() -> list[tuple[str, str]]:
    """Return (extra, requirement) for every line of pyproject.toml, in its order."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {ALWAYS: project["dependencies"], **project["optional-dependencies"]}
    return [(extra, line) for extra, lines in extras.items() for line in lines]


def name_of(requirement: str) -> str:
    """Return the name of the distribution that a requirement asks for."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return found[0]


def licence_of(name: str) -> str:
    """Return the licence that an installed package states: an SPDX expression where it has one."""
    try:
        metadata = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return _MISSING
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in metadata.get_all("Classifier") or []
        if text.startswith("License ::") and not text.endswith("OSI Approved")
    ]
    stated = (metadata.get("License") or "").strip()
    one_line = stated if "\n" not in stated and len(stated) < 60 else ""
    text = (
        metadata.get("License-Expression") or one_line or " or ".join(classifiers) or "not stated"
    )
    return _SHORT.get(text.lower(), text)


def rows() -> list[tuple[str, str, str]]:
    """Return (extra, requirement, licence) of everything that is required, `dev` shortened."""
    named = {name_of(line) for extra, line in requirements() if extra != "dev"}
    return [
        (extra, line, licence_of(name_of(line)))
        for extra, line in requirements()
        if extra != "dev" or name_of(line) not in named
    ]


def written(text: str) -> list[tuple[str, str, str]]:
    """Return the rows of the table in the text of docs/licences.md."""
    table = text[text.index(BEGIN) : text.index(END)]
    found = re.findall(r"^\| (\S+) \| `(.+)` \| (.+) \|$", table, re.MULTILINE)
    return [(extra, line, licence) for extra, line, licence in found]


def main() -> None:
    """Replace the table in docs/licences.md."""
    text = FILE.read_text(encoding="utf-8")
    lines = ["| needed for | requirement | licence |", "|---|---|---|"]
    lines += [f"| {extra} | `{line}` | {licence} |" for extra, line, licence in rows()]
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    FILE.write_text("\n".join([before + BEGIN, *lines, after]), encoding="utf-8")


if __name__ == "__main__":
    main()
