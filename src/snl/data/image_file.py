"""The image of a file that was read before and not kept."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from snl.data.roi import Crop, Roi
from snl.data.source import one_line
from snl.data.upright import cropped, decoded
from snl.errors import ImageError
from snl.limits import MAX_PIXELS


@dataclass(frozen=True)
class ImageFile:
    """Reads the image of a file again, and notices if it is no longer the same.

    Attributes:
        path: of the file.
        size: (height, width) of the image when it was read first.
        pixels: the network's input that was made of it, (side, side, 3) uint8; None: unknown.
        max_pixels: largest allowed height times width.
        white_level: see `snl.data.images.load_image`.
        roi: region of interest that `pixels` shows; None: the whole image.
    """

    path: str
    size: tuple[int, int]
    pixels: np.ndarray | None = field(default=None, repr=False)
    max_pixels: int = MAX_PIXELS
    white_level: int = 0
    roi: Roi | None = None

    def image(self) -> np.ndarray:
        """Return the image, (H, W, 3) uint8 upright RGB.

        Raises:
            ImageError: the file cannot be read, or shows another image now.
        """
        return self._read(None)

    def resized(self, width: int, height: int) -> np.ndarray:
        """Return the image at another size, (height, width, 3) uint8; it is not held as a whole.

        Raises:
            ImageError: as `image`.
        """
        return self._read((width, height))

    def _read(self, target: tuple[int, int] | None) -> np.ndarray:
        with decoded(self.path, max_pixels=self.max_pixels, white_level=self.white_level) as image:
            same = image.size == self.size
            if same and self.pixels is not None:
                height, width = self.pixels.shape[:2]
                part = cropped(image, Crop(self.path, (self.roi,)))
                same = np.array_equal(part.resized(width, height), self.pixels)
            if not same:
                raise ImageError(
                    f"{one_line(self.path)} has changed since it was inspected; inspect it again"
                )
            return image.array() if target is None else image.resized(*target)
