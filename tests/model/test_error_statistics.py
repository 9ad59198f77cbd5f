"""Statistics of normal errors: standardised distances and levels against float64 numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from torch import Tensor

from snl.model.error_statistics import IMAGES_PER_LEVEL, NormalErrors, embed, unit_difference
from snl.model.teacher import Stage

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


def level_loop(errors: NormalErrors, embeddings: np.ndarray) -> np.ndarray:
    """The softmax over the centres in float64."""
    centres, level = errors.centres.double().numpy(), errors.level.double().numpy()
    out = []
    for e in embeddings:
        logits = np.array([-((e - c) ** 2).sum() for c in centres]) / float(errors.spread)
        weights = np.exp(logits - logits.max())
        out.append((weights * level).sum() / weights.sum())
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
    errors = NormalErrors(STAGES, 0)
    means = [0.3 * features(s.channels, seed=7 + i) for i, s in enumerate(STAGES)]
    deviations = [0.2 + features(s.channels, seed=9 + i).abs() for i, s in enumerate(STAGES)]
    errors.set_moments(means, deviations)
    t, s = stages(2)[stage], stages(2, 20)[stage]
    got = errors.standardised(stage, t, s)
    assert got.shape == (2, 6, 4) and got.dtype == torch.float32
    a, b = t.double().numpy(), s.double().numpy()
    for i in range(2):
        for y in range(6):
            for x in range(4):
                d = unit(a[i, :, y, x]) - unit(b[i, :, y, x])
                z = (d - means[stage].double().numpy()) / deviations[stage].double().numpy()
                assert float(got[i, y, x]) == pytest.approx(float((z**2).mean()), rel=1e-4)


def test_before_any_moments_it_is_the_cosine_distance_but_for_a_factor() -> None:
    """|u - v|^2 = 2 (1 - cos)."""
    t, s = features(2, 3, 4, 4), features(2, 3, 4, 4, seed=1)
    wanted = 2 * (1 - torch.nn.functional.cosine_similarity(t, s, dim=1)) / 3
    torch.testing.assert_close(NormalErrors(STAGES, 2).standardised(0, t, s), wanted)


def test_normal_differences_have_a_mean_standardised_square_of_one() -> None:
    errors = NormalErrors(STAGES, 0)
    t, s = features(8, 3, 9, 9), features(8, 3, 9, 9, seed=1)
    d = unit_difference(t, s).double().transpose(0, 1).flatten(1)
    moments = d.mean(1), d.std(1, correction=0)
    errors.set_moments([moments[0], torch.zeros(5)], [moments[1], torch.ones(5)])
    assert float(errors.standardised(0, t, s).mean()) == pytest.approx(1, rel=1e-4)


@budget(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1e3, width=32), min_size=3, max_size=3))
def test_a_deviation_is_at_least_a_hundredth_of_the_stages(values: list[float]) -> None:
    errors = NormalErrors(STAGES, 0)
    errors.set_moments([torch.zeros(3), torch.zeros(5)], [torch.tensor(values), torch.ones(5)])
    floor = 0.01 * np.sqrt(np.mean(np.square(values)))
    wanted = np.maximum(values, floor + 1e-8)
    np.testing.assert_allclose(errors.deviation0.numpy(), wanted, rtol=1e-4)
    t, s = features(2, 3, 4, 4), features(2, 3, 4, 4, seed=1)
    assert bool(torch.isfinite(errors.standardised(0, t, s)).all())


def test_dead_and_zero_features_are_finite() -> None:
    errors = NormalErrors(STAGES, 0)
    errors.set_moments([torch.zeros(3), torch.zeros(5)], [torch.zeros(3), torch.zeros(5)])
    zero = torch.zeros(1, 3, 2, 2)
    assert torch.equal(errors.standardised(0, zero, zero), torch.zeros(1, 2, 2))
    assert bool(torch.isfinite(errors.standardised(0, zero, features(1, 3, 2, 2))).all())


def test_moments_of_another_number_of_stages_are_refused() -> None:
    with pytest.raises(ValueError):
        NormalErrors(STAGES, 0).set_moments([torch.zeros(3)], [torch.ones(3)] * 2)


# --- levels ---


def test_embedding() -> None:
    teacher = stages(3)
    got = embed([teacher[0].bfloat16(), teacher[1]])
    assert got.shape == (3, 8) and got.dtype == torch.float32
    wanted = embed_loop([teacher[0].bfloat16().float(), teacher[1]])
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-5)
    # no stage outweighs another, and the contrast of an image does not matter
    scaled = embed([100 * teacher[0], 0.01 * teacher[1]])
    torch.testing.assert_close(scaled, embed(teacher))


@pytest.mark.parametrize("levels", [0, 1, 5])
def test_before_any_levels_every_level_is_one(levels: int) -> None:
    torch.testing.assert_close(NormalErrors(STAGES, levels).level_of(stages(3)), torch.ones(3))


def test_no_levels_asked_for_none_set() -> None:
    errors = NormalErrors(STAGES, 0)
    errors.set_levels(features(50, 8), features(50).abs(), 0)
    assert errors.level.shape == (0,) and errors.centres.shape == (0, 8)


@pytest.mark.parametrize("count", [3 * IMAGES_PER_LEVEL, 10 * IMAGES_PER_LEVEL])
def test_levels_are_softmax_weighted(count: int) -> None:
    errors = NormalErrors(STAGES, 6)
    teacher = stages(count)
    scores = 1 + features(count, seed=5).abs()
    errors.set_levels(embed(teacher), scores, 0)
    in_use = min(6, count // IMAGES_PER_LEVEL)
    embeddings = embed_loop(teacher)
    centres = errors.centres.double().numpy()[:in_use]
    squares = np.array([[((e - c) ** 2).sum() for c in centres] for e in embeddings])
    assert float(errors.spread) == pytest.approx(squares.min(1).mean(), rel=0.02)
    weights = np.exp(-squares / float(errors.spread))
    weights /= weights.sum(1, keepdims=True)
    wanted = weights.T @ scores.double().numpy() / weights.sum(0)
    np.testing.assert_allclose(errors.level.numpy()[:in_use], wanted, rtol=1e-3)
    others = stages(7, seed=50)
    np.testing.assert_allclose(
        errors.level_of(others).numpy(), level_loop(errors, embed_loop(others)), rtol=1e-4
    )


@pytest.mark.parametrize("images", [1, 19, 20, 39, 40, 79, 200])
def test_a_centre_stands_for_enough_images(images: int) -> None:
    errors = NormalErrors((Stage(8, 4),), 5)
    errors.set_levels(directions(images), torch.full((images,), 3.0), 0)
    used = (errors.centres.abs() < 2).all(1)
    assert int(used.sum()) == min(5, max(1, images // IMAGES_PER_LEVEL))
    np.testing.assert_allclose(errors.level[used].numpy(), 3.0, rtol=1e-5)


def test_unused_centres_never_matter() -> None:
    few, many = NormalErrors((Stage(8, 4),), 2), NormalErrors((Stage(8, 4),), 50)
    embeddings, scores = directions(45), features(45).abs()
    for errors in (few, many):
        errors.set_levels(embeddings, scores, 0)
    torch.testing.assert_close(few.centres, many.centres[:2])
    with torch.no_grad():
        many.level[2:] = 1e6
    for seed in range(5):
        teacher = at(directions(6, seed=seed))
        torch.testing.assert_close(few.level_of(teacher), many.level_of(teacher))
    zero = [torch.zeros(1, 8, 2, 2)]
    torch.testing.assert_close(few.level_of(zero), many.level_of(zero))


def two_kinds(scores: tuple[float, float] = (0.1, 10.0)) -> tuple[NormalErrors, Tensor]:
    """Errors of two kinds of images far apart, 40 of each, and the kinds' directions."""
    kinds = torch.eye(8)[:2]
    noise = 0.02 * features(80, 8)
    embeddings = torch.nn.functional.normalize(kinds.repeat(40, 1) + noise, dim=1)
    errors = NormalErrors((Stage(8, 4),), 2)
    errors.set_levels(embeddings, torch.tensor(scores).repeat(40), 0)
    return errors, kinds


def test_each_kind_of_image_has_its_own_level() -> None:
    errors, kinds = two_kinds()
    np.testing.assert_allclose(errors.level_of(at(kinds)).numpy(), [0.1, 10.0], rtol=1e-4)


@pytest.mark.parametrize("side", [0, 1])
def test_far_images_get_the_nearest_centres_level(side: int) -> None:
    errors, kinds = two_kinds()
    far = -torch.eye(8)[7] + 0.3 * kinds[side]
    got = errors.level_of(at(torch.nn.functional.normalize(far, dim=0)[None]))
    assert float(got) == pytest.approx((0.1, 10.0)[side], rel=1e-4)


def test_a_level_lies_between_the_smallest_and_the_largest() -> None:
    errors, kinds = two_kinds()
    mix = torch.linspace(0, 1, 41)[:, None]
    got = errors.level_of(at(torch.nn.functional.normalize(mix * kinds[0] + (1 - mix) * kinds[1])))
    assert float(got.min()) >= 0.1 - 1e-5 and float(got.max()) <= 10 + 1e-3
    assert bool((got.diff() <= 1e-4).all())  # from the second kind to the first, never back


def test_images_of_a_batch_do_not_mix() -> None:
    errors, _ = two_kinds()
    teacher = at(directions(6, seed=3))
    together = errors.level_of(teacher)
    for i in range(6):
        torch.testing.assert_close(errors.level_of([teacher[0][i : i + 1]]), together[i : i + 1])


@pytest.mark.parametrize("levels", [1, 4, 64])
@pytest.mark.parametrize("images", [1, 80, 400])
def test_identical_images_have_one_level(images: int, levels: int) -> None:
    """Surplus centres, on which no weight falls, must not become levels near zero."""
    errors = NormalErrors((Stage(8, 4),), levels)
    one = directions(1)
    errors.set_levels(one.repeat(images, 1), torch.full((images,), 0.5), 0)
    near = torch.nn.functional.normalize(one + 0.01 * features(200, 8, seed=1), dim=1)
    for images_like in (near, directions(50, seed=2), -one):
        got = errors.level_of(at(images_like))
        np.testing.assert_allclose(got.numpy(), 0.5, rtol=1e-4)


def test_a_centre_far_from_all_images_takes_the_nearest_ones_level() -> None:
    """Two lone images and 78 of one kind: the spread is small, most centres are near nobody."""
    rows = torch.eye(8)[:1].repeat(160, 1)
    rows[:40] = torch.nn.functional.normalize(rows[:40] + 1e-4 * features(40, 8), dim=1)
    rows[0], rows[1] = torch.eye(8)[1], torch.eye(8)[2]
    for seed in range(5):
        errors = NormalErrors((Stage(8, 4),), 8)
        errors.set_levels(rows, torch.linspace(1, 2, 160), seed)
        assert float(errors.level.min()) >= 1 - 1e-4 and float(errors.level.max()) <= 2 + 1e-4


def test_images_of_one_scene_are_told_apart_in_float32() -> None:
    """Spread 1e-8, squared distance 1e-6: |e|^2 - 2 e c + |c|^2 would err by 1e-7."""
    kinds = torch.nn.functional.normalize(
        directions(1) + 5e-4 * torch.tensor([[1.0], [-1.0]]) * directions(1, seed=1), dim=1
    )
    noise = 4e-5 * features(120, 8)
    errors = NormalErrors((Stage(8, 4),), 2)
    errors.set_levels(kinds.repeat(60, 1) + noise, torch.tensor([1.0, 3.0]).repeat(60), 0)
    np.testing.assert_allclose(errors.level_of(at(kinds)).numpy(), [1.0, 3.0], rtol=0.02)
    between = kinds[:1] + torch.linspace(0.3, 0.7, 41)[:, None] * (kinds[1:] - kinds[:1])
    wanted = level_loop(errors, embed(at(between)).double().numpy())
    assert wanted.min() < 1.2 and wanted.max() > 2.8
    np.testing.assert_allclose(errors.level_of(at(between)).numpy(), wanted, rtol=0.02)


@pytest.mark.parametrize("scores", [torch.zeros(60), torch.tensor([0.0, 1.0, 2.0]).repeat(20)])
def test_zero_scores_are_finite(scores: Tensor) -> None:
    errors = NormalErrors((Stage(8, 4),), 3)
    errors.set_levels(directions(60), scores, 0)
    got = errors.level_of(at(directions(9, seed=1)))
    assert bool((got > 0).all()) and bool(torch.isfinite(1 / got).all())


def test_constant_and_zero_features_are_finite() -> None:
    constant = embed([torch.full((50, 3, 6, 4), 2.0), torch.zeros(50, 5, 6, 4)])
    errors = NormalErrors(STAGES, 4)
    errors.set_levels(constant, torch.linspace(1, 2, 50), 0)
    for teacher in (stages(4), [torch.zeros(4, 3, 6, 4), torch.zeros(4, 5, 6, 4)]):
        got = errors.level_of(teacher)
        assert float(got.min()) > 1 - 1e-4 and float(got.max()) < 2 + 1e-4


def test_levels_are_a_function_of_images_and_seed_and_replace_older_ones() -> None:
    embeddings, scores = directions(200), features(200).abs()
    fresh, used = NormalErrors((Stage(8, 4),), 6), NormalErrors((Stage(8, 4),), 6)
    used.set_levels(directions(300, seed=8), torch.full((300,), 50.0), 3)
    for disturb, errors in enumerate((fresh, used)):
        torch.manual_seed(disturb)
        np.random.seed(disturb)
        errors.set_levels(embeddings[:60], scores[:60], 1)  # three centres of six
    assert all(torch.equal(a, b) for a, b in zip(fresh.buffers(), used.buffers(), strict=True))


@budget(max_examples=40, deadline=None)
@given(
    images=st.integers(1, 120),
    levels=st.integers(1, 12),
    kinds=st.integers(1, 4),
    noise=st.sampled_from([0.0, 1e-6, 1e-2, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_a_level_is_an_average_of_scores(
    images: int, levels: int, kinds: int, noise: float, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    base = torch.randn(kinds, 8, generator=rng).repeat(images, 1)[:images]
    rows = base + noise * torch.randn(images, 8, generator=rng)
    rows = torch.nn.functional.normalize(rows, dim=1)
    scores = 0.1 + torch.rand(images, generator=rng)
    errors = NormalErrors((Stage(8, 4),), levels)
    errors.set_levels(rows, scores, seed)
    got = errors.level_of(at(torch.cat([rows[:5], directions(5, seed=1)])))
    assert float(got.min()) >= float(scores.min()) * (1 - 1e-4)
    assert float(got.max()) <= float(scores.max()) * (1 + 1e-4)


def test_state_is_kept_with_the_weights() -> None:
    errors, kinds = two_kinds()
    other = NormalErrors((Stage(8, 4),), 2)
    other.load_state_dict(errors.state_dict())
    assert torch.equal(other.level_of(at(kinds)), errors.level_of(at(kinds)))
    assert not list(errors.parameters())  # nothing to be trained
