"""Metrics against scikit-learn, a brute-force AUPRO, closed forms and properties."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from snl.errors import DataError
from snl.evaluation import metrics as m
from snl.evaluation.metrics import DetectionMetrics, LocalizationMetrics, ScoreHistogram

SMALLEST_CAP = 2**17


def sklearn_metrics(scores, labels):
    scores = scores.astype(np.float64)  # scikit-learn checks their sum
    precision, recall, _ = precision_recall_curve(labels, scores)
    both = precision + recall
    f1 = 2 * precision * recall / np.where(both > 0, both, 1)
    return roc_auc_score(labels, scores), average_precision_score(labels, scores), f1.max()


def all_metrics(scores, labels):
    normal, anomalous = scores[~labels], scores[labels]
    return (
        m.auroc(normal, anomalous),
        m.average_precision(normal, anomalous),
        m.f1_max(normal, anomalous),
    )


def flood_fill(mask):
    """Regions of a mask as lists of (row, column), 8-connected, without scipy."""
    remaining = {(int(r), int(c)) for r, c in np.argwhere(mask)}
    regions = []
    while remaining:
        queue, region = deque([remaining.pop()]), []
        while queue:
            r, c = queue.popleft()
            region.append((r, c))
            for near in [(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if near in remaining:
                    remaining.remove(near)
                    queue.append(near)
        regions.append(region)
    return regions


def brute_force_aupro(maps, masks, limit):
    """Compute AUPRO by its definition, threshold by threshold, in float64."""
    normal = np.concatenate([a[~k] for a, k in zip(maps, masks, strict=True)])
    regions = [
        np.array([a[p] for p in region])
        for a, k in zip(maps, masks, strict=True)
        for region in flood_fill(k)
    ]
    curve = [(0.0, 0.0)]
    for threshold in sorted({float(v) for a in maps for v in a.ravel()}, reverse=True):
        overlap = sum(float(np.mean(r >= threshold)) for r in regions) / len(regions)
        curve.append((float(np.mean(normal >= threshold)), overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 >= limit or x1 == x0:
            continue
        end = min(x1, limit)
        y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
        area += (end - x0) * (y0 + y_end) / 2
    return area / limit


def localization(maps, masks, cap=m.CAP):
    metrics = LocalizationMetrics(cap)
    for anomaly_map, mask in zip(maps, masks, strict=True):
        metrics.update(anomaly_map, mask)
    return metrics


def random_images(seed, count=6, shape=(9, 11)):
    rng = np.random.default_rng(seed)
    masks = rng.random((count, *shape)) < rng.choice([0, 0.05, 0.3], size=(count, 1, 1))
    masks[0] = False
    masks[1, 3, 4] = True
    maps = rng.lognormal(sigma=2, size=masks.shape) * np.where(masks, 3, 1)
    return maps.astype(np.float32), masks


DISTRIBUTIONS = {
    "normal": lambda r, n: r.standard_normal(n),
    "negative": lambda r, n: -50 - r.random(n),
    "tied": lambda r, n: r.integers(-3, 4, n).astype(float),
    "heavily tied": lambda r, n: r.integers(0, 2, n) * 0.7,
    "tiny": lambda r, n: r.random(n) * 1e-42,
    "huge": lambda r, n: np.clip(r.standard_normal(n), -3, 3) * 1e38,
    "concentrated": lambda r, n: 1000 + r.random(n) / 2,
    "heavy-tailed": lambda r, n: np.exp(12 * r.standard_normal(n)),
    "outlier at 0": lambda r, n: np.where(np.arange(n) == 7, 0, 1 + r.random(n) / 1000),
    "both zeros": lambda r, n: r.choice([-0.0, 0.0, 1.0], n),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("size", [40, 5000])
def test_equals_scikit_learn(name, size):
    rng = np.random.default_rng(size)
    scores = DISTRIBUTIONS[name](rng, size).astype(np.float32)
    rank = np.argsort(np.argsort(scores)) / size
    for labels in (rng.random(size) < 0.3, rng.random(size) < 0.1 + 0.8 * rank):
        assert all_metrics(scores, labels) == pytest.approx(
            sklearn_metrics(scores, labels), abs=1e-12
        )


@pytest.mark.parametrize("name", [*DISTRIBUTIONS, "bulk and tail"])
def test_beyond_the_cap_stays_close_to_scikit_learn(name):
    rng = np.random.default_rng(5)
    size = 750_000
    if name == "bulk and tail":
        scores = DISTRIBUTIONS["concentrated"](rng, size)
        scores[::2] = DISTRIBUTIONS["heavy-tailed"](rng, size // 2)
    else:
        scores = DISTRIBUTIONS[name](rng, size)
    scores = scores.astype(np.float32)
    labels = rng.random(size) < 0.02 + 0.1 * (scores > np.median(scores))
    metrics = LocalizationMetrics(SMALLEST_CAP)
    for part, mask in zip(scores.reshape(-1, 500, 500), labels.reshape(-1, 500, 500), strict=True):
        metrics.update(part, mask)
    assert metrics.normal.bins <= SMALLEST_CAP
    got = metrics.compute()
    auroc, ap, f1 = sklearn_metrics(scores, labels)
    assert got["pixel_auroc"] == pytest.approx(auroc, abs=2e-6)
    assert got["pixel_ap"] == pytest.approx(ap, abs=1e-4)
    assert got["pixel_f1max"] == pytest.approx(f1, abs=1e-4)


def test_separated_and_reversed():
    assert m.auroc([1, 2], [3, 4]) == 1
    assert m.average_precision([1, 2], [3, 4]) == 1
    assert m.f1_max([1, 2], [3, 4]) == 1
    assert m.auroc([3, 4], [1, 2]) == 0


def test_all_equal_scores():
    maps, masks = np.full((2, 8, 8), 0.7), np.zeros((2, 8, 8), bool)
    masks[0, 2:4, 2:4] = True
    got = localization(maps, masks).compute()
    assert got["pixel_auroc"] == pytest.approx(0.5, abs=1e-12)
    assert got["pixel_ap"] == pytest.approx(4 / 128)
    assert got["aupro"] == pytest.approx(0.15, abs=1e-12)
    assert got["aupro_05"] == pytest.approx(0.025, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tied", [False, True])
def test_aupro_equals_brute_force(seed, tied):
    maps, masks = random_images(seed)
    if tied:
        maps = np.round(np.log(maps))
    metrics = localization(maps, masks)
    got = metrics.compute()
    assert got["aupro"] == pytest.approx(brute_force_aupro(maps, masks, 0.3), abs=1e-9)
    assert got["aupro_05"] == pytest.approx(brute_force_aupro(maps, masks, 0.05), abs=1e-9)
    for limit in (0.001, 1.0):
        expected = brute_force_aupro(maps, masks, limit)
        assert m.aupro(metrics.normal, metrics.regions, limit) == pytest.approx(expected, abs=1e-9)
    assert got["pixel_auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))


def test_aupro_with_the_limit_on_a_vertical_step():
    # 10 normal pixels: the curve has a point at a false-positive rate of 0.3 and is vertical there.
    maps = np.array([[9, 8, 7, 6.5, 6, 5, 4, 3, 2, 1, 0]], np.float32)
    masks = np.array([[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]], bool)
    assert localization([maps], [masks]).compute()["aupro"] == 0
    assert brute_force_aupro([maps], [masks], 0.3) == 0


SHAPES = {
    "one pixel": [(3, 4)],
    "touching at a corner": [(2, 2), (3, 3), (4, 2)],
    "two regions, one column apart": [(2, 2), (2, 4), (3, 4)],
    "corners of the image": [(0, 0), (0, 7), (7, 0), (7, 7)],
    "along the border": [(0, c) for c in range(8)] + [(r, 0) for r in range(8)],
    "a ring with a dot": [
        (r, c) for r in range(1, 6) for c in range(1, 6) if max(abs(r - 3), abs(c - 3)) in (0, 2)
    ],
}


@pytest.mark.parametrize("name", SHAPES)
def test_regions(name):
    rng = np.random.default_rng(1)
    mask = np.zeros((8, 8), bool)
    mask[tuple(np.transpose(SHAPES[name]))] = True
    areas = np.zeros(mask.shape)
    regions = flood_fill(mask)
    for region in regions:
        areas[tuple(np.transpose(region))] = len(region)
    assert m.region_weights(mask) == pytest.approx(1 / areas[mask])
    maps, masks = rng.random((2, 8, 8)).astype(np.float32), np.stack([mask, ~mask])
    metrics = localization(maps, masks)
    assert metrics.regions.total == pytest.approx(len(regions) + len(flood_fill(~mask)))
    expected = brute_force_aupro(maps, masks, 0.3)
    assert metrics.compute()["aupro"] == pytest.approx(expected, abs=1e-9)


def test_a_completely_anomalous_image_is_one_region():
    maps = np.random.default_rng(2).random((3, 9, 9)).astype(np.float32)
    masks = np.zeros((3, 9, 9), bool)
    masks[0] = True
    got = localization(maps, masks).compute()
    assert got["aupro"] == pytest.approx(brute_force_aupro(maps, masks, 0.3), abs=1e-9)


def test_undefined_metrics_are_none():
    assert m.auroc([], []) is None
    assert LocalizationMetrics().compute() == {
        "pixel_auroc": None,
        "pixel_ap": None,
        "pixel_f1max": None,
        "aupro": None,
        "aupro_05": None,
        "n_masked": 0,
    }
    empty = np.zeros((2, 4, 4))
    got = localization(empty, empty > 0).compute()
    assert got["n_masked"] == 2
    assert {v for k, v in got.items() if k != "n_masked"} == {None}
    assert localization(empty, empty == 0).compute()["aupro"] is None
    metrics = DetectionMetrics()
    metrics.update([1.0, 2.0], [True, True])
    assert metrics.compute() == {
        "image_auroc": None,
        "image_ap": None,
        "image_f1max": None,
        "n_normal": 0,
        "n_anomalous": 2,
    }


def test_detection_one_by_one_equals_arrays():
    rng = np.random.default_rng(3)
    scores, labels = rng.standard_normal(300).astype(np.float32), rng.random(300) < 0.4
    one_by_one, arrays = DetectionMetrics(), DetectionMetrics()
    for score, label in zip(scores, labels, strict=True):
        one_by_one.update(float(score), bool(label))
    arrays.update(scores, labels)
    got = one_by_one.compute()
    assert got == arrays.compute()
    assert (got["image_auroc"], got["image_ap"], got["image_f1max"]) == pytest.approx(
        sklearn_metrics(scores, labels)
    )
    assert (got["n_normal"], got["n_anomalous"]) == (np.sum(~labels), np.sum(labels))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_non_finite_scores_are_rejected_and_nothing_is_added(bad):
    values = np.ones((4, 4))
    values[1, 2] = bad
    metrics, images = LocalizationMetrics(), DetectionMetrics()
    with pytest.raises(DataError, match="1 of 16 values of the anomaly map are NaN or infinite"):
        metrics.update(values, np.eye(4) > 0)
    assert (metrics.n_masked, metrics.normal.total, metrics.anomalous.total) == (0, 0, 0)
    with pytest.raises(DataError, match="image scores"):
        images.update([1.0, bad], [True, False])
    assert images.compute()["n_anomalous"] == 0
    with pytest.raises(DataError, match="1 of 2 scores"):
        m.auroc([0.0, bad], [1.0])


def test_mismatched_shapes_are_rejected():
    with pytest.raises(DataError, match=r"\(4, 4\) but mask of shape \(5, 4\)"):
        LocalizationMetrics().update(np.ones((4, 4)), np.ones((5, 4), bool))
    with pytest.raises(DataError, match="H x W"):
        LocalizationMetrics().update(np.ones((1, 4, 4)), np.ones((1, 4, 4), bool))
    with pytest.raises(DataError, match="one label"):
        DetectionMetrics().update([1.0, 2.0], True)
    with pytest.raises(DataError, match="1 weights for 2 scores"):
        ScoreHistogram().add([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="cap"):
        ScoreHistogram(cap=1000)
    with pytest.raises(ValueError, match="limit"):
        m.aupro(ScoreHistogram(), ScoreHistogram(), limit=0)


def test_masks_of_numbers_are_anomalous_above_0():
    maps, masks = random_images(4)
    assert localization(maps, masks.astype(np.uint8) * 255).compute() == (
        localization(maps, masks).compute()
    )


FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)
SCORES = hnp.arrays(np.float32, st.integers(1, 60), elements=FLOATS | st.sampled_from([0.0, 1.0]))


@given(SCORES, SCORES)
@settings(max_examples=150, deadline=None)
def test_property_mann_whitney(normal, anomalous):
    wins = anomalous[:, None] > normal[None, :]
    ties = anomalous[:, None] == normal[None, :]
    auroc = m.auroc(normal, anomalous)
    assert auroc == pytest.approx(np.mean(wins + ties / 2), abs=1e-12)
    assert m.auroc(-normal, -anomalous) == pytest.approx(1 - auroc, abs=1e-12)


@given(SCORES, SCORES)
@settings(max_examples=60, deadline=None)
def test_property_monotone_transforms_change_nothing(normal, anomalous):
    scores = np.concatenate([normal, anomalous])
    labels = np.arange(scores.size) >= normal.size
    ranks = np.unique(scores, return_inverse=True)[1]
    expected = all_metrics(scores, labels)
    assert all_metrics(ranks - 7, labels) == expected
    assert all_metrics(np.exp2(ranks), labels) == expected  # up to 2**119
    if np.all((scores == 0) | (np.abs(scores) > 1e-30)):
        assert all_metrics(scores * np.float32(2), labels) == expected


@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
@settings(max_examples=40, deadline=None)
def test_property_merging_and_order_change_nothing(seed, cut):
    maps, masks = random_images(seed)
    whole = localization(maps, masks).compute()
    order = np.random.default_rng(seed).permutation(len(maps))
    one = localization(maps[order[:cut]], masks[order[:cut]])
    other = localization(maps[order[cut:]], masks[order[cut:]])
    one.merge(other)
    assert one.compute() == pytest.approx(whole, abs=1e-12, nan_ok=True)


def halves(cap, coarse_one, coarse_other):
    """Return two histograms of different scores, each exact or beyond the cap, and all scores."""
    rng = np.random.default_rng(11)
    parts = [rng.lognormal(size=400_000 if c else 1000) for c in (coarse_one, coarse_other)]
    histograms = []
    for part in parts:
        histogram = ScoreHistogram(cap)
        histogram.add(part)
        histograms.append(histogram)
    assert [h.exact for h in histograms] == [not coarse_one, not coarse_other]
    return *histograms, np.concatenate(parts)


@pytest.mark.parametrize("coarse", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_merging_beyond_the_cap(coarse):
    one, other, scores = halves(SMALLEST_CAP, *coarse)
    one.merge(other)
    assert one.exact == (coarse == (0, 0))
    assert one.bins <= SMALLEST_CAP
    assert one.total == scores.size
    anomalous = np.random.default_rng(12).lognormal(mean=1, size=3000).astype(np.float32)
    ordered = np.sort(scores.astype(np.float32))
    below = np.searchsorted(ordered, anomalous) + np.searchsorted(ordered, anomalous, "right")
    assert m.auroc(one, anomalous) == pytest.approx(below.mean() / 2 / scores.size, abs=1e-5)


def test_merging_many_small_histograms_also_exceeds_the_cap():
    whole = ScoreHistogram(SMALLEST_CAP)
    scores = np.random.default_rng(13).standard_normal((40, 10_000)).astype(np.float32)
    for part in scores:
        piece = ScoreHistogram(SMALLEST_CAP)
        piece.add(part)
        whole.merge(piece)
        assert whole.bins <= SMALLEST_CAP
    assert not whole.exact
    assert m.auroc(whole, scores.ravel()) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("order", ["mixed", "ascending", "descending"])
def test_memory_is_bounded_over_a_long_stream(order):
    """30 million distinct scores over 228 octaves; AUROC in closed form."""
    count, parts, spacing = 30_000_000, 30, 64
    normal, anomalous = ScoreHistogram(SMALLEST_CAP), ScoreHistogram(SMALLEST_CAP)
    for part in range(parts):
        if order == "mixed":
            index = np.arange(part, count, parts)
        else:
            place = part if order == "ascending" else parts - 1 - part
            index = np.arange(place, place + 1) * (count // parts)
            index = index[0] + np.arange(count // parts)
        normal.add((index * spacing).astype(np.uint32).view(np.float32))
        above = index[(index >= count // 3) & (index % 10 == 0)]
        anomalous.add((above * spacing + 1).astype(np.uint32).view(np.float32))
        assert normal.bins <= SMALLEST_CAP
        assert anomalous.bins <= SMALLEST_CAP
    assert normal.total == count
    # The anomalous score of index i lies just above the normal scores 0..i.
    exact = np.mean(np.arange(count // 3, count, 10) + 1.0) / count
    assert m.auroc(normal, anomalous) == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("anomalous_count", [10, 600_000])
def test_ties_remain_ties_on_the_coarser_of_two_grids(anomalous_count):
    rng = np.random.default_rng(14)
    value = np.float32(0.7)
    scores = rng.lognormal(sigma=2, size=600_000).astype(np.float32)
    scores[::10] = value
    others = rng.lognormal(sigma=2, size=anomalous_count).astype(np.float32)
    others[::2] = value
    normal, anomalous = ScoreHistogram(SMALLEST_CAP), ScoreHistogram(SMALLEST_CAP)
    normal.add(scores)
    anomalous.add(others)
    assert not normal.exact and anomalous.exact == (anomalous_count == 10)
    ordered = np.sort(scores)
    below = np.searchsorted(ordered, others) + np.searchsorted(ordered, others, "right")
    exact = below.mean() / 2 / scores.size
    assert m.auroc(normal, anomalous) == pytest.approx(exact, abs=1e-4)


def test_scores_that_move_to_another_range_are_resolved_there():
    rng = np.random.default_rng(16)
    scores = np.concatenate([rng.lognormal(-5, size=400_000), 1000 + rng.random(800_000) / 2])
    scores = scores.astype(np.float32)
    labels = rng.random(scores.size) < 0.1 + 0.3 * (scores > 1000.25)
    normal, anomalous = ScoreHistogram(SMALLEST_CAP), ScoreHistogram(SMALLEST_CAP)
    for part, truth in zip(np.split(scores, 12), np.split(labels, 12), strict=True):
        normal.add(part[~truth])
        anomalous.add(part[truth])
    assert not normal.exact
    assert m.auroc(normal, anomalous) == pytest.approx(roc_auc_score(labels, scores), abs=1e-5)


def test_aupro_beyond_the_cap():
    rng = np.random.default_rng(15)
    masks = np.zeros((12, 200, 200), bool)
    masks[1::2, 50:80, 60:120] = masks[3::4, 150:155, 3:9] = True
    maps = np.exp(3 * rng.standard_normal(masks.shape) + 3 * masks).astype(np.float32)
    exact, coarse = localization(maps, masks), localization(maps, masks, SMALLEST_CAP)
    assert exact.normal.exact and not coarse.normal.exact
    got, expected = coarse.compute(), exact.compute()
    assert got["aupro"] == pytest.approx(expected["aupro"], abs=1e-5)
    assert got["aupro_05"] == pytest.approx(expected["aupro_05"], abs=1e-5)
    assert got == pytest.approx(expected, abs=1e-4)


def test_curves():
    maps, masks = random_images(6, count=30)
    metrics = localization(maps, masks)
    fpr, tpr = m.roc_curve(metrics.normal, metrics.anomalous, points=10**6)
    assert np.trapezoid(tpr, fpr) == pytest.approx(metrics.compute()["pixel_auroc"])
    for curve in (
        m.roc_curve(metrics.normal, metrics.anomalous, points=100),
        m.pro_curve(metrics.normal, metrics.regions, points=100),
    ):
        x, y = curve
        assert x.size == y.size <= 100
        assert (x[0], y[0]) == (0, 0)
        assert (x[-1], y[-1]) == pytest.approx((1, 1))
        assert np.all(np.diff(x) >= 0) and np.all(np.diff(y) >= 0)
    x, y = m.roc_curve(metrics.normal, metrics.anomalous, points=100)
    nearest = np.abs((x + y)[:, None] - (fpr + tpr)[None, :]).min(axis=0)
    between = np.abs(np.interp(fpr + tpr, x + y, x) - fpr)
    assert nearest.max() < 0.1 and between.max() < 5 / 100
    # A long step keeps both of its ends.
    x, y = m.roc_curve(np.zeros(1000), np.r_[np.zeros(500), 1 + np.arange(500)], points=50)
    assert np.any((x == 0) & (y == 0.5))
    assert m.roc_curve([], [1.0])[0].size == 0


@pytest.mark.parametrize("pixels", [1, 30, 1000])
def test_pixel_metrics_of_large_maps_in_bands(pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(4, 30, 20)).astype(np.float32)
    masks = [rng.random((30, 20)) < share for share in (0, 0.1, 0.5, 1)]
    whole, banded = LocalizationMetrics(), LocalizationMetrics()
    for anomaly_map, mask in zip(maps, masks, strict=True):
        whole.update(anomaly_map, mask)
    monkeypatch.setattr(m, "_BAND", pixels)
    for anomaly_map, mask in zip(maps, masks, strict=True):
        banded.update(anomaly_map, mask)
    assert banded.compute() == whole.compute()
    maps[0, 29, 19] = np.nan
    with pytest.raises(DataError, match="NaN"):
        banded.update(maps[0], masks[1])
    assert banded.compute() == whole.compute()  # nothing was added
