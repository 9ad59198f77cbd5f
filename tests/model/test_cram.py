"""CRAM against a float64 loop, its limits, and its k-means start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from snl.model.cram import Cram

FORMS = ["centres", "rebuild", "dense", "gate"]


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def module(form: str, channels: int = 6, centres: int = 4, seed: int = 0) -> Cram:
    """With parameters away from their initial values, so that every path is used."""
    torch.manual_seed(seed)
    cram = Cram(channels, centres, form)
    with torch.no_grad():
        cram.log_sharpness.fill_(-0.5)
        for parameter in cram.parameters():
            if parameter.ndim > 0:
                parameter.normal_(0, 0.7)
    return cram


def assign_loop(x: np.ndarray, c: np.ndarray, sharpness: float) -> np.ndarray:
    """(N, C) and (K, C) to (N, K)."""
    a = np.zeros((len(x), len(c)))
    for i in range(len(x)):
        logits = [-sharpness * sum((x[i] - c[k]) ** 2) for k in range(len(c))]
        e = [np.exp(v - max(logits)) for v in logits]
        a[i] = [v / sum(e) for v in e]
    return a


def residual_loop(x: np.ndarray, c: np.ndarray, a: np.ndarray) -> np.ndarray:
    r = np.zeros_like(c)
    for k in range(len(c)):
        r[k] = sum(a[i, k] * (x[i] - c[k]) for i in range(len(x))) / (a[:, k].sum() + 1e-6)
    return r


def parts(cram: Cram, image: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, C), centres and assignments of one image (C, H, W) in float64."""
    x = image.double().flatten(1).T.numpy()
    c = cram.centres.detach().double().numpy()
    return x, c, assign_loop(x, c, float(cram.log_sharpness.detach().double().exp()))


def test_centres_formula() -> None:
    cram, x = module("centres"), features(2, 6, 3, 4)
    y = cram(x).detach()
    for image, out in zip(x, y, strict=True):
        _, c, a = parts(cram, image)
        wanted = np.array([sum(a[i, k] * c[k] for k in range(4)) for i in range(12)])
        np.testing.assert_allclose(out.flatten(1).T.numpy(), wanted, atol=2e-6)


def test_rebuild_formula() -> None:
    cram, x = module("rebuild"), features(2, 6, 3, 4)
    y = cram(x).detach()
    for image, out in zip(x, y, strict=True):
        rows, c, a = parts(cram, image)
        r = residual_loop(rows, c, a)
        wanted = np.array([sum(a[i, k] * (c[k] + r[k]) for k in range(4)) for i in range(12)])
        np.testing.assert_allclose(out.flatten(1).T.numpy(), wanted, atol=2e-6)


def test_dense_formula() -> None:
    cram, x = module("dense"), features(2, 6, 3, 4)
    y = cram(x).detach()
    w = cram.mix.weight.detach().double().numpy()
    for image, out in zip(x, y, strict=True):
        rows, c, a = parts(cram, image)
        wanted = np.array(
            [
                rows[i] + w @ sum(a[i, k] * (rows[i] - c[k]) for k in range(4))
                for i in range(len(rows))
            ]
        )
        np.testing.assert_allclose(out.flatten(1).T.numpy(), wanted, atol=5e-6)


def test_gate_is_one_factor_in_0_1_per_image_and_channel() -> None:
    cram, x = module("gate"), features(3, 6, 3, 4)
    ratio = cram(x).detach() / x
    assert bool((ratio > 0).all()) and bool((ratio < 1).all())
    assert float(ratio.flatten(2).std(2).max()) < 1e-5
    assert float(ratio.flatten(2).mean(2).std(0).max()) > 1e-4  # another image, another gate


def test_assignments_are_a_distribution() -> None:
    cram, x = module("rebuild"), features(2, 12, 6)
    a = cram.assign(x)
    assert a.shape == (2, 12, 4) and bool((a >= 0).all())
    torch.testing.assert_close(a.sum(-1), torch.ones(2, 12))
    np.testing.assert_allclose(
        a[0].detach().numpy(), parts(cram, x[0].T.reshape(6, 3, 4))[2], atol=1e-6
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(1, 6, 1, 1), (2, 6, 5, 3), (3, 6, 8, 8)])
def test_shape_and_dtype_are_kept(form: str, shape: tuple[int, ...]) -> None:
    cram = module(form)
    for dtype in (torch.float32, torch.bfloat16):
        y = cram(features(*shape).to(dtype))
        assert y.shape == shape and y.dtype == dtype and bool(torch.isfinite(y).all())


@pytest.mark.parametrize("form", FORMS)
def test_gradient_reaches_everything(form: str) -> None:
    cram, x = module(form), features(2, 6, 4, 4).requires_grad_()
    (cram(x) * features(2, 6, 4, 4, seed=1)).sum().backward()
    assert x.grad is not None and float(x.grad.norm()) > 0
    for name, parameter in cram.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.norm()) > 0, name


@pytest.mark.parametrize("form", FORMS)
def test_every_image_by_itself(form: str) -> None:
    cram, x = module(form), features(3, 6, 4, 4)
    alone = torch.cat([cram(image) for image in x.split(1)])
    torch.testing.assert_close(cram(x), alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_float32_inside_under_autocast(form: str) -> None:
    """Distances by |x|^2 - 2 x c + |c|^2 cancel; in bf16 they would be off by far more than x."""
    x = features(2, 32, 6, 6).relu() + 4
    cram = Cram(32, 8, form)
    cram.initialise(x.flatten(2).transpose(1, 2).flatten(0, 1), seed=0)
    wanted = cram(x)
    with torch.autocast("cpu", torch.bfloat16):
        got = cram(x)
    torch.testing.assert_close(got.float(), wanted, atol=1e-5, rtol=1e-5)


def test_rebuild_by_one_centre_is_the_image_mean() -> None:
    x = features(2, 6, 4, 4)
    mean = x.mean((2, 3), keepdim=True).expand_as(x)
    torch.testing.assert_close(module("rebuild", centres=1)(x), mean, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS[:3])
@pytest.mark.parametrize("far", [1e2, 1e4])
def test_a_centre_without_features_has_no_effect(form: str, far: float) -> None:
    x = features(2, 6, 4, 4)
    small, large = module(form, centres=3), module(form, centres=4)
    with torch.no_grad():
        for name, parameter in large.named_parameters():
            if name == "centres":
                parameter[:3] = small.centres
                parameter[3] = far
            else:
                parameter.copy_(small.get_parameter(name))
    y = large(x)
    torch.testing.assert_close(y, small(x), atol=1e-5, rtol=1e-5)
    y.sum().backward()
    assert large.centres.grad is not None and bool(torch.isfinite(large.centres.grad).all())


@pytest.mark.parametrize("form", FORMS)
def test_degenerate_features_are_finite(form: str) -> None:
    cram = module(form, centres=50)  # more than the 4 positions
    for x in (features(2, 6, 2, 2), torch.zeros(2, 6, 2, 2), 1e4 * features(2, 6, 2, 2)):
        x = x.clone().requires_grad_()
        y = cram(x)
        y.sum().backward()
        assert bool(torch.isfinite(y).all()) and bool(torch.isfinite(x.grad).all())


def test_rebuild_has_no_identity_path() -> None:
    """Positions at equal distances from all centres come out equal, however they differ."""
    cram = module("rebuild", channels=3, centres=4)
    with torch.no_grad():
        cram.centres[:, 2] = 0
    x = features(1, 3, 4, 4)
    x[0, :2, 0, 1] = x[0, :2, 0, 0]
    x[0, 2, 0, 0], x[0, 2, 0, 1] = 3.0, -3.0  # mirrored at the plane of the centres
    y = cram(x)
    torch.testing.assert_close(y[0, :, 0, 0], y[0, :, 0, 1], atol=1e-6, rtol=1e-5)


def test_rebuild_stays_in_the_hull_of_the_image() -> None:
    """Without an identity path an outlier comes back closer to the normal features."""
    x = 0.1 * features(1, 6, 8, 8)
    cram = Cram(6, 4, "rebuild")
    cram.initialise(x.flatten(2).transpose(1, 2).flatten(0, 1), seed=0)
    x[0, :, 3, 3] = 2.0
    assert float(cram(x)[0, :, 3, 3].detach().norm()) < 0.8 * float(x[0, :, 3, 3].norm())


def test_dense_starts_as_the_identity() -> None:
    torch.manual_seed(0)
    cram, x = Cram(6, 4, "dense"), features(2, 6, 4, 4)
    assert torch.equal(cram(x), x)
    cram.initialise(features(40, 6), seed=0)
    assert torch.equal(cram(x), x)


def test_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="none"):
        Cram(6, 4, "none")


# --- initialisation ---


def clusters(per_cluster: int = 20) -> tuple[Tensor, Tensor]:
    means = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    return means, (means.repeat(per_cluster, 1) + 0.1 * features(4 * per_cluster, 2))


@pytest.mark.parametrize("seed", range(5))
def test_initialise_finds_separated_clusters(seed: int) -> None:
    means, rows = clusters()
    cram = Cram(2, 4, "rebuild")
    cram.initialise(rows, seed)
    nearest = torch.cdist(means, cram.centres.detach()).min(1)
    assert sorted(nearest.indices.tolist()) == [0, 1, 2, 3]
    assert float(nearest.values.max()) < 0.1
    assert float(cram.assign(rows.unsqueeze(0)).detach().amax(-1).min()) > 0.99


def test_initialise_sets_the_sharpness_by_the_spread() -> None:
    _, rows = clusters()
    cram = Cram(2, 4, "rebuild")
    cram.initialise(rows, 0)
    squares = torch.cdist(rows.double(), cram.centres.detach().double()).min(1).values.square()
    assert float(cram.log_sharpness.detach()) == pytest.approx(
        -float(squares.mean().log()), abs=1e-3
    )


def test_initialise_is_a_function_of_the_seed() -> None:
    rows = features(200, 5)
    states = []
    for seed, disturb in ((3, 0), (3, 99), (4, 0)):
        torch.manual_seed(disturb)
        np.random.seed(disturb)
        cram = Cram(5, 8, "rebuild")
        cram.initialise(rows, seed)
        states.append(cram.centres.detach().clone())
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_initialise_leaves_the_global_generators_alone() -> None:
    cram = Cram(5, 8, "rebuild")
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    cram.initialise(features(50, 5), 0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


DISTINCT = torch.tensor([[0.0, 1.0], [5.0, 1.0], [0.0, -7.0]])


@pytest.mark.parametrize(
    "rows",
    [
        DISTINCT,
        DISTINCT.repeat(20, 1),
        DISTINCT[:1],
        DISTINCT[:1].repeat(40, 1),
        torch.zeros(40, 2),
        torch.zeros(1, 2),
        torch.full((40, 2), 5.0),
    ],
    ids=["3 rows", "3 rows 20 times", "1 row", "1 row 40 times", "zeros", "one zero", "fives"],
)
@pytest.mark.parametrize("seed", range(3))
def test_initialise_with_fewer_distinct_rows_than_centres(rows: Tensor, seed: int) -> None:
    cram = Cram(2, 8, "rebuild")
    cram.initialise(rows, seed)
    centres = cram.centres.detach()
    assert bool(torch.isfinite(centres).all()) and bool(torch.isfinite(cram.log_sharpness).all())
    # every row has its centre, every centre is near a row
    distance = torch.cdist(rows.double(), centres.double())
    assert float(distance.min(1).values.max()) < 0.1
    assert float(distance.min(0).values.max()) < 0.1
    # equal centres would get equal gradients and stay equal for ever
    assert len(torch.unique(centres, dim=0)) == 8
    y = cram(features(2, 2, 3, 3))
    assert bool(torch.isfinite(y).all())


@pytest.mark.parametrize("form", FORMS)
def test_initialise_takes_features_of_any_size(form: str) -> None:
    for scale in (1e-2, 1e3):
        rows = scale * features(60, 6)
        cram = Cram(6, 8, form)
        cram.initialise(rows, 0)
        y = cram(rows.T.reshape(1, 6, 6, 10))
        assert bool(torch.isfinite(y).all())
        assert (
            float(cram.assign(rows.unsqueeze(0)).detach().amax(-1).mean()) > 0.25
        )  # neither uniform nor scale dependent
