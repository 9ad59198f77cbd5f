"""Samples of PGM and PPM files as they are stored; Pillow reads most of them pixel by pixel."""

from __future__ import annotations

import re
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile

from snl.errors import ImageError

PLAIN = "ppm_plain"


class Header(NamedTuple):
    """Where and how the samples of a PGM or PPM are stored."""

    maxval: int
    plain: bool
    """As text."""
    channels: int
    start: int
    """Of the samples in the file."""


def header(image: ImageFile.ImageFile) -> Header | None:
    """Return the header of an open PGM or PPM that this module reads better than Pillow.

    Returns:
        None for 8-bit samples up to 255, which Pillow reads, for bitmaps and for PFM.
    """
    if image.format != "PPM" or not image.tile or image.mode not in ("L", "I", "RGB"):
        return None
    codec, _, start, args = image.tile[0]
    rawmode, maxval = args if isinstance(args, tuple) else (args, 255)
    maxval = 65535 if rawmode == "I;16B" else maxval
    plain = codec == PLAIN
    if maxval == 255 or (plain and maxval < 255):
        return None
    return Header(int(maxval), plain, 3 if image.mode == "RGB" else 1, start)


def read(file: BinaryIO, head: Header, size: tuple[int, int], name: str) -> NDArray[Any]:
    """Return the samples, (H, W) or (H, W, 3), uint8 or big-endian uint16.

    Args:
        file: the open file.
        head: its header.
        size: (width, height).
        name: what messages call it.

    Raises:
        ImageError: there are fewer samples than pixels, or some that are no numbers.
    """
    count = size[0] * size[1] * head.channels
    file.seek(head.start)
    if head.plain:
        samples = _plain(file.read(), count, head.maxval, name)
    else:
        kind = np.dtype(">u2" if head.maxval > 255 else np.uint8)
        content = file.read(count * kind.itemsize)
        samples = np.frombuffer(content[: len(content) // kind.itemsize * kind.itemsize], kind)
    if len(samples) < count:
        raise ImageError(
            f"{name} is truncated (it has {len(samples)} of {count} samples); copy it again"
        )
    shape = (size[1], size[0]) if head.channels == 1 else (size[1], size[0], head.channels)
    return samples.reshape(shape)


def _plain(text: bytes, count: int, maxval: int, name: str) -> NDArray[Any]:
    words = re.sub(rb"#[^\r\n]*", b" ", text).split()[:count]
    try:
        values = np.array(words, dtype=np.int64)
    except (ValueError, OverflowError):
        raise ImageError(f"{name} has samples that are not numbers; save it again") from None
    if len(values) and not 0 <= values.min() <= values.max() <= maxval:
        raise ImageError(f"{name} has samples outside 0..{maxval}; save it again")
    return values.astype(np.uint16)
