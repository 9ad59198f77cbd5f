"""Small copies of normal images in a bundle, by which products can be added later.

A student that is trained on new products alone forgets the earlier ones. The bundle therefore keeps
a few training images of every product, for training (replay), and held-out images, for calibration,
as JPEG files of the network's input size.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from snl.data.records import Record
from snl.data.stream import read
from snl.decision.fit import short_name
from snl.errors import ImageError
from snl.limits import MAX_PIXELS
from snl.runtime.sections import Section

QUALITIES = (95, 90, 85, 80, 70, 60, 40)
"""Qualities of JPEG that are tried, best first."""
MAX_BYTES = 400_000
"""Of the training images of a product, and as much of its held-out images, for 24 of each."""
USUAL = 24
"""Number of images for which `MAX_BYTES` is meant."""


@dataclass(frozen=True)
class Kept:
    """A small copy of a normal image.

    Attributes:
        product: that it shows.
        held_out: whether it calibrates; otherwise the network was trained on it.
        name: folder and name of the original file.
        hash: content hash of the original file.
        jpeg: the copy, a JPEG file of the network's input size.
    """

    product: str
    held_out: bool
    name: str
    hash: int
    jpeg: bytes


@dataclass(frozen=True)
class Rehearsal:
    """The small copies in a bundle.

    Attributes:
        images: of all products.
    """

    images: tuple[Kept, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def products(self) -> frozenset[str]:
        """Products with at least one training image."""
        return frozenset(image.product for image in self.images if not image.held_out)

    def of(self, *, held_out: bool) -> tuple[Kept, ...]:
        """Return the held-out images, or those for training."""
        return tuple(image for image in self.images if image.held_out == held_out)

    def without(self, products: Iterable[str]) -> Rehearsal:
        """Return the images of the other products."""
        left_out = set(products)
        return Rehearsal(tuple(image for image in self.images if image.product not in left_out))

    def merge(self, other: Rehearsal) -> Rehearsal:
        """Return the images of both; an image in both is kept once."""
        return Rehearsal(tuple(dict.fromkeys([*self.images, *other.images])))

    def write(self, folder: Path) -> dict[Path, Kept]:
        """Write the JPEG files into a folder; return what each of them is."""
        folder.mkdir(parents=True, exist_ok=True)
        files: dict[Path, Kept] = {}
        for number, image in enumerate(self.images):
            path = folder / f"{number:06d}.jpg"
            path.write_bytes(image.jpeg)
            files[path] = image
        return files


def remember(
    records: Sequence[Record],
    hashes: Mapping[Path, int | None],
    *,
    held_out: bool,
    most: int,
    size: int,
    max_pixels: int = MAX_PIXELS,
    white_level: int = 0,
) -> Rehearsal:
    """Return small copies of at most `most` images of each product, evenly spread.

    Args:
        records: normal images.
        hashes: content hashes of their files; those without one are left out.
        held_out: what the images are used for.
        most: for each product.
        size: side of the network's input in pixels.
        max_pixels: largest allowed height times width of an image.
        white_level: see `Settings.white_level`.
    """
    kept: list[Kept] = []
    for product in sorted({record.product for record in records}):
        own = [r for r in records if r.product == product and hashes.get(r.path) is not None]
        places = np.unique(np.linspace(0, max(len(own) - 1, 0), most).astype(int))
        chosen = [own[place] for place in places.tolist()] if own and most else []
        stream = read(
            [r.source for r in chosen], size, max_pixels=max_pixels, white_level=white_level
        )
        read_images = [one for one in stream if not isinstance(one, ImageError)]
        budget = MAX_BYTES * max(1.0, most / USUAL)
        files = _encoded([one.pixels for one in read_images], budget)
        for one, jpeg in zip(read_images, files, strict=True):
            path = chosen[one.index].path
            content = hashes[path]
            assert content is not None
            kept.append(Kept(product, held_out, short_name(str(path)), content, jpeg))
    return Rehearsal(tuple(kept))


def _encoded(images: Sequence[np.ndarray], budget: float) -> list[bytes]:
    """Return JPEG files of the best quality at which all of them together fit the budget."""
    files: list[bytes] = []
    for quality in QUALITIES:
        files = [_jpeg(pixels, quality) for pixels in images]
        if sum(map(len, files)) <= budget:
            break
    return files


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """Encode an image (size, size, 3) uint8 without reducing the resolution of its colours."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def to_section(rehearsal: Rehearsal) -> Section:
    """Return the section of a bundle."""
    images = rehearsal.images
    document: dict[str, Any] = {
        "products": [image.product for image in images],
        "held_out": [image.held_out for image in images],
        "names": [image.name for image in images],
    }
    arrays: dict[str, np.ndarray] = {
        "hashes": np.array([image.hash for image in images], np.uint64),
        "lengths": np.array([len(image.jpeg) for image in images], np.int64),
        "jpeg": np.frombuffer(b"".join(image.jpeg for image in images), np.uint8),
    }
    return Section(document, arrays)


def from_section(section: Section) -> Rehearsal:
    """Inverse of `to_section`.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: the section is damaged.
    """
    document, arrays = section.document, section.arrays
    hashes, lengths, jpeg = (arrays[name] for name in ("hashes", "lengths", "jpeg"))
    count = len(document["products"])
    valid = hashes.dtype == np.uint64 and jpeg.dtype == np.uint8 and lengths.dtype == np.int64
    valid = valid and hashes.shape == lengths.shape == (count,) and jpeg.ndim == 1
    if not valid or (lengths <= 0).any() or int(lengths.sum()) != len(jpeg):
        raise ValueError("the small images for later training are damaged")
    ends = np.cumsum(lengths).tolist()
    data = jpeg.tobytes()
    columns = zip(document["products"], document["held_out"], document["names"], strict=True)
    images = [
        Kept(str(product), bool(held_out), str(name), int(content), data[end - length : end])
        for (product, held_out, name), content, length, end in zip(
            columns, hashes.tolist(), lengths.tolist(), ends, strict=True
        )
    ]
    return Rehearsal(tuple(images))
