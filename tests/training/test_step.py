"""One training step against gradients computed by hand: weights, targets, and losses of a student.

The student is one matrix per stage, S = W X at every position, so that with a mean squared error
dL/dW = sum over positions of 2 (S - T) X^T / size is known in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snl.errors import TrainingError
from snl.model.base import Batch, Student, StudentOutput
from snl.model.losses import BatchFeatures
from snl.model.network import Network
from snl.registry import register_loss
from snl.settings import resolve
from snl.training.loop import train_step
from tests.conftest import TINY

LR = 0.5
SIZES = ((6, 5, 4), (4, 3, 2))
"""Channels, height and width of the stages."""


class Linear(Student):
    """S = W X; a loss of its own is half the squared norm of `free`, its code twice `free`."""

    def __init__(self, extras: bool) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(1)
        self.maps = nn.ParameterList(torch.randn(c, c, generator=rng) for c, _, _ in SIZES)
        self.free = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
        self.extras = extras
        self.received: list[Tensor] = []

    def forward(self, images: Tensor, features: Sequence[Tensor]) -> StudentOutput:
        self.received = [images, *features]
        outputs = [
            torch.einsum("dc,bchw->bdhw", w, x) for w, x in zip(self.maps, features, strict=True)
        ]
        if not self.extras:
            return StudentOutput(outputs)
        return StudentOutput(
            outputs,
            auxiliary={"code": 2 * self.free},
            losses={"free": self.free.square().sum() / 2},
        )


def features(seed: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(3, *size, generator=rng) for size in SIZES]


def batch_of(weights: list[Tensor] | None = None) -> Batch:
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return Batch(images, inputs=features(3), targets=features(4), weights=weights)


def step(
    batch: Batch, extras: bool = False, number: int = 1, **changes: Any
) -> tuple[Linear, Linear, dict[str, Any]]:
    """One step of plain gradient descent; returns the student before and after, and the record."""
    names = {name.replace("__", "."): value for name, value in changes.items()}
    fixed = {"loss.global_cosine": 0, "training.gradient_clip": 0, "training.steps": 100}
    if "loss.mse" not in names:
        fixed["loss.mse"] = 1.0
    network = Network(resolve("rd", overrides={**TINY, **fixed, **names}))
    student = network.student = Linear(extras)
    record = train_step(network, torch.optim.SGD(student.parameters(), LR), batch, number)
    return Linear(extras), student, record


def mse_gradients(batch: Batch) -> list[np.ndarray]:
    """dL/dW (C, C) of every stage in float64, position by position."""
    gradients = []
    for stage, w in enumerate(Linear(False).maps):
        matrix = w.detach().double().numpy()
        x, t = (f[stage].double().numpy() for f in (batch.inputs, batch.targets))
        total = np.zeros_like(matrix)
        for b, y, z in np.ndindex(x.shape[0], *x.shape[2:]):
            error = matrix @ x[b, :, y, z] - t[b, :, y, z]
            weight = 1.0 if batch.weights is None else float(batch.weights[stage][b, 0, y, z])
            total += weight * 2 / x.size * np.outer(error, x[b, :, y, z])
        gradients.append(total)
    return gradients


def mse_value(batch: Batch) -> float:
    total = 0.0
    for w, x, t in zip(Linear(False).maps, batch.inputs, batch.targets, strict=True):
        s = np.einsum("dc,bchw->bdhw", w.detach().double().numpy(), x.double().numpy())
        total += float(np.mean((s - t.double().numpy()) ** 2))
    return total


def assert_descended(before: Linear, after: Linear, gradients: list[np.ndarray]) -> None:
    for old, new, gradient in zip(before.maps, after.maps, gradients, strict=True):
        change = (new - old).detach().double().numpy()
        np.testing.assert_allclose(change, -LR * gradient, rtol=1e-4, atol=1e-6)


def position_weights() -> list[Tensor]:
    """Of every kind: 0, above 1, negative; another one at every position."""
    rng = torch.Generator().manual_seed(5)
    weights = [2 * torch.randn(3, 1, h, w, generator=rng) for _, h, w in SIZES]
    weights[0][0] = 0
    return weights


def test_student_receives_inputs_and_reproduces_targets() -> None:
    batch = batch_of()
    before, after, record = step(batch)
    assert all(a is b for a, b in zip(after.received, [batch.images, *batch.inputs], strict=True))
    assert_descended(before, after, mse_gradients(batch))
    assert record["step"] == 1 and record["terms"].keys() == {"mse"}
    assert record["loss"] == pytest.approx(mse_value(batch), rel=1e-5)
    norm = np.sqrt(sum(float((g**2).sum()) for g in mse_gradients(batch)))
    assert record["gradient"] == pytest.approx(norm, rel=1e-4)
    assert torch.equal(after.free, before.free) and len(batch) == 3


def test_weights_scale_the_gradient_of_every_position() -> None:
    batch = batch_of(position_weights())
    before, after, record = step(batch)
    assert_descended(before, after, mse_gradients(batch))
    plain = mse_gradients(replace(batch, weights=None))
    assert all(
        not np.allclose(a, b, rtol=0.1) for a, b in zip(plain, mse_gradients(batch), strict=True)
    )
    assert record["loss"] == pytest.approx(mse_value(batch), rel=1e-5)  # the value stays


def test_weights_of_one_change_nothing_and_of_zero_stop_learning() -> None:
    ones = [torch.ones(3, 1, h, w) for _, h, w in SIZES]
    _, plain, _ = step(batch_of())
    _, same, _ = step(batch_of(ones))
    assert all(torch.equal(a, b) for a, b in zip(plain.maps, same.maps, strict=True))
    before, after, record = step(batch_of([0 * w for w in ones]))
    assert all(torch.equal(a, b) for a, b in zip(before.maps, after.maps, strict=True))
    assert record["gradient"] == 0 and record["loss"] > 0


def test_weights_and_hard_mining_are_multiplied() -> None:
    weights = position_weights()
    batch = batch_of(weights)
    mining = {"loss__hard_mining": 0.5, "loss__hard_mining_factor": 0.25}
    before, after, _ = step(batch, number=100, **mining)
    factors = []
    for w, x, t in zip(before.maps, batch.inputs, batch.targets, strict=True):
        s = np.einsum("dc,bchw->bdhw", w.detach().double().numpy(), x.double().numpy())
        a, b = s, t.double().numpy()
        cosine = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
        easy = cosine >= np.sort(cosine.ravel())[::-1][int(np.ceil(0.5 * cosine.size)) - 1]
        factors.append(torch.from_numpy(np.where(easy, 0.25, 1.0))[:, None])
    both = [f * w for f, w in zip(factors, weights, strict=True)]
    assert_descended(before, after, mse_gradients(replace(batch, weights=both)))


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_losses_of_the_student_are_added_with_weight_one(weight: float) -> None:
    batch = batch_of()
    before, after, record = step(batch, extras=True, loss__mse=weight)
    assert_descended(before, after, [weight * g for g in mse_gradients(batch)])
    # d/df of |f|^2 / 2 is f
    torch.testing.assert_close(after.free, before.free - LR * before.free)
    assert record["terms"] == pytest.approx({"mse": mse_value(batch), "free": 7.0}, rel=1e-5)
    assert record["loss"] == pytest.approx(weight * mse_value(batch) + 7.0, rel=1e-5)


@dataclass(frozen=True)
class CodeSettings:
    weight: float = 0.0
    exponent: int = 2


def code_loss(batch: BatchFeatures, settings: CodeSettings) -> Tensor:
    return batch.progress * batch.output.auxiliary["code"].pow(settings.exponent).sum()


@pytest.mark.usefixtures("no_parts_remain")
def test_auxiliary_outputs_reach_the_losses_of_a_batch() -> None:
    register_loss("code", settings=CodeSettings, scope="batch")(code_loss)
    batch = batch_of(position_weights())
    changes = {"loss.code.weight": 0.1, "loss.code.exponent": 3}
    before, after, record = step(batch, extras=True, number=50, **changes)
    assert_descended(before, after, mse_gradients(batch))
    # 0.1 * 0.5 * sum (2 f)^3, derivative 0.05 * 3 * (2 f)^2 * 2, and f of the student's own loss
    f = before.free.detach().double()
    expected = f - LR * (0.05 * 3 * (2 * f) ** 2 * 2 + f)
    torch.testing.assert_close(after.free.detach().double(), expected, rtol=1e-5, atol=1e-6)
    code = 0.5 * float(((2 * f) ** 3).sum())
    assert record["terms"] == pytest.approx(
        {"mse": mse_value(batch), "code": code, "free": 7.0}, rel=1e-5
    )
    assert record["loss"] == pytest.approx(mse_value(batch) + 0.1 * code + 7.0, rel=1e-5)


def test_a_loss_of_the_student_that_is_not_finite_is_reported() -> None:
    network = Network(resolve("rd", overrides=TINY))
    student = network.student = Linear(extras=True)
    with torch.no_grad():
        student.free[0] = float("inf")
    optimizer = torch.optim.SGD(student.parameters(), LR)
    before = [w.clone() for w in student.maps]
    with pytest.raises(TrainingError, match=r"step 4: the loss term 'free' is inf"):
        train_step(network, optimizer, batch_of(), 4)
    assert all(torch.equal(a, b) for a, b in zip(before, student.maps, strict=True))


def test_bf16_losses_of_the_student_are_logged_with_the_others() -> None:
    """Under autocast a student's loss can have another dtype than the terms."""

    class Half(Linear):
        def forward(self, images: Tensor, features: Sequence[Tensor]) -> StudentOutput:
            output = super().forward(images, features)
            return output._replace(losses={"free": self.free.bfloat16().square().sum()})

    network = Network(resolve("rd", overrides=TINY))
    network.student = Half(extras=True)
    optimizer = torch.optim.SGD(network.student.parameters(), LR)
    record = train_step(network, optimizer, batch_of(), 1, "bf16")
    assert record["terms"]["free"] == 14 and np.isfinite(record["gradient"])
