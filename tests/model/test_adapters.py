"""Adapters against weights that are changed as the adapter says, and the routing of images."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snl.model import adapters
from snl.model.adapters import Adapted, Router, adapt, grouped
from snl.model.base import Stage
from snl.model.error_statistics import ErrorStatistics, embed
from snl.model.network import Network
from snl.model.student import Block
from snl.runtime.fused import fused
from snl.settings import resolve
from tests.conftest import TINY

GENERATOR = torch.Generator().manual_seed(0)


def filled(layer: Any, groups: int = 3) -> Any:
    """Return a copy of a layer with random adapters for groups 1, 2, ..."""
    layer = copy.deepcopy(layer)
    adapt(nn.Sequential(layer), groups)
    for name in ("adapter_down", "adapter_up", "adapter_bias"):
        values = torch.randn(getattr(layer, name).shape, generator=GENERATOR) / 4
        values[0] = 0
        setattr(layer, name, values.half().float())
    return layer


def merged(layer: Any, adapted: Any, group: int) -> Any:
    """Return the layer with the adapter's matrix added to its weights."""
    layer = copy.deepcopy(layer)
    matrix = adapted.adapter_up[group] @ adapted.adapter_down[group]  # (outputs, inputs)
    with torch.no_grad():
        if isinstance(layer, nn.Linear):
            layer.weight += matrix
        elif isinstance(layer, nn.ConvTranspose2d):  # nearest: the same at all four positions
            layer.weight += matrix.T[:, :, None, None]
        elif layer.kernel_size == (1, 1) and layer.stride == (1, 1):
            layer.weight += matrix[:, :, None, None]
        else:  # a stride keeps the pixel in the middle of the kernel
            layer.weight[:, :, 1, 1] += matrix
        if layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros(len(matrix)))
        layer.bias += adapted.adapter_bias[group]
    return layer


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "3 x 3": (nn.Conv2d(5, 7, 3, padding=1, bias=False), (5, 8, 6)),
    "1 x 1": (nn.Conv2d(5, 7, 1), (5, 8, 6)),
    "stride 2": (nn.Conv2d(5, 7, 3, 2, padding=1), (5, 8, 6)),
    "transposed": (nn.ConvTranspose2d(5, 7, 2, 2, bias=False), (5, 4, 3)),
    "linear": (nn.Linear(5, 7), (11, 5)),
    "linear of a grid": (nn.Linear(5, 7), (4, 3, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_an_adapter_is_a_change_of_the_weights(name: str) -> None:
    layer, shape = LAYERS[name]
    adapted = filled(layer)
    x = torch.randn(4, *shape, generator=GENERATOR)
    groups = torch.tensor([2, 0, 1, 2])
    with grouped(groups):
        found = adapted(x)
    for row, group in enumerate(groups.tolist()):
        expected = merged(layer, adapted, group)(x[row : row + 1])
        torch.testing.assert_close(found[row : row + 1], expected, rtol=1e-4, atol=1e-5)
    with grouped(torch.tensor(1)):  # one group for all
        torch.testing.assert_close(adapted(x), merged(layer, adapted, 1)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_images_of_the_first_group_get_the_same_in_every_bit(name: str) -> None:
    layer, shape = LAYERS[name]
    adapted = filled(layer)
    x = torch.randn(2, *shape, generator=GENERATOR)
    with grouped(torch.tensor([0, 0])):
        assert torch.equal(adapted(x), layer(x))
    assert torch.equal(adapted(x), layer(x))


@pytest.mark.parametrize("name", [*LAYERS, "grouped", "patches"])
@torch.no_grad()
def test_what_is_trained_is_what_is_used(name: str) -> None:
    """The layer with other weights, as trained, and the sum, as used, are the same."""
    more = {
        "grouped": (nn.Conv2d(6, 6, 3, padding=1, groups=6), (6, 7, 9)),
        "patches": (nn.Conv2d(5, 7, 2, 2), (5, 7, 9)),
    }
    layer, shape = {**LAYERS, **more}[name]
    student = nn.Sequential(copy.deepcopy(layer))
    adapt(student, 2)
    x = torch.randn(3, *shape, generator=GENERATOR)
    with adapters.training(student, 0):
        for part in ("new_up", "new_bias"):
            value = getattr(student[0], part)
            value.copy_(torch.randn(value.shape, generator=GENERATOR) / 4)
        trained = student(x)
    with grouped(torch.tensor([1, 1, 1])):
        torch.testing.assert_close(student(x), trained, rtol=5e-3, atol=5e-3)  # half precision
    assert not torch.allclose(student(x), trained, atol=0.05)


@torch.no_grad()
def test_odd_sizes_of_a_stride(name: str = "stride 2") -> None:
    layer, _ = LAYERS[name]
    with grouped(torch.tensor([1])):
        assert filled(layer)(torch.zeros(1, 5, 7, 9)).shape == (1, 7, 4, 5)


def test_only_the_new_adapter_is_trained() -> None:
    student = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    adapt(student, 2)
    before = copy.deepcopy(student.state_dict())
    x, target = torch.randn(6, 3, 5, 5, generator=GENERATOR), torch.ones(6, 2, 5, 5)
    with adapters.training(student, seed=1):
        optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], 0.05)
        first = None
        for _ in range(60):
            loss = (student(x) - target).square().mean()
            first = first or float(loss.detach())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        trained = student(x).detach()
    assert float(loss.detach()) < 0.2 * (first or 0)
    after = student.state_dict()
    for name, value in before.items():
        assert torch.equal(value, after[name]) != ("adapter_" in name and ".1" in name), name
    with grouped(torch.tensor([1] * 6)):
        torch.testing.assert_close(student(x), trained, rtol=2e-3, atol=2e-3)  # half precision
    assert all(p.requires_grad for p in student.parameters())


def test_an_interrupted_training_changes_nothing() -> None:
    student = nn.Sequential(nn.Conv2d(3, 4, 1))
    adapt(student, 2)
    before = copy.deepcopy(student.state_dict())
    with pytest.raises(KeyboardInterrupt), adapters.training(student, 0):
        raise KeyboardInterrupt
    weights = {k: v for k, v in student.state_dict().items() if "new_" not in k}
    assert weights.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in weights.items())


def test_weights_are_stored_by_group_and_read_again() -> None:
    layer = filled(nn.Conv2d(3, 4, 3))
    state = layer.state_dict()
    assert {name for name in state if "adapter" in name} == {
        f"adapter_{part}.{group}" for part in ("down", "up", "bias") for group in (1, 2)
    }
    assert state["adapter_up.1"].dtype == torch.float16
    again: Any = nn.Conv2d(3, 4, 3)
    adapt(nn.Sequential(again), 3)
    again.load_state_dict(state)
    for name in ("adapter_down", "adapter_up", "adapter_bias"):
        assert torch.equal(getattr(again, name), getattr(layer, name))
    assert adapters.groups_in({f"student.0.{name}": 0 for name in state}) == 3


def test_the_router_chooses_the_nearest_gate() -> None:
    router = Router(2)
    router.set_gates(torch.tensor([[0.0, 0], [4, 0], [0, 4]]), torch.tensor([0, 2, 1]))
    found = router(torch.tensor([[0.1, 0.1], [3, 1], [1, 3], [9, 0]]))
    assert found.tolist() == [0, 2, 1, 2]


@torch.no_grad()
def test_statistics_of_a_group_are_used_for_its_images() -> None:
    stages = [Stage(3, 4), Stage(5, 8)]
    several, alone = ErrorStatistics(stages, 2), [ErrorStatistics(stages, 2) for _ in range(2)]
    several.resize(2)
    rows = torch.randn(60, 8, generator=GENERATOR)
    for number, one in enumerate(alone):
        for target in (one, several.of(number)):
            target.set_moments(
                [torch.full((s.channels,), 0.1 * number) for s in stages],
                [torch.full((s.channels,), 1.0 + number) for s in stages],
            )
            target.set_clusters(rows + number, torch.arange(60.0) + 1 + 9 * number, 0)
    t = [torch.randn(4, s.channels, 6, 6, generator=GENERATOR) for s in stages]
    s = [x + 0.3 * torch.randn(x.shape, generator=GENERATOR) for x in t]
    groups = torch.tensor([1, 0, 0, 1])
    with grouped(groups):
        found = several.standardised(1, t[1], s[1])
        normal = several.normal_score(t)
    for row, group in enumerate(groups.tolist()):
        expected = alone[group].standardised(1, t[1], s[1])[row]
        torch.testing.assert_close(found[row], expected)
        torch.testing.assert_close(normal[row], alone[group].normal_score(t)[row])


@torch.no_grad()
def test_a_network_routes_every_image(method: str = "snl") -> None:
    """Every image of a mixed batch gets what a network of its group alone computes."""
    network = Network(resolve(method, overrides=TINY)).eval()
    pixels = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8, generator=GENERATOR)
    pixels[2:] //= 8
    base = [output.clone() for output in network(pixels)]
    rows = embed(network.teacher_features(network.normalise(pixels)))
    assert network.add_group(rows[2:], rows[:2], rows[:0]) == 1
    for layer in adapters.layers(network.student):
        layer.adapter_up = torch.randn(layer.adapter_up.shape, generator=GENERATOR) * 0.1
        layer.adapter_up[0] = 0
        layer.adapter_down = torch.randn(layer.adapter_down.shape, generator=GENERATOR) * 0.1
        layer.adapter_down[0] = 0
    found = network(pixels)
    assert all(torch.equal(one[:2], other[:2]) for one, other in zip(found, base, strict=True))
    assert not torch.allclose(found[0][2:], base[0][2:], rtol=1e-3)
    for quick in (network(pixels[2:]), fused(network)(pixels)):
        own = quick[0][-2:]
        torch.testing.assert_close(own, found[0][2:], rtol=1e-3, atol=1e-5)


def test_blocks_of_every_scale_have_adapters() -> None:
    for scale in ("same", "down", "up"):
        block = Block(6, 8, 8, scale)
        adapt(block, 2)
        assert all(isinstance(m, Adapted) for m in block.modules() if isinstance(m, nn.Conv2d))
        with grouped(torch.tensor([0, 1])):
            y: Tensor = block(torch.randn(2, 6, 8, 8, generator=GENERATOR))
        assert y.shape[1] == 8
