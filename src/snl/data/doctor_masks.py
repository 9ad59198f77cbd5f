"""The checks of `snl doctor` for the masks of one image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from snl.data.aspect import same_aspect
from snl.data.catalog import Catalog
from snl.data.diagnosis import Problem
from snl.data.masks import MaskValues, load_mask, read_values
from snl.data.records import Record
from snl.data.source import name_of
from snl.errors import ImageError
from snl.limits import MAX_PIXELS

_MOST = 0.5
"""Share of an image above which its mask is probably inverted."""
_BETWEEN_OF_IMAGE = 0.01
_BETWEEN_OF_MARKED = 0.1
_BETWEEN_VALUES = 8
"""Fewer different values between the extremes are class ids."""
_LOSSY_MARGIN = 48


def check_masks(
    catalog: Catalog, record: Record, size: tuple[int, int], max_pixels: int = MAX_PIXELS
) -> Iterator[Problem]:
    """Yield the problems of the masks of an anomalous image.

    Args:
        catalog: the data set.
        record: the image, with mask files.
        size: width and height of the image.
        max_pixels: largest allowed number of pixels of a mask.
    """
    where = catalog.relative(record.mask[0])
    try:
        mask = load_mask(record.mask, max_pixels=max_pixels)
    except ImageError as error:
        what = str(error).removeprefix(name_of(record.mask[0])).strip()
        yield Problem("error", where, what, "unreadable mask")
        return
    (height, width), (w, h) = mask.shape, size
    if (width, height) != size:
        what = f"is {width} x {height} pixels but its image is {w} x {h}; "
        if same_aspect(mask.shape, (h, w)):
            what += "it will be resized; save it at the size of the image to avoid that"
            yield Problem("warning", where, what, "mask of another size")
        else:
            what += "it does not fit; save it at the size of the image"
            yield Problem("error", where, what, "mask of another shape")
            return
    share = float(mask.mean())
    if not share:
        what = "is empty although its image is anomalous; draw the defect, or remove the mask"
        yield Problem("warning", where, what, "empty mask")
    elif share > _MOST:
        what = (
            f"marks {100 * share:.0f} % of the image; if it is inverted, save it with 0 where the "
            "image is normal"
        )
        yield Problem("warning", where, what, "mask of most of the image")
    for path in record.mask:
        if path.suffix.lower() != ".json":
            yield from _check_values(catalog, path, max_pixels)


def _check_values(catalog: Catalog, path: Path, max_pixels: int) -> Iterator[Problem]:
    """Warn about masks with values between normal and anomalous: blurred ones, heat maps."""
    mask = read_values(path, max_pixels=max_pixels)
    between = _share_between(mask)
    marked = float(mask.marked.mean())
    if between > _BETWEEN_OF_IMAGE or (marked and between > _BETWEEN_OF_MARKED * marked):
        threshold = "above 127" if mask.lossy else "above 0"
        what = (
            f"has values between its extremes in {100 * between:.2g} % of its pixels, as if it "
            f"were blurred or a heat map; every value {threshold} counts as anomalous, so save "
            "it with two values"
        )
        yield Problem("warning", catalog.relative(path), what, "mask of many values")


def _share_between(mask: MaskValues) -> float:
    """Return the share of pixels whose value is strictly between the extremes.

    Masks with few such values contain class ids, not intermediate values.
    """
    values = mask.values.max(axis=2) if mask.values.ndim == 3 else mask.values
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        return 0.0
    low, high = finite.min(), finite.max()
    if mask.lossy:
        low, high = low + _LOSSY_MARGIN, high - min(_LOSSY_MARGIN, int(high))
    inner = finite[(finite > low) & (finite < high)]
    if len(np.unique(inner)) < _BETWEEN_VALUES:
        return 0.0
    return float(inner.size / values.size)
