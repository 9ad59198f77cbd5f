"""List the folders and image files of a data set, in a fixed order; no image is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from snl.errors import DataError

EXTENSIONS = frozenset(
    [
        ".bmp",
        ".dib",
        ".gif",
        ".jfif",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
# Files and folders that operating systems create.
_IGNORED = frozenset({"thumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "@eadir"})


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, sorted by name.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(
            f"the folder {shown(folder)} cannot be read ({reason}); change its permissions, or "
            "move it out of the data set"
        ) from error


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly in `folder`, sorted; hidden and system folders are skipped."""
    return [folder / e.name for e in entries(folder) if is_visible(e.name) and is_folder(e)]


def direct_images(folder: Path) -> list[Path]:
    """Return the image files directly in a folder, sorted by name, including broken links."""
    return [folder / e.name for e in entries(folder) if is_image(e.name) and is_file(e)]


def json_files(folder: Path) -> list[Path]:
    """Return the visible JSON files directly in a folder, sorted by name."""
    return [
        folder / e.name
        for e in entries(folder)
        if is_visible(e.name) and e.name.lower().endswith(".json") and is_file(e)
    ]


def walk_images(folder: Path) -> Iterator[Path]:
    """Yield the image files in a folder and all its subfolders, in a fixed order.

    Subfolders that are symbolic links are skipped: a link may point to a parent folder.
    """
    for inner in walk_folders(folder):
        yield from direct_images(inner)


def walk_folders(folder: Path) -> Iterator[Path]:
    """Yield a folder and all folders below it, parents first, without symbolic links."""
    stack = [folder]
    while stack:
        current = stack.pop()
        yield current
        stack += [f for f in reversed(subfolders(current)) if not f.is_symlink()]


def has_folder(folder: Path, below: Path) -> bool:
    """Return True if there is a folder `below` in a folder; False also if it cannot be read."""
    try:
        return (folder / below).is_dir()
    except OSError:
        return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Return True for a regular file, a link to one, or a link whose target is missing.

    A pipe, a socket or a device would block its reader, or never end.
    """
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry).exists())
    except OSError:  # a link that points to itself
        return False


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return True for a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_image(name: str) -> bool:
    """Return True if a file name has an image extension and is not hidden."""
    return is_visible(name) and Path(name).suffix.lower() in EXTENSIONS


def is_visible(name: str) -> bool:
    """Return False for the names of hidden files and of those that operating systems create."""
    return not name.startswith(".") and name.casefold() not in _IGNORED


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


def shown(path: Path | str) -> str:
    """Return a path for a message: in one line, without control characters or lone surrogates."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(path)
    )
