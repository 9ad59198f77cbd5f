"""The public interface of an inspector, and bundles with edited contents."""

from __future__ import annotations

import gc
import itertools
import json
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import snl
from snl.errors import BundleError, ImageError, SettingsError
from snl.files import load_tensors, save_tensors
from snl.runtime.engine import Outputs
from snl.runtime.inspector import Inspector
from tests.conftest import TINY
from tests.trees import draw, draw_varied


@pytest.fixture(scope="module")
def inspector(bundle: Path) -> snl.Inspector:
    return snl.load(bundle, device="cpu")


@pytest.fixture(scope="module")
def image(parts: Path) -> Path:
    return parts / "bolt" / "test" / "dent" / "000.png"


# --- what is inspected ---


def test_path_text_pil_and_array_give_the_same(inspector: snl.Inspector, image: Path) -> None:
    array = np.asarray(Image.open(image).convert("RGB"))
    sources = [image, str(image), Image.open(image), array]
    results = [inspector.inspect(source) for source in sources]
    for result in results:
        assert result.score == results[0].score
        np.testing.assert_array_equal(result.anomaly_map, results[0].anomaly_map)
    assert [r.path for r in results] == [str(image), str(image), None, None]


def test_list_gives_a_list_in_order(inspector: snl.Inspector) -> None:
    images = [draw(seed)[0] for seed in range(11)]
    together = inspector.inspect(images)
    for alone, batched in zip((inspector.inspect(i) for i in images), together, strict=True):
        assert batched.score == pytest.approx(alone.score, rel=1e-5)
        np.testing.assert_allclose(batched.anomaly_map, alone.anomaly_map, rtol=1e-4, atol=1e-5)
    assert inspector.inspect([]) == []


ITERABLES: dict[str, Callable[[list[Path]], Iterable[Any]]] = {
    "generator": lambda paths: (path for path in paths),
    "tuple": tuple,
    "map": lambda paths: map(str, paths),
    "chain": lambda paths: itertools.chain(paths[:1], paths[1:]),
    "zip": lambda paths: (path for path, _ in zip(paths, range(9), strict=False)),
    "dictionary": dict.fromkeys,
    "arrays": lambda paths: (np.asarray(Image.open(path)) for path in paths),
    "pictures": lambda paths: (Image.open(path) for path in paths),
}


@pytest.mark.parametrize("make", ITERABLES.values(), ids=ITERABLES.keys())
def test_any_iterable_gives_a_list(
    inspector: snl.Inspector, parts: Path, make: Callable[[list[Path]], Iterable[Any]]
) -> None:
    paths = sorted(parts.glob("*/test/*/*.png"))
    expected = [result.score for result in inspector.inspect(paths)]
    results = inspector.inspect(make(paths))
    assert isinstance(results, list) and [result.score for result in results] == expected


def test_a_set_of_paths(inspector: snl.Inspector, parts: Path) -> None:
    paths = set(parts.glob("*/test/*/*.png"))
    results = inspector.inspect(paths)
    assert len(results) == len(paths) and {Path(str(r.path)) for r in results} == paths


def test_a_zip_of_paths_and_labels_is_refused(inspector: snl.Inspector, image: Path) -> None:
    """Its items are pairs, not images."""
    with pytest.raises(ImageError):
        inspector.inspect(zip([image], ["normal"], strict=True))


def test_a_path_a_picture_and_an_array_are_one_image(inspector: snl.Inspector, image: Path) -> None:
    for source in (image, str(image), Image.open(image), np.asarray(Image.open(image))):
        assert isinstance(inspector.inspect(source), snl.Inspection)
        (result,) = inspector.inspect([source])
        assert isinstance(result, snl.Inspection)


def test_images_are_read_while_results_are_used(inspector: snl.Inspector, image: Path) -> None:
    """An endless source gives results, so memory is bounded."""
    taken = list(itertools.islice(inspector.stream(itertools.repeat(image)), 20))
    assert len({result.score for result in taken}) == 1


# --- maps and results ---


def test_map_has_the_size_of_the_image_and_is_raw(inspector: snl.Inspector) -> None:
    for shape in ((40, 48, 3), (300, 20, 3), (7, 5, 3), (64, 64, 3)):
        result = inspector.inspect(np.full(shape, 90, np.uint8))
        assert result.anomaly_map.shape == shape[:2]
        assert result.anomaly_map.dtype == np.float32
        assert result.anomaly_map.max() <= result.score + 1e-5
        assert isinstance(result.score, float)


def test_grey_and_rgb_of_the_same_image_agree(inspector: snl.Inspector) -> None:
    grey = draw(3)[0][:, :, 0]
    rgb = np.repeat(grey[:, :, None], 3, 2)
    assert inspector.inspect(grey).score == inspector.inspect(rgb).score


@pytest.mark.parametrize(("height", "width"), [(40, 48), (480, 200), (64, 64), (31, 517)])
def test_map_lies_on_the_image(bundle: Path, height: int, width: int) -> None:
    """A peak at a position of the network's input is at the same position of the image."""
    inspector = snl.load(bundle, device="cpu")
    planted = np.zeros((1, 64, 64), np.float32)
    planted[0, 15:17, 47:49] = 1.0  # around (x, y) = (48, 16) of 64: three quarters, one quarter
    embedding = inspector.calibration.prototypes.centres[:1]
    inspector.predictor.predict = lambda pixels: Outputs(  # type: ignore[method-assign]
        planted, np.ones(1, np.float32), embedding
    )
    result = inspector.inspect(np.zeros((height, width, 3), np.uint8))
    ys, xs = np.mgrid[:height, :width] + 0.5
    mass = result.anomaly_map.sum()
    assert (result.anomaly_map * xs).sum() / mass == pytest.approx(0.75 * width, abs=0.6)
    assert (result.anomaly_map * ys).sum() / mass == pytest.approx(0.25 * height, abs=0.6)


def test_decision_follows_the_threshold(calibrated: Path) -> None:
    inspector = snl.load(calibrated, device="cpu")
    limit, uncertain = inspector.threshold("bolt"), inspector.threshold("bolt", rate=0.1)
    assert limit is not None and uncertain is not None and uncertain < limit
    images = [draw_varied(seed)[0] for seed in range(3000, 3060)]
    images += [draw_varied(seed, defect=True)[0] for seed in range(3100, 3110)]
    decisions = set()
    for result in inspector.inspect(images, product="bolt"):
        assert (result.threshold, result.uncertain_threshold) == (limit, uncertain)
        assert (result.threshold_from, result.product_from) == ("shared tail", "given")
        wanted = "anomalous" if result.score > limit else "normal"
        if uncertain < result.score <= limit:
            wanted = "uncertain"
        assert result.decision == wanted
        decisions.add(wanted)
    assert decisions == {"normal", "uncertain", "anomalous"}


def test_without_enough_images_decisions_are_uncertain(
    inspector: snl.Inspector, image: Path
) -> None:
    """Two held-out images of each of two products allow a rate of 1/5."""
    assert inspector.threshold("bolt") is None
    result = inspector.inspect(image, product="bolt")
    assert (result.decision, result.threshold) == ("uncertain", None)
    assert inspector.inspect(image, product="bolt", rate=0.2).threshold_from == "shared tail"
    with pytest.raises(SettingsError, match=r"rate of 0\.19 needs 5 held-out normal images"):
        inspector.inspect(image, product="bolt", rate=0.19)


def test_threshold_of_a_product(inspector: snl.Inspector, image: Path) -> None:
    assert set(inspector.products) == {"bolt", "plate"}
    assert inspector.inspect(image, product="bolt").product == "bolt"
    with pytest.raises(SettingsError, match=r"'nut' is not .*: bolt, plate"):
        inspector.inspect(image, product="nut")
    for check in (inspector.threshold, inspector.rates_for, inspector.check_product):
        with pytest.raises(SettingsError, match=r"'nut' is not .*: bolt, plate"):
            check("nut")
    for rate in (0, 1, -1, 2, float("nan")):
        with pytest.raises(SettingsError, match="between 0 and 1"):
            inspector.inspect(image, rate=rate)


def test_a_threshold_needs_a_product_where_there_are_several(calibrated: Path) -> None:
    inspector = snl.load(calibrated, "cpu")
    with pytest.raises(SettingsError, match="give one of the products bolt, plate"):
        inspector.threshold()
    with pytest.raises(SettingsError, match="give one of the products bolt, plate"):
        inspector.threshold(rate=0.2)


def test_a_threshold_of_the_only_product(parts: Path) -> None:
    overrides = {**TINY, "training.steps": 1, "training.holdout": 0.5}
    inspector = snl.train(parts / "bolt", overrides=overrides, device="cpu", quiet=True)
    (product,) = inspector.products
    for rate in (None, 0.34, 0.6):
        assert inspector.threshold(rate=rate) == inspector.threshold(product, rate)
    assert inspector.threshold(rate=0.34) is not None


def test_unusable_images_are_refused(inspector: snl.Inspector, tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    for bad in (
        tmp_path / "missing.png",
        tmp_path / "empty.png",
        tmp_path,
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        None,
    ):
        with pytest.raises(ImageError):
            inspector.inspect(bad)  # type: ignore[arg-type]


def test_unusable_images_can_be_skipped(
    inspector: snl.Inspector, image: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"text")
    sources = [bad, image, image, bad, image, tmp_path / "missing.png"]
    errors: list[ImageError] = []
    results = list(inspector.stream(sources, batch_size=2, on_error=errors.append))
    assert [result.path for result in results] == [str(image)] * 3
    assert ["bad.png" in str(error) for error in errors] == [True, True, False]
    with pytest.raises(ImageError, match=r"bad\.png"):
        inspector.inspect(sources)


def test_result_is_plain_and_frozen(inspector: snl.Inspector, image: Path) -> None:
    result = inspector.inspect(image)
    with pytest.raises(FrozenInstanceError):
        result.score = 0.0  # type: ignore[misc]
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert record["width"] == 48 and record["height"] == 40
    assert "anomaly_map" not in repr(result)


def test_saved_again_it_is_the_same(inspector: snl.Inspector, image: Path, tmp_path: Path) -> None:
    inspector.save(tmp_path / "again.snl")
    again = snl.load(tmp_path / "again.snl", device="cpu")
    assert again.network.settings == inspector.network.settings
    assert again.training.facts == inspector.training.facts
    assert again.threshold("bolt", 0.4) == inspector.threshold("bolt", 0.4)
    left, right = inspector.inspect(image), again.inspect(image)
    np.testing.assert_array_equal(left.anomaly_map, right.anomaly_map)
    for name, value in inspector.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name])


# --- large images ---


def test_the_large_map_is_computed_on_access(inspector: snl.Inspector) -> None:
    image = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), np.uint8)
    result = inspector.inspect(image)
    assert "anomaly_map" not in result.__dict__ and "regions" not in result.__dict__
    assert result.prediction.anomaly_map.shape == (64, 64)
    arrays = [v for v in (*vars(result).values(), *vars(result.prediction).values())
              if isinstance(v, np.ndarray) and v is not result.image]  # fmt: skip
    assert sum(array.nbytes for array in arrays) < 100_000
    _ = result.decision, result.verdict()
    assert "anomaly_map" not in result.__dict__
    assert result.anomaly_map.shape == (3000, 4000) and result.anomaly_map.dtype == np.float32
    assert result.__dict__["anomaly_map"] is result.anomaly_map  # computed once


def test_tiles_for_one_stream_change_no_calibration(
    inspector: snl.Inspector, image: Path, tmp_path: Path
) -> None:
    versions, before = list(inspector.calibrations), inspector.calibration
    (whole,) = inspector.stream([image])
    (tiled,) = inspector.stream([image], tile=32)
    assert tiled.score != whole.score and tiled.prediction.anomaly_map.shape == (40, 48)
    assert inspector.calibrations == versions and inspector.calibration is before
    assert inspector.tile == 0
    (again,) = inspector.stream([image])
    assert again.score == whole.score


# --- calibrations ---


def test_undo_needs_an_earlier_calibration(calibrated: Path) -> None:
    from snl.decision.edit import set_rates

    inspector = snl.load(calibrated, "cpu")
    first = inspector.calibration
    changed = set_rates(first, anomalous=0.3)
    inspector.recalibrate(changed)
    assert inspector.calibration is changed and inspector.rates.anomalous == 0.3
    assert inspector.undo() is changed and inspector.calibration is first
    with pytest.raises(SettingsError, match="nothing to undo"):
        inspector.undo()


def test_inspectors_with_one_predictor_are_independent(calibrated: Path) -> None:
    from snl.decision.edit import set_rates

    first = snl.load(calibrated, "cpu")
    versions = [set_rates(first.calibration, anomalous=0.3)]
    second = Inspector(first.predictor, versions)
    second.recalibrate(set_rates(second.calibration, anomalous=0.4))
    assert (first.rates.anomalous, second.rates.anomalous) == (0.05, 0.4)
    assert len(first.calibrations) == len(versions) == 1


# --- closing ---


def test_close_releases_the_network(bundle: Path, image: Path) -> None:
    inspector = snl.load(bundle, "cpu")
    inspector.inspect(image)
    network = weakref.ref(inspector.network)
    weights = weakref.ref(next(inspector.network.student.parameters()))
    assert network() is not None and weights() is not None
    inspector.close()
    gc.collect()
    assert network() is None and weights() is None
    inspector.close()  # a second time does nothing
    assert inspector.products == ("bolt", "plate")  # what is no network is still there


# --- bundles ---


def test_a_bundle_contains_everything_needed(bundle: Path) -> None:
    arrays, document = load_tensors(bundle, "bundle")
    sections = document["sections"]
    known = {"network", "model", "training", "calibration", "history"}
    assert set(sections) == known
    model, training = sections["model"], sections["training"]
    assert training["products"] == {"bolt": 2, "plate": 2}
    assert model["preprocessing"]["mean"] and model["preprocessing"]["image_size"] == 64
    assert model["settings"]["teacher"]["stages"] == [1, 2] and model["plugins"] == []
    assert len(training["data"]["fingerprint"]) == 64
    assert {"seconds", "device", "versions", "loss", "terms"} <= training["facts"].keys()
    assert {name.partition("/")[0] for name in arrays} == known - {"model", "history"}
    (version,) = sections["calibration"]["versions"]
    assert version["network"] == model["network"] and len(model["network"]) == 16


Change = Callable[[dict[str, np.ndarray], dict[str, Any], dict[str, Any]], Any]
EDITS: dict[str, Change] = {
    "no teacher and a weight less": lambda a, m, f: (m["settings"].pop("teacher"), a.popitem()),
    "unknown teacher": lambda a, m, f: m["settings"]["teacher"].update(name="no_such_network"),
    "a teacher to download": lambda a, m, f: m["settings"]["teacher"].update(
        name="hf-hub:someone/network"),
    "another teacher": lambda a, m, f: m["settings"]["teacher"].update(name="resnet18"),
    "another number of centres": lambda a, m, f: m["settings"]["cram"].update(centres=7),
    "an image size of text": lambda a, m, f: m["settings"].update(image_size="large"),
    "a huge image size": lambda a, m, f: m["settings"].update(image_size=10**9),
    "an unknown setting": lambda a, m, f: m["settings"].update(unknown=1),
    "no settings": lambda a, m, f: m.update(settings=None),
    "a map range of text": lambda a, m, f: _first(f).update(map_range=["a", "b"]),
    "a map range of one number": lambda a, m, f: _first(f).update(map_range=[1]),
    "products as a number": lambda a, m, f: f["training"].update(products=3),
    "calibrations as text": lambda a, m, f: f["calibration"].update(versions=["x", "y", "z"]),
    "no preprocessing": lambda a, m, f: m.pop("preprocessing"),
    "a mean of one channel": lambda a, m, f: m["preprocessing"].update(mean=[0.5]),
    "a mean of text": lambda a, m, f: m["preprocessing"].update(mean="dark"),
    "a weight less": lambda a, m, f: a.pop(next(n for n in a if n.startswith("network/student."))),
    "a weight more": lambda a, m, f: a.update({"network/student.extra": np.zeros(3, np.float32)}),
}  # fmt: skip
"""Edits of the arrays, the model's section and all sections of a bundle."""


def _first(sections: dict[str, Any]) -> dict[str, Any]:
    version: dict[str, Any] = sections["calibration"]["versions"][0]
    return version


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_an_edited_bundle_is_refused(bundle: Path, tmp_path: Path, edit: Change) -> None:
    arrays, document = load_tensors(bundle, "bundle")
    edit(arrays, document["sections"]["model"], document["sections"])
    bad = tmp_path / "bad.snl"
    save_tensors(bad, arrays, "bundle", document)  # the checksum is correct
    with pytest.raises(BundleError, match=r"bad\.snl") as caught:
        snl.load(bad)
    assert "\n" not in str(caught.value)


def test_public_names_are_imported_on_use() -> None:
    code = (
        "import sys, snl; assert not {'torch', 'numpy', 'PIL'} & set(sys.modules); "
        "snl.Settings; assert 'torch' not in sys.modules; snl.Catalog; "
        "assert 'torch' not in sys.modules; print(sorted(snl.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in json.loads(done.stdout.replace("'", '"')):
        assert getattr(snl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        snl.nothing  # noqa: B018
