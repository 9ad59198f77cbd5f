"""ErrorStatistics: standardised distances and score normalisation against float64 numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from torch import Tensor

from snl.model.base import Stage
from snl.model.error_statistics import IMAGES_PER_CLUSTER, ErrorStatistics, embed, unit_difference

STAGES = (Stage(3, 4), Stage(5, 8))


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def stages(batch: int, seed: int = 0) -> list[Tensor]:
    return [features(batch, s.channels, 6, 4, seed=seed + i) for i, s in enumerate(STAGES)]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).sum())


def embed_loop(teacher: list[Tensor]) -> np.ndarray:
    """(B, D) float64."""
    images = zip(*(t.double().numpy() for t in teacher), strict=True)
    return np.array([np.concatenate([unit(t.mean((1, 2))) for t in image]) for image in images])


def normal_score_loop(statistics: ErrorStatistics, embeddings: np.ndarray) -> np.ndarray:
    """The softmax over the centres in float64."""
    centres = statistics.centres.double().numpy()
    scores = statistics.normal_scores.double().numpy()
    out = []
    for e in embeddings:
        logits = np.array([-((e - c) ** 2).sum() for c in centres]) / float(statistics.spread)
        weights = np.exp(logits - logits.max())
        out.append((weights * scores).sum() / weights.sum())
    return np.array(out)


def at(embedding: Tensor) -> list[Tensor]:
    """Teacher features of one stage whose embeddings are these unit vectors (B, D)."""
    return [embedding[:, :, None, None].expand(-1, -1, 2, 3)]


def directions(count: int, width: int = 8, seed: int = 0) -> Tensor:
    return torch.nn.functional.normalize(features(count, width, seed=seed), dim=1)


# --- differences and standardised distances ---


def test_unit_difference_is_that_of_unit_vectors() -> None:
    t, s = features(2, 5, 3, 4), features(2, 5, 3, 4, seed=1)
    got = unit_difference(t.bfloat16(), s.bfloat16())
    assert got.dtype == torch.float32 and got.shape == t.shape
    a, b = t.bfloat16().double().numpy(), s.bfloat16().double().numpy()
    for i in range(2):
        for y in range(3):
            for x in range(4):
                wanted = unit(a[i, :, y, x]) - unit(b[i, :, y, x])
                np.testing.assert_allclose(got[i, :, y, x].numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize("stage", [0, 1])
def test_standardised_distance(stage: int) -> None:
    statistics = ErrorStatistics(STAGES, 0)
    means = [0.3 * features(s.channels, seed=7 + i) for i, s in enumerate(STAGES)]
    deviations = [0.2 + features(s.channels, seed=9 + i).abs() for i, s in enumerate(STAGES)]
    statistics.set_moments(means, deviations)
    t, s = stages(2)[stage], stages(2, 20)[stage]
    got = statistics.standardised(stage, t, s)
    assert got.shape == (2, 6, 4) and got.dtype == torch.float32
    a, b = t.double().numpy(), s.double().numpy()
    for i in range(2):
        for y in range(6):
            for x in range(4):
                d = unit(a[i, :, y, x]) - unit(b[i, :, y, x])
                z = (d - means[stage].double().numpy()) / deviations[stage].double().numpy()
                assert float(got[i, y, x]) == pytest.approx(float((z**2).mean()), rel=1e-4)


def test_before_fitting_it_is_proportional_to_the_cosine_distance() -> None:
    """|u - v|^2 = 2 (1 - cos)."""
    t, s = features(2, 3, 4, 4), features(2, 3, 4, 4, seed=1)
    wanted = 2 * (1 - torch.nn.functional.cosine_similarity(t, s, dim=1)) / 3
    torch.testing.assert_close(ErrorStatistics(STAGES, 2).standardised(0, t, s), wanted)


def test_mean_standardised_square_of_normal_differences_is_one() -> None:
    statistics = ErrorStatistics(STAGES, 0)
    t, s = features(8, 3, 9, 9), features(8, 3, 9, 9, seed=1)
    d = unit_difference(t, s).double().transpose(0, 1).flatten(1)
    moments = d.mean(1), d.std(1, correction=0)
    statistics.set_moments([moments[0], torch.zeros(5)], [moments[1], torch.ones(5)])
    assert float(statistics.standardised(0, t, s).mean()) == pytest.approx(1, rel=1e-4)


@budget(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1e3, width=32), min_size=3, max_size=3))
def test_a_deviation_is_at_least_a_hundredth_of_its_stages(values: list[float]) -> None:
    statistics = ErrorStatistics(STAGES, 0)
    statistics.set_moments([torch.zeros(3), torch.zeros(5)], [torch.tensor(values), torch.ones(5)])
    floor = 0.01 * np.sqrt(np.mean(np.square(values)))
    wanted = np.maximum(values, floor + 1e-8)
    np.testing.assert_allclose(statistics.deviation0.numpy(), wanted, rtol=1e-4)
    t, s = features(2, 3, 4, 4), features(2, 3, 4, 4, seed=1)
    assert bool(torch.isfinite(statistics.standardised(0, t, s)).all())


def test_dead_and_zero_features_are_finite() -> None:
    statistics = ErrorStatistics(STAGES, 0)
    statistics.set_moments([torch.zeros(3), torch.zeros(5)], [torch.zeros(3), torch.zeros(5)])
    zero = torch.zeros(1, 3, 2, 2)
    assert torch.equal(statistics.standardised(0, zero, zero), torch.zeros(1, 2, 2))
    assert bool(torch.isfinite(statistics.standardised(0, zero, features(1, 3, 2, 2))).all())


def test_wrong_number_of_stages_is_refused() -> None:
    with pytest.raises(ValueError):
        ErrorStatistics(STAGES, 0).set_moments([torch.zeros(3)], [torch.ones(3)] * 2)


# --- score normalisation ---


def test_embedding() -> None:
    teacher = stages(3)
    got = embed([teacher[0].bfloat16(), teacher[1]])
    assert got.shape == (3, 8) and got.dtype == torch.float32
    wanted = embed_loop([teacher[0].bfloat16().float(), teacher[1]])
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-5)
    # no stage outweighs another; the contrast of an image has no effect
    scaled = embed([100 * teacher[0], 0.01 * teacher[1]])
    torch.testing.assert_close(scaled, embed(teacher))


@pytest.mark.parametrize("clusters", [0, 1, 5])
def test_normal_scores_are_one_before_fitting(clusters: int) -> None:
    torch.testing.assert_close(
        ErrorStatistics(STAGES, clusters).normal_score(stages(3)), torch.ones(3)
    )


def test_zero_clusters_set_nothing() -> None:
    statistics = ErrorStatistics(STAGES, 0)
    statistics.set_clusters(features(50, 8), features(50).abs(), 0)
    assert statistics.normal_scores.shape == (0,) and statistics.centres.shape == (0, 8)


@pytest.mark.parametrize("count", [3 * IMAGES_PER_CLUSTER, 10 * IMAGES_PER_CLUSTER])
def test_normal_scores_are_softmax_weighted(count: int) -> None:
    statistics = ErrorStatistics(STAGES, 6)
    teacher = stages(count)
    scores = 1 + features(count, seed=5).abs()
    statistics.set_clusters(embed(teacher), scores, 0)
    in_use = min(6, count // IMAGES_PER_CLUSTER)
    embeddings = embed_loop(teacher)
    centres = statistics.centres.double().numpy()[:in_use]
    squares = np.array([[((e - c) ** 2).sum() for c in centres] for e in embeddings])
    assert float(statistics.spread) == pytest.approx(squares.min(1).mean(), rel=0.02)
    weights = np.exp(-squares / float(statistics.spread))
    weights /= weights.sum(1, keepdims=True)
    wanted = weights.T @ scores.double().numpy() / weights.sum(0)
    np.testing.assert_allclose(statistics.normal_scores.numpy()[:in_use], wanted, rtol=1e-3)
    others = stages(7, seed=50)
    np.testing.assert_allclose(
        statistics.normal_score(others).numpy(),
        normal_score_loop(statistics, embed_loop(others)),
        rtol=1e-4,
    )


@pytest.mark.parametrize("images", [1, 19, 20, 39, 40, 79, 200])
def test_a_cluster_has_enough_images(images: int) -> None:
    statistics = ErrorStatistics((Stage(8, 4),), 5)
    statistics.set_clusters(directions(images), torch.full((images,), 3.0), 0)
    used = (statistics.centres.abs() < 2).all(1)
    assert int(used.sum()) == min(5, max(1, images // IMAGES_PER_CLUSTER))
    np.testing.assert_allclose(statistics.normal_scores[used].numpy(), 3.0, rtol=1e-5)


def test_unused_centres_have_no_effect() -> None:
    few, many = ErrorStatistics((Stage(8, 4),), 2), ErrorStatistics((Stage(8, 4),), 50)
    embeddings, scores = directions(45), features(45).abs()
    for statistics in (few, many):
        statistics.set_clusters(embeddings, scores, 0)
    torch.testing.assert_close(few.centres, many.centres[:2])
    with torch.no_grad():
        many.normal_scores[2:] = 1e6
    for seed in range(5):
        teacher = at(directions(6, seed=seed))
        torch.testing.assert_close(few.normal_score(teacher), many.normal_score(teacher))
    zero = [torch.zeros(1, 8, 2, 2)]
    torch.testing.assert_close(few.normal_score(zero), many.normal_score(zero))


def two_kinds(scores: tuple[float, float] = (0.1, 10.0)) -> tuple[ErrorStatistics, Tensor]:
    """Statistics of two distant kinds of images, 40 of each, and the kinds' directions."""
    kinds = torch.eye(8)[:2]
    noise = 0.02 * features(80, 8)
    embeddings = torch.nn.functional.normalize(kinds.repeat(40, 1) + noise, dim=1)
    statistics = ErrorStatistics((Stage(8, 4),), 2)
    statistics.set_clusters(embeddings, torch.tensor(scores).repeat(40), 0)
    return statistics, kinds


def test_each_kind_of_image_has_its_normal_score() -> None:
    statistics, kinds = two_kinds()
    np.testing.assert_allclose(statistics.normal_score(at(kinds)).numpy(), [0.1, 10.0], rtol=1e-4)


@pytest.mark.parametrize("side", [0, 1])
def test_distant_images_get_the_score_of_the_nearest_centre(side: int) -> None:
    statistics, kinds = two_kinds()
    far = -torch.eye(8)[7] + 0.3 * kinds[side]
    got = statistics.normal_score(at(torch.nn.functional.normalize(far, dim=0)[None]))
    assert float(got) == pytest.approx((0.1, 10.0)[side], rel=1e-4)


def test_a_normal_score_lies_between_the_smallest_and_the_largest() -> None:
    statistics, kinds = two_kinds()
    mix = torch.linspace(0, 1, 41)[:, None]
    got = statistics.normal_score(
        at(torch.nn.functional.normalize(mix * kinds[0] + (1 - mix) * kinds[1]))
    )
    assert float(got.min()) >= 0.1 - 1e-5 and float(got.max()) <= 10 + 1e-3
    assert bool((got.diff() <= 1e-4).all())  # from the second kind to the first, never back


def test_images_of_a_batch_do_not_mix() -> None:
    statistics, _ = two_kinds()
    teacher = at(directions(6, seed=3))
    together = statistics.normal_score(teacher)
    for i in range(6):
        torch.testing.assert_close(
            statistics.normal_score([teacher[0][i : i + 1]]), together[i : i + 1]
        )


@pytest.mark.parametrize("clusters", [1, 4, 64])
@pytest.mark.parametrize("images", [1, 80, 400])
def test_identical_images_have_one_normal_score(images: int, clusters: int) -> None:
    """Surplus centres, which get no weight, must not have normal scores near zero."""
    statistics = ErrorStatistics((Stage(8, 4),), clusters)
    one = directions(1)
    statistics.set_clusters(one.repeat(images, 1), torch.full((images,), 0.5), 0)
    near = torch.nn.functional.normalize(one + 0.01 * features(200, 8, seed=1), dim=1)
    for images_like in (near, directions(50, seed=2), -one):
        got = statistics.normal_score(at(images_like))
        np.testing.assert_allclose(got.numpy(), 0.5, rtol=1e-4)


def test_a_centre_far_from_all_images_takes_the_score_of_the_nearest() -> None:
    """Two lone images and 78 of one kind: the spread is small, most centres are near no image."""
    rows = torch.eye(8)[:1].repeat(160, 1)
    rows[:40] = torch.nn.functional.normalize(rows[:40] + 1e-4 * features(40, 8), dim=1)
    rows[0], rows[1] = torch.eye(8)[1], torch.eye(8)[2]
    for seed in range(5):
        statistics = ErrorStatistics((Stage(8, 4),), 8)
        statistics.set_clusters(rows, torch.linspace(1, 2, 160), seed)
        assert (
            float(statistics.normal_scores.min()) >= 1 - 1e-4
            and float(statistics.normal_scores.max()) <= 2 + 1e-4
        )


def test_images_of_one_scene_are_distinguished_in_float32() -> None:
    """Spread 1e-8, squared distance 1e-6: |e|^2 - 2 e c + |c|^2 would err by 1e-7."""
    kinds = torch.nn.functional.normalize(
        directions(1) + 5e-4 * torch.tensor([[1.0], [-1.0]]) * directions(1, seed=1), dim=1
    )
    noise = 4e-5 * features(120, 8)
    statistics = ErrorStatistics((Stage(8, 4),), 2)
    statistics.set_clusters(kinds.repeat(60, 1) + noise, torch.tensor([1.0, 3.0]).repeat(60), 0)
    np.testing.assert_allclose(statistics.normal_score(at(kinds)).numpy(), [1.0, 3.0], rtol=0.02)
    between = kinds[:1] + torch.linspace(0.3, 0.7, 41)[:, None] * (kinds[1:] - kinds[:1])
    wanted = normal_score_loop(statistics, embed(at(between)).double().numpy())
    assert wanted.min() < 1.2 and wanted.max() > 2.8
    np.testing.assert_allclose(statistics.normal_score(at(between)).numpy(), wanted, rtol=0.02)


@pytest.mark.parametrize("scores", [torch.zeros(60), torch.tensor([0.0, 1.0, 2.0]).repeat(20)])
def test_zero_scores_are_finite(scores: Tensor) -> None:
    statistics = ErrorStatistics((Stage(8, 4),), 3)
    statistics.set_clusters(directions(60), scores, 0)
    got = statistics.normal_score(at(directions(9, seed=1)))
    assert bool((got > 0).all()) and bool(torch.isfinite(1 / got).all())


def test_constant_and_zero_features_are_finite() -> None:
    constant = embed([torch.full((50, 3, 6, 4), 2.0), torch.zeros(50, 5, 6, 4)])
    statistics = ErrorStatistics(STAGES, 4)
    statistics.set_clusters(constant, torch.linspace(1, 2, 50), 0)
    for teacher in (stages(4), [torch.zeros(4, 3, 6, 4), torch.zeros(4, 5, 6, 4)]):
        got = statistics.normal_score(teacher)
        assert float(got.min()) > 1 - 1e-4 and float(got.max()) < 2 + 1e-4


def test_clusters_depend_on_images_and_seed_only_and_replace_older_ones() -> None:
    embeddings, scores = directions(200), features(200).abs()
    fresh, used = ErrorStatistics((Stage(8, 4),), 6), ErrorStatistics((Stage(8, 4),), 6)
    used.set_clusters(directions(300, seed=8), torch.full((300,), 50.0), 3)
    for disturb, statistics in enumerate((fresh, used)):
        torch.manual_seed(disturb)
        np.random.seed(disturb)
        statistics.set_clusters(embeddings[:60], scores[:60], 1)  # three centres of six
    assert all(torch.equal(a, b) for a, b in zip(fresh.buffers(), used.buffers(), strict=True))


@budget(max_examples=40, deadline=None)
@given(
    images=st.integers(1, 120),
    clusters=st.integers(1, 12),
    kinds=st.integers(1, 4),
    noise=st.sampled_from([0.0, 1e-6, 1e-2, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_a_normal_score_is_an_average_of_scores(
    images: int, clusters: int, kinds: int, noise: float, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    base = torch.randn(kinds, 8, generator=rng).repeat(images, 1)[:images]
    rows = base + noise * torch.randn(images, 8, generator=rng)
    rows = torch.nn.functional.normalize(rows, dim=1)
    scores = 0.1 + torch.rand(images, generator=rng)
    statistics = ErrorStatistics((Stage(8, 4),), clusters)
    statistics.set_clusters(rows, scores, seed)
    got = statistics.normal_score(at(torch.cat([rows[:5], directions(5, seed=1)])))
    assert float(got.min()) >= float(scores.min()) * (1 - 1e-4)
    assert float(got.max()) <= float(scores.max()) * (1 + 1e-4)


def test_statistics_are_part_of_the_state() -> None:
    statistics, kinds = two_kinds()
    other = ErrorStatistics((Stage(8, 4),), 2)
    other.load_state_dict(statistics.state_dict())
    assert torch.equal(other.normal_score(at(kinds)), statistics.normal_score(at(kinds)))
    assert not list(statistics.parameters())  # nothing is trained
