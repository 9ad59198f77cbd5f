"""Maps of tiles: where things are, no seams, small images, bounded memory and time."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from snl.data.tiles import grid, starts
from snl.errors import ImageError
from snl.runtime.tiled import predict_tiled

Maps = tuple[np.ndarray, np.ndarray, np.ndarray]


def numbered(height: int, width: int) -> np.ndarray:
    """An image whose pixels say where they are: x and y of up to 12 bits each in three bytes."""
    ys, xs = np.mgrid[:height, :width]
    return np.stack([xs % 256, ys % 256, xs // 256 + 16 * (ys // 256)], 2).astype(np.uint8)


def places(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of `numbered`: y and x."""
    low_x, low_y, high = np.moveaxis(pixels.astype(np.int64), -1, 0)
    return low_y + 256 * (high // 16), low_x + 256 * (high % 16)


def facts(maps: np.ndarray) -> Maps:
    return maps.astype(np.float32), maps.max((1, 2)), np.ones((len(maps), 3), np.float32)


def red(pixels: np.ndarray) -> Maps:
    """The first channel is the map."""
    return facts(pixels[..., 0])


def waves(ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
    return np.asarray(100 + 50 * np.sin(xs / 37) + 40 * np.cos(ys / 53 + xs / 91))


@pytest.mark.parametrize(
    "shape", [(700, 900), (128, 128), (129, 600), (40, 500), (90, 30), (300, 1)]
)
def test_a_function_of_the_place_comes_out_as_it_is(shape: tuple[int, int]) -> None:
    def predict(pixels: np.ndarray) -> Maps:
        return facts(waves(*places(pixels)))

    found, _ = predict_tiled(predict, numbered(*shape), tile=128, size=128)
    assert found.shape == shape and found.dtype == np.float32
    np.testing.assert_allclose(found, waves(*np.mgrid[: shape[0], : shape[1]]), atol=1e-3)


@pytest.mark.parametrize("size", [64, 96, 200])
def test_no_seams_at_another_scale(size: int) -> None:
    """Tiles that are made smaller or larger and back again: no step where they meet."""
    wanted = waves(*np.mgrid[:500, :700])
    image = np.repeat(np.rint(wanted)[:, :, None], 3, 2).astype(np.uint8)
    found, _ = predict_tiled(red, image, tile=128, size=size)
    assert abs(found - wanted).max() < 2
    steps = abs(np.diff(found, axis=1)).max(0)
    ends = {end for start in starts(700, 128) for end in (start - 1, start + 127)} - {-1, 699}
    seams = np.isin(np.arange(699), [*ends])
    assert len(ends) >= 10
    assert steps[seams].max() <= 1.05 * steps[~seams].max()


def test_tiles_that_disagree_are_blended() -> None:
    """Every tile with a level of its own: the map goes over from one to the other smoothly."""
    levels = iter(np.random.default_rng(0).uniform(0, 1, 1000))

    def predict(pixels: np.ndarray) -> Maps:
        return facts(np.stack([np.full(pixels.shape[1:3], next(levels)) for _ in pixels]))

    found, _ = predict_tiled(predict, np.zeros((600, 800, 3), np.uint8), tile=128, size=32)
    assert np.ptp(found) > 0.5
    overlap = 128 // 4
    for axis in (0, 1):
        assert abs(np.diff(found, axis=axis)).max() < 2.5 / overlap


@pytest.mark.parametrize(("tile", "size"), [(64, 64), (128, 64), (100, 64), (64, 128)])
@pytest.mark.parametrize("shape", [(300, 400), (50, 60), (300, 40)])
def test_a_defect_comes_out_where_it_is(tile: int, size: int, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(tile + size)
    for _ in range(8):
        y, x = int(rng.integers(0, shape[0] - 9)), int(rng.integers(0, shape[1] - 9))
        image = np.zeros((*shape, 3), np.uint8)
        image[y : y + 9, x : x + 9] = 200
        found, _ = predict_tiled(red, image, tile, size)
        ys, xs = np.mgrid[: shape[0], : shape[1]]
        assert (found * ys).sum() / found.sum() == pytest.approx(y + 4, abs=0.5)
        assert (found * xs).sum() / found.sum() == pytest.approx(x + 4, abs=0.5)


def test_a_small_image_keeps_its_scale() -> None:
    """It is mirrored, not stretched: what the network sees has the image's own pixels."""
    image = numbered(20, 30)
    seen: list[np.ndarray] = []

    def predict(pixels: np.ndarray) -> Maps:
        seen.append(pixels)
        return red(pixels)

    found, _ = predict_tiled(predict, image, tile=64, size=64)
    assert len(seen) == 1 and seen[0].shape == (1, 64, 64, 3)
    np.testing.assert_array_equal(seen[0][0, 22:42, 17:47], image)
    np.testing.assert_array_equal(seen[0][0, 21], seen[0][0, 22])
    np.testing.assert_array_equal(seen[0][0, :22], seen[0][0, 22:44][::-1])
    np.testing.assert_array_equal(found, image[..., 0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1)])
def test_one_pixel_wide(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found, _ = predict_tiled(red, image, tile=64, size=64)
    np.testing.assert_allclose(found, image[..., 0], atol=1e-3)


@pytest.mark.parametrize("batch_size", [1, 5, 8, 1000])
def test_batches_and_the_embedding(batch_size: int) -> None:
    """No batch is larger than asked for; the embedding is the mean over all tiles."""
    image = np.random.default_rng(2).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    sizes: list[int] = []

    def predict(pixels: np.ndarray) -> Maps:
        sizes.append(len(pixels))
        maps, scores, _ = red(pixels)
        return maps, scores, pixels.mean((1, 2), dtype=np.float32)

    found, embedding = predict_tiled(predict, image, 64, 64, batch_size)
    boxes = grid((200, 300), 64)
    assert sum(sizes) == len(boxes) and max(sizes) == min(batch_size, len(boxes))
    tiles = [image[b.top : b.top + 64, b.left : b.left + 64] for b in boxes]
    wanted = np.mean([tile.mean((0, 1)) for tile in tiles], axis=0)
    assert embedding.shape == (3,) and embedding.dtype == np.float32
    np.testing.assert_allclose(embedding, wanted, rtol=1e-5)
    np.testing.assert_allclose(found, image[..., 0], atol=1e-3)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
def test_what_is_no_image(shape: tuple[int, ...]) -> None:
    image = np.zeros(shape, np.float32)
    with pytest.raises(ImageError, match="the array given"):
        predict_tiled(red, image, 64, 64)


LARGE = """
import json, time, tracemalloc
import numpy as np, torch
from snl.runtime.tiled import predict_tiled
from snl.model.network import Network
from snl.model.error_statistics import embed
from snl.settings import resolve
from tests.conftest import TINY

network = Network(resolve(overrides={**TINY, "tile": 256, "image_size": 256})).eval()

@torch.inference_mode()
def predict(pixels):
    images = network.normalise(torch.from_numpy(pixels))
    teacher = network.teacher_features(images)
    maps, scores = network.compare(teacher, network.student(images, teacher).features)
    return maps.numpy(), scores.numpy(), embed(teacher).numpy()

def peak():  # MiB; ru_maxrss would count the parent's memory at the fork, too
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

predict(np.zeros((8, 256, 256, 3), np.uint8))  # what the network takes for one batch
tracemalloc.start()  # NumPy's arrays; what the allocator keeps beyond them varies by 50 MiB
began, used = time.perf_counter(), time.process_time()
image = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), dtype=np.uint8)
found, embedding = predict_tiled(predict, image, 256, 256)
print(json.dumps({
    "after": peak(), "seconds": time.perf_counter() - began,
    "cpu": time.process_time() - used, "shape": found.shape, "embedding": embedding.shape,
    "finite": bool(np.isfinite(found).all()), "arrays": tracemalloc.get_traced_memory()[1] / 2**20,
}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is there on Linux alone")
def test_memory_and_time_of_twelve_megapixels() -> None:
    """After a batch of the tiny network: the image's 34 MiB, the map's 46 and little more."""
    done = subprocess.run(
        [sys.executable, "-c", LARGE], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    assert figures["shape"] == [3000, 4000] and figures["finite"]
    assert figures["arrays"] < 100
    assert figures["after"] < 1024  # of which PyTorch and timm take 500 to 700
    assert figures["cpu"] < 120
