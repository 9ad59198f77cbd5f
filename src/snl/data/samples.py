"""What the header of an image file says about its samples, before they are decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageFile

from snl.data import png, ppm, tiff

FULL_SCALE = 65535
"""Largest value of a 16-bit sample."""
_GREY_MODES = ("1", "L", "LA", "La", "I", "F")


@dataclass(frozen=True)
class Samples:
    """The samples of an image file.

    Attributes:
        bits: of the container of a sample: 8 (also for fewer bits), 16 or 32.
        grey: one channel of colour, not three.
        white: the sample value that is white, as the file states it; 0: it states none.
        significant: bits that PNG's sBIT states for 16-bit samples; 0: none. If the samples are
            scaled to 16 bits, as the standard asks, it says nothing about white.
        min_is_white: white is stored as 0, and Pillow does not correct it.
        floating: floating-point numbers from 0 to 1.
    """

    bits: int = 8
    grey: bool = False
    white: int = 0
    significant: int = 0
    min_is_white: bool = False
    floating: bool = False

    @property
    def open(self) -> bool:
        """True if the samples have more than 8 bits and the file does not state their range."""
        return self.bits > 8 and not (self.floating or self.white or self.significant)

    def kind(self, white_level: int = 0) -> str:
        """Return depth and colour in words, such as `12-bit grey`.

        Args:
            white_level: for files that do not state the range of their samples; 0: 65535.
        """
        colour = "grey" if self.grey else "colour"
        if self.floating:
            return f"floating-point {colour}"
        if self.bits == 8:
            return f"8-bit {colour}"
        bits = self.significant or (self.white or white_level or FULL_SCALE).bit_length()
        return f"{bits}-bit {colour}"


def samples_of(image: Image.Image) -> Samples:
    """Return what is known about the samples of an open image.

    Args:
        image: of a file whose header has been read, or any other PIL image.
    """
    grey = image.mode in _GREY_MODES or image.mode.startswith("I;16")
    if isinstance(image, ImageFile.ImageFile):
        if image.format == "PNG" and image.tile:
            return _of_png(image, grey)
        if image.format == "TIFF":
            return _of_tiff(image, grey)
        if (head := ppm.header(image)) is not None and head.maxval > 255:
            return Samples(16, grey, head.maxval if head.maxval < FULL_SCALE else 0)
    if image.mode == "F":
        return Samples(32, grey, floating=True)
    bits = 32 if image.mode == "I" else 16 if image.mode.startswith("I;16") else 8
    return Samples(bits, grey)


def rawmode_of(image: ImageFile.ImageFile) -> str:
    """Return the raw mode of the first tile of an open image, empty if there is none."""
    args: Any = image.tile[0][3] if image.tile else ""
    return str(args[0] if isinstance(args, tuple) else args or "")


def _of_png(image: ImageFile.ImageFile, grey: bool) -> Samples:
    rawmode = rawmode_of(image)
    if ";16" not in rawmode:
        return Samples(8, grey)
    significant = png.significant_bits(image.fp) if image.fp is not None else 0
    return Samples(
        16, grey or rawmode.startswith("LA"), significant=significant if significant < 16 else 0
    )


def _of_tiff(image: ImageFile.ImageFile, grey: bool) -> Samples:
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits = max(tags.get(tiff.BITS, (1,)))
    inverted = bool(image.info.get(tiff.MIN_IS_WHITE)) or tags.get(tiff.PHOTOMETRIC) == 0
    if bits <= 8:  # Pillow inverts these
        return Samples(8, grey)
    if image.mode == "F":
        return Samples(32, grey, min_is_white=inverted, floating=True)
    white = 0
    stated = tags.get(tiff.MAX_SAMPLE)
    if bits < 16:
        white = 2**bits - 1
    elif stated and (largest := max(stated)) in (2**n - 1 for n in range(9, 16)):
        white = largest  # other values are the maximum of this one image
    return Samples(16 if bits <= 16 else 32, grey, white, min_is_white=inverted)
