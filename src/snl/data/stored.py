"""The pixels of an image as its file stores them, converted to 8-bit RGB in any part of it.

Samples of more than 8 bits are scaled by their white level, the sample value that is white. It is
the same for all images of a data set, or stated by the file; it never depends on the content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from snl.data import ppm, tiff
from snl.data.opening import load_pixels, open_header
from snl.data.samples import FULL_SCALE, Samples, rawmode_of, samples_of
from snl.errors import ImageError

Box = tuple[int, int, int, int]
"""Left, top, right and bottom."""
_Fetch = Callable[[Box], NDArray[Any]]
"""Samples of a box: (h, w), or (h, w, C) with C 3 (RGB), 4 (RGBA) or 2 (grey and alpha)."""
_BAND = 2**22


class Stored:
    """A decoded image as it is stored, not turned upright.

    Attributes:
        size: (width, height).
        mode: Pillow's colour mode; `;16` is appended to that of deep colour.
        samples: what the file says, or the caller.
        plain: the Pillow image, if it is RGB or grey of 8 bits and has no transparency.
        remarks: about what could not be kept; see `rgb`.
        highest: largest sample; None for 8-bit images.
    """

    def __init__(self, size: tuple[int, int], mode: str, samples: Samples, name: str) -> None:
        self.size, self.mode, self.samples, self._name = size, mode, samples, name
        self.plain: Image.Image | None = None
        self.remarks: tuple[str, ...] = ()
        self.highest: int | None = None
        self._convert: Callable[[Box], NDArray[np.uint8]]

    def rgb(self, box: Box) -> NDArray[np.uint8]:
        """Return a part, (h, w, 3) uint8 RGB.

        Raises:
            ImageError: a mode that cannot be converted.
        """
        try:
            return self._convert(box)
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(
                f"{self._name} has the colour mode {self.mode}, which is not supported; save it as "
                "RGB"
            ) from error

    def _boxes(self) -> Iterator[Box]:
        """Yield bands that cover the image."""
        width, height = self.size
        rows = max(1, _BAND // width)
        for top in range(0, height, rows):
            yield 0, top, width, min(top + rows, height)


def decode(image: Image.Image, name: str, white_level: int = 0) -> Stored:
    """Decode an open image.

    Args:
        image: as `snl.data.source.opened` returns it.
        name: what messages call it.
        white_level: of files that do not state the range of their 16-bit samples; 0: 65535.

    Raises:
        ImageError: samples out of range, or a kind that would be decoded wrongly.
        Exception: what Pillow's decoders raise.
    """
    samples = samples_of(image)
    mode = image.mode
    if isinstance(image, ImageFile.ImageFile) and image.tile:
        if (head := ppm.header(image)) is not None:
            file: Any = image.fp
            values = ppm.read(file, head, image.size, name)
            mode = mode if head.channels == 1 or head.maxval < 256 else mode + ";16"
            stored = Stored(image.size, mode, samples, name)
            white = head.maxval if head.maxval < FULL_SCALE else white_level
            return _integers(stored, _of_array(values), white)
        if _is_deep_colour(image):
            stored = Stored(image.size, mode + ";16", samples, name)
            key = image.info.get("transparency")
            return _integers(stored, _deep_colour(image, name), white_level, key)
    key = image.info.get("transparency")
    load_pixels(image)
    stored = Stored(image.size, mode, samples, name)
    if samples.floating:
        return _floats(stored, _of_image(image))
    if samples.bits > 8:
        return _integers(stored, _of_image(image), white_level, key)
    if isinstance(image, ImageFile.ImageFile) and image.format == "TIFF":
        _check_signed(image, name)
    return _bytes(stored, image)


def of_array(array: NDArray[np.uint16], white_level: int = 0) -> Stored:
    """Return an array, (H, W), (H, W, 1) or (H, W, 3) uint16, as a decoded image.

    Raises:
        ImageError: another shape, or no pixels.
    """
    values = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    samples = Samples(16, values.ndim == 2)
    stored = Stored((array.shape[1], array.shape[0]), "I;16", samples, "the array given")
    return _integers(stored, _of_array(values), white_level)


def deep_samples(image: Image.Image, name: str) -> NDArray[Any] | None:
    """Return the samples of an open image of 16-bit colour, (H, W, C) uint16; None for others.

    Args:
        image: as `snl.data.source.opened` returns it.
        name: what messages call it.

    Raises:
        ImageError: a kind that would be decoded wrongly.
        Exception: what Pillow's decoders raise.
    """
    if not (isinstance(image, ImageFile.ImageFile) and image.tile and _is_deep_colour(image)):
        return None
    return _deep_colour(image, name)((0, 0, *image.size))


def _is_deep_colour(image: ImageFile.ImageFile) -> bool:
    """Return True if Pillow would keep only 8 of the 16 bits of each sample."""
    if image.format == "TIFF":
        bits = max(image.tag_v2.get(tiff.BITS, (1,)))  # type: ignore[attr-defined]
        return bits == 16 and image.mode in ("RGB", "RGBA")
    return image.format == "PNG" and rawmode_of(image).startswith(("RGB;16", "RGBA;16", "LA;16"))


def _deep_colour(image: ImageFile.ImageFile, name: str) -> _Fetch:
    """Decode 16-bit colour: once for the high and once for the low bytes of the samples."""
    file: Any = image.fp
    if rawmode_of(image) == "LA;16B":  # four bytes per pixel: grey and alpha, high and low
        _set_rawmodes(image, "RGBA", lambda _: "RGBA")
        load_pixels(image)

        def fetch(box: Box) -> NDArray[Any]:
            parts = np.asarray(_crop(image, box)).astype(np.uint16)
            return (parts[:, :, 0::2] << 8) | parts[:, :, 1::2]

        return fetch
    again = open_header(file, (str(image.format),))
    assert isinstance(again, ImageFile.ImageFile)
    if image.format == "TIFF":
        planar = image.tag_v2.get(tiff.PLANAR, 1) == 2  # type: ignore[attr-defined]
        if planar and image.tile[0][0] == "libtiff":
            raise ImageError(
                f"{name} is a compressed TIFF of 16 bits with one plane for each colour, which is "
                "not supported; save it with interleaved colours (planar configuration 1)"
            )
        # Premultiplied colour is what blending with black gives, so its alpha is not needed.
        mode = "RGB" if rawmode_of(image).startswith("RGBa") else image.mode
        for one, high in ((image, True), (again, False)):
            if planar:  # Pillow makes tiles of further planes, too, with a part of the raw mode
                one.tile = [tile for tile in one.tile if tile[3][0] in tuple("RGBA")]  # type: ignore[index]
            _set_rawmodes(one, mode, partial(tiff.deep_rawmode, one, high))
    else:
        _set_rawmodes(again, again.mode, lambda raw: raw.replace(";16B", ";16L"))
    load_pixels(image)
    load_pixels(again)

    def fetch_both(box: Box) -> NDArray[Any]:
        high = np.asarray(_crop(image, box)).astype(np.uint16)
        high <<= 8
        high |= np.asarray(_crop(again, box))
        return high

    return fetch_both


def _set_rawmodes(image: ImageFile.ImageFile, mode: str, change: Callable[[str], str]) -> None:
    """Change how Pillow unpacks the tiles of an image, before it is decoded."""
    image._mode = mode
    tiles = []
    for tile in image.tile:
        args: Any = tile[3]
        args = (change(args[0]), *args[1:]) if isinstance(args, tuple) else change(str(args))
        tiles.append(ImageFile._Tile(*tile[:3], args))
    image.tile = tiles


def _bytes(stored: Stored, image: Image.Image) -> Stored:
    """Complete an image of 8-bit samples."""
    if not image.has_transparency_data:
        if image.mode in ("RGB", "L"):
            stored.plain = image

        def opaque(box: Box) -> NDArray[np.uint8]:
            part = _crop(image, box)
            return np.array(part if part.mode == "RGB" else part.convert("RGB"))

        stored._convert = opaque
        return stored

    def rgba(box: Box) -> NDArray[np.uint8]:
        return np.asarray(_crop(image, box).convert("RGBA"))

    visible: bool | None = None

    def convert(box: Box) -> NDArray[np.uint8]:
        nonlocal visible
        if visible is None:
            visible = any(bool(rgba(band)[:, :, 3].any()) for band in stored._boxes())
        pixels = rgba(box)
        if not visible:  # written by a program that does not set alpha
            return np.ascontiguousarray(pixels[:, :, :3])
        return _blend_with_black(pixels[:, :, :3], pixels[:, :, 3])

    stored._convert = convert
    return stored


def _integers(stored: Stored, fetch: _Fetch, white_level: int, key: Any = None) -> Stored:
    """Complete an image of integer samples of more than 8 bits, or of PGM's own range.

    Args:
        stored: the image.
        fetch: its samples, not negative.
        white_level: if the file states none; 0: 65535.
        key: the sample or samples of transparent pixels.
    """
    survey = _Survey(stored, fetch, key)
    stored.highest = survey.highest
    samples = stored.samples
    white = samples.white or white_level or FULL_SCALE
    if samples.significant:
        white = 2**samples.significant - 1 if survey.right_aligned else FULL_SCALE
    if survey.highest > white:
        stored.remarks = (f"has samples above the white level {white}, which were clipped",)
    table = _table(white, samples.min_is_white)
    # A writer of samples below 65535 scales alpha like them.
    alpha_table = _table(white if survey.highest_alpha <= white else FULL_SCALE, False)

    def convert(box: Box) -> NDArray[np.uint8]:
        values = fetch(box)
        colour, alpha = _split(values, key)
        pixels = table[colour]
        if pixels.ndim == 2 or pixels.shape[2] == 1:
            pixels = np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
        if alpha is None or survey.highest_alpha == 0:
            return np.ascontiguousarray(pixels)
        return _blend_with_black(pixels, alpha_table[alpha])

    stored._convert = convert
    return stored


class _Survey:
    """What must be known about all samples before a part is converted.

    Attributes:
        highest: largest sample of colour.
        highest_alpha: largest of alpha; 0: all pixels are transparent, or there is no alpha.
        right_aligned: the samples are unscaled values of as many bits as sBIT states.
    """

    def __init__(self, stored: Stored, fetch: _Fetch, key: Any) -> None:
        self.highest = self.highest_alpha = 0
        self.right_aligned = False
        lowest = 0
        significant = stored.samples.significant
        for box in stored._boxes():
            colour, alpha = _split(fetch(box), key)
            self.highest = max(self.highest, int(colour.max()))
            lowest = min(lowest, int(colour.min()))
            if alpha is not None:
                self.highest_alpha = max(self.highest_alpha, int(alpha.max()))
            if significant and not self.right_aligned:
                self.right_aligned = _has_low_bits(colour, significant)
        if lowest < 0 or self.highest > FULL_SCALE:
            raise ImageError(
                f"{stored._name} has integers from {lowest} to {self.highest}, outside 0..65535; "
                "save it with 8 or 16 bits"
            )
        self.right_aligned &= self.highest < 2**significant


def _has_low_bits(values: NDArray[Any], significant: int) -> bool:
    """Return True if bits below the significant ones are neither 0 nor a copy of the highest."""
    values = np.asarray(values, np.uint16)
    low = values & np.uint16(2 ** (16 - significant) - 1)
    kept = values - low
    repeated, shift = kept.copy(), significant
    while shift < 16:
        repeated |= kept >> np.uint16(shift)
        shift += significant
    return bool(((low != 0) & (values != repeated)).any())


def _floats(stored: Stored, fetch: _Fetch) -> Stored:
    """Complete an image of floating-point samples from 0 to 1."""
    low, high, finite = np.inf, -np.inf, True
    for box in stored._boxes():
        part = fetch(box)
        low, high = min(low, float(part.min())), max(high, float(part.max()))
        finite &= bool(np.isfinite(part).all())
    if not (finite and low >= 0 and high <= 1):
        raise ImageError(
            f"{stored._name} has floating-point values from {low:g} to {high:g}, outside 0..1; "
            "scale them, or save it with 8 or 16 bits"
        )
    inverted = stored.samples.min_is_white

    def convert(box: Box) -> NDArray[np.uint8]:
        values = 1 - fetch(box) if inverted else fetch(box)
        return np.repeat(np.asarray(np.rint(values * 255), np.uint8)[:, :, None], 3, axis=2)

    stored._convert = convert
    return stored


def _split(values: NDArray[Any], key: Any) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return colour and alpha of samples; alpha is None if there is none."""
    if values.ndim == 3 and values.shape[2] in (2, 4):
        return values[:, :, :-1], values[:, :, -1]
    if key is None or isinstance(key, bytes):
        return values, None
    clear = values == np.asarray(key)
    clear = clear.all(axis=2) if clear.ndim == 3 else clear
    return values, np.where(clear, 0, FULL_SCALE)


def _table(white: int, inverted: bool) -> NDArray[np.uint8]:
    """Return the 8-bit value of every 16-bit sample."""
    scaled = np.minimum(np.arange(FULL_SCALE + 1) / white, 1)
    return np.asarray(np.rint((1 - scaled if inverted else scaled) * 255), np.uint8)


def _blend_with_black(colour: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    product = colour.astype(np.uint16) * alpha.astype(np.uint16)[:, :, None]
    return np.asarray((product + 127) // 255, np.uint8)


def _of_image(image: Image.Image) -> _Fetch:
    def fetch(box: Box) -> NDArray[Any]:
        values = np.asarray(_crop(image, box))
        return values.astype(values.dtype.newbyteorder("="), copy=False)

    return fetch


def _of_array(values: NDArray[Any]) -> _Fetch:
    def fetch(box: Box) -> NDArray[Any]:
        part = values[box[1] : box[3], box[0] : box[2]]
        return part.astype(part.dtype.newbyteorder("="), copy=False)

    return fetch


def _crop(image: Image.Image, box: Box) -> Image.Image:
    return image if box == (0, 0, *image.size) else image.crop(box)


def _check_signed(image: ImageFile.ImageFile, name: str) -> None:
    """Raise an ImageError if a TIFF has negative 8-bit samples, which Pillow takes for bright."""
    kind: Any = image.tag_v2.get(tiff.FORMAT, (1,))  # type: ignore[attr-defined]
    if 2 in kind and image.getextrema()[1] > 127:  # type: ignore[operator]
        raise ImageError(f"{name} has negative samples; save it with unsigned 8 or 16 bits")
