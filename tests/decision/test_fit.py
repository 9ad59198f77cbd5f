"""The first calibration of a network, against numpy in float64."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from snl.decision.decide import decide
from snl.decision.fit import calibration_sets, fit_calibration, timestamp
from snl.decision.prediction import Prediction
from snl.decision.sample import PEAKS, NormalSample
from snl.settings import MapSettings
from tests.decision.calibrations import prototypes_of


def make_sample(seed: int, *products: str, each: int = 15) -> NormalSample:
    """Return measurements whose products alternate; a product's embeddings form one cluster."""
    rng = np.random.default_rng(seed)
    names = tuple(np.tile(products, each).tolist())
    axes = {"bolt": 0, "nut": 1, "plate": 2}
    centres = 20 * np.eye(3)[[axes[name] for name in names]]
    peaks = np.sort(rng.uniform(0.5, 3, (len(names), PEAKS)))[:, ::-1].astype(np.float32)
    return NormalSample(
        names,
        peaks[:, 0].copy(),
        (centres + rng.normal(size=centres.shape)).astype(np.float32),
        peaks,
        rng.uniform(0.1, 0.4, len(names)).astype(np.float32),
        rng.integers(0, 2**63, len(names), np.uint64),
    )


def test_every_part_is_computed_from_the_right_images() -> None:
    training, held_out = make_sample(0, "plate", "bolt"), make_sample(1, "bolt", "plate")
    scoring = MapSettings(score="topk")
    result = fit_calibration(
        training, held_out, scoring=scoring, tile=64, network="0123456789abcdef"
    )
    assert result.products == ("bolt", "plate")
    assert (result.scoring, result.tile, result.network) == (scoring, 64, "0123456789abcdef")
    assert result.reason == "training"
    assert abs(datetime.now(UTC) - datetime.fromisoformat(result.created)).total_seconds() < 60
    for product in result.products:
        rows = np.array([name == product for name in training.products])
        logs = np.log(training.scores[rows].astype(np.float64))
        mean, deviation = result.log_score_stats[product]
        assert mean == pytest.approx(logs.mean(), rel=1e-6)
        # test_conformal checks how few images lean on the other products' deviations
        assert deviation == pytest.approx(logs.std(ddof=1), rel=0.2)
        centre = training.embeddings[rows].astype(np.float64).mean(0)
        (prototype,) = result.prototypes.centres[np.array(result.prototypes.owners) == product]
        np.testing.assert_allclose(prototype, centre, rtol=1e-6)
        rows = np.array([name == product for name in held_out.products])
        data = result.sets[product]
        np.testing.assert_array_equal(data.scores, held_out.scores[rows])
        np.testing.assert_array_equal(data.peaks, held_out.peaks[rows])
        np.testing.assert_array_equal(data.hashes, held_out.hashes[rows])
        distances = np.linalg.norm(held_out.embeddings[rows] - centre, axis=1)
        np.testing.assert_allclose(data.distances, distances, rtol=1e-5)
    low, high = result.map_range
    assert low == pytest.approx(np.median(held_out.backgrounds.astype(np.float64)))
    assert high == 2 * held_out.scores.max()


def test_without_held_out_images_nothing_is_normal_or_anomalous() -> None:
    training = make_sample(0, "bolt", "plate")
    nothing = make_sample(0, "bolt", each=0)
    result = fit_calibration(training, nothing)
    assert {name: len(data) for name, data in result.sets.items()} == {"bolt": 0, "plate": 0}
    assert result.map_range[1] == 2 * training.scores.max()
    prediction = Prediction(np.ones((2, 2), np.float32), 1.0, training.embeddings[0], (2, 2))
    inspection = decide(prediction, result)
    assert (inspection.decision, inspection.product) == ("uncertain", "bolt")


def test_distances_are_to_the_nearest_prototype_of_any_product() -> None:
    sample = make_sample(2, "bolt", "plate")
    prototypes = prototypes_of("bolt", "nut", "plate")
    sets = calibration_sets(sample, prototypes, ("bolt", "nut", "plate"))
    assert {name: len(data) for name, data in sets.items()} == {"bolt": 15, "nut": 0, "plate": 15}
    for product, data in sets.items():
        rows = sample.embeddings[sample.of(product)].astype(np.float64)
        each = np.linalg.norm(rows[:, None] - prototypes.centres[None], axis=2)
        np.testing.assert_allclose(data.distances, each.min(1), rtol=1e-6)
        assert data.distances.dtype == np.float32


def test_the_seed_decides_the_prototypes() -> None:
    training, held_out = make_sample(0, "bolt", each=90), make_sample(1, "bolt")
    first, again = (fit_calibration(training, held_out, seed=3) for _ in range(2))
    assert len(first.prototypes.owners) == 4
    np.testing.assert_array_equal(first.prototypes.centres, again.prototypes.centres)


def test_the_time_is_utc_to_the_second() -> None:
    assert datetime.fromisoformat(timestamp()).utcoffset() == UTC.utcoffset(None)
    assert len(timestamp()) == len("2026-01-02T03:04:05+00:00")
