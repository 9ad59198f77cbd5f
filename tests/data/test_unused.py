"""Every file that is not used is reported with the reason, in one line for each folder."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from snl.data.attach import normal_images
from snl.data.catalog import Catalog
from snl.data.pairing import images_in
from snl.data.unused import skipped_in
from tests import trees
from tests.data.catalogs import fails, touch
from tests.trees import readable_folder, unprivileged

unix = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of Unix")


def notes(root: Path) -> tuple[str, ...]:
    found = Catalog.read(root).notes
    assert all(note.isprintable() for note in found)
    return found


HARMLESS = ["readme.txt", "LICENSE", "a.csv", "b.json", "Thumbs.db", ".DS_Store", "c.md", "d.XML"]


def test_harmless_files_need_no_note(tmp_path: Path) -> None:
    trees.make_mvtec(tmp_path)
    touch(tmp_path, *HARMLESS, *(f"bolt/train/good/{name}" for name in HARMLESS))
    touch(tmp_path, "._a.png", "__MACOSX/a.png", ".git/a.png", "bolt/.ipynb_checkpoints/a.png")
    touch(tmp_path, "docs/manual.pdf")
    assert notes(tmp_path) == ()


UNUSED = [
    ("overview.png", "1 image (overview.png)", "layout"),
    ("bolt/overview.png", "1 image in bolt", "layout"),
    ("bolt/previews/a.png", "1 image in bolt/previews", "neither train"),
    ("previews/a/b/c.png", "1 image in previews", "neither train nor test"),
    ("bolt/test_private/a.png", "1 image in bolt/test_private", "no labels"),
    ("bolt/train/good/a.jp2", "1 .jp2 file in bolt/train/good", "JPEG 2000"),
    ("bolt/train/good/a.HEIC", "1 .heic file in bolt/train/good", "HEIC"),
    ("bolt/train/good/a.avif", "1 .avif file in bolt/train/good", "AVIF"),
    ("bolt/train/good/a.psd", "1 .psd file in bolt/train/good", "Photoshop"),
    ("bolt/train/good/a.npy", "1 .npy file in bolt/train/good", "NumPy"),
    ("bolt/train/good/a.raw", "1 .raw file in bolt/train/good", "raw"),
    ("bolt/train/good/IMG_0001", "1 file without an extension in bolt/train/good", "extension"),
    ("bolt/train/good/a.mp4", "1 .mp4 file in bolt/train/good", "not"),
    ("bolt.zip", "1 .zip file (bolt.zip)", "not"),
    ("bolt/train/good/.a.png", "1 hidden image in bolt/train/good", "dot"),
    ("bolt/.old/a.png", "1 image in bolt/.old", "dot"),
    ("bolt/ground_truth/dent/x.png", "1 mask file in bolt/ground_truth", "fit no image"),
]


@pytest.mark.parametrize(("name", "what", "why"), UNUSED)
def test_unused_files(name: str, what: str, why: str, tmp_path: Path) -> None:
    trees.make_mvtec(tmp_path)
    touch(tmp_path, name)
    (note,) = notes(tmp_path)
    assert what in note and why in note and "not used" in note


def test_empty_folders(tmp_path: Path) -> None:
    trees.make_flat(tmp_path)
    (tmp_path / "nut").mkdir()
    (note,) = notes(tmp_path)
    assert "1 empty folder (nut)" in note


def test_many_files_need_few_lines(tmp_path: Path) -> None:
    trees.make_mvtec(tmp_path)
    touch(tmp_path, *(f"bolt/train/good/{n}.heic" for n in range(60)))
    touch(tmp_path, *(f"extra{n}/{m}.png" for n in range(20) for m in range(3)))
    lines = notes(tmp_path)
    assert len(lines) == 2
    assert any("60 .heic files" in line for line in lines)
    assert any("60 images in 20 folders" in line for line in lines)


def test_only_unsupported_files(tmp_path: Path) -> None:
    touch(tmp_path, "p/a.heic", "p/b.heic")
    message = fails(tmp_path)
    assert "no images found" in message and "2 .heic files" in message


@unix
def test_links_pipes_and_sockets(tmp_path: Path) -> None:
    trees.make_flat(tmp_path / "data")
    root = tmp_path / "data"
    touch(tmp_path, "elsewhere/1.png")
    (root / "bolt/link").symlink_to(tmp_path / "elsewhere")
    (root / "bolt/loop.png").symlink_to("loop.png")
    (root / "bolt/up").symlink_to("..")
    (root / "bolt/circle").symlink_to("circle")
    (root / "bolt/device.png").symlink_to("/dev/zero")
    os.mkfifo(root / "bolt/pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "bolt/s.png"))
    catalog = Catalog.read(root)
    assert len(catalog.records) == 8
    assert len(catalog.notes) == 2
    links, files = sorted(catalog.notes, key=lambda note: "links to folders" not in note)
    assert "2 links to folders in bolt" in links and "5 files in bolt" in files


@unix
def test_a_product_behind_a_link_is_followed(tmp_path: Path) -> None:
    trees.make_flat(tmp_path / "elsewhere")
    root = tmp_path / "data"
    root.mkdir()
    (root / "bolt").symlink_to(tmp_path / "elsewhere/bolt")
    (root / "self").symlink_to(root)
    catalog = Catalog.read(root)
    assert "bolt" in catalog.products and len(catalog.records) >= 4


@unix
def test_names_that_are_not_utf8_or_not_printable(tmp_path: Path) -> None:
    trees.make_mvtec(tmp_path)
    touch(tmp_path, "pre\udcfcviews/\x1b[31m.png", "bolt/new\nline.heic")
    for note in notes(tmp_path):
        assert "\x1b" not in note and note.encode("utf-8")


@unix
@pytest.mark.parametrize("folder", ["bolt", "bolt/train/good"])
def test_an_unreadable_folder_is_named(folder: str) -> None:
    with readable_folder() as root:
        trees.make_mvtec(root)
        (root / folder).chmod(0)
        try:
            message = unprivileged(lambda: fails(root))
        finally:
            (root / folder).chmod(0o755)
    assert str(root / folder) in message and "Permission denied" in message


def test_an_unreadable_folder_beside_the_data_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.make_mvtec(tmp_path)
    touch(tmp_path, "bolt/train/good/locked/a.txt")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("snl.data.listing.os.scandir", refuse)
    message = fails(tmp_path)
    assert "locked" in message and "Permission denied" in message


def test_deeply_nested_folders(tmp_path: Path) -> None:
    deep = tmp_path / "p" / "/".join(["d"] * 120)
    deep.mkdir(parents=True)
    touch(tmp_path, "p/a.png")
    touch(deep, "b.png")
    assert len(Catalog.read(tmp_path).records) == 2


def test_files_that_a_folder_of_images_leaves_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b/c.jpg", "b/c_GT.png", "b/masks/c.png", "d.heic", "e.txt")
    images = images_in(tmp_path)
    assert [p.name for p in images] == ["a.png", "c.jpg"]
    lines = sorted(skipped_in(tmp_path, images))
    assert len(lines) == 3 and "HEI" in lines[0]
    assert all("masks of other images" in line for line in lines[1:])


def test_images_that_are_in_no_split(tmp_path: Path) -> None:
    trees.make_mvtec(tmp_path)
    assert Catalog.read(tmp_path).unused() == ()
    touch(tmp_path, "bolt/train/bad/1.png", "bolt/test/2.png")
    anomalous, unlabelled = Catalog.read(tmp_path).unused()
    assert "1 anomalous images in train (bolt/train/bad/1.png) not used" in anomalous
    assert "1 images without a label (bolt/test/2.png)" in unlabelled


def test_calibration_leaves_out_marked_images(tmp_path: Path) -> None:
    trees.make_mvtec(tmp_path / "tree")
    for n in range(3):
        trees.save_part(tmp_path / f"p/{n}.png", n)
    trees.save_mask(tmp_path / "p/2_GT.png", 200)
    assert [r.path.name for r in normal_images(tmp_path / "p", "bolt")] == ["0.png", "1.png"]
