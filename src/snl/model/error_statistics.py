"""Statistics of a student's errors on normal images, by which anomaly maps are normalised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snl.kmeans import kmeans
from snl.model.adapters import chosen, current_groups
from snl.model.base import Stage

_EPS = 1e-8
_FAR = 1e3
"""Coordinate of a cluster centre that is not in use; embeddings are unit vectors."""
IMAGES_PER_CLUSTER = 20
"""Average number of normal images of a cluster at the least, so that its mean score is reliable."""


class ErrorStatistics(nn.Module):
    """Statistics of the student's errors on normal images, stored with the weights.

    Each of the two is used only where the map's settings ask for it:

    - moments: per stage and channel, mean and standard deviation of the difference of the unit
      features (a channel that is hard to reproduce counts less);
    - score normalisation: clusters of the teacher's pooled features, each with the mean score of
      the normal images near its centre. A map is divided by the normal score of its image's
      cluster, so that one threshold serves a rough casting and a smooth glass.

    Until `set_moments` and `set_clusters` are called, every mean is 0, and every standard deviation
    and normal score is 1.

    Products that were added later have statistics of their own, `more`, which are used for images
    of their group, see `snl.model.adapters`.

    Args:
        stages: of the teacher.
        clusters: number of clusters; 0: no score normalisation.
    """

    centres: Tensor
    spread: Tensor
    normal_scores: Tensor

    def __init__(self, stages: Sequence[Stage], clusters: int) -> None:
        super().__init__()
        for i, stage in enumerate(stages):
            self.register_buffer(f"mean{i}", torch.zeros(stage.channels))
            self.register_buffer(f"deviation{i}", torch.ones(stage.channels))
        width = sum(stage.channels for stage in stages)
        self.register_buffer("centres", torch.full((clusters, width), _FAR))
        self.register_buffer("spread", torch.ones(()))
        self.register_buffer("normal_scores", torch.ones(clusters))
        self.stages, self.clusters = tuple(stages), clusters
        self.more = nn.ModuleList()

    @property
    def groups(self) -> int:
        """Number of groups of products."""
        return 1 + len(self.more)

    def resize(self, groups: int) -> None:
        """Make room for the statistics of a number of groups."""
        while self.groups < groups:
            one = ErrorStatistics(self.stages, self.clusters)
            self.more.append(one.to(self.centres.device))

    def of(self, group: int) -> ErrorStatistics:
        """Return the statistics of one group."""
        if not group:
            return self
        one = self.more[group - 1]
        assert isinstance(one, ErrorStatistics)
        return one

    def standardised(self, stage: int, t: Tensor, s: Tensor) -> Tensor:
        """Return (B, h, w) from features (B, C, h, w) of a stage: the mean square over channels of
        the standardised difference of the unit features."""
        shape = (-1, t.shape[1], 1, 1)
        mean = self._chosen(f"mean{stage}").view(shape)
        deviation = self._chosen(f"deviation{stage}").view(shape)
        z = (unit_difference(t, s) - mean) / deviation
        squares: Tensor = z.square().mean(1)
        return squares

    def normal_score(self, teacher: Sequence[Tensor]) -> Tensor:
        """Return the expected score (B,) of normal images like these, from teacher features, one
        (B, C, h, w) per stage: the clusters' normal scores, weighted by
        softmax(-distance^2 / spread)."""
        if not len(self.normal_scores):
            return torch.ones(len(teacher[0]), device=teacher[0].device)
        if len(self.more) and (groups := current_groups()) is not None:
            apart = (embed(teacher)[:, None] - self._chosen("centres")).square().sum(2)
            spread = chosen(self._stacked("spread"), groups)[:, None]
            shares = torch.softmax(-apart / spread, dim=1)
            return (shares * self._chosen("normal_scores")).sum(1)
        return torch.softmax(self._logits(embed(teacher)), dim=1) @ self.normal_scores

    @torch.no_grad()
    def set_moments(self, means: Sequence[Tensor], deviations: Sequence[Tensor]) -> None:
        """Set mean and standard deviation (C,) of `unit_difference` for every stage.

        A standard deviation is clamped to at least a hundredth of its stage's root mean square.
        """
        for stage, values in enumerate(zip(means, deviations, strict=True)):
            floor = 0.01 * values[1].square().mean().sqrt() + _EPS
            mean, deviation = self._moments(stage)
            mean.copy_(values[0])
            deviation.copy_(values[1].clamp_min(floor))

    @torch.no_grad()
    def set_clusters(self, embeddings: Tensor, scores: Tensor, seed: int) -> None:
        """Set the centres by k-means, and the normal scores by weighted means.

        Args:
            embeddings: (M, D) of normal images, by `embed`, M at least 1.
            scores: (M,) of the same images, from maps that are not normalised yet.
            seed: of k-means++.
        """
        count = min(len(self.normal_scores), max(1, len(embeddings) // IMAGES_PER_CLUSTER))
        if not len(self.normal_scores):
            return
        centres, nearest = kmeans(embeddings.double().cpu().numpy(), count, seed)
        self.centres.fill_(_FAR)
        self.centres[:count] = torch.as_tensor(centres, dtype=torch.float32)
        self.spread.fill_(max(float(np.mean(nearest)), _EPS))
        # in chunks: the differences are (M, K, D)
        chunks = torch.split(embeddings.to(self.normal_scores), 64)
        logits = torch.cat([self._logits(chunk) for chunk in chunks])[:, :count]
        # in logarithms: a centre far from all images takes the score of the nearest ones
        shares = torch.softmax(torch.log_softmax(logits, dim=1), dim=0)
        self.normal_scores.fill_(1)
        self.normal_scores[:count] = (shares.T @ scores.to(self.normal_scores)).clamp_min(_EPS)

    def _chosen(self, name: str) -> Tensor:
        """Return a value for every image that is being processed, (B, ...) or (1, ...)."""
        groups = current_groups()
        if groups is None or not len(self.more):
            own: Tensor = getattr(self, name)
            return own[None]
        return chosen(self._stacked(name), groups)

    def _stacked(self, name: str) -> Tensor:
        return torch.stack([getattr(self.of(group), name) for group in range(self.groups)])

    def _moments(self, stage: int) -> tuple[Tensor, Tensor]:
        mean: Tensor = getattr(self, f"mean{stage}")
        deviation: Tensor = getattr(self, f"deviation{stage}")
        return mean, deviation

    def _logits(self, embeddings: Tensor) -> Tensor:
        """(M, D) to (M, K): -distance^2 / spread, from differences, because the expanded square
        loses the digits that distinguish images of one scene."""
        return -(embeddings[:, None] - self.centres).square().sum(2) / self.spread


def unit_difference(t: Tensor, s: Tensor) -> Tensor:
    """Return T / |T| - S / |S| at every position, float32 (B, C, h, w)."""
    return F.normalize(t.float(), dim=1) - F.normalize(s.float(), dim=1)


def embed(teacher: Sequence[Tensor]) -> Tensor:
    """Return the embedding (B, D) of teacher features, one (B, C, h, w) per stage: the mean over
    positions of every stage, normalised to length 1, concatenated."""
    return torch.cat([F.normalize(t.float().mean((2, 3)), dim=1) for t in teacher], 1)
