"""What the network says of normal images whose products are known: the basis of a calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PEAKS = 16
"""Local maxima of a map that are kept of every normal image."""


@dataclass(frozen=True)
class NormalSample:
    """Measurements of M normal images.

    Attributes:
        products: of each image.
        scores: float32 (M,), raw, of maps without ignored pixels.
        embeddings: float32 (M, D).
        peaks: float32 (M, 16), the highest local maxima of each map, highest first.
        backgrounds: float32 (M,), the 99th percentile of each map.
        hashes: uint64 (M,), `snl.files.content_hash` of each file.
        paths: of the files.
    """

    products: tuple[str, ...]
    scores: np.ndarray
    embeddings: np.ndarray
    peaks: np.ndarray
    backgrounds: np.ndarray
    hashes: np.ndarray
    paths: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.products)

    def of(self, product: str) -> np.ndarray:
        """Return bool (M,): which images show the product."""
        return np.array([name == product for name in self.products], bool)
