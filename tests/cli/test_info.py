"""`snl info`: text and JSON about bundles and exports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from snl.cli.main import main
from tests.conftest import Run
from tests.runtime.test_describe import WRITERS, make_metadata, save_bundle

Capture = pytest.CaptureFixture[str]


def test_text(run_snl: Run, calibrated: Path) -> None:
    done = run_snl("info", calibrated)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    facts = {line[:13].strip(): line[13:] for line in lines[: lines.index("")]}
    assert facts["file"].startswith(f"{calibrated}: bundle, format 3, ")
    assert facts["teacher"] == "test_resnet, weights random"
    assert facts["input"] == "64 x 64 pixels, whole images"
    assert "40 steps of 4 images" in facts["training"] and "on cpu in fp32" in facts["training"]
    assert facts["data"] == "varied0 (layout mvtec), 80 normal images"
    assert facts["versions"].startswith("snl ") and facts["plug-ins"] == "none"
    assert facts["calibration"].startswith("40 held-out images, smallest rate for all products")
    (row,) = (line.split() for line in lines if line.startswith("bolt"))
    assert row[:4] == ["bolt", "20", "20", "0.05"] and row[5:8] == ["shared", "tail", "0.1"]
    assert lines[-1].split()[1:] == ["40", "training", "(in", "use)"]


def test_json_to_stdout_and_to_a_file(calibrated: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["info", str(calibrated), "--json", "-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    file = tmp_path / "deep" / "info.json"
    assert main(["info", "--json", str(file), str(calibrated)]) == 0
    output = capsys.readouterr()
    assert json.loads(file.read_text()) == printed
    assert "bolt" in output.out and "{" not in output.out and output.err == ""


def test_150_products_are_aligned(tmp_path: Path, capsys: Capture) -> None:
    counts = {f"product with a long name {n}": n for n in range(150)}
    metadata = make_metadata(counts, mm_per_pixel={"product with a long name 7": 0.05})
    assert main(["info", str(save_bundle(tmp_path / "a.snl", metadata))]) == 0
    lines = capsys.readouterr().out.splitlines()
    heading = next(line for line in lines if line.startswith("product "))
    rows = [line for line in lines if line.startswith("product with")]
    assert len(rows) == 150 and max(map(len, rows)) <= len(heading) <= 160
    end = heading.index("held out") + len("held out")
    assert [int(row[:end].split()[-1]) for row in rows] == list(range(150))
    assert [row for row in rows if row.endswith("0.05")] == [rows[7]]
    legend = lines[lines.index("guarantees of the false-alarm rates:") + 1 :]
    assert [line.split("  ")[0] for line in legend[:2]] == ["product", "all products"]


@pytest.mark.parametrize("suffix", WRITERS)
def test_without_torch_and_without_runtimes(suffix: str, tmp_path: Path) -> None:
    """A finder in front of all others refuses to import them."""
    path = WRITERS[suffix](tmp_path / f"parts{suffix}", make_metadata({"bolt": 20}))
    code = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'timm', 'onnx', 'onnxruntime',"
        " 'openvino'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "from snl.cli.main import main\n"
        "raise SystemExit(main(['info', sys.argv[1], '--json', '-']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["products"][0]["name"] == "bolt"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{missing}"], "no such file"),
        (["{folder}"], "is a folder"),
        (["{image}"], "is an image, not a bundle"),
        (["{bundle}", "--json", "{folder}"], "is a folder"),
        (["{bundle}", "--json", "{bundle}"], "would overwrite what is read"),
        (["{bundle}", "--json", "{image}/a.json"], "cannot be written"),
        (["{bundle}", "{image}"], "unrecognized arguments"),
        (["{bundle}", "--json"], "expected one argument"),
        ([], "required: FILE"),
    ],
)
def test_wrong_input_gets_one_line(
    bundle: Path, parts: Path, tmp_path: Path, capsys: Capture, words: list[str], message: str
) -> None:
    places = {
        "missing": tmp_path / "missing.snl",
        "folder": tmp_path,
        "image": parts / "bolt" / "test" / "good" / "000.png",
        "bundle": bundle,
    }
    before = bundle.read_bytes()
    try:
        status = main(["info", *(word.format(**places) for word in words)])
    except SystemExit as stop:  # errors of argparse
        status = int(stop.code or 0)
    output = capsys.readouterr()
    last = output.err.strip().splitlines()[-1]
    assert status == 2 and "error: " in last and message in last and output.out == ""
    assert bundle.read_bytes() == before


def test_a_smallest_region_is_shown(
    calibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "changed.snl"
    words = ["calibrate", str(calibrated), "--smallest", "bolt=5", "-o", str(changed)]
    assert main([*words, "--quiet", "--device", "cpu"]) == 0
    capsys.readouterr()
    assert main(["info", str(changed)]) == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("bolt "))
    assert row.endswith("5 px")
