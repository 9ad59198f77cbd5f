"""One wrong bit anywhere in a model file: refused in one line, or without any effect."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import snl
from snl.errors import BundleError, SnlError
from snl.files import load_tensors, save_tensors
from snl.runtime import openvino_file
from snl.runtime.describe import describe
from snl.runtime.graph_metadata import KEYS
from snl.runtime.onnx_versions import needed_release, too_old
from tests.exporting.files import copied
from tests.trees import draw

FLIPS = 60
"""Of every file, besides those around its metadata and its ends."""


def positions(content: bytes) -> Iterator[int]:
    rng = np.random.default_rng(len(content))
    yield from rng.integers(0, len(content), FLIPS).tolist()
    for word in (b"snl.thresholds", b"snl.sha256", b"format", b"snl.image_size", b"opset"):
        start = content.find(word)
        if start >= 0:
            yield from range(start, min(start + len(word) + 24, len(content)), 5)
    yield from (0, 1, 8, 9, len(content) - 2, len(content) - 1)


def results_of(path: Path) -> dict[str, object]:
    inspector = snl.load(path, "cpu", threads=1)
    result = inspector.inspect(draw(3, defect=True)[0])
    arrays = (result.prediction.anomaly_map, result.prediction.embedding)
    return {"result": result.to_dict(), "arrays": [a.tobytes() for a in arrays]}


@pytest.mark.parametrize("kind", ["bundle", "onnx", "xml", "bin"])
def test_flipped_bits_are_refused_or_change_nothing(
    trained: Path, exported: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    if kind == "bundle":
        path = target = Path(shutil.copy(trained, tmp_path / "parts.snl"))
    else:
        path = copied(exported, "onnx" if kind == "onnx" else "openvino", tmp_path / kind)
        target = path.with_suffix(".bin") if kind == "bin" else path
    expected, content = results_of(path), target.read_bytes()
    refused = loaded = 0
    for number, position in enumerate(positions(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << number % 8
        target.write_bytes(changed)
        try:
            actual = results_of(path)
        except SnlError as error:
            assert "\n" not in str(error) and path.name in str(error)
            refused += 1
        else:
            assert actual == expected, position
            loaded += 1
    assert refused > 5 * loaded
    target.write_bytes(content)
    assert results_of(path) == expected


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_a_change_of_the_calibration_keeps_the_graph_and_its_checksum(
    exported: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    path = copied(exported, kind, tmp_path)
    inspector = snl.load(path, "cpu")
    snl.calibrate(inspector, rate=0.2)
    for name in (path.name, f"other{path.suffix}"):
        inspector.save(tmp_path / name)
        again = snl.load(tmp_path / name, "cpu")
        assert again.rates.anomalous == 0.2
        assert again.engine.checksum == inspector.engine.checksum  # type: ignore[attr-defined]
    if kind == "openvino":
        new, old = (f.read_bytes() for f in (path, exported[kind]))
        assert openvino_file.split(new, KEYS)[:2] == openvino_file.split(old, KEYS)[:2]


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_a_file_that_was_replaced_meanwhile_is_not_overwritten(
    exported: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    path = copied(exported, kind, tmp_path)
    inspector = snl.load(path, "cpu")
    other = path.read_bytes().replace(b"Conv", b"Conw", 1)
    path.write_bytes(other)
    with pytest.raises(BundleError, match=r"replaced it since|was changed by another"):
        inspector.save(path)
    assert path.read_bytes() == other


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from(KEYS), st.text(st.characters(codec="utf-8"))), st.booleans())
def test_openvino_metadata_come_back(table: dict[str, str], information: bool) -> None:
    rest = b"<rt_info>\n<x/></rt_info>\n" if information else b""
    content = b"<?xml version='1.0'?>\n<net>\n" + rest + b"</net>\n"
    before, after, none = openvino_file.split(content, KEYS)
    assert none == {}
    written = openvino_file.join(before, after, table)
    again = openvino_file.split(written, KEYS)
    assert again[2] == table and again[0] + again[1] == before + after
    from xml.etree import ElementTree  # what other programs read

    table = {k: v for k, v in table.items() if v.isprintable()}
    root = ElementTree.fromstring(openvino_file.join(before, after, table).decode())
    found = {entry.tag: entry.get("value") for entry in root.findall("rt_info/*")}
    assert {k: found[k] for k in table} == table


# --- files that are no files, and texts that are no metadata ---

SPECIAL = ("pipe", "socket", "forbidden", "folder", "missing", "null", "nested", "infinite")


@pytest.mark.parametrize("suffix", [".snl", ".onnx", ".xml"])
@pytest.mark.parametrize("kind", SPECIAL)
def test_special_files_get_one_line_and_no_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, kind: str
) -> None:
    path = tmp_path / f"a{suffix}"
    words = {
        "pipe": "is a pipe, a socket or a device",
        "socket": "is a pipe, a socket or a device",
        "forbidden": "permission denied",
        "folder": "is a folder",
        "missing": "no such file",
        "null": "no such file",
    }.get(kind, f"a{suffix}")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # the names of sockets are short
        socket.socket(socket.AF_UNIX).bind(path.name)
    elif kind == "forbidden":
        path.write_bytes(b"text")

        def forbidden(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", forbidden)  # a superuser may read every file
    elif kind == "folder":
        path.mkdir()
    elif kind == "null":
        path = Path(f"a\0{suffix}")
    elif kind in ("nested", "infinite"):
        text = "[" * 5000 + "]" * 5000 if kind == "nested" else "1e999"
        save(path, f'{{"kind": "bundle", "format": 3, "facts": {{"a": {text}}}, "sha256": ""}}')
    for read in (lambda: snl.load(path, "cpu"), lambda: describe(path)):
        with pytest.raises(BundleError, match=words) as caught:
            read()  # type: ignore[no-untyped-call]
        assert "\n" not in str(caught.value)


def save(path: Path, text: str) -> None:
    """Write a file whose metadata are this text."""
    from safetensors.numpy import save_file

    from snl.runtime.onnx_file import join

    if path.suffix == ".snl":
        save_file({}, path, metadata={"snl": text})
    elif path.suffix == ".onnx":
        path.write_bytes(join(b"", {"snl": text}))
    else:
        path.write_bytes(openvino_file.join(b"<net>", b"</net>", {"snl": text}))
        path.with_suffix(".bin").write_bytes(b"weights")


@pytest.mark.skipif(os.geteuid() != 0, reason="only a superuser can become another user")
def test_a_file_without_read_permission_is_not_called_truncated(
    trained: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copy(trained, tmp_path / "parts.snl"))
    path.chmod(0)
    code = (
        "import os, sys; from snl.files import check_readable; from pathlib import Path\n"
        "os.setuid(65534)\n"
        "try: check_readable(Path(sys.argv[1]), 'bundle', '', '')\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert "cannot be read (permission denied)" in done.stdout, done.stderr


# --- values with a valid checksum that no training writes ---


def altered(path: Path, tmp_path: Path, name: str, value: object) -> Path:
    """Write a copy with another array, or with another number in its document."""
    arrays, facts = load_tensors(path, "bundle")
    facts = json.loads(json.dumps(facts))
    if isinstance(value, np.ndarray):
        arrays[name] = value
    elif callable(value):
        arrays[name] = value(arrays[name].copy())
    else:
        place, parts = facts["sections"], name.split(".")
        for part in parts[:-1]:
            place = place[int(part) if part.isdigit() else part]
        place[parts[-1]] = value
    save_tensors(tmp_path / "altered.snl", arrays, "bundle", facts)
    return tmp_path / "altered.snl"


def put(value: float) -> object:
    def change(array: np.ndarray) -> np.ndarray:
        array.reshape(-1)[0] = value
        return array

    return change


ABSURD: dict[str, tuple[str, object]] = {
    "weight nan": ("network/statistics.mean0", put(np.nan)),
    "weight inf": ("network/statistics.centres", put(np.inf)),
    "deviation 0": ("network/statistics.deviation0", put(0)),
    "spread negative": ("network/statistics.spread", np.array(-1, np.float32)),
    "normal score 0": ("network/statistics.normal_scores", put(0)),
    "double weights": ("network/statistics.mean0", lambda a: a.astype(np.float64)),
    "score nan": ("calibration/0.0.scores", put(np.nan)),
    "score negative": ("calibration/0.0.scores", put(-1)),
    "scores integers": ("calibration/0.0.scores", lambda a: a.astype(np.uint64)),
    "distance negative": ("calibration/0.1.distances", put(-1)),
    "hashes": ("calibration/0.0.hashes", lambda a: a[:-1]),
    "prototypes nan": ("calibration/0.prototypes", put(np.nan)),
    "prototypes width": ("calibration/0.prototypes", lambda a: a[:, :-1].copy()),
    "std 0": ("model.preprocessing.std", [0.0, 1.0, 1.0]),
    "mean huge": ("model.preprocessing.mean", [1e30, 1.0, 1.0]),
    "size": ("model.settings.image_size", 100_000),
    "size nan": ("model.settings.image_size", None),
    "rate": ("calibration.versions.0.rates.anomalous", 2),
    "rate text": ("calibration.versions.0.rates.anomalous", "0.1"),
    "rate negative": ("calibration.versions.0.rates.unknown", -0.1),
    "map range": ("calibration.versions.0.map_range", [1.0, 0.0]),
    "twice": ("calibration.versions.0.products", ["bolt", "bolt"]),
    "count": ("training.products.bolt", -3),
    "hash kind": ("training.hashed", "middle"),
}


@pytest.mark.parametrize("case", ABSURD)
def test_absurd_values_are_refused(trained: Path, tmp_path: Path, case: str) -> None:
    path = altered(trained, tmp_path, *ABSURD[case])
    with pytest.raises(BundleError, match="altered") as caught:
        snl.load(path, "cpu")
    assert "\n" not in str(caught.value)


# --- versions of ONNX Runtime ---


def test_which_release_of_onnx_runtime_a_file_needs() -> None:
    assert needed_release(8, 17) == (1, 14)
    assert needed_release(10, 18) == (1, 18)
    assert needed_release(99, 18) is None and needed_release(8, 99) is None
    assert "1.18 or newer" in str(too_old("1.9.2", 10, 18, "some reason"))
    assert too_old("1.30.0", 10, 18, "some reason") is None
    reason = "Unsupported model IR version: 99, max supported IR version: 13"
    assert "newer than 1.30.0" in str(too_old("1.30.0", 99, 18, reason))


def test_a_file_for_a_newer_runtime_says_so(exported: dict[str, Path], tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from snl.runtime.onnx_engine import write_onnx

    metadata = snl.load(exported["onnx"], "cpu").metadata
    for change in ("ir", "opset"):
        model = onnx.load(exported["onnx"])
        if change == "ir":
            model.ir_version = 99
        else:
            model.opset_import[0].version = 99
        path = tmp_path / f"{change}.onnx"
        write_onnx(model.SerializeToString(), path, metadata)
        with pytest.raises(
            BundleError, match=r"needs ONNX Runtime newer than .* is installed: pip"
        ):
            snl.load(path, "cpu")
