"""Ignore masks as image files: where a product is not inspected."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from snl.data.masks import read_area
from snl.decision.calibration import Calibration
from snl.decision.maps import resize_mask
from snl.errors import DataError, ImageError
from snl.service.blobs import Blobs
from snl.service.serving import Serving, decoding
from snl.service.store import NotThereError

MOST_SIDE = 2048
"""Largest side of a mask that is shown, in pixels."""


def read_mask(blobs: Blobs, serving: Serving, product: str, content: bytes) -> NDArray[np.bool_]:
    """Return the ignore mask in an image file, bool (side, side), as `snl calibrate --ignore` does.

    Args:
        blobs: for a temporary file.
        serving: the version that it is for.
        product: a known one. If it has a region of interest, the mask is of the whole image.
        content: of the file; white is ignored.

    Raises:
        SettingsError: an unknown product.
        ImageError: it is no image, or its shape does not fit the region of interest.
        DataError: it ignores nothing or everything.
    """
    calibration, side = serving.calibration, serving.inspector.image_size
    calibration.check_product(product)
    if not content:
        raise ImageError("the mask is empty; send an image file as the body")
    with blobs.incoming(content) as path:
        try:
            with decoding:
                mask = read_area(path, max_pixels=serving.inspector.max_pixels)
        except ImageError as error:
            raise ImageError(str(error).replace(str(path), "the mask")) from None
    if (roi := calibration.rois.get(product)) is not None:
        mask = roi.window(mask.shape, "the mask").of(mask)
    mask = resize_mask(mask, (side, side))
    if mask.all() or not mask.any():
        what = "everything" if mask.all() else "nothing"
        raise DataError(f"{what} would be ignored; white is what to ignore")
    return mask


def mask_png(calibration: Calibration, product: str) -> bytes:
    """Return the ignore mask of a product as a PNG of 0 and 255.

    Of a product with a region of interest it is a mask of the whole image, not larger than
    `MOST_SIDE`; otherwise it is square, to be stretched over the image.

    Raises:
        NotThereError: there is no such product, or it has no mask.
    """
    if product not in calibration.products:
        raise NotThereError(f"there is no product {product[:100]}")
    mask = calibration.ignore_masks.get(product)
    if mask is None:
        raise NotThereError(f"product '{product[:100]}' has no ignore mask")
    roi = calibration.rois.get(product)
    if roi is not None and roi.image is not None:
        scale = min(1.0, MOST_SIDE / max(roi.image))
        width, height = (max(1, round(length * scale)) for length in roi.image)
        window = roi.window((height, width))
        whole = np.zeros((height, width), bool)
        window.of(whole)[:] = resize_mask(mask, window.size)
        mask = whole
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(buffer, "PNG")
    return buffer.getvalue()
