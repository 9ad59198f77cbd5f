"""Every loss against float64 loops of its formula; invariances; degenerate features; mining."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from torch import Tensor

from snl.model import losses
from snl.model.base import StudentOutput
from snl.settings import LossSettings

Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: dict[str, Loss] = {
    "global_cosine": losses.global_cosine,
    "mse": losses.squared_error,
    "channel": losses.channel_distillation,
    "spatial": losses.spatial_distillation,
    "intra": losses.intra_affinity,
    "inter_images": losses.inter_affinity_images,
    "inter_networks": losses.inter_affinity_networks,
}
# fewer channels than positions, as many, more
SHAPES = [(2, 3, 2, 4), (3, 6, 2, 3), (2, 9, 2, 3), (1, 4, 1, 1), (1, 2, 5, 3)]


@pytest.fixture(params=LOSSES)
def loss(request: pytest.FixtureRequest) -> Loss:
    return LOSSES[request.param]


def pair(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng), torch.randn(shape, generator=rng)


def cosine(u: np.ndarray, v: np.ndarray) -> float:
    return float(np.dot(u, v) / np.sqrt(np.dot(u, u) * np.dot(v, v)))


def vectors(image: np.ndarray) -> list[np.ndarray]:
    """Feature vector of every position of (C, H, W)."""
    _, h, w = image.shape
    return [image[:, y, x] for y in range(h) for x in range(w)]


def affinities(rows: list[np.ndarray], columns: list[np.ndarray]) -> np.ndarray:
    return np.array([[cosine(u, v) for v in columns] for u in rows])


def frobenius(matrix: np.ndarray) -> float:
    return float(np.sqrt(sum(v**2 for v in matrix.ravel())))


def global_cosine_loop(t: np.ndarray, s: np.ndarray) -> float:
    return float(np.mean([1 - cosine(a.ravel(), b.ravel()) for a, b in zip(t, s, strict=True)]))


def mse_loop(t: np.ndarray, s: np.ndarray) -> float:
    return float(np.mean([(a - b) ** 2 for a, b in zip(t.ravel(), s.ravel(), strict=True)]))


def channel_loop(t: np.ndarray, s: np.ndarray) -> float:
    terms = [
        1 - cosine(u, v)
        for a, b in zip(t, s, strict=True)
        for u, v in zip(vectors(a), vectors(b), strict=True)
    ]
    return float(np.mean(terms))


def spatial_loop(t: np.ndarray, s: np.ndarray, tau: float = 1.0) -> float:
    terms = []
    for a, b in zip(t, s, strict=True):
        for u, v in zip(a, b, strict=True):
            p, q = np.exp(u.ravel() / tau), np.exp(v.ravel() / tau)
            p, q = p / p.sum(), q / q.sum()
            terms.append(sum(pi * np.log(pi / qi) for pi, qi in zip(p, q, strict=True)))
    return float(np.mean(terms)) * tau**2


def intra_loop(t: np.ndarray, s: np.ndarray) -> float:
    terms = []
    for a, b in zip(t, s, strict=True):
        u, v = vectors(a), vectors(b)
        terms.append(frobenius(affinities(v, v) - affinities(u, u)) / len(u))
    return float(np.mean(terms))


def inter_images_loop(t: np.ndarray, s: np.ndarray) -> float:
    u = [np.array([m.mean() for m in image]) for image in t]
    v = [np.array([m.mean() for m in image]) for image in s]
    return frobenius(affinities(v, v) - affinities(u, u)) / len(u)


def inter_networks_loop(t: np.ndarray, s: np.ndarray) -> float:
    terms = []
    for a, b in zip(t, s, strict=True):
        u, v = vectors(a), vectors(b)
        terms.append(frobenius(affinities(u, v) - affinities(u, u)) / len(u))
    return float(np.mean(terms))


LOOPS = {
    "global_cosine": global_cosine_loop,
    "mse": mse_loop,
    "channel": channel_loop,
    "spatial": spatial_loop,
    "intra": intra_loop,
    "inter_images": inter_images_loop,
    "inter_networks": inter_networks_loop,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LOSSES)
def test_formula(name: str, shape: tuple[int, ...]) -> None:
    t, s = pair(shape)
    wanted = LOOPS[name](t.double().numpy(), s.double().numpy())
    assert float(LOSSES[name](t, s)) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LOSSES)
def test_gradient(name: str, shape: tuple[int, ...]) -> None:
    """Every derivative, hand-written or automatic, against finite differences of the loops."""
    t, s = pair(shape, seed=4)
    s.requires_grad_()
    LOSSES[name](t, s).backward()
    assert s.grad is not None
    if name == "inter_images" and shape[0] == 1:
        assert float(s.grad.abs().max()) < 1e-5  # a single image has no affinities to others
        return
    if name in ("intra", "spatial") and shape[2:] == (1, 1):
        assert float(s.grad.abs().max()) < 1e-5  # nor has a single position
        return
    fixed, moved = t.double().numpy(), s.detach().double().numpy()
    wanted = np.empty_like(moved)
    for place in np.ndindex(*shape):
        ends = []
        for step in (1e-5, -1e-5):
            shifted = moved.copy()
            shifted[place] += step
            ends.append(LOOPS[name](fixed, shifted))
        wanted[place] = (ends[0] - ends[1]) / 2e-5
    np.testing.assert_allclose(s.grad.numpy(), wanted, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("tau", [0.25, 1.0, 4.0])
def test_spatial_temperature(tau: float) -> None:
    t, s = pair((2, 3, 4, 4), seed=1)
    wanted = spatial_loop(t.double().numpy(), s.double().numpy(), tau)
    assert float(losses.spatial_distillation(t, s, tau)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("difference", [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize("name", ["intra", "inter_networks"])
def test_affinities_of_close_features(name: str, difference: float) -> None:
    """With C < N and S near T, value and gradient still follow the N x N definition."""
    t, noise = pair((2, 16, 12, 12), seed=2)
    s = (t + difference * noise).requires_grad_()
    exact = s.detach().double().requires_grad_()
    unit = [torch.nn.functional.normalize(x.flatten(2), dim=1) for x in (t.double(), exact)]
    left = unit[1] if name == "intra" else unit[0]
    affinity = left.transpose(1, 2) @ unit[1] - unit[0].transpose(1, 2) @ unit[0]
    wanted = (affinity.flatten(1).norm(dim=1) / 144).mean()
    wanted.backward()
    value = LOSSES[name](t, s)
    value.backward()
    assert s.grad is not None and exact.grad is not None
    assert float(value.detach()) == pytest.approx(float(wanted.detach()), rel=1e-3)
    assert float((s.grad - exact.grad).norm() / exact.grad.norm()) < 0.01


def test_zero_where_equal(loss: Loss) -> None:
    for shape in SHAPES:
        t, _ = pair(shape)
        assert abs(float(loss(t, t.clone()))) < 1e-5


def test_grows_with_the_difference(loss: Loss) -> None:
    """The larger the student's error, the larger the loss."""
    t, noise = pair((4, 6, 4, 5), seed=3)
    values = [float(loss(t, t + share * noise)) for share in (0.0, 0.1, 0.5, 1.0)]
    assert values == sorted(values) and values[-1] > values[0] + 1e-3


@pytest.mark.parametrize(
    "name", ["global_cosine", "channel", "intra", "inter_images", "inter_networks"]
)
def test_cosines_ignore_positive_scale(name: str) -> None:
    t, s = pair((3, 4, 3, 3), seed=4)
    plain = float(LOSSES[name](t, s))
    assert float(LOSSES[name](0.01 * t, 100 * s)) == pytest.approx(plain, abs=1e-5)
    per_image = torch.tensor([0.1, 1.0, 30.0]).view(3, 1, 1, 1)
    assert float(LOSSES[name](t, per_image * s)) == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("name", ["channel", "intra", "inter_networks"])
def test_position_cosines_ignore_scale_at_every_position(name: str) -> None:
    t, s = pair((2, 4, 3, 3), seed=5)
    scale = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    plain = float(LOSSES[name](t, s))
    assert float(LOSSES[name](t, scale * s)) == pytest.approx(plain, abs=1e-5)


def test_spatial_ignores_a_shift_of_a_channel() -> None:
    t, s = pair((2, 4, 3, 3), seed=6)
    shift = torch.arange(4.0).view(1, 4, 1, 1)
    plain = float(losses.spatial_distillation(t, s))
    assert float(losses.spatial_distillation(t - shift, s + shift)) == pytest.approx(plain, 1e-4)


def test_bounds(loss: Loss) -> None:
    t, _ = pair((4, 5, 3, 3), seed=7)
    value = float(loss(t, -t))
    assert value > -1e-6
    if loss not in (losses.spatial_distillation, losses.squared_error):
        assert value <= 2 + 1e-5


def test_opposite_features_are_the_worst() -> None:
    t, _ = pair((2, 5, 3, 3), seed=8)
    assert float(losses.channel_distillation(t, -t)) == pytest.approx(2, abs=1e-5)
    assert float(losses.global_cosine(t, -t)) == pytest.approx(2, abs=1e-5)


ONE = (1, 4, 3, 3)
DEGENERATE = {
    "equal": (pair((2, 4, 3, 3))[0], pair((2, 4, 3, 3))[0]),
    "equal, C > N": (pair((2, 12, 3, 3))[0], pair((2, 12, 3, 3))[0]),
    "both zero": (torch.zeros(2, 4, 3, 3), torch.zeros(2, 4, 3, 3)),
    "both zero, C > N": (torch.zeros(2, 12, 3, 3), torch.zeros(2, 12, 3, 3)),
    "teacher zero": (torch.zeros(2, 4, 3, 3), pair((2, 4, 3, 3))[1]),
    "student zero": (pair((2, 4, 3, 3))[0], torch.zeros(2, 4, 3, 3)),
    "constant": (torch.full((2, 4, 3, 3), 2.0), torch.full((2, 4, 3, 3), 0.5)),
    "huge": tuple(1e4 * x for x in pair((2, 4, 3, 3))),
    "huge, C > N": tuple(1e4 * x for x in pair((2, 12, 3, 3))),
    "tiny": tuple(1e-6 * x for x in pair((2, 4, 3, 3))),
    "batch of one": pair(ONE),
    "one position": pair((2, 4, 1, 1)),
    "one channel": pair((2, 1, 3, 3)),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_finite_value_and_gradient(loss: Loss, case: str) -> None:
    t, s = DEGENERATE[case]
    s = s.clone().requires_grad_()
    value = loss(t, s)
    value.backward()
    assert value.shape == () and bool(torch.isfinite(value))
    assert s.grad is not None and bool(torch.isfinite(s.grad).all())


@pytest.mark.parametrize("tau", [0.01, 100.0])
def test_spatial_of_huge_values_is_finite(tau: float) -> None:
    t, s = DEGENERATE["huge"]
    s = s.clone().requires_grad_()
    value = losses.spatial_distillation(t, s, tau)
    value.backward()
    assert bool(torch.isfinite(value)) and bool(torch.isfinite(s.grad).all())


def test_inter_images_of_one_image_is_zero() -> None:
    assert float(losses.inter_affinity_images(*pair(ONE))) == pytest.approx(0, abs=1e-5)


def test_bf16_features_are_computed_in_float32(loss: Loss) -> None:
    t, s = (x.bfloat16() for x in pair((2, 5, 4, 4), seed=9))
    value = loss(t, s)
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(loss(t.float(), s.float())), abs=1e-6)
    s.requires_grad_()
    loss(t, s).backward()
    assert s.grad is not None and s.grad.dtype == torch.bfloat16


def test_non_contiguous_features(loss: Loss) -> None:
    t, s = pair((2, 5, 4, 3), seed=10)
    last = torch.channels_last
    value = loss(t.contiguous(memory_format=last), s.contiguous(memory_format=last))
    assert float(value) == pytest.approx(float(loss(t, s)), abs=1e-6)


# --- the weighted sum ---

STAGES = [(2, 3, 4, 4), (2, 6, 2, 2)]
TERMS = ["global_cosine", "mse", "channel", "spatial", "intra", "inter"]


def stages() -> tuple[list[Tensor], list[Tensor]]:
    pairs = [pair(shape, seed) for seed, shape in enumerate(STAGES)]
    return [t for t, _ in pairs], [s for _, s in pairs]


@pytest.mark.parametrize("form", ["images", "networks"])
def test_distillation_sums_terms_and_stages(form: str) -> None:
    teacher, student = stages()
    weights = {
        "global_cosine": 0.5,
        "mse": 1.5,
        "channel": 2.0,
        "spatial": 3.0,
        "intra": 0.25,
        "inter": 7.0,
    }
    settings = LossSettings(**weights, inter_form=form, spatial_temperature=2.0)  # type: ignore[arg-type]
    total, sizes = losses.distillation(teacher, StudentOutput(student), settings)
    wanted = dict.fromkeys(TERMS, 0.0)
    for t, s in zip(teacher, student, strict=True):
        a, b = t.double().numpy(), s.double().numpy()
        wanted["global_cosine"] += global_cosine_loop(a, b)
        wanted["mse"] += mse_loop(a, b)
        wanted["channel"] += channel_loop(a, b)
        wanted["spatial"] += spatial_loop(a, b, 2.0)
        wanted["intra"] += intra_loop(a, b)
        wanted["inter"] += LOOPS[f"inter_{form}"](a, b)
    assert {k: float(v) for k, v in sizes.items()} == pytest.approx(wanted, abs=1e-5)
    assert float(total) == pytest.approx(sum(weights[k] * wanted[k] for k in TERMS), abs=1e-4)


@pytest.mark.parametrize("term", TERMS)
def test_a_term_alone(term: str) -> None:
    teacher, student = stages()
    settings = LossSettings(**{term: 4.0})
    total, sizes = losses.distillation(teacher, StudentOutput(student), settings)
    assert list(sizes) == [term]
    assert float(total) == pytest.approx(4 * float(sizes[term]), rel=1e-6)


def test_a_term_switched_off_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(t: Tensor, s: Tensor) -> Tensor:
        raise AssertionError("computed")

    monkeypatch.setattr(losses, "_intra", refuse)
    teacher, student = stages()
    losses.distillation(teacher, StudentOutput(student), LossSettings(channel=1.0))
    with pytest.raises(AssertionError, match="computed"):
        losses.distillation(teacher, StudentOutput(student), LossSettings(channel=1.0, intra=1.0))


def test_terms_are_detached_and_the_total_is_not() -> None:
    teacher, student = stages()
    student = [s.requires_grad_() for s in student]
    total, terms = losses.distillation(
        teacher, StudentOutput(student), LossSettings(channel=1.0, inter=1.0)
    )
    assert not any(value.requires_grad for value in terms.values())
    total.backward()
    assert all(s.grad is not None and float(s.grad.norm()) > 0 for s in student)
    assert all(t.grad is None for t in teacher)


def test_another_number_of_stages_is_refused() -> None:
    teacher, student = stages()
    with pytest.raises(ValueError):
        losses.distillation(teacher, StudentOutput(student[:1]), LossSettings(channel=1.0))


# --- hard mining ---


def hard_mined(t: Tensor, s: Tensor, share: float, factor: float) -> Tensor:
    """The student's features as `distillation` passes them to the losses."""
    return losses.scale_gradient(s, losses.easy_factor(t, s, share, factor))


def errors_loop(t: Tensor, s: Tensor) -> np.ndarray:
    """Cosine distances (B * H * W,) in float64."""
    pairs = zip(t.double().numpy(), s.detach().double().numpy(), strict=True)
    return np.array(
        [1 - cosine(u, v) for a, b in pairs for u, v in zip(vectors(a), vectors(b), strict=True)]
    )


@budget(max_examples=40, deadline=None)
@given(
    share=st.floats(0.001, 0.999),
    gradient=st.floats(0, 1, width=32),
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 1000),
)
def test_easy_positions_keep_their_value_and_a_share_of_their_gradient(
    share: float, gradient: float, shape: tuple[int, ...], seed: int
) -> None:
    t, s = pair(shape, seed)
    s.requires_grad_()
    mined = hard_mined(t, s, share, gradient)
    assert torch.equal(mined, s)
    above, _ = pair(shape, seed + 1)
    (mined * above).sum().backward()
    error = errors_loop(t, s)
    count = min(max(1, math.ceil(share * len(error))), len(error) - 1)  # never all of them
    easy = np.zeros(len(error), dtype=bool)
    easy[np.argsort(error)[:count]] = True  # of the whole batch, not of each image
    b, _, h, w = shape
    factor = torch.where(torch.from_numpy(easy).view(b, 1, h, w), gradient, 1.0)
    assert s.grad is not None and torch.equal(s.grad, above * factor)


@pytest.mark.parametrize(
    ("levels", "share", "count"),
    [([8], 0.5, 0), ([4, 4], 0.5, 4), ([3, 5], 0.5, 3), ([1, 1, 6], 0.9, 2), ([7, 1], 0.9, 7)],
)
def test_positions_with_equal_errors_get_the_same_factor(
    levels: list[int], share: float, count: int
) -> None:
    """Where equal errors straddle the share, none of them is easy.

    `levels` are the numbers of positions with the same error, smallest error first.
    """
    angles = [0.1 * (k + 1) for k, number in enumerate(levels) for _ in range(number)]
    s = torch.tensor([[math.cos(a) for a in angles], [math.sin(a) for a in angles]])
    t = torch.tensor([1.0, 0.0])[:, None].expand(2, 8)
    factor = losses.easy_factor(t.reshape(1, 2, 2, 4), s.reshape(1, 2, 2, 4), share, 0.25)
    assert factor.shape == (1, 1, 2, 4)
    assert factor.flatten().tolist() == [0.25] * count + [1.0] * (8 - count)


def test_the_share_is_of_the_batch() -> None:
    """All easy positions can lie in one image."""
    t, noise = pair((2, 4, 3, 3), seed=11)
    s = t.clone()
    s[0] += 0.01 * noise[0]
    s[1] = noise[1]
    s.requires_grad_()
    hard_mined(t, s, 0.5, 0.0).sum().backward()
    assert s.grad is not None
    assert torch.equal(s.grad[0], torch.zeros(4, 3, 3))
    assert torch.equal(s.grad[1], torch.ones(4, 3, 3))


@pytest.mark.parametrize("term", TERMS)
def test_hard_mining_changes_gradients_only(term: str) -> None:
    teacher, student = stages()
    plain = [s.clone().requires_grad_() for s in student]
    mined = [s.clone().requires_grad_() for s in student]
    weights = {term: 2.0}
    total, sizes = losses.distillation(teacher, StudentOutput(plain), LossSettings(**weights))
    settings = LossSettings(**weights, hard_mining=0.6, hard_mining_factor=0.1)
    same, same_sizes = losses.distillation(teacher, StudentOutput(mined), settings)
    assert torch.equal(total, same) and torch.equal(sizes[term], same_sizes[term])
    total.backward()
    same.backward()
    for t, a, b in zip(teacher, plain, mined, strict=True):
        assert a.grad is not None and b.grad is not None
        error = errors_loop(t, a).reshape(a.shape[0], 1, *a.shape[2:])
        count = math.ceil(0.6 * error.size)
        easy = torch.from_numpy(error <= np.sort(error.ravel())[count - 1])
        torch.testing.assert_close(b.grad, torch.where(easy, 0.1, 1.0) * a.grad)


@pytest.mark.parametrize("case", DEGENERATE)
def test_hard_mining_of_degenerate_features_is_finite(case: str) -> None:
    t, s = DEGENERATE[case]
    s = s.clone().requires_grad_()
    mined = hard_mined(t, s, 0.9, 0.1)
    assert torch.equal(mined, s)
    mined.sum().backward()
    assert s.grad is not None and bool(torch.isfinite(s.grad).all())


def test_hard_mining_of_bf16_features_keeps_value_and_gradient_dtype() -> None:
    t, s = (x.bfloat16() for x in pair((2, 5, 4, 4), seed=12))
    s.requires_grad_()
    mined = hard_mined(t, s, 0.5, 0.25)
    assert torch.equal(mined.float(), s.float())
    mined.sum().backward()
    assert s.grad is not None and s.grad.dtype == torch.bfloat16
    assert sorted(s.grad[:, 0].flatten().tolist()) == [0.25] * 16 + [1.0] * 16


@pytest.mark.parametrize(
    ("progress", "size"),
    [(0.0, 0.0), (1e-6, 1e-6), (0.05, 0.25), (0.1, 0.5), (losses.MINING_RAMP, 1), (0.7, 1), (1, 1)],
)
def test_the_share_of_easy_positions_rises_with_the_steps(progress: float, size: float) -> None:
    t, s = pair((2, 3, 5, 4), seed=13)  # 40 positions
    s.requires_grad_()
    settings = LossSettings(mse=1.0, hard_mining=0.8, hard_mining_factor=0.0)
    losses.distillation([t], StudentOutput([s]), settings, progress)[0].backward()
    assert s.grad is not None
    mined = int((s.grad == 0).all(1).sum())
    assert mined == math.ceil(round(0.8 * size * 40, 6))


@pytest.mark.parametrize(("share", "factor"), [(0.0, 0.0), (0.9, 1.0)])
def test_hard_mining_can_be_off(
    share: float, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "easy_factor", lambda *_: pytest.fail("computed"))
    teacher, student = stages()
    settings = LossSettings(channel=1.0, hard_mining=share, hard_mining_factor=factor)
    losses.distillation(teacher, StudentOutput(student), settings)


def test_easy_positions_are_chosen_per_stage() -> None:
    """A stage that is reproduced far better than the other is not easy as a whole."""
    teacher, student = stages()
    student[0] = teacher[0] + 0.03 * student[0]
    student = [s.clone().requires_grad_() for s in student]
    settings = LossSettings(mse=1.0, hard_mining=0.5, hard_mining_factor=0.0)
    losses.distillation(teacher, StudentOutput(student), settings)[0].backward()
    for s in student:
        assert s.grad is not None
        count = s.shape[0] * s.shape[2] * s.shape[3]
        assert int((s.grad == 0).all(1).sum()) == count // 2
