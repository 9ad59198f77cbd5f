"""Find the masks of images by name: beside the images, or in mask folders.

Beside its image, a mask has the image's name with a word for mask (`x_GT.png`, `x-mask.png`,
`mask_x.png`), is a LabelMe file (`x.json`), or has the same name with another extension and two
values only (`e.jpg`, `e.png`). In a mask folder it has the image's name, with or without such a
word. Neither case nor extension matter.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from snl.data.listing import (
    direct_images,
    json_files,
    subfolders,
    walk_folders,
    walk_images,
)
from snl.data.words import fold, is_mask_name, meaning_of, split_of

_STRONG = "masks?|gt|ground[ _-]?truth|maske|masque|m[aá]scara|maschera|masker"
_WEAK = "labels?|labelled|seg|segm|segmentation|annot(?:ation)?|anno"
_IMAGE = "image|img|rgb|orig|original|input|raw|photo|pic"
_GLUED = re.compile(r"(?P<image>.*[a-z0-9)])(?:GT|Mask|MASK|GroundTruth|(?<=\d)(?:mask|gt))")
_CLASSIC = frozenset({"ground_truth", "groundtruth", "gt", "mask", "masks"})
_SAMPLE = 3
"""Files of a folder that are opened to see whether they are masks."""


@dataclass(frozen=True)
class Beside:
    """The image files of one folder, without the masks among them."""

    images: list[Path] = field(default_factory=list)
    masks: dict[Path, tuple[Path, ...]] = field(default_factory=dict)
    """Mask files by the image they belong to."""
    doubles: list[tuple[Path, ...]] = field(default_factory=list)
    """Images of the same name with different extensions, none of them a mask."""


class MaskFolder:
    """The files of one mask folder by the names that their images may have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._exact: dict[str, tuple[Path, ...]] = {}
        self._named: dict[str, tuple[Path, ...]] = {}
        self._grouped: dict[str, tuple[Path, ...]] = {}
        for inner in walk_folders(folder):
            prefix = "" if inner == folder else fold(inner.relative_to(folder).as_posix())
            rasters = direct_images(inner)
            stems = {fold(path.stem) for path in rasters}
            labelled = [p for p in json_files(inner) if fold(p.stem) not in stems]
            for path in (*rasters, *labelled):
                self._add(prefix, path)

    def find(self, name: str) -> tuple[Path, ...]:
        """Return the mask files of the image whose relative path without suffix is `name`."""
        for names in (self._exact, self._named, self._grouped):
            if name in names:
                return names[name]
        return ()

    def _add(self, prefix: str, path: Path) -> None:
        stem = fold(path.stem)
        if path.suffix.lower() != ".json" or _is_labelme(path):
            self._exact.setdefault(_join(prefix, stem), (path,))
            for target in dict.fromkeys(mask_targets(path.stem)):
                key = _join(prefix, target)
                self._named[key] = (*self._named.get(key, ()), path)
            if prefix:
                self._grouped[prefix] = (*self._grouped.get(prefix, ()), path)


def mask_targets(stem: str, words: str = f"{_STRONG}|{_WEAK}") -> Iterator[str]:
    """Yield the folded names that the image of a mask may have, the likeliest first.

    >>> list(mask_targets("Part0_label")), list(mask_targets("mask_7")), list(mask_targets("part"))
    (['part0'], ['7'], [])
    """
    if _search(words)(stem) is None:
        return
    separator = r"[ _.\-]+"
    last = re.fullmatch(rf"(.+?){separator}\(?(?:{words})\)?", stem, re.IGNORECASE)
    if last:
        yield fold(last[1])
    elif numbered := re.fullmatch(
        rf"(.+?){separator}(?:{words})([ _.\-]?\d{{1,6}})", stem, re.IGNORECASE
    ):
        yield fold(numbered[1] + numbered[2])
        yield fold(numbered[1])
    if first := re.fullmatch(rf"(?:{words}){separator}(.+)", stem, re.IGNORECASE):
        yield fold(first[1])
    if words != _IMAGE and (glued := _GLUED.fullmatch(stem)):
        yield fold(glued["image"])


@cache
def _search(words: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(words, re.IGNORECASE).search


def image_names(path: Path) -> list[str]:
    """Return the folded names by which masks may refer to an image, the likeliest first."""
    stem = path.stem
    names = [fold(stem), fold(path.name)]
    return [*names, *(name for name in mask_targets(stem, _IMAGE) if name not in names)]


def split_masks(folder: Path, paths: Sequence[Path]) -> Beside:
    """Return the image files of one folder as images and the masks beside them.

    Files are opened only where names leave it open: two files of one name, or a word such as
    `label`, which may also be what the image shows.
    """
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        for name in image_names(path):
            by_name[name].append(path)
    owners = {p: owner for p in paths if (owner := _owner(p, by_name)) is not None}
    masks: dict[Path, list[Path]] = defaultdict(list)
    for mask, image in owners.items():
        if image not in owners:
            masks[image].append(mask)
    kept = [p for p in paths if p not in owners or owners[p] in owners]
    doubles: list[tuple[Path, ...]] = []
    same_name: dict[str, list[Path]] = defaultdict(list)
    for path in kept:
        same_name[fold(path.stem)].append(path)
    for group in same_name.values():
        if len(group) > 1:
            double = _mask_among(group)
            if double is None:
                doubles.append(tuple(group))
                continue
            kept.remove(double)
            for image in group:
                if image != double:
                    masks[image].append(double)
    files = {fold(p.stem): p for p in json_files(folder)} if kept else {}
    for image in kept:
        file = files.get(fold(image.stem))
        if file is not None and image not in masks and _is_labelme(file):
            masks[image].append(file)
    return Beside(kept, {image: tuple(found) for image, found in masks.items()}, doubles)


def images_in(folder: Path) -> list[Path]:
    """Return the image files in a folder and its subfolders, sorted, without masks."""
    found: list[Path] = []
    for inner in walk_image_folders(folder):
        found += split_masks(inner, direct_images(inner)).images
    return sorted(found)


def walk_image_folders(folder: Path) -> Iterator[Path]:
    """Yield a folder and the folders below it, parents first, without links and mask folders."""
    stack = [folder]
    while stack:
        current = stack.pop()
        yield current
        below = [f for f in subfolders(current) if not f.is_symlink()]
        stack += [f for f in reversed(below) if not is_mask_folder(f)]


def walk_without_masks(folder: Path) -> Iterator[Path]:
    """Yield the image files in a folder and below it, without mask folders, in a fixed order."""
    for inner in walk_image_folders(folder):
        yield from direct_images(inner)


def is_mask_folder(folder: Path) -> bool:
    """Return True if the name of a folder says that it contains masks, and its files agree.

    A folder that contains splits or normal images is a product, and so is a folder of pictures
    that belong to no image beside it.
    """
    if not is_mask_name(folder.name):
        return False
    below = subfolders(folder)
    if any(split_of(f.name) in ("train", "test") and _has_kinds(f) for f in below):
        return False
    return _contains_masks(folder) or (is_classic(folder) and _has_images_beside(folder))


def is_classic(folder: Path) -> bool:
    """Return True for the names of mask folders that public data sets have."""
    return folder.name.casefold() in _CLASSIC


def _has_kinds(folder: Path) -> bool:
    return any(meaning_of(f.name).label == "normal" for f in subfolders(folder))


def _has_images_beside(folder: Path) -> bool:
    """Return True if an image outside a mask folder has the name of one of its files.

    Beside folders of products, the mask folder must have folders of these products: their files
    may have the same names by chance.
    """
    index = MaskFolder(folder)
    if any(index.find(name) for p in direct_images(folder.parent) for name in image_names(p)):
        return True
    for sibling in subfolders(folder.parent):
        if sibling == folder or is_mask_name(sibling.name):
            continue
        says_kind = split_of(sibling.name) is not None or meaning_of(sibling.name).certain
        for path in walk_images(sibling):
            for left_out, _ in find_masks(index, path, folder.parent):
                if left_out == 0 or says_kind:
                    return True
    return False


def find_masks(index: MaskFolder, path: Path, base: Path) -> list[tuple[int, tuple[Path, ...]]]:
    """Return the masks of an image, each with the number of folders that its name leaves out.

    Args:
        index: a mask folder.
        path: an image.
        base: the folder that contains the mask folder, above the image.
    """
    folders = [fold(part) for part in path.parts[len(base.parts) : -1]]
    names = image_names(path)
    found = []
    for left_out in range(len(folders) + 1):
        prefix = "/".join(folders[left_out:])
        for name in names:
            if masks := index.find(_join(prefix, name)):
                found.append((left_out, masks))
                break
    return found


def _contains_masks(folder: Path) -> bool:
    """Return True unless a few of the files of a folder show that it contains pictures."""
    from snl.data.masks import looks_like_mask

    files = (path for inner in walk_folders(folder) for path in direct_images(inner))
    sample = [path for _, path in zip(range(_SAMPLE), files, strict=False)]
    looks = [looks_like_mask(path) for path in sample]
    return not any(look is False for look in looks)


def _owner(path: Path, by_name: dict[str, list[Path]]) -> Path | None:
    """Return the image beside a file that is its mask by name, or None."""
    from snl.data.masks import looks_like_mask

    for target in mask_targets(path.stem):
        images = [p for p in by_name.get(target, ()) if p != path]
        if images:
            strong = target in mask_targets(path.stem, _STRONG)
            return images[0] if strong or looks_like_mask(path) is not False else None
    return None


def _mask_among(group: Iterable[Path]) -> Path | None:
    """Return the one file of two values among files of one name, or None."""
    from snl.data.masks import looks_like_mask

    two_valued = [path for path in group if looks_like_mask(path, most=2)]
    return two_valued[0] if len(two_valued) == 1 else None


def _is_labelme(path: Path) -> bool:
    from snl.data.labelme import is_labelme

    return is_labelme(path)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name
