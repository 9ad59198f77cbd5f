"""List the folders and image files of a data set, in a fixed order; no image is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

EXTENSIONS = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
MASK_FOLDERS = frozenset({"ground_truth", "groundtruth", "gt", "mask", "masks"})
# Files and folders that operating systems create.
_IGNORED = frozenset({"thumbs.db", "desktop.ini", "__macosx", "$recycle.bin"})


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly in `folder`, sorted; hidden and system folders are skipped."""
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if _is_visible(e.name) and e.is_dir()]
    return [folder / name for name in sorted(names)]


def direct_images(folder: Path) -> list[Path]:
    """Return the image files directly in a folder, sorted by name, including broken links."""
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if is_image(e.name) and not e.is_dir()]
    return [folder / name for name in sorted(names)]


def walk_images(folder: Path) -> Iterator[Path]:
    """Yield the image files in a folder and all its subfolders, in a fixed order.

    Subfolders that are symbolic links are skipped: a link may point to a parent folder.
    """
    yield from direct_images(folder)
    for subfolder in subfolders(folder):
        if not subfolder.is_symlink():
            yield from walk_images(subfolder)


def images_in(folder: Path) -> list[Path]:
    """Return the image files in a folder and its subfolders, sorted, without mask folders."""
    return sorted(
        path
        for path in walk_images(folder)
        if not any(is_mask_folder(parent) for parent in path.relative_to(folder).parents)
    )


def is_image(name: str) -> bool:
    """Return True if a file name has an image extension and is not hidden."""
    return _is_visible(name) and Path(name).suffix.lower() in EXTENSIONS


def is_mask_folder(folder: Path) -> bool:
    """Return True if a folder has one of the names in MASK_FOLDERS (case is ignored)."""
    return folder.name.casefold() in MASK_FOLDERS


def inside(path: Path, folder: Path) -> Path | None:
    """Return `path` relative to `folder`, or None if it is not inside that folder.

    Both paths must be normalised: no `..` except at the start.
    """
    relative = path.relative_to(folder) if path.is_relative_to(folder) else None
    # Path("../x").is_relative_to(".") is True, although the path is outside.
    return None if relative is None or ".." in relative.parts else relative


def folder_name(folder: Path) -> str:
    """Return the name of a folder, also for `.`; `default` for the root of a file system."""
    return folder.resolve().name or "default"


def posix_path(path: str) -> str:
    """Return a path from a list of files with `/` in place of Windows' separators."""
    return path.replace("\\", "/")


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name.casefold() not in _IGNORED
