"""Read mask files as arrays of booleans: which pixels of an image are anomalous.

* Grey, colour and floating-point masks: every value above 0 is anomalous (0/255, class ids, 16
  bits, heat maps); NaN and negative values are not. In lossy files (JPEG, lossy WebP, TIFF with
  JPEG compression), values above 127: compression adds small values around edges.
* Palette masks: every index but 0.
* Masks with transparent pixels: these are normal. If all other pixels have one colour, they are all
  anomalous: the transparency is the mask. An alpha channel that is constant is ignored.
* LabelMe files (.json): the areas of their shapes (`snl.data.labelme`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from snl.data.aspect import same_aspect
from snl.data.labelme import read_labelme
from snl.data.source import name_of, open_image, opened
from snl.data.stored import deep_samples
from snl.errors import ImageError
from snl.limits import MAX_PIXELS

_LOSSY_THRESHOLD = 127
_LOSSY_MARGIN = 48
"""Values of a lossy file this close to 0 or 255 are counted as 0 or 255."""
_FEW_VALUES = 24
"""Masks have no more values than this; class ids may have several."""

_BETWEEN, _PICTURE_SHARE = 0.3, 0.05
"""Values between black and white are up to this far from the middle, in units of their range; in a
picture more than this share of the values are such, in a mask only some along the edges."""


@dataclass(frozen=True)
class MaskValues:
    """The decoded values of one mask file."""

    values: NDArray[Any]
    """(H, W) or (H, W, 3), of the file's type; for a palette the indices."""
    lossy: bool
    """True if the compression of the file changes values."""

    @property
    def marked(self) -> NDArray[np.bool_]:
        """The anomalous pixels, (H, W) bool."""
        mask: NDArray[np.bool_] = self.values > (_LOSSY_THRESHOLD if self.lossy else 0)
        return np.asarray(mask.any(axis=2)) if mask.ndim == 3 else mask

    @property
    def is_picture(self) -> bool:
        """Whether these are the many values of a picture, not those of black and white areas."""
        height, width = self.values.shape[:2]
        step = max(1, min(height, width) // 256)  # some of the pixels tell
        shown = self.values[::step, ::step].astype(np.float32)
        values = np.nan_to_num(shown, posinf=0, neginf=0)
        if len(np.unique(values)) <= _FEW_VALUES:
            return False
        low, high = float(values.min()), float(values.max())
        between = np.abs((values - low) / (high - low) - 0.5) < _BETWEEN
        return float(between.mean()) > _PICTURE_SHARE


def load_mask(
    paths: tuple[Path, ...],
    size: tuple[int, int] | None = None,
    *,
    image_size: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.bool_]:
    """Return the union of mask files, (H, W) bool, True for anomalous pixels.

    Args:
        paths: mask files of one image; without any, the result is an empty mask of `size`.
        size: (H, W) to which each file is resized (nearest neighbour); None: the size of the
            files, which must be the same.
        image_size: (H, W) of the image; a file of another aspect ratio is an error. None: not
            checked, for masks that are no image's, such as ignore masks.
        max_pixels: largest allowed height times width of a file, checked before decoding.

    Raises:
        ImageError: a file cannot be read, sizes differ, a file has another aspect ratio than the
            image, or there is neither a file nor a size.
    """
    if not paths and size is None:
        raise ImageError("no mask file and no size for an empty mask; give one of them")
    union: NDArray[np.bool_] | None = None if size is None else np.zeros(size, np.bool_)
    for path in paths:
        mask = read_mask(path, max_pixels=max_pixels)
        if image_size is not None:
            _check_aspect(path, mask.shape, image_size)
        if size is not None and mask.shape != size:
            resized = Image.fromarray(mask.view(np.uint8)).resize(
                (size[1], size[0]), Image.Resampling.NEAREST
            )
            mask = np.asarray(resized) > 0
        if union is None:
            union = mask
        elif union.shape != mask.shape:
            raise ImageError(
                f"{name_of(path)} is {mask.shape[1]} x {mask.shape[0]} pixels but another mask of "
                f"the same image is {union.shape[1]} x {union.shape[0]}; save them at the same "
                "size"
            )
        else:
            union = union | mask
    assert union is not None
    return union


def read_mask(path: Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """Return the mask in one file, (H, W) bool.

    Raises:
        ImageError: it cannot be read.
    """
    if path.suffix.lower() == ".json":
        return read_labelme(path, max_pixels=max_pixels)
    return read_values(path, max_pixels=max_pixels).marked


def read_area(path: Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """Return the area that somebody marked in white on black, (H, W) bool.

    Raises:
        ImageError: the file cannot be read, or is a picture.
    """
    if path.suffix.lower() == ".json":
        return read_labelme(path, max_pixels=max_pixels)
    values = read_values(path, max_pixels=max_pixels)
    if values.is_picture:
        raise ImageError(
            f"{name_of(path)} is a picture, not a mask: many of its pixels are neither black nor "
            "white; give an image that is white in the area and black elsewhere"
        )
    return values.marked


def read_values(path: Path, *, max_pixels: int = MAX_PIXELS) -> MaskValues:
    """Return the decoded values of a mask file that is an image.

    Raises:
        ImageError: it cannot be read.
    """
    name = name_of(path)
    with opened(path, max_pixels=max_pixels) as image:
        lossy = _is_lossy(image, path)
        deep = deep_samples(image, name)  # Pillow would keep the high bytes only
        if deep is not None:
            return MaskValues(_without_transparency(deep), lossy)
    image = open_image(path, max_pixels=max_pixels)
    try:
        values = _values(image)
    except Exception as error:
        raise ImageError(
            f"{name} has the colour mode {image.mode}, which is not supported for masks; save it "
            "as grey"
        ) from error
    if image.mode == "1":
        values = values.astype(np.uint8)
    return MaskValues(values, lossy)


def is_marked(path: Path) -> bool:
    """Return True if a mask file marks any pixel.

    Raises:
        ImageError: it cannot be read.
    """
    return bool(read_mask(path).any())


def looks_like_mask(path: Path, most: int = _FEW_VALUES) -> bool | None:
    """Return True if an image has few values, as masks do; None if it cannot be read.

    Args:
        path: an image file.
        most: number of values that are few; with 2, an image of one value counts only if that
            value is 0.
    """
    try:
        mask = read_values(path)
    except ImageError:
        return None
    values = mask.values
    if mask.lossy:
        values = np.where(values <= _LOSSY_MARGIN, 0, values)
        values = np.where(values >= 255 - _LOSSY_MARGIN, 255, values)
    height, width = values.shape[:2]
    # Pictures are recognised by a few of their pixels; masks need a look at all of them.
    for step in (max(1, height // 32, width // 32), 1):
        shown = values[::step, ::step]
        shown = shown.reshape(-1, 3) if shown.ndim == 3 else shown.reshape(-1)
        found = np.unique(shown, axis=0)
        if len(found) > most:
            return False
    return bool(len(found) > 1 or most > 2 or not found.any())


def _check_aspect(path: Path, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    height, width = shape
    if not same_aspect((height, width), size):
        raise ImageError(
            f"{name_of(path)} is {width} x {height} pixels but its image is {size[1]} x {size[0]}, "
            "which is another shape; save the mask at the size of the image"
        )


def _values(image: Image.Image) -> NDArray[Any]:
    if image.mode == "P":
        return np.asarray(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        return _without_transparency(np.asarray(image.convert("RGBA")))
    if image.mode in ("1", "L", "I", "F", "RGB") or image.mode.startswith("I;16"):
        return np.asarray(image)
    return np.asarray(image.convert("RGB"))


def _without_transparency(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return the values of a mask of 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha) channels."""
    if pixels.shape[2] == 3:
        return pixels
    colour, alpha = pixels[:, :, :-1], pixels[:, :, -1]
    if alpha.min() == alpha.max():
        return colour
    visible = alpha > 0
    colours = colour[visible]
    if (colours == colours[0]).all():
        return np.asarray(alpha - alpha.min())
    return np.where(visible[:, :, None], colour, 0)


def _is_lossy(image: Image.Image, path: Path) -> bool:
    if image.format == "WEBP":
        return _is_lossy_webp(path)
    return image.format in ("JPEG", "MPO") or image.info.get("compression") == "jpeg"


def _is_lossy_webp(path: Path) -> bool:
    """Return True unless the pixels are in a chunk `VP8L` (lossless) alone.

    See https://developers.google.com/speed/webp/docs/riff_container.
    """
    with path.open("rb") as file:
        file.seek(12)
        while len(header := file.read(8)) == 8:
            name, length = header[:4], int.from_bytes(header[4:], "little")
            if name in (b"VP8 ", b"VP8L"):
                return name == b"VP8 "
            if name == b"ANMF":  # a frame: its own chunks follow after 16 bytes
                file.seek(16, 1)
            else:
                file.seek(length + length % 2, 1)
    return True
