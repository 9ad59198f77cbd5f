"""Exported files that are damaged, edited, foreign or missing: one line that says what to do."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import snl
from snl.cli.main import main
from snl.errors import BundleError, SettingsError
from snl.runtime.graph_metadata import FORMAT, KEY, _digest, checksum
from snl.runtime.onnx_file import join, split
from tests.conftest import FILES
from tests.exporting.files import Capture, copied, error_line, metadata_of, set_metadata

onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")

Change = Callable[[Path], object]


# ---------------------------------------------------------------- ONNX


def edited(change: Callable[[dict[str, Any]], object]) -> Change:
    """Change the metadata's JSON, without a new checksum."""

    def apply(path: Path) -> None:
        metadata = metadata_of(path)
        content = json.loads(metadata[KEY])
        change(content)
        set_metadata(path, {**metadata, KEY: json.dumps(content)})

    return apply


def edited_sections(
    change: Callable[[dict[str, Any], dict[str, Any]], object], *, checksum: bool = True
) -> Change:
    """Change sections and arrays of the metadata, with the checksum of the new contents."""

    def apply(path: Path) -> None:
        metadata = metadata_of(path)
        content = json.loads(metadata[KEY])
        change(content["document"]["sections"], content["arrays"])
        if checksum:
            content["sha256"] = _digest(content, metadata)
        set_metadata(path, {**metadata, KEY: json.dumps(content)})

    return apply


def text(value: Callable[[str], str]) -> Change:
    """Change the text of the metadata."""

    def apply(path: Path) -> None:
        metadata = metadata_of(path)
        set_metadata(path, {**metadata, KEY: value(metadata[KEY])})

    return apply


def plain(key: str, old: str, new: str) -> Change:
    """Change a key that programs without snl read."""

    def apply(path: Path) -> None:
        metadata = metadata_of(path)
        assert old in metadata[key]
        set_metadata(path, {**metadata, key: metadata[key].replace(old, new, 1)})

    return apply


def opset(path: Path) -> None:
    model = onnx.load(path)
    model.opset_import[0].version += 1
    onnx.save(model, path)


def external(path: Path) -> None:
    """Move the weights to another file, with a valid checksum of what remains."""
    metadata = metadata_of(path)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.data")
    graph, _ = split(path.read_bytes())
    metadata["snl.sha256"] = checksum(graph)
    content = json.loads(metadata[KEY])
    content["sha256"] = _digest(content, metadata)
    path.write_bytes(join(graph, {**metadata, KEY: json.dumps(content)}))


def other_weights(path: Path) -> None:
    model = onnx.load(path)
    largest = max(model.graph.initializer, key=lambda value: len(value.raw_data))
    largest.raw_data = largest.raw_data[:-1] + bytes([largest.raw_data[-1] ^ 1])
    onnx.save(model, path)


def foreign(path: Path) -> None:
    """A graph of another program, with the metadata of snl."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, [1, 3])],
        [helper.make_tensor_value_info("y", kind, [1, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, metadata_of(path))
    onnx.save(model, path)


NO_GRAPH, FOREIGN = "no graph that can be run", "was not made by snl export"
UNREADABLE, CHECKSUM = "what snl wrote beside the network cannot be read", "checksum"

DAMAGED: dict[str, tuple[Change, str]] = {
    "empty": (lambda p: p.write_bytes(b""), NO_GRAPH),
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:-100]), NO_GRAPH),
    "half": (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), NO_GRAPH),
    "no graph": (lambda p: p.write_bytes(b"\x93NUMPY" * 50), NO_GRAPH),
    "an image": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), NO_GRAPH),
    "foreign": (foreign, CHECKSUM),
    "a foreign key": (lambda p: set_metadata(p, {**metadata_of(p), "ort_config": "{}"}), CHECKSUM),
    "plain threshold": (plain("snl.thresholds", "1", "2"), CHECKSUM),
    "plain size": (plain("snl.image_size", "64", "65"), CHECKSUM),
    "opset": (opset, CHECKSUM),
    "external weights": (external, "has weights in another file"),
    "no metadata": (lambda p: set_metadata(p, {}), FOREIGN),
    "empty metadata": (text(lambda t: ""), FOREIGN),
    "truncated metadata": (text(lambda t: t[: len(t) // 2]), UNREADABLE),
    "not JSON": (text(lambda t: "snl\n" * 3), UNREADABLE),
    "nested JSON": (text(lambda t: "[" * 100_000), UNREADABLE),
    "a list": (text(lambda t: "[1, 2]"), UNREADABLE),
    "newer": (edited(lambda c: c.update(format=FORMAT + 1)), "update snl"),
    "edited": (
        edited_sections(lambda s, a: s["training"]["products"].update(bolt=9), checksum=False),
        CHECKSUM,
    ),
    "other threshold": (
        edited_sections(
            lambda s, a: s["calibration"]["versions"][0]["map_range"].reverse(), checksum=False
        ),
        CHECKSUM,
    ),
    "other array": (
        edited_sections(
            lambda s, a: a["training/hashes"].update(a["calibration/0.prototypes"]), checksum=False
        ),
        CHECKSUM,
    ),
    "no sections": (edited_sections(lambda s, a: s.clear()), UNREADABLE),
    "no calibration": (
        edited_sections(lambda s, a: s["calibration"].update(versions=[])),
        UNREADABLE,
    ),
    "other products": (
        edited_sections(lambda s, a: s["training"].update(products={"nut": 3})),
        UNREADABLE,
    ),
    "other network": (edited_sections(lambda s, a: s["model"].update(network="0")), UNREADABLE),
    "huge number": (
        edited_sections(lambda s, a: s["training"]["products"].update(bolt=1e999)),
        UNREADABLE,
    ),
    "bad base64": (edited_sections(lambda s, a: a["training/hashes"].update(data="*")), UNREADABLE),
    "bad type": (edited_sections(lambda s, a: a["training/hashes"].update(dtype="O")), UNREADABLE),
    "bad shape": (
        edited_sections(lambda s, a: a["calibration/0.prototypes"].update(shape=[9**9])),
        UNREADABLE,
    ),
    "other size": (
        edited_sections(lambda s, a: s["model"]["settings"].update(image_size=128)),
        "takes images of 64 pixels",
    ),
    "other weights": (other_weights, "does not match its checksum"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_onnx_files_are_explained_in_one_line(
    exported: dict[str, Path], tmp_path: Path, capsys: Capture, case: str
) -> None:
    file = copied(exported, "onnx", tmp_path)
    change, words = DAMAGED[case]
    change(file)
    assert main(["calibrate", str(file), "--device", "cpu"]) == 2
    line = error_line(capsys)
    assert words in line and "parts.onnx" in line and len(line) < 400


def test_sections_of_later_versions_survive_a_change(
    exported: dict[str, Path], tmp_path: Path, capsys: Capture
) -> None:
    file = copied(exported, "onnx", tmp_path)
    before = json.loads(metadata_of(file)[KEY])
    array = before["arrays"]["training/hashes"]

    def add(sections: dict[str, Any], arrays: dict[str, Any]) -> None:
        sections["future"] = {"what": ["a", 1]}
        arrays["future/values"] = array

    edited_sections(add)(file)
    assert main(["calibrate", str(file), "--rate", "0.3", "--device", "cpu"]) == 0
    after = json.loads(metadata_of(file)[KEY])
    assert after["document"]["sections"]["future"] == {"what": ["a", 1]}
    assert after["arrays"]["future/values"] == array
    versions = after["document"]["sections"]["calibration"]["versions"]
    assert [version["reason"] for version in versions] == ["training", "rates"]


# ---------------------------------------------------------------- OpenVINO


def replaced(old: str, new: str) -> Change:
    """Replace a text that the file contains."""

    def apply(path: Path) -> None:
        content = path.read_text("utf-8")
        assert old in content
        path.write_text(content.replace(old, new), "utf-8")

    return apply


BOMB = (
    '<!DOCTYPE net [<!ENTITY a0 "aaaaaaaaaa">'
    + "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(9))
    + "]>"
)
DAMAGED_XML: dict[str, tuple[Change, str]] = {
    "no weights": (lambda p: p.with_suffix(".bin").unlink(), "parts.bin is missing beside it"),
    "cut weights": (
        lambda p: p.with_suffix(".bin").write_bytes(p.with_suffix(".bin").read_bytes()[:1000]),
        "parts.xml",
    ),
    "other weights": (
        lambda p: p.with_suffix(".bin").write_bytes(p.with_suffix(".bin").read_bytes()[:-1] + b"~"),
        "does not match its checksum",
    ),
    "empty": (lambda p: p.write_bytes(b""), NO_GRAPH),
    "no XML": (lambda p: p.write_bytes(b"\0" * 99), NO_GRAPH),
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:-500]), NO_GRAPH),
    "no metadata": (replaced("<snl value", "<snail value"), FOREIGN),
    "edited": (replaced("bolt", "bult"), CHECKSUM),
    "plain threshold": (replaced("anomalous&quot;: 1", "anomalous&quot;: 2"), CHECKSUM),
    "plain size": (replaced('<snl.image_size value="64"', '<snl.image_size value="65"'), CHECKSUM),
    "topology": (replaced("<dim>64</dim>", "<dim>65</dim>"), CHECKSUM),
    "white space": (replaced("</edges>", "</edges> "), CHECKSUM),
    "not UTF-8": (lambda p: p.write_bytes(p.read_bytes() + b"\xff"), "not text in UTF-8"),
    "UTF-16": (lambda p: p.write_text(p.read_text("utf-8"), "utf-16"), "not text in UTF-8"),
    "entities": (replaced("<net ", BOMB + "<net "), CHECKSUM),
    "twice": (replaced("<snl.image_size", '<snl.image_size value="9" /><snl.image_size'), "twice"),
    "newer": (
        replaced(f"{{&quot;format&quot;: {FORMAT}", f"{{&quot;format&quot;: {FORMAT + 1}"),
        "update snl",
    ),
}


@pytest.mark.parametrize("case", DAMAGED_XML)
def test_damaged_openvino_files_are_explained_in_one_line(
    exported: dict[str, Path], tmp_path: Path, capsys: Capture, case: str
) -> None:
    file = copied(exported, "openvino", tmp_path)
    change, words = DAMAGED_XML[case]
    change(file)
    assert main(["calibrate", str(file), "--device", "cpu"]) == 2
    assert words in error_line(capsys)


# ---------------------------------------------------------------- missing things


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_missing_files_and_folders_are_errors(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(BundleError, match="no such file"):
        snl.load(tmp_path / f"no{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(BundleError):
        snl.load(tmp_path / f"folder{suffix}")


def test_a_wrong_suffix_is_an_error(exported: dict[str, Path], tmp_path: Path) -> None:
    for name in ("parts.snl", "parts.xml", "parts"):
        file = tmp_path / name
        shutil.copy(exported["onnx"], file)
        with pytest.raises(BundleError, match=name):
            snl.load(file)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("device", ["mps", "cuda:one", "tpu", ""])
def test_missing_devices_are_errors(exported: dict[str, Path], kind: str, device: str) -> None:
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
    assert main(["inspect", str(exported[kind]), __file__]) == 2
    assert f"pip install 'snl-ad[{extra}]'" in error_line(capsys)
