"""The version has one place, `snl.__version__`; every other mention agrees with it."""

from __future__ import annotations

import datetime
import re
import tomllib
from pathlib import Path

import pytest

import snl
from snl.cli.main import main

ROOT = Path(__file__).parents[2]


def heading() -> re.Match[str]:
    """Return the heading of the newest version in the changelog."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(r"^## (\d+\.\d+\.\d+) \((.+)\)$", text, re.MULTILINE)
    assert found, "CHANGELOG.md has no heading such as '## 1.2.3 (2026-01-31)'"
    return found


def test_the_package_is_built_with_the_version_of_the_code() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in document["project"], "pyproject.toml has a second version"
    assert document["project"]["dynamic"] == ["version"]
    assert document["tool"]["hatch"]["version"]["path"] == "src/snl/__init__.py"


def test_the_changelog_has_the_version_and_its_date() -> None:
    version, date = heading().groups()
    assert version == snl.__version__
    datetime.date.fromisoformat(date)


def test_the_citation_has_the_version_and_its_date() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    found = dict(re.findall(r"^(version|date-released): (.+)$", text, re.MULTILINE))
    assert found == {"version": snl.__version__, "date-released": heading()[2]}


def test_the_security_policy_names_the_version() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert f"| {snl.__version__.rpartition('.')[0]}.x |" in text


def test_the_command_says_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"snl {snl.__version__}\n"
