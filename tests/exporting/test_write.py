"""`snl.export` and `snl export`: what is refused, what is written, and the metadata of a file."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import snl
from snl.cli.main import main
from snl.errors import DependencyError, SettingsError
from snl.exporting import write as exporting
from snl.runtime.graph_metadata import KEY
from snl.runtime.onnx_file import join, split
from tests.conftest import FILES, TINY
from tests.exporting.files import Capture, copied, error_line, graph_of, metadata_of
from tests.trees import draw

onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a.txt", {}, r"ends in \.onnx"),
        ("a.onnx", {"format": "openvino"}, r"ends in \.xml"),
        ("a.onnx", {"format": "tflite"}, "choose of onnx, openvino"),
        ("a.onnx", {"precision": "int4"}, "choose of .* fp32, fp16, int8"),
        ("a.onnx", {"precision": "int8"}, "give --data"),
    ],
)
def test_impossible_options_are_refused(
    inspector: snl.Inspector, tmp_path: Path, name: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        snl.export(inspector, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_an_export_cannot_be_exported(exported: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="use the bundle"):
        snl.export(snl.load(exported["onnx"], "cpu"), tmp_path / "a.onnx")


@pytest.mark.parametrize("kind", FILES)
def test_a_calibration_that_only_the_export_has_is_not_replaced(
    inspector: snl.Inspector, trained: Path, exported: dict[str, Path], tmp_path: Path,
    capsys: Capture, kind: str,
) -> None:  # fmt: skip
    file = copied(exported, kind, tmp_path)
    assert main(["calibrate", str(file), "--rate", "0.3", "--device", "cpu", "--quiet"]) == 0
    before = {one: one.read_bytes() for one in tmp_path.iterdir()}
    capsys.readouterr()
    with pytest.raises(SettingsError, match="its calibration was changed"):
        snl.export(inspector, file, format=kind)
    assert main(["export", str(trained), "-o", str(file), "--device", "cpu", "--quiet"]) == 2
    assert "(rates, 2" in error_line(capsys)
    assert {one: one.read_bytes() for one in tmp_path.iterdir()} == before
    # what the bundle has, too, may be replaced, and so may a file that is of no use
    assert main(["calibrate", str(file), "--undo", "--device", "cpu", "--quiet"]) == 0
    changed = tmp_path / "changed.snl"
    rates = [str(trained), "--rate", "0.3", "-o", str(changed), "--quiet"]
    assert main(["calibrate", *rates]) == 0
    snl.export(snl.load(changed, "cpu"), file, format=kind)
    snl.export(snl.load(changed, "cpu"), file, format=kind)
    assert snl.load(file, "cpu").rates.anomalous == 0.3


@pytest.mark.parametrize("kind", FILES)
def test_int8_needs_normal_training_images(
    inspector: snl.Inspector,
    plant: Path,
    exported: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    skip_graph(monkeypatch, exported)
    catalog = snl.Catalog.read(plant)
    test = dataclasses.replace(catalog, records=tuple(catalog.test()))
    with pytest.raises(SettingsError, match="no normal training images; int8 is calibrated"):
        snl.export(
            inspector, tmp_path / f"a{FILES[kind]}", format=kind, precision="int8", data=test
        )
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- missing packages


def skip_graph(monkeypatch: pytest.MonkeyPatch, exported: dict[str, Path]) -> None:
    """Replace the slow export by PyTorch with a copy of a graph that was exported before."""
    monkeypatch.setattr(
        exporting, "_write_graph", lambda network, file, *_: shutil.copy(exported["onnx"], file)
    )


@pytest.mark.parametrize(
    ("kind", "precision", "package", "extra"),
    [
        ("onnx", "fp32", "onnx", "export"),
        ("onnx", "fp32", "onnxscript", "export"),
        ("onnx", "fp16", "onnxruntime.transformers.float16", "export"),
        ("onnx", "int8", "onnxruntime.quantization", "export"),
        ("openvino", "int8", "nncf", "export"),
        ("openvino", "fp32", "openvino", "openvino"),
    ],
)
def test_a_missing_package_of_export_is_named(
    inspector: snl.Inspector,
    plant: Path,
    exported: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    precision: str,
    package: str,
    extra: str,
) -> None:
    if package not in ("onnx", "onnxscript"):
        skip_graph(monkeypatch, exported)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match=rf"pip install 'snl-ad\[{extra}\]'"):
        snl.export(
            inspector,
            tmp_path / f"a{FILES[kind]}",
            format=kind,
            precision=precision,
            data=snl.Catalog.read(plant),
        )
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- metadata


@pytest.mark.parametrize("kind", FILES)
def test_calibrate_changes_only_metadata(
    exported: dict[str, Path], tmp_path: Path, capsys: Capture, kind: str
) -> None:
    file = copied(exported, kind, tmp_path)
    graph, content = graph_of(file), file.read_bytes()
    image = draw(301, defect=True)[0]
    first = snl.load(file, "cpu").inspect(image, "bolt")

    assert main(["calibrate", str(file), "--rate", "0.3", "--device", "cpu"]) == 0
    assert graph_of(file) == graph and file.read_bytes() != content
    changed = snl.load(file, "cpu")
    assert changed.rates.anomalous == 0.3 and len(changed.calibrations) == 2
    second = changed.inspect(image, "bolt")
    assert second.score == first.score and second.threshold != first.threshold
    np.testing.assert_array_equal(second.anomaly_map, first.anomaly_map)

    other = tmp_path / f"other{FILES[kind]}"
    assert main(["calibrate", str(file), "--rate", "0.2", "-o", str(other), "--device", "cpu"]) == 0
    assert snl.load(file, "cpu").rates.anomalous == 0.3
    assert snl.load(other, "cpu").rates.anomalous == 0.2 and graph_of(other) == graph

    assert main(["calibrate", str(file), "--undo", "--device", "cpu"]) == 0
    assert graph_of(file) == graph
    assert snl.load(file, "cpu").inspect(image, "bolt").to_dict() == first.to_dict()
    assert len(list(tmp_path.iterdir())) == (2 if kind == "onnx" else 4)
    capsys.readouterr()
    assert main(["calibrate", str(file), "--undo", "--device", "cpu"]) == 2
    assert "nothing to undo" in error_line(capsys)


def test_plain_keys_follow_the_calibration(exported: dict[str, Path], tmp_path: Path) -> None:
    """A program without snl reads the thresholds that snl uses, before and after a change."""
    import openvino

    for kind in FILES:
        file = copied(exported, kind, tmp_path / kind)
        for rate in (None, "0.1"):
            if rate:
                assert main(["calibrate", str(file), "--rate", rate, "--device", "cpu"]) == 0
            if kind == "onnx":
                metadata = metadata_of(file)
            else:
                model = openvino.Core().read_model(file)
                keys = ("snl.image_size", "snl.thresholds")
                metadata = {key: model.get_rt_info([key]).astype(str) for key in keys}
            inspector = snl.load(file, "cpu")
            assert metadata["snl.image_size"] == "64"
            thresholds = json.loads(metadata["snl.thresholds"])
            assert list(thresholds) == ["bolt", "plate"]
            for product, values in thresholds.items():
                result = inspector.inspect(draw(3)[0], product)
                assert values["anomalous"] == result.threshold
                assert values["uncertain"] == result.uncertain_threshold
        # with a mask or tiles a score is not enough for a decision: there is no threshold
        mask = tmp_path / "mask.png"
        Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(mask)
        assert main(["calibrate", str(file), "--ignore", f"bolt={mask}", "--device", "cpu"]) == 0
    metadata = metadata_of(tmp_path / "onnx" / "parts.onnx")
    assert list(json.loads(metadata["snl.thresholds"])) == ["plate"]


def test_onnx_reads_and_writes_the_same_metadata(exported: dict[str, Path], tmp_path: Path) -> None:
    content = exported["onnx"].read_bytes()
    graph, metadata = split(content)
    assert metadata == metadata_of(exported["onnx"]) and KEY in metadata
    assert join(graph, metadata) == content
    unusual = {"": "", "ключ": "x" * 200, "long": "y" * 70_000, "new\nline": '"\0'}
    file = tmp_path / "unusual.onnx"
    file.write_bytes(join(graph, unusual))
    onnx.checker.check_model(onnx.load(file))
    assert metadata_of(file) == unusual and split(file.read_bytes()) == (graph, unusual)
    for cut in (len(content) - 1, len(content) // 2, 10, 3):
        with pytest.raises(ValueError, match=r"cut off|no number"):
            split(content[:cut])


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_not_saved_under_the_name_of_another_kind(
    exported: dict[str, Path], trained: Path, tmp_path: Path, kind: str
) -> None:
    for name in ("a.snl", "a.xml" if kind == "onnx" else "a.onnx"):
        with pytest.raises(SettingsError, match="ends in"):
            snl.load(exported[kind], "cpu").save(tmp_path / name)
    with pytest.raises(SettingsError, match=r"ends in \.snl"):
        snl.load(trained, "cpu").save(tmp_path / f"a{FILES[kind]}")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- the command


def test_the_command_reports_what_it_did(
    trained: Path, plant: Path, exported: dict[str, Path], tmp_path: Path, capsys: Capture
) -> None:
    """In a folder the file is named after the bundle; messages go to standard error only."""
    arguments = ["export", str(trained), "-o", str(tmp_path / "out"), "--device", "cpu", "--quiet"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 3
    assert lines[0].startswith("largest relative differences on ") and "maps " in lines[0]
    assert lines[1].startswith(f"{tmp_path / 'out' / 'parts.onnx'}: ")
    assert "pip install 'snl-ad[runtime]'" in lines[2] and "parts.onnx" in lines[2]
    assert graph_of(tmp_path / "out" / "parts.onnx") == graph_of(exported["onnx"])
    arguments += ["--precision", "int8", "--format", "openvino", "--data", str(plant)]
    pytest.importorskip("nncf", reason="the extra `export` is not installed")
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert out == "" and "image AUROC: " in err and "by the export" in err
    assert len(err.splitlines()) == 7
    for suffix in (".xml", ".bin"):
        file = tmp_path / "out" / f"parts{suffix}"
        assert f"{file}: {file.stat().st_size / 1e6:.1f} MB" in err
    assert "parts.xml is read together with parts.bin" in err


@pytest.mark.parametrize(
    ("method", "changes"),
    [("snl", {"teacher.name": "test_vit", "image_size": 160, "teacher.stages": ()}), ("uniad", {})],
)
def test_transformers_take_any_number_of_images(
    parts: Path, tmp_path: Path, method: str, changes: dict[str, Any]
) -> None:
    inspector = snl.train(
        parts, method=method, overrides={**TINY, **changes}, device="cpu", quiet=True
    )
    snl.export(inspector, tmp_path / "a.onnx")
    exported, side = snl.load(tmp_path / "a.onnx", "cpu"), inspector.image_size
    for count in (1, 3):
        noise = np.random.default_rng(count).integers(0, 256, (count, side, side, 3), np.uint8)
        np.testing.assert_allclose(
            exported.predict(noise).scores, inspector.predict(noise).scores, rtol=1e-4
        )
    assert exported.engine.batch is None  # type: ignore[attr-defined]
