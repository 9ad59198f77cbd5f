"""A training is known by its images' contents: other pixels under the same names are noticed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import snl
from snl.errors import TrainingError
from snl.files import content_hash, load_tensors, save_tensors
from snl.training import loop
from snl.training.contents import content_hashes, fingerprint
from tests.conftest import TINY

Train = Callable[..., snl.Inspector]


@pytest.fixture
def data(parts: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(parts, tmp_path / "data"))


@pytest.fixture
def train(data: Path, tmp_path: Path) -> Train:
    def run(**options: Any) -> snl.Inspector:
        output = tmp_path / "a.snl"
        return snl.train(data, output=output, overrides=TINY, quiet=True, device="cpu", **options)

    return run


def change_pixels(path: Path) -> None:
    """Change one byte in the middle of a file, but neither its size nor its times."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def interrupt(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a training after its fourth step, whose checkpoint exists."""
    step = loop.train_step

    def stopping(*arguments: Any) -> dict[str, Any]:
        if arguments[3] == 5:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(loop, "train_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(checkpoint_every=0)
    monkeypatch.setattr(loop, "train_step", step)


def test_other_pixels_end_an_unfinished_run(
    data: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(train, monkeypatch)
    image = sorted((data / "bolt" / "train" / "good").glob("*.png"))[1]
    before = image.read_bytes()
    change_pixels(image)
    with pytest.raises(TrainingError, match=r"another image contents \(was .{12}\.\.\., now"):
        train(resume=True)
    image.write_bytes(before)
    for mask in data.rglob("ground_truth/**/*.png"):  # a model does not depend on masks
        change_pixels(mask)
    train(resume=True)


def test_other_pixels_and_a_finished_run(data: Path, train: Train, tmp_path: Path) -> None:
    first = train()
    path = tmp_path / "a.snl"
    assert first.training.hashed == "whole" and len(str(first.training.data["contents"])) == 64
    used = [p for p in data.rglob("*.png") if content_hash(p) in set(first.training.hashes)]
    image = used[1]
    # a bundle of an earlier version knows the ends of its images only
    arrays, facts = load_tensors(path, "bundle")
    training = facts["sections"]["training"]
    del training["hashed"], training["data"]["contents"]
    arrays["training/hashes"] = np.array([content_hash(p, ends=True) for p in used], np.uint64)
    new, old = path.read_bytes(), tmp_path / "old.snl"
    save_tensors(old, arrays, "bundle", facts)
    inspector = snl.load(old, "cpu")
    assert inspector.training.hashed == "ends"
    assert inspector.training.content_hash(image) in inspector.training.hashes.tolist()
    notes: list[str] = []
    for content in (new, old.read_bytes()):
        path.write_bytes(content)
        train(resume=True, note=notes.append)
    assert ["already trained" in note for note in notes] == [True, True], notes
    change_pixels(image)
    for content in (new, old.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match="trained with other settings, images"):
            train(resume=True)


def test_hashes_cover_the_whole_file(tmp_path: Path) -> None:
    big, copy = tmp_path / "big", tmp_path / "copy"
    content = bytearray(np.random.default_rng(0).bytes(400_000))
    big.write_bytes(content)
    content[200_000] ^= 1
    copy.write_bytes(content)
    assert content_hash(big) != content_hash(copy)
    assert content_hash(big, ends=True) == content_hash(copy, ends=True)


def test_missing_files_have_no_hash(data: Path) -> None:
    records = snl.Catalog.read(data).train()
    whole = content_hashes(records)
    assert list(whole) == [record.path for record in records] and all(whole.values())
    records[0].path.unlink()
    part = content_hashes(records)
    assert part[records[0].path] is None and fingerprint(part) != fingerprint(whole)
