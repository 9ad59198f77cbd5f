"""Atomic writes, and detection of every kind of damage."""

from __future__ import annotations

import json
import os
import pickle
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from snl.errors import BundleError, SnlError
from snl.files import atomic, load_tensors, save_tensors, write_json

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scalar": np.array(3, dtype=np.int64),
    "empty": np.zeros((0, 4), dtype=np.float32),
    "transposed": np.arange(6, dtype=np.uint8).reshape(2, 3).T,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.snl"
    save_tensors(path, ARRAYS, "bundle", {"text": "größe", "list": [1, None]})
    return path


def test_round_trip_keeps_values_types_and_shapes(file: Path) -> None:
    arrays, facts = load_tensors(file, "bundle")
    assert facts == {"text": "größe", "list": [1, None]}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)


def test_permissions_are_those_of_other_new_files(file: Path) -> None:
    other = file.with_name("other")
    other.write_text("")
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_changed_byte_is_detected(file: Path, data: st.DataObject) -> None:
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    bad = file.with_name("bad.snl")
    bad.write_bytes(content)
    try:
        arrays, facts = load_tensors(bad, "bundle")
    except BundleError as error:
        assert "bad.snl" in str(error) and "\n" not in str(error)
    else:  # for example white space in the header: the contents are the same
        assert facts == {"text": "größe", "list": [1, None]}
        assert arrays.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(arrays[name], array)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(share=st.floats(0, 0.999))
def test_any_truncation_is_detected(file: Path, share: float) -> None:
    content = file.read_bytes()
    bad = file.with_name("short.snl")
    bad.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BundleError, match=r"short\.snl: not a readable bundle"):
        load_tensors(bad, "bundle")


def rewrite(file: Path, **changes: object) -> None:
    """Change the JSON document of a file, not its tensors."""
    from safetensors import safe_open

    with safe_open(file, "np") as opened:
        document = json.loads(opened.metadata()["snl"])
    save_file(
        {k: np.asarray(v, order="C") for k, v in ARRAYS.items()},
        file,
        metadata={"snl": json.dumps(document | changes)},
    )


def test_other_files_kinds_and_formats_are_refused(file: Path, tmp_path: Path) -> None:
    rewrite(file, format=4)
    with pytest.raises(BundleError, match=r"format 4, this snl reads 3; update snl"):
        load_tensors(file, "bundle")
    for older in (0, 1):
        rewrite(file, format=older)
        with pytest.raises(BundleError, match=rf"format {older}.*train it again"):
            load_tensors(file, "bundle")
    rewrite(file, format=1, kind="checkpoint")
    with pytest.raises(BundleError, match="is a checkpoint, not a bundle"):
        load_tensors(file, "bundle")
    rewrite(file, kind="bundle", facts=[1])
    with pytest.raises(BundleError, match="not a readable bundle"):
        load_tensors(file, "bundle")
    save_file({"a": np.zeros(3)}, file)
    with pytest.raises(BundleError, match="not made by snl"):
        load_tensors(file, "bundle")
    for content in (b"", b"\x89PNG\r\n", pickle.dumps({"a": 1}), b"\xff" * 64):
        file.write_bytes(content)
        with pytest.raises(BundleError, match="not a readable bundle"):
            load_tensors(file, "bundle")
    with pytest.raises(BundleError, match="no such file"):
        load_tensors(tmp_path / "missing.snl", "bundle")
    with pytest.raises(BundleError, match="is a folder, not a bundle"):
        load_tensors(tmp_path, "bundle")


def test_changed_tensors_are_detected(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match="do not match their checksum"):
        load_tensors(file, "bundle")


def test_an_interrupted_write_keeps_the_old_file_and_leaves_no_other(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(RuntimeError), atomic(file) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_unwritable_paths_are_reported(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(SnlError, match="cannot be written"):
        write_json(blocked / "below" / "x.json", {})
    with pytest.raises(SnlError, match="cannot be written"):
        write_json(tmp_path, {})
    if os.geteuid() != 0:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
        with pytest.raises(SnlError, match="cannot be written"):
            write_json(closed / "x.json", {})


def test_json_is_strict(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())
