"""TIFF files that Pillow does not read, or reads differently from what their tags say."""

from __future__ import annotations

import struct
import sys
from io import BytesIO
from typing import Any, BinaryIO, NamedTuple

from PIL import Image, ImageFile, ImagePalette, UnidentifiedImageError

from snl.data.opening import open_header
from snl.errors import ImageError

BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR = 258, 259, 262, 277, 284
MAX_SAMPLE, COLOUR_MAP, EXTRA, FORMAT = 281, 320, 338, 339
_SUBSAMPLING, _DNG_VERSION = 530, 50706
MIN_IS_WHITE = "min_is_white"
"""Key of `info` in an image whose photometric interpretation was hidden from Pillow."""

_OTHER = {"L": "B", "B": "L"}
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_PHOTOMETRIC = {
    0: "min-is-white grey",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "a mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32803: "colour filter array",
    34892: "linear raw",
}


class _Tag(NamedTuple):
    values: tuple[int, ...]
    place: int
    """Of the first value in the file."""
    code: str
    """Of its type and byte order, for `struct`."""


def is_camera_raw(file: BinaryIO) -> bool:
    """Return True if a file with the structure of a TIFF is a DNG, which begins with a preview."""
    return _DNG_VERSION in _read_tags(file)


def open_unusual(file: BinaryIO, name: str) -> Image.Image:
    """Return the image of a TIFF that Pillow refuses because of its photometric interpretation.

    Pillow lacks most kinds of min-is-white, but has the same kinds as max-is-white.

    Raises:
        ImageError: it is of a kind that cannot be read.
        UnidentifiedImageError: it is damaged.
    """
    tags = _read_tags(file)
    tag = tags.get(PHOTOMETRIC)
    if tag is not None and tag.values == (0,):
        file.seek(0)
        patched = bytearray(file.read())
        struct.pack_into(tag.code, patched, tag.place, 1)
        try:
            image = open_header(BytesIO(bytes(patched)), ("TIFF",))
            image.info[MIN_IS_WHITE] = True
            return image
        except UnidentifiedImageError:
            pass
    if not tags:
        raise UnidentifiedImageError("no tags")
    raise ImageError(
        f"{name} is a TIFF of a kind that is not supported ({_describe(tags)}); save it with 8 or "
        "16 bits, as grey or RGB"
    )


def prepare(image: Image.Image, name: str) -> None:
    """Correct what Pillow gets wrong in an open TIFF, before it is decoded.

    Raises:
        ImageError: it would be decoded wrongly.
    """
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    subsampling = tags.get(_SUBSAMPLING)
    raw = tags.get(COMPRESSION, 1) == 1
    if tags.get(PHOTOMETRIC) == 6 and raw and subsampling not in (None, (1, 1)):
        raise ImageError(
            f"{name} is a TIFF with subsampled YCbCr and no compression, which is not supported; "
            "save it as RGB"
        )
    if image.mode == "CMYK" and max(tags.get(BITS, (8,))) > 8:
        raise ImageError(
            f"{name} is a TIFF of 16-bit CMYK, which is not supported; save it as RGB or grey"
        )
    if image.tile and image.tile[0][0] == "libtiff":  # type: ignore[attr-defined]
        codec, extents, offset, args = image.tile[0]  # type: ignore[attr-defined]
        args = (_native(args[0]), *args[1:])
        image.tile = [ImageFile._Tile(codec, extents, offset, args)]  # type: ignore[attr-defined]
    colours = tags.get(COLOUR_MAP)
    if image.mode in ("P", "PA") and colours and max(colours) < 256:  # of 8 bits, not 16
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))


def _native(rawmode: str) -> str:
    """Return the raw mode of samples that libtiff has converted to the machine's byte order."""
    if sys.byteorder == "little":
        return {"F;32BF": "F;32F", "I;16BS": "I;16S", "I;32BS": "I;32S"}.get(rawmode, rawmode)
    return {"F;32F": "F;32BF", "I;16S": "I;16BS", "I;32S": "I;32BS"}.get(rawmode, rawmode)


def deep_rawmode(image: ImageFile.ImageFile, high: bool, rawmode: str) -> str:
    """Return the raw mode of the high or of the low bytes of 16-bit samples.

    Args:
        image: an open TIFF of several samples per pixel.
        high: whether the high bytes are wanted.
        rawmode: by which Pillow unpacks the high bytes, or the letter of one plane.
    """
    colours, _, kind = rawmode.replace("a", "X").partition(";")
    order = kind[-1:]
    if not order:  # one plane
        order = "L" if image.tag_v2.prefix == b"II" else "B"  # type: ignore[attr-defined]
    if order == "N":
        order = "L" if sys.byteorder == "little" else "B"
    return f"{colours};16{order if high else _OTHER[order]}"


def _read_tags(file: BinaryIO) -> dict[int, _Tag]:
    """Return the tags of whole numbers in the first directory; none if it is damaged."""
    tags: dict[int, _Tag] = {}
    try:
        file.seek(0)
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = 43 in head[2:4]
        offset, count, entry = (
            (_at(order + "Q", head, 8), order + "Q", order + "HHQ")
            if big
            else (_at(order + "I", head, 4), order + "H", order + "HHI")
        )
        file.seek(offset)
        number = _at(count, file.read(struct.calcsize(count)), 0)
        first = offset + struct.calcsize(count)
        size = 20 if big else 12
        table = file.read(size * min(number, 1000))
        for start in range(0, len(table) - size + 1, size):
            tag, kind, values = struct.unpack_from(entry, table, start)
            if kind not in _TYPES or not 0 < values <= 3 * 65536:
                continue
            code = order + _TYPES[kind]
            inline = struct.calcsize(entry)
            length = struct.calcsize(code) * values
            place = first + start + inline
            content = table[start + inline : start + size]
            if length > size - inline:
                place = _at(order + ("Q" if big else "I"), content, 0)
                file.seek(place)
                content = file.read(length)
            numbers = struct.unpack_from(f"{order}{values}{_TYPES[kind]}", content)
            tags[tag] = _Tag(numbers, place, code)
    except (struct.error, OSError, OverflowError, ValueError):
        return tags
    finally:
        file.seek(0)
    return tags


def _at(code: str, content: bytes, place: int) -> int:
    return int(struct.unpack_from(code, content, place)[0])


def _describe(tags: dict[int, _Tag]) -> str:
    def first(tag: int, default: int) -> int:
        return tags[tag].values[0] if tag in tags else default

    photometric = first(PHOTOMETRIC, 0)
    words = [
        f"{first(BITS, 1)}-bit {_PHOTOMETRIC.get(photometric, f'photometric {photometric}')}",
        f"{first(SAMPLES, 1)} samples per pixel",
    ]
    kinds = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
    if (kind := first(FORMAT, 1)) in kinds:
        words.append(kinds[kind])
    if EXTRA in tags:
        words.append(f"extra samples {', '.join(map(str, tags[EXTRA].values))}")
    if (compression := first(COMPRESSION, 1)) != 1:
        words.append(f"compression {compression}")
    return ", ".join(words)
