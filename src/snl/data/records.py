"""The description of one image of a data set, and the split of products that come without one."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from snl.data.listing import inside
from snl.data.words import Label as Label

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


def make_record(
    path: Path,
    product: str,
    split: Split,
    label: Label | None,
    masks: tuple[Path, ...] = (),
    defect: str = "",
) -> Record:
    """Return a record with normalised paths; a normal image gets an empty mask, defect `good`."""
    path = Path(os.path.normpath(path))
    masks = tuple(Path(os.path.normpath(mask)) for mask in masks)
    if label == "normal":
        return Record(path, product, split, label, (), True, "good")
    return Record(path, product, split, label, masks, bool(masks), defect)


def assign_splits(records: Iterable[Record], base: Path) -> list[Record]:
    """Return the records of one product, which has no split, with the splits `train` and `test`.

    Anomalous and unlabelled images are test images. If there are anomalous ones, a fifth of the
    normal images (at least one of two or more) are test images, too: those whose path relative to
    `base` has the smallest SHA-256. Otherwise all normal images are training images. The choice
    depends on the names alone: it is the same on every machine, and adding a few images moves only
    a few others.
    """
    product_records = list(records)
    normals = sorted(
        (r for r in product_records if r.label == "normal"), key=lambda r: _digest(r.path, base)
    )
    if len(normals) < 2 or all(r.label != "anomalous" for r in product_records):
        held_out = set[Path]()
    else:
        held_out = {r.path for r in normals[: max(1, len(normals) // 5)]}
    return [
        replace(r, split="test" if r.label != "normal" or r.path in held_out else "train")
        for r in product_records
    ]


def _digest(path: Path, base: Path) -> str:
    text = unicodedata.normalize("NFC", (inside(path, base) or Path(path.name)).as_posix())
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
