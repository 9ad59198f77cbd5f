"""Embeddings of normal images: how far an image as a whole is from the normal ones of a product.

A map compares patches. A carrier without its part consists of patches that normal images contain,
so its map is normal; its embedding is far from that of any normal image.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

MOST = 32
"""References of a product."""
NEIGHBOURS = 3
STRANGE = 6.5
"""Robust standard deviations from which an image as a whole is unlike the normal ones of its
product. On nine products normal test images were at most 6.3 away, carriers without their part at
least 13.7 (docs/results)."""
_GAIN, _MOST_GAIN = 2.0, 3.0
"""Growth of the score's logarithm for each deviation beyond `STRANGE`, and its largest value."""
_EQUIVALENT = 10
"""Images that the average over products counts as in the scale of a product's channel."""
_LEAST = 0.1
"""Least scale of a channel, as a share of the root mean square over channels."""
_TINY = 1e-6


@dataclass(frozen=True)
class References:
    """Embeddings of training images of every product.

    Attributes:
        embeddings: float16 (R, D).
        owners: (R,) the product of each.
        scales: float32 (P, D), the spread of every channel, above 0, of the products in the order
            in which they first occur in `owners`.
    """

    embeddings: np.ndarray
    owners: tuple[str, ...]
    scales: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """The products, in the order of `scales`."""
        return tuple(dict.fromkeys(self.owners))

    def select(self, products: Collection[str]) -> References:
        """Return those of some products."""
        kept = np.array([owner in products for owner in self.owners], bool)
        scales = np.array([name in products for name in self.names], bool)
        owners = tuple(owner for owner in self.owners if owner in products)
        return References(self.embeddings[kept], owners, self.scales[scales])

    def merge(self, other: References) -> References:
        """Return those of both, of different products."""
        return References(
            np.concatenate([self.embeddings, other.embeddings]),
            (*self.owners, *other.owners),
            np.concatenate([self.scales, other.scales]),
        )

    def distances(self, embeddings: np.ndarray, product: str) -> np.ndarray:
        """Return the mean distance, float32 (M,), above 0, of embeddings (M, D) to the nearest
        `NEIGHBOURS` references of a product, with every channel divided by its scale."""
        scale = self.scales[self.names.index(product)].astype(np.float64)
        own = np.array([owner == product for owner in self.owners], bool)
        references = self.embeddings[own].astype(np.float64) / scale
        found = np.empty(len(embeddings), np.float32)
        for i, row in enumerate(np.asarray(embeddings, np.float64) / scale):
            lengths = np.sqrt(np.square(references - row).sum(1))
            found[i] = max(np.sort(lengths)[:NEIGHBOURS].mean(), _TINY)
        return found


def score_factor(strangeness: float | None) -> float:
    """Return the factor of an image's score: 1 up to `STRANGE` deviations, then growing to e^3."""
    if strangeness is None:
        return 1.0
    return math.exp(min(max(_GAIN * (strangeness - STRANGE), 0.0), _MOST_GAIN))


def fit_references(embeddings: np.ndarray, products: Sequence[str]) -> References:
    """Choose the references, evenly spaced, at most `MOST` of a product, and compute the scales.

    A channel's scale is its standard deviation over the images of the product, shrunk towards the
    average over products.

    Args:
        embeddings: (M, D) of normal training images.
        products: (M,) the product of each.
    """
    names = np.array(products)
    groups = {name: embeddings[names == name].astype(np.float64) for name in sorted(set(products))}
    centred = np.concatenate([rows - rows.mean(0) for rows in groups.values()])
    average = np.square(centred).mean(0)
    chosen, owners, scales = [], [], []
    for name, rows in groups.items():
        places = np.unique(np.linspace(0, len(rows) - 1, min(MOST, len(rows))).astype(int))
        chosen.append(rows[places])
        owners += [name] * len(places)
        variance = (len(rows) * rows.var(0) + _EQUIVALENT * average) / (len(rows) + _EQUIVALENT)
        scale = np.sqrt(variance)
        scales.append(np.maximum(scale, max(_LEAST * np.sqrt(variance.mean()), _TINY)))
    return References(
        np.concatenate(chosen).astype(np.float16),
        tuple(owners),
        np.stack(scales).astype(np.float32),
    )
