"""Tiles come in order, images are decoded once, errors reported once, threads stop."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from snl.data import stream
from snl.data.images import load_image, to_input
from snl.data.stream import Loaded, batches, read
from snl.data.tiles import Source, tiles_of
from snl.errors import ImageError


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five images, one of them smaller than a tile, one rotated by EXIF."""
    folder = tmp_path_factory.mktemp("stream")
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(5)]
    tags = Image.Exif()
    tags[0x0112] = 8
    for i, (path, shape) in enumerate(
        zip(paths, [(70, 90), (20, 33), (70, 90), (64, 40), (100, 48)], strict=True)
    ):
        image = Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
        image.save(path, exif=tags if i == 2 else None)
    return paths


@pytest.fixture
def decode_counts(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """Count how often each file is decoded."""
    counts: Counter[Path] = Counter()
    lock = threading.Lock()

    decoded = stream.decoded

    def counted(path: Path, **options: Any) -> Any:
        with lock:
            counts[path] += 1
        return decoded(path, **options)

    monkeypatch.setattr(stream, "decoded", counted)
    return counts


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_tiles_come_in_order_and_images_are_decoded_once(
    files: list[Path], decode_counts: Counter[Path], workers: int
) -> None:
    tiles = tiles_of(files, 32).tiles
    results = list(read(tiles, 16, workers))
    assert decode_counts == dict.fromkeys(files, 1)
    assert len(results) == len(tiles) >= 40
    for index, (item, tile) in enumerate(zip(results, tiles, strict=True)):
        assert isinstance(item, Loaded) and item.index == index
        image = load_image(tile.path)
        assert item.original == image.shape[:2]
        padded = np.pad(image, ((32, 32), (32, 32), (0, 0)), mode="symmetric")
        top, left = tile.box.top + 32, tile.box.left + 32
        expected = to_input(np.ascontiguousarray(padded[top : top + 32, left : left + 32]), 16)
        np.testing.assert_array_equal(item.pixels, expected)


def test_tiles_and_whole_images_may_be_mixed(
    files: list[Path], decode_counts: Counter[Path]
) -> None:
    tiles = tiles_of(files[:1], 40).tiles
    sources: list[Source] = [files[0], *tiles, files[0], files[1]]
    results = list(read(sources, 16, 2))
    assert [item.index for item in results if isinstance(item, Loaded)] == list(range(len(sources)))
    # tiles share one image; a whole image is decoded straight to the network's input
    assert decode_counts == {files[0]: 3, files[1]: 1}


def test_a_damaged_image_is_reported_once(files: list[Path], tmp_path: Path) -> None:
    truncated = tmp_path / "cut.png"
    truncated.write_bytes(files[0].read_bytes()[:9000])
    paths = [files[0], truncated, files[1], truncated, truncated]
    tiles = tiles_of(paths[:4], 32).tiles
    assert sum(tile.path == truncated for tile in tiles) > 10  # its header is readable
    errors: list[ImageError] = []
    indices = [
        loaded.index for group, _ in batches(read(tiles, 16, 3), 4, errors) for loaded in group
    ]
    assert indices == [i for i, tile in enumerate(tiles) if tile.path != truncated]
    assert len(errors) == 2 and all("cut.png" in str(error) for error in errors)
    errors.clear()
    list(batches(read(paths, 16, 3), 4, errors))
    assert len(errors) == 3  # whole images: one error for each time they are listed


def test_closing_the_reader_early_stops_its_threads(files: list[Path]) -> None:
    before = threading.active_count()
    reader = read(tiles_of(files * 20, 32).tiles, 16, 4)
    next(iter(reader))
    assert threading.active_count() > before
    reader.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
