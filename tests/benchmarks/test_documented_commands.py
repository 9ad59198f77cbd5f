"""Commands in the documentation: their benchmarks exist and accept their arguments."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import ablation, roofline
from benchmarks.common import REPOSITORY, read_results
from benchmarks.drift_delay import images_table
from benchmarks.false_alarm_rates import tables
from benchmarks.speed import markdown

BENCHMARKS = REPOSITORY / "benchmarks"
RESULTS = REPOSITORY / "docs" / "results"
DOCUMENTS = [
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *sorted((REPOSITORY / "benchmarks").rglob("*.py")),
]
COMMAND = re.compile(r"^ {4,}(?:\S+/)?python -m benchmarks\.(\w+)( .*)?$", re.MULTILINE)


def commands(document: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield benchmark and arguments of each command in the code blocks of a document."""
    text = document.read_text(encoding="utf-8")
    if document.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    for match in COMMAND.finditer(text.replace("\\\n", " ")):
        yield match[1], shlex.split(match[2] or "", comments=True)


COMMANDS = [
    pytest.param(name, arguments, id=f"{document.relative_to(REPOSITORY)} {name} {number}")
    for document in DOCUMENTS
    for number, (name, arguments) in enumerate(commands(document))
]


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return the parser of a benchmark."""
    main = ".__main__" if (BENCHMARKS / name).is_dir() else ""
    parser = importlib.import_module(f"benchmarks.{name}{main}").parser()
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


@pytest.mark.parametrize(("name", "arguments"), COMMANDS)
def test_arguments_parse(name: str, arguments: list[str]) -> None:
    options = parser_of(name).parse_args(arguments)
    plan = getattr(options, "plan", None)
    assert plan is None or (REPOSITORY / plan).is_file()


def names() -> set[str]:
    """Return the names of all benchmarks."""
    modules = {file.stem for file in BENCHMARKS.glob("*.py")}
    packages = {file.parent.name for file in BENCHMARKS.glob("*/__main__.py")}
    return (modules | packages) - {"__init__", "common", "internals"}


def test_all_benchmarks_are_in_the_documentation() -> None:
    documented = {
        name for document in DOCUMENTS if document.suffix == ".md" for name, _ in commands(document)
    }
    assert documented == names()


def test_no_document_has_the_old_form_of_a_command() -> None:
    for document in DOCUMENTS:
        assert "python benchmarks/" not in document.read_text(encoding="utf-8"), document


def test_benchmarks_have_other_names_than_modules() -> None:
    source = REPOSITORY / "src" / "snl"
    modules = {file.stem for file in source.rglob("*.py")} | {
        file.name for file in source.rglob("*") if file.is_dir()
    }
    assert not names() & modules


@pytest.mark.parametrize(
    "file", sorted((BENCHMARKS / "plans").glob("*.toml")), ids=lambda f: f.stem
)
def test_plans_name_methods_and_settings_that_exist(file: Path) -> None:
    plan = ablation.read_plan(file)
    weights = {row.get("weights", ""): "random" for row in plan["run"]}
    for seed in plan["seeds"]:
        groups = list(ablation.groups_of(plan, plan["run"], weights, seed))
        assert sum(map(len, groups)) == len(plan["run"])


@pytest.mark.parametrize(
    "name",
    [
        *("ablation", "accuracy", "at256", "at-default", "at-default-gpu", "cram-forms", "gpu"),
        *("ingredients", "methods", "teachers", "teacher-length"),
    ],
)
def test_tables_of_runs_are_up_to_date(name: str) -> None:
    text = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
    assert ablation.table(RESULTS / f"{name}.json") == text


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("decisions", tables),
        ("drift-images", images_table),
        ("roofline", roofline),
        ("speed", markdown),
    ],
)
def test_tables_are_up_to_date(name: str, module: object) -> None:
    text = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
    assert module.table(read_results(RESULTS / f"{name}.json")) == text  # type: ignore[attr-defined]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a benchmark as printed: from the root of the repository, not installed."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )


def test_a_command_runs_from_the_root_of_the_repository(tmp_path: Path) -> None:
    output = tmp_path / "table.md"
    process = run("benchmarks.drift_delay", "table", str(RESULTS / "drift.json"), "-o", str(output))
    assert process.returncode == 0, process.stderr
    rows = json.loads((RESULTS / "drift.json").read_text(encoding="utf-8"))["delays"]
    starts = {(row["baseline"], row["quiet"]) for row in rows}
    gaps = json.loads((RESULTS / "drift.json").read_text(encoding="utf-8"))["gaps"]
    delays, _, shares = output.read_text(encoding="utf-8").rstrip().partition("\n\n")
    assert len(delays.splitlines()) == 2 + len(starts)
    assert len(shares.splitlines()) == 2 + len(gaps)


def test_errors_take_one_line(tmp_path: Path) -> None:
    process = run("benchmarks.drift_delay", "table", str(tmp_path / "missing.json"))
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert "missing.json: cannot be read" in line and "give the JSON file" in line
