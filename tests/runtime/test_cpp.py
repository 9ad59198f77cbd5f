"""The C++ example: built and run beside Python, with nothing but the exported file.

It takes a compiler, ONNX Runtime's C++ headers (Debian 13: libonnxruntime-dev, or the folder named
by ONNXRUNTIME_INCLUDE) and its library, for which that of the Python package does.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import snl
from snl.cli.main import main
from tests.trees import draw

SOURCE = Path(__file__).parents[2] / "examples" / "cpp" / "inspect.cpp"
HEADER = "onnxruntime_cxx_api.h"
FOLDERS = (os.environ.get("ONNXRUNTIME_INCLUDE", ""), "/usr/include/onnxruntime",
           "/usr/local/include/onnxruntime", "/usr/local/include")  # fmt: skip


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("c++")
    if not compiler or not sys.platform.startswith("linux"):
        pytest.skip("no C++ compiler for Linux")
    include = next((f for f in FOLDERS if f and (Path(f) / HEADER).is_file()), None)
    if include is None:
        pytest.skip(
            f"no {HEADER}: install libonnxruntime-dev, or name its folder by ONNXRUNTIME_INCLUDE"
        )
    runtime = pytest.importorskip("onnxruntime", reason="the extra `runtime` is not installed")
    libraries = list((Path(runtime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not libraries:
        pytest.skip("this onnxruntime package has no library of its own")
    folder = tmp_path_factory.mktemp("cpp")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(libraries[0])
    command = [compiler, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-isystem", include]
    command += [SOURCE, "-o", folder / "inspect", "-L", folder, "-lonnxruntime"]
    done = subprocess.run(
        [*map(str, command), f"-Wl,-rpath,{folder}"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return folder / "inspect"


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


# not taller than wide: of such images new versions of Pillow shrink the columns first, and this
# network, hardly trained, shows a pixel that differs by 1
@pytest.mark.parametrize(
    ("height", "width"), [(40, 48), (64, 64), (400, 480), (31, 517), (3, 5), (63, 1000)]
)
def test_the_same_score_and_decision(
    program: Path, exported: dict[str, Path], tmp_path: Path, height: int, width: int
) -> None:
    loaded = snl.load(exported["onnx"], "cpu")
    # by the map alone: the example does not compare the image as a whole
    of_maps = dataclasses.replace(loaded.calibration, references=None)
    inspector = snl.Inspector(loaded.predictor, [of_maps])
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    images = [noise]
    for seed, defect in ((300, False), (301, True)):
        part = Image.fromarray(draw(seed, defect=defect)[0]).resize((width, height))
        images.append(np.asarray(part))
    decisions = set()
    for image in images:
        Image.fromarray(image).save(tmp_path / "a.ppm")
        for product in inspector.products:
            done = run(program, exported["onnx"], tmp_path / "a.ppm", product)
            assert done.returncode == 0, done.stderr
            found, wanted = json.loads(done.stdout), inspector.inspect(image, product)
            assert found["score"] == pytest.approx(wanted.score, rel=1e-3)
            assert found["threshold"] == pytest.approx(wanted.threshold, rel=1e-6)
            assert found["decision"] == wanted.decision
            decisions.add(found["decision"])
    assert "anomalous" in decisions


def test_it_follows_snl_calibrate(program: Path, exported: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "parts.onnx"
    shutil.copy(exported["onnx"], file)
    Image.fromarray(draw(7)[0]).save(tmp_path / "a.ppm")
    seen = set()
    for rate in ("0.3", "0.1"):
        assert main(["calibrate", str(file), "--rate", rate, "--device", "cpu"]) == 0
        wanted = snl.load(file, "cpu").inspect(tmp_path / "a.ppm", "bolt")
        found = json.loads(run(program, file, tmp_path / "a.ppm", "bolt").stdout)
        assert found["threshold"] == pytest.approx(wanted.threshold, rel=1e-6)
        assert found["decision"] == wanted.decision
        seen.add(found["threshold"])
    assert len(seen) == 2
    assert main(["calibrate", str(file), "--undo", "--device", "cpu"]) == 0

    mask = tmp_path / "mask.png"
    Image.fromarray(np.eye(40, 48, dtype=np.uint8) * 255).save(mask)
    assert main(["calibrate", str(file), "--ignore", f"bolt={mask}", "--device", "cpu"]) == 0
    done = run(program, file, tmp_path / "a.ppm", "bolt")
    assert done.returncode == 2 and "no threshold of product 'bolt'" in done.stderr


def test_what_cannot_be_used_is_told(
    program: Path, exported: dict[str, Path], tmp_path: Path
) -> None:
    good, bad = tmp_path / "a.ppm", tmp_path / "bad.ppm"
    Image.fromarray(draw(7)[0]).save(good)
    content = good.read_bytes()
    good.write_bytes(content.replace(b"P6\n", b"P6\n# a comment\n", 1))
    file = exported["onnx"]
    assert run(program, file, good, "bolt").returncode == 0
    for damaged in (
        b"",
        content[:-1],
        b"P5" + content[2:],
        b"P6\n-3 4\n255\n",
        b"P6\n9999999 1\n255\n",
        content.replace(b"255", b"256", 1),
    ):
        bad.write_bytes(damaged)
        done = run(program, file, bad, "bolt")
        assert done.returncode == 2 and done.stderr.startswith("inspect: error: ")
    for arguments in ((file, good), (tmp_path / "no.onnx", good, "bolt"), (good, good, "bolt")):
        done = run(program, *arguments)
        assert done.returncode == 2 and done.stderr.startswith("inspect: error: ")
