"""`snl probe` with a real bundle: figures, picture, and the errors for wrong input."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from snl.cli.main import main
from tests.conftest import Run


def test_table_and_json(run_snl: Run, bundle: Path, parts: Path, tmp_path: Path) -> None:
    file = tmp_path / "probes.json"
    done = run_snl("probe", bundle, parts, "--images", "4", "--json", file, "--seed", "2")
    assert done.returncode == 0, done.stderr
    assert "mixup: " in done.stdout and "cutpaste: " in done.stdout
    result = json.loads(file.read_text())
    assert result["rows"] == result["columns"] == ["bolt", "plate"]
    assert result["settings"] == {"images": 4, "share": 0.5, "seed": 2}
    assert result["normals"]["bolt"] == {"split": "test", "n": 2}
    assert result["about"]["file"] == "parts.snl" and result["about"]["data"]["layout"] == "mvtec"
    assert result["about"]["settings"]["method"]
    for measure in ("mixup", "cutpaste", "cutpaste_image"):
        assert result[measure]["n_pairs"] == 2
        assert 0 <= result[measure]["worst"]["value"] <= result[measure]["mean"] <= 1
    assert [(pair["row"], pair["column"], pair["n_mixup"]) for pair in result["pairs"]] == [
        *(("bolt", "bolt", 1), ("bolt", "plate", 4), ("plate", "bolt", 4), ("plate", "plate", 1))
    ]
    assert f"mean {100 * result['mixup']['mean']:.1f} over 2 pairs" in done.stdout


def test_picture(bundle: Path, parts: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "deep" / "probes.png"
    options = ["--images", "1", "--picture", str(path), "--quiet"]
    assert main(["probe", str(bundle), str(parts), *options]) == 0
    assert Image.open(path).format == "PNG"
    assert list(path.parent.iterdir()) == [path]


def test_unknown_products_are_columns(
    bundle: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(parts, data)
    (data / "plate").rename(data / "gear")
    file = tmp_path / "probes.json"
    options = ["--images", "1", "--json", str(file), "--quiet"]
    assert main(["probe", str(bundle), str(data), *options]) == 0
    result = json.loads(file.read_text())
    assert (result["rows"], result["columns"]) == (["bolt"], ["bolt", "gear"])
    (data / "bolt" / "test" / "good" / "000.png").write_bytes(b"torn")
    assert main(["probe", str(bundle), str(data), *options]) == 1
    assert "skipped: " in capsys.readouterr().err


def test_missing_matplotlib_is_reported_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    missing = str(tmp_path / "missing.snl")
    assert main(["probe", missing, missing, "--picture", str(tmp_path / "a.png")]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and "pip install 'snl-ad[plots]'" in errors[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{missing}", "{parts}"], "no such file"),
        (["{bundle}", "{missing}"], "does not exist"),
        (["{bundle}", "{parts}", "--products", "bolt,plat"], "did you mean plate"),
        (["{bundle}", "{parts}", "--products", "bolt"], "only one product to probe ('bolt')"),
        (["{bundle}", "{one}"], "only one product to probe"),
        (["{bundle}", "{others}"], "is one of this inspector's products (bolt, plate)"),
        (["{bundle}", "{bare}"], "no normal images of 'plate'"),
        (["{bundle}", "{parts}", "--images", "0"], "0 is not a whole number in 1..1000"),
        (["{bundle}", "{parts}", "--images", "few"], "few is not a whole number in 1..1000"),
        (["{bundle}", "{parts}", "--share", "1"], "between 0 and 1"),
        (["{bundle}", "{parts}", "--share", "nan"], "nan is not a number in 0..1"),
        (["{bundle}", "{parts}", "--seed", "-1"], "-1 is not a whole number in 0.."),
        (["{bundle}", "{parts}", "--json", "{bundle}"], "would overwrite"),
        (["{bundle}", "{parts}", "--json", "{bundle}/a.json"], "cannot be written"),
        (["{bundle}", "{parts}", "--json", "{one}"], "is a folder"),
        (["{bundle}", "{parts}", "--layout", "visa"], "not laid out as visa"),
    ],
)
def test_wrong_input_gets_one_clear_line(
    bundle: Path,
    parts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    for name, source in (("one/bolt", "bolt"), ("others/a", "bolt"), ("others/b", "plate")):
        shutil.copytree(parts / source, tmp_path / name)
    shutil.copytree(parts, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "plate" / "train")
    shutil.rmtree(tmp_path / "bare" / "plate" / "test" / "good")
    places = {name: tmp_path / name for name in ("missing", "one", "others", "bare")}
    words = [a.format(bundle=bundle, parts=parts, **places) for a in arguments]
    try:
        status = main(["probe", *words, "--quiet"])
    except SystemExit as stop:  # errors of argparse
        status = int(stop.code or 0)
    errors = capsys.readouterr().err
    assert status == 2, errors
    assert "error: " in errors.strip().splitlines()[-1] and message in errors, errors


def test_one_file_for_figures_and_picture_is_refused(
    bundle: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    file = str(tmp_path / "a")
    assert main(["probe", str(bundle), str(parts), "--json", file, "--picture", file]) == 2
    assert "is both --json and --picture" in capsys.readouterr().err
