"""Predictions that are stored and decided later, as inspections decide at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import snl
from snl.data.catalog import Record
from snl.decision import edit
from snl.decision.calibration import Calibration, Rates
from snl.errors import ImageError
from snl.runtime.engine import Outputs
from snl.runtime.inspector import Inspector
from snl.runtime.predictor import Predictor, predict_images
from snl.runtime.recalibrate import add_normals
from tests.trees import save_varied


@pytest.fixture(scope="module")
def inspector(calibrated: Path) -> snl.Inspector:
    return snl.load(calibrated, "cpu")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Images of both products, normal ones and defects."""
    root = tmp_path_factory.mktemp("images")
    return [
        save_varied(root / f"{n}.png", 3000 + n, defect=n % 3 == 0, product=product)
        for n, product in enumerate(["bolt", "plate"] * 8)
    ]


def store(inspector: snl.Inspector, paths: list[Path], tile: int = 0) -> list[bytes]:
    errors: list[ImageError] = []
    predictions = inspector.predictor.predict_images(paths, errors, 8, tile=tile)
    content = [prediction.to_bytes() for prediction in predictions]
    assert not errors
    return content


def same(left: snl.Inspection, right: snl.Inspection) -> None:
    assert left.to_dict() == right.to_dict()
    np.testing.assert_array_equal(left.anomaly_map, right.anomaly_map)
    assert left.map_range == right.map_range


@pytest.mark.parametrize("product", [None, "bolt", "plate"])
@pytest.mark.parametrize("rates", [None, Rates(0.2, 0.3, 0.4, 0.5)])
def test_a_stored_prediction_gives_the_inspection(
    inspector: snl.Inspector, paths: list[Path], product: str | None, rates: Rates | None
) -> None:
    inspections = list(inspector.stream(paths, product, rates))
    assert {result.decision for result in inspections} >= {"normal", "anomalous"}
    for content, wanted in zip(store(inspector, paths), inspections, strict=True):
        prediction = snl.Prediction.from_bytes(content)
        same(snl.decide(prediction, inspector.calibration, product, rates), wanted)


def changes(inspector: snl.Inspector, folder: Path) -> dict[str, Callable[[], Calibration]]:
    calibration = inspector.calibration
    mask = np.zeros((64, 64), bool)
    mask[:, 20:50] = True
    normals = [
        Record(save_varied(folder / f"{n}.png", 7000 + n), "bolt", "test", "normal")
        for n in range(30)
    ]
    return {
        "rates": lambda: edit.set_rates(calibration, "plate", anomalous=0.3, regions=0.5),
        "mask": lambda: edit.set_ignore_mask(calibration, "bolt", mask),
        "normals": lambda: add_normals(inspector, calibration, normals)[0],
        "values": lambda: edit.set_product_values(
            edit.set_product_values(calibration, "mm_per_pixel", {"bolt": 0.5}),
            "min_region_area",
            {"bolt": 30},
        ),
    }


@pytest.mark.parametrize("change", ["rates", "mask", "normals", "values"])
def test_another_calibration_gives_what_recalibrating_gives(
    inspector: snl.Inspector, paths: list[Path], tmp_path: Path, change: str
) -> None:
    stored = [snl.Prediction.from_bytes(content) for content in store(inspector, paths)]
    calibration = changes(inspector, tmp_path)[change]()
    changed = Inspector(inspector.predictor, inspector.calibrations)
    changed.recalibrate(calibration)
    before = [snl.decide(prediction, inspector.calibration).to_dict() for prediction in stored]
    after = []
    for prediction, wanted in zip(stored, changed.inspect(paths), strict=True):
        result = snl.decide(prediction, calibration)
        same(result, wanted)
        after.append(result.to_dict())
    assert before != after
    # deciding again under the first calibration gives the first results
    assert [snl.decide(p, inspector.calibration).to_dict() for p in stored] == before


def test_predictions_of_tiles(inspector: snl.Inspector, paths: list[Path]) -> None:
    calibration = dataclasses.replace(inspector.calibration, tile=32)
    tiled = Inspector(inspector.predictor, [calibration])
    contents = store(inspector, paths[:3], tile=32)
    for content, wanted in zip(contents, tiled.inspect(paths[:3]), strict=True):
        prediction = snl.Prediction.from_bytes(content)
        assert prediction.anomaly_map.shape == prediction.size == (40, 48)
        same(snl.decide(prediction, calibration), wanted)


class TwoHeads:
    """An engine with further outputs."""

    def __init__(self, inspector: snl.Inspector) -> None:
        self.inspector = inspector
        self.image_size = inspector.image_size

    def predict(self, pixels: np.ndarray) -> Outputs:
        outputs = self.inspector.engine.predict(pixels)
        mean = pixels.mean((1, 2, 3))
        extra = {"head.map": outputs.maps[:, ::2, ::2] * 2, "mean": mean}
        return Outputs(outputs.maps, outputs.scores, outputs.embeddings, extra)


def test_further_outputs_are_kept_and_stored(
    inspector: snl.Inspector, paths: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"text")
    engine: Any = TwoHeads(inspector)
    predictor = Predictor(engine, inspector.predictor.metadata)
    errors: list[ImageError] = []
    sources = [*paths[:3], bad, *paths[3:10]]
    predictions = list(predictor.predict_images(sources, errors, batch_size=4))
    assert len(errors) == 1 and [p.index for p in predictions] == [0, 1, 2, *range(4, 11)]
    for prediction in predictions:
        assert prediction.path == str(sources[prediction.index])
        assert prediction.pixels is not None and prediction.image is None
        head = prediction.outputs["head.map"]
        np.testing.assert_array_equal(head, prediction.anomaly_map[::2, ::2] * 2)
        assert prediction.outputs["mean"] == prediction.pixels.mean()
        again = snl.Prediction.from_bytes(prediction.to_bytes())
        assert again.outputs.keys() == {"head.map", "mean"}
        for name, value in prediction.outputs.items():
            np.testing.assert_array_equal(again.outputs[name], value)
            assert again.outputs[name].shape == np.shape(value)
        result = snl.decide(again, inspector.calibration)
        assert result.prediction.outputs.keys() == again.outputs.keys()


def test_a_model_without_embeddings(paths: list[Path]) -> None:
    """`predict_images` accepts any model of maps and scores; evaluation uses that."""

    class Brightness:
        image_size = 16

        def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            maps = pixels.mean(3, dtype=np.float32)
            return maps, maps.max((1, 2))

    errors: list[ImageError] = []
    predictions = list(predict_images(Brightness(), paths, errors, 5, keep_images=True))
    assert len(predictions) == len(paths) and not errors
    for prediction in predictions:
        assert prediction.embedding.shape == (0,) and not prediction.outputs
        assert prediction.score == prediction.anomaly_map.max()
        assert prediction.image is not None and prediction.image.shape == (40, 48, 3)
