"""Batches to learn from: canvases cut, scaled, rotated, recoloured; a function of seed and step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from canvases import HELD_OUT_PHOTOGRAPHS, SIDE, Canvases, photograph
from formula import Fractals
from recolour import recolour

POOL = 256
"""Canvases that a lane keeps in memory at a time."""
FRESH = 1
"""Canvases that are drawn new for every batch of a lane, in the place of the oldest."""
BARE = 0.05
"""Standard deviation of the pixels (0..1) below which a window shows next to nothing."""


class Batches(IterableDataset[list[Tensor]]):
    """For each step in first..last - 1: a list of images (B, 3, N, N), uint8.

    Step s belongs to lane s mod `lanes`; each lane has canvases of its own, keeps `pool` of them
    and draws FRESH new ones for each of its steps. So a run that goes on sees what an unbroken one
    would have seen. Lanes are drawn in processes of their own (`loader`).

    Args:
        seed, lanes, pool: with the step, all that the images depend on.
        first, last: steps.
        count, size: images per batch, and their side in pixels.
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
        # the loader takes from its workers in turn, beginning with worker 0
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
    """Batches drawn ahead, by one process per lane."""
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=batches.lanes,
        prefetch_factor=6,
        multiprocessing_context="forkserver",  # a fork of a process with threads may hang
    )


def pyramid(canvas: NDArray[np.uint8]) -> list[Tensor]:
    """A canvas (H, W, 3) and its halvings, each (1, 3, h, w), 0..1, so that no cut passes over
    pixels."""
    levels = [torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255]
    while levels[-1].shape[-1] > 64:
        levels.append(F.avg_pool2d(levels[-1], 2))
    return levels


def cut(canvases: list[list[Tensor]], count: int, size: int, rng: np.random.Generator) -> Tensor:
    """Random windows of random canvases, recoloured: (count, 3, size, size), 0..1.

    A window that shows next to nothing is replaced by another, which may again be as bare.
    """
    images = []
    for _ in range(count):
        image = _window(canvases[rng.integers(len(canvases))], size, rng)
        if image[:, ::4, ::4].std((1, 2)).max() < BARE:
            image = _window(canvases[rng.integers(len(canvases))], size, rng)
        images.append(image)
    return recolour(torch.stack(images), rng)


def _window(canvas: list[Tensor], size: int, rng: np.random.Generator) -> Tensor:
    """A window an eighth of the canvas to a little more than all of it, turned, mirrored."""
    share = np.exp(rng.uniform(np.log(0.125), np.log(1.2)))  # of the canvas' side
    level = int(np.clip(np.log2(SIDE * share / size), 0, len(canvas) - 1))
    image = canvas[level]
    turn = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else rng.integers(4) * np.pi / 2
    aspect = np.exp(rng.normal(0, 0.12))
    flip = rng.choice([-1, 1])
    place = rng.uniform(-1, 1, 2) * max(1 - share, 0.05)
    cos, sin = share * np.cos(turn), share * np.sin(turn)
    theta = [
        [cos * aspect * flip, -sin / aspect, place[0]],
        [sin * aspect * flip, cos / aspect, place[1]],
    ]
    grid = F.affine_grid(torch.tensor([theta], dtype=torch.float32), [1, 3, size, size], False)
    return F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)[0]


def held_out(count: int, size: int) -> Tensor:
    """Fixed windows of photographs that are never trained on: (count, 3, size, size)."""
    rng = np.random.default_rng(0)
    canvases = []
    for name in HELD_OUT_PHOTOGRAPHS:
        image = torch.from_numpy(photograph(name)).permute(2, 0, 1)[None].float()
        shorter = min(image.shape[2:])
        square = image[..., :shorter, :shorter]
        canvas = F.interpolate(square, (SIDE, SIDE), mode="bilinear", antialias=True)
        canvases.append(pyramid(canvas[0].permute(1, 2, 0).clamp(0, 255).byte().numpy()))
    return cut(canvases, count, size, rng)
