"""Which product an image shows, told from the teacher's pooled features; or that none is taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from snl.kmeans import kmeans

PROTOTYPES = 4
IMAGES_PER_PROTOTYPE = 20
"""A product has at most so many prototypes, each of at least about so many images."""
MOST_GROUPS, IMAGES_PER_GROUP = 64, 20
"""A mixed folder is parted into at most so many groups, each of at least so many images."""
CLEAR = 0.5
"""Mean silhouette from which groups are believed: "a reasonable structure has been found"
(Kaufman and Rousseeuw, Finding Groups in Data, 1990, table 4)."""
_MOST_FOR_GROUPS = 2000
_STARTS, _PATIENCE = 5, 8
"""k-means begun anew for every number of groups; numbers tried after the clearest one."""


@dataclass(frozen=True)
class Prototypes:
    """Mean embeddings of kinds of normal images, each of one product.

    Attributes:
        centres: (K, D) float32.
        owners: the K products' names.
    """

    centres: np.ndarray
    owners: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The products, in the order of the columns of `distances`."""
        return tuple(dict.fromkeys(self.owners))

    def nearest(self, embedding: np.ndarray) -> tuple[str, float]:
        """Return the product with the nearest prototype to an embedding (D,), and the distance."""
        row = self.distances(embedding[None])[0]
        index = int(row.argmin())
        return self.names[index], float(row[index])

    def distances(self, embeddings: np.ndarray) -> np.ndarray:
        """(M, D) to (M, P): Euclidean distance to the nearest prototype of every product."""
        x, c = (np.asarray(a, np.float64) for a in (embeddings, self.centres))
        each = np.sqrt(np.square(x[:, None] - c[None]).sum(2))  # (M, K)
        owners = np.array(self.owners)
        return np.stack([each[:, owners == name].min(1) for name in self.names], 1)


def learn(embeddings: np.ndarray, products: Sequence[str], seed: int) -> Prototypes:
    """Prototypes by k-means within every product.

    Args:
        embeddings: (M, D) of normal training images.
        products: the product of each.
        seed: of k-means++.
    """
    centres, owners = [], []
    names = np.array(products)
    for product in sorted(set(products)):
        own = embeddings[names == product]
        count = int(np.clip(len(own) // IMAGES_PER_PROTOTYPE, 1, PROTOTYPES))
        found = _clusters(own, count, seed)[0]
        centres.append(found)
        owners += [product] * len(found)
    return Prototypes(np.concatenate(centres).astype(np.float32), tuple(owners))


def find_groups(embeddings: np.ndarray, seed: int) -> np.ndarray:
    """Groups of images by their embeddings, as many as stand out most clearly.

    k-means for every number of groups; of those with enough images in each, that of the largest
    mean silhouette (Rousseeuw, J. Comput. Appl. Math. 20, 1987) is taken. Of more than 2000 images
    an even selection finds the groups.

    Args:
        embeddings: (M, D).
        seed: of k-means++.

    Returns:
        (M,) int, the group of each from 0 up, the largest group first; all 0 where no grouping
        is clear.
    """
    every = np.asarray(embeddings, np.float64)
    some = every[:: max(1, int(np.ceil(len(every) / _MOST_FOR_GROUPS)))]
    best, chosen = CLEAR, np.zeros((1, every.shape[1]))
    pairs = np.sqrt(np.maximum(_squares(some, some), 0))
    least = max(2, IMAGES_PER_GROUP * len(some) // len(every))
    highest, since = 0.0, 0
    for count in range(2, min(MOST_GROUPS, len(some) // least) + 1):
        centres, labels = _clusters(some, count, seed)
        value = _silhouette(pairs, labels)
        since = 0 if value > highest else since + 1
        highest = max(value, highest)
        if value > best and np.bincount(labels, minlength=count).min() >= least:
            best, chosen = value, centres
        if since == _PATIENCE:
            break
    labels = _squares(every, chosen).argmin(1)
    order = np.argsort(-np.bincount(labels, minlength=len(chosen)), kind="stable")
    ranks = np.empty(len(chosen), int)
    ranks[order] = np.arange(len(chosen))
    found: np.ndarray = ranks[labels]
    return found


def _clusters(points: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres (K, D) and labels (M,) of the best of several k-means."""
    points = np.asarray(points, np.float64)
    if count == 1:
        return points.mean(0, keepdims=True), np.zeros(len(points), int)
    runs = (kmeans(points, count, seed + number) for number in range(_STARTS))
    centres = min(runs, key=lambda run: float(run[1].sum()))[0]
    return centres, _squares(points, centres).argmin(1)


def _silhouette(pairs: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette of labels for the distances (M, M); images alone in a group count 0."""
    labels = np.unique(labels, return_inverse=True)[1]  # k-means of equal points leaves some empty
    counts = np.bincount(labels)
    if len(counts) < 2:
        return 0.0
    sums = np.stack([pairs[:, labels == k].sum(1) for k in range(len(counts))], 1)  # (M, K)
    rows = np.arange(len(labels))
    own = sums[rows, labels] / np.maximum(counts[labels] - 1, 1)
    others = sums / counts
    others[rows, labels] = np.inf
    nearest = others.min(1)
    widths = (nearest - own) / np.maximum(np.maximum(nearest, own), 1e-12)
    return float(np.where(counts[labels] > 1, widths, 0).mean())


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(M, D) and (K, D) to squared distances (M, K)."""
    found: np.ndarray = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return found
