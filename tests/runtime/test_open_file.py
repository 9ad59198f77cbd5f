"""Calibrations are read and changed without PyTorch, and the network stays as it is stored."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import snl
from snl.errors import SettingsError
from snl.runtime.bundle_file import read_sections
from snl.runtime.inspector import open_file
from snl.runtime.sections import NETWORK

WITHOUT_TORCH = """
import sys
from snl.cli.main import main
status = main(sys.argv[1:])
assert not {"torch", "timm", "scipy.stats"} & set(sys.modules), "loads what it does not need"
sys.exit(status)
"""


@pytest.fixture
def file(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(trained, tmp_path / "parts.snl"))


@pytest.mark.parametrize(
    "words",
    [
        ("info",),
        ("history",),
        ("calibrate",),
        ("calibrate", "--rate", "0.04"),
        ("calibrate", "--smallest", "bolt=9", "--mm-per-pixel", "bolt=0.1"),
        ("calibrate", "--rule", "conformal"),
        ("calibrate", "--rate", "0.04", "-o", "other.snl"),
    ],
    ids=" ".join,
)
def test_commands_that_need_no_network_load_no_torch(words: tuple[str, ...], file: Path) -> None:
    verb, *more = words
    command = [sys.executable, "-c", WITHOUT_TORCH, verb, str(file), *more]
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_undo_and_remove_load_no_torch(file: Path) -> None:
    for words in (("calibrate", "--rate", "0.04"), ("undo",), ("remove", "plate")):
        verb, *more = words
        command = [sys.executable, "-c", WITHOUT_TORCH, verb, str(file), *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    assert snl.load(file, "cpu").products == ("bolt",)


def test_a_change_without_the_network_is_the_change_with_it(
    file: Path, tmp_path: Path, plant: Path
) -> None:
    light, whole = open_file(file), snl.load(file, "cpu")
    assert light.products == whole.products and light.image_size == whole.image_size
    assert light.settings == whole.settings
    for inspector, target in ((light, tmp_path / "a.snl"), (whole, tmp_path / "b.snl")):
        snl.calibrate(inspector, rate=0.2, uncertain_rate=0.3)
        inspector.save(target)
    ours, theirs = (read_sections(tmp_path / name)[NETWORK].arrays for name in ("a.snl", "b.snl"))
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)
    images = sorted(plant.glob("bolt/test/*/*.png"))[:4]
    first, second = (
        [one.to_dict() for one in snl.load(tmp_path / name, "cpu").inspect(images, "bolt")]
        for name in ("a.snl", "b.snl")
    )
    assert first == second


def test_it_does_not_inspect(file: Path) -> None:
    with pytest.raises(SettingsError, match="not loaded"):
        open_file(file).inspect(np.zeros((40, 48, 3), np.uint8))


def test_a_changed_byte_is_found(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(snl.SnlError, match=r"damaged|checksum"):
        open_file(file)


def test_the_name_of_an_export_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(snl.SnlError, match="export"):
        open_file(file).save(tmp_path / "x.onnx")


def test_the_history_says_what_a_change_changed(file: Path) -> None:
    inspector = open_file(file)
    snl.calibrate(inspector, rate=0.04)
    inspector.save(file)
    assert snl.history(file)[-1].what == "rates (false-alarm rate 0.05 -> 0.04)"
