"""Large images: every way to read them gives the same, in bounded memory, up to an allowed size."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from snl.data import bands
from snl.data.doctor import diagnose
from snl.data.image_file import ImageFile
from snl.data.images import load_image, to_input
from snl.data.opening import check_max_pixels
from snl.data.sizes import upright_size
from snl.data.stream import Loaded, read
from snl.data.tiles import tiles_of
from snl.data.upright import decoded
from snl.errors import ImageError, SettingsError
from tests.data.image_files import BAD, GOOD

BILINEAR = Image.Resampling.BILINEAR


@pytest.fixture(params=[1, 7, 40])
def large(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image counts as large, and has bands of so many pixels."""
    monkeypatch.setattr(bands, "BAND", request.param)
    monkeypatch.setattr(bands, "WHOLE", 0)


def in_two_steps(whole: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return an image whose rows and then columns are resized by Pillow."""
    narrow = Image.fromarray(whole).resize((width, whole.shape[0]), BILINEAR)
    return np.asarray(narrow.resize((width, height), BILINEAR))


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("name", GOOD)
def test_every_kind_of_file_in_bands(name: str) -> None:
    """The input, a picture and the whole image, of the file and of the array."""
    content = GOOD[name][0]
    with decoded(io.BytesIO(content)) as image:
        parts = image.array(), image.resized(6, 6), image.resized(9, 4)
        size = image.size
    whole = load_image(io.BytesIO(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "BAND", 2**22)
        np.testing.assert_array_equal(load_image(io.BytesIO(content)), whole)
    assert size == whole.shape[:2]
    wanted = whole, in_two_steps(whole, 6, 6), in_two_steps(whole, 9, 4)
    for part, expected in zip(parts, wanted, strict=True):
        assert part.dtype == np.uint8
        np.testing.assert_array_equal(part, expected)
    np.testing.assert_array_equal(to_input(whole, 6), parts[1])


@pytest.mark.parametrize("name", GOOD)
def test_ordinary_files_are_resized_by_pillow_in_one_step(name: str) -> None:
    content = GOOD[name][0]
    with decoded(io.BytesIO(content)) as image:
        whole, small, picture = image.array(), image.resized(6, 6), image.resized(9, 4)
    for found, size in ((small, (6, 6)), (picture, (9, 4))):
        wanted = np.asarray(Image.fromarray(whole).resize(size, BILINEAR))
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
def test_turned_images_in_bands(turn: int, mode: str, tmp_path: Path) -> None:
    """Against Pillow's own exif_transpose of the whole image."""
    from PIL import ImageOps

    rng = np.random.default_rng(turn)
    shape = (11, 14, len(mode)) if mode in ("RGB", "RGBA") else (11, 14)
    top, kind = (65536, np.uint16) if mode == "I;16" else (256, np.uint8)
    picture = Image.fromarray(rng.integers(0, top, shape).astype(kind))
    tags = Image.Exif()
    tags[0x0112] = turn
    path = tmp_path / "a.png"
    picture.save(path, exif=tags)
    with decoded(path) as image:
        found, small = image.array(), image.resized(5, 5)
    with Image.open(path) as file:
        upright = load_image(ImageOps.exif_transpose(file))
    np.testing.assert_array_equal(found, upright)
    np.testing.assert_array_equal(small, in_two_steps(upright, 5, 5))
    assert upright_size(path) == found.shape[:2]


@given(st.data())
def test_resizing_in_bands(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    target = data.draw(st.integers(1, 80)), data.draw(st.integers(1, 80))
    kind = data.draw(st.sampled_from(["rgb", "grey", "map", "mask"]))
    resample = data.draw(st.sampled_from([BILINEAR, Image.Resampling.BOX]))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    array: Any = rng.integers(0, 256, (height, width, *((3,) if kind == "rgb" else ())), np.uint8)
    if kind == "map":
        array = (array / 7).astype(np.float32)
    elif kind == "mask":
        array = array > 128
    whole = Image.fromarray(array.astype(np.float32) if kind == "mask" else array)
    at_once = np.asarray(whole.resize(target, resample))
    rows_first = whole.resize((target[0], height), resample).resize(target, resample)
    np.testing.assert_array_equal(bands.resize_array(array, *target, resample), at_once)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "BAND", data.draw(st.sampled_from([1, 30, 500])))
        patch.setattr(bands, "WHOLE", 0)
        np.testing.assert_array_equal(
            bands.resize_array(array, *target, resample), np.asarray(rows_first)
        )


# --- the limit of pixels ---


def test_above_pillows_limit_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    for name in ("bomb.png", "bomb_under_pillows_limit.png"):
        path.write_bytes(BAD[name])
        before = Image.MAX_IMAGE_PIXELS
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ImageError, match="--max-pixels") as caught:
                upright_size(path)
            most = int(str(caught.value).partition("--max-pixels ")[2].split()[0])
            height, width = upright_size(path, max_pixels=most)
            assert height * width == most
            with pytest.raises(ImageError, match=f"limit of {most - 1};"):
                upright_size(path, max_pixels=most - 1)
        assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("name", [name for name in GOOD if not name.endswith(".webp")])
def test_pillows_limit_does_not_matter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every image of 35 pixels were above it; for WebP, Pillow offers no way."""
    content = GOOD[name][0]
    wanted = load_image(io.BytesIO(content))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(load_image(io.BytesIO(content)), wanted)


def test_every_reader_has_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (30, 20)).save(path)
    with pytest.raises(ImageError, match=r"limit of 599; allow it with --max-pixels 600 \("):
        load_image(path, max_pixels=599)
    (item,) = read([path], 8, max_pixels=599)
    assert isinstance(item, ImageError) and "--max-pixels 600" in str(item)
    assert isinstance(next(iter(read([path], 8, max_pixels=600))), Loaded)
    assert len(tiles_of([path], 8, max_pixels=599).errors) == 1
    assert not tiles_of([path], 8, max_pixels=600).errors


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "100", None])
def test_wrong_limits_are_refused(value: Any) -> None:
    with pytest.raises(SettingsError, match="max_pixels"):
        check_max_pixels(value)


def test_an_image_too_narrow_to_be_resized_is_refused(tmp_path: Path) -> None:
    """Resizing it would take 256 x 5,000,000 x 4 bytes although it has 5 million pixels."""
    path = tmp_path / "line.png"
    Image.new("1", (1, 5_000_000)).save(path)
    (item,) = read([path], 256)
    assert isinstance(item, ImageError) and "too narrow" in str(item)


# --- an image that is read again ---


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(first).save(path)
    file = ImageFile(str(path), (20, 30), to_input(first, 8))
    np.testing.assert_array_equal(file.image(), first)
    wanted = np.asarray(Image.fromarray(first).resize((9, 6), BILINEAR))
    np.testing.assert_array_equal(file.resized(9, 6), wanted)
    for other in (rng.integers(0, 256, (20, 30, 3), np.uint8), first[:, :29]):
        Image.fromarray(other).save(path)
        for use in (file.image, lambda: file.resized(9, 6)):
            with pytest.raises(ImageError, match=r"a\.png has changed since it was inspected"):
                use()
    path.unlink()
    with pytest.raises(ImageError, match="does not exist"):
        file.image()


# --- memory ---

MEMORY = """
import json, resource, sys
from pathlib import Path
from snl.data.stream import read

def peak():  # MB; ru_maxrss would count the parent's memory at the fork, too
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1000

folder, budget = Path(sys.argv[1]), int(sys.argv[2])
list(read([folder / "small.png"], 256, 1))
before = peak()
results = list(read(sorted(folder.glob("large*.png")), 256, 4, budget=budget, max_pixels=10**9))
print(json.dumps([before, peak(), [list(r.original) for r in results]]))
"""


def peak_above(folder: Path, budget: int) -> tuple[float, list[list[int]]]:
    """Return the MB that reading the large images takes, and their sizes."""
    Image.new("RGB", (64, 64)).save(folder / "small.png")
    command = [sys.executable, "-c", MEMORY, str(folder), str(budget)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    before, after, sizes = json.loads(done.stdout)
    return after - before, sizes


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is there on Linux alone")
def test_memory_of_large_images(tmp_path: Path) -> None:
    """Six images of 4000 x 4000 pixels, 64 MB each as Pillow holds them: two at a time."""
    image = Image.linear_gradient("L").resize((4000, 4000)).convert("RGB")
    for number in range(6):
        image.save(tmp_path / f"large{number}.png", compress_level=1)
    megabytes, sizes = peak_above(tmp_path, 130_000_000)
    assert sizes == [[4000, 4000]] * 6
    assert 60 < megabytes < 170


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is there on Linux alone")
def test_memory_of_a_line_scan_image_above_pillows_limit(tmp_path: Path) -> None:
    """2048 x 100,000 pixels of grey: 205 MB as Pillow holds it, and little more."""
    line = Image.linear_gradient("L").resize((2048, 100_000), Image.Resampling.NEAREST)
    line.save(tmp_path / "large.png", compress_level=1)
    del line
    megabytes, sizes = peak_above(tmp_path, 2**20)
    assert sizes == [[100_000, 2048]]
    assert megabytes < 205 + 130  # 100,000 rows of 256 pixels, and again as an array


def test_doctor_sees_large_images_as_small_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The brightness of a dark and of a blank image, in bands or not, in a tiny budget."""
    import snl
    from snl.data import doctor

    folder = tmp_path / "part" / "train" / "good"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, top in enumerate((256, 8, 2, 256)):
        Image.fromarray(rng.integers(0, top, (33, 21, 3)).astype(np.uint8)).save(
            folder / f"{number}.png"
        )
    catalog = snl.Catalog.read(tmp_path)
    whole = diagnose(catalog)
    monkeypatch.setattr(doctor, "DECODED_BYTES", 1)
    monkeypatch.setattr(bands, "BAND", 50)
    monkeypatch.setattr(bands, "WHOLE", 0)
    assert diagnose(catalog).problems == whole.problems
    assert {"dark image", "blank image"} <= {problem.kind for problem in whole.problems}
    limited = diagnose(catalog, max_pixels=600)
    assert sum("--max-pixels 693" in problem.what for problem in limited.problems) == 4
