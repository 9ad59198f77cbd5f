"""The memory of normal patches: distances against SciPy, the coreset against a loop, limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

import snl
from snl.model.error_statistics import embed
from snl.model.memory import (
    COMPONENTS,
    FLOOR,
    PatchMemory,
    bank_of,
    coreset,
    nearest_distance,
    patch_features,
    principal_axes,
)
from snl.model.network import Network
from snl.settings import resolve
from snl.training.fit_statistics import PATCHES_PER_REMEMBERED, fit_statistics
from tests.conftest import TINY

WIDTH = 7
"""Of embeddings."""


def rows_of(count: int, channels: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(count, channels, generator=torch.Generator().manual_seed(seed))


def remembered(rows: Tensor, size: int, count: int | None = None) -> PatchMemory:
    memory = PatchMemory(rows.shape[1], WIDTH, size)
    bank = bank_of(rows, size if count is None else min(size, count))
    memory.set_banks([bank], memory.gates, [0])
    return memory


def novelty(memory: PatchMemory, features: Tensor) -> Tensor:
    """Of images whose embeddings do not matter, because there is one bank."""
    return memory(features, torch.zeros(len(features), WIDTH))


# --- distances ---


@pytest.mark.parametrize("patches", [1, 7, 1024, 1025, 2500])
def test_distance_is_the_euclidean_one(patches: int) -> None:
    rows, others = rows_of(50), rows_of(patches, seed=1)
    wanted = cdist(rows.double().numpy(), others.double().numpy()).min(1)
    got = nearest_distance(rows[None], others)[0]
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_far_from_the_origin_the_novelty_keeps_its_digits() -> None:
    rows, new = rows_of(400), rows_of(64, seed=1)
    near = novelty(remembered(rows, 50), _constant(new))
    far = novelty(remembered(rows + 30, 50), _constant(new + 30))
    torch.testing.assert_close(near, far, rtol=2e-3, atol=1e-3)


def test_axes_are_those_of_the_largest_variance() -> None:
    from sklearn.decomposition import PCA

    rows = rows_of(3000, 40) * torch.linspace(0.1, 4, 40)
    rows = rows - rows.mean(0)
    axes = principal_axes(rows, 7)
    wanted = PCA(7, svd_solver="full").fit(rows.double().numpy()).components_
    np.testing.assert_allclose(np.abs(wanted @ axes.double().numpy()), np.eye(7), atol=1e-3)


def test_distances_are_those_in_the_principal_components() -> None:
    from sklearn.decomposition import PCA

    rows, new = rows_of(900, 50) * torch.linspace(1, 3, 50), rows_of(64, 50, seed=1)
    memory = remembered(rows, 60)
    assert memory.patches.shape == (1, 60, COMPONENTS)
    pca = PCA(COMPONENTS, svd_solver="full").fit(rows.double().numpy())
    known, seen = (
        pca.transform(rows.numpy()),
        pca.transform(patch_features(_constant(new))[:, 0].numpy()),
    )
    chosen = coreset((rows - memory.centres) @ memory.axes[0], 60).numpy()
    left_out = np.setdiff1d(np.arange(900), chosen)
    scale = cdist(known[left_out], known[chosen]).min(1).mean()
    wanted = np.sqrt((cdist(seen, known[chosen]).min(1) / scale) ** 2 + FLOOR**2)
    np.testing.assert_allclose(novelty(memory, _constant(new)).flatten().numpy(), wanted, rtol=1e-3)


def test_an_image_gets_the_same_novelty_alone_and_in_a_batch() -> None:
    memory = remembered(rows_of(5000, 64), 1500)
    features = rows_of(64 * 16 * 16, 9).T.reshape(9, 64, 16, 16)
    together = novelty(memory, features)
    for i in range(9):
        torch.testing.assert_close(
            novelty(memory, features[[i]])[0], together[i], rtol=1e-4, atol=1e-5
        )


def test_patch_features_are_means_over_neighbours() -> None:
    features = rows_of(10).view(2, 3, 5, 4)
    got = patch_features(features).view(2, 5, 4, 3)
    for b in range(2):
        for y in range(5):
            for x in range(4):
                around = features[b, :, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                torch.testing.assert_close(got[b, y, x], around.sum((1, 2)) / 9)


def test_novelty_is_one_for_the_patches_left_out_and_the_floor_for_those_kept() -> None:
    rows = rows_of(300)
    memory = remembered(rows, 40)
    chosen = coreset((rows - memory.centres) @ memory.axes[0], 40)
    kept = novelty(memory, _constant(rows[chosen]))
    torch.testing.assert_close(kept, torch.full_like(kept, FLOOR), rtol=0.01, atol=0)
    others = torch.tensor(sorted(set(range(300)) - set(chosen.tolist())))
    squares = novelty(memory, _constant(rows[others])).square() - FLOOR**2
    assert float(squares.clamp_min(0).sqrt().mean()) == pytest.approx(1, rel=1e-3)


def _constant(rows: Tensor) -> Tensor:
    """Images of one position each, whose patch features are the rows."""
    return 9 * rows[:, :, None, None]


# --- the coreset ---


def test_coreset_is_the_greedy_one() -> None:
    rows = rows_of(120, 5)
    chosen = [int(rows.square().sum(1).argmax())]
    while len(chosen) < 20:
        distance = cdist(rows.numpy(), rows[chosen].numpy()).min(1)
        chosen.append(int(distance.argmax()))
    assert coreset(rows, 20).tolist() == chosen


def test_coreset_covers_rare_rows() -> None:
    common = 0.01 * rows_of(1000) + 1
    rare = -3 * torch.eye(12)[:3]
    rows = torch.cat([common, rare])
    chosen = coreset(rows - rows.mean(0), 8)
    assert {1000, 1001, 1002} <= set(chosen.tolist())
    assert len(set(chosen.tolist())) == 8


def test_identical_rows() -> None:
    rows = torch.ones(20, 4)
    memory = remembered(rows, 8)
    assert bool(torch.isfinite(novelty(memory, _constant(rows))).all())
    assert len(set(coreset(rows - 1, 8).tolist())) == 8
    far = novelty(memory, _constant(rows + 1))
    assert bool(torch.isfinite(far).all()) and float(far.min()) > 1


@pytest.mark.parametrize(("count", "size"), [(1, 8), (2, 8), (5, 8), (9, 8)])
def test_fewer_rows_than_the_memory_holds(count: int, size: int) -> None:
    rows = rows_of(count)
    memory = remembered(rows, size)
    assert memory.patches.shape == (1, min(size, max(count - 1, 1)), 12)
    assert bool(torch.isfinite(novelty(memory, _constant(rows_of(3, seed=4)))).all())
    assert float(memory.scales) > 0


# --- fitted to images ---

OVERRIDES = {**TINY, "map.memory": 64}


def network_of(used: list[Path], **changes: Any) -> Network:
    from snl.training.untrained import standardise

    network = Network(resolve("snl", overrides={**OVERRIDES, **changes}))
    standardise(network, used)
    return network.eval()


@pytest.fixture(scope="module")
def used(parts: Path) -> list[Path]:
    return sorted(parts.glob("*/train/good/*.png"))


def state(network: Network) -> dict[str, Tensor]:
    assert network.memory is not None
    return {name: value.clone() for name, value in network.memory.state_dict().items()}


def test_the_share_of_remembered_patches_is_bounded(used: list[Path]) -> None:
    network = network_of(used)
    fit_statistics(network, used)
    assert network.memory is not None
    positions = (64 // network.teacher.stages[-1].stride) ** 2 * len(used)
    assert network.memory.patches.shape[1] == positions // PATCHES_PER_REMEMBERED


def test_it_is_filled_where_there_are_patches_enough(used: list[Path]) -> None:
    network = network_of(used, **{"map.memory": 3})
    fit_statistics(network, used)
    assert network.memory is not None
    assert network.memory.patches.shape[1] == 3


def test_the_map_is_that_of_the_student_times_the_novelty(used: list[Path]) -> None:
    network = network_of(used, **{"map.normalisation_clusters": 0})
    fit_statistics(network, used)
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        maps = network(pixels)[0]
        features = network.teacher_features(network.normalise(pixels))
        assert network.memory is not None
        factor = network.memory(features[-1], embed(features))
        network.memory = None
        alone = network(pixels)[0]
    ratio = maps / alone
    assert float(ratio.min()) >= float(factor.min()) - 1e-4
    assert float(ratio.max()) <= float(factor.max()) + 1e-4
    # the novelty is resized and smoothed, which keeps the mean of its interior
    assert float(ratio.mean()) == pytest.approx(float(factor.mean()), rel=0.1)


def test_fitting_again_gives_the_same(used: list[Path]) -> None:
    network = network_of(used)
    fit_statistics(network, used)
    first = state(network)
    fit_statistics(network, used)
    assert all(torch.equal(value, first[name]) for name, value in state(network).items())


def test_foreign_patches_are_novel(used: list[Path]) -> None:
    network = network_of(used)
    fit_statistics(network, used)
    assert network.memory is not None
    noise = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        features = network.teacher_features(network.normalise(noise))
        assert float(network.memory(features[-1], embed(features)).mean()) > 2


@pytest.mark.parametrize("teacher", ["test_vit.r160_in1k", "resnet18"])
def test_other_teachers(used: list[Path], teacher: str) -> None:
    side = 160 if "vit" in teacher else 64
    network = network_of(used, **{"teacher.name": teacher, "image_size": side, "map.memory": 8})
    fit_statistics(network, used)
    with torch.no_grad():
        maps = network(torch.zeros(1, side, side, 3, dtype=torch.uint8))[0]
    assert bool(torch.isfinite(maps).all()) and float(maps.min()) >= 0


# --- the bundle ---


def trained(parts: Path, tmp_path: Path, **changes: Any) -> Path:
    output = tmp_path / "a.snl"
    overrides = {**OVERRIDES, **changes}
    snl.train(parts, output=output, overrides=overrides, device="cpu", quiet=True)
    return output


def test_a_bundle_keeps_it(parts: Path, tmp_path: Path) -> None:
    file = trained(parts, tmp_path)
    loaded = snl.load(file, "cpu")
    assert loaded.network.memory is not None
    assert float(loaded.network.memory.patches.abs().sum()) > 0
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    again = snl.load(file, "cpu").predict(pixels)
    np.testing.assert_array_equal(loaded.predict(pixels).maps, again.maps)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_bundle_with_an_impossible_scale_is_refused(
    parts: Path, tmp_path: Path, value: float
) -> None:
    file = trained(parts, tmp_path)
    inspector = snl.load(file, "cpu")
    assert inspector.network.memory is not None
    inspector.network.memory.scales.fill_(value)
    broken = tmp_path / "b.snl"
    inspector.save(broken)
    with pytest.raises(snl.SnlError, match="train it again"):
        snl.load(broken)


@pytest.mark.parametrize(
    "shape", [(1, 65, 32), (1, 0, 32), (0, 4, 32), (2, 4, 32), (1, 4, 31), (4, 32), (32,)]
)
def test_a_bundle_with_patches_of_another_shape_is_refused(
    parts: Path, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    inspector = snl.load(trained(parts, tmp_path), "cpu")
    assert inspector.network.memory is not None
    assert inspector.network.memory.patches.shape[2] == 32
    inspector.network.memory.patches = torch.ones(shape)
    broken = tmp_path / "b.snl"
    inspector.save(broken)
    with pytest.raises(snl.SnlError, match="train it again"):
        snl.load(broken)


# --- banks of different sizes ---


def three_banks() -> PatchMemory:
    memory = PatchMemory(12, WIDTH, 100)
    memory.set_banks([bank_of(rows_of(400), 40)], memory.gates, [0])
    gates = torch.eye(WIDTH)
    memory.add_bank(bank_of(rows_of(300, seed=1) + 3, 7), gates[2:3], gates[:2], gates[:0])
    memory.add_bank(bank_of(rows_of(200, seed=2) - 3, 11), gates[3:5], gates[:3], gates[:0])
    return memory


def test_an_added_bank_is_used_by_the_images_of_its_products() -> None:
    memory = three_banks()
    assert memory.sizes == (40, 7, 11) and memory.banks.tolist() == [0, 0, 1, 2, 2]
    features = torch.rand(5, 12, 4, 4, generator=torch.Generator().manual_seed(3))
    embeddings = torch.eye(WIDTH)[:5] + 0.1
    alone = [
        remembered_bank(bank_of(rows, size))
        for rows, size in (
            (rows_of(400), 40),
            (rows_of(300, seed=1) + 3, 7),
            (rows_of(200, seed=2) - 3, 11),
        )
    ]
    wanted = [
        novelty(alone[number], features[i : i + 1]) for i, number in enumerate((0, 0, 1, 2, 2))
    ]
    torch.testing.assert_close(
        memory(features, embeddings), torch.cat(wanted), rtol=1e-4, atol=1e-4
    )


def remembered_bank(bank: Any) -> PatchMemory:
    memory = PatchMemory(12, WIDTH, 100)
    memory.set_banks([bank], memory.gates, [0])
    return memory


def test_banks_of_different_sizes_are_stored_without_repetition() -> None:
    memory = three_banks()
    state = memory.state_dict()
    assert [len(state[f"patches.{bank}"]) for bank in range(3)] == [40, 7, 11]
    again = PatchMemory(12, WIDTH, 100)
    again.load_state_dict(state)
    assert again.sizes == memory.sizes
    for name, value in memory.named_buffers():
        torch.testing.assert_close(getattr(again, name), value, rtol=0, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("patches.2"),
        lambda s: s.pop("patches.0"),
        lambda s: s.update({"patches.3": s["patches.1"]}),
        lambda s: s.update({"patches.1": s["patches.1"][:0]}),
        lambda s: s.update({"patches.1": s["patches.1"][0]}),
        lambda s: s.update({"patches.1": s["patches.1"][:, :2]}),
    ],
)
def test_banks_that_do_not_fit_are_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    state = three_banks().state_dict()
    change(state)
    with pytest.raises((ValueError, RuntimeError)):
        PatchMemory(12, WIDTH, 100).load_state_dict(state)


def test_gates_of_products_that_are_gone_are_removed() -> None:
    memory = three_banks()
    gates = torch.eye(WIDTH)
    new = bank_of(rows_of(100, seed=5), 5)
    memory.add_bank(new, gates[6:], gates[[0, 3]], gates[[1, 2, 4]])
    assert memory.sizes == (40, 11, 5)  # the second bank has no gate any more
    assert memory.banks.tolist() == [0, 1, 2]
    torch.testing.assert_close(memory.gates, gates[[0, 3, 6]])
