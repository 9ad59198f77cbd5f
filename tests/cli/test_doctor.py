"""`snl doctor`: a data set, or without one the environment."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

from snl.cli.main import main
from tests.conftest import Run

HEAVY = (
    *("torch", "torchvision", "timm", "onnxruntime", "openvino", "onnx", "onnxscript", "nncf"),
    *("av", "pyarrow", "matplotlib", "sympy", "tensorboard", "skimage", "fastapi", "httpx"),
    "psycopg",
)


def run_without(
    *words: object, broken: tuple[str, ...] = (), missing: tuple[str, ...] = HEAVY
) -> subprocess.CompletedProcess[str]:
    """Run the command where some modules cannot be imported.

    `broken` modules are installed and raise RuntimeError; `missing` ones are not installed: there
    are no distributions of their names either. Without the heavy packages this is also fast.
    """
    code = (
        "import importlib.metadata, json, sys\n"
        "broken, missing = json.loads(sys.argv.pop(1))\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in broken:\n"
        "            raise RuntimeError(f'{name}:\\n cannot start')\n"
        "        if name.partition('.')[0] in missing:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "version = importlib.metadata.version\n"
        "def hidden(name):\n"
        "    if name.replace('scikit-image', 'skimage') in missing:\n"
        "        raise importlib.metadata.PackageNotFoundError(name)\n"
        "    return version(name)\n"
        "importlib.metadata.version = hidden\n"
        "from snl.cli.main import main\n"
        "raise SystemExit(main(sys.argv[1:]))\n"
    )
    names = json.dumps([broken, [name for name in missing if name not in broken]])
    return subprocess.run(
        [sys.executable, "-c", code, names, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_this_environment(run_snl: Run) -> None:
    done = run_snl("doctor", "--json", "-", "--quiet")
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    assert done.returncode == (1 if report["problems"] else 0)
    packages = {package["name"]: package for package in report["packages"]}
    for name in ("numpy", "scipy", "pillow", "torch", "timm"):
        assert packages[name]["status"] == "ok"
        assert packages[name]["version"] == importlib.metadata.version(name)
    assert packages["torch"]["needed_by"] == ["train"] and packages["numpy"]["needed_by"] == ["snl"]
    assert report["python"]["executable"] == sys.executable
    assert report["cpu"]["cores"] >= report["cpu"]["usable_cores"] >= 1
    assert report["cpu"]["features"] is not None
    assert report["devices"]["torch"][0]["device"] == "cpu"
    (train,) = (extra for extra in report["extras"] if extra["name"] == "train")
    assert train["complete"] and train["install"] == "pip install 'snl-ad[train]'"


def test_without_optional_packages(tmp_path: Path) -> None:
    done = run_without("doctor", "--quiet", "--json", tmp_path / "environment.json")
    assert done.returncode == 0 and done.stderr == "", done
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert "timm missing, torch missing, torchvision missing" in rows["train"]
    assert rows["train"].endswith("pip install 'snl-ad[train]'")
    assert "snl inspect of .xml files" in rows["openvino"]
    assert "PyTorch devices       not available" in done.stdout
    assert "unknown (PyTorch is needed to read them)" in done.stdout
    assert done.stdout.endswith("\n\nno problems\n")
    report = json.loads((tmp_path / "environment.json").read_text())
    assert report["devices"] == {"torch": None, "openvino": None, "onnxruntime": None}
    complete = [extra["name"] for extra in report["extras"] if extra["complete"]]
    # its packages are not imported, so this test cannot take them away
    assert [name for name in complete if name != "docs"] == []


def test_a_broken_package_is_one_line() -> None:
    done = run_without("doctor", "--quiet", broken=("torch",))
    assert done.returncode == 1 and done.stderr == ""
    assert "problem: torch broken: RuntimeError: torch: cannot start\n" in done.stdout
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("torch "))
    assert row.split()[2:] == ["train", "broken:", "RuntimeError:", "torch:", "cannot", "start"]


def test_a_missing_package_that_is_always_needed() -> None:
    done = run_without("doctor", "--quiet", missing=(*HEAVY, "numpy"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "problem: numpy is missing, snl needs it: pip install snl-ad\n" in done.stdout
    assert "problem: scipy broken: ModuleNotFoundError: No module named 'numpy'" in done.stdout
    done = run_without("doctor", "data", missing=(*HEAVY, "numpy"))
    assert done.returncode == 2
    assert done.stderr == "snl: error: numpy is not installed: pip install snl-ad\n"


def test_data_after_options(parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """DATA is optional, and argparse does not find an optional argument after options."""
    assert main(["doctor", "--layout", "mvtec", "--quiet", str(parts)]) == 0
    assert "bolt" in capsys.readouterr().out


def test_findings_as_json_on_stdout(parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(parts), "--quiet", "--json", "-"]) == 0
    assert "bolt" in json.loads(capsys.readouterr().out)["products"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--layout", "mvtec"], "give DATA with it"),
        (["--json", "{folder}"], "is a folder"),
        (["{folder}/missing"], "does not exist"),
        (["{folder}", "more"], "unrecognized arguments: more"),
        (["--device", "cpu"], "unrecognized arguments"),
    ],
)
def test_wrong_input_gets_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    try:
        status = main(["doctor", *(word.format(folder=tmp_path) for word in words)])
    except SystemExit as stop:  # errors of argparse
        status = int(stop.code or 0)
    output = capsys.readouterr()
    last = output.err.strip().splitlines()[-1]
    assert status == 2 and "error: " in last and message in last and output.out == ""
