"""Training batches: random crops of canvases, scaled, rotated and recoloured.

A batch depends only on the seed, the step and the number of lanes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from canvases import HELD_OUT_PHOTOGRAPHS, Canvases, photograph
from formula import Fractals
from recolour import recolour
from textures import SIDE

POOL = 256
"""Number of canvases that a lane keeps in memory."""
FRESH = 1
"""Number of canvases of a lane that are replaced, the oldest first, after every batch."""
BARE = 0.05
"""Standard deviation of the pixels (0..1) below which a window counts as empty."""


class Batches(IterableDataset[list[Tensor]]):
    """Yields for each step in first..last - 1 a list with the images (B, 3, N, N), uint8.

    Step s belongs to lane s mod `lanes`. Each lane has its own canvases, keeps `pool` of them and
    draws FRESH new ones per step. A resumed run therefore gets the same images as an uninterrupted
    one. Each lane runs in a process of its own (`loader`).

    Args:
        seed, lanes, pool: together with the step, these determine the images.
        first, last: range of steps.
        count: images per batch.
        size: side of the images in pixels.
    """

    def __init__(
        self,
        seed: int,
        first: int,
        last: int,
        count: int,
        size: int,
        lanes: int = 1,
        pool: int = POOL,
    ) -> None:
        super().__init__()
        self.seed, self.first, self.last, self.lanes = seed, first, last, lanes
        self.count, self.size, self.pool = count, size, pool

    def __iter__(self) -> Iterator[list[Tensor]]:
        worker = get_worker_info()
        # The loader takes batches from its workers in turn, starting with worker 0.
        start = self.first + (worker.id if worker else 0)
        lane = start % self.lanes
        draw = Canvases([self.seed, lane])
        turn = start // self.lanes
        pool = [pyramid(draw(n)) for n in range(FRESH * turn, FRESH * turn + self.pool)]
        for step in range(start, self.last, self.lanes):
            images = cut(pool, self.count, self.size, np.random.default_rng([self.seed, 1, step]))
            yield [(images * 255).round().byte()]
            del pool[:FRESH]
            turn += 1
            newest = FRESH * turn + self.pool
            pool += [pyramid(draw(n)) for n in range(newest - FRESH, newest)]


def loader(batches: Batches | Fractals) -> DataLoader[list[Tensor]]:
    """Return a loader that computes batches ahead, with one process per lane."""
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=batches.lanes,
        prefetch_factor=6,
        multiprocessing_context="forkserver",  # forking a process with threads may deadlock
    )


def pyramid(canvas: NDArray[np.uint8]) -> list[Tensor]:
    """Return a canvas (H, W, 3) at full size, half size and so on, each (1, 3, h, w) in 0..1.

    Windows are sampled at the size that fits them, so that no pixels are skipped.
    """
    levels = [torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255]
    while levels[-1].shape[-1] > 64:
        levels.append(F.avg_pool2d(levels[-1], 2))
    return levels


def cut(canvases: list[list[Tensor]], count: int, size: int, rng: np.random.Generator) -> Tensor:
    """Return random windows of random canvases, recoloured: (count, 3, size, size) in 0..1.

    An empty window (see BARE) is replaced once by another, which may be empty, too.
    """
    images = []
    for _ in range(count):
        image = _window(canvases[rng.integers(len(canvases))], size, rng)
        if image[:, ::4, ::4].std((1, 2)).max() < BARE:
            image = _window(canvases[rng.integers(len(canvases))], size, rng)
        images.append(image)
    return recolour(torch.stack(images), rng)


def _window(canvas: list[Tensor], size: int, rng: np.random.Generator) -> Tensor:
    """Return a rotated, mirrored window with a side of 0.125 to 1.2 of the canvas."""
    share = np.exp(rng.uniform(np.log(0.125), np.log(1.2)))  # of the side of the canvas
    level = int(np.clip(np.log2(SIDE * share / size), 0, len(canvas) - 1))
    image = canvas[level]
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else rng.integers(4) * np.pi / 2
    aspect = np.exp(rng.normal(0, 0.12))
    flip = rng.choice([-1, 1])
    centre = rng.uniform(-1, 1, 2) * max(1 - share, 0.05)
    cos, sin = share * np.cos(angle), share * np.sin(angle)
    theta = [
        [cos * aspect * flip, -sin / aspect, centre[0]],
        [sin * aspect * flip, cos / aspect, centre[1]],
    ]
    grid = F.affine_grid(torch.tensor([theta], dtype=torch.float32), [1, 3, size, size], False)
    return F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)[0]


def held_out(count: int, size: int) -> Tensor:
    """Return fixed windows of the held-out photographs: (count, 3, size, size) in 0..1."""
    rng = np.random.default_rng(0)
    canvases = []
    for name in HELD_OUT_PHOTOGRAPHS:
        image = torch.from_numpy(photograph(name)).permute(2, 0, 1)[None].float()
        shorter = min(image.shape[2:])
        square = image[..., :shorter, :shorter]
        canvas = F.interpolate(square, (SIDE, SIDE), mode="bilinear", antialias=True)
        canvases.append(pyramid(canvas[0].permute(1, 2, 0).clamp(0, 255).byte().numpy()))
    return cut(canvases, count, size, rng)
