"""The regions of interest of a data set: by product, from a manifest, numbers or a mask."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from snl.data.masks import read_area
from snl.data.records import Record
from snl.data.roi import Roi, checked, parse_roi
from snl.data.sizes import upright_size
from snl.errors import DataError, ImageError
from snl.limits import MAX_PIXELS

RoiLike = str | Path | Sequence[int]
"""A region of interest as users give it: left, top, width and height in pixels, as numbers or as
the text `X,Y,W,H`, or the file of a mask."""


@dataclass(frozen=True)
class Regions:
    """Regions of interest as users gave them.

    Attributes:
        rois: by product.
        outside: bool (height, width) by product, for those given as a mask: pixels of the rectangle
            that do not belong to the region.
        files: of the masks.
    """

    rois: Mapping[str, Roi]
    outside: Mapping[str, NDArray[np.bool_]]
    files: tuple[Path, ...] = ()

    @classmethod
    def read(cls, values: Mapping[str, RoiLike] | None, *, max_pixels: int = MAX_PIXELS) -> Regions:
        """Read the regions of products.

        Args:
            values: by product.
            max_pixels: largest allowed height times width of a mask.

        Raises:
            DataError: a text that is neither four numbers nor a file, or numbers of no rectangle.
            ImageError: a mask cannot be read.
        """
        rois: dict[str, Roi] = {}
        outside: dict[str, NDArray[np.bool_]] = {}
        files: list[Path] = []
        for product, value in (values or {}).items():
            what = f"region of interest of '{product}'"
            if not isinstance(value, str | Path):
                rois[product] = parse_roi(",".join(str(number) for number in value), what)
            elif Path(value).is_file():
                files.append(Path(value))
                rois[product], mask = roi_of_mask(Path(value), max_pixels=max_pixels)
                if mask.any():
                    outside[product] = mask
            elif Path(value).suffix:
                raise DataError(
                    f"{what}: {value}: no such file; give a mask, or left, top, width and height "
                    "in pixels as X,Y,W,H"
                )
            else:
                rois[product] = parse_roi(str(value), what)
        return cls(rois, outside, tuple(files))

    def ignore_masks(self, side: int) -> dict[str, NDArray[np.bool_]]:
        """Return the pixels outside as ignore masks, bool (side, side) by product.

        Raises:
            DataError: a region is so thin that nothing of it is left at this size.
        """
        masks = {
            name: np.asarray(Image.fromarray(mask).resize((side, side), Image.Resampling.NEAREST))
            for name, mask in self.outside.items()
        }
        for product, mask in masks.items():
            if mask.all():
                raise DataError(
                    f"region of interest of '{product}': the mask is too thin for an input of "
                    f"{side} pixels; draw a wider one"
                )
        return masks

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the rectangles and masks; empty if there are none."""
        if not self.rois:
            return ""
        digest = hashlib.sha256()
        for product, roi in sorted(self.rois.items()):
            digest.update(f"{product}\0{roi}\0".encode())
            if product in self.outside:
                digest.update(np.packbits(self.outside[product]).tobytes())
        return digest.hexdigest()


def roi_of_mask(file: Path, *, max_pixels: int = MAX_PIXELS) -> tuple[Roi, NDArray[np.bool_]]:
    """Return the rectangle around the marked pixels of a mask file, and which pixels of it are
    not marked, bool (height, width).

    Raises:
        DataError: no pixel is marked, or the rectangle is too small.
        ImageError: the file cannot be read, or is a picture.
    """
    mask = read_area(file, max_pixels=max_pixels)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise DataError(f"{file}: marks no pixel; white is the region of interest")
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
    size = (mask.shape[1], mask.shape[0])
    roi = checked(Roi(left, top, width, height, size), f"{file}: region of interest")
    return roi, ~mask[top : top + height, left : left + width]


def with_rois(
    records: Iterable[Record], rois: Mapping[str, Roi], *, max_pixels: int = MAX_PIXELS
) -> tuple[Record, ...]:
    """Return records whose products have regions of interest.

    A region that does not say so is taken to be drawn on images like the product's first one that
    can be read.

    Args:
        records: of images. Where one of a product's has a region, all of them get it.
        rois: by product, instead of those.
        max_pixels: largest allowed height times width of an image.

    Raises:
        DataError: a region of no product among the records, one that is not inside its images, or
            different ones of a product's images.
    """
    given = tuple(records)
    if not rois and all(record.roi is None for record in given):
        return given
    products = {record.product for record in given}
    for product in rois:
        if product not in products:
            raise DataError(
                f"region of interest of '{product}': no such product; there are "
                f"{', '.join(sorted(products)[:20])}"
            )
    chosen: dict[str, Roi] = {}
    for product in products:
        own = {r.roi for r in given if r.product == product and r.roi is not None}
        if product in rois:
            chosen[product] = rois[product]
        elif len(own) > 1:
            raise DataError(
                f"product '{product}' has images with different regions of interest "
                f"({', '.join(sorted(map(str, own))[:4])}); give one for all of them"
            )
        elif own:
            chosen[product] = own.pop()
    for product, roi in chosen.items():
        paths = [record.path for record in given if record.product == product]
        size = _first_size(paths, max_pixels)
        if size is not None:
            try:
                chosen[product] = roi.drawn_on(size)
                chosen[product].window(size)
            except (DataError, ImageError) as error:
                raise DataError(f"product '{product}': {error}") from None
    return tuple(replace(record, roi=chosen.get(record.product)) for record in given)


def rois_of(records: Iterable[Record]) -> dict[str, Roi]:
    """Return the regions of interest of products, by the images of each."""
    return {record.product: record.roi for record in records if record.roi is not None}


def _first_size(paths: Sequence[Path], max_pixels: int) -> tuple[int, int] | None:
    """Return the (height, width) of the first readable image; None: there is none."""
    for path in paths:
        try:
            return upright_size(path, max_pixels=max_pixels)
        except ImageError:
            continue
    return None
