"""The result for one image, as a user gets it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from snl.decision.calibration import Verdict
from snl.decision.regions import Region

if TYPE_CHECKING:
    import PIL.Image


@dataclass(frozen=True, kw_only=True)
class Inspection(Verdict):
    """The result for one image: the verdict on it, with the following besides.

    Attributes:
        regions: where the map is over `region_threshold`, highest peak first.
        anomaly_map: float32 (H, W) at the size of the image given, raw; 0 where the product may
            look as it likes.
        image: uint8 (H, W, 3), upright RGB, what was looked at.
        path: of the image, if it came from a file.
        map_range: map values at which the overlay's colours begin and end.
    """

    regions: tuple[Region, ...] = ()
    anomaly_map: np.ndarray = field(repr=False)
    image: np.ndarray = field(repr=False)
    path: str | None = None
    map_range: tuple[float, float] = field(default=(0.0, 1.0), repr=False)

    def overlay(self) -> PIL.Image.Image:
        """The image, its map in colours over it, contours, score bar and decision, side by side."""
        from snl.drawing.overlay import draw

        return draw(self)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: everything but image and map, and where the map is highest (x, y)."""
        y, x = np.unravel_index(int(self.anomaly_map.argmax()), self.anomaly_map.shape)
        return {
            "path": self.path,
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(Verdict)},
            "width": self.image.shape[1],
            "height": self.image.shape[0],
            "peak": [int(x), int(y)],
            "regions": [region.to_dict() for region in self.regions],
        }
