"""Small images of a bundle: which are kept, how large they are, damage; the history."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import snl
from snl.data.records import Record
from snl.errors import BundleError
from snl.files import load_tensors, save_tensors
from snl.runtime import history, rehearsal
from snl.runtime.history import Event
from snl.runtime.rehearsal import MAX_BYTES, Kept, Rehearsal, remember
from snl.runtime.sections import Section
from tests.trees import save_part


def kept(number: int, product: str = "bolt", *, held_out: bool = False) -> Kept:
    return Kept(product, held_out, f"good/{number}.png", 2**63 + number, b"jpeg" * (number + 1))


def test_a_bundle_keeps_images_of_every_product(calibrated: Path) -> None:
    inspector = snl.load(calibrated, "cpu")
    found = inspector.metadata.rehearsal
    assert found is not None and found.products == set(inspector.products)
    for product in inspector.products:
        trained = [i for i in found.of(held_out=False) if i.product == product]
        held = [i for i in found.of(held_out=True) if i.product == product]
        assert (len(trained), len(held)) == (20, 20)
        assert {i.hash for i in trained} <= set(inspector.training.hashes.tolist())
        hashes = set(inspector.calibration.sets[product].hashes.tolist())
        assert {i.hash for i in held} == hashes
    image = Image.open(io.BytesIO(found.images[0].jpeg))
    assert image.size == (64, 64) and image.format == "JPEG"


def test_the_copies_are_those_of_the_networks_input(tmp_path: Path) -> None:
    from snl.data.stream import read

    records = []
    for n in range(30):
        save_part(tmp_path / f"{n}.png", n)
        records.append(Record(tmp_path / f"{n}.png", "bolt", "train", "normal"))
    hashes = {record.path: n for n, record in enumerate(records)}
    found = remember(records, hashes, held_out=False, most=7, size=64)
    assert [image.hash for image in found.images] == [0, 4, 9, 14, 19, 24, 29]
    for image in found.images:
        pixels = np.asarray(Image.open(io.BytesIO(image.jpeg)), np.int64)
        (loaded,) = read([records[image.hash].path], 64)
        assert np.abs(pixels - loaded.pixels).mean() < 2  # type: ignore[union-attr]


def test_noisy_images_fit_the_budget(tmp_path: Path) -> None:
    records = []
    for n in range(24):
        noise = np.random.default_rng(n).integers(0, 256, (256, 256, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{n}.png")
        records.append(Record(tmp_path / f"{n}.png", "noise", "train", "normal"))
    hashes = {record.path: n for n, record in enumerate(records)}
    found = remember(records, hashes, held_out=False, most=24, size=256)
    assert len(found) == 24
    assert sum(len(image.jpeg) for image in found.images) <= 3 * MAX_BYTES


def test_unreadable_images_are_left_out(tmp_path: Path) -> None:
    save_part(tmp_path / "a.png", 0)
    (tmp_path / "b.png").write_bytes(b"no image")
    records = [Record(tmp_path / n, "bolt", "train", "normal") for n in ("a.png", "b.png", "c.png")]
    hashes = {records[0].path: 1, records[1].path: 2, records[2].path: None}
    assert [i.hash for i in remember(records, hashes, held_out=True, most=9, size=64).images] == [1]


def test_a_section_is_read_as_it_was_written() -> None:
    images = Rehearsal(tuple(kept(n, "né\u00e9 \u6a5f", held_out=n % 2 == 0) for n in range(9)))
    assert rehearsal.from_section(rehearsal.to_section(images)) == images
    empty = Rehearsal()
    assert rehearsal.from_section(rehearsal.to_section(empty)) == empty


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lengths", np.array([4, 8, 13])),
        ("lengths", np.array([4, 8])),
        ("lengths", np.array([0, 8, 16])),
        ("lengths", np.array([-4, 16, 12])),
        ("lengths", np.array([4.0, 8.0, 12.0])),
        ("hashes", np.zeros(3, np.int64)),
        ("jpeg", np.zeros((2, 12), np.uint8)),
    ],
)
def test_damage_is_noticed(name: str, value: np.ndarray) -> None:
    section = rehearsal.to_section(Rehearsal((kept(0), kept(1), kept(2))))
    arrays = {**section.arrays, name: value}
    with pytest.raises((ValueError, TypeError)):
        rehearsal.from_section(Section(section.document, arrays))


def test_a_damaged_file_is_refused_in_one_line(calibrated: Path, tmp_path: Path) -> None:
    arrays, document = load_tensors(calibrated, "bundle")
    arrays["rehearsal/lengths"] = arrays["rehearsal/lengths"] + 1
    save_tensors(tmp_path / "a.snl", arrays, "bundle", document)
    with pytest.raises(BundleError, match="do not fit each other"):
        snl.load(tmp_path / "a.snl", "cpu")


def test_merging_and_leaving_out() -> None:
    one, two = Rehearsal((kept(0), kept(1, "nut"))), Rehearsal((kept(1, "nut"), kept(2)))
    assert one.merge(two).images == (kept(0), kept(1, "nut"), kept(2))
    assert one.merge(two).without(["bolt"]).images == (kept(1, "nut"),)
    assert Rehearsal((kept(0, held_out=True),)).products == frozenset()


# --- history ---


def test_who_makes_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    import getpass

    monkeypatch.setenv("SNL_USER", " Grace ")
    assert history.user() == "Grace"
    monkeypatch.delenv("SNL_USER")
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    assert history.user() == "ada"

    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert history.user() == ""


def test_history_keeps_the_last_changes() -> None:
    events = [Event("2026", "ada", f"change {n}", "n", 1) for n in range(history.MOST + 5)]
    found = history.from_section(history.to_section(events))
    assert found == tuple(events[5:])


def test_files_without_a_history_have_that_of_their_calibrations(
    calibrated: Path, tmp_path: Path
) -> None:
    arrays, document = load_tensors(calibrated, "bundle")
    del document["sections"]["history"]
    save_tensors(tmp_path / "old.snl", arrays, "bundle", document)
    (only,) = snl.history(tmp_path / "old.snl")
    assert (only.what, only.who, only.products) == ("training", "", 2)
    inspector = snl.load(tmp_path / "old.snl", "cpu")
    snl.calibrate(inspector, rate=0.3)
    inspector.save(tmp_path / "old.snl")
    assert [event.what for event in snl.history(tmp_path / "old.snl")] == ["training", "rates"]


def test_every_change_is_in_the_history(calibrated: Path, tmp_path: Path) -> None:
    inspector = snl.load(calibrated, "cpu")
    snl.calibrate(inspector, rate=0.3)
    inspector.save(tmp_path / "a.snl")
    inspector.undo()
    inspector.save(tmp_path / "a.snl")
    again = snl.load(tmp_path / "a.snl", "cpu")
    assert [e.what for e in again.events] == ["training", "rates", "undone: rates"]
    assert all(e.network == again.calibration.network for e in again.events)
    assert dataclasses.asdict(again.events[0])["products"] == 2
