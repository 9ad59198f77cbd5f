"""Regions of interest: the rectangle of a product's images that is inspected.

Everything else is cut away before the network sees the image; maps and regions are given in the
coordinates of the whole image. A rectangle belongs to the size of the images that it was drawn on.
On images of another size but the same shape it is scaled; images of another shape are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

from snl.data.aspect import same_aspect
from snl.errors import DataError, ImageError

SMALLEST = 16
"""Least width and height in pixels of a region of interest."""


class Window(NamedTuple):
    """A rectangle of pixels: rows `top` to `bottom - 1`, columns `left` to `right - 1`."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left

    def of(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return the part of an image (H, W, ...)."""
        return image[self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True)
class Roi:
    """A region of interest.

    Attributes:
        x, y: left and top pixel, in the upright image.
        width, height: in pixels.
        image: (width, height) of the images that it was drawn on; None: of those it is used on.
    """

    x: int
    y: int
    width: int
    height: int
    image: tuple[int, int] | None = None

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.width},{self.height}"

    def to_list(self) -> list[int | None]:
        """Return JSON values: x, y, width, height, and width and height of `image`."""
        return [self.x, self.y, self.width, self.height, *(self.image or (None, None))]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> Roi:
        """Inverse of `to_list`.

        Raises:
            TypeError, ValueError: they are not the numbers of a region inside its images.
        """
        x, y, width, height, *image = map(int, values)
        inside = len(image) == 2 and x + width <= image[0] and y + height <= image[1]
        if not inside or min(x, y) < 0 or min(width, height) < 1:
            raise ValueError("the region of interest is damaged")
        return cls(x, y, width, height, (image[0], image[1]))

    def window(self, size: tuple[int, int], name: str = "the image given") -> Window:
        """Return the rectangle of an image (height, width).

        Raises:
            ImageError: the image has another shape than those it was drawn on, or is too small.
        """
        height, width = size
        drawn = self.image or (width, height)
        if not same_aspect((drawn[1], drawn[0]), size):
            raise ImageError(
                f"{name} has {width} x {height} pixels, but the region of interest was drawn on "
                f"images of {drawn[0]} x {drawn[1]}, which is another shape; give images of that "
                "shape, or train with a region of interest for these"
            )
        across, down = width / drawn[0], height / drawn[1]
        window = Window(
            round(self.y * down),
            round(self.x * across),
            min(round((self.y + self.height) * down), height),
            min(round((self.x + self.width) * across), width),
        )
        if min(window.size) < 1 or (self.image is None and self._exceeds(width, height)):
            raise ImageError(
                f"the region of interest {self} is not inside {name} ({width} x {height} pixels)"
            )
        return window

    def _exceeds(self, width: int, height: int) -> bool:
        return self.x + self.width > width or self.y + self.height > height

    def drawn_on(self, size: tuple[int, int]) -> Roi:
        """Return the region for images (height, width) like the one that it was drawn on.

        Raises:
            DataError: it is not inside them.
        """
        height, width = size
        if self.image is None and self._exceeds(width, height):
            raise DataError(
                f"the region of interest {self} ends outside the images, which have {width} x "
                f"{height} pixels; X,Y,W,H are left, top, width and height in pixels"
            )
        return self if self.image else replace(self, image=(width, height))


@dataclass(frozen=True)
class Crop:
    """A source whose regions of interest are read instead of the whole.

    Attributes:
        source: image file, PIL image or array.
        rois: the regions to read; None among them is the whole image. Where there are several, the
            product that is recognised decides which of them counts.
    """

    source: Any
    rois: tuple[Roi | None, ...]


Readable: TypeAlias = Path | Crop
"""An image file, or a region of interest in one."""


def parse_roi(text: str, what: str = "region of interest") -> Roi:
    """Return the region in a text of four numbers: left, top, width and height in pixels.

    Raises:
        DataError: they are not four such numbers.

    >>> parse_roi("40, 20, 300, 200")
    Roi(x=40, y=20, width=300, height=200, image=None)
    """
    parts = re.split(r"[\s,;]+", text.strip())
    if len(parts) != 4 or not all(re.fullmatch(r"[0-9]{1,9}", part) for part in parts):
        raise DataError(
            f"{what} '{text[:60]}': give left, top, width and height in pixels as X,Y,W,H, such as "
            "40,20,300,200"
        )
    x, y, width, height = map(int, parts)
    return checked(Roi(x, y, width, height), what)


def checked(roi: Roi, what: str) -> Roi:
    """Return a region if it is large enough.

    Raises:
        DataError: a side of fewer than `SMALLEST` pixels.
    """
    if min(roi.width, roi.height) < SMALLEST:
        raise DataError(f"{what} {roi}: width and height are at least {SMALLEST} pixels")
    return roi


def distinct(products: Iterable[str], rois: Mapping[str, Roi]) -> tuple[Roi | None, ...]:
    """Return the regions that the products need, each once; None: the whole image."""
    return tuple(dict.fromkeys(rois.get(product) for product in products))
