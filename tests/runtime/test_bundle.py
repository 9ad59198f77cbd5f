"""Bundles: everything comes back, nothing damaged is taken, the last ten versions are kept."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import snl
from snl.cli.main import main
from snl.decision.calibration import Rates
from snl.errors import BundleError
from snl.files import load_tensors, save_tensors
from snl.runtime import bundle
from snl.runtime.recalibrate import change
from tests.decision.test_calibration import DAMAGES, assert_same
from tests.trees import draw_varied

Facts = dict[str, Any]
Arrays = dict[str, np.ndarray]


def test_everything_comes_back(calibrated: Path, tmp_path: Path) -> None:
    inspector = snl.load(calibrated, "cpu")
    first = inspector.calibration
    mask = np.zeros((64, 64), bool)
    mask[:9, 20:] = True
    normals = {**first.normals, "plate": first.normals["plate"].and_also(first.normals["bolt"])}
    change(
        inspector,
        "everything",
        normals=normals,
        rates=Rates(0.03, 0.04, 0.05, 0.06),
        own_rates={"plate": Rates(0.1, 0.2)},
        ignored={"bolt": mask},
        mm_per_pixel={"bolt": 0.05},
        smallest={"plate": 9},
        tile=32,
        tail=True,
    )
    inspector.save(tmp_path / "again.snl")
    again = snl.load(tmp_path / "again.snl", "cpu")
    assert len(again.calibrations) == len(inspector.calibrations) == 2
    for left, right in zip(inspector.calibrations, again.calibrations, strict=True):
        assert_same(left, right)
    assert again.facts == inspector.facts
    assert again.prototypes.owners == inspector.prototypes.owners
    np.testing.assert_array_equal(again.prototypes.centres, inspector.prototypes.centres)
    np.testing.assert_array_equal(again.trained_on, inspector.trained_on)
    assert len(again.trained_on) == 40 and again.trained_on.dtype == np.uint64
    for name, value in inspector.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name])
    image = draw_varied(1, product="plate")[0]
    for product in (None, "bolt", "plate"):
        left_, right_ = inspector.inspect(image, product), again.inspect(image, product)
        assert left_.to_dict() == right_.to_dict()
    again.save(tmp_path / "third.snl")
    assert (tmp_path / "third.snl").read_bytes() == (tmp_path / "again.snl").read_bytes()


def test_the_last_ten_versions_are_kept(calibrated: Path, tmp_path: Path) -> None:
    inspector = snl.load(calibrated, "cpu")
    for number in range(14):
        change(inspector, f"change {number}")
    inspector.save(tmp_path / "a.snl")
    kept = [version.why for version in snl.load(tmp_path / "a.snl", "cpu").calibrations]
    assert kept == [f"change {number}" for number in range(4, 14)]


def within(damage: Callable[[Facts, Arrays], Any]) -> Callable[[Facts, Arrays], Any]:
    """A damage to a calibration as one to the first calibration of a bundle."""

    def change(facts: Facts, arrays: Arrays) -> None:
        prefix = "calibration.0."
        own = {n.removeprefix(prefix): arrays.pop(n) for n in list(arrays) if prefix in n}
        damage(facts["calibrations"][0], own)
        arrays |= {prefix + name: value for name, value in own.items()}

    return change


HOSTILE: dict[str, Callable[[Facts, Arrays], Any]] = {
    # masks are made for the second product of another calibration there
    **{name: within(damage) for name, damage in DAMAGES.items() if "mask" not in name},
    "no calibration": lambda f, a: f.update(calibrations=[]) or drop(a, "calibration."),
    "calibrations as text": lambda f, a: f.update(calibrations="none"),
    "calibrations as a number": lambda f, a: f.update(calibrations=1),
    "a calibration that is none": lambda f, a: f.update(calibrations=[None]),
    "a calibration without arrays": lambda f, a: f["calibrations"].append(f["calibrations"][0]),
    "arrays of no calibration": lambda f, a: a.update({"calibration.7.0.scores": np.ones(3)}),
    "no prototypes": lambda f, a: a.pop("prototypes"),
    "prototypes of others": lambda f, a: f.update(prototypes=["bolt", "nut"]),
    "prototypes of one product": lambda f, a: f.update(prototypes=["bolt", "bolt"]),
    "one prototype more": lambda f, a: f["prototypes"].append("bolt"),
    "narrow prototypes": lambda f, a: a.update(prototypes=a["prototypes"][:, :-1].copy()),
    "prototypes in a row": lambda f, a: a.update(prototypes=a["prototypes"].ravel()),
    "a prototype that is no number": lambda f, a: a["prototypes"].__setitem__((0, 0), math.nan),
    "no list of training images": lambda f, a: a.pop("trained_on"),
    "training images as fractions": lambda f, a: a.update(trained_on=np.ones(3)),
    "training images in rows": lambda f, a: a.update(trained_on=a["trained_on"][:, None]),
    "one product more": lambda f, a: f["products"].update(nut=3),
    "no products": lambda f, a: f.update(products={}),
    "a product without a count": lambda f, a: f["products"].update(bolt="some"),
    "a range of maps without end": lambda f, a: f.update(map_range=[0.0, math.inf]),
    "a weight more": lambda f, a: a.update(more=np.zeros(3, np.float32)),
}


def drop(arrays: Arrays, prefix: str) -> None:
    for name in [name for name in arrays if name.startswith(prefix)]:
        del arrays[name]


@pytest.mark.parametrize("damage", HOSTILE.values(), ids=HOSTILE.keys())
def test_damage_is_told_in_one_line(
    calibrated: Path, tmp_path: Path, damage: Callable[[Facts, Arrays], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    arrays, facts = load_tensors(calibrated, "bundle")
    arrays = {name: value.copy() for name, value in arrays.items()}
    damage(facts, arrays)
    bad = tmp_path / "bad.snl"
    dumps = json.dumps  # with a right checksum, and with numbers that strict JSON has no word for
    monkeypatch.setattr(json, "dumps", lambda v, **o: dumps(v, **{**o, "allow_nan": True}))
    save_tensors(bad, arrays, "bundle", facts)
    monkeypatch.undo()
    with pytest.raises(BundleError, match=r"bad\.snl") as caught:
        bundle.load(bad)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_bundle_of_the_first_format_is_told(
    calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from snl import files

    arrays, facts = load_tensors(calibrated, "bundle")
    monkeypatch.setattr(files, "FORMATS", {})
    old = tmp_path / "old.snl"
    save_tensors(old, arrays, "bundle", facts)
    monkeypatch.undo()
    with pytest.raises(BundleError, match="written in format 1, this snl reads 2; train it again"):
        snl.load(old)
    for words in (["calibrate", str(old), "--rate", "0.1"], ["inspect", str(old), str(old)]):
        before = old.read_bytes()
        assert main(words) == 2
        told = capsys.readouterr()
        assert told.out == "" and len(told.err.splitlines()) == 1 and "format 1" in told.err
        assert old.read_bytes() == before


def test_what_inspection_keeps_is_frozen(calibrated: Path) -> None:
    inspector = snl.load(calibrated, "cpu")
    with pytest.raises(dataclasses.FrozenInstanceError):
        inspector.calibration.rates = Rates()  # type: ignore[misc]
