"""Process a large image in tiles: one seamless map at its own size, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from snl.data.images import load_image, to_input
from snl.data.tiles import Mosaic, cut, grid
from snl.decision.maps import resize_map

Predict = Callable[[np.ndarray], tuple[Any, ...]]
"""uint8 (B, size, size, 3) to maps float32 (B, size, size), scores (B,), embeddings (B, D), ..."""


def predict_tiled(
    predict: Predict, image: np.ndarray, tile: int, size: int, batch_size: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Process every tile of an image and join the maps.

    The image, its map and one batch of tiles are in memory.

    Args:
        predict: processes a batch of tiles.
        image: uint8 (H, W, 3) RGB of any size.
        tile: side of the tiles in pixels of the image, at least 1.
        size: side of the network's input, to which each tile is resized.
        batch_size: tiles per call of `predict`.

    Returns:
        The anomaly map, float32 (H, W); the embedding, float32 (D,), the mean over the tiles.

    Raises:
        ImageError: the array is not an image.
    """
    image = load_image(image)
    height, width = image.shape[:2]
    boxes = grid((height, width), tile)
    mosaic = Mosaic((height, width), tile)
    total: np.ndarray | float = 0.0
    for first in range(0, len(boxes), batch_size):
        group = boxes[first : first + batch_size]
        maps, _, embeddings, *_ = predict(
            np.stack([to_input(cut(image, box), size) for box in group])
        )
        for box, tile_map in zip(group, maps, strict=True):
            mosaic.add(box, resize_map(tile_map, (tile, tile)))
        total = total + np.asarray(embeddings, np.float64).sum(0)
    return mosaic.map, np.asarray(total / len(boxes), np.float32)
