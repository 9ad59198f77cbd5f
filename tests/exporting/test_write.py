"""`snl export` and what it wrote: checks that bite, metadata that can be changed, hostile files."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import snl
from snl.cli.main import main
from snl.errors import BundleError, DependencyError, SettingsError
from snl.exporting import write as exporting
from snl.runtime.graph_metadata import FORMAT, KEY
from snl.runtime.onnx_file import join, split
from tests.conftest import FILES
from tests.trees import draw

onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")
Capture = pytest.CaptureFixture[str]


def copied(exported: dict[str, Path], kind: str, folder: Path) -> Path:
    """An export to be changed."""
    folder.mkdir(exist_ok=True)
    for suffix in (".onnx",) if kind == "onnx" else (".xml", ".bin"):
        shutil.copy(exported[kind].with_suffix(suffix), folder)
    return folder / exported[kind].name


def graph_of(path: Path) -> bytes:
    """All that computes."""
    if path.suffix == ".xml":
        return path.with_suffix(".bin").read_bytes()
    model = onnx.load(path)
    del model.metadata_props[:]
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def props(path: Path) -> dict[str, str]:
    """Metadata as the package onnx reads it."""
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def set_props(path: Path, changed: dict[str, str]) -> None:
    """Metadata as the package onnx writes it."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, changed)
    onnx.save(model, path)


def told(capsys: Capture) -> str:
    """The one line that a user sees of an error."""
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("snl: error: ")
    return lines[0]


# ---------------------------------------------------------------- the check


def tamper(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """The exported graph gets another weight."""
    write = exporting._write_onnx

    def wrong(network: Any, file: Path, size: int, batch: int | None) -> None:
        write(network, file, size, batch)
        model = onnx.load(file)
        largest = max(
            (
                value
                for value in model.graph.initializer
                if value.data_type == onnx.TensorProto.FLOAT
            ),
            key=lambda value: int(np.prod(value.dims)),
        )
        values = onnx.numpy_helper.to_array(largest) * np.float32(1 + share)
        largest.CopyFrom(onnx.numpy_helper.from_array(values, largest.name))
        onnx.save(model, file)

    monkeypatch.setattr(exporting, "_write_onnx", wrong)


@pytest.mark.parametrize("kind", FILES)
def test_a_graph_that_differs_is_not_kept(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, kind: str
) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    tamper(monkeypatch, 0.01)
    output = tmp_path / f"parts{FILES[kind]}"
    before = {}
    if kind == "onnx":  # one that is there stays
        output.write_bytes(b"the export before")
        before = {output.name: b"the export before"}
    assert main(["export", str(taught), "-o", str(output), "--device", "cpu", "--quiet"]) == 2
    line = told(capsys)
    assert "differs from the bundle" in line and "maps" in line and output.name in line
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before


def test_a_loss_of_auroc_is_not_kept(
    inspector: snl.Inspector, plant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tamper(monkeypatch, -1.0)  # weights of 0
    with pytest.raises(exporting.ExportError, match=r"AUROC \S+ became \S+; at most 0.2 points"):
        exporting.export(
            inspector, tmp_path / "a.onnx", precision="fp16", data=snl.Catalog.read(plant)
        )
    assert not list(tmp_path.iterdir())


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
def test_what_cannot_be_asked_for(
    inspector: snl.Inspector, tmp_path: Path, name: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        exporting.export(inspector, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_an_export_is_not_exported(exported: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="use the bundle"):
        exporting.export(snl.load(exported["onnx"], "cpu"), tmp_path / "a.onnx")


# ---------------------------------------------------------------- metadata


@pytest.mark.parametrize("kind", FILES)
def test_calibrate_changes_metadata_alone(
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
    assert "nothing to undo" in told(capsys)


def test_plain_keys_follow_the_calibration(exported: dict[str, Path], tmp_path: Path) -> None:
    """What a program without snl reads is what snl decides by, before and after a change."""
    import openvino

    for kind in FILES:
        file = copied(exported, kind, tmp_path / kind)
        for rate in (None, "0.1"):
            if rate:
                assert main(["calibrate", str(file), "--rate", rate, "--device", "cpu"]) == 0
            if kind == "onnx":
                found = props(file)
            else:
                model = openvino.Core().read_model(file)
                keys = ("snl.image_size", "snl.thresholds")
                found = {key: model.get_rt_info([key]).astype(str) for key in keys}
            inspector = snl.load(file, "cpu")
            assert found["snl.image_size"] == "64"
            thresholds = json.loads(found["snl.thresholds"])
            assert list(thresholds) == ["bolt", "plate"]
            for product, own in thresholds.items():
                result = inspector.inspect(draw(3)[0], product)
                assert own["anomalous"] == result.threshold
                assert own["uncertain"] == result.uncertain_threshold
        # a mask or tiles take more than a score: no threshold is told
        mask = tmp_path / "mask.png"
        from PIL import Image

        Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(mask)
        assert main(["calibrate", str(file), "--ignore", f"bolt={mask}", "--device", "cpu"]) == 0
    assert list(json.loads(props(tmp_path / "onnx" / "parts.onnx")["snl.thresholds"])) == ["plate"]


def test_onnx_reads_and_writes_the_same_metadata(exported: dict[str, Path], tmp_path: Path) -> None:
    content = exported["onnx"].read_bytes()
    graph, metadata = split(content)
    assert metadata == props(exported["onnx"]) and KEY in metadata
    assert join(graph, metadata) == content
    odd = {"": "", "ключ": "x" * 200, "long": "y" * 70_000, "new\nline": '"\0'}
    file = tmp_path / "odd.onnx"
    file.write_bytes(join(graph, odd))
    onnx.checker.check_model(onnx.load(file))
    assert props(file) == odd and split(file.read_bytes()) == (graph, odd)
    for cut in (len(content) - 1, len(content) // 2, 10, 3):
        with pytest.raises(ValueError, match=r"cut off|no number"):
            split(content[:cut])


@pytest.mark.parametrize("kind", FILES)
def test_names_of_other_files(
    exported: dict[str, Path], taught: Path, tmp_path: Path, kind: str
) -> None:
    for name in ("a.snl", "a.xml" if kind == "onnx" else "a.onnx"):
        with pytest.raises(SettingsError, match="ends in"):
            snl.load(exported[kind], "cpu").save(tmp_path / name)
    with pytest.raises(SettingsError, match=r"ends in \.snl"):
        snl.load(taught, "cpu").save(tmp_path / f"a{FILES[kind]}")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- hostile files


def described(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """The metadata's JSON changed, without a new checksum."""

    def apply(path: Path) -> None:
        found = props(path)
        document = json.loads(found[KEY])
        change(document)
        set_props(path, {**found, KEY: json.dumps(document)})

    return apply


def text(value: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda path: set_props(path, {**props(path), KEY: value(props(path)[KEY])})


def rechecked(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """As `described`, with the checksum of the new contents."""
    from snl.runtime.graph_metadata import _digest

    def both(document: dict[str, Any]) -> None:
        change(document)
        document["sha256"] = _digest({k: document[k] for k in ("document", "arrays")})

    return described(both)


def other_weights(path: Path) -> None:
    model = onnx.load(path)
    value = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    value.raw_data = value.raw_data[:-1] + bytes([value.raw_data[-1] ^ 1])
    onnx.save(model, path)


def foreign(path: Path) -> None:
    """A graph of someone else, with our metadata on it."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, [1, 3])],
        [helper.make_tensor_value_info("y", kind, [1, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, props(path))
    onnx.save(model, path)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "no graph that can be run"),
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:-100]), "no graph that can be run"),
    "half": (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "no graph that can"),
    "no graph": (lambda p: p.write_bytes(b"\x93NUMPY" * 50), "no graph that can be run"),
    "an image": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), "no graph that can be"),
    "foreign": (foreign, "was not made by snl export"),
    "no metadata": (lambda p: set_props(p, {}), "was not made by snl export"),
    "empty metadata": (text(lambda t: ""), "was not made by snl export"),
    "truncated metadata": (text(lambda t: t[: len(t) // 2]), "cannot be read"),
    "not JSON": (text(lambda t: "snl\n" * 3), "cannot be read"),
    "nested JSON": (text(lambda t: "[" * 100_000), "cannot be read"),
    "a list": (text(lambda t: "[1, 2]"), "cannot be read"),
    "newer": (described(lambda d: d.update(format=FORMAT + 1)), "update snl"),
    "edited": (described(lambda d: d["document"]["products"].update(bolt=9)), "checksum"),
    "other threshold": (described(lambda d: d["document"]["map_range"].reverse()), "checksum"),
    "no calibration": (rechecked(lambda d: d["document"].update(calibrations=[])), "cannot be rea"),
    "huge number": (rechecked(lambda d: d["document"]["products"].update(bolt=1e999)), "cannot be"),
    "bad base64": (rechecked(lambda d: d["arrays"]["trained_on"].update(data="*")), "cannot be re"),
    "bad type": (rechecked(lambda d: d["arrays"]["trained_on"].update(dtype="O")), "cannot be re"),
    "bad shape": (rechecked(lambda d: d["arrays"]["prototypes"].update(shape=[9**9])), "cannot be"),
    "other size": (
        rechecked(lambda d: d["document"]["settings"].update(image_size=128)),
        "takes images of 64 pixels",
    ),
    "other weights": (other_weights, "does not match its checksum"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_told_in_one_line(
    exported: dict[str, Path], tmp_path: Path, capsys: Capture, case: str
) -> None:
    file = copied(exported, "onnx", tmp_path)
    change, words = HOSTILE[case]
    change(file)
    assert main(["calibrate", str(file), "--device", "cpu"]) == 2
    line = told(capsys)
    assert words in line and "parts.onnx" in line and len(line) < 400


def edit(old: str, new: str) -> Callable[[Path], object]:
    def apply(path: Path) -> None:
        content = path.read_text("utf-8")
        assert old in content
        path.write_text(content.replace(old, new), "utf-8")

    return apply


HOSTILE_XML: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda p: p.with_suffix(".bin").unlink(), "parts.bin is missing beside it"),
    "cut weights": (
        lambda p: p.with_suffix(".bin").write_bytes(p.with_suffix(".bin").read_bytes()[:1000]),
        "parts.xml",
    ),
    "other weights": (
        lambda p: p.with_suffix(".bin").write_bytes(p.with_suffix(".bin").read_bytes()[:-1] + b"~"),
        "does not match its checksum",
    ),
    "empty": (lambda p: p.write_bytes(b""), "no graph that can be run"),
    "no XML": (lambda p: p.write_bytes(b"\0" * 99), "no graph that can be run"),
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:-500]), "no graph that can be run"),
    "no metadata": (edit("<snl value", "<snail value"), "was not made by snl export"),
    "edited": (edit("bolt", "bult"), "checksum"),
    "newer": (edit("{&quot;format&quot;: 1", "{&quot;format&quot;: 2"), "update snl"),
}


@pytest.mark.parametrize("case", HOSTILE_XML)
def test_hostile_openvino_files_are_told_in_one_line(
    exported: dict[str, Path], tmp_path: Path, capsys: Capture, case: str
) -> None:
    file = copied(exported, "openvino", tmp_path)
    change, words = HOSTILE_XML[case]
    change(file)
    assert main(["calibrate", str(file), "--device", "cpu"]) == 2
    assert words in told(capsys)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_files_that_are_not_there(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(BundleError, match="no such file"):
        snl.load(tmp_path / f"no{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(BundleError):
        snl.load(tmp_path / f"folder{suffix}")


def test_a_wrong_ending(exported: dict[str, Path], tmp_path: Path) -> None:
    for name in ("parts.snl", "parts.xml", "parts"):
        file = tmp_path / name
        shutil.copy(exported["onnx"], file)
        with pytest.raises(BundleError, match=name):
            snl.load(file)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("device", ["mps", "cuda:one", "tpu", ""])
def test_devices_that_are_not_there(exported: dict[str, Path], kind: str, device: str) -> None:
    with pytest.raises(SettingsError, match=r"not offered .* use --device cpu"):
        snl.load(exported[kind], device)


@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [("onnx", "onnxruntime", "runtime"), ("openvino", "openvino", "openvino")],
)
def test_a_missing_runtime_is_named(
    exported: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    kind: str,
    package: str,
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["inspect", str(exported[kind]), "a.png"]) == 2
    assert f"pip install 'snl-ad[{extra}]'" in told(capsys)


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
    if package not in ("onnx", "onnxscript"):  # the graph itself is not what this is about
        monkeypatch.setattr(
            exporting, "_write_onnx", lambda n, file, *_: shutil.copy(exported["onnx"], file)
        )
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match=rf"pip install 'snl-ad\[{extra}\]'"):
        exporting.export(
            inspector,
            tmp_path / f"a{FILES[kind]}",
            format=kind,
            precision=precision,
            data=snl.Catalog.read(plant),
        )
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_it_did(
    taught: Path, plant: Path, exported: dict[str, Path], tmp_path: Path, capsys: Capture
) -> None:
    """Into a folder, named after the bundle; figures to a person, nothing else."""
    arguments = ["export", str(taught), "-o", str(tmp_path / "out"), "--device", "cpu", "--quiet"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 2
    assert lines[0].startswith("largest relative differences on ") and "maps " in lines[0]
    assert lines[1].startswith(f"{tmp_path / 'out' / 'parts.onnx'}: ")
    assert graph_of(tmp_path / "out" / "parts.onnx") == graph_of(exported["onnx"])
    arguments += ["--precision", "int8", "--format", "openvino", "--data", str(plant)]
    pytest.importorskip("nncf", reason="the extra `export` is not installed")
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert out == "" and "image AUROC: " in err and "by the export" in err
    assert len(err.splitlines()) == 4
