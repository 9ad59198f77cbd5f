"""Training on tiles: the same as training on files of them, resumable, bad images counted."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import snl
from snl.data import stream
from snl.data.images import load_image
from snl.data.tiles import cut, grid
from snl.errors import ImageError, TrainingError
from snl.files import load_tensors
from snl.model.network import Network
from snl.runtime.bundle import read_sections
from snl.settings import resolve
from snl.training import cache
from snl.training.cache import CacheBudget, TrainingData
from snl.training.fit_statistics import fit_statistics
from snl.training.loop import indices
from snl.training.untrained import standardise
from tests.conftest import TINY, Run
from tests.trees import draw

SIDE = 48
TILED = {**TINY, "tile": SIDE, "training.holdout": 0}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two products of three images of 160 x 96, one of them rotated by EXIF, and a small one."""
    root = tmp_path_factory.mktemp("large")
    tags = Image.Exif()
    tags[0x0112] = 6
    for product in ("bolt", "plate"):
        folder = root / product / "train" / "good"
        folder.mkdir(parents=True)
        for n in range(3):
            parts = [draw(4 * n + i, product=product)[0] for i in range(8)]
            rows = [np.concatenate(parts[4 * i : 4 * i + 2], 1) for i in range(2)]
            image = Image.fromarray(np.concatenate([*rows, *rows], 0))
            image.save(folder / f"{n}.png", exif=tags if n == 1 else None)
        Image.fromarray(draw(90, product=product)[0]).save(folder / "3.png")
    return root


def images_of(root: Path) -> list[Path]:
    return sorted(root.glob("*/train/good/*.png"))


@pytest.fixture(scope="module")
def pieces(large: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every tile of `large` as a separate file, in the same order."""
    root = tmp_path_factory.mktemp("pieces")
    for path in images_of(large):
        image = load_image(path)
        for number, box in enumerate(grid((image.shape[0], image.shape[1]), SIDE)):
            file = root / path.relative_to(large).with_name(f"{path.stem}_{number:02}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(cut(image, box)).save(file)
    return root


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    counts: Counter[Path] = Counter()

    decode = stream.decoded

    def counted(path: Path, **options: Any) -> Any:
        counts[path] += 1
        return decode(path, **options)

    monkeypatch.setattr(stream, "decoded", counted)
    return counts


def training_data(paths: Sequence[Path], folder: Path, **options: Any) -> TrainingData:
    network = Network(resolve(overrides=TILED)).eval()
    budget = options.pop("budget", CacheBudget(1, 0))
    return TrainingData(network, paths, budget=budget, folder=folder, batch_size=4, **options)


def weights(inspector: snl.Inspector) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in inspector.network.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_training_on_tiles_is_training_on_files_of_them(
    large: Path, pieces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # whole images are sampled differently
    monkeypatch.setattr("snl.training.untrained.STANDARDISE_SAMPLE", 1000)
    notes: list[str] = []
    tiled = snl.train(large, overrides=TILED, quiet=True, note=notes.append)
    whole = snl.train(pieces, overrides={**TILED, "tile": 0}, quiet=True)
    count = len(images_of(pieces))
    assert count == 2 * (3 * 15 + 1)
    assert f"8 images are cut into {count} tiles of 48 x 48 pixels" in notes
    assert tiled.training.products == {"bolt": 4, "plate": 4}
    assert tiled.training.data["images"] == tiled.training.facts["images"] == 8
    assert tiled.training.facts["samples"] == whole.training.facts["samples"] == count
    assert same(weights(tiled), weights(whole))
    assert tiled.network.settings.tile == SIDE


def test_cache_changes_nothing_but_speed(large: Path, tmp_path: Path) -> None:
    results = []
    for name, budget in {"memory": CacheBudget(1, 0), "off": CacheBudget(0, 0)}.items():
        inspector = snl.train(large, overrides=TILED, cache=budget, quiet=True)
        assert inspector.training.facts["pixels_in"] == name
        results.append(weights(inspector))
    assert same(*results)


def test_images_are_decoded_once_a_pass_and_not_again_from_the_cache(
    large: Path, tmp_path: Path, decoded: Counter[Path]
) -> None:
    paths = images_of(large)
    data = training_data(paths, tmp_path)
    assert decoded == dict.fromkeys(paths, 1)
    assert data.paths == paths and len(data) == len(data.sources) > 60
    settings = data.network.settings.training
    for _ in data.stream(indices(step, len(data), settings) for step in range(4)):
        pass
    assert decoded == dict.fromkeys(paths, 1)
    data.close()
    decoded.clear()
    fit_statistics(data.network, paths)
    assert max(decoded.values()) <= 3  # a pass each for the moments, the memory, the clusters


def test_without_a_cache_a_batch_decodes_each_of_its_images_once(
    large: Path, tmp_path: Path, decoded: Counter[Path]
) -> None:
    data = training_data(images_of(large), tmp_path, budget=CacheBudget(0, 0))
    decoded.clear()
    first = [i for i, source in enumerate(data.sources) if source.path == data.paths[0]]  # type: ignore[union-attr]
    second = len(first)
    batch = next(data.stream([np.array([*first[:3], second])]))
    assert decoded == {data.paths[0]: 1, data.paths[1]: 1}
    cached = training_data(images_of(large), tmp_path)
    wanted = next(cached.stream([np.array([*first[:3], second])]))
    assert torch.equal(batch.images, wanted.images)
    assert all(torch.equal(a, b) for a, b in zip(batch.inputs, wanted.inputs, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(batch.targets, wanted.targets, strict=True))


def test_statistics_are_those_of_the_tiles(large: Path, pieces: Path) -> None:
    results = []
    for tile, paths in ((SIDE, images_of(large)), (0, images_of(pieces))):
        changes = {**TILED, "tile": tile, "map.normalisation_clusters": 3}
        network = Network(resolve(overrides=changes)).eval()
        fit_statistics(network, paths)
        results.append({name: value.clone() for name, value in network.statistics.named_buffers()})
    assert same(*results) and results[0]["mean0"].any()


def test_an_untrained_teacher_is_fitted_to_tiles(large: Path) -> None:
    changes = {**TILED, "tile": 0}
    networks = [Network(resolve(overrides={**changes, "tile": t})) for t in (0, SIDE)]
    before = {k: v.clone() for k, v in networks[0].teacher.state_dict().items()}
    for network in networks:
        standardise(network, images_of(large))
    states = [network.teacher.state_dict() for network in networks]
    assert not same(before, states[1]) and not same(states[0], states[1])


def test_too_many_tiles_are_sampled_and_reported(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MOST_TILES", 20)
    notes: list[str] = []
    progress: list[tuple[int, int]] = []
    data = training_data(
        images_of(large), tmp_path, note=notes.append, progress=lambda *at: progress.append(at)
    )
    assert len(data) == 20 and len(data.paths) >= 6
    assert len(notes) == 1 and "an even sample of 20 is used" in notes[0]
    assert progress[-1] == (20, 20)


def test_unreadable_images_are_skipped_and_counted(large: Path, tmp_path: Path) -> None:
    paths = images_of(large)
    header = tmp_path / "header.png"
    header.write_bytes(b"no image")
    cut_off = tmp_path / "cut.png"
    cut_off.write_bytes(paths[0].read_bytes()[:9000])
    progress: list[tuple[int, int]] = []
    data = training_data(
        [paths[0], header, cut_off, *paths[2:], cut_off],
        tmp_path,
        progress=lambda *at: progress.append(at),
    )
    assert data.paths == [paths[0], *paths[2:]]
    assert [("header.png" in str(e), "cut.png" in str(e)) for e in data.skipped] == [
        (True, False),
        (False, True),
        (False, True),
    ]
    assert progress[-1][0] == progress[-1][1]
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    without = training_data(data.paths, tmp_path)
    schedule = [np.array([0, 9, len(data) - 1])]
    assert torch.equal(next(data.stream(schedule)).images, next(without.stream(schedule)).images)
    for bad in (header, cut_off):
        with pytest.raises(ImageError, match=bad.name):
            training_data([*paths, bad], tmp_path, skip_bad=False)
        with pytest.raises(TrainingError, match="none of the 1 training images can be read"):
            training_data([bad], tmp_path)


def test_a_deleted_image_is_reported(large: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(images_of(large)[0].read_bytes())
    data = training_data([path], tmp_path, budget=CacheBudget(0, 0))
    path.unlink()
    with pytest.raises(TrainingError, match=r"a\.png does not exist.*--resume"):
        next(data.stream([np.array([0])]))


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_resumed_equals_uninterrupted(large: Path, tmp_path: Path) -> None:
    from tests.training.test_resume import interrupt, start

    options = ("--tile", str(SIDE), "--cache-memory", "0", "--cache-disk", "0.1")
    uninterrupted, output = tmp_path / "a.snl", tmp_path / "b.snl"
    assert start(large, uninterrupted, *options).wait(200) == 0
    interrupt(start(large, output, *options), output, signal.SIGKILL, after=3)
    assert start(large, output, *options, "--resume").wait(200) == 0
    left, _ = load_tensors(uninterrupted, "bundle")
    right, _ = load_tensors(output, "bundle")
    sections = read_sections(output)
    assert sections["model"].document["settings"]["tile"] == SIDE
    assert sections["training"].document["facts"]["pixels_in"] == "disk"
    assert left.keys() == right.keys()
    assert all((left[name] == right[name]).all() for name in left)


def test_resume_refuses_another_tile(large: Path, tmp_path: Path, run_snl: Run) -> None:
    from tests.conftest import TINY_OPTIONS
    from tests.training.test_resume import STEPS, interrupt, start

    output = tmp_path / "c.snl"
    interrupt(start(large, output, "--tile", "64"), output, signal.SIGTERM, after=2)
    again = run_snl("train", large, "-o", output, *TINY_OPTIONS, *STEPS, "--tile", "96", "--resume")
    assert again.returncode == 2 and "settings.tile (was 64, now 96)" in again.stderr
