"""Random colour augmentation: lighting, colours and sensor noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def recolour(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Return images with random colour changes, different for each image.

    Channels are mixed and permuted, images made grey or inverted, contrast, brightness and gamma
    changed, and noise is added.

    Args:
        images: (B, 3, N, N), float in 0..1.
        rng: random generator.
    """
    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (n, *shape)).astype(np.float32))

    def chosen(share: float) -> Tensor:
        return torch.from_numpy(rng.random(n) < share).view(n, 1, 1, 1)

    mix = torch.eye(3) + uniform(-0.25, 0.25, 3, 3)
    mix = torch.where(chosen(0.5).view(n, 1, 1), mix / mix.sum(2, keepdim=True), torch.eye(3))
    order = torch.from_numpy(np.stack([rng.permutation(3) for _ in range(n)]))
    swapped = torch.gather(images, 1, order.view(n, 3, 1, 1).expand_as(images))
    images = torch.where(chosen(0.3), swapped, images)
    images = torch.einsum("nij,njhw->nihw", mix, images)
    images = torch.where(chosen(0.2), images.mean(1, keepdim=True), images)
    images = torch.where(chosen(0.08), 1 - images, images)
    middle = images.mean((1, 2, 3), keepdim=True)
    images = (images - middle) * uniform(0.5, 1.3, 1, 1, 1) + middle + uniform(-0.2, 0.2, 1, 1, 1)
    images = images.clamp(0, 1) ** uniform(0.6, 1.6, 1, 1, 1)
    noisy = torch.from_numpy(np.flatnonzero(rng.random(n) < 0.4))
    noise = rng.standard_normal((len(noisy), *images.shape[1:]), dtype=np.float32)
    images[noisy] += torch.from_numpy(noise) * uniform(0, 0.05, 1, 1, 1)[noisy]
    return images.clamp(0, 1)
