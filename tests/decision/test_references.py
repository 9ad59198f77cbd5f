"""Images that as a whole are unlike the normal ones: distances against SciPy, limits, rates."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import snl
from snl.decision.calibration import Calibration
from snl.decision.decide import decide
from snl.decision.fit import calibration_sets, fit_calibration
from snl.decision.prediction import Prediction
from snl.decision.references import MOST, STRANGE, References, fit_references, score_factor
from snl.decision.sample import PEAKS, NormalSample
from snl.runtime.metadata import to_sections
from snl.runtime.sections import CALIBRATION

WIDTH = 24


def embeddings_of(product: int, count: int, seed: int, spread: float = 0.05) -> np.ndarray:
    rng = np.random.default_rng([product, seed])
    rows = rng.normal(0, spread, (count, WIDTH)) + 1.0 * (np.arange(WIDTH) // 8 == product)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def sample_of(counts: dict[str, int], seed: int, spread: float = 0.05) -> NormalSample:
    rng = np.random.default_rng(seed)
    rows = [embeddings_of(i, n, seed, spread) for i, n in enumerate(counts.values())]
    total = sum(counts.values())
    peaks = np.sort(rng.uniform(0.5, 1, (total, PEAKS)))[:, ::-1].astype(np.float32)
    return NormalSample(
        tuple(name for name, n in counts.items() for _ in range(n)),
        rng.lognormal(0, 0.2, total).astype(np.float32),
        np.concatenate(rows),
        peaks,
        np.full(total, 0.5, np.float32),
        rng.integers(0, 2**63, total).astype(np.uint64),
    )


def calibration(held_out: int = 30, seed: int = 0) -> Calibration:
    names = ("a", "b", "c")
    return fit_calibration(
        sample_of(dict.fromkeys(names, 60), seed),
        sample_of(dict.fromkeys(names, held_out), seed + 1),
    )


def prediction_of(embedding: np.ndarray, score: float = 1.0) -> Prediction:
    anomaly_map = np.full((8, 8), 0.1, np.float32)
    anomaly_map[3, 4] = score
    return Prediction(anomaly_map, score, embedding, (8, 8), "a.png")


def test_distances_are_those_of_scipy() -> None:
    names = ["a"] * 50 + ["b"] * 20
    rows = np.concatenate([embeddings_of(0, 50, 0), embeddings_of(1, 20, 0)])
    references = fit_references(rows, names)
    assert [references.owners.count(name) for name in "ab"] == [MOST, 20]
    new = embeddings_of(1, 7, 3)
    within = np.concatenate([rows[:50] - rows[:50].mean(0), rows[50:] - rows[50:].mean(0)])
    variance = (20 * rows[50:].var(0) + 10 * np.square(within).mean(0)) / 30
    scale = np.maximum(np.sqrt(variance), 0.1 * math.sqrt(variance.mean()))
    np.testing.assert_allclose(references.scales[1], scale, rtol=1e-4)
    wanted = np.sort(
        cdist(new, references.embeddings[MOST:].astype(float), "seuclidean", V=scale**2)
    )
    np.testing.assert_allclose(references.distances(new, "b"), wanted[:, :3].mean(1), rtol=1e-3)


def test_the_strangeness_of_held_out_images_is_centred() -> None:
    one = calibration()
    held = sample_of(dict.fromkeys("abc", 30), 1)
    for product in "abc":
        found = [one.strangeness(product, row) for row in held.embeddings[held.of(product)]]
        assert abs(float(np.median(np.array(found, float)))) < 1e-3
        assert max(map(float, found)) < STRANGE  # type: ignore[arg-type]


def test_new_normal_images_keep_their_scores_and_strange_ones_do_not() -> None:
    one = calibration()
    for row in embeddings_of(1, 300, 9):
        assert decide(prediction_of(row), one, "b").score == 1
    for row in embeddings_of(1, 20, 9, spread=1.0):
        result = decide(prediction_of(row), one, "b")
        assert result.score > 1.5 and result.decision == "anomalous"
        assert any("unlike every normal image of b" in remark for remark in result.remarks)
        assert result.prediction.score == result.score
        np.testing.assert_array_equal(result.anomaly_map.max(), 1)


def test_the_factor_grows_without_a_step() -> None:
    found = [score_factor(x) for x in np.linspace(-5, 40, 1000).tolist()]
    assert found[0] == 1 and found[-1] == pytest.approx(math.exp(3))
    assert (np.diff(np.log(found)) >= 0).all() and np.diff(np.log(found)).max() < 0.1
    assert score_factor(STRANGE) == 1 and score_factor(None) == 1


def test_the_rate_of_false_alarms_is_kept_where_normal_images_are_strange() -> None:
    """Held-out images are raised as new ones are, so that both are exchangeable."""
    rng = np.random.default_rng(0)
    alarms = []
    for _ in range(30):
        spread = np.where(rng.random(400) < 0.2, 2.0, 0.05)[:, None]  # a fifth is far away
        rows = rng.normal(0, 1, (400, WIDTH)) * spread + 1
        names, none = ("a",) * 400, np.zeros((400, PEAKS), np.float32)
        scores = rng.lognormal(0, 0.3, 400).astype(np.float32)
        hashes = np.arange(400, dtype=np.uint64)
        whole = NormalSample(names, scores, rows.astype(np.float32), none, scores, hashes)
        train, held, new = (_part(whole, part) for part in np.split(np.arange(400), [100, 200]))
        one = dataclasses.replace(fit_calibration(train, held), rule="conformal")
        found = [
            decide(prediction_of(row, float(score)), one, "a")
            for row, score in zip(new.embeddings, new.scores, strict=True)
        ]
        assert any(r.strangeness > STRANGE for r in found if r.strangeness is not None)
        alarms.append(np.mean([r.decision == "anomalous" for r in found]))
    assert 0.02 < float(np.mean(alarms)) < 0.06


def _part(sample: NormalSample, rows: np.ndarray) -> NormalSample:
    arrays = {
        f.name: getattr(sample, f.name)[rows]
        for f in dataclasses.fields(sample)
        if f.name not in ("products", "paths")
    }
    return NormalSample(products=tuple(sample.products[i] for i in rows), **arrays)


@pytest.mark.parametrize("count", [0, 1, 9])
def test_few_held_out_images_tell_nothing(count: int) -> None:
    one = calibration(count)
    assert one.strangeness("a", embeddings_of(0, 1, 5)[0]) is None
    result = decide(prediction_of(embeddings_of(2, 1, 5)[0]), one, "a")
    assert result.score == 1 and result.strangeness is None


def test_files_of_earlier_versions_compare_nothing() -> None:
    one = calibration()
    sets = {
        k: dataclasses.replace(v, neighbours=np.empty(0, np.float32)) for k, v in one.sets.items()
    }
    old = dataclasses.replace(one, references=None, sets=sets)
    assert old.strangeness("a", embeddings_of(1, 1, 5)[0]) is None
    for product in "abc":
        np.testing.assert_array_equal(old.raised_scores(product), old.sets[product].scores)


def test_a_product_with_an_ignore_mask_is_not_compared() -> None:
    one = dataclasses.replace(calibration(), ignore_masks={"a": np.eye(8, dtype=bool)})
    far = embeddings_of(2, 1, 5)[0]
    assert one.strangeness("a", far) is None
    assert float(one.strangeness("b", far) or 0) > STRANGE


def test_images_added_to_a_set_change_what_is_usual() -> None:
    one = calibration()
    far = sample_of({"a": 90}, 7, spread=0.4)
    assert float(np.median([one.strangeness("a", row) or 0 for row in far.embeddings])) > 4
    sets = calibration_sets(far, one.prototypes, ["a"], one.references)
    more = one.with_sets({"a": one.sets["a"].merge(sets["a"])})
    assert float(np.median([more.strangeness("a", row) or 0 for row in far.embeddings])) < 2


def test_identical_images() -> None:
    names, rows = ["a"] * 20, np.ones((20, 4), np.float32)
    references = fit_references(rows, names)
    assert np.isfinite(references.scales).all() and (references.scales > 0).all()
    found = references.distances(np.array([[1, 1, 1, 1], [1, 1, 1, 0]], np.float32), "a")
    assert np.isfinite(found).all() and 0 < found[0] < found[1]
    assert references.distances(np.empty((0, 4), np.float32), "a").shape == (0,)


# --- in a file ---


def test_versions_share_the_references(trained: Path, tmp_path: Path) -> None:
    inspector = snl.load(trained, "cpu")
    references = inspector.calibration.references
    assert isinstance(references, References)
    for rate in (0.2, 0.3, 0.2, 0.3):
        snl.calibrate(inspector, rate=rate)
    metadata = dataclasses.replace(inspector.metadata, calibrations=inspector.calibrations)
    arrays = to_sections(metadata)[CALIBRATION].arrays
    assert [name for name in arrays if name.endswith("references")] == ["0.references"]
    file = tmp_path / "many.snl"
    inspector.save(file)
    again = snl.load(file, "cpu")
    assert len(again.calibrations) == 5
    for version in again.calibrations:
        assert version.references is not None
        np.testing.assert_array_equal(version.references.embeddings, references.embeddings)
        np.testing.assert_array_equal(version.references.scales, references.scales)
