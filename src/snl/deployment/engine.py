"""What computes: pixels in, raw maps, scores and embeddings out. One class a runtime."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np


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
