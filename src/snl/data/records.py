"""The description of one image of a data set, and the split of products that come without one."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from snl.data.listing import inside
from snl.data.roi import Crop, Readable, Roi
from snl.data.words import Label as Label
from snl.files import content_hash
from snl.limits import TEST_SHARE

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Record:
    """One image of a data set. The files may be missing or damaged; `snl doctor` checks them."""

    path: Path
    product: str
    split: Split
    label: Label | None
    """None: unknown."""
    mask: tuple[Path, ...] = ()
    """Mask files, whose union is the mask; empty if the image is normal or its mask unknown."""
    mask_known: bool = False
    """True for every normal image and for anomalous images with mask files."""
    defect: str = ""
    """`good`, the kind of defect, or empty if unknown."""
    part: str = ""
    """Name of the physical part, which several images may show; empty: unknown."""
    roi: Roi | None = None
    """The region of interest of the product; None: the whole image."""

    @property
    def source(self) -> Readable:
        """What is read of the image: its file, or the region of interest in it."""
        return self.path if self.roi is None else Crop(self.path, (self.roi,))


def make_record(
    path: Path,
    product: str,
    split: Split,
    label: Label | None,
    masks: tuple[Path, ...] = (),
    defect: str = "",
    part: str = "",
    roi: Roi | None = None,
) -> Record:
    """Return a record with normalised paths; a normal image gets an empty mask, defect `good`."""
    path = Path(os.path.normpath(path))
    masks = tuple(Path(os.path.normpath(mask)) for mask in masks)
    if label == "normal":
        return Record(path, product, split, label, (), True, "good", part, roi)
    return Record(path, product, split, label, masks, bool(masks), defect, part, roi)


def assign_splits(
    records: Iterable[Record],
    base: Path,
    part_of: Callable[[Path], str] | None = None,
    share: float = TEST_SHARE,
) -> list[Record]:
    """Return the records of one product, which has no split, with the splits `train` and `test`.

    Anomalous and unlabelled images are test images. If there are anomalous ones, a share of the
    normal images (at least one of two or more) are test images, too: those whose path relative to
    `base` has the smallest SHA-256. Otherwise all normal images are training images. The choice
    depends on the names alone: it is the same on every machine, and adding a few images moves only
    a few others.

    The images of one part stay together, and so do identical files: they are test images if one of
    them is anomalous, and the share is chosen among the others, by their names.

    Args:
        records: of one product.
        base: folder that paths are relative to.
        part_of: the part of an image whose record has none, by its path.
        share: of the normal images that are test images, 0 to below 1; 0: none.
    """
    product_records = list(records)
    parts = [r.part or (part_of(r.path) if part_of else "") for r in product_records]
    keys = [
        part or (inside(r.path, base) or Path(r.path.name)).as_posix()
        for part, r in zip(parts, product_records, strict=True)
    ]
    if share and any(record.label == "anomalous" for record in product_records):
        keys = _with_copies(keys, product_records)
    labels: dict[str, set[str | None]] = {}
    for key, record in zip(keys, product_records, strict=True):
        labels.setdefault(key, set()).add(record.label)
    tested = {key for key, found in labels.items() if "anomalous" in found}
    normals = sorted(
        (k for k, found in labels.items() if k not in tested and "normal" in found), key=_digest
    )
    if share and tested and len(normals) >= 2:
        tested |= set(normals[: max(1, int(share * len(normals) + 1e-9))])
    return [
        replace(r, split="test" if r.label != "normal" or key in tested else "train")
        for r, key in zip(product_records, keys, strict=True)
    ]


def _with_copies(keys: Sequence[str], records: Sequence[Record]) -> list[str]:
    """Return keys in which images with equal keys or equal files have one key, the first by name.

    Only files of equal size are read; empty ones are damaged, not equal.
    """
    sizes: dict[int, list[int]] = {}
    for number, record in enumerate(records):
        with suppress(OSError):  # reported when the image is read
            sizes.setdefault(record.path.stat().st_size, []).append(number)
    first: dict[tuple[int, int], str] = {}
    same: dict[str, str] = {}

    def root(key: str) -> str:
        while key in same:
            key = same[key]
        return key

    for size, numbers in sizes.items():
        for number in numbers if size and len(numbers) > 1 else ():
            with suppress(OSError):
                content = size, content_hash(records[number].path)
                one, other = root(first.setdefault(content, keys[number])), root(keys[number])
                if one != other:
                    same[max(one, other)] = min(one, other)
    return [root(key) for key in keys]


def _digest(name: str) -> str:
    text = unicodedata.normalize("NFC", name)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
