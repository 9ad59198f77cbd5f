"""Folder trees read as records: MVTec AD, BTAD, MVTec LOCO AD, and folders as people have them.

All of them say the same thing in other words: a product is a folder; below it `train` and `test`,
or neither; below those one folder per kind, normal (`good`, `ok`, ...) or a kind of defect; masks
under `ground_truth`, named after the image. So one reader serves all, and the layouts differ only
in how they are recognised. See `snl.data.tables` for layouts that are lists of files.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from snl.errors import DataError

Split = Literal["train", "test"]
Label = Literal["normal", "anomalous"]

EXTENSIONS = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
NORMAL_WORDS = frozenset(
    {"accept", "accepted", "good", "ok", "normal", "normals", "nondefective", "pass", "passed"}
    | {"fehlerfrei", "gut", "gutteil", "gutteile", "i.o", "i.o.", "io"}
)
DEFECT_WORDS = frozenset(
    {"abnormal", "anomalies", "anomalous", "anomaly", "bad", "broken", "crack", "cracked"}
    | {"damaged", "defect", "defective", "defects", "dent", "fail", "failed", "fault", "faulty"}
    | {"hole", "ko", "ng", "nok", "not_ok", "notok", "reject", "rejected", "scrap", "scratch"}
    | {"ausschuss", "defekt", "defekte", "fehler", "n.i.o", "n.i.o.", "nio"}
    | {"schlecht", "schlechtteil", "schlechtteile"}
)
_TRAIN, _TEST = frozenset({"train", "training"}), frozenset({"test", "testing"})
_VALIDATION = frozenset({"val", "valid", "validation"})
_MASKS = frozenset({"ground_truth", "groundtruth", "gt", "mask", "masks"})
_STRUCTURE = NORMAL_WORDS | DEFECT_WORDS | _TRAIN | _TEST | _VALIDATION | _MASKS
_IGNORED = frozenset({"thumbs.db", "desktop.ini", "__macosx", "$recycle.bin"})


@dataclass(frozen=True)
class Record:
    """One image of a data set. Whether its files exist and can be read is the doctor's business."""

    path: Path
    product: str
    split: Split
    label: Label | None
    """None: unknown."""
    mask: tuple[Path, ...] = ()
    """Mask files, to be united; empty for a normal image and where the mask is unknown."""
    mask_known: bool = False
    """True for every normal image and for anomalous ones with mask files."""
    defect: str = ""
    """`good`, the kind of defect, or empty where unknown."""


def find_products(root: Path) -> dict[str, Path]:
    """Products of a tree with `train` or `test` below each; `root` itself may be the only one."""
    if _has_splits(root):
        return {folder_name(root): root}
    return {folder.name: folder for folder in subfolders(root) if _has_splits(folder)}


def is_mvtec(root: Path) -> bool:
    """`train/good` below a product."""
    return any(_has(p, "train", "good") for p in find_products(root).values())


def is_btad(root: Path) -> bool:
    """`train/ok` and `test/ok` or `test/ko` below a product."""
    return any(
        _has(p, "train", "ok") and (_has(p, "test", "ok") or _has(p, "test", "ko"))
        for p in find_products(root).values()
    )


def is_loco(root: Path) -> bool:
    """`test/logical_anomalies` or `test/structural_anomalies` below a product."""
    return any(
        _has(p, "test", "logical_anomalies") or _has(p, "test", "structural_anomalies")
        for p in find_products(root).values()
    )


def read_split_tree(root: Path, notes: list[str]) -> list[Record]:
    """Read MVTec AD, MPDD, BTAD and MVTec LOCO AD; `validation` images count as training ones."""
    products = find_products(root)
    if root not in products.values():
        notes.extend(
            f"folder {folder.name} has images but neither train nor test below it and was left out"
            for folder in subfolders(root)
            if folder.name not in products and any(images_below(folder))
        )
    return [r for name, folder in products.items() for r in _read_splits(folder, name, notes)]


def read_folders(root: Path, notes: list[str]) -> list[Record]:
    """Read plain folders: of products, or of one product's images, with or without splits."""
    filled = [f for f in subfolders(root) if not _is_masks(f) and any(images_below(f))]
    labels = [f.name for f in filled if f.name.casefold() in NORMAL_WORDS | DEFECT_WORDS]
    if _is_one_product(filled):
        if labels:
            notes.append(
                f"folder names {', '.join(labels)} were taken as labels, and all images as those "
                f"of one product, {folder_name(root)}; to have products, put each in its own folder"
            )
        return _read_product(root, folder_name(root), notes)
    loose = images_here(root)
    if loose and filled:
        raise DataError(
            f"{root} has both images ({loose[0].name}, ...) and folders of images "
            f"({filled[0].name}, ...); put the images of every product in a folder of its own"
        )
    if loose:
        return _read_product(root, folder_name(root), notes)
    if labels:
        other = next(f.name for f in filled if f.name not in labels)
        notes.append(
            f"folder names {', '.join(labels)} were taken as products and not as labels, since "
            f"{other} beside them is no label; if they are, put all into one product's folder"
        )
    return [r for folder in filled for r in _read_product(folder, folder.name, notes)]


def share_out(records: Iterable[Record], base: Path) -> list[Record]:
    """Split one product that comes without a split: anomalous to test, and a fifth of the normals.

    With no anomalous image all normals train. Otherwise a fifth of them, at least one of two or
    more, goes to test: those whose path below `base` has the smallest SHA-256. The choice depends
    on names alone, so it is the same on every machine, and a few new images move few others.
    """
    every = list(records)
    normals = sorted((r for r in every if r.label == "normal"), key=lambda r: _digest(r.path, base))
    if len(normals) < 2 or all(r.label != "anomalous" for r in every):
        held_out = set[Path]()
    else:
        held_out = {r.path for r in normals[: max(1, len(normals) // 5)]}
    return [
        replace(r, split="test" if r.label == "anomalous" or r.path in held_out else "train")
        for r in every
    ]


def labelled(
    path: Path,
    product: str,
    split: Split,
    label: Label | None,
    masks: tuple[Path, ...] = (),
    defect: str = "",
) -> Record:
    """A record whose mask and defect follow from its label; its paths have no `..` inside."""
    path = Path(os.path.normpath(path))
    masks = tuple(Path(os.path.normpath(mask)) for mask in masks)
    if label == "normal":
        return Record(path, product, split, label, (), True, "good")
    return Record(path, product, split, label, masks, bool(masks), defect)


def subfolders(folder: Path) -> list[Path]:
    """Folders directly below, sorted, without hidden ones and those of operating systems."""
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if _counts(e.name) and e.is_dir()]
    return [folder / name for name in sorted(names)]


def images_here(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name; a broken link counts as one."""
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if is_image(e.name) and not e.is_dir()]
    return [folder / name for name in sorted(names)]


def images_below(folder: Path) -> Iterator[Path]:
    """Image files in a folder and in all below it, in a fixed order."""
    yield from images_here(folder)
    for below in subfolders(folder):
        if not below.is_symlink():  # a link may lead back up
            yield from images_below(below)


def images_in(folder: Path) -> list[Path]:
    """Image files in a folder and below it, sorted, without those in folders of masks."""
    return sorted(
        path
        for path in images_below(folder)
        if not any(_is_masks(above) for above in path.relative_to(folder).parents)
    )


def is_image(name: str) -> bool:
    """True where the name ends as an image's and is not hidden."""
    return _counts(name) and Path(name).suffix.lower() in EXTENSIONS


def inside(path: Path, folder: Path) -> Path | None:
    """The path relative to the folder, or None where it lies elsewhere; both without inner `..`."""
    below = path.relative_to(folder) if path.is_relative_to(folder) else None
    # Every relative path is relative to `.`, also one that leads out of it.
    return None if below is None or ".." in below.parts else below


def folder_name(folder: Path) -> str:
    """The name of a folder, also of `.`; `default` for the top of a disk."""
    return folder.resolve().name or "default"


def _read_product(folder: Path, product: str, notes: list[str]) -> list[Record]:
    if _has_splits(folder):
        return _read_splits(folder, product, notes)
    kinds = [f for f in subfolders(folder) if not _is_masks(f)]
    words = {f.name.casefold() for f in kinds}
    if not words & (NORMAL_WORDS | DEFECT_WORDS):
        if found := _structure_below(folder):
            raise DataError(
                f"{found.parent} has a folder {found.name} as a product has, but lies in {folder}, "
                f"which would be the product; give {found.parent.parent} as the data set, or put "
                f"{found.name} directly in the folder of its product"
            )
        return _all_normal(folder, product, "train", notes)
    loose = images_here(folder)
    if words & NORMAL_WORDS and loose:
        notes.append(
            f"product {product}: {len(loose)} images lie beside the folder of normal images "
            f"({loose[0].name}, ...) and were left out"
        )
        loose = []
    records = [labelled(path, product, "train", "normal") for path in loose]
    records += _read_kinds(folder, folder, product, "train")
    return share_out(records, folder)


def _read_splits(folder: Path, product: str, notes: list[str]) -> list[Record]:
    parts = {f: f.name.casefold() for f in subfolders(folder)}
    has_test = any(word in _TEST for word in parts.values())
    records: list[Record] = []
    for part, word in parts.items():
        if word in _TRAIN:
            words = {f.name.casefold() for f in subfolders(part)}
            if words & (NORMAL_WORDS | DEFECT_WORDS):
                records += [labelled(p, product, "train", "normal") for p in images_here(part)]
                records += _read_kinds(part, folder, product, "train")
            elif found := _structure_below(part):
                raise DataError(
                    f"{found.parent} has a folder {found.name} as a product has, but lies in "
                    f"{part}; put products first, as {found.parent.name}/{part.name}/..."
                )
            else:
                records += _all_normal(part, product, "train", notes)
        elif word in _TEST or (word in _VALIDATION and not has_test):
            records += [labelled(path, product, "test", None) for path in images_here(part)]
            records += _read_kinds(part, folder, product, "test")
        elif word in _VALIDATION:
            # Beside a test set, a validation set of normals is more to train on (MVTec LOCO AD).
            records += [labelled(p, product, "train", "normal") for p in images_here(part)]
            records += [
                replace(r, split="train" if r.label == "normal" else "test")
                for r in _read_kinds(part, folder, product, "test")
            ]
    return records


def _read_kinds(part: Path, product_folder: Path, product: str, split: Split) -> list[Record]:
    """Folders of one kind each below `part`; a name that means nothing else is a defect's."""
    kinds = [f for f in subfolders(part) if not _is_masks(f)]
    defects = [f for f in kinds if f.name.casefold() not in NORMAL_WORDS]
    records: list[Record] = []
    for kind in kinds:
        paths = list(images_below(kind))
        if kind not in defects:
            records += [labelled(path, product, split, "normal") for path in paths]
            continue
        if {f.name.casefold() for f in subfolders(kind)} & NORMAL_WORDS:
            raise DataError(
                f"{kind} looks like a product with a folder of normal images, but lies where a "
                f"kind of defect is expected; put products first, as {kind.name}/{part.name}/..."
            )
        masks = _find_masks(product_folder, kind.name, alone=len(defects) == 1)
        records += [
            labelled(p, product, split, "anomalous", masks.get(_stem(p, kind), ()), kind.name)
            for p in paths
        ]
    return records


def _find_masks(product_folder: Path, kind: str, *, alone: bool) -> dict[str, tuple[Path, ...]]:
    """Masks of one kind of defect by the path of their image below its folder, less the suffix.

    `<kind>/<stem>_mask.png`, `<kind>/<stem>.png`, or a folder `<kind>/<stem>/` of several files;
    directly in the folder of masks only where one kind has it to itself.
    """
    single: dict[str, tuple[Path, ...]] = {}
    several: dict[str, tuple[Path, ...]] = {}
    for top in filter(_is_masks, subfolders(product_folder)):
        same = [f for f in subfolders(top) if f.name.casefold() == kind.casefold()]
        for folder in same or ([top] if alone else []):
            for path in images_below(folder):
                stem = _stem(path, folder)
                single.setdefault(stem, (path,))
                if stem.endswith("_mask"):
                    single[stem.removesuffix("_mask")] = (path,)
                if path.parent != folder:
                    above = path.parent.relative_to(folder).as_posix()
                    several[above] = (*several.get(above, ()), path)
    return several | single


def _all_normal(folder: Path, product: str, split: Split, notes: list[str]) -> list[Record]:
    below = [f for f in subfolders(folder) if not _is_masks(f)]
    nested = [p for f in below if not f.is_symlink() for p in images_below(f)]
    if nested:
        notes.append(
            f"product {product}: {len(nested)} images in folders below it ({below[0].name}, ...) "
            "were taken as normal"
        )
    return [labelled(path, product, split, "normal") for path in [*images_here(folder), *nested]]


def _is_one_product(filled: list[Path]) -> bool:
    """True where the names of a root's folders are splits or labels, and not products."""
    words = {folder.name.casefold() for folder in filled}
    if words & (_TRAIN | _TEST):
        both = words & _TRAIN and words & (_TEST | _VALIDATION)
        return bool(both) or words <= _STRUCTURE
    if words & NORMAL_WORDS and any(map(_names_defect, words)):
        return True
    return bool(words) and words <= NORMAL_WORDS | DEFECT_WORDS


def _names_defect(word: str) -> bool:
    """True of a known word, also as part of a longer name: `bad`, `cracked_left`."""
    return word in DEFECT_WORDS or not DEFECT_WORDS.isdisjoint(re.split(r"[\W_]+", word))


def _structure_below(folder: Path) -> Path | None:
    """A folder with images, two levels or more below, that is named as a split, label or masks."""
    waiting = [f for f in subfolders(folder) if not _is_masks(f)]
    while waiting:
        above = waiting.pop(0)
        if above.is_symlink():  # as in images_below
            continue
        for below in subfolders(above):
            if below.name.casefold() in _STRUCTURE and any(images_below(below)):
                return below
            waiting.append(below)
    return None


def _has_splits(folder: Path) -> bool:
    return any(f.name.casefold() in _TRAIN | _TEST for f in subfolders(folder))


def _has(folder: Path, *names: str) -> bool:
    for name in names:
        same = [f for f in subfolders(folder) if f.name.casefold() == name]
        if not same:
            return False
        folder = same[0]
    return True


def _is_masks(folder: Path) -> bool:
    return folder.name.casefold() in _MASKS


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.casefold() not in _IGNORED


def _digest(path: Path, base: Path) -> str:
    text = unicodedata.normalize("NFC", (inside(path, base) or Path(path.name)).as_posix())
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
