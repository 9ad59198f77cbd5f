"""The map against scipy and a bilinear loop; the positions of peaks; both scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch import Tensor

from snl.model import anomaly
from snl.model.base import Stage
from snl.model.error_statistics import ErrorStatistics
from snl.settings import MapSettings


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bilinear_loop(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixel areas aligned: centre of output pixel y lies at (y + 0.5) h / H - 0.5; edges hold."""
    h, w = image.shape
    out = np.zeros(size)
    for y in range(size[0]):
        for x in range(size[1]):
            v = min(max((y + 0.5) * h / size[0] - 0.5, 0), h - 1)
            u = min(max((x + 0.5) * w / size[1] - 0.5, 0), w - 1)
            top, left = int(v), int(u)
            low, right = min(top + 1, h - 1), min(left + 1, w - 1)
            a, b = v - top, u - left
            out[y, x] = (1 - a) * ((1 - b) * image[top, left] + b * image[top, right])
            out[y, x] += a * ((1 - b) * image[low, left] + b * image[low, right])
    return out


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0, 4.0, 9.3])
@pytest.mark.parametrize("shape", [(32, 32), (17, 40), (5, 3), (1, 8)])
def test_gaussian_is_scipys(sigma: float, shape: tuple[int, int]) -> None:
    maps = features(2, *shape)
    got = anomaly.gaussian(maps, sigma)
    wanted = [
        gaussian_filter(m.double().numpy(), sigma, mode="reflect", truncate=4.0) for m in maps
    ]
    assert got.shape == maps.shape
    np.testing.assert_allclose(got.numpy(), np.stack(wanted), atol=2e-6)


@pytest.mark.parametrize("sigma", [0.0, 1e-50, 1e-3])
def test_no_gaussian(sigma: float) -> None:
    maps = features(2, 7, 9)
    assert torch.equal(anomaly.gaussian(maps, sigma), maps)


def test_gaussian_keeps_the_mean_of_every_map() -> None:
    maps = features(2, 20, 30) + 3
    torch.testing.assert_close(anomaly.gaussian(maps, 4.0).mean((1, 2)), maps.mean((1, 2)))


@pytest.mark.parametrize("source", [(4, 4), (3, 5), (1, 1), (1, 6)])
@pytest.mark.parametrize("size", [(16, 16), (12, 20), (7, 11)])
def test_resize_is_bilinear(source: tuple[int, int], size: tuple[int, int]) -> None:
    maps = features(2, *source)
    wanted = np.stack([bilinear_loop(m.double().numpy(), size) for m in maps])
    np.testing.assert_allclose(anomaly.resize(maps, size).numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_map_is_the_sum_of_the_stages(sigma: float) -> None:
    shapes, size = [(2, 3, 6, 10), (2, 5, 3, 5)], (12, 20)
    teacher = [features(*shape, seed=i) for i, shape in enumerate(shapes)]
    student = [features(*shape, seed=9 + i) for i, shape in enumerate(shapes)]
    got = anomaly.anomaly_map(teacher, student, size, sigma)
    for b in range(2):
        wanted = np.zeros(size)
        for t, s in zip(teacher, student, strict=True):
            u, v = t[b].double().numpy(), s[b].double().numpy()
            h, w = u.shape[1:]
            distance = np.zeros((h, w))
            for y in range(h):
                for x in range(w):
                    p, q = u[:, y, x], v[:, y, x]
                    distance[y, x] = 1 - p @ q / np.sqrt((p @ p) * (q @ q))
            wanted += bilinear_loop(distance, size)
        if sigma:
            wanted = gaussian_filter(wanted, sigma, mode="reflect", truncate=4.0)
        np.testing.assert_allclose(got[b].numpy(), wanted, atol=1e-5)


def test_euclidean_distance() -> None:
    t, s = features(2, 5, 3, 4), features(2, 5, 3, 4, seed=1)
    got = anomaly.anomaly_map([t], [s], (3, 4), 0.0, MapSettings(distance="l2"))
    wanted = np.linalg.norm(t.double().numpy() - s.double().numpy(), axis=1)
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-5)


def test_equal_features_give_zero_and_opposite_ones_two_per_stage() -> None:
    teacher = [features(1, 4, 4, 4), features(1, 8, 2, 2)]
    zero = anomaly.anomaly_map(teacher, teacher, (16, 16), 2.0)
    top = anomaly.anomaly_map(teacher, [-t for t in teacher], (16, 16), 2.0)
    torch.testing.assert_close(zero, torch.zeros(1, 16, 16), atol=1e-6, rtol=0)
    torch.testing.assert_close(top, torch.full((1, 16, 16), 4.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("sigma", [0.0, 2.0])
@pytest.mark.parametrize("stride", [4, 8, 16])
@pytest.mark.parametrize("size", [(64, 64), (64, 128)])
def test_peak_lies_where_the_difference_is(
    sigma: float, stride: int, size: tuple[int, int]
) -> None:
    h, w = size[0] // stride, size[1] // stride
    for y, x in ((0, 0), (h - 1, 0), (h // 2, w // 2), (1, w - 1)):
        teacher = features(1, 6, h, w)
        student = teacher.clone()
        student[0, :, y, x] *= -1
        peak = anomaly.anomaly_map([teacher], [student], size, sigma)[0]
        row, column = divmod(int(peak.argmax()), size[1])
        # within the cell of the feature, whose middle is at (y + 0.5) stride
        assert abs(row + 0.5 - (y + 0.5) * stride) <= stride / 2
        assert abs(column + 0.5 - (x + 0.5) * stride) <= stride / 2
        if 0 < y < h - 1 and 0 < x < w - 1:  # away from the edge the bump is centred
            mass = (peak / peak.sum()).double()
            middle = float((mass.sum(1) * (torch.arange(size[0]) + 0.5)).sum())
            assert middle == pytest.approx((y + 0.5) * stride, abs=0.5)


def test_images_of_a_batch_do_not_mix() -> None:
    teacher, student = [features(3, 4, 4, 4)], [features(3, 4, 4, 4, seed=1)]
    together = anomaly.anomaly_map(teacher, student, (16, 16), 2.0)
    for i in range(3):
        alone = anomaly.anomaly_map(
            [t[i : i + 1] for t in teacher], [s[i : i + 1] for s in student], (16, 16), 2.0
        )
        torch.testing.assert_close(together[i : i + 1], alone)


def test_bf16_features_give_a_float32_map() -> None:
    t, s = features(1, 4, 4, 4).bfloat16(), features(1, 4, 4, 4, seed=1).bfloat16()
    got = anomaly.anomaly_map([t], [s], (16, 16), 1.0)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, anomaly.anomaly_map([t.float()], [s.float()], (16, 16), 1.0))


def test_zero_features_are_finite() -> None:
    zero = torch.zeros(1, 4, 4, 4)
    for t, s in ((zero, zero), (zero, features(1, 4, 4, 4)), (features(1, 4, 4, 4), zero)):
        assert bool(torch.isfinite(anomaly.anomaly_map([t], [s], (8, 8), 1.0)).all())


def test_another_number_of_stages_is_refused() -> None:
    t = features(1, 4, 4, 4)
    with pytest.raises(ValueError):
        anomaly.anomaly_map([t, t], [t], (8, 8), 0.0)


def test_score_max() -> None:
    maps = features(3, 5, 7)
    got = anomaly.score(maps, MapSettings(score="max"))
    assert got.tolist() == pytest.approx([max(m.ravel()) for m in maps.numpy()])


@pytest.mark.parametrize("share", [1e-9, 0.03, 0.25, 0.5, 1.0])
def test_score_topk(share: float) -> None:
    maps = features(3, 8, 10)
    got = anomaly.score(maps, MapSettings(score="topk", top_share=share))
    count = max(1, math.ceil(share * 80))
    wanted = [np.mean(sorted(m.ravel().tolist(), reverse=True)[:count]) for m in maps.numpy()]
    assert got.shape == (3,)
    assert got.tolist() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("kind", ["max", "topk"])
def test_score_is_raw_and_grows_with_the_map(kind: str) -> None:
    settings = MapSettings(score=kind, top_share=0.1)  # type: ignore[arg-type]
    maps = features(1, 8, 8)
    low, high = float(anomaly.score(maps, settings)), float(anomaly.score(maps + 5, settings))
    assert high == pytest.approx(low + 5, abs=1e-5)


# --- affinities, kinds, stage weights ---


def affinity_loop(t: np.ndarray, s: np.ndarray) -> np.ndarray:
    """(C, h, w) float64 to (h, w), by the N x N matrices."""
    _, h, w = t.shape
    rows = [[x[:, y, z] for y in range(h) for z in range(w)] for x in (t, s)]
    a, b = (np.array([[u @ v / np.sqrt((u @ u) * (v @ v)) for v in r] for u in r]) for r in rows)
    return np.sqrt(((b - a) ** 2).sum(1) / (h * w)).reshape(h, w)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 6, 2, 3), (2, 9, 2, 3), (1, 2, 1, 6)])
def test_affinity_difference_is_that_of_the_matrices(shape: tuple[int, ...]) -> None:
    t, s = features(*shape), features(*shape, seed=1)
    got = anomaly.affinity_difference(t, s)
    assert got.shape == (shape[0], *shape[2:])
    for i in range(shape[0]):
        wanted = affinity_loop(t[i].double().numpy(), s[i].double().numpy())
        np.testing.assert_allclose(got[i].numpy(), wanted, atol=1e-5)


@budget(max_examples=30, deadline=None)
@given(
    c=st.integers(1, 12),
    h=st.integers(1, 5),
    w=st.integers(1, 5),
    size=st.sampled_from([1e-3, 1e-1, 1.0]),
    seed=st.integers(0, 1000),
)
def test_affinity_difference_of_near_and_far_features(
    c: int, h: int, w: int, size: float, seed: int
) -> None:
    t = features(1, c, h, w, seed=seed)
    s = t + size * features(1, c, h, w, seed=seed + 1)
    got = anomaly.affinity_difference(t, s)[0].double().numpy()
    wanted = affinity_loop(t[0].double().numpy(), s[0].double().numpy())
    # the three terms may cancel (of one position they always do): half of float32's digits remain
    np.testing.assert_allclose(got, wanted, atol=2e-3 * size + 1e-5, rtol=1e-3)
    assert got.min() >= 0 and got.max() <= 2 + 1e-5


def test_affinities_ignore_a_rotation_of_the_channels_and_cosines_do_not() -> None:
    t = features(2, 6, 5, 5)
    rotation = torch.linalg.qr(features(6, 6, seed=1)).Q
    s = torch.einsum("cd,bdhw->bchw", rotation, t)
    assert float(anomaly.affinity_difference(t, s).max()) < 2e-3
    assert float(anomaly.cosine_distance(t, s).max()) > 0.5


def test_a_changed_position_stands_out_in_the_affinities() -> None:
    t = features(1, 6, 5, 7)
    s = t.clone()
    s[0, :, 3, 2] = features(6, seed=2)
    got = anomaly.affinity_difference(t, s)[0]
    assert int(got.argmax()) == 3 * 7 + 2
    assert float(got[3, 2]) > 2 * float(got.flatten().sort().values[-2])


def test_affinities_of_opposite_and_zero_features_are_finite() -> None:
    t, zero = features(1, 4, 4, 4), torch.zeros(1, 4, 4, 4)
    for a, b in ((t, -t), (zero, zero), (zero, t), (t, zero), (1e4 * t, 1e-6 * t)):
        got = anomaly.affinity_difference(a, b)
        assert bool(torch.isfinite(got).all()) and float(got.max()) <= 2


def test_affinities_of_a_batch_do_not_mix() -> None:
    t, s = features(3, 4, 4, 4), features(3, 4, 4, 4, seed=1)
    alone = [anomaly.affinity_difference(t[i : i + 1], s[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(anomaly.affinity_difference(t, s), torch.cat(alone))


def fitted_statistics() -> ErrorStatistics:
    statistics = ErrorStatistics((Stage(3, 4), Stage(5, 8)), 0)
    means = [0.2 * features(c, seed=c) for c in (3, 5)]
    statistics.set_moments(means, [0.1 + features(c, seed=9).abs() for c in (3, 5)])
    return statistics


@pytest.mark.parametrize("weights", [(), (1.0, 1.0), (0.0, 2.0), (0.25, 0.0)])
@pytest.mark.parametrize("distance", ["cosine", "l2", "standardised"])
@pytest.mark.parametrize("kind", ["feature", "affinity", "both"])
def test_kinds_distances_and_stage_weights(
    kind: str, distance: str, weights: tuple[float, ...]
) -> None:
    shapes, size = [(2, 3, 6, 10), (2, 5, 3, 5)], (12, 20)
    teacher = [features(*shape, seed=i) for i, shape in enumerate(shapes)]
    student = [features(*shape, seed=9 + i) for i, shape in enumerate(shapes)]
    statistics = fitted_statistics()
    settings = MapSettings(kind=kind, distance=distance, stage_weights=weights)  # type: ignore[arg-type]
    got = anomaly.anomaly_map(teacher, student, size, 1.5, settings, statistics)
    assert got.dtype == torch.float32 and float(got.min()) >= -1e-6
    for b in range(2):
        wanted = np.zeros(size)
        for i, weight in enumerate(weights or (1, 1)):
            t, s = teacher[i][b].double().numpy(), student[i][b].double().numpy()
            u, v = (x / np.sqrt((x**2).sum(0)) for x in (t, s))
            feature = {
                "cosine": 1 - (u * v).sum(0),
                "l2": np.sqrt(((t - s) ** 2).sum(0)),
                "standardised": np.square(
                    (u - v - getattr(statistics, f"mean{i}").double().numpy()[:, None, None])
                    / getattr(statistics, f"deviation{i}").double().numpy()[:, None, None]
                ).mean(0),
            }[distance]
            part = (kind != "affinity") * feature + (kind != "feature") * affinity_loop(t, s)
            wanted += weight * bilinear_loop(part, size)
        wanted = gaussian_filter(wanted, 1.5, mode="reflect", truncate=4.0)
        np.testing.assert_allclose(got[b].numpy(), wanted, rtol=1e-4, atol=1e-4)


def test_bf16_features_give_the_same_map_of_every_kind() -> None:
    t, s = features(1, 3, 4, 4).bfloat16(), features(1, 3, 4, 4, seed=1).bfloat16()
    for kind in ("feature", "affinity", "both"):
        settings = MapSettings(kind=kind, distance="standardised")  # type: ignore[arg-type]
        both = [
            anomaly.anomaly_map([a], [b], (8, 8), 1.0, settings, fitted_statistics())
            for a, b in ((t, s), (t.float(), s.float()))
        ]
        assert both[0].dtype == torch.float32
        torch.testing.assert_close(*both)


def test_another_number_of_stage_weights_is_refused() -> None:
    t = features(1, 4, 4, 4)
    with pytest.raises(ValueError):
        anomaly.anomaly_map([t], [t], (8, 8), 0.0, MapSettings(stage_weights=(1.0, 2.0)))
