"""Exports where PyTorch is not installed: the package alone, in new environments."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import snl
from tests.runtime.compare import close, same_record

ROOT = Path(__file__).parents[2]
RUNTIMES = {"runtime": "onnx", "openvino": "openvino"}
"""Kind of file by the extra that runs it."""
UNWANTED = ("torch", "torchvision", "timm", "onnx", "onnxscript", "nncf")


@pytest.fixture(scope="session", params=RUNTIMES)
def bare(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """An extra, and the folder of programs of a new environment with nothing but it."""
    folder = tmp_path_factory.mktemp(request.param) / "env"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--constraint", ROOT / "constraints.txt", f"{ROOT}[{request.param}]"],
        capture_output=True,
        text=True,
        timeout=280,
    )
    if done.returncode:
        reason = f"pip cannot install here: {done.stderr.strip().splitlines()[-1]}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    yield request.param, programs
    shutil.rmtree(folder)  # hundreds of megabytes, which pytest would keep


def run(programs: Path, program: str, *arguments: object, status: int = 0) -> Any:
    """A program of the new environment, away from this source tree and its settings."""
    done = subprocess.run(
        [programs / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=programs,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
    )
    assert done.returncode == status, done.stderr
    return done


@pytest.fixture(scope="module")
def photos(plant: Path) -> list[Path]:
    """Of both products, with and without defects."""
    return sorted(plant.glob("*/test/*/00[01].png"))


def test_the_training_packages_are_not_installed(bare: tuple[str, Path]) -> None:
    _, programs = bare
    code = f"from importlib.util import find_spec; print([n for n in {UNWANTED} if find_spec(n)])"
    assert run(programs, "python", "-c", code).stdout.strip() == "[]"


def test_the_library_gives_the_same(
    bare: tuple[str, Path],
    exported: dict[str, Path],
    inspector: snl.Inspector,
    photos: list[Path],
    tmp_path: Path,
) -> None:
    extra, programs = bare
    code = (
        "import json, sys, numpy as np, snl\n"
        "inspector = snl.load(sys.argv[1], 'cpu')\n"
        "for number, path in enumerate(sys.argv[3:]):\n"
        "    result = inspector.inspect(path)\n"
        "    np.save(f'{sys.argv[2]}/{number}.npy', result.anomaly_map)\n"
        "    print(json.dumps(result.to_dict()))\n"
    )
    done = run(programs, "python", "-c", code, exported[RUNTIMES[extra]], tmp_path, *photos)
    lines = done.stdout.splitlines()
    for number, (path, line) in enumerate(zip(photos, lines, strict=True)):
        result = inspector.inspect(path)
        same_record(json.loads(json.dumps(result.to_dict())), json.loads(line))
        close(result.anomaly_map, np.load(tmp_path / f"{number}.npy"))


def test_the_command_gives_the_same(
    bare: tuple[str, Path],
    exported: dict[str, Path],
    inspector: snl.Inspector,
    photos: list[Path],
    plant: Path,
    tmp_path: Path,
) -> None:
    extra, programs = bare
    file = exported[RUNTIMES[extra]]
    options = ["--out", tmp_path / "ov", "--json", tmp_path / "x.jsonl", "--device", "cpu"]
    run(programs, "snl", "inspect", file, *photos, *options)
    records = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    for path, record in zip(photos, records, strict=True):
        assert Path(record.pop("overlay")).read_bytes().startswith(b"\x89PNG")
        same_record(json.loads(json.dumps(inspector.inspect(path).to_dict())), record)

    run(programs, "snl", "evaluate", file, plant, "--json", tmp_path / "m.json", "--quiet")
    mean = json.loads((tmp_path / "m.json").read_text())["mean"]
    wanted = snl.evaluate(inspector, snl.Catalog.read(plant)).mean
    for name in ("image_auroc", "pixel_auroc", "aupro"):
        assert mean[name] == pytest.approx(wanted[name], abs=1e-4)
    run(programs, "snl", "report", file, plant, "-o", tmp_path / "r.html", "--quiet")
    assert (tmp_path / "r.html").stat().st_size > 10_000


def test_an_export_is_calibrated(
    bare: tuple[str, Path], exported: dict[str, Path], plant: Path, tmp_path: Path
) -> None:
    extra, programs = bare
    file = exported[RUNTIMES[extra]]
    mine = tmp_path / file.name
    run(programs, "snl", "calibrate", file, "--rate", "0.3", "-o", mine)
    normals = plant / "bolt" / "test" / "good"
    run(programs, "snl", "calibrate", mine, normals, "--add", "--product", "bolt", "--quiet")
    changed = snl.load(mine, "cpu")
    assert changed.rates.anomalous == 0.3 and len(changed.calibration.sets["bolt"]) == 18
    run(programs, "snl", "calibrate", mine, "--undo")
    assert len(snl.load(mine, "cpu").calibration.sets["bolt"]) == 12


def test_verbs_that_need_torch_name_the_extra(
    bare: tuple[str, Path], trained: Path, plant: Path, tmp_path: Path
) -> None:
    _, programs = bare
    for arguments in (
        ["inspect", trained, plant],
        ["train", plant, "-o", tmp_path / "a.snl"],
        ["export", trained, "-o", tmp_path / "a.onnx"],
    ):
        done = run(programs, "snl", *arguments, status=2)
        lines = done.stderr.splitlines()
        assert "Traceback" not in done.stderr
        assert lines[-1].startswith("snl: error: ") and "'snl-ad[train]'" in lines[-1]
    assert not list(tmp_path.iterdir())


def test_it_starts_fast(
    bare: tuple[str, Path], exported: dict[str, Path], photos: list[Path]
) -> None:
    """Process start to end, best of three; the bounds leave room for a busy machine."""
    extra, programs = bare
    code = "import sys, snl; snl.load(sys.argv[1]).inspect(sys.argv[2])"
    cases: dict[str, tuple[float, list[object]]] = {
        "import snl": (0.5, ["python", "-c", "import snl"]),
        "snl --help": (1.0, ["snl", "--help"]),
        "first result": (3.0, ["python", "-c", code, exported[RUNTIMES[extra]], photos[0]]),
    }
    for name, (bound, (program, *arguments)) in cases.items():
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            run(programs, str(program), *arguments)
            seconds.append(time.perf_counter() - began)
        print(f"{extra}: {name} {min(seconds):.2f} s")  # noqa: T201
        assert min(seconds) < bound, name
