"""Formula-driven pretraining: images of iterated function systems, labelled by their formula.

Based on FractalDB (Kataoka et al., ACCV 2020, arXiv 2101.08515): a class is a set of affine maps;
its images differ by small changes of one map, by mirroring, contrast and inversion. Neither
photographs nor a teacher are needed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from textures import chaos_game, draw_points, random_ifs

CLASSES = 100


class Fractals(IterableDataset[list[Tensor]]):
    """Yields for each step in first..last - 1 images (B, 3, N, N) uint8 and classes (B,).

    The arguments are those of `crops.Batches`.
    """

    def __init__(
        self, seed: int, first: int, last: int, count: int, size: int, lanes: int = 1
    ) -> None:
        super().__init__()
        self.seed, self.first, self.last, self.lanes = seed, first, last, lanes
        self.count, self.size = count, size
        rng = np.random.default_rng(seed)
        self.formulas = [_random_formula(rng) for _ in range(CLASSES)]

    def __iter__(self) -> Iterator[list[Tensor]]:
        worker = get_worker_info()
        start = self.first + (worker.id if worker else 0)
        for step in range(start, self.last, self.lanes):
            rng = np.random.default_rng([self.seed, 2, step])
            labels = rng.integers(CLASSES, size=self.count)
            images = torch.stack([self._image(rng, label) for label in labels.tolist()])
            yield [(images * 255).round().byte(), torch.from_numpy(labels)]

    def _image(self, rng: np.random.Generator, label: int) -> Tensor:
        maps = self.formulas[label].copy()
        maps[rng.integers(len(maps))] *= rng.uniform(0.8, 1.2, (2, 3))
        x, y = chaos_game(rng, maps, 2000, 30)
        mirror = rng.choice([-1, 1], 2)
        density = draw_points(x * mirror[0], y * mirror[1], self.size) ** rng.uniform(0.5, 1.5)
        image = torch.from_numpy(density if rng.random() < 0.5 else 1 - density)
        return image.float().expand(3, -1, -1)


def _random_formula(rng: np.random.Generator) -> np.ndarray:
    """Return a formula whose points cover more than a fifth of a coarse grid."""
    while True:
        maps = random_ifs(rng)
        density = draw_points(*chaos_game(rng, maps, 500, 30), 16)
        if (density > 0).mean() > 0.2:
            return maps
