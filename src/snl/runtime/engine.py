"""What computes: pixels in, raw maps, scores and embeddings out. One class a runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

OUTPUTS = ("maps", "scores", "embeddings")
"""Of an exported graph, by name; its input is `pixels`."""

PRECISIONS = ("fp32", "bf16", "fp16")
"""What `snl.load` may ask of an engine; see there."""


class Prediction(NamedTuple):
    """What the network says of a batch, before any decision."""

    maps: np.ndarray
    """float32 (B, size, size), raw."""
    scores: np.ndarray
    """float32 (B,), raw."""
    embeddings: np.ndarray
    """float32 (B, D), by which products are recognised."""


class Engine(Protocol):
    """A network ready to run."""

    @property
    def device(self) -> str:
        """Runtime and device, in words."""

    def predict(self, pixels: np.ndarray) -> Prediction:
        """uint8 (B, size, size, 3) to raw maps, scores and embeddings."""


def in_batches(
    run: Callable[[np.ndarray], Sequence[np.ndarray]], pixels: np.ndarray, batch: int | None
) -> Prediction:
    """Images through a graph that takes `batch` of them and no other number (None: any number);
    where some are missing the last one stands in for them."""
    if batch is None or len(pixels) == batch:
        return Prediction(*run(pixels))
    parts = []
    for first in range(0, len(pixels), batch):
        some = pixels[first : first + batch]
        filled = np.concatenate([some, np.repeat(some[-1:], batch - len(some), 0)])
        parts.append([output[: len(some)] for output in run(filled)])
    return Prediction(*(np.concatenate(outputs) for outputs in zip(*parts, strict=True)))
