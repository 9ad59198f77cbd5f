"""The assembled network: maps and scores from pixels; seeds; unsuitable sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from snl.errors import SettingsError
from snl.model.anomaly import anomaly_map
from snl.model.error_statistics import embed
from snl.model.network import Network
from snl.settings import Settings, resolve

METHODS = ["rd", "fd", "snl-rd", "snl-fd", "snl"]


def settings_of(method: str = "snl-rd", **overrides: Any) -> Settings:
    changes = {name.replace("__", "."): value for name, value in overrides.items()}
    return resolve(
        method,
        overrides={
            "teacher.name": "test_resnet",
            "teacher.weights": "random",
            "image_size": 64,
            "cram.centres": 4,
            **changes,
        },
    )


def pixels(batch: int = 2, side: int = 64, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8))


def test_normalisation() -> None:
    for name in ("test_resnet", "resnet18"):  # their means differ
        network = Network(settings_of(teacher__name=name))
        x = pixels()
        got = network.normalise(x)
        mean, std = np.array(network.teacher.mean), np.array(network.teacher.std)
        wanted = (x.numpy().astype(np.float64) / 255 - mean) / std
        assert got.shape == (2, 3, 64, 64) and got.dtype == torch.float32
        np.testing.assert_allclose(got.permute(0, 2, 3, 1).numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_maps_and_scores(method: str) -> None:
    network = Network(settings_of(method)).eval()
    with torch.no_grad():
        maps, scores, _ = network(pixels())
    assert maps.shape == (2, 64, 64) and scores.shape == (2,)
    assert maps.dtype == scores.dtype == torch.float32
    assert bool(torch.isfinite(maps).all())
    assert float(maps.min()) > -1e-5 and float(maps.max()) < 2 * 3 + 1e-5
    torch.testing.assert_close(scores, maps.flatten(1).amax(1))
    with torch.no_grad():
        alone = network(pixels()[1:])[0]
    torch.testing.assert_close(maps[1:], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [64, 96])
def test_sigma_scales_with_the_input(size: int) -> None:
    network = Network(settings_of(image_size=size, map__sigma=8.0)).eval()
    images = network.normalise(pixels(1, size))
    features = network.teacher_features(images)
    with torch.no_grad():
        student = network.student(images, features).features
        maps, _ = network.compare(features, student)
    wanted = anomaly_map(features, student, (size, size), 8.0 * size / 256)
    torch.testing.assert_close(maps, wanted)


def test_score_settings_are_used() -> None:
    network = Network(settings_of(map__score="topk", map__top_share=0.5)).eval()
    with torch.no_grad():
        maps, scores, _ = network(pixels())
    torch.testing.assert_close(scores, maps.flatten(1).topk(2048, 1).values.mean(1))


def state(seed: int, method: str = "snl-rd") -> dict[str, Tensor]:
    return Network(settings_of(method, training__seed=seed)).state_dict()


@pytest.mark.parametrize("method", METHODS)
def test_weights_are_a_function_of_the_seed(method: str) -> None:
    first = state(3, method)
    torch.manual_seed(99)
    again, other = state(3, method), state(4, method)
    assert all(torch.equal(first[k], again[k]) for k in first)
    weights = [k for k in first if k.endswith("weight") and first[k].ndim > 1]
    zero = [k for k in weights if not first[k].any()]  # CRAM `dense` starts as the identity
    assert all("cram" in k and k.endswith("mix.weight") for k in zero)
    weights = [k for k in weights if k not in zero]
    differ = [not torch.equal(first[k], other[k]) for k in weights]
    assert all(differ)


def test_teacher_is_the_same_for_every_method() -> None:
    states = [state(0, method) for method in METHODS]
    for name in states[0]:
        if name.startswith("teacher."):
            assert all(torch.equal(states[0][name], s[name]) for s in states)


def test_building_leaves_the_global_generators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.random.default_generator.manual_seed(7)
    np.random.seed(7)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    Network(settings_of())
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert not seeded  # nor those of other devices


def test_largest_seed() -> None:
    Network(settings_of(training__seed=2**63 - 1))


def test_state_holds_weights_only_and_fits_another_network() -> None:
    network = Network(settings_of()).eval()
    names = network.state_dict().keys()
    assert "mean" not in names and "std" not in names
    assert {name.split(".")[0] for name in names} == {"teacher", "student", "statistics"}
    other = Network(settings_of(training__seed=1)).eval()
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(other(pixels())[0], network(pixels())[0])


def test_only_the_student_is_trained() -> None:
    network = Network(settings_of()).train()
    assert network.student.training and not network.teacher.training
    assert not any(p.requires_grad for p in network.teacher.parameters())
    assert all(p.requires_grad for p in network.student.parameters())
    features = network.teacher_features(network.normalise(pixels()))
    assert not any(f.requires_grad for f in features)


@pytest.mark.parametrize(
    ("method", "size", "multiple"),
    [("rd", 80, 32), ("snl-rd", 100, 32), ("fd", 72, 16), ("fd", 65, 16)],
)
def test_size_that_is_no_multiple_is_refused(method: str, size: int, multiple: int) -> None:
    with pytest.raises(SettingsError, match=rf"'image_size' is {size}.*multiple of {multiple}"):
        Network(settings_of(method, image_size=size))


def test_size_that_is_a_multiple_is_taken() -> None:
    for method, size in (("fd", 80), ("rd", 96)):
        network = Network(settings_of(method, image_size=size)).eval()
        with torch.no_grad():
            assert network(pixels(1, size))[0].shape == (1, size, size)
        assert network.size == (size, size)


def test_stages_settle_the_multiple() -> None:
    Network(settings_of("rd", image_size=80, teacher__stages=(1, 2)))  # strides 4 and 8
    with pytest.raises(SettingsError, match="multiple of 16"):
        Network(settings_of("rd", image_size=72, teacher__stages=(1, 2)))


def test_depths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"student\.blocks"):
        Network(settings_of("rd", student__blocks=(1, 2)))


def test_teachers_that_cannot_be_built_are_refused() -> None:
    with pytest.raises(SettingsError, match="no network"):
        Network(settings_of(teacher__name="nothing_like_it"))
    with pytest.raises(SettingsError, match=r"teacher\.stages"):
        Network(settings_of(teacher__stages=(9,)))


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 2.0), (1.0, 2.0, 3.0, 4.0)])
def test_another_number_of_stage_weights_is_refused(weights: tuple[float, ...]) -> None:
    message = rf"'map\.stage_weights' has {len(weights)} numbers; the teacher has 3 stages"
    with pytest.raises(SettingsError, match=message) as caught:
        Network(settings_of(map__stage_weights=weights))
    assert "\n" not in str(caught.value)


def test_stage_weights_of_a_merged_teacher() -> None:
    Network(settings_of(teacher__merge="concatenate", map__stage_weights=(2.0,)))
    with pytest.raises(SettingsError, match="the teacher has 1 stages"):
        Network(settings_of(teacher__merge="concatenate", map__stage_weights=(1.0, 1.0, 1.0)))


def test_maps_are_divided_by_the_normal_score_of_their_image() -> None:
    network = Network(settings_of("snl", map__normalisation_clusters=2)).eval()
    x = pixels(4)
    x[2:] //= 8
    features = network.teacher_features(network.normalise(x))
    with torch.no_grad():
        student = network.student(network.normalise(x), features).features
        wanted, _ = network.compare(features, student)
        torch.testing.assert_close(wanted, network.unnormalised(features, student))
        rows = embed(features)
        scores = torch.tensor([1.0, 1.0, 100.0, 100.0])
        network.statistics.set_clusters(rows.repeat(10, 1), scores.repeat(10), 0)
        normal = network.statistics.normal_score(features)
        maps, scored = network.compare(features, student)
    assert float(normal.max() / normal.min()) > 2
    torch.testing.assert_close(maps, wanted / normal[:, None, None])
    torch.testing.assert_close(scored, wanted.flatten(1).amax(1) / normal)
    with torch.no_grad():
        torch.testing.assert_close(network(x)[0], maps)
