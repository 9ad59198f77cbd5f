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
from snl.decision.edit import edit
from snl.errors import BundleError
from snl.files import load_tensors, save_tensors
from snl.runtime import bundle
from tests.decision.calibrations import assert_same
from tests.decision.test_serialise import DAMAGES
from tests.trees import draw_varied

Facts = dict[str, Any]
Arrays = dict[str, np.ndarray]


def test_everything_comes_back(calibrated: Path, tmp_path: Path) -> None:
    inspector = snl.load(calibrated, "cpu")
    first = inspector.calibration
    mask = np.zeros((64, 64), bool)
    mask[:9, 20:] = True
    sets = {**first.sets, "plate": first.sets["plate"].merge(first.sets["bolt"])}
    changed = edit(
        first,
        "everything",
        sets=sets,
        rates=Rates(0.03, 0.04, 0.05, 0.06),
        product_rates={"plate": Rates(0.1, 0.2)},
        ignore_masks={"bolt": mask},
        mm_per_pixel={"bolt": 0.05},
        min_region_area={"plate": 9},
        tile=32,
        fit_tail=True,
    )
    inspector.recalibrate(changed)
    inspector.save(tmp_path / "again.snl")
    again = snl.load(tmp_path / "again.snl", "cpu")
    assert len(again.calibrations) == len(inspector.calibrations) == 2
    for left, right in zip(inspector.calibrations, again.calibrations, strict=True):
        assert_same(left, right)
    assert again.training.facts == inspector.training.facts
    assert again.training.products == inspector.training.products
    hashes = again.training.hashes
    np.testing.assert_array_equal(hashes, inspector.training.hashes)
    assert len(hashes) == 40 and hashes.dtype == np.uint64
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
        inspector.recalibrate(edit(inspector.calibration, f"change {number}"))
    inspector.save(tmp_path / "a.snl")
    kept = [version.reason for version in snl.load(tmp_path / "a.snl", "cpu").calibrations]
    assert kept == [f"change {number}" for number in range(4, 14)]


def within(damage: Callable[[Facts, Arrays], Any]) -> Callable[[Facts, Arrays], Any]:
    """Return damage to a calibration as damage to the first calibration of a bundle."""

    def change(sections: Facts, arrays: Arrays) -> None:
        prefix = "calibration/0."
        names = [name for name in arrays if name.startswith(prefix)]
        part = {name.removeprefix(prefix): arrays.pop(name) for name in names}
        damage(sections["calibration"]["versions"][0], part)
        arrays |= {prefix + name: value for name, value in part.items()}

    return change


def first(sections: Facts) -> Facts:
    """Return the document of the first calibration."""
    version: Facts = sections["calibration"]["versions"][0]
    return version


CENTRES, HASHES = "calibration/0.prototypes", "training/hashes"
HOSTILE: dict[str, Callable[[Facts, Arrays], Any]] = {
    # masks belong to the second product of another calibration there
    **{name: within(damage) for name, damage in DAMAGES.items() if "mask" not in name},
    "no calibration": lambda f, a: f["calibration"].update(versions=[]) or drop(a, "calibration/"),
    "calibrations as text": lambda f, a: f["calibration"].update(versions="none"),
    "calibrations as a number": lambda f, a: f["calibration"].update(versions=1),
    "a calibration that is none": lambda f, a: f["calibration"].update(versions=[None]),
    "a calibration without arrays": lambda f, a: f["calibration"]["versions"].append(first(f)),
    "a calibration of another network": lambda f, a: first(f).update(network="f" * 16),
    "no prototypes": lambda f, a: a.pop(CENTRES),
    "prototypes of others": lambda f, a: first(f).update(prototypes=["bolt", "nut"]),
    "prototypes of one product": lambda f, a: first(f).update(prototypes=["bolt", "bolt"]),
    "one prototype more": lambda f, a: first(f)["prototypes"].append("bolt"),
    "narrow prototypes": lambda f, a: a.update({CENTRES: a[CENTRES][:, :-1].copy()}),
    "prototypes in a row": lambda f, a: a.update({CENTRES: a[CENTRES].ravel()}),
    "a prototype that is no number": lambda f, a: a[CENTRES].__setitem__((0, 0), math.nan),
    "no list of training images": lambda f, a: a.pop(HASHES),
    "training images as fractions": lambda f, a: a.update({HASHES: np.ones(3)}),
    "training images in rows": lambda f, a: a.update({HASHES: a[HASHES][:, None]}),
    "one product more": lambda f, a: f["training"]["products"].update(nut=3),
    "no products": lambda f, a: f["training"].update(products={}),
    "a product without a count": lambda f, a: f["training"]["products"].update(bolt="some"),
    "an infinite range of maps": lambda f, a: first(f).update(map_range=[0.0, math.inf]),
    "a weight more": lambda f, a: a.update({"network/more": np.zeros(3, np.float32)}),
    "an array without a section": lambda f, a: a.update({"nowhere/more": np.zeros(3)}),
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
    damage(facts["sections"], arrays)
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
    with pytest.raises(BundleError, match="written in format 1, this snl reads 3; train it again"):
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


# --- the previous format, and later ones


OLD = Path(__file__).parent / "data" / "format2.snl"


def test_a_bundle_of_the_previous_format_decides_as_it_did(tmp_path: Path) -> None:
    expected = json.loads(OLD.with_suffix(".json").read_text(encoding="utf-8"))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    old = snl.load(OLD, "cpu")
    assert list(old.products) == expected["products"]
    assert [c.reason for c in old.calibrations] == [
        "training", "rates", f"ignored of {old.products[1]}", "scale",
    ]  # fmt: skip
    old.save(tmp_path / "new.snl")
    _, document = load_tensors(tmp_path / "new.snl", "bundle")
    assert set(document["sections"]) == {"network", "model", "training", "calibration"}
    for inspector in (old, snl.load(tmp_path / "new.snl", "cpu")):
        recognised = inspector.inspect(list(pixels))
        given = inspector.inspect(list(pixels), product=old.products[1])
        for results, records in ((recognised, "inspections"), (given, "given")):
            for result, record in zip(results, expected[records], strict=True):
                assert_close(result.to_dict(), record)
        assert inspector.settings.map.normalisation_clusters == 4
        assert inspector.settings.loss.hard_mining == 0.5
        assert inspector.calibration.min_region_area == {old.products[1]: 3}


def assert_close(actual: Any, expected: Any) -> None:
    """Assert that JSON values are equal, numbers up to rounding."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for name, value in expected.items():
            assert_close(actual[name], value)
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for left, right in zip(actual, expected, strict=True):
            assert_close(left, right)
    elif isinstance(expected, float):
        assert actual == pytest.approx(expected, rel=1e-4, abs=1e-6)
    else:
        assert actual == expected


def test_a_section_of_a_later_version_survives_changes(calibrated: Path, tmp_path: Path) -> None:
    arrays, document = load_tensors(calibrated, "bundle")
    later = np.arange(6, dtype=np.int16).reshape(2, 3)
    document["sections"]["rehearsal"] = {"images": ["a", "b"], "quality": 0.5}
    save_tensors(
        tmp_path / "later.snl", {**arrays, "rehearsal/thumbnails": later}, "bundle", document
    )
    assert main(["calibrate", str(tmp_path / "later.snl"), "--rate", "0.2"]) == 0
    arrays, document = load_tensors(tmp_path / "later.snl", "bundle")
    assert document["sections"]["rehearsal"] == {"images": ["a", "b"], "quality": 0.5}
    np.testing.assert_array_equal(arrays["rehearsal/thumbnails"], later)
    assert len(document["sections"]["calibration"]["versions"]) == 2
