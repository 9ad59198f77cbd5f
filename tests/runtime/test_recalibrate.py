"""Changes of a calibration from Python: new versions, without effect until they are in force."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import snl
from snl.data.catalog import Catalog
from snl.decision import edit
from snl.decision.calibration import Rates
from snl.decision.decide import judge
from snl.errors import DataError, ImageError, SettingsError
from snl.files import content_hash
from snl.runtime import recalibrate
from snl.runtime.engine import Outputs
from snl.runtime.inspector import Inspector
from snl.runtime.measure import measure
from tests.decision.calibrations import assert_same
from tests.trees import save_varied


@pytest.fixture
def inspector(calibrated: Path) -> Inspector:
    return snl.load(calibrated, "cpu")


def training_image(inspector: Inspector, varied: Path) -> Path:
    """Return the path of an image of bolt that the network was trained on."""
    files = sorted((varied / "bolt" / "train" / "good").glob("*.png"))
    return next(path for path in files if content_hash(path) in set(inspector.training.hashes))


def left_half(inspector: Inspector) -> np.ndarray:
    """Return the ignore mask of the left half of the image."""
    mask = np.zeros((inspector.image_size, inspector.image_size), bool)
    mask[:, : inspector.image_size // 2] = True
    return mask


def test_edits_become_versions_when_put_in_force(inspector: Inspector, tmp_path: Path) -> None:
    first = inspector.calibration
    changed = edit.set_rates(first, anomalous=0.2)
    assert changed.rates == Rates(0.2, 0.2) and first.rates == Rates()
    inspector.recalibrate(changed)
    inspector.recalibrate(edit.set_rates(inspector.calibration, "bolt", unknown=0.3))
    assert inspector.calibration.rates_for("bolt").unknown == 0.3
    path = save_varied(tmp_path / "a.png", 5000)
    records = recalibrate.records_in(path, "bolt")
    calibration, counts = recalibrate.add_normals(
        inspector, inspector.calibration, records, add=True
    )
    assert counts == {"bolt": 21} and len(inspector.calibrations) == 3
    inspector.recalibrate(calibration)
    assert [c.reason for c in inspector.calibrations] == [
        *("training", "rates", "rates", "new normal images")
    ]
    assert inspector.undo().reason == "new normal images"
    assert inspector.calibration.rates_for("bolt").anomalous == 0.2
    assert_same(inspector.calibrations[0], first)


def test_trained_on_compares_contents(inspector: Inspector, varied: Path, tmp_path: Path) -> None:
    trained = training_image(inspector, varied)
    copy = tmp_path / "copy.png"
    copy.write_bytes(trained.read_bytes())
    assert recalibrate.trained_on(inspector, trained) is True
    assert recalibrate.trained_on(inspector, copy) is True
    new = save_varied(tmp_path / "a.png", 5000)
    assert recalibrate.trained_on(inspector, new) is False
    assert recalibrate.trained_on(inspector, tmp_path / "missing.png") is False


def test_calibrate_makes_one_version_of_images_and_rates(
    inspector: Inspector, varied: Path, tmp_path: Path
) -> None:
    first = inspector.calibration
    assert recalibrate.calibrate(inspector) is first and len(inspector.calibrations) == 1
    for n in range(12):
        save_varied(tmp_path / "normals" / "bolt" / f"{n}.png", 4000 + n)
    result = recalibrate.calibrate(inspector, tmp_path / "normals", rate=0.2, regions_rate=0.5)
    assert result is inspector.calibration and len(inspector.calibrations) == 2
    assert result.reason == "new normal images, rates"
    assert result.rates == Rates(0.2, 0.2, 0.01, 0.5)
    assert {name: len(data) for name, data in result.sets.items()} == {"bolt": 12, "plate": 20}
    assert inspector.undo() is result
    assert_same(inspector.calibration, first)
    # only the normal images of a catalog, without those trained on
    notes: list[str] = []
    catalog = Catalog.read(varied)
    result = recalibrate.calibrate(inspector, catalog, product="plate", rate=0.3, note=notes.append)
    assert {name: len(data) for name, data in result.sets.items()} == {"bolt": 40, "plate": 40}
    assert notes == ["40 of 120 images were trained on; skipped"]
    assert result.rates == Rates() and result.product_rates == {"plate": Rates(0.3, 0.3)}


def test_a_change_that_fails_has_no_effect(inspector: Inspector, tmp_path: Path) -> None:
    first = inspector.calibration
    path = save_varied(tmp_path / "a.png", 5000)
    with pytest.raises(SettingsError, match="held-out normal images"):
        recalibrate.calibrate(inspector, path, product="bolt", rate=0.0001)
    with pytest.raises(SettingsError, match="product 'nut' is not known to this inspector"):
        recalibrate.calibrate(inspector, path, product="nut")
    records = recalibrate.records_in(path, "nut")
    with pytest.raises(DataError, match="product 'nut' is not known to this inspector"):
        recalibrate.add_normals(inspector, first, records)
    with pytest.raises(ImageError, match="missing"):
        recalibrate.learn_false_alarms(inspector, first, [path, tmp_path / "missing.png"])
    assert inspector.calibrations == [first]


def test_normal_images_are_measured_as_they_are_inspected(
    inspector: Inspector, tmp_path: Path
) -> None:
    calibration = edit.set_ignore_mask(inspector.calibration, "bolt", left_half(inspector))
    folder = tmp_path / "bolt"
    paths = [save_varied(folder / f"{n:02}.png", 4000 + n) for n in range(9)]
    steps: list[tuple[int, int]] = []
    records = recalibrate.records_in(folder, "bolt")
    changed, counts = recalibrate.add_normals(
        inspector, calibration, records, progress=lambda *step: steps.append(step)
    )
    assert counts == {"bolt": 9} and steps == [(n, 9) for n in range(1, 10)]
    assert len(inspector.calibrations) == 1  # not in force yet
    inspector.recalibrate(changed)
    results = inspector.inspect(paths, "bolt")
    data = changed.sets["bolt"]
    np.testing.assert_allclose(data.scores, [r.score for r in results], rtol=1e-4)
    np.testing.assert_allclose(data.distances, [r.distance for r in results], rtol=1e-4)
    maxima = [r.prediction.anomaly_map.max() for r in results]
    np.testing.assert_allclose(data.peaks[:, 0], maxima, rtol=1e-4)
    assert data.hashes.tolist() == [content_hash(path) for path in paths]
    # the mask has an effect, and the judgement of a measurement is that of the inspection
    plain = measure(inspector.predictor, records, [])
    assert (plain.scores >= data.scores - 1e-4).all() and (plain.scores > data.scores).any()
    for r in results:
        second = math.inf if r.second_distance is None else r.second_distance
        again = judge(changed, r.score, r.recognised, r.distance, "bolt", second=second)
        assert again == r.verdict()


@pytest.mark.parametrize("product", ["bolt", None])
def test_false_alarms_are_measured_like_any_normal_image(
    inspector: Inspector, varied: Path, tmp_path: Path, product: str | None
) -> None:
    """Whether the product is given or recognised, its ignore mask applies."""
    first = edit.set_ignore_mask(inspector.calibration, "bolt", left_half(inspector))
    new = [save_varied(tmp_path / f"{n}.png", 5000 + n) for n in range(5)]
    paths = [new[0], training_image(inspector, varied), *new[1:]]
    notes: list[str] = []
    changed, alarms = recalibrate.learn_false_alarms(
        inspector, first, paths, product, note=notes.append
    )
    assert notes == ["1 of 6 images were trained on; skipped"]
    assert [alarm.path for alarm in alarms] == [str(path) for path in paths]
    assert (alarms[1].product, alarms[1].p_value) == ("", None)
    assert {alarm.product for alarm in alarms if alarm.path != str(paths[1])} == {"bolt"}
    assert changed.reason == "false alarms"

    records = recalibrate.records_in(tmp_path, "bolt")
    wanted, counts = recalibrate.add_normals(
        inspector, first, records, add=True, reason="false alarms"
    )
    assert counts == {"bolt": 25}
    for name in ("hashes", "scores", "distances", "peaks"):
        actual, expected = (getattr(c.sets["bolt"], name) for c in (changed, wanted))
        np.testing.assert_allclose(actual, expected, rtol=1e-4)
    assert changed.sets["plate"] is first.sets["plate"]

    scores = changed.sets["bolt"].scores
    plain = measure(inspector.predictor, records, []).scores
    assert (scores[20:] < plain).any()  # the mask has an effect
    for alarm, score in zip(alarms[:1] + alarms[2:], scores[20:], strict=True):
        assert alarm.p_value == changed.scores.p_value(float(score), "bolt")
        conformal = edit.set_rule(changed, "conformal").scores
        wanted_p = (1 + int((scores >= score).sum())) / 26
        assert conformal.p_value(float(score), "bolt") == wanted_p


def test_misses_change_rates_only(inspector: Inspector, tmp_path: Path) -> None:
    first = inspector.calibration
    paths = [save_varied(tmp_path / f"{n}.png", 5000 + n) for n in range(80)]
    results = inspector.inspect(paths, "bolt")
    p_values = np.array([r.p_value for r in results], float)
    near = paths[int(np.flatnonzero((p_values > 0.1) & (p_values <= 0.2))[0])]
    far = paths[int(np.flatnonzero(p_values > 0.3)[0])]
    changed, misses = recalibrate.learn_misses(inspector, first, [far, near], "bolt")
    assert inspector.calibrations == [first] and first.product_rates == {}
    assert [(miss.path, miss.product, miss.caught) for miss in misses] == [
        *((str(far), "bolt", False), (str(near), "bolt", True))
    ]
    assert changed.reason == "2 missed images" and list(changed.product_rates) == ["bolt"]
    assert changed.rates_for("bolt").uncertain == misses[1].p_value * edit.ROUNDING
    assert changed.sets == first.sets and changed.rates == first.rates
    # with a larger limit the other one is caught, too
    raised, misses = recalibrate.learn_misses(inspector, changed, [far], "bolt", largest=0.99)
    assert misses[0].caught and raised.rates_for("bolt").uncertain > misses[0].p_value
    # an image that is uncertain already changes nothing
    same, misses = recalibrate.learn_misses(inspector, changed, [near], "bolt")
    assert same is changed and misses[0].caught


def count_images(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which the size of every batch that the engine processes is appended."""
    sizes: list[int] = []
    predict = inspector.engine.predict

    def counted(pixels: np.ndarray) -> Outputs:
        sizes.append(len(pixels))
        return predict(pixels)

    monkeypatch.setattr(inspector.engine, "predict", counted)
    return sizes


@pytest.mark.parametrize("product", ["bolt", None])
@pytest.mark.parametrize("masked", [True, False])
def test_false_alarms_are_processed_once(
    inspector: Inspector, varied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    product: str | None, masked: bool,
) -> None:  # fmt: skip
    """Also if the product, and with it the ignore mask, is known only after recognition."""
    calibration = inspector.calibration
    if masked:
        calibration = edit.set_ignore_mask(calibration, "bolt", left_half(inspector))
    paths = [save_varied(tmp_path / f"{n}.png", 5000 + n) for n in range(19)]
    sizes = count_images(inspector, monkeypatch)
    trained = training_image(inspector, varied)
    recalibrate.learn_false_alarms(inspector, calibration, [*paths, trained], product)
    assert sum(sizes) == 19 and len(sizes) == 2


def test_the_product_of_false_alarms_must_be_known(inspector: Inspector, tmp_path: Path) -> None:
    path = save_varied(tmp_path / "a.png", 5000)
    with pytest.raises(SettingsError, match="product 'nut' is not known to this inspector"):
        recalibrate.learn_false_alarms(inspector, inspector.calibration, [path], "nut")


def test_measurements_are_those_of_inspections(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for product in ("bolt", "plate"):
        for n in range(5):
            save_varied(tmp_path / product / f"{n}.png", 4000 + n, product=product)
    bad = tmp_path / "bolt" / "torn.png"
    bad.write_bytes(b"torn")
    records = Catalog.read(tmp_path).records
    errors: list[ImageError] = []
    steps: list[tuple[int, int]] = []
    sizes = count_images(inspector, monkeypatch)
    masks = {"plate": left_half(inspector)}
    sample = measure(
        inspector.predictor, records, errors, ignore_masks=masks,
        progress=lambda *step: steps.append(step),
    )  # fmt: skip
    assert sum(sizes) == len(sample) == 10
    assert len(errors) == 1 and "torn.png" in str(errors[0])
    assert steps == sorted(steps) and steps[-1] == (11, 11)
    readable = [record for record in records if record.path != bad]
    assert sample.products == tuple(record.product for record in readable)
    calibration = edit.set_ignore_mask(inspector.calibration, "plate", masks["plate"])
    view = Inspector(inspector.predictor, [calibration])
    for number, record in enumerate(readable):
        result = view.inspect(record.path, record.product)
        small = result.prediction.anomaly_map
        assert sample.scores[number] == pytest.approx(result.score, rel=1e-4)
        assert sample.peaks[number, 0] == pytest.approx(small.max(), rel=1e-4)
        assert sample.backgrounds[number] == pytest.approx(np.quantile(small, 0.99), rel=1e-4)
        np.testing.assert_allclose(sample.embeddings[number], result.prediction.embedding, 1e-4)
        assert sample.hashes[number] == content_hash(record.path)
    recognised = measure(
        inspector.predictor, readable, errors, ignore_masks=masks,
        recognise_by=calibration,
    )  # fmt: skip
    assert recognised.products == sample.products
    np.testing.assert_allclose(recognised.scores, sample.scores, rtol=1e-4)
    nothing = measure(inspector.predictor, [], [])
    assert len(nothing) == 0 and nothing.embeddings.shape == (0, sample.embeddings.shape[1])
