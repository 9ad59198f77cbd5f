"""Find the files of a data set that were not used, and say why, in one line for each folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from snl.data.formats import unsupported_format
from snl.data.listing import entries, is_file, is_folder, is_image, is_visible, shown
from snl.data.reading import Reading
from snl.data.records import Record
from snl.data.words import is_mask_name, meaning_of, split_of
from snl.errors import DataError

_MOST_LINES = 6
"""Folders that are listed one by one for the same reason."""

# Files that nobody expects to be used as images.
_HARMLESS = """
    .bak .bat .bib .bin .cff .cfg .conf .css .csv .data .db .doc .docx .htm .html .ini .ipynb .js
    .json .jsonl .license .lnk .lock .log .m .md .md5 .names .odt .onnx .parquet .part .pdf .pkl
    .ppt .pptx .ps1 .pt .pth .py .rst .rtf .safetensors .sh .sha256 .snl .sqlite .tmp .toml .tsv
    .txt .url .xls .xlsx .xml .yaml .yml
"""
_HARMLESS_NAMES = """
    authors changelog checksums contributors copying dockerfile licence license makefile md5sums
    notice readme sha256sums
"""
_SYSTEM_FOLDERS = """
    .cache .ds_store .dvc .fseventsd .git .github .hg .idea .ipynb_checkpoints .spotlight-v100 .svn
    .thumbnails .thumbs .tmp .trash .trashes .venv .vscode
"""


@dataclass(frozen=True)
class _Unused:
    path: Path
    noun: str
    """What it is, in the plural: `images`."""
    reason: str
    group: Path
    """The folder that is named."""


def unused_notes(
    reading: Reading, records: Sequence[Record], folders: Collection[Path] | None = None
) -> list[str]:
    """Return a note for each folder with files that were not used.

    Files without images, such as texts and tables, need no note.

    Args:
        reading: of the reader of the layout.
        records: what it returned.
        folders: folders to look into, without their subfolders; None: the whole root.
    """
    used = {path for r in records for path in (r.path, *r.mask)} | reading.used
    direct = {path.parent for path in used}
    parents = direct | {folder for path in direct for folder in path.parents} | {reading.root}
    groups: dict[tuple[str, str], dict[Path, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for item in _walk(reading, used, parents, folders):
        groups[item.noun, item.reason][item.group].append(item.path)
    notes = []
    for (noun, reason), by_folder in groups.items():
        if len(by_folder) > _MOST_LINES:
            everything = [path for paths in by_folder.values() for path in paths]
            notes.append(_line(reading, noun, reason, everything, f"in {len(by_folder)} folders"))
            continue
        for folder, paths in by_folder.items():
            where = "" if folder == reading.root else f"in {reading.name(folder)}"
            line = _line(reading, noun, reason, paths, where)
            if noun == "mask files":
                line += _without_mask(reading, records, folder.parent)
            notes.append(line)
    return notes


def skipped_in(folder: Path, images: Collection[Path]) -> list[str]:
    """Return a note for each folder with files that are not among the images found in a folder.

    Args:
        folder: a folder of images without labels.
        images: the files that `images_in` found in it.
    """
    masks = "they are masks of other images"
    reading = Reading(folder, used=set(images), default_reason=masks, mask_reason=masks)
    return unused_notes(reading, ())


def _line(reading: Reading, noun: str, reason: str, paths: list[Path], where: str) -> str:
    example = reading.name(paths[0]) + (", ..." if len(paths) > 1 else "")
    counted = f"{len(paths)} {noun}" if len(paths) > 1 else f"1 {_singular(noun)}"
    place = f" {where}" if where else ""
    return f"{counted}{place} ({example}) not used: {reason}"


def _singular(noun: str) -> str:
    first, *rest = noun.split(" ")
    nouns = {"images": "image", "files": "file", "folders": "folder", "links": "link"}
    return " ".join([nouns.get(first, first), *(nouns.get(word, word) for word in rest)])


def _without_mask(reading: Reading, records: Sequence[Record], base: Path) -> str:
    missing = [
        r.path
        for r in records
        if r.label == "anomalous" and not r.mask and r.path.is_relative_to(base)
    ]
    if not missing:
        return ""
    return f"; {len(missing)} anomalous images have no mask ({reading.name(missing[0])}, ...)"


def _walk(
    reading: Reading, used: set[Path], parents: set[Path], folders: Collection[Path] | None
) -> Iterator[_Unused]:
    stack = [reading.root] if folders is None else sorted(filter(_exists, folders), reverse=True)
    seen: set[tuple[int, int]] = set()
    while stack:
        folder = stack.pop()
        try:
            status = folder.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in seen:
                continue
            seen.add(identity)
            found = entries(folder)
        except (DataError, OSError):
            yield _Unused(folder, "folders", "it cannot be read; change its permissions", folder)
            continue
        # Doctor reports splits and labels without images, by product.
        matters = split_of(folder.name) is None and not meaning_of(folder.name).certain
        if not found and folder != reading.root and folders is None and matters:
            yield _Unused(folder, "empty folders", "there are no files in it", reading.root)
        below = []
        among_images = any(folder / entry.name in used for entry in found)
        for entry in found:
            path = folder / entry.name
            if is_folder(entry):
                if entry.name.startswith("."):
                    yield from _hidden_folder(path)
                elif not is_visible(entry.name):
                    continue
                elif entry.is_symlink() and path not in parents:
                    reason = "links to folders are followed only for products and kinds of images"
                    yield _Unused(path, "links to folders", reason, folder)
                elif folders is None:
                    below.append(path)
            elif path not in used and (
                what := _describe(path, is_file(entry), among_images, reading)
            ):
                yield _Unused(path, *what, _group(path, reading, parents))
        stack += reversed(below)


def _exists(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError:  # a name that is too long
        return False


def _describe(
    path: Path, is_regular: bool, among_images: bool, reading: Reading
) -> tuple[str, str] | None:
    """Return what an unused file is and why it is not used; None if it does not matter."""
    name, suffix = path.name, path.suffix.lower()
    if name.startswith("._"):
        return None
    if name.startswith("."):
        return ("hidden images", "their names start with a dot") if is_image(name[1:]) else None
    if not is_visible(name):
        return None
    if not is_regular:
        return ("files", "they are not regular files (pipes, sockets, devices or circular links)")
    if is_image(name):
        if _mask_folder(path, reading) is not None:
            return ("mask files", reading.mask_reason)
        return ("images", _reason(path, reading))
    if suffix == ".json":
        return _describe_json(path, reading)
    is_document = suffix in _HARMLESS.split() and not (among_images and suffix == ".pdf")
    if is_document or (not suffix and name.casefold() in _HARMLESS_NAMES.split()):
        return None
    if (kind := unsupported_format(path)) is not None:
        return (f"{suffix} files", f"their format is not supported ({kind}); convert them to PNG")
    if not suffix:
        return ("files without an extension", "if they are images, add an extension such as .png")
    return (f"{shown(suffix)} files", "files with this extension are not read")


def _describe_json(path: Path, reading: Reading) -> tuple[str, str] | None:
    if _mask_folder(path, reading) is None:
        return None
    from snl.data.labelme import is_labelme

    return ("mask files", reading.mask_reason) if is_labelme(path) else None


def _hidden_folder(path: Path) -> Iterator[_Unused]:
    if path.name.casefold() in _SYSTEM_FOLDERS.split() or path.is_symlink():
        return
    try:
        images = [path / e.name for e in entries(path) if is_image(e.name) and is_file(e)]
    except DataError:
        return
    for image in images:
        yield _Unused(image, "images", "the name of their folder starts with a dot", path)


def _reason(path: Path, reading: Reading) -> str:
    for folder in path.parents:
        if folder in reading.reasons:
            return reading.reasons[folder]
        if folder == reading.root:
            break
    return reading.default_reason


def _mask_folder(path: Path, reading: Reading) -> Path | None:
    """Return the uppermost folder with the name of a mask folder above a file."""
    if path.parent in reading.reasons:
        return None
    folders = [f for f in path.parents if f.is_relative_to(reading.root) and f != reading.root]
    return next((f for f in reversed(folders) if is_mask_name(f.name)), None)


def _group(path: Path, reading: Reading, parents: set[Path]) -> Path:
    """Return the folder to name for an unused file: the uppermost one that has no used file."""
    if (mask_folder := _mask_folder(path, reading)) is not None:
        return mask_folder
    unused = [f for f in path.parents if f not in parents and f.is_relative_to(reading.root)]
    return unused[-1] if unused else path.parent
