"""Every format to the same array by fixed rules, and every failure to one ImageError."""

from __future__ import annotations

import io
import os
import stat
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile

from snl.data.images import (
    MAX_PIXELS,
    load_image,
    load_mask,
    open_image,
    to_input,
)
from snl.errors import ImageError

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
    width: int, height: int, depth: int, colour: int, rows: bytes, *more: tuple[bytes, bytes]
) -> bytes:
    """A PNG written by hand, of rows that each begin with filter byte 0."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [
        chunk(b"IHDR", header),
        *(chunk(*m) for m in more),
        chunk(b"IDAT", zlib.compress(rows)),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def filtered(rows: NDArray[Any]) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in rows)


def tiff(pixels: NDArray[Any], *, big: bool = False) -> bytes:
    """A grey TIFF written by hand, of one strip, in the byte order asked for."""
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
    """Each value times its alpha, in exact rational arithmetic, halves up."""
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


im = Image.fromarray
GOOD: dict[str, tuple[bytes, NDArray[np.uint8]]] = {
    "rgb.png": (encode(im(RGB), "PNG"), RGB),
    "rgb.bmp": (encode(im(RGB), "BMP"), RGB),
    "rgb.tif": (encode(im(RGB), "TIFF"), RGB),
    "rgb_lzw.tif": (encode(im(RGB), "TIFF", compression="tiff_lzw"), RGB),
    "rgb_deflate.tif": (encode(im(RGB), "TIFF", compression="tiff_adobe_deflate"), RGB),
    "rgb.ppm": (encode(im(RGB), "PPM"), RGB),
    "rgb_lossless.webp": (encode(im(RGB), "WEBP", lossless=True), RGB),
    "ending_lies.jpg": (encode(im(RGB), "PNG"), RGB),
    "no_ending": (encode(im(RGB), "PNG"), RGB),
    "grey.png": (encode(im(GREY), "PNG"), three(GREY)),
    "grey.pgm": (encode(im(GREY), "PPM"), three(GREY)),
    "grey.bmp": (encode(im(GREY), "BMP"), three(GREY)),
    "grey.gif": (encode(im(GREY), "GIF"), three(GREY)),
    "grey_one_value.jpg": (
        encode(Image.new("L", (7, 5), 77), "JPEG"),
        np.full((5, 7, 3), 77, np.uint8),
    ),
    "bits.png": (encode(im(TRUTH), "PNG"), three(TRUTH * 255)),
    "bits.tif": (encode(im(TRUTH), "TIFF", compression="group4"), three(TRUTH * 255)),
    "two_bits.png": (
        png(4, 1, 2, 0, b"\0" + bytes([0b00_01_10_11])),
        three(np.array([[0, 85, 170, 255]])),
    ),
    "rgba.png": (encode(im(RGBA), "PNG"), over_black(RGBA)),
    "rgba.tif": (encode(im(RGBA), "TIFF"), over_black(RGBA)),
    "rgba_opaque.png": (encode(im(np.dstack([RGB, np.full((5, 7), 255, np.uint8)])), "PNG"), RGB),
    "rgba_clear.png": (
        encode(im(np.dstack([RGB, np.zeros((5, 7), np.uint8)])), "PNG"),
        np.zeros_like(RGB),
    ),
    "la.png": (
        encode(Image.merge("LA", [im(GREY), im(RGBA[:, :, 3].copy())]), "PNG"),
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
        np.array([[[0x12, 0x80, 0xFF]]], np.uint8),
    ),
    "cmyk.tif": (
        encode(Image.new("CMYK", (2, 1), (0, 255, 255, 0)), "TIFF"),
        np.array([[[255, 0, 0]] * 2], np.uint8),
    ),
    "cmyk_black.tif": (
        encode(Image.new("CMYK", (2, 1), (0, 0, 0, 255)), "TIFF"),
        np.zeros((1, 2, 3), np.uint8),
    ),
    "ycbcr.tif": (
        encode(Image.new("YCbCr", (2, 1), (99, 128, 128)), "TIFF"),
        np.full((1, 2, 3), 99, np.uint8),
    ),
    "pages.tif": (encode(im(RGB), "TIFF", save_all=True, append_images=[im(255 - RGB)]), RGB),
    "animated.gif": (
        encode(palette(), "GIF", save_all=True, append_images=[Image.new("P", (7, 5), 3)]),
        COLOURS[INDEX],
    ),
    "animated.webp": (
        encode(im(RGB), "WEBP", save_all=True, append_images=[im(255 - RGB)], lossless=True),
        RGB,
    ),
    "one_pixel.png": (encode(im(RGB[:1, :1].copy()), "PNG"), RGB[:1, :1]),
    "one_row.png": (encode(im(RGB[:1].copy()), "PNG"), RGB[:1]),
    "exif_damaged.png": (encode(im(RGB), "PNG", exif=b"Exif\0\0MM\0*\0\0"), RGB),
    "exif_no_orientation.png": (encode(im(RGB), "PNG", exif=exif(0)), RGB),
    "exif_1.png": (encode(im(RGB), "PNG", exif=exif(1)), RGB),
    "exif_2.png": (encode(im(RGB), "PNG", exif=exif(2)), RGB[:, ::-1]),
    "exif_3.png": (encode(im(RGB), "PNG", exif=exif(3)), RGB[::-1, ::-1]),
    "exif_4.png": (encode(im(RGB), "PNG", exif=exif(4)), RGB[::-1]),
    "exif_5.png": (encode(im(RGB), "PNG", exif=exif(5)), RGB.transpose(1, 0, 2)),
    "exif_6.png": (encode(im(RGB), "PNG", exif=exif(6)), np.rot90(RGB, -1)),
    "exif_7.png": (encode(im(RGB), "PNG", exif=exif(7)), np.rot90(RGB, 2).transpose(1, 0, 2)),
    "exif_8.png": (encode(im(RGB), "PNG", exif=exif(8)), np.rot90(RGB, 1)),
    "exif_6.tif": (encode(im(RGB), "TIFF", exif=exif(6)), np.rot90(RGB, -1)),
    "exif_6.webp": (encode(im(RGB), "WEBP", exif=exif(6), lossless=True), np.rot90(RGB, -1)),
    "trailing_rubbish.png": (encode(im(RGB), "PNG") + b"rubbish" * 9, RGB),
    "with a space and ü.png": (encode(im(RGB), "PNG"), RGB),
}

PHOTO = np.asarray(im(RGB).resize((64, 48)))
WHOLE = {
    "JPEG": encode(im(PHOTO), "JPEG"),
    "PNG": encode(im(PHOTO), "PNG"),
    "TIFF": encode(im(PHOTO), "TIFF"),
    "TIFF-LZW": encode(im(PHOTO), "TIFF", compression="tiff_lzw"),
    "WEBP": encode(im(PHOTO), "WEBP", lossless=True),
    "BMP": encode(im(PHOTO), "BMP"),
    "GIF": encode(im(PHOTO), "GIF"),
    "PPM": encode(im(PHOTO), "PPM"),
}


def broken(kind: str) -> bytes:
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
    "half.jpg": broken("JPEG"),
    "half.png": broken("PNG"),
    "half.tif": broken("TIFF"),
    "half_lzw.tif": broken("TIFF-LZW"),
    "half.webp": broken("WEBP"),
    "half.bmp": broken("BMP"),
    "half.gif": broken("GIF"),
    "half.ppm": broken("PPM"),
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


@pytest.mark.parametrize("name", GOOD)
def test_unusual_but_good(name: str, tmp_path: Path) -> None:
    data, wanted = GOOD[name]
    (tmp_path / name).write_bytes(data)
    image = load_image(tmp_path / name)
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, wanted)
    np.testing.assert_array_equal(load_image(io.BytesIO(data)), wanted)
    with Image.open(tmp_path / name) as opened:
        np.testing.assert_array_equal(load_image(opened), wanted)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning", "ignore:Corrupt EXIF")
@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_image_errors_of_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BAD[name])
    with pytest.raises(ImageError) as caught:
        load_image(str(tmp_path / name))
    message = str(caught.value)
    assert str(tmp_path / name) in message and "\n" not in message
    assert "; " in message  # what to do about it
    with pytest.raises(ImageError, match="the stream given"):
        load_image(io.BytesIO(BAD[name]))


def test_there_are_enough_kinds() -> None:
    assert len(BAD) >= 40 and len(GOOD) >= 40


def fails(source: Any, *parts: str, **options: Any) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_what_is_no_file(tmp_path: Path) -> None:
    fails(tmp_path / "gone.png", "gone.png", "does not exist")
    fails(tmp_path, str(tmp_path), "folder")
    (tmp_path / "file").write_bytes(b"x")
    fails(tmp_path / "file" / "below.png", "below.png", "does not exist")
    fails("", "empty path")
    fails("a\0b.png", "b.png")
    fails("x" * 5000, "xxx")
    fails("two\nlines.png", "two lines.png", "does not exist")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    fails(tmp_path / "pipe.png", "pipe.png", "no ordinary file")


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_a_name_that_is_no_utf8_can_be_printed(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    with pytest.raises(ImageError) as caught:
        load_image(path)
    assert str(caught.value).encode("utf-8")


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "locked.png"
    path.write_bytes(GOOD["rgb.png"][0])

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        fails(path, "locked.png", "permission denied")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", refuse)
        fails(path, "locked.png", "permission denied")
    assert stat.S_ISREG(path.stat().st_mode)


def test_the_reason_is_told(tmp_path: Path) -> None:
    for name, part in {
        "empty.png": "empty (0 bytes)",
        "bomb.png": "too many pixels",
        "bomb_under_pillows_limit.png": "13000 x 13000 pixels, more than the limit of 160000000",
        "text.jpg": "no image",
        "half.tif": "truncated",
        "floats_to_255.tif": "outside 0..1",
        "integers_too_large.tif": "outside 0..65535",
    }.items():
        (tmp_path / name).write_bytes(BAD[name])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            fails(tmp_path / name, part)


def test_the_limit_is_on_pixels_and_inclusive() -> None:
    data = GOOD["rgb.png"][0]
    assert load_image(io.BytesIO(data), max_pixels=35).shape == (5, 7, 3)
    fails(io.BytesIO(data), "7 x 5 pixels", "limit of 34", max_pixels=34)
    fails(Image.new("RGB", (7, 5)), "limit of 34", max_pixels=34)
    assert 2 * (Image.MAX_IMAGE_PIXELS or 0) > MAX_PIXELS


def test_the_limit_is_checked_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    fails(io.BytesIO(GOOD["rgb.tif"][0]), "limit of 34", max_pixels=34)


def test_a_bomb_warning_made_an_error_is_an_image_error(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(BAD["bomb_under_pillows_limit.png"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fails(tmp_path / "bomb.png", "bomb.png", "too many pixels")


def test_nothing_global_is_changed(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    (tmp_path / "half.jpg").write_bytes(BAD["half.jpg"])
    fails(tmp_path / "half.jpg", "half.jpg")
    load_image(io.BytesIO(GOOD["rgb.png"][0]))
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_files_are_closed(tmp_path: Path) -> None:
    for name in ("rgb.png", "pages.tif", "animated.gif", "animated.webp"):
        (tmp_path / name).write_bytes(GOOD[name][0])
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            assert load_image(tmp_path / name).shape == (5, 7, 3)
        (tmp_path / name).unlink()


def test_a_photograph_is_close_to_itself_as_jpeg() -> None:
    ys, xs = np.mgrid[:64, :96]
    photo = np.stack([ys * 3, xs * 2, 128 + (ys + xs) // 2], axis=2).astype(np.uint8)
    for kind in ("JPEG", "MPO"):
        decoded = load_image(io.BytesIO(encode(im(photo), kind, quality=95)))
        assert np.abs(decoded.astype(int) - photo).mean() < 2
    grey = load_image(io.BytesIO(encode(im(photo[:, :, 0].copy()), "JPEG", quality=95)))
    assert np.abs(grey.astype(int) - photo[:, :, :1]).mean() < 2
    cmyk = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    assert np.abs(load_image(io.BytesIO(cmyk)).astype(int) - (255, 0, 0)).max() <= 4


# --- arrays and PIL images ---------------------------------------------------------------------


def test_arrays() -> None:
    np.testing.assert_array_equal(load_image(RGB), RGB)
    np.testing.assert_array_equal(load_image(GREY), three(GREY))
    np.testing.assert_array_equal(load_image(GREY[:, :, None]), three(GREY))
    np.testing.assert_array_equal(load_image(TRUTH), three(TRUTH * 255))
    turned = load_image(RGB.transpose(1, 0, 2)[:, ::-1])
    np.testing.assert_array_equal(turned, np.rot90(RGB, -1))
    assert turned.flags.c_contiguous


@pytest.mark.parametrize(
    "array",
    [
        RGB.astype(np.float32) / 255,
        RGB.astype(np.int64),
        DEEP,
        RGBA,
        RGB[None],
        RGB.transpose(2, 0, 1),
        RGB[:, 0, 0],
        np.array(3, np.uint8),
        np.array([["a"]]),
        np.array(None),
    ],
)
def test_arrays_that_do_not_fit(array: NDArray[Any]) -> None:
    fails(array, str(array.shape), str(array.dtype), "H x W x 3")


def test_arrays_without_pixels() -> None:
    fails(np.zeros((0, 7, 3), np.uint8), "no pixels", "(0, 7, 3)")
    fails(np.zeros((5, 0), np.uint8), "no pixels")


def test_pil_images() -> None:
    np.testing.assert_array_equal(load_image(im(RGB)), RGB)
    np.testing.assert_array_equal(load_image(Image.new("HSV", (2, 2), (0, 0, 50)))[0, 0], [50] * 3)
    fails(Image.new("RGB", (0, 4)), "no pixels")
    fails(Image.new("La", (4, 4)), "the colour mode La")
    white = load_image(Image.new("LAB", (2, 2), (255, 128, 128)))
    assert white.shape == (2, 2, 3) and white.min() > 250
    closed = Image.open(io.BytesIO(GOOD["rgb.png"][0]))
    closed.close()
    fails(closed, "the PIL image given")


def test_a_pil_image_given_is_left_as_it_is() -> None:
    given_image = im(RGB)
    given_image.getexif()[0x0112] = 6
    np.testing.assert_array_equal(load_image(given_image), np.rot90(RGB, -1))
    assert given_image.size == (7, 5) and given_image.getexif()[0x0112] == 6


@pytest.mark.parametrize("source", [None, 3, [1, 2], io.StringIO("text"), b"bytes"])
def test_other_things(source: Any) -> None:
    fails(source)


def test_a_stream_that_cannot_be_rewound(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.inner = io.BytesIO(GOOD["rgb.png"][0])

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            return self.inner.readinto(buffer)

    np.testing.assert_array_equal(load_image(Pipe()), RGB)  # type: ignore[arg-type]


def test_threads_agree(tmp_path: Path) -> None:
    for name in ("rgb.png", "exif_6.tif", "animated.gif", "deep.png"):
        (tmp_path / name).write_bytes(GOOD[name][0])
    differences: list[str] = []

    def work() -> None:
        names = ("rgb.png", "exif_6.tif", "animated.gif", "deep.png") * 20
        decoded = ((name, load_image(tmp_path / name)) for name in names)
        differences.extend(n for n, image in decoded if not np.array_equal(image, GOOD[n][1]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert differences == []


# --- masks -------------------------------------------------------------------------------------

REGION = np.zeros((5, 7), bool)
REGION[1:3, 2:6] = True


def mask_file(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def alpha_everywhere(mode: str) -> Image.Image:
    grey = im((REGION * 255).astype(np.uint8))
    image = Image.new(mode, (7, 5), 0)
    image.paste(grey.convert(mode))
    image.putalpha(255)
    return image


MASKS: dict[str, Callable[[], Image.Image]] = {
    "255.png": lambda: im((REGION * 255).astype(np.uint8)),
    "1.png": lambda: im(REGION.astype(np.uint8)),
    "bits.png": lambda: im(REGION),
    "ids.bmp": lambda: im((REGION * np.arange(1, 8)).astype(np.uint8)),
    "rgb.png": lambda: im(np.dstack([REGION * 0, REGION * 2, REGION * 0]).astype(np.uint8)),
    "rgba.png": lambda: alpha_everywhere("RGBA"),
    "la.png": lambda: alpha_everywhere("LA"),
    "deep.png": lambda: im(REGION.astype(np.uint16)),
    "integers.tif": lambda: im(REGION.astype(np.int32)),
    "floats.tif": lambda: im((REGION * 1e-3).astype(np.float32)),
    "palette.png": lambda: im((REGION * 255).astype(np.uint8)).convert("P"),
    "grey.gif": lambda: im((REGION * 255).astype(np.uint8)),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_every_kind(name: str, tmp_path: Path) -> None:
    mask = load_mask((mask_file(tmp_path / name, MASKS[name]()),))
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, REGION)


def test_a_jpeg_mask_does_not_grow(tmp_path: Path) -> None:
    region = np.zeros((64, 64), bool)
    region[20:40, 19:43] = True
    path = mask_file(tmp_path / "m.jpg", im((region * 255).astype(np.uint8)), quality=60)
    assert (np.asarray(Image.open(path)) > 0).sum() > region.sum()
    np.testing.assert_array_equal(load_mask((path,)), region)


def test_masks_are_united_and_resized(tmp_path: Path) -> None:
    corner = np.zeros((10, 14), bool)
    corner[8:, 12:] = True
    one = mask_file(tmp_path / "one.png", im(REGION.astype(np.uint8)))
    two = mask_file(tmp_path / "two.png", im((corner * 9).astype(np.uint8)))
    doubled = REGION.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(load_mask((one, two), (10, 14)), doubled | corner)
    np.testing.assert_array_equal(load_mask((one, one)), REGION)
    with pytest.raises(ImageError, match=r"two\.png is 14 x 10 .* 7 x 5"):
        load_mask((one, two))


def test_no_mask_file(tmp_path: Path) -> None:
    assert load_mask((), (3, 4)).shape == (3, 4) and not load_mask((), (3, 4)).any()
    with pytest.raises(ImageError, match="size"):
        load_mask(())
    with pytest.raises(ImageError, match=r"gone\.png does not exist"):
        load_mask((tmp_path / "gone.png",), (3, 4))


# --- inputs of the network ---------------------------------------------------------------------


def antialiased(image: NDArray[np.uint8], size: int) -> NDArray[np.float64]:
    """Triangle filter, as wide as the reduction, in float64; rows and columns apart."""

    def weights(n: int) -> NDArray[np.float64]:
        step = n / size
        wide = max(step, 1.0)
        centres = (np.arange(size) + 0.5) * step
        distance = np.abs(np.arange(n)[None, :] + 0.5 - centres[:, None]) / wide
        kernel = np.clip(1 - distance, 0, None)
        return np.asarray(kernel / kernel.sum(axis=1, keepdims=True))

    rows, columns = weights(image.shape[0]), weights(image.shape[1])
    return np.asarray(np.einsum("yi,xj,ijc->yxc", rows, columns, image.astype(np.float64)))


@pytest.mark.parametrize("shape", [(40, 48), (16, 16), (9, 31), (200, 3), (1, 1)])
@pytest.mark.parametrize("size", [1, 16, 33])
def test_to_input_is_an_antialiased_resize(shape: tuple[int, int], size: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    small = to_input(image, size)
    assert small.shape == (size, size, 3) and small.dtype == np.uint8
    assert small.flags.c_contiguous and small.flags.writeable
    assert np.abs(small - antialiased(image, size)).max() <= 1.5  # rounded once per direction


def test_to_input_refuses() -> None:
    for image, size in ((GREY, 8), (RGBA, 8), (RGB.astype(float), 8), (RGB[:0], 8), (RGB, 0)):
        with pytest.raises(ImageError):
            to_input(image, size)


def test_open_image_keeps_mode_and_format() -> None:
    image = open_image(io.BytesIO(GOOD["exif_6.webp"][0]))
    assert (image.mode, image.format, image.size) == ("RGB", "WEBP", (5, 7))


# --- fuzz --------------------------------------------------------------------------------------


def decodes_or_image_error(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = load_image(io.BytesIO(data), max_pixels=1_000_000)
        except ImageError as error:
            assert "\n" not in str(error)
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            assert 0 < image.size <= 3_000_000


FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
MAGIC = [data[:12] for data in WHOLE.values()]


@FUZZ
@given(st.one_of(st.just(b""), st.sampled_from(MAGIC)), st.binary(max_size=400))
def test_random_bytes(start: bytes, rest: bytes) -> None:
    decodes_or_image_error(start + rest)


@pytest.mark.parametrize("kind", WHOLE)
@FUZZ
@given(data=st.data())
def test_truncated_files(kind: str, data: st.DataObject) -> None:
    whole = WHOLE[kind]
    decodes_or_image_error(whole[: data.draw(st.integers(0, len(whole)))])


@pytest.mark.parametrize("kind", WHOLE)
@FUZZ
@given(data=st.data())
def test_flipped_bits(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(WHOLE[kind])
    reach = data.draw(st.sampled_from([64, len(damaged)]))  # headers are where the traps are
    for place in data.draw(st.lists(st.integers(0, 8 * min(reach, len(damaged)) - 1), max_size=12)):
        damaged[place // 8] ^= 1 << place % 8
    decodes_or_image_error(bytes(damaged))
