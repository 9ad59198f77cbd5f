"""Installed plug-ins: found by their entry points, imported when needed, reported when broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY_OPTIONS

MODULE = """
from dataclasses import dataclass
from typing import Annotated
from snl.registry import register_loss, register_scorer, register_student
from snl.settings import Range

@register_loss("{name}", implementation="{module}.parts:loss", scope="batch")
@dataclass(frozen=True)
class LossSettings:
    weight: float = 0.0
    power: Annotated[float, Range(0, 4)] = 2.0

@register_scorer("{name}_score", implementation="{module}.parts:score")
@dataclass(frozen=True)
class ScoreSettings:
    share: Annotated[float, Range(0, 1)] = 0.5
"""
PARTS = """
import torch

def loss(batch, settings):
    return sum(s.student.abs().pow(settings.power).mean() for s in batch.stages)

def score(maps, settings):
    values = settings.of("{name}_score")
    return maps.flatten(1).quantile(values.share, dim=1)
"""


def install(folder: Path, project: str, content: str = "", name: str = "") -> Path:
    """Write a distribution as an installer leaves it: a package and its metadata.

    Args:
        folder: that goes on `sys.path`.
        project: name of the distribution, such as snl-sparse.
        content: of the package's `__init__`; empty: one that registers a loss and a scorer.
        name: of the loss; the scorer's is NAME_score.
    """
    module = project.replace("-", "_")
    package, info = folder / module, folder / f"{module}-1.2.dist-info"
    for each in (package, info):
        each.mkdir(parents=True)
    values = {"name": name or module, "module": module}
    (package / "__init__.py").write_text(content or MODULE.format(**values))
    (package / "parts.py").write_text(PARTS.format(**values))
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[snl.plugins]\n{module} = {module}\n")
    return folder


def environment(folder: Path) -> dict[str, str]:
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run_code(folder: Path, code: str) -> Any:
    """Run code in a process that has the distributions of `folder`; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", f"import json, sys\n{code}"],
        capture_output=True,
        text=True,
        env=environment(folder),
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal_of(folder: Path, changes: dict[str, Any]) -> str:
    """Return the message with which settings are refused in such a process."""
    message: str = run_code(
        folder,
        "from snl.errors import SettingsError\n"
        "from snl.settings import resolve\n"
        f"try: resolve(overrides={changes!r})\n"
        "except SettingsError as error: print(json.dumps(str(error)))",
    )
    assert message and "\n" not in message
    return message


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("sparse"), "snl-sparse")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working plug-in, one that raises on import, and one whose module is missing."""
    folder = install(tmp_path_factory.mktemp("broken"), "snl-sparse")
    install(folder, "snl-broken", "raise RuntimeError('first line\\nsecond line')")
    install(folder, "snl-gone")
    (folder / "snl_gone" / "__init__.py").write_text("import no_such_package")
    return folder


def test_settings_of_an_installed_plugin_without_torch(sparse: Path) -> None:
    result = run_code(
        sparse,
        "from snl.settings import Settings, plugin_values, plugins_used, resolve\n"
        "changes = {'loss.snl_sparse.weight': '0.5', 'map.score': 'snl_sparse_score'}\n"
        "s = resolve(overrides=changes)\n"
        "assert Settings.from_dict(json.loads(json.dumps(s.to_dict()))) == s\n"
        "heavy = sorted({'torch', 'timm', 'numpy'} & set(sys.modules))\n"
        "print(json.dumps([s.to_dict(), plugins_used(s), plugin_values(), heavy]))",
    )
    values, used, defaults, heavy = result
    assert values["loss"]["snl_sparse"] == {"weight": 0.5, "power": 2.0}
    assert values["map"]["snl_sparse_score"] == {"share": 0.5}
    assert used == [
        {"kind": kind, "name": name, "package": "snl-sparse", "version": "1.2"}
        for kind, name in (("scorer", "snl_sparse_score"), ("loss", "snl_sparse"))
    ]
    assert defaults == {
        "loss.snl_sparse.weight": 0.0,
        "loss.snl_sparse.power": 2.0,
        "map.snl_sparse_score.share": 0.5,
    }
    assert not heavy


def test_plugins_are_imported_only_when_needed(sparse: Path, broken: Path) -> None:
    code = (
        "from snl.settings import METHODS, Settings, resolve, setting_values\n"
        "for method in METHODS: Settings.from_dict(resolve(method).to_dict())\n"
        "setting_values(resolve())\n"
        "print(json.dumps([m for m in sys.modules if m.startswith(('snl_', 'torch', 'numpy'))]))"
    )
    assert run_code(sparse, code) == run_code(broken, code) == []


@pytest.mark.parametrize("module", ["snl.registry", "snl.settings"])
def test_registry_and_settings_import_no_torch(tmp_path: Path, module: str) -> None:
    code = f"import {module}\nprint(json.dumps([*sys.modules]))"
    assert not {"torch", "timm", "numpy"} & set(run_code(tmp_path, code))


def test_a_plugin_imported_before_its_entry_point_has_the_same_package(sparse: Path) -> None:
    used = run_code(
        sparse,
        "import snl_sparse\n"
        "from snl.settings import plugins_used, resolve\n"
        "from snl.registry import load_plugins\n"
        "load_plugins()\n"
        "print(json.dumps(plugins_used(resolve(overrides={'loss.snl_sparse.weight': 1}))))",
    )
    assert [(p["package"], p["version"]) for p in used] == [("snl-sparse", "1.2")]


REASONS = (
    "snl-broken could not be imported (RuntimeError: first line second line)",
    "snl-gone could not be imported (ModuleNotFoundError: No module named 'no_such_package')",
)


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("student.architecture", "one of reverse, forward, uniad"),
        ("map.score", "one of max, topk, snl_sparse_score"),
        ("loss.other.weight", "installed: snl_sparse"),
        ("map.other.share", "installed: snl_sparse_score"),
        ("student.other.width", "installed: none"),
    ],
)
def test_errors_list_names_and_broken_plugins(
    sparse: Path, broken: Path, name: str, listed: str
) -> None:
    message = refusal_of(broken, {name: "other"})
    assert f"'{name}'" in message and listed in message
    assert all(reason in message for reason in REASONS)
    message = refusal_of(sparse, {name: "other"})
    assert listed in message and "could not be imported" not in message


def test_broken_plugins_do_not_disturb_working_ones(broken: Path) -> None:
    used, failed = run_code(
        broken,
        "from snl.registry import failed_plugins\n"
        "from snl.settings import plugins_used, resolve\n"
        "s = resolve(overrides={'loss.snl_sparse.weight': 1})\n"
        "print(json.dumps([plugins_used(s), failed_plugins()]))",
    )
    assert [p["package"] for p in used] == ["snl-sparse"]
    assert failed == {
        reason.partition(" could")[0]: reason.partition("(")[2].rpartition(")")[0]
        for reason in REASONS
    }


def test_two_packages_with_one_name(tmp_path: Path) -> None:
    install(tmp_path, "snl-first", name="code")
    install(tmp_path, "snl-second", name="code")
    message = refusal_of(tmp_path, {"loss.other.weight": 1})
    assert "installed: code" in message and "could not be imported (PluginError: loss 'code'" in (
        message
    )
    assert "registered twice" in message and "uninstall one of the packages" in message


def test_settings_of_a_plugin_that_is_not_installed(sparse: Path, tmp_path: Path) -> None:
    for changes, name in (
        ({"loss.snl_sparse.weight": 1}, "loss 'snl_sparse'"),
        ({"map.score": "snl_sparse_score"}, "'snl_sparse_score'"),
    ):
        document = run_code(
            sparse,
            "from snl.settings import resolve\n"
            f"print(json.dumps(resolve(overrides={changes!r}).to_dict()))",
        )
        message = run_code(
            tmp_path,
            "from snl.errors import SnlError\n"
            "from snl.settings import Settings\n"
            f"try: Settings.from_dict({document!r})\n"
            "except SnlError as error: print(json.dumps(str(error)))",
        )
        assert name in message and "\n" not in message


COMMAND = """
import contextlib, io
import snl
from snl.cli.main import main

def run(*sets):
    words = [word for text in sets for word in ("--set", text)]
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        return main([*WORDS, *words]), stderr.getvalue()

results = [run(text) for text in WRONG]
results.append(run("loss.snl_sparse.weight=0.5", "map.score=snl_sparse_score"))
settings = snl.load(OUTPUT, "cpu").settings.to_dict()
print(json.dumps([results, settings]))
"""
WRONG = {
    "loss.snl_sparse.power=5": "'loss.snl_sparse.power' is 5.0; it must be in 0..4",
    "loss.snl_sparse.powre=1": "unknown setting 'loss.snl_sparse.powre'",
    "loss.snl_sprase.weight=1": "installed: snl_sparse",
    "map.score=snl_sparse": "it takes one of max, topk, snl_sparse_score",
}


def test_command_trains_with_a_plugin(parts: Path, sparse: Path, tmp_path: Path) -> None:
    """`--set` takes the settings; the loss is in the log; the bundle loads with the plug-in."""
    output = str(tmp_path / "a.snl")
    words = ["train", str(parts), "-o", output, *TINY_OPTIONS, "--quiet"]
    constants = f"WORDS, WRONG, OUTPUT = {words!r}, {list(WRONG)!r}, {output!r}\n"
    (*refused, (status, said)), settings = run_code(sparse, constants + COMMAND)
    for (code, message), expected in zip(refused, WRONG.values(), strict=True):
        assert code == 2 and expected in message and len(message.splitlines()) == 1
    assert status == 0, said
    log = (tmp_path / "a.snl.run" / "log.jsonl").read_text().splitlines()
    assert all(json.loads(line)["terms"]["snl_sparse"] > 0 for line in log)
    assert settings["loss"]["snl_sparse"] == {"weight": 0.5, "power": 2.0}
    assert settings["map"]["score"] == "snl_sparse_score"
