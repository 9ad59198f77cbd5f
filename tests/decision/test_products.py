"""Product recognition and groups, on clusters of points with known answers."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from snl.decision import products
from snl.decision.calibration import Calibration, CalibrationSet, Rates
from snl.decision.decide import judge as verdict_on
from snl.decision.products import Prototypes, find_groups, fit_prototypes


def blobs(seed: int, *counts: int, width: int = 6, apart: float = 12.0) -> np.ndarray:
    """Gaussian clusters of unit deviation around corners `apart` from the origin, shuffled."""
    rng = np.random.default_rng(seed)
    centres = apart * np.eye(width)
    rows = [centres[k] + rng.normal(size=(n, width)) for k, n in enumerate(counts)]
    shuffled: np.ndarray = np.concatenate(rows)[rng.permutation(sum(counts))]
    return shuffled.astype(np.float32)


def corner_of(rows: np.ndarray) -> np.ndarray:
    corners: np.ndarray = rows.argmax(1)
    return corners


# --- prototypes ---


def test_distances_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 3)).astype(np.float32)
    prototypes = Prototypes(centres, ("b", "a", "b", "c", "a"))
    assert prototypes.names == ("b", "a", "c")
    points = rng.normal(size=(7, 3)).astype(np.float32)
    distances = prototypes.distances(points)
    for i, point in enumerate(points.astype(np.float64)):
        for j, name in enumerate(prototypes.names):
            owned = [c for c, o in zip(centres, prototypes.owners, strict=True) if o == name]
            expected = min(np.linalg.norm(point - c.astype(np.float64)) for c in owned)
            assert distances[i, j] == pytest.approx(expected, rel=1e-9)
    assert prototypes.distances(points[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    ("count", "clusters"), [(1, 1), (19, 1), (39, 1), (40, 2), (70, 3), (500, 4)]
)
def test_prototypes_grow_with_the_images(count: int, clusters: int) -> None:
    fitted = fit_prototypes(blobs(0, count), ["bolt"] * count, 0)
    assert fitted.owners == ("bolt",) * clusters
    assert fitted.centres.shape == (clusters, 6) and fitted.centres.dtype == np.float32
    if clusters == 1:
        np.testing.assert_allclose(fitted.centres[0], blobs(0, count).mean(0), rtol=1e-5)


def test_each_cluster_of_a_product_gets_a_prototype() -> None:
    rows = blobs(1, 50, 50)
    fitted = fit_prototypes(rows, ["mixed"] * 100, 3)
    for k in (0, 1):
        mean = rows[corner_of(rows) == k].mean(0)
        assert np.linalg.norm(fitted.centres - mean, axis=1).min() < 1.5
    again = fit_prototypes(rows, ["mixed"] * 100, 3)
    np.testing.assert_array_equal(fitted.centres, again.centres)


def normals_at(distances: np.ndarray) -> CalibrationSet:
    n = len(distances)
    rows = np.full((n, 16), -np.inf, np.float32)
    return CalibrationSet(
        np.ones(n, np.float32), distances.astype(np.float32), rows, np.arange(n, dtype=np.uint64)
    )


def test_new_images_of_known_products_are_recognised_and_others_are_not() -> None:
    """From embeddings to the verdict, over many draws: `unknown product` at most at its rate."""
    rate, unknown, wrong, foreign = 0.05, [], [], []
    for seed in range(60):
        rows = blobs(seed, 220, 120, 90)
        corner = corner_of(rows)
        names = np.array(["a", "b", "c"])[corner]
        known = np.flatnonzero(corner < 2)
        trained, held, new = known[:120], known[120:220], known[220:]
        prototypes = fit_prototypes(rows[trained], names[trained].tolist(), seed)
        nearest = prototypes.distances(rows[held]).min(1)
        normals = {name: normals_at(nearest[names[held] == name]) for name in "ab"}
        calibration = Calibration(normals, dict.fromkeys("ab", (0.0, 1.0)), prototypes)

        def judge(row: np.ndarray, by: Calibration = calibration) -> tuple[bool, str]:
            product, distance, second = by.prototypes.nearest(row)
            rates = Rates(unknown=rate)
            verdict = verdict_on(by, 1.0, product, distance, rates=rates, second=second)
            return verdict.decision == "unknown product", verdict.recognised

        answers = [judge(rows[i]) for i in new]
        unknown.append(np.mean([u for u, _ in answers]))
        wrong.append(np.mean([r != names[i] for i, (_, r) in zip(new, answers, strict=True)]))
        foreign.append(np.mean([judge(rows[i])[0] for i in np.flatnonzero(corner == 2)[:20]]))
    assert np.mean(unknown) <= rate + 3 * np.std(unknown) / np.sqrt(len(unknown))
    assert np.mean(wrong) == 0
    assert np.mean(foreign) == 1


# --- groups ---


@pytest.mark.parametrize("counts", [(60, 40), (90, 60, 30), (40, 50, 60, 70, 80, 90)])
def test_clusters_are_separated_largest_first(counts: tuple[int, ...]) -> None:
    rows = blobs(2, *counts)
    labels = find_groups(rows, 0)
    sizes = np.bincount(labels)
    assert sizes.tolist() == sorted(counts, reverse=True)
    pairs = set(zip(labels.tolist(), corner_of(rows).tolist(), strict=True))
    assert len(pairs) == len(counts)  # every group is one cluster
    np.testing.assert_array_equal(labels, find_groups(rows, 0))
    moved = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_array_equal(np.bincount(find_groups(rows[moved], 5)), sizes)


@pytest.mark.parametrize("count", [1, 2, 39, 40, 300])
def test_one_cluster_is_one_group(count: int) -> None:
    assert (find_groups(blobs(3, count), 0) == 0).all()


def test_overlapping_clusters_are_one_group() -> None:
    assert (find_groups(blobs(4, 60, 60, apart=1.5), 0) == 0).all()


def test_groups_of_few_images_are_not_separated() -> None:
    assert (find_groups(blobs(5, 60, 15), 0) == 0).all()  # fifteen images are no product
    assert (find_groups(blobs(5, 12, 12), 0) == 0).all()
    assert np.bincount(find_groups(blobs(5, 60, 25), 0)).tolist() == [60, 25]


def test_many_images_are_grouped_by_a_subset() -> None:
    rows = blobs(6, 1500, 900, 300)
    labels = find_groups(rows, 0)
    assert np.bincount(labels).tolist() == [1500, 900, 300]
    np.testing.assert_array_equal(labels, corner_of(rows))


def test_equal_images_are_one_group_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (find_groups(np.ones((80, 5), np.float32), 0) == 0).all()
        twice = np.repeat([[1.0, 0.0], [0.0, 1.0]], [50, 30], axis=0)
        assert np.bincount(find_groups(twice, 0)).tolist() == [50, 30]


def test_the_silhouette_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for number in range(20):
        rows = rng.normal(size=(int(rng.integers(8, 40)), 3))
        labels = rng.integers(0, int(rng.integers(2, 6)), len(rows))
        labels[:2] = 0, 1
        if number % 2:
            labels[2] = labels.max() + 1  # a group of one image
        pairs = np.linalg.norm(rows[:, None] - rows[None], axis=2)
        dense = np.unique(labels, return_inverse=True)[1]
        expected = silhouette_score(rows, dense)
        assert products._silhouette(pairs, labels) == pytest.approx(expected, abs=1e-12)
    assert products._silhouette(np.zeros((4, 4)), np.array([0, 0, 0, 0])) == 0
    assert products._silhouette(np.zeros((4, 4)), np.array([3, 3, 3, 3])) == 0


# --- strangers, variants and unusual images ---


def calibration_from(
    rows: np.ndarray, names: np.ndarray, held: np.ndarray, held_names: np.ndarray
) -> Calibration:
    """Return a calibration whose prototypes and held-out distances come from embeddings."""
    prototypes = fit_prototypes(rows, names.tolist(), 0)
    nearest = prototypes.distances(held).min(1)
    products = sorted(set(names.tolist()))
    normals = {name: normals_at(nearest[held_names == name]) for name in products}
    return Calibration(normals, dict.fromkeys(products, (0.0, 1.0)), prototypes)


def is_unknown(calibration: Calibration, row: np.ndarray) -> bool:
    product, distance, second = calibration.prototypes.nearest(row)
    verdict = verdict_on(calibration, 1.0, product, distance, second=second)
    return verdict.decision == "unknown product"


@pytest.mark.parametrize("images", [20, 120])
def test_one_product_and_ten_variants_keep_the_rate(images: int) -> None:
    """Ten variants of one part are as near to each other as images of one variant are."""
    for variants in (1, 10):
        shares = []
        for seed in range(20):
            rng = np.random.default_rng(seed)
            centres = 0.3 * rng.normal(size=(variants, 8))
            names = np.array([f"part {v}" for v in range(variants)])
            of = np.repeat(np.arange(variants), images)
            train, held, new = (centres[of] + 0.2 * rng.normal(size=(len(of), 8)) for _ in range(3))
            calibration = calibration_from(train, names[of], held, names[of])
            limit = calibration.unknown_rate()
            shares.append(np.mean([is_unknown(calibration, row) for row in new[:200]]))
        assert np.mean(shares) <= limit + 0.005
        far = centres[0] + 5.0
        assert is_unknown(calibration, far)


def test_an_unusual_image_that_is_clearly_of_a_product_stays_with_it() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0.0] * 4, [10.0] * 4])
    of = np.repeat([0, 1], 60)
    names = np.array(["a", "b"])
    train, held = (centres[of] + 0.1 * rng.normal(size=(120, 4)) for _ in range(2))
    calibration = calibration_from(train, names[of], held, names[of])
    unusual, between = centres[0] + 1.0, centres.mean(0)
    product, distance, second = calibration.prototypes.nearest(unusual)
    verdict = verdict_on(calibration, 1.0, product, distance, second=second)
    assert verdict.product == "a"
    assert verdict.decision != "unknown product"
    assert verdict.unusual_p == 1 / 121 and verdict.unknown_p == 1
    assert verdict.unknown_distance is not None and verdict.distance > verdict.unknown_distance
    assert is_unknown(calibration, between)


def test_distances_count_on_the_scale_of_their_product() -> None:
    rng = np.random.default_rng(1)
    centres, widths = np.array([[0.0] * 4, [10.0] * 4]), np.array([0.02, 1.0])
    of = np.repeat([0, 1], 100)
    names = np.array(["narrow", "wide"])
    train, held = (centres[of] + widths[of][:, None] * rng.normal(size=(200, 4)) for _ in range(2))
    calibration = calibration_from(train, names[of], held, names[of])
    narrow, wide = (calibration.unknown_distance(name) for name in names)
    assert narrow is not None and wide is not None and wide > 20 * narrow
    assert calibration.prototypes.separation("narrow") == pytest.approx(20, abs=4)
