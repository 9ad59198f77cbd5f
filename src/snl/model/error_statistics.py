"""What a student's errors are like on normal images, and maps measured by it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snl.kmeans import kmeans
from snl.model.teacher import Stage

_EPS = 1e-8
_FAR = 1e3
"""Coordinate of a centre that is not in use; embeddings are unit vectors."""
IMAGES_PER_LEVEL = 20
"""A centre stands for at least about this many normal images, so that its level is no accident."""


class NormalErrors(nn.Module):
    """Statistics of errors on normal images, kept with the weights.

    Two of them, each used only where the map's settings ask for it:

    - per stage and channel, mean and standard deviation of the difference of the unit features
      (a channel that is hard to reproduce counts less);
    - a level for every kind of image: centres of the teacher's pooled features, each with the
      score that normal images near it usually have. A map is divided by the level of its image,
      so that one threshold serves a rough casting and a smooth glass.

    Until `set_moments` and `set_levels` are called, every mean is 0, every deviation and level 1.

    Args:
        stages: the teacher's.
        levels: number of centres; 0: maps keep their scale.
    """

    centres: Tensor
    spread: Tensor
    level: Tensor

    def __init__(self, stages: Sequence[Stage], levels: int) -> None:
        super().__init__()
        for i, stage in enumerate(stages):
            self.register_buffer(f"mean{i}", torch.zeros(stage.channels))
            self.register_buffer(f"deviation{i}", torch.ones(stage.channels))
        width = sum(stage.channels for stage in stages)
        self.register_buffer("centres", torch.full((levels, width), _FAR))
        self.register_buffer("spread", torch.ones(()))
        self.register_buffer("level", torch.ones(levels))

    def standardised(self, stage: int, t: Tensor, s: Tensor) -> Tensor:
        """Features (B, C, h, w) of a stage to (B, h, w): the mean square over channels of the
        difference of the unit features, less its normal mean, over its normal deviation."""
        mean, deviation = self._moments(stage)
        z = (unit_difference(t, s) - mean.view(1, -1, 1, 1)) / deviation.view(1, -1, 1, 1)
        squares: Tensor = z.square().mean(1)
        return squares

    def level_of(self, teacher: Sequence[Tensor]) -> Tensor:
        """Teacher features, one (B, C, h, w) per stage, to the usual normal scores (B,) of images
        like these: the centres' levels, weighted by softmax(-distance^2 / spread)."""
        if not len(self.level):
            return torch.ones(len(teacher[0]), device=teacher[0].device)
        return torch.softmax(self._logits(embed(teacher)), dim=1) @ self.level

    @torch.no_grad()
    def set_moments(self, means: Sequence[Tensor], deviations: Sequence[Tensor]) -> None:
        """Mean and standard deviation (C,) of `unit_difference` for every stage; a deviation is at
        least a hundredth of its stage's root mean square."""
        for stage, values in enumerate(zip(means, deviations, strict=True)):
            floor = 0.01 * values[1].square().mean().sqrt() + _EPS
            mean, deviation = self._moments(stage)
            mean.copy_(values[0])
            deviation.copy_(values[1].clamp_min(floor))

    @torch.no_grad()
    def set_levels(self, embeddings: Tensor, scores: Tensor, seed: int) -> None:
        """Centres by k-means, levels by the weighted mean of the scores.

        Args:
            embeddings: (M, D) of normal images, by `embed`, M at least 1.
            scores: (M,) of the same images, of maps that are not divided yet.
            seed: of k-means++.
        """
        count = min(len(self.level), max(1, len(embeddings) // IMAGES_PER_LEVEL))
        if not len(self.level):
            return
        centres, nearest = kmeans(embeddings.double().cpu().numpy(), count, seed)
        self.centres.fill_(_FAR)
        self.centres[:count] = torch.as_tensor(centres, dtype=torch.float32)
        self.spread.fill_(max(float(np.mean(nearest)), _EPS))
        rows = torch.split(
            embeddings.to(self.level), 64
        )  # some at a time: differences are (M, K, D)
        logits = torch.cat([self._logits(some) for some in rows])[:, :count]
        # in logarithms: a centre that all images are far from takes the level of the nearest ones
        shares = torch.softmax(torch.log_softmax(logits, dim=1), dim=0)
        self.level.fill_(1)
        self.level[:count] = (shares.T @ scores.to(self.level)).clamp_min(_EPS)

    def _moments(self, stage: int) -> tuple[Tensor, Tensor]:
        mean: Tensor = getattr(self, f"mean{stage}")
        deviation: Tensor = getattr(self, f"deviation{stage}")
        return mean, deviation

    def _logits(self, embeddings: Tensor) -> Tensor:
        """(M, D) to (M, K): -distance^2 / spread. By differences: squares of products lose the
        digits that tell apart images of one scene."""
        return -(embeddings[:, None] - self.centres).square().sum(2) / self.spread


def unit_difference(t: Tensor, s: Tensor) -> Tensor:
    """T / |T| - S / |S| at every position, (B, C, h, w), float32."""
    return F.normalize(t.float(), dim=1) - F.normalize(s.float(), dim=1)


def embed(teacher: Sequence[Tensor]) -> Tensor:
    """Teacher features, one (B, C, h, w) per stage, to (B, D): the means over positions, each
    stage's scaled to length 1, side by side."""
    return torch.cat([F.normalize(t.float().mean((2, 3)), dim=1) for t in teacher], 1)
