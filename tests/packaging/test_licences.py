"""docs/licences.md lists every requirement, and every kind of file that the wheel contains."""

from __future__ import annotations

from tests.packaging import licences
from tests.packaging.environments import ROOT

PACKAGE = ROOT / "src" / "snl"


def test_the_table_lists_what_is_required() -> None:
    table = licences.written(licences.FILE.read_text(encoding="utf-8"))
    stated = [(extra, line) for extra, line, _ in table]
    assert stated == [(extra, line) for extra, line, _ in licences.rows()], (
        "docs/licences.md is out of date; run: python -m tests.packaging.licences"
    )


def test_every_licence_is_known() -> None:
    table = licences.written(licences.FILE.read_text(encoding="utf-8"))
    unknown = [line for extra, line, licence in table if extra != "dev" and "not " in licence]
    assert not unknown


def test_licences_of_users_packages_are_those_that_the_packages_state() -> None:
    table = licences.written(licences.FILE.read_text(encoding="utf-8"))
    installed = {
        line: licences.licence_of(licences.name_of(line)) for extra, line, _ in table
        if extra != "dev"
    }  # fmt: skip
    stated = {line: licence for extra, line, licence in table if extra != "dev"}
    compared = {line: text for line, text in installed.items() if text != "not installed"}
    assert len(compared) > 4
    assert {line: stated[line] for line in compared} == compared, (
        "a package has changed its licence; run: python -m tests.packaging.licences"
    )


def test_bundled_files_are_of_kinds_that_the_page_describes() -> None:
    """A font, a picture or a third-party script would need a row and its licence."""
    kinds = {
        file.suffix
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.name != "py.typed"
    }
    assert kinds == {".py", ".safetensors", ".html", ".css", ".js", ".svg", ".json"}
    text = licences.FILE.read_text(encoding="utf-8")
    for file in (*PACKAGE.rglob("*.safetensors"), *PACKAGE.rglob("*.svg")):
        assert f"`snl/{file.relative_to(PACKAGE).as_posix()}`" in text, file


def test_no_file_names_another_author_or_licence() -> None:
    marks = ("@license", "copyright (c)", "(c) 20", "spdx-license", "licensed under", "/*!")
    for file in PACKAGE.rglob("*"):
        if file.suffix in (".js", ".css", ".html", ".svg", ".py"):
            text = file.read_text(encoding="utf-8").lower()
            assert not [mark for mark in marks if mark in text], file
