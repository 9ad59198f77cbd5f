"""Image files of many formats: valid ones with their decoded pixels, and damaged ones."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

RNG = np.random.default_rng(7)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def three(grey: NDArray[Any]) -> NDArray[np.uint8]:
    return np.stack([grey, grey, grey], axis=2).astype(np.uint8)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]
) -> bytes:
    """Return a PNG built by hand; each row must begin with filter byte 0."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [
        chunk(b"IHDR", header),
        *(chunk(*m) for m in chunks),
        chunk(b"IDAT", zlib.compress(rows)),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def filtered(rows: NDArray[Any]) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in rows)


def tiff(pixels: NDArray[Any], *, big: bool = False) -> bytes:
    """Return a grey TIFF built by hand, with one strip, in little or big-endian byte order."""
    order, kinds = (">" if big else "<"), {"u": 1, "i": 2, "f": 3}
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    height, width = pixels.shape
    tags = [
        (256, width),
        (257, height),
        (258, pixels.dtype.itemsize * 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, height),
        (279, len(data)),
        (339, kinds[pixels.dtype.kind]),
    ]
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags)
    head = (b"MM" if big else b"II") + struct.pack(order + "HI", 42, 8 + len(data))
    return head + data + struct.pack(order + "H", len(tags)) + entries + struct.pack(order + "I", 0)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def over_black(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return each value times its alpha, in exact integer arithmetic, halves rounded up."""
    out = np.zeros((*rgba.shape[:2], 3), np.uint8)
    for y, x, c in np.ndindex(out.shape):
        out[y, x, c] = (2 * int(rgba[y, x, c]) * int(rgba[y, x, 3]) + 255) // 510
    return out


def from_16_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    return three(np.floor(values.astype(np.float64) * 255 / 65535 + 0.5))


RGBA = RNG.integers(0, 256, (5, 7, 4), dtype=np.uint8)
INDEX = RNG.integers(0, 4, (5, 7), dtype=np.uint8)
COLOURS = np.array([[10, 20, 30], [200, 0, 0], [0, 250, 5], [9, 9, 255]], np.uint8)
TRUTH = RNG.integers(0, 2, (5, 7)).astype(bool)
FLOATS = RNG.random((5, 7), np.float32)


def palette() -> Image.Image:
    image = Image.new("P", (7, 5))
    image.putdata(INDEX.ravel().tolist())
    image.putpalette(COLOURS.ravel().tolist())
    return image


def clear(index: int) -> NDArray[np.uint8]:
    return np.where((index == INDEX)[:, :, None], 0, COLOURS[INDEX]).astype(np.uint8)


def black_where(key: NDArray[np.bool_], image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(key[:, :, None], 0, image).astype(np.uint8)


from_array = Image.fromarray
GOOD: dict[str, tuple[bytes, NDArray[np.uint8]]] = {
    "rgb.png": (encode(from_array(RGB), "PNG"), RGB),
    "rgb.bmp": (encode(from_array(RGB), "BMP"), RGB),
    "rgb.tif": (encode(from_array(RGB), "TIFF"), RGB),
    "rgb_lzw.tif": (encode(from_array(RGB), "TIFF", compression="tiff_lzw"), RGB),
    "rgb_deflate.tif": (encode(from_array(RGB), "TIFF", compression="tiff_adobe_deflate"), RGB),
    "rgb.ppm": (encode(from_array(RGB), "PPM"), RGB),
    "rgb_lossless.webp": (encode(from_array(RGB), "WEBP", lossless=True), RGB),
    "wrong_extension.jpg": (encode(from_array(RGB), "PNG"), RGB),
    "no_extension": (encode(from_array(RGB), "PNG"), RGB),
    "grey.png": (encode(from_array(GREY), "PNG"), three(GREY)),
    "grey.pgm": (encode(from_array(GREY), "PPM"), three(GREY)),
    "grey.bmp": (encode(from_array(GREY), "BMP"), three(GREY)),
    "grey.gif": (encode(from_array(GREY), "GIF"), three(GREY)),
    "grey_one_value.jpg": (
        encode(Image.new("L", (7, 5), 77), "JPEG"),
        np.full((5, 7, 3), 77, np.uint8),
    ),
    "bits.png": (encode(from_array(TRUTH), "PNG"), three(TRUTH * 255)),
    "bits.tif": (encode(from_array(TRUTH), "TIFF", compression="group4"), three(TRUTH * 255)),
    "two_bits.png": (
        png(4, 1, 2, 0, b"\0" + bytes([0b00_01_10_11])),
        three(np.array([[0, 85, 170, 255]])),
    ),
    "rgba.png": (encode(from_array(RGBA), "PNG"), over_black(RGBA)),
    "rgba.tif": (encode(from_array(RGBA), "TIFF"), over_black(RGBA)),
    "rgba_opaque.png": (
        encode(from_array(np.dstack([RGB, np.full((5, 7), 255, np.uint8)])), "PNG"),
        RGB,
    ),
    "rgba_clear.png": (
        encode(from_array(np.dstack([RGB, np.zeros((5, 7), np.uint8)])), "PNG"),
        RGB,  # a program that does not set alpha
    ),
    "la.png": (
        encode(Image.merge("LA", [from_array(GREY), from_array(RGBA[:, :, 3].copy())]), "PNG"),
        over_black(np.dstack([GREY, GREY, GREY, RGBA[:, :, 3]])),
    ),
    "palette.png": (encode(palette(), "PNG"), COLOURS[INDEX]),
    "palette.gif": (encode(palette(), "GIF"), COLOURS[INDEX]),
    "palette.bmp": (encode(palette(), "BMP"), COLOURS[INDEX]),
    "palette_clear.png": (encode(palette(), "PNG", transparency=2), clear(2)),
    "palette_clear.gif": (encode(palette(), "GIF", transparency=1), clear(1)),
    "key_colour.png": (
        png(2, 1, 8, 2, b"\0" + bytes([1, 2, 3, 4, 5, 6]), (b"tRNS", bytes([0, 1, 0, 2, 0, 3]))),
        np.array([[[0, 0, 0], [4, 5, 6]]], np.uint8),
    ),
    "key_grey.png": (
        png(7, 5, 8, 0, filtered(GREY), (b"tRNS", bytes([0, int(GREY[2, 3])]))),
        black_where(GREY[2, 3] == GREY, three(GREY)),
    ),
    "deep.png": (png(7, 5, 16, 0, filtered(DEEP.astype(">u2"))), from_16_bit(DEEP)),
    "deep.tif": (tiff(DEEP), from_16_bit(DEEP)),
    "deep_big_endian.tif": (tiff(DEEP, big=True), from_16_bit(DEEP)),
    "deep.pgm": (b"P5 7 5 65535\n" + DEEP.astype(">u2").tobytes(), from_16_bit(DEEP)),
    "deep_but_dark.png": (
        png(2, 1, 16, 0, b"\0" + struct.pack(">HH", 257, 4095)),
        three(np.array([[1, 16]])),
    ),
    "integers.tif": (tiff(DEEP.astype(np.int32)), from_16_bit(DEEP)),
    "floats.tif": (tiff(FLOATS), three(np.floor(FLOATS.astype(np.float64) * 255 + 0.5))),
    "deep_rgb.png": (
        png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 0x12FF, 0x8000, 0xFFFF)),
        np.array([[[0x13, 0x80, 0xFF]]], np.uint8),
    ),
    "cmyk.tif": (
        encode(Image.new("CMYK", (2, 1), (0, 255, 255, 0)), "TIFF"),
        np.array([[[255, 0, 0]] * 2], np.uint8),
    ),
    "cmyk_black.tif": (
        encode(Image.new("CMYK", (2, 1), (0, 0, 0, 255)), "TIFF"),
        np.zeros((1, 2, 3), np.uint8),
    ),
    # older versions write a file that they cannot read
    **(
        {}
        if int(PIL.__version__.split(".")[0]) < 13
        else {
            "ycbcr.tif": (
                encode(Image.new("YCbCr", (2, 1), (99, 128, 128)), "TIFF"),
                np.full((1, 2, 3), 99, np.uint8),
            )
        }
    ),
    "pages.tif": (
        encode(from_array(RGB), "TIFF", save_all=True, append_images=[from_array(255 - RGB)]),
        RGB,
    ),
    "animated.gif": (
        encode(palette(), "GIF", save_all=True, append_images=[Image.new("P", (7, 5), 3)]),
        COLOURS[INDEX],
    ),
    "animated.webp": (
        encode(
            from_array(RGB),
            "WEBP",
            save_all=True,
            append_images=[from_array(255 - RGB)],
            lossless=True,
        ),
        RGB,
    ),
    "one_pixel.png": (encode(from_array(RGB[:1, :1].copy()), "PNG"), RGB[:1, :1]),
    "one_row.png": (encode(from_array(RGB[:1].copy()), "PNG"), RGB[:1]),
    "exif_damaged.png": (encode(from_array(RGB), "PNG", exif=b"Exif\0\0MM\0*\0\0"), RGB),
    "exif_no_orientation.png": (encode(from_array(RGB), "PNG", exif=exif(0)), RGB),
    "exif_1.png": (encode(from_array(RGB), "PNG", exif=exif(1)), RGB),
    "exif_2.png": (encode(from_array(RGB), "PNG", exif=exif(2)), RGB[:, ::-1]),
    "exif_3.png": (encode(from_array(RGB), "PNG", exif=exif(3)), RGB[::-1, ::-1]),
    "exif_4.png": (encode(from_array(RGB), "PNG", exif=exif(4)), RGB[::-1]),
    "exif_5.png": (encode(from_array(RGB), "PNG", exif=exif(5)), RGB.transpose(1, 0, 2)),
    "exif_6.png": (encode(from_array(RGB), "PNG", exif=exif(6)), np.rot90(RGB, -1)),
    "exif_7.png": (
        encode(from_array(RGB), "PNG", exif=exif(7)),
        np.rot90(RGB, 2).transpose(1, 0, 2),
    ),
    "exif_8.png": (encode(from_array(RGB), "PNG", exif=exif(8)), np.rot90(RGB, 1)),
    "exif_6.tif": (encode(from_array(RGB), "TIFF", exif=exif(6)), np.rot90(RGB, -1)),
    "exif_6.webp": (
        encode(from_array(RGB), "WEBP", exif=exif(6), lossless=True),
        np.rot90(RGB, -1),
    ),
    "trailing_bytes.png": (encode(from_array(RGB), "PNG") + b"garbage" * 9, RGB),
    "with a space and ü.png": (encode(from_array(RGB), "PNG"), RGB),
}

PHOTO = np.asarray(from_array(RGB).resize((64, 48)))
WHOLE = {
    "JPEG": encode(from_array(PHOTO), "JPEG"),
    "PNG": encode(from_array(PHOTO), "PNG"),
    "TIFF": encode(from_array(PHOTO), "TIFF"),
    "TIFF-LZW": encode(from_array(PHOTO), "TIFF", compression="tiff_lzw"),
    "WEBP": encode(from_array(PHOTO), "WEBP", lossless=True),
    "BMP": encode(from_array(PHOTO), "BMP"),
    "GIF": encode(from_array(PHOTO), "GIF"),
    "PPM": encode(from_array(PHOTO), "PPM"),
}


def first_half(kind: str) -> bytes:
    return WHOLE[kind][: len(WHOLE[kind]) // 2]


BAD: dict[str, bytes] = {
    "empty.png": b"",
    "one_byte.png": b"\x89",
    "text.jpg": b"not an image at all",
    "html.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
    "zeros.png": bytes(4096),
    "only_magic.png": b"\x89PNG\r\n\x1a\n",
    "only_magic.jpg": b"\xff\xd8\xff",
    "only_magic.tif": b"II*\0",
    "only_magic.gif": b"GIF89a",
    "only_magic.bmp": b"BM",
    "only_magic.webp": b"RIFF\0\0\0\0WEBP",
    "half.jpg": first_half("JPEG"),
    "half.png": first_half("PNG"),
    "half.tif": first_half("TIFF"),
    "half_lzw.tif": first_half("TIFF-LZW"),
    "half.webp": first_half("WEBP"),
    "half.bmp": first_half("BMP"),
    "half.gif": first_half("GIF"),
    "half.ppm": first_half("PPM"),
    "last_bytes_missing.jpg": WHOLE["JPEG"][:-40],
    "last_bytes_missing.bmp": WHOLE["BMP"][:-40],
    "bad_checksum.png": WHOLE["PNG"][:20] + b"\xff" + WHOLE["PNG"][21:],
    "bad_stream.png": png(7, 5, 8, 0, b"")[:45] + b"\0" * 30,
    "no_pixels.png": png(0, 5, 8, 0, b""),
    "no_pixels.ppm": b"P6 0 0 255\n",
    "negative.ppm": b"P6 -4 5 255\n",
    "no_rows.png": png(7, 5, 8, 0, b"")[:-20],
    "bomb.png": png(60_000, 60_000, 1, 0, bytes(100)),
    "bomb_under_pillows_limit.png": png(13_000, 13_000, 8, 0, bytes(100)),
    "bomb.ppm": b"P6 100000 100000 255\n" + bytes(100),
    "bomb.gif": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;",
    "bomb.bmp": b"BM" + struct.pack("<IIIIiiHH", 54, 0, 54, 40, 90_000, 90_000, 1, 24) + bytes(24),
    "floats_to_255.tif": tiff(FLOATS * 255),
    "floats_negative.tif": tiff(FLOATS - 0.5),
    "floats_nan.tif": tiff(np.where(TRUTH, FLOATS, np.nan).astype(np.float32)),
    "floats_infinite.tif": tiff(np.where(TRUTH, FLOATS, np.inf).astype(np.float32)),
    "integers_too_large.tif": tiff(DEEP.astype(np.int32) + 40_000),
    "integers_negative.tif": tiff(DEEP.astype(np.int32) - 70_000),
    "many_bands.tif": tiff(DEEP).replace(
        b"\x15\x01\x04\0\x01\0\0\0\x01", b"\x15\x01\x04\0\x01\0\0\0\x09"
    ),
    "drawing.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
    "vector.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "document.pdf": b"%PDF-1.7\n",
    "icon.ico": encode(Image.new("RGB", (16, 16)), "ICO"),
    "loop.tif": b"II*\0\x08\0\0\0\x01\0\x00\x01\x04\0\x01\0\0\0\x07\0\0\0\x08\0\0\0",
}
