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


# --- links, permissions, devices ---


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to("real/a.json")
    write_json(link, 1)
    assert link.is_symlink() and target.read_text() == "1\n"
    target.unlink()  # a dangling link whose folder exists
    write_json(link, 2)
    assert link.is_symlink() and target.read_text() == "2\n"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.json", "link.json", "real"]
    for way, message in (("link.json", "loop"), ("/no/such/folder/x", "does not exist")):
        link.unlink()
        link.symlink_to(way)
        with pytest.raises(SnlError, match=message):
            write_json(link, 3)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666, 0o755])
def test_permissions_are_kept(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    path.chmod(mode)
    with atomic(path) as temporary:
        assert temporary.stat().st_mode & 0o077 & ~mode == 0  # never open to others meanwhile
        temporary.write_text("new")
    assert path.stat().st_mode & 0o777 == mode and path.read_text() == "new"


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", 1)
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_the_owner_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    os.chown(path, 1234, 4321)
    path.chmod(0o640)
    write_json(path, 1)
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1234, 4321, 0o640)


def test_write_protected_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    path.chmod(0o444)
    with pytest.raises(SnlError, match="write-protected"):
        write_json(path, 1)
    assert path.read_text() == "old"


def test_other_hard_links_keep_the_old_content(tmp_path: Path) -> None:
    path, backup = tmp_path / "a.json", tmp_path / "backup.json"
    path.write_text("old")
    os.link(path, backup)
    write_json(path, 1)
    assert path.read_text() == "1\n" and backup.read_text() == "old"


def test_devices_are_written_and_stay(tmp_path: Path) -> None:
    write_json("/dev/null", 1)
    assert Path("/dev/null").is_char_device()
    assert not [p for p in Path("/dev").iterdir() if "null." in p.name]
    with pytest.raises(SnlError, match="cannot be written"):
        write_json("/dev/full", 1)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(SnlError, match="cannot be written"):  # nobody reads it; it must not wait
        write_json(pipe, 1)


def test_a_mounted_file_that_cannot_be_renamed_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text("a long old content")

    def busy(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", busy)
    write_json(path, 1)
    assert path.read_text() == "1\n" and list(tmp_path.iterdir()) == [path]
