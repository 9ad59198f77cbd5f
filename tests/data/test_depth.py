"""Depth, white level, photometric interpretation and alpha, against files written by hand."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from snl.data.formats import format_of_content, unsupported_format
from snl.data.images import load_image, load_input, to_input
from snl.data.sizes import upright_size
from snl.data.upright import decoded
from snl.errors import ImageError
from tests.data.deep_files import deep_png, deep_tiff, netpbm
from tests.data.image_files import chunk, png

RNG = np.random.default_rng(11)
GREY16 = RNG.integers(0, 65536, (13, 17), dtype=np.uint16)
RGB16 = RNG.integers(0, 65536, (13, 17, 3), dtype=np.uint16)
RGBA16 = RNG.integers(0, 65536, (13, 17, 4), dtype=np.uint16)
LA16 = RNG.integers(0, 65536, (13, 17, 2), dtype=np.uint16)
GREY12 = GREY16 >> np.uint16(4)
RGB12 = RGB16 >> np.uint16(4)


def scaled(samples: NDArray[Any], white: int = 65535, *, inverted: bool = False) -> NDArray[Any]:
    """Return (H, W, 3) by exact integer arithmetic, halves rounded to even."""
    values = np.minimum(samples.astype(object), white)
    values = white - values if inverted else values
    whole, rest = values * 255 // white, 2 * (values * 255 % white)
    out = whole + (rest > white) + ((rest == white) & (whole % 2 == 1))
    out = out.astype(np.uint8)
    return np.stack([out] * 3, 2) if out.ndim == 2 else out


def over_black(colour: NDArray[Any], alpha: NDArray[Any]) -> NDArray[np.float64]:
    """Return 16-bit colour times alpha as float64 in 0..255."""
    grey = np.stack([colour] * 3, 2) if colour.ndim == 2 else colour
    return np.asarray(grey / 65535.0 * (alpha[:, :, None] / 65535.0) * 255)


def load(data: bytes, **options: Any) -> NDArray[np.uint8]:
    return load_image(io.BytesIO(data), **options)


def remarks(data: bytes, white_level: int = 0) -> tuple[str, ...]:
    with decoded(io.BytesIO(data), white_level=white_level) as image:
        return image.remarks


def kind(data: bytes, white_level: int = 0) -> str:
    with decoded(io.BytesIO(data)) as image:
        assert image.samples is not None
        return image.samples.kind(white_level)


# --- white level -------------------------------------------------------------------------------


@given(st.integers(255, 65535))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_every_sample_is_scaled_by_the_white_level_and_clipped(white: int) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(load_image(ramp, white_level=white), scaled(ramp, white))


def test_without_a_white_level_16_bits_are_divided_by_257() -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = ((ramp.astype(np.uint32) + 128) // 257).astype(np.uint8)
    np.testing.assert_array_equal(load(deep_png(ramp)), np.stack([expected] * 3, 2))


UNSTATED: dict[str, Callable[[NDArray[Any]], bytes]] = {
    "png": deep_png,
    "png interlaced": lambda s: deep_png(s, interlaced=True, filters=True),
    "tiff": lambda s: deep_tiff(s, 1 if s.ndim == 2 else 2),
    "tiff big-endian": lambda s: deep_tiff(s, 1 if s.ndim == 2 else 2, big=True),
    "tiff deflate": lambda s: deep_tiff(s, 1 if s.ndim == 2 else 2, deflate=True),
    "pgm": lambda s: netpbm(s, 65535),
    "plain pgm": lambda s: netpbm(s, 65535, plain=True),
}


@pytest.mark.parametrize("samples", [GREY12, RGB12], ids=["grey", "rgb"])
@pytest.mark.parametrize("name", UNSTATED)
def test_the_white_level_applies_where_the_file_states_nothing(
    name: str, samples: NDArray[Any]
) -> None:
    data = UNSTATED[name](samples)
    np.testing.assert_array_equal(load(data, white_level=4095), scaled(samples, 4095))
    np.testing.assert_array_equal(load(data), scaled(samples))
    colour = "grey" if samples.ndim == 2 else "colour"
    assert kind(data) == f"16-bit {colour}" and kind(data, 4095) == f"12-bit {colour}"
    assert remarks(data, 4095) == ()
    assert "above the white level 1023" in remarks(data, 1023)[0]
    np.testing.assert_array_equal(load(data, white_level=1023), scaled(samples, 1023))


STATED: dict[str, Callable[[NDArray[Any]], bytes]] = {
    "png sBIT": lambda s: deep_png(s, significant=12),
    "png sBIT, scaled by repetition": lambda s: deep_png((s << 4) | (s >> 8), significant=12),
    "png sBIT, scaled by zeros": lambda s: deep_png(s << 4, significant=12),
    "tiff MaxSampleValue": lambda s: deep_tiff(
        s, 1 if s.ndim == 2 else 2, tags={281: (4095,) * (1 if s.ndim == 2 else 3)}
    ),
    "pgm": lambda s: netpbm(s, 4095),
    "plain pgm": lambda s: netpbm(s, 4095, plain=True),
}


@pytest.mark.parametrize("samples", [GREY12, RGB12], ids=["grey", "rgb"])
@pytest.mark.parametrize("name", STATED)
@pytest.mark.parametrize("level", [0, 1023, 65535])
def test_what_the_file_states_comes_first(name: str, samples: NDArray[Any], level: int) -> None:
    data = STATED[name](samples)
    difference = load(data, white_level=level).astype(int) - scaled(samples, 4095)
    assert np.abs(difference).max() <= (1 if "zeros" in name else 0)
    assert kind(data) == f"12-bit {'grey' if samples.ndim == 2 else 'colour'}"
    assert remarks(data) == ()


@pytest.mark.parametrize("photometric", [0, 1])
def test_packed_12_bit_tiff(photometric: int) -> None:
    samples = GREY12[:, :16]
    data = deep_tiff(samples, photometric, bits=12)
    np.testing.assert_array_equal(load(data), scaled(samples, 4095, inverted=photometric == 0))
    assert kind(data) == "12-bit grey"


def test_a_maximum_of_the_image_itself_is_not_its_white_level() -> None:
    for value in (3987, 4096, 255, 65535, 1):
        data = deep_tiff(GREY12, 1, tags={281: value})
        np.testing.assert_array_equal(load(data, white_level=16383), scaled(GREY12, 16383))


def test_samples_above_a_stated_white_level_are_clipped_and_remarked() -> None:
    data = deep_tiff(GREY16, 1, tags={281: 4095})
    np.testing.assert_array_equal(load(data), scaled(GREY16, 4095))
    assert "above the white level 4095" in remarks(data)[0]


@pytest.mark.parametrize("maxval", [1, 6, 100, 254, 255, 256, 1000, 1023, 4095, 16383, 65534])
@pytest.mark.parametrize("plain", [False, True])
def test_every_maxval_of_pgm_and_ppm(maxval: int, plain: bool) -> None:
    for shape in ((5, 7), (5, 7, 3)):
        samples = RNG.integers(0, maxval + 1, shape, dtype=np.uint16)
        image = load(netpbm(samples, maxval, plain=plain))
        np.testing.assert_array_equal(image, scaled(samples, maxval))


def test_large_pgm_files_are_read_at_once(tmp_path: Path) -> None:
    samples = RNG.integers(0, 4096, (1500, 2000), dtype=np.uint16)
    (tmp_path / "a.pgm").write_bytes(netpbm(samples, 4095))
    image = load_image(tmp_path / "a.pgm")
    table = scaled(np.arange(4096)[None], 4095)[0, :, 0]
    np.testing.assert_array_equal(image[:, :, 0], table[samples])


@pytest.mark.parametrize("data", [netpbm(RGB12, 4095), netpbm(GREY12, 4095, plain=True)])
def test_truncated_pgm_files_are_errors(data: bytes) -> None:
    for size in (len(data) - 8, len(data) // 2, 30):
        with pytest.raises(ImageError, match="truncated"):
            load(data[:size])


# --- 16-bit colour -----------------------------------------------------------------------------


@pytest.mark.parametrize("filters", [False, True])
@pytest.mark.parametrize("interlaced", [False, True])
def test_16_bit_png_keeps_its_bits(interlaced: bool, filters: bool) -> None:
    for shape in ((13, 17), (1, 1), (5, 3), (9, 8)):
        part = np.s_[: shape[0], : shape[1]]
        data = deep_png(RGB16[part], interlaced=interlaced, filters=filters)
        np.testing.assert_array_equal(load(data), scaled(RGB16[part]))
        for samples in (RGBA16[part], LA16[part]):
            data = deep_png(samples, interlaced=interlaced, filters=filters)
            colour = samples[:, :, 0] if samples.shape[2] == 2 else samples[:, :, :3]
            exact = over_black(colour, samples[:, :, -1])
            assert np.abs(load(data) - exact).max() <= 1.5


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("big", [False, True])
def test_16_bit_tiff_keeps_its_bits(big: bool, planar: bool, tile: tuple[int, int] | None) -> None:
    options: dict[str, Any] = {"big": big, "planar": planar, "tile": tile}
    np.testing.assert_array_equal(load(deep_tiff(RGB16, 2, **options)), scaled(RGB16))
    image = load(deep_tiff(RGB16, 2, deflate=not planar, **options))
    np.testing.assert_array_equal(image, scaled(RGB16))
    exact = over_black(RGBA16[:, :, :3], RGBA16[:, :, 3])
    for extra in (), (2,):
        if extra or not planar:
            image = load(deep_tiff(RGBA16, 2, extra=extra, **options))
            assert np.abs(image - exact).max() <= 1.5
    image = load(deep_tiff(RGBA16, 2, extra=(0,), **options))
    np.testing.assert_array_equal(image, scaled(RGBA16[:, :, :3]))
    if not planar:  # colour that is already multiplied by alpha
        image = load(deep_tiff(RGBA16, 2, extra=(1,), **options))
        np.testing.assert_array_equal(image, scaled(RGBA16[:, :, :3]))


def test_compressed_planes_of_16_bits_are_refused() -> None:
    with pytest.raises(ImageError, match=r"one plane for each colour.*; save it"):
        load(deep_tiff(RGB16, 2, planar=True, deflate=True))


def test_16_bit_colour_from_a_file_a_stream_and_an_open_image(tmp_path: Path) -> None:
    for name, data in {"a.png": deep_png(RGB16), "a.tif": deep_tiff(RGB16, 2)}.items():
        path = tmp_path / name
        path.write_bytes(data)
        np.testing.assert_array_equal(load_image(path), scaled(RGB16))
        with Image.open(path) as image:
            np.testing.assert_array_equal(load_image(image), scaled(RGB16))
            image.load()  # the position in its file was restored
            np.testing.assert_array_equal(np.asarray(image), RGB16 >> 8)


def test_key_colours_of_16_bits() -> None:
    samples = np.array([[[1, 2, 3], [257, 514, 771], [256, 512, 768]]], np.uint16)
    image = load(deep_png(samples, key=(257, 514, 771)), white_level=1023)
    np.testing.assert_array_equal(image[0, 0], scaled(samples, 1023)[0, 0])
    np.testing.assert_array_equal(image[0, 1], [0, 0, 0])
    np.testing.assert_array_equal(image[0, 2], scaled(samples, 1023)[0, 2])  # equal high bytes
    grey = np.array([[5, 60000, 60001]], np.uint16)
    np.testing.assert_array_equal(load(deep_png(grey, key=(60000,)))[0, :, 0], [0, 0, 233])


def test_alpha_of_12_bits_in_16() -> None:
    opaque = np.dstack([RGB12, np.full(RGB12.shape[:2], 4095, np.uint16)])
    np.testing.assert_array_equal(load(deep_png(opaque), white_level=4095), scaled(RGB12, 4095))


def test_uint16_arrays() -> None:
    for array in (GREY12, GREY12[:, :, None], RGB12, RGB12[:, ::-1], RGB12.astype(">u2")):
        expected = scaled(array[:, :, 0] if array.shape[2:] == (1,) else array, 4095)
        image = load_image(array, white_level=4095)
        np.testing.assert_array_equal(image, expected)
        assert image.flags.c_contiguous
    for array in (RGBA16, LA16, RGB16[None]):
        with pytest.raises(ImageError, match="uint16"):
            load_image(array)


# --- photometric interpretation ----------------------------------------------------------------


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("photometric", [0, 1])
def test_min_is_white_of_every_depth(photometric: int, deflate: bool, big: bool) -> None:
    inverted = photometric == 0
    options: dict[str, Any] = {"big": big, "deflate": deflate}
    for bits in (1, 2, 4, 8):
        samples = RNG.integers(0, 2**bits, (9, 16), dtype=np.uint8)
        image = load(deep_tiff(samples, photometric, bits=bits, **options))
        np.testing.assert_array_equal(image, scaled(samples, 2**bits - 1, inverted=inverted))
    image = load(deep_tiff(GREY16, photometric, **options))
    np.testing.assert_array_equal(image, scaled(GREY16, inverted=inverted))
    image = load(deep_tiff(GREY12, photometric, **options), white_level=4095)
    np.testing.assert_array_equal(image, scaled(GREY12, 4095, inverted=inverted))
    floats = RNG.random((9, 8), np.float32)
    image = load(deep_tiff(floats, photometric, **options))
    exact = (1 - floats if inverted else floats).astype(np.float64) * 255
    assert np.abs(image[:, :, 0] - exact).max() <= 0.501


@pytest.mark.parametrize("photometric", [0, 1])
def test_signed_and_32_bit_integers(photometric: int) -> None:
    inverted = photometric == 0
    for dtype in (np.int16, np.int32, np.uint32):
        for big in (False, True):
            if dtype == np.uint32 and big:
                continue  # Pillow cannot read it
            data = deep_tiff(GREY12.astype(dtype), photometric, big=big)
            image = load(data, white_level=4095)
            np.testing.assert_array_equal(image, scaled(GREY12, 4095, inverted=inverted))
    with pytest.raises(ImageError, match="-1 to"):
        load(deep_tiff(np.array([[-1, 7]], np.int16), 1))


def test_negative_8_bit_samples_are_refused() -> None:
    small = GREY16.astype(np.uint8) // 2
    np.testing.assert_array_equal(load(deep_tiff(small.astype(np.int8), 1))[:, :, 0], small)
    with pytest.raises(ImageError, match="negative"):
        load(deep_tiff(small.astype(np.int8) - 1 - small.max().astype(np.int8) // 2, 1))


def test_palettes_of_8_and_of_16_bits() -> None:
    colours = RNG.integers(0, 256, (256, 3), dtype=np.uint16)
    colours[0, 0] = 255
    index = RNG.integers(0, 256, (9, 8), dtype=np.uint8)
    for factor in (1, 257):
        table = tuple((colours.T.ravel() * factor).tolist())
        image = load(deep_tiff(index, 3, tags={320: table}))
        np.testing.assert_array_equal(image, colours[index].astype(np.uint8))


UNUSUAL = {
    "10 bits": deep_tiff(GREY12 >> 2, 1, bits=10),
    "14 bits": deep_tiff(GREY16 >> 2, 1, bits=14),
    "12 bits big-endian": deep_tiff(GREY12[:, :16], 1, bits=12, big=True),
    "16-bit grey and alpha": deep_tiff(LA16, 1, extra=(2,)),
    "float64": deep_tiff(RNG.random((3, 4)), 1),
    "float16": deep_tiff(RNG.random((3, 4)).astype(np.float16), 1),
    "float RGB": deep_tiff(RNG.random((3, 4, 3)).astype(np.float32), 2),
    "filter array": deep_tiff(GREY12, 32803),
    "32 bits RGB": deep_tiff(RGB16.astype(np.uint32), 2),
    "subsampled": deep_tiff(RGB16.astype(np.uint8), 6, tags={530: (2, 2)}),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_tiff_that_cannot_be_read_is_called_unsupported(name: str) -> None:
    with pytest.raises(ImageError, match=r"not supported.*; save it") as caught:
        load(UNUSUAL[name])
    assert "\n" not in str(caught.value) and "damaged" not in str(caught.value)


# --- alpha -------------------------------------------------------------------------------------


def bmp(rgba: NDArray[np.uint8]) -> bytes:
    """Return a BMP with a V5 header and an alpha mask."""
    height, width = rgba.shape[:2]
    body = rgba[::-1, :, [2, 1, 0, 3]].tobytes()
    masks = np.array([0xFF0000, 0xFF00, 0xFF, 0xFF000000], "<u4").tobytes()
    numbers = np.array([width, height], "<i4").tobytes() + np.array([1, 32], "<u2").tobytes()
    more = np.array([3, len(body), 2835, 2835, 0, 0], "<u4").tobytes() + masks
    header = np.array([124], "<u4").tobytes() + numbers + more
    header = header.ljust(124, b"\0")
    head = b"BM" + np.array([14 + 124 + len(body), 0, 14 + 124], "<u4").tobytes()
    return head + header + body


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["BMP", "PNG", "TIFF", "WEBP", "LA", "P", "16 bit"])
def test_alpha_of_0_everywhere_means_opaque(form: str) -> None:
    rgb = RNG.integers(1, 256, (6, 9, 3), dtype=np.uint8)
    clear = np.dstack([rgb, np.zeros((6, 9), np.uint8)])
    almost = clear.copy()
    almost[2, 3, 3] = 255
    grey = np.stack([rgb[:, :, 0]] * 3, 2)

    def write(rgba: NDArray[np.uint8]) -> tuple[bytes, NDArray[np.uint8]]:
        if form == "BMP":
            return bmp(rgba), rgb
        if form == "LA":
            la = Image.merge("LA", [Image.fromarray(rgba[:, :, c].copy()) for c in (0, 3)])
            return encoded(la, "PNG"), grey
        if form == "16 bit":
            return deep_png(rgba.astype(np.uint16) * 257), rgb
        options: dict[str, Any] = {"lossless": True, "exact": True} if form == "WEBP" else {}
        return encoded(Image.fromarray(rgba), form, **options), rgb

    if form == "P":
        index = Image.fromarray(rgb[:, :, 0] % 4)
        image = Image.new("P", index.size)
        image.putdata((rgb[:, :, 0] % 4).ravel().tolist())
        image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
        data = encoded(image, "PNG", transparency=bytes(4))
        table = np.arange(10, 130, 10, dtype=np.uint8).reshape(4, 3)
        np.testing.assert_array_equal(load(data), table[rgb[:, :, 0] % 4])
        return
    data, expected = write(clear)
    np.testing.assert_array_equal(load(data), expected)
    data, expected = write(almost)
    only = np.zeros_like(expected)
    only[2, 3] = expected[2, 3]
    np.testing.assert_array_equal(load(data), only)


# --- the same scene in every depth and format --------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), bits=st.sampled_from([10, 12, 14, 16]), grey=st.booleans())
@settings(max_examples=15, deadline=None, derandomize=True)
def test_parity_of_depths_and_formats(seed: int, bits: int, grey: bool) -> None:
    rng = np.random.default_rng(seed)
    shape = (60, 80) if grey else (60, 80, 3)
    scene = np.clip(rng.normal(rng.uniform(0.2, 0.8), 0.2, shape), 0, 1)
    reference = load_input(np.rint(scene * 255).astype(np.uint8), 32)
    white = 2**bits - 1
    samples = np.rint(scene * white).astype(np.uint16)
    photometric = 1 if grey else 2
    files = {
        "png": deep_png(samples),
        "tiff": deep_tiff(samples, photometric),
        "pgm": netpbm(samples, white),
        "pgm 65535": netpbm(samples, 65535),
    }
    if bits < 16:
        files["png sBIT"] = deep_png(samples, significant=bits)
        files["tiff 281"] = deep_tiff(samples, photometric, tags={281: white})
    for name, data in files.items():
        result = load_input(io.BytesIO(data), 32, white_level=white).astype(int)
        assert np.abs(result - reference).max() <= 1, name


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_deep_colour(orientation: int, tmp_path: Path) -> None:
    eight = (RGB16 >> 8).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    same = encoded(Image.fromarray(eight), "PNG", exif=exif)
    deep = deep_png((eight.astype(np.uint16)) * 257)
    late = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    for data in (deep[:33] + late + deep[33:], deep[:-12] + late + deep[-12:]):
        np.testing.assert_array_equal(load(data), load(same))
        np.testing.assert_array_equal(load_input(io.BytesIO(data), 8), to_input(load(same), 8))
    tiff = deep_tiff(eight.astype(np.uint16) * 257, 2, tags={274: orientation})
    np.testing.assert_array_equal(load(tiff), load(same))
    (tmp_path / "a.tif").write_bytes(tiff)
    assert upright_size(tmp_path / "a.tif") == load(same).shape[:2]


def test_bands_of_large_deep_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snl.data.bands.BAND", 40)
    monkeypatch.setattr("snl.data.stored._BAND", 40)
    for data, expected in (
        (deep_png(RGB16, significant=12), scaled(RGB16)),
        (deep_png(RGB12, significant=12), scaled(RGB12, 4095)),
        (deep_tiff(GREY16, 0), scaled(GREY16, inverted=True)),
        (netpbm(GREY12, 4095), scaled(GREY12, 4095)),
        (deep_png(np.dstack([RGB16, RGB16[:, :, 0] * 0])), scaled(RGB16)),
    ):
        np.testing.assert_array_equal(load(data), expected)


# --- formats that are not read -----------------------------------------------------------------

STARTS = {
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ",
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "AVIF": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1",
    "JPEG XL": b"\xff\x0a\xfa\x7f\x01",
    "OpenEXR": b"\x76\x2f\x31\x01\x02\0\0\0",
    "Radiance": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n",
    "SVG": b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>",
    "PDF": b"%PDF-1.7\n",
    "Photoshop": b"8BPS\0\1",
    "DICOM": bytes(128) + b"DICM\2\0",
    "NumPy": b"\x93NUMPY\1\0",
    "camera raw": b"II*\0\x10\0\0\0CR\2\0",
    "video": b"\0\0\0\x18ftypisom\0\0\0\0isom",
    "web page": b"<!DOCTYPE html><html><body>404</body></html>",
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
}


@pytest.mark.parametrize("name", STARTS)
def test_formats_that_are_not_read_are_named(name: str, tmp_path: Path) -> None:
    for file in ("image.png", "image"):  # whatever the extension says
        path = tmp_path / file
        path.write_bytes(STARTS[name] + bytes(200))
        with pytest.raises(ImageError, match=name) as caught:
            load_image(path)
        message = str(caught.value)
        assert "damaged" not in message and "; " in message and "\n" not in message


def test_formats_without_a_signature_are_named_by_their_extension(tmp_path: Path) -> None:
    names = {"a.tga": "TGA image", "a.DCM": "DICOM image", "a.raw": "camera raw"}
    for name, words in names.items():
        (tmp_path / name).write_bytes(b"\1\2\3\4" * 100)
        with pytest.raises(ImageError, match=f"{words}.*not supported"):
            load_image(tmp_path / name)


def test_a_preview_in_a_camera_raw_file_is_not_taken_for_the_image(tmp_path: Path) -> None:
    preview = deep_tiff((RGB16 >> 8).astype(np.uint8), 2)
    for name in ("a.nef", "a.dng", "a.ARW"):
        (tmp_path / name).write_bytes(preview)
        with pytest.raises(ImageError, match="camera raw"):
            load_image(tmp_path / name)
    dng = deep_tiff((RGB16 >> 8).astype(np.uint8), 2, tags={50706: 0x01040000})
    with pytest.raises(ImageError, match="camera raw"):
        load(dng)
    (tmp_path / "really.dng").write_bytes(deep_png(RGB16))  # the content decides
    np.testing.assert_array_equal(load_image(tmp_path / "really.dng"), scaled(RGB16))


def test_unsupported_format_by_name() -> None:
    names = "jp2 J2K heic heif avif jxl dng cr2 nef exr hdr svg pdf psd dcm npy"
    for extension in names.split():
        assert unsupported_format(f"a.{extension}") and unsupported_format(Path(f"b.{extension}"))
    for name in ("a.png", "a.tif", "a.jpeg", "a.webp", "a", "a.txt", "a.csv"):
        assert unsupported_format(name) is None
    for start in (deep_png(GREY16)[:64], deep_tiff(GREY16, 1)[:64], netpbm(GREY16, 65535)[:64]):
        assert format_of_content(start) is None


# --- Pillow's warnings -------------------------------------------------------------------------


def test_no_warning_of_pillow_is_shown() -> None:
    palette = Image.new("P", (4, 4))
    palette.putpalette([1, 2, 3] * 4)
    sources = [
        encoded(palette, "PNG", transparency=b"\0\x80"),
        png(9600, 9600, 1, 0, bytes(9600 * 1201)),  # above Pillow's own limit
        deep_tiff(GREY16, 1, tags={34665: 4_000_000}),  # EXIF outside the file
    ]
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in sources:
            load_input(io.BytesIO(data), 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads = [threading.Thread(target=load, args=(sources[i % 3],)) for i in (0, 2, 3, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert caught == [] and list(warnings.filters) == before


def test_a_text_chunk_does_not_matter() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("sBIT", "12")
    data = encoded(Image.fromarray(GREY16), "PNG", pnginfo=info)
    np.testing.assert_array_equal(load(data), scaled(GREY16))
