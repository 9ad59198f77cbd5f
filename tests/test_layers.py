"""Imports follow the layers of CONTRIBUTING.md, and no modules import each other in a circle.

All imports count: at module level, inside functions, and for type checking only.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "snl"

BASE = [
    *("errors", "files", "registry", "settings", "progress", "dependencies", "text_table"),
    *("kmeans", "environment", "limits", "text", "temporary", "locks", "signals", "kinds"),
    "outputs",
]
LAYERS = [
    *(
        "base",
        "data",
        "demo",
        "drawing",
        "model",
        "decision",
        "monitoring",
        "runtime",
        "bulk",
        "training",
    ),
    *("evaluation", "exporting", "web", "reporting", "bench", "service", "station", "cli"),
]
"""From the bottom up; a package imports itself and what is listed before it."""


def modules(source: Path) -> dict[str, Path]:
    """Every module of the package by dotted name."""
    names = {}
    for path in source.rglob("*.py"):
        parts = path.relative_to(source.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(path: Path, known: set[str]) -> Iterator[tuple[str, int]]:
    """Modules of the package that a file imports anywhere, with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in known:
                    yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "snl":
            assert node.level == 0
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full if full in known else str(node.module)), node.lineno


def layer(module: str) -> str:
    """The layer of a module; the package itself, which only forwards names, has none."""
    parts = module.split(".")
    if len(parts) == 1 or parts[1] == "__main__":
        return ""
    return "base" if parts[1] in BASE else parts[1]


def graph(source: Path) -> dict[str, dict[str, int]]:
    """Imported modules and lines by module, without the package itself."""
    found = modules(source)
    return {name: dict(imports(path, set(found))) for name, path in found.items() if layer(name)}


def against_the_layers(source: Path) -> list[str]:
    """Imports from below to above, as text."""
    wrong = []
    for name, targets in graph(source).items():
        for target, line in targets.items():
            if not layer(target):
                continue  # the package itself: its version and public names
            if LAYERS.index(layer(target)) > LAYERS.index(layer(name)):
                wrong.append(f"{name}:{line} imports {target}")
    return wrong


def circles(source: Path) -> list[list[str]]:
    """Groups of modules that import each other (Tarjan's strongly connected components)."""
    edges = {n: [t for t in targets if layer(t) and t != n] for n, targets in graph(source).items()}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in edges.get(node, ()):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = []
            while True:
                group.append(stack.pop())
                if group[-1] == node:
                    break
            if len(group) > 1:
                groups.append(sorted(group))

    for name in edges:
        if name not in index:
            visit(name)
    return groups


def test_every_module_has_a_layer() -> None:
    assert {layer(name) for name in modules(SOURCE)} - {""} == set(LAYERS)


def test_imports_follow_the_layers() -> None:
    assert against_the_layers(SOURCE) == []


def test_no_circles() -> None:
    assert circles(SOURCE) == []


def test_contributing_shows_the_same_layers() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [line.split("`")[1].rstrip("/") for line in text.splitlines() if line.startswith("| `")]
    assert rows == LAYERS[::-1][:-1] or rows == LAYERS[1:]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small package with the same layers."""
    source = tmp_path / "snl"
    for name in ("data", "model", "cli"):
        (source / name).mkdir(parents=True)
        (source / name / "__init__.py").write_text("")
    (source / "__init__.py").write_text("")
    (source / "errors.py").write_text("")
    (source / "data" / "read.py").write_text("from snl.errors import *\n")
    (source / "model" / "net.py").write_text("from snl.data.read import x\n")
    return source


def test_the_check_finds_imports_against_the_layers(package: Path) -> None:
    assert against_the_layers(package) == []
    inline = "def f():\n    from snl.model import net\n"
    (package / "data" / "read.py").write_text(inline)
    assert against_the_layers(package) == ["snl.data.read:2 imports snl.model.net"]
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import snl.cli\n"
    (package / "data" / "read.py").write_text(typed)
    assert against_the_layers(package) == ["snl.data.read:3 imports snl.cli"]


def test_the_check_finds_circles(package: Path) -> None:
    assert circles(package) == []
    (package / "data" / "write.py").write_text("def f():\n    import snl.data.read\n")
    (package / "data" / "read.py").write_text("from snl.data import write\n")
    assert circles(package) == [["snl.data.read", "snl.data.write"]]
