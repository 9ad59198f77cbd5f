"""Product recognition from the teacher's pooled features, and grouping of a mixed folder."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from snl.kmeans import kmeans

PROTOTYPES = 4
IMAGES_PER_PROTOTYPE = 20
"""Most prototypes of a product, and the images that it needs for each."""
MOST_GROUPS, IMAGES_PER_GROUP = 64, 20
"""Most groups of a mixed folder, and the fewest images of each."""
CLEAR = 0.5
"""Mean silhouette from which groups are accepted: "a reasonable structure has been found"
(Kaufman and Rousseeuw, Finding Groups in Data, 1990, table 4)."""
_MOST_FOR_GROUPS = 2000
_STARTS, _PATIENCE = 5, 8
"""k-means runs for each number of groups; numbers of groups tried after the best one."""


class Nearest(NamedTuple):
    """The product that an embedding is nearest to.

    Attributes:
        product: its name.
        distance: to its nearest prototype.
        second: distance to the nearest prototype of any other product; infinite where there is
            only one product.
    """

    product: str
    distance: float
    second: float


@dataclass(frozen=True)
class Prototypes:
    """Mean embeddings of clusters of normal images, each of one product.

    Attributes:
        centres: (K, D) float32.
        owners: (K,) the product of each.
    """

    centres: np.ndarray
    owners: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The products, in the order of the columns of `distances`."""
        return tuple(dict.fromkeys(self.owners))

    def select(self, products: Collection[str]) -> Prototypes:
        """Return those of some products."""
        kept = np.array([owner in products for owner in self.owners], bool)
        owners = tuple(owner for owner in self.owners if owner in products)
        return Prototypes(self.centres[kept], owners)

    def merge(self, other: Prototypes) -> Prototypes:
        """Return those of both."""
        centres = np.concatenate([self.centres, other.centres])
        return Prototypes(centres, (*self.owners, *other.owners))

    def nearest(self, embedding: np.ndarray) -> Nearest:
        """Return the product with the nearest prototype to an embedding (D,)."""
        row = self.distances(embedding[None])[0]
        first, *others = np.argsort(row, kind="stable")
        second = float(row[others[0]]) if others else math.inf
        return Nearest(self.names[first], float(row[first]), second)

    def separation(self, product: str) -> float:
        """Return the smallest distance between a prototype of the product and one of any other;
        infinite where there is only one product."""
        own = np.array([owner == product for owner in self.owners], bool)
        if own.all():
            return math.inf
        c = self.centres.astype(np.float64)
        return float(np.sqrt(np.square(c[own][:, None] - c[~own][None]).sum(2)).min())

    def distances(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the Euclidean distance of embeddings (M, D) to the nearest prototype of every
        product, float64 (M, P)."""
        x, c = (np.asarray(a, np.float64) for a in (embeddings, self.centres))
        # row by row: all differences together, (M, K, D), are gigabytes for many products
        rows = [np.sqrt(np.square(row - c).sum(1)) for row in x]
        distances = np.stack(rows) if rows else np.empty((0, len(c)))  # (M, K)
        owners = np.array(self.owners)
        return np.stack([distances[:, owners == name].min(1) for name in self.names], 1)


def fit_prototypes(embeddings: np.ndarray, products: Sequence[str], seed: int) -> Prototypes:
    """Compute the prototypes of every product by k-means.

    Args:
        embeddings: (M, D) of normal training images.
        products: (M,) the product of each.
        seed: for k-means++.
    """
    centres, owners = [], []
    names = np.array(products)
    for product in sorted(set(products)):
        rows = embeddings[names == product]
        count = int(np.clip(len(rows) // IMAGES_PER_PROTOTYPE, 1, PROTOTYPES))
        centres.append(_clusters(rows, count, seed)[0])
        owners += [product] * count
    return Prototypes(np.concatenate(centres).astype(np.float32), tuple(owners))


def find_groups(embeddings: np.ndarray, seed: int) -> np.ndarray:
    """Cluster images by their embeddings, and choose the number of groups.

    k-means runs for each number of groups. Of the results with enough images in every group, the
    one with the largest mean silhouette is chosen (Rousseeuw, J. Comput. Appl. Math. 20, 1987). Of
    more than 2000 images an evenly spaced subset determines the groups.

    Args:
        embeddings: (M, D).
        seed: for k-means++.

    Returns:
        (M,) int: the group of each image, 0 being the largest; all 0 if no result is clear enough.
    """
    rows = np.asarray(embeddings, np.float64)
    subset = rows[:: max(1, int(np.ceil(len(rows) / _MOST_FOR_GROUPS)))]
    best, chosen = CLEAR, np.zeros((1, rows.shape[1]))
    distances = np.sqrt(np.maximum(_squares(subset, subset), 0))
    smallest = max(2, IMAGES_PER_GROUP * len(subset) // len(rows))
    highest, since = 0.0, 0
    for count in range(2, min(MOST_GROUPS, len(subset) // smallest) + 1):
        centres, labels = _clusters(subset, count, seed)
        value = _silhouette(distances, labels)
        since = 0 if value > highest else since + 1
        highest = max(value, highest)
        if value > best and np.bincount(labels, minlength=count).min() >= smallest:
            best, chosen = value, centres
        if since == _PATIENCE:
            break
    labels = _squares(rows, chosen).argmin(1)
    order = np.argsort(-np.bincount(labels, minlength=len(chosen)), kind="stable")
    ranks = np.empty(len(chosen), int)
    ranks[order] = np.arange(len(chosen))
    groups: np.ndarray = ranks[labels]
    return groups


def _clusters(points: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return centres (K, D) and labels (M,) of the best of several k-means runs."""
    points = np.asarray(points, np.float64)
    if count == 1:
        return points.mean(0, keepdims=True), np.zeros(len(points), int)
    runs = (kmeans(points, count, seed + number) for number in range(_STARTS))
    centres = min(runs, key=lambda run: float(run[1].sum()))[0]
    return centres, _squares(points, centres).argmin(1)


def _silhouette(distances: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean silhouette of labels (M,) for distances (M, M). An image alone in its group
    counts as 0."""
    labels = np.unique(labels, return_inverse=True)[1]  # k-means of equal points has empty groups
    counts = np.bincount(labels)
    if len(counts) < 2:
        return 0.0
    sums = np.stack([distances[:, labels == k].sum(1) for k in range(len(counts))], 1)  # (M, K)
    rows = np.arange(len(labels))
    within = sums[rows, labels] / np.maximum(counts[labels] - 1, 1)
    others = sums / counts
    others[rows, labels] = np.inf
    nearest = others.min(1)
    widths = (nearest - within) / np.maximum(np.maximum(nearest, within), 1e-12)
    return float(np.where(counts[labels] > 1, widths, 0).mean())


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the squared distances (M, K) between rows of (M, D) and (K, D)."""
    squares: np.ndarray = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return squares
