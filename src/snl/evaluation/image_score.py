"""The result of an evaluation for one image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from snl.decision.inspection import Verdict


@dataclass(frozen=True)
class ImageScore:
    """The result for one test image.

    Attributes:
        path: of the image.
        product, label, defect: as the data set has them; label is `normal` or `anomalous`.
        score: raw.
        verdict: None if the model has no calibration.
        known: whether the model knows the product.
        part: that the image shows; empty: unknown.
    """

    path: Path
    product: str
    label: str
    defect: str
    score: float
    verdict: Verdict | None = None
    known: bool = True
    part: str = ""
