"""All formats decode to the same array by fixed rules; every failure is an ImageError."""

from __future__ import annotations

import io
import os
import stat
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile

from snl.data.images import MAX_PIXELS, load_image, open_image, to_input
from snl.errors import ImageError
from tests.data.image_files import (
    BAD,
    DEEP,
    GOOD,
    GREY,
    RGB,
    RGBA,
    TRUTH,
    WHOLE,
    encode,
    from_array,
    three,
)


@pytest.mark.parametrize("name", GOOD)
def test_valid_files_of_every_format(name: str, tmp_path: Path) -> None:
    data, expected = GOOD[name]
    (tmp_path / name).write_bytes(data)
    image = load_image(tmp_path / name)
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(load_image(io.BytesIO(data)), expected)
    with Image.open(tmp_path / name) as opened:
        np.testing.assert_array_equal(load_image(opened), expected)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning", "ignore:Corrupt EXIF")
@pytest.mark.parametrize("name", BAD)
def test_bad_files_give_image_errors_of_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BAD[name])
    with pytest.raises(ImageError) as caught:
        load_image(str(tmp_path / name))
    message = str(caught.value)
    assert str(tmp_path / name) in message and "\n" not in message
    assert "; " in message  # how to fix it
    with pytest.raises(ImageError, match="the stream given"):
        load_image(io.BytesIO(BAD[name]))


def test_there_are_enough_files() -> None:
    assert len(BAD) >= 40 and len(GOOD) >= 40


def fails(source: Any, *parts: str, **options: Any) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_missing_files_and_folders(tmp_path: Path) -> None:
    fails(tmp_path / "gone.png", "gone.png", "does not exist")
    fails(tmp_path, str(tmp_path), "folder")
    (tmp_path / "file").write_bytes(b"x")
    fails(tmp_path / "file" / "below.png", "below.png", "does not exist")
    fails("", "empty path")
    fails("a\0b.png", "b.png")
    fails("x" * 5000, "xxx")
    fails("two\nlines.png", "two lines.png", "does not exist")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    fails(tmp_path / "pipe.png", "pipe.png", "not a regular file")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes only on Linux")
def test_the_error_of_a_name_that_is_not_utf8_can_be_printed(tmp_path: Path) -> None:
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


def test_the_error_has_the_reason(tmp_path: Path) -> None:
    for name, part in {
        "empty.png": "empty (0 bytes)",
        "bomb.png": "60000 x 60000 pixels, more than the limit of 160000000",
        "bomb_under_pillows_limit.png": "13000 x 13000 pixels, more than the limit of 160000000",
        "text.jpg": "not an image",
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


def test_a_decompression_bomb_warning_raised_as_error_is_an_image_error(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(BAD["bomb_under_pillows_limit.png"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fails(tmp_path / "bomb.png", "bomb.png", "13000 x 13000 pixels", "--max-pixels 169000000")


def test_no_global_setting_is_changed(tmp_path: Path) -> None:
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


def test_a_jpeg_is_close_to_the_original() -> None:
    ys, xs = np.mgrid[:64, :96]
    photo = np.stack([ys * 3, xs * 2, 128 + (ys + xs) // 2], axis=2).astype(np.uint8)
    for kind in ("JPEG", "MPO"):
        decoded = load_image(io.BytesIO(encode(from_array(photo), kind, quality=95)))
        assert np.abs(decoded.astype(int) - photo).mean() < 2
    grey = load_image(io.BytesIO(encode(from_array(photo[:, :, 0].copy()), "JPEG", quality=95)))
    assert np.abs(grey.astype(int) - photo[:, :, :1]).mean() < 2
    cmyk = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    assert np.abs(load_image(io.BytesIO(cmyk)).astype(int) - (255, 0, 0)).max() <= 4


# --- arrays and PIL images ---------------------------------------------------------------------


def test_arrays() -> None:
    np.testing.assert_array_equal(load_image(RGB), RGB)
    np.testing.assert_array_equal(load_image(GREY), three(GREY))
    np.testing.assert_array_equal(load_image(GREY[:, :, None]), three(GREY))
    np.testing.assert_array_equal(load_image(TRUTH), three(TRUTH * 255))
    rotated = load_image(RGB.transpose(1, 0, 2)[:, ::-1])
    np.testing.assert_array_equal(rotated, np.rot90(RGB, -1))
    assert rotated.flags.c_contiguous


@pytest.mark.parametrize(
    "array",
    [
        RGB.astype(np.float32) / 255,
        RGB.astype(np.int64),
        DEEP.astype(np.uint32),
        RGBA,
        RGB[None],
        RGB.transpose(2, 0, 1),
        RGB[:, 0, 0],
        np.array(3, np.uint8),
        np.array([["a"]]),
        np.array(None),
    ],
)
def test_arrays_of_other_shapes_and_types(array: NDArray[Any]) -> None:
    fails(array, str(array.shape), str(array.dtype), "H x W x 3")


def test_arrays_without_pixels() -> None:
    fails(np.zeros((0, 7, 3), np.uint8), "no pixels", "(0, 7, 3)")
    fails(np.zeros((5, 0), np.uint8), "no pixels")


def test_pil_images() -> None:
    np.testing.assert_array_equal(load_image(from_array(RGB)), RGB)
    np.testing.assert_array_equal(load_image(Image.new("HSV", (2, 2), (0, 0, 50)))[0, 0], [50] * 3)
    fails(Image.new("RGB", (0, 4)), "no pixels")
    fails(Image.new("La", (4, 4)), "the colour mode La")
    white = load_image(Image.new("LAB", (2, 2), (255, 128, 128)))
    assert white.shape == (2, 2, 3) and white.min() > 250
    closed = Image.open(io.BytesIO(GOOD["rgb.png"][0]))
    closed.close()
    fails(closed, "the PIL image given")


def test_a_pil_image_argument_is_not_changed() -> None:
    argument = from_array(RGB)
    argument.getexif()[0x0112] = 6
    np.testing.assert_array_equal(load_image(argument), np.rot90(RGB, -1))
    assert argument.size == (7, 5) and argument.getexif()[0x0112] == 6


@pytest.mark.parametrize("source", [None, 3, [1, 2], io.StringIO("text"), b"bytes"])
def test_sources_of_other_types(source: Any) -> None:
    fails(source)


def test_a_stream_without_seek(tmp_path: Path) -> None:
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


# --- network inputs ----------------------------------------------------------------------------


def antialiased(image: NDArray[np.uint8], size: int) -> NDArray[np.float64]:
    """Return a resize by a separable triangle filter, as wide as the reduction, in float64."""

    def weights(n: int) -> NDArray[np.float64]:
        step = n / size
        width = max(step, 1.0)
        centres = (np.arange(size) + 0.5) * step
        distance = np.abs(np.arange(n)[None, :] + 0.5 - centres[:, None]) / width
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
    assert np.abs(small - antialiased(image, size)).max() <= 1.5  # one rounding per axis


def test_to_input_refuses_bad_arrays_and_sizes() -> None:
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
def test_random_bytes(start: bytes, remainder: bytes) -> None:
    decodes_or_image_error(start + remainder)


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
    reach = data.draw(
        st.sampled_from([64, len(damaged)])
    )  # damage in the header is the most likely to cause trouble
    for place in data.draw(st.lists(st.integers(0, 8 * min(reach, len(damaged)) - 1), max_size=12)):
        damaged[place // 8] ^= 1 << place % 8
    decodes_or_image_error(bytes(damaged))
