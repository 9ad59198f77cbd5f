"""Groups of similar products: each group has a bank of its own in the memory of patches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from snl.data.roi import Readable
from snl.data.stream import read
from snl.data.tiles import Source, samples
from snl.decision.products import fit_prototypes
from snl.limits import MAX_PIXELS
from snl.model.network import Network
from snl.settings import PRODUCTS_PER_UNIT
from snl.training.selection import embeddings_of

IMAGES_PER_PRODUCT = 60
"""Training images or tiles of a product by which it is compared with others."""


@dataclass(frozen=True)
class ProductGroups:
    """The training images of every group, and how an image's group is recognised.

    Attributes:
        paths: of each group.
        gates: embeddings (Q, E), several for each product.
        owners: the group of every gate.
    """

    paths: tuple[tuple[Readable, ...], ...]
    gates: Tensor
    owners: tuple[int, ...]


def group_products(
    network: Network,
    products: Mapping[Readable, str],
    progress: Callable[[int, int], None] | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
) -> ProductGroups | None:
    """Divide the products into groups of at most `PRODUCTS_PER_UNIT` similar ones.

    Args:
        network: with its teacher's weights.
        products: the product of every training image.
        progress: called with (done, total).
        max_pixels: largest allowed height times width of an image.

    Returns:
        None for so few products that they are one group.
    """
    by_product: dict[str, list[Readable]] = {}
    for path, product in products.items():
        by_product.setdefault(product, []).append(path)
    if len(by_product) <= PRODUCTS_PER_UNIT:
        return None
    settings = network.settings
    sources: list[Source] = []
    shown: list[str] = []
    for product in sorted(by_product):
        chosen = samples(
            by_product[product], settings.tile, IMAGES_PER_PRODUCT, max_pixels=max_pixels
        )
        sources += chosen
        shown += [product] * len(chosen)
    stream = read(
        sources, settings.image_size, max_pixels=max_pixels, white_level=settings.white_level
    )
    readable, embeddings = embeddings_of(network, stream, len(sources), progress)
    names = [shown[index] for index in readable]
    prototypes = fit_prototypes(embeddings, names, settings.training.seed)
    means = np.stack([embeddings[np.array(names) == p].mean(0) for p in prototypes.names])
    groups = halved(means, PRODUCTS_PER_UNIT)
    group_of = {prototypes.names[row]: i for i, rows in enumerate(groups) for row in rows}
    # a product without a readable image here is in no group; training has read its images before
    paths = tuple(
        tuple(path for path, product in products.items() if group_of.get(product) == i)
        for i in range(len(groups))
    )
    gates = torch.from_numpy(prototypes.centres)
    return ProductGroups(paths, gates, tuple(group_of[owner] for owner in prototypes.owners))


def halved(points: np.ndarray, most: int) -> list[list[int]]:
    """Divide points (M, D) into groups of at most `most` near ones, of about equal size.

    A group that is too large is divided at the median of its largest principal component.
    """

    def divide(rows: np.ndarray) -> list[list[int]]:
        if len(rows) <= most:
            return [sorted(rows.tolist())]
        centred = points[rows] - points[rows].mean(0)
        axis = np.linalg.svd(centred.astype(np.float64), full_matrices=False)[2][0]
        order = rows[np.argsort(centred @ axis, kind="stable")]
        middle = len(rows) // 2
        return divide(order[:middle]) + divide(order[middle:])

    return divide(np.arange(len(points)))
