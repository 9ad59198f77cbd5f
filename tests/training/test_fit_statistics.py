"""Fitting: moments against a plain loop, normal scores, bad images, bundles, resuming."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import snl
from snl.cli.main import main
from snl.data.images import load_image, to_input
from snl.model.anomaly import anomaly_map
from snl.model.error_statistics import embed
from snl.model.network import Network
from snl.settings import resolve
from snl.training import fit_statistics as fitting
from snl.training.fit_statistics import fit_statistics
from snl.training.selection import split
from snl.training.untrained import standardise
from tests.conftest import TINY, TINY_OPTIONS

MEASURED = {"map.distance": "standardised", "map.normalisation_clusters": 3}


@pytest.fixture(scope="module")
def used(parts: Path) -> list[Path]:
    return sorted(parts.glob("*/train/good/*.png"))


@pytest.fixture(scope="module")
def held(parts: Path) -> list[Path]:
    return sorted(parts.glob("*/test/good/*.png"))


def network_of(used: Sequence[Path], method: str = "snl", **changes: Any) -> Network:
    """An untrained student of a teacher fitted to the images."""
    network = Network(resolve(method, overrides={**TINY, "cram.centres": 4, **changes}))
    standardise(network, used)
    return network.eval()


def buffers(network: Network) -> dict[str, Tensor]:
    known = ("statistics", "memory")
    return {k: v.clone() for k, v in network.state_dict().items() if k.startswith(known)}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def pixels_of(paths: Sequence[Path]) -> np.ndarray:
    return np.stack([to_input(load_image(path), 64) for path in paths])


@torch.no_grad()
def scores_of(network: Network, paths: Sequence[Path]) -> np.ndarray:
    return network(torch.from_numpy(pixels_of(paths)))[1].numpy()


@torch.no_grad()
def moments_loop(network: Network, paths: Sequence[Path]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean and standard deviation of every stage, image by image, in float64."""
    rows: list[list[np.ndarray]] = [[] for _ in network.teacher.stages]
    for path in paths:
        images = network.normalise(torch.from_numpy(pixels_of([path])))
        teacher = network.teacher_features(images)
        student = network.student(images, teacher).features
        for kept, t, s in zip(rows, teacher, student, strict=True):
            u, v = t[0].double().numpy(), s[0].double().numpy()
            for y in range(u.shape[1]):
                for x in range(u.shape[2]):
                    a, b = u[:, y, x], v[:, y, x]
                    kept.append(a / np.sqrt(a @ a) - b / np.sqrt(b @ b))
    return [(np.mean(kept, axis=0), np.std(kept, axis=0)) for kept in rows]


@torch.no_grad()
def clusters_of(network: Network, paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """The arguments of `set_clusters`: embeddings, and scores before normalisation."""
    images = network.normalise(torch.from_numpy(pixels_of(paths)))
    teacher = network.teacher_features(images)
    maps = network.unnormalised(teacher, network.student(images, teacher).features)
    return embed(teacher), maps.flatten(1).amax(1)


def assert_moments(network: Network, wanted: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for i, (mean, deviation) in enumerate(wanted):
        np.testing.assert_allclose(getattr(network.statistics, f"mean{i}").numpy(), mean, atol=1e-5)
        floor = 0.01 * np.sqrt(np.mean(deviation**2))
        got = getattr(network.statistics, f"deviation{i}").numpy()
        np.testing.assert_allclose(got, np.maximum(deviation, floor), rtol=1e-3, atol=1e-6)


def bad_files(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"bad{i}.png" for i in range(count)]
    for path in paths[:-1]:
        path.write_bytes(b"not an image")
    return paths  # the last one is missing


# --- moments ---


def test_moments_are_those_of_the_training_images(used: list[Path]) -> None:
    network = network_of(used, **MEASURED)
    fit_statistics(network, used)
    assert_moments(network, moments_loop(network, used))


def test_batches_do_not_matter(used: list[Path], held: list[Path]) -> None:
    network = network_of(used, **MEASURED)
    fit_statistics(network, (held * 5)[:17])  # a batch and one more
    assert_moments(network, moments_loop(network, (held * 5)[:17]))


def test_normal_images_have_a_mean_standardised_error_of_one(
    used: list[Path], held: list[Path]
) -> None:
    network = network_of(used, **{"map.normalisation_clusters": 0, "map.sigma": 0})
    fit_statistics(network, held)
    images = network.normalise(torch.from_numpy(pixels_of(held)))
    teacher = network.teacher_features(images)
    with torch.no_grad():
        student = network.student(images, teacher).features
        for i, (t, s) in enumerate(zip(teacher, student, strict=True)):
            # less than one only where a deviation is at its floor
            assert float(network.statistics.standardised(i, t, s).mean()) == pytest.approx(
                1, abs=0.02
            )


# --- score normalisation ---


@pytest.mark.parametrize("distance", ["cosine", "standardised"])
@pytest.mark.parametrize("score", ["max", "topk"])
def test_normalised_scores_of_normal_images_average_one(
    used: list[Path], held: list[Path], distance: str, score: str
) -> None:
    changes = {"map.distance": distance, "map.normalisation_clusters": 2, "map.score": score}
    network = network_of(used, **changes)
    fit_statistics(network, used * 5 + held * 3)  # 52 images: two centres
    assert int((network.statistics.centres.abs() < 2).all(1).sum()) == 2
    assert float(scores_of(network, used * 5 + held * 3).mean()) == pytest.approx(1, abs=0.05)
    for product in ("bolt", "plate"):
        paths = [path for path in used + held if product in path.parts]
        assert float(scores_of(network, paths).mean()) == pytest.approx(1, abs=0.15)


def test_one_cluster_divides_by_the_mean_score(used: list[Path], held: list[Path]) -> None:
    network = network_of(used, **{"map.normalisation_clusters": 1})
    plain = network_of(used, **{"map.normalisation_clusters": 0})
    for each in (network, plain):
        fit_statistics(each, used + held)
    wanted = scores_of(plain, used + held)
    assert float(network.statistics.normal_scores) == pytest.approx(float(wanted.mean()), rel=1e-4)
    np.testing.assert_allclose(scores_of(network, used + held), wanted / wanted.mean(), rtol=1e-4)


@pytest.mark.parametrize("count", [1, 2])
def test_one_image_once_or_twice(used: list[Path], count: int) -> None:
    network = network_of(used, **MEASURED)
    fit_statistics(network, used[:1] * count)
    assert scores_of(network, used[:1]) == pytest.approx([1], rel=1e-3)
    assert bool(np.isfinite(scores_of(network, used)).all())


def test_many_identical_images(used: list[Path]) -> None:
    network = network_of(used, **MEASURED)
    fit_statistics(network, used[:1] * 70)  # enough for three centres
    assert float(network.statistics.normal_scores.min()) == pytest.approx(
        float(network.statistics.normal_scores.max()), rel=1e-3
    )


# --- no effect on, and no effect of ---


def test_without_statistics_nothing_is_read_and_maps_are_unchanged(
    used: list[Path], held: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(used, "snl-rd")
    before = scores_of(network, held)
    monkeypatch.setattr(fitting, "read", lambda *_: pytest.fail("read"))
    calls: list[tuple[int, int]] = []
    fit_statistics(network, used, lambda *at: calls.append(at))
    assert not calls
    assert np.array_equal(scores_of(network, held), before)
    images = network.normalise(torch.from_numpy(pixels_of(held)))
    teacher = network.teacher_features(images)
    with torch.no_grad():
        student = network.student(images, teacher).features
        maps, _ = network.compare(teacher, student)
    assert torch.equal(maps, anomaly_map(teacher, student, (64, 64), 1.0))


def test_weights_are_unchanged_and_older_statistics_are_replaced(
    used: list[Path], held: list[Path]
) -> None:
    network = network_of(used, **MEASURED)
    parts = ("teacher", "student")
    weights = {k: v.clone() for k, v in network.state_dict().items() if k.startswith(parts)}
    fit_statistics(network, used + held)
    first = buffers(network)
    fit_statistics(network, used[:2])
    assert not same(first, buffers(network))
    fit_statistics(network, used + held)
    assert same(first, buffers(network))
    assert all(torch.equal(network.state_dict()[k], v) for k, v in weights.items())
    assert not network.training and not network.student.training


def test_threads_do_not_matter(used: list[Path], held: list[Path]) -> None:
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            network = network_of(used, **MEASURED)
            torch.set_num_threads(threads)
            fit_statistics(network, used[::4] + held[::2])
            # the axes of equal variance in the memory are arbitrary; the scores come from them
            known = buffers(network).items()
            results.append({k: v for k, v in known if k.startswith("statistics")})
    finally:
        torch.set_num_threads(before)
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["fd", "snl-fd", "uniad"])
def test_every_student(used: list[Path], held: list[Path], method: str) -> None:
    network = network_of(used, method, **MEASURED)
    fit_statistics(network, used + held)
    assert float(scores_of(network, used + held).mean()) == pytest.approx(1, abs=0.05)


# --- many and bad images ---


def test_many_images_are_sampled_evenly(
    used: list[Path], held: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "MAX_FOR_CLUSTERS", 5)
    monkeypatch.setattr(fitting, "MAX_FOR_MOMENTS", 3)
    monkeypatch.setattr(fitting, "MAX_FOR_MEMORY", 3)
    network, wanted = network_of(used, **MEASURED), network_of(used, **MEASURED)
    fit_statistics(network, used + held)  # every third of 12 images, every fourth for the others
    monkeypatch.undo()
    assert_moments(network, moments_loop(network, (used + held)[::4]))
    fit_statistics(wanted, (used + held)[::4])
    wanted.statistics.set_clusters(*clusters_of(wanted, (used + held)[::3]), 0)
    assert same(buffers(network), buffers(wanted))


def test_progress_ends_at_its_total(used: list[Path], held: list[Path], tmp_path: Path) -> None:
    bad = bad_files(tmp_path, 2)
    everything = used + held
    for changes, paths, total in (
        (MEASURED, everything, 36),  # moments, memory and clusters of 12
        (MEASURED, [*everything, *bad], 42),
        ({**MEASURED, "map.memory": 0}, everything, 24),
        ({"map.normalisation_clusters": 0}, used, 16),
        ({"map.distance": "cosine"}, everything, 24),
    ):
        calls: list[tuple[int, int]] = []
        network = network_of(used, **changes)
        fit_statistics(network, paths, lambda *at, calls=calls: calls.append(at))
        assert calls[-1] == (total, total)
        assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_unreadable_images_are_skipped(used: list[Path], held: list[Path], tmp_path: Path) -> None:
    bad = bad_files(tmp_path, 3)
    network, wanted = network_of(used, **MEASURED), network_of(used, **MEASURED)
    fit_statistics(network, [bad[0], *used, bad[2], bad[1], *held])
    fit_statistics(wanted, used + held)
    assert same(buffers(network), buffers(wanted))


def test_maps_are_unchanged_without_a_readable_image(used: list[Path], tmp_path: Path) -> None:
    network = network_of(used, **MEASURED)
    before = scores_of(network, used)
    fit_statistics(network, bad_files(tmp_path, 2))
    np.testing.assert_array_equal(scores_of(network, used), before)


def test_constant_images_are_finite(used: list[Path], tmp_path: Path) -> None:
    from PIL import Image

    paths = [tmp_path / f"{grey}.png" for grey in (0, 128, 255)]
    for path in paths:
        Image.new("RGB", (64, 64), (int(path.stem),) * 3).save(path)
    network = network_of(used, **MEASURED)
    fit_statistics(network, paths)
    assert bool(np.isfinite(scores_of(network, paths + used)).all())


# --- through training, bundle and command ---


def test_bundle_keeps_statistics_and_maps(parts: Path, held: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "a.snl"
    changes = {**TINY, **MEASURED, "training.holdout": 0.5}
    trained = snl.train(parts, output=output, overrides=changes, device="cpu", quiet=True)
    assert "statistics_seconds" in trained.training.facts
    loaded = snl.load(output, "cpu")
    assert same(buffers(trained.network), buffers(loaded.network))
    pixels = pixels_of(held)
    for left, right in zip(trained.predict(pixels)[:3], loaded.predict(pixels)[:3], strict=True):
        assert np.array_equal(left, right)
    # calibration uses the normalised maps
    catalog = snl.Catalog.read(parts)
    _, unseen = split(catalog, loaded.network.settings)
    for product, calibration_set in loaded.calibration.sets.items():
        paths = [record.path for record in unseen if record.product == product]
        fresh = loaded.predict(pixels_of(paths)).scores
        np.testing.assert_allclose(np.sort(calibration_set.scores), np.sort(fresh), rtol=1e-4)
    assert float(loaded.network.statistics.normal_scores[0]) != 1


def test_resumed_training_has_the_same_statistics(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**TINY, **MEASURED}

    def train(name: str, **options: Any) -> snl.Inspector:
        return snl.train(
            parts,
            output=tmp_path / name,
            overrides=changes,
            device="cpu",
            quiet=True,
            checkpoint_every=0,
            **options,
        )

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    whole = train("whole.snl")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("snl.training.train.fit_statistics", stop)
        train("broken.snl")
    assert not (tmp_path / "broken.snl").exists()
    resumed = train("broken.snl", resume=True)
    left, right = whole.network.state_dict(), resumed.network.state_dict()
    assert left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_command_with_normalisation_and_kind(parts: Path, tmp_path: Path) -> None:
    output = tmp_path / "b.snl"
    sets = (
        "map.normalisation_clusters=5",
        "map.kind=both",
        "map.stage_weights=1,0.5",
        "loss.hard_mining=0.5",
    )
    options = [word for text in sets for word in ("--set", text)]
    words = ["train", str(parts), "-o", str(output), "--method", "snl", "--quiet"]
    assert main([*words, *TINY_OPTIONS, *options]) == 0
    network = snl.load(output, "cpu").network
    settings = network.settings
    assert (settings.method, settings.map.normalisation_clusters, settings.map.kind) == (
        "snl",
        5,
        "both",
    )
    assert (settings.map.stage_weights, settings.loss.hard_mining) == ((1.0, 0.5), 0.5)
    assert network.statistics.normal_scores.shape == (5,)
    used = int((network.statistics.centres.abs() < 2).all(1).sum())
    assert used == 1 and float(network.statistics.normal_scores[0]) > 0


def test_bundle_whose_statistics_do_not_fit_its_settings_is_refused(
    parts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "c.snl"
    inspector = snl.train(parts, overrides={**TINY, **MEASURED}, device="cpu", quiet=True)
    predictor = inspector.predictor
    settings = inspector.settings.replace({"map.normalisation_clusters": 4})
    predictor.metadata = dataclasses.replace(predictor.metadata, settings=settings)
    inspector.save(output)
    with pytest.raises(snl.SnlError, match="do not fit each other") as caught:
        snl.load(output)
    assert "\n" not in str(caught.value)
