"""Bundles: everything comes back, damage is refused, unknown sections and ten versions are kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import snl
from snl import files
from snl.cli.main import main
from snl.decision.calibration import Rates
from snl.decision.edit import edit, set_rates
from snl.errors import BundleError, PluginError
from snl.files import load_tensors, save_tensors
from snl.runtime import bundle
from snl.runtime.describe import describe
from snl.runtime.sections import Section, join_sections
from tests.decision.calibrations import assert_same
from tests.decision.test_serialise import DAMAGES
from tests.runtime.compare import same_record
from tests.trees import draw_varied

Facts = dict[str, Any]
Arrays = dict[str, np.ndarray]
Capture = pytest.CaptureFixture[str]


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
    left_info, right_info = inspector.training, again.training
    for name in ("products", "data", "facts"):
        assert getattr(left_info, name) == getattr(right_info, name)
    np.testing.assert_array_equal(left_info.hashes, right_info.hashes)
    assert len(right_info.hashes) == 40 and right_info.hashes.dtype == np.uint64
    assert again.metadata.network == inspector.metadata.network == changed.network != ""
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
    reasons = [version.reason for version in snl.load(tmp_path / "a.snl", "cpu").calibrations]
    assert reasons == [f"change {number}" for number in range(4, 14)]


def test_a_calibration_is_frozen(calibrated: Path) -> None:
    inspector = snl.load(calibrated, "cpu")
    with pytest.raises(dataclasses.FrozenInstanceError):
        inspector.calibration.rates = Rates()  # type: ignore[misc]


# --- damage ---


def in_calibration(damage: Callable[[Facts, Arrays], Any]) -> Callable[[Facts, Arrays], Any]:
    """Return damage to a calibration as damage to the first calibration of a bundle."""

    def change(facts: Facts, arrays: Arrays) -> None:
        prefix = "calibration/0."
        tables = {n.removeprefix(prefix): arrays.pop(n) for n in list(arrays) if prefix in n}
        damage(facts["sections"]["calibration"]["versions"][0], tables)
        arrays |= {prefix + name: value for name, value in tables.items()}

    return change


def in_section(name: str, change: Callable[[Facts], Any]) -> Callable[[Facts, Arrays], Any]:
    return lambda facts, arrays: change(facts["sections"][name])


def drop(arrays: Arrays, prefix: str) -> None:
    for name in [name for name in arrays if name.startswith(prefix)]:
        del arrays[name]


def replace_hashes(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Facts, Arrays], Any]:
    return lambda f, a: a.update({"training/hashes": change(a["training/hashes"])})


HOSTILE: dict[str, Callable[[Facts, Arrays], Any]] = {
    # the mask of DAMAGES is that of the second product, which has none here
    **{name: in_calibration(damage) for name, damage in DAMAGES.items() if "mask" not in name},
    "narrow prototypes": in_calibration(
        lambda d, a: a.update(prototypes=a["prototypes"][:, :-1].copy())),
    "no calibration": lambda f, a: (
        f["sections"]["calibration"].update(versions=[]), drop(a, "calibration/")),
    "calibrations as text": in_section("calibration", lambda s: s.update(versions="none")),
    "calibrations as a number": in_section("calibration", lambda s: s.update(versions=1)),
    "a calibration that is null": in_section("calibration", lambda s: s.update(versions=[None])),
    "a calibration without arrays": in_section(
        "calibration", lambda s: s["versions"].append(s["versions"][0])),
    "arrays of no section": lambda f, a: a.update({"calibrations/0.0.scores": np.ones(3)}),
    "an array without a section": lambda f, a: a.update(scores=np.ones(3)),
    "no sections": lambda f, a: f.pop("sections"),
    "sections as a list": lambda f, a: f.update(sections=list(f["sections"])),
    "a section that is null": lambda f, a: f["sections"].update(model=None),
    **{f"no section {name}": (lambda f, a, n=name: (f["sections"].pop(n), drop(a, f"{n}/")))
       for name in ("network", "model", "training", "calibration")},
    "no list of training images": lambda f, a: a.pop("training/hashes"),
    "training images as fractions": replace_hashes(lambda v: np.ones(3)),
    "training images in two dimensions": replace_hashes(lambda v: v[:, None]),
    "one product more": in_section("training", lambda s: s["products"].update(nut=3)),
    "no products": in_section("training", lambda s: s.update(products={})),
    "a product without a count": in_section("training", lambda s: s["products"].update(bolt="x")),
    "a calibration of another network": in_calibration(
        lambda d, a: d.update(network="0123456789abcdef")),
    "plug-ins as a number": in_section("model", lambda s: s.update(plugins=3)),
    "a plug-in of an unknown kind": in_section(
        "model", lambda s: s.update(plugins=[{"kind": "camera", "name": "x", "package": "y"}])),
    "a plug-in without a name": in_section(
        "model", lambda s: s.update(plugins=[{"kind": "loss", "package": "y"}])),
    "one weight more": lambda f, a: a.update({"network/more": np.zeros(3, np.float32)}),
}  # fmt: skip


@pytest.fixture
def damaged(
    calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Facts, Arrays], Any]], Path]:
    """Return a function that writes a damaged bundle with a correct checksum."""

    def write(damage: Callable[[Facts, Arrays], Any]) -> Path:
        arrays, facts = load_tensors(calibrated, "bundle")
        arrays = {name: value.copy() for name, value in arrays.items()}
        damage(facts, arrays)
        dumps = json.dumps
        with monkeypatch.context() as patch:  # NaN and infinity are written, too
            patch.setattr(json, "dumps", lambda v, **o: dumps(v, **{**o, "allow_nan": True}))
            save_tensors(tmp_path / "bad.snl", arrays, "bundle", facts)
        return tmp_path / "bad.snl"

    return write


@pytest.mark.parametrize("damage", HOSTILE.values(), ids=HOSTILE.keys())
def test_damage_is_refused_in_one_line(
    damaged: Callable[..., Path], damage: Callable[[Facts, Arrays], Any]
) -> None:
    with pytest.raises(BundleError, match=r"bad\.snl") as caught:
        bundle.load(damaged(damage))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_calibration_of_another_network_is_named(damaged: Callable[..., Path]) -> None:
    file = damaged(HOSTILE["a calibration of another network"])
    with pytest.raises(BundleError, match="made for another network"):
        snl.load(file)
    with pytest.raises(BundleError, match="made for another network"):
        describe(file)


# --- formats ---


@pytest.mark.parametrize(
    ("format", "message"),
    [
        (1, "written in format 1, this snl reads 3; train it again"),
        (4, "written in format 4, this snl reads 3; update snl: pip install -U snl-ad"),
    ],
)
def test_other_formats_are_refused(
    calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture,
    format: int, message: str,
) -> None:  # fmt: skip
    arrays, facts = load_tensors(calibrated, "bundle")
    file = tmp_path / "other.snl"
    with monkeypatch.context() as patch:
        patch.setattr(files, "FORMATS", {"bundle": format})
        save_tensors(file, arrays, "bundle", facts)
    before = file.read_bytes()
    for read in (snl.load, describe):
        with pytest.raises(BundleError, match=message):
            read(file)
    for words in (
        ["calibrate", str(file), "--rate", "0.1"],
        ["inspect", str(file), str(file)],
        ["info", str(file)],
    ):
        assert main(words) == 2
        output = capsys.readouterr()
        assert output.out == "" and len(output.err.splitlines()) == 1
        assert f"format {format}" in output.err
        assert file.read_bytes() == before


DATA = Path(__file__).parent / "data"


def check_format_2(inspector: snl.Inspector) -> None:
    """Check the results that snl 0.1.0 gave with `format2.snl`."""
    expected = json.loads((DATA / "format2.json").read_text())
    assert list(inspector.products) == expected["products"]
    pixels = list(np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8))
    given = expected["products"][1]
    for name, product in (("inspections", None), ("given", given)):
        results = [json.loads(json.dumps(r.to_dict())) for r in inspector.inspect(pixels, product)]
        for wanted, result in zip(expected[name], results, strict=True):
            assert result["p_value_from"] == result["threshold_from"]  # conformal, as it was
            # new fields, and the judgement on unknown products, which 0.1.0 made otherwise
            new = {*result.keys() - wanted.keys(), "unknown_p", "decision"}
            result, old = ({k: v for k, v in r.items() if k not in new} for r in (result, wanted))
            same_record(old, result, rel=1e-5)


def test_a_bundle_of_the_previous_format(tmp_path: Path) -> None:
    old = snl.load(DATA / "format2.snl", "cpu")
    check_format_2(old)
    facts = load_tensors(DATA / "format2.snl", "bundle")[1]
    reasons = [version["why"] for version in facts["calibrations"]]
    assert [version.reason for version in old.calibrations] == reasons
    assert [version.created for version in old.calibrations] == [
        version["made"] for version in facts["calibrations"]
    ]
    bolt, plate = old.products
    assert old.calibration.product_rates == {bolt: Rates(0.1, 0.1)}
    assert old.calibration.mm_per_pixel == {bolt: 0.5}
    assert old.calibration.min_region_area == {plate: 3}
    mask = np.zeros((64, 64), bool)
    mask[:8] = True
    np.testing.assert_array_equal(old.calibration.ignore_masks[plate], mask)
    assert not old.calibrations[1].ignore_masks
    assert old.settings.map.normalisation_clusters == 4 and old.settings.loss.hard_mining == 0.5
    assert old.training.products == {bolt: 20, plate: 20} and len(old.training.hashes) == 40

    old.save(tmp_path / "new.snl")
    assert describe(tmp_path / "new.snl")["file"]["format"] == 3
    new = snl.load(tmp_path / "new.snl", "cpu")
    check_format_2(new)
    for left, right in zip(old.calibrations, new.calibrations, strict=True):
        assert_same(left, right)
    assert new.settings == old.settings and new.metadata.network == old.metadata.network
    before = describe(DATA / "format2.snl")
    after = describe(tmp_path / "new.snl")
    assert before.pop("file")["format"] == 2 and after.pop("file")
    assert before == after
    for reason in reasons[:0:-1]:
        assert new.undo().reason == reason


@pytest.mark.parametrize(
    "damage",
    [
        lambda f, a: f.update(map_range=[1]),
        lambda f, a: f.update(calibrations=[]),
        lambda f, a: f["calibrations"][0].pop("usual"),
        lambda f, a: f["calibrations"][3].update(tail="x", rates=None),
        lambda f, a: f.pop("prototypes"),
        lambda f, a: f.update(products=3),
        lambda f, a: f["settings"]["loss"].update(flat="x"),
        lambda f, a: f.update(settings=None),
        lambda f, a: a.pop("prototypes"),
        lambda f, a: a.pop("trained_on"),
        lambda f, a: a.pop("calibration.3.1.scores"),
        lambda f, a: a.update(more=np.zeros(3, np.float32)),
    ],
)
def test_damage_to_the_previous_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Facts, Arrays], Any]
) -> None:
    arrays, facts = load_tensors(DATA / "format2.snl", "bundle")
    damage(facts, arrays)
    monkeypatch.setattr(files, "FORMATS", {"bundle": 2})
    save_tensors(tmp_path / "bad.snl", arrays, "bundle", facts)
    monkeypatch.undo()
    with pytest.raises(BundleError, match=r"bad\.snl") as caught:
        snl.load(tmp_path / "bad.snl")
    assert "\n" not in str(caught.value)


# --- sections and plug-ins ---


def test_an_unknown_section_survives(calibrated: Path, tmp_path: Path) -> None:
    """A section of a later version is written back byte for byte when a calibration changes."""
    later = Section(
        {"format": 7, "names": ["größe"], "nested": {"none": None, "x": 0.1 + 0.2}},
        {
            "weights/0": np.random.default_rng(0).normal(size=(3, 5)).astype(np.float16),
            "ids": np.array([2**64 - 1, 0], np.uint64),
            "empty": np.empty((0, 3), np.float32),
        },
    )
    sections = {**bundle.read_sections(calibrated), "later": later, "bare": Section({})}
    file = tmp_path / "later.snl"
    document, arrays = join_sections(sections)
    save_tensors(file, arrays, "bundle", document)
    inspector = snl.load(file, "cpu")
    inspector.recalibrate(set_rates(inspector.calibration, anomalous=0.2))
    inspector.save(file)
    assert main(["calibrate", str(file), "--rate", "0.3", "--device", "cpu"]) == 0
    again = bundle.read_sections(file)
    assert again["later"].document == later.document and again["bare"].document == {}
    assert again["later"].arrays.keys() == later.arrays.keys()
    for name, array in again["later"].arrays.items():
        assert array.dtype == later.arrays[name].dtype and array.shape == later.arrays[name].shape
        assert array.tobytes() == later.arrays[name].tobytes()
    assert snl.load(file, "cpu").rates.anomalous == 0.3
    assert describe(file)["history"][-1]["reason"] == "rates"


@pytest.mark.parametrize(("version", "shown"), [("1.2", "snl-sparse 1.2"), ("", "snl-sparse")])
def test_a_missing_plug_in_is_named(
    damaged: Callable[..., Path], capsys: Capture, version: str, shown: str
) -> None:
    plugin = {"kind": "loss", "name": "sparse", "package": "snl-sparse", "version": version}
    file = damaged(in_section("model", lambda s: s.update(plugins=[plugin])))
    with pytest.raises(PluginError) as caught:
        snl.load(file, "cpu")
    message = str(caught.value)
    assert str(file) in message and "\n" not in message
    assert f"the loss 'sparse' of the plug-in {shown}, which is not installed here" in message
    assert message.endswith(": pip install snl-sparse")
    assert main(["inspect", str(file), str(file), "--device", "cpu"]) == 2
    assert capsys.readouterr().err == f"snl: error: {message}\n"
    assert describe(file)["plugins"] == [plugin]  # what the file contains can be shown
