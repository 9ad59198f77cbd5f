"""The size from the header is that of the decoded image, for every file format."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image, ImageFile, PngImagePlugin

from snl.data.images import load_image
from snl.data.sizes import upright_size
from snl.errors import ImageError
from tests.data.image_files import BAD, GOOD, chunk

XMP = '<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def encoded(kind: str, orientation: int = 1) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    stream = io.BytesIO()
    Image.new("RGB", (7, 5), (200, 30, 40)).save(stream, kind, exif=tags)
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", GOOD)
def test_size_is_that_of_the_decoded_image(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(GOOD[name][0])
    assert upright_size(path) == load_image(path).shape[:2]
    assert upright_size(str(path)) == upright_size(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BAD)
def test_bad_files_give_a_size_or_an_image_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(BAD[name])
    try:
        height, width = upright_size(path)
    except ImageError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert height > 0 and width > 0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_orientation(kind: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(encoded(kind, orientation))
    expected = (5, 7) if orientation < 5 else (7, 5)
    assert upright_size(path) == load_image(path).shape[:2] == expected


def test_xmp_orientation(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP)
    Image.new("RGB", (7, 5)).save(tmp_path / "xmp.png", pnginfo=info)
    assert (
        upright_size(tmp_path / "xmp.png") == load_image(tmp_path / "xmp.png").shape[:2] == (7, 5)
    )


@pytest.mark.parametrize("kind", ["exif", "xmp"])
def test_orientation_after_the_pixels_of_a_png(kind: str, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (7, 5)).save(stream, "PNG")
    tags = Image.Exif()
    tags[0x0112] = 6
    late = {
        "exif": chunk(b"eXIf", tags.tobytes().removeprefix(b"Exif\0\0")),
        "xmp": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.encode()),
    }[kind]
    end = stream.getvalue()[-12:]
    path = tmp_path / "late.png"
    path.write_bytes(stream.getvalue()[:-12] + chunk(b"tEXt", b"date:create\0now") + late + end)
    assert upright_size(path) == load_image(path).shape[:2] == (7, 5)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_nothing_is_decoded(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image"
    path.write_bytes(encoded(kind, 6))

    def load(image: ImageFile.ImageFile) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert upright_size(path) == (7, 5)


def test_limit(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    assert upright_size(tmp_path / "a.png", max_pixels=35) == (5, 7)
    with pytest.raises(ImageError, match="more than the limit of 34"):
        upright_size(tmp_path / "a.png", max_pixels=34)
