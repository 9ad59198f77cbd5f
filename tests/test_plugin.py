"""The example plug-in, installed from its own folder, and used as a researcher would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY_OPTIONS

EXAMPLE = Path(__file__).parent.parent / "examples" / "plugin"
SETTINGS = (
    "student.architecture=bilinear",
    "student.bilinear.width=8",
    "loss.sparse_code.weight=0.5",
    "loss.sparse_code.margin=0.01",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plug-in installed, not the environment of the tests."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--target", str(folder), str(EXAMPLE)]
    subprocess.run(command, check=True, timeout=240)
    return folder


def run(*words: object, site: Path | None) -> subprocess.CompletedProcess[str]:
    """Run the command with or without the plug-in."""
    paths = [str(site)] if site else []
    paths += [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    return subprocess.run(
        [sys.executable, "-m", "snl", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


@pytest.fixture(scope="session")
def trained(site: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the plug-in's student and loss."""
    path = tmp_path_factory.mktemp("plugin") / "parts.snl"
    options = [word for text in SETTINGS for word in ("--set", text)]
    result = run(
        "train", parts, "-o", path, *TINY_OPTIONS, *options, "--quiet", "--checkpoint-every", "0",
        "--set", "training.holdout=0.5", site=site,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return path


def records(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_help_lists_what_is_installed(site: Path) -> None:
    with_plugin = run("train", "--help", site=site).stdout
    assert "student bilinear (of snl-example-plugin)" in with_plugin
    assert "student.bilinear.width=64" in with_plugin and "loss.sparse_code.margin" in with_plugin
    assert "bilinear" not in run("train", "--help", site=None).stdout


def test_the_loss_is_computed_and_logged(trained: Path, site: Path) -> None:
    info = json.loads(run("info", trained, "--json", "-", site=site).stdout)
    assert info["settings"]["loss"]["sparse_code"] == {"weight": 0.5, "margin": 0.01}
    names = {(p["kind"], p["name"], p["package"], p["version"]) for p in info["plugins"]}
    assert names == {
        ("student", "bilinear", "snl-example-plugin", "0.1.0"),
        ("loss", "sparse_code", "snl-example-plugin", "0.1.0"),
    }


def test_settings_are_checked(site: Path, parts: Path, tmp_path: Path) -> None:
    for text, message in (
        ("student.bilinear.width=0", "'student.bilinear.width' is 0; it must be in 1..4096"),
        ("student.bilinear.width=x", "it takes a whole number"),
        ("student.bilinear.depth=2", "student.bilinear.depth"),
        ("student.architecture=trilinear", "one of reverse, forward, uniad, bilinear"),
    ):
        result = run("train", parts, "-o", tmp_path / "a.snl", "--set", text, site=site)
        assert result.returncode == 2 and message in result.stderr
        assert result.stderr.count("\n") == 1 and not (tmp_path / "a.snl").exists()


def test_inspected_exported_and_inspected_again(
    trained: Path, site: Path, parts: Path, tmp_path: Path
) -> None:
    image = next((parts / "bolt" / "test" / "good").glob("*.png"))
    (before,) = records(run("inspect", trained, image, site=site))
    graph = tmp_path / "parts.onnx"
    result = run("export", trained, "-o", graph, "--quiet", site=site)
    assert result.returncode == 0, result.stderr
    for where in (site, None):  # the graph runs without the plug-in
        (after,) = records(run("inspect", graph, image, site=where))
        assert after["score"] == pytest.approx(before["score"], rel=1e-4)
        assert after["decision"] == before["decision"]
    result = run("calibrate", graph, "--rate", "0.4", "--tail", "none", site=None)
    assert result.returncode == 0, result.stderr
    info = json.loads(run("info", graph, "--json", "-", site=None).stdout)
    assert {p["name"] for p in info["plugins"]} == {"bilinear", "sparse_code"}
    assert info["settings"]["student"]["bilinear"] == {"width": 8}


def test_one_line_where_the_plugin_is_missing(trained: Path, parts: Path) -> None:
    for words in (
        ("inspect", trained, parts),
        ("calibrate", trained),
        ("evaluate", trained, parts),
    ):
        result = run(*words, site=None)
        assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
        assert "pip install snl-example-plugin" in result.stderr
        assert "'bilinear'" in result.stderr and "0.1.0" in result.stderr
    info = json.loads(run("info", trained, "--json", "-", site=None).stdout)
    assert info["model"]["method"] == "snl" and len(info["plugins"]) == 2
