"""Read folder trees as records: MVTec AD, MPDD, BTAD, MVTec LOCO AD, and plain folders.

All these layouts have the same structure: one folder per product; in it `train` and `test` folders,
or neither; below those one folder per kind of image, normal (`good`, `ok`, ...) or a kind of
defect; masks in `ground_truth`, with the names of their images. One reader is enough for all; the
layouts differ only in how they are recognised. For data sets with a list of files see
`snl.data.tables` and `snl.data.real_iad`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from snl.data.listing import (
    MASK_FOLDERS,
    direct_images,
    folder_name,
    is_mask_folder,
    subfolders,
    walk_images,
)
from snl.data.records import DEFECT_WORDS, NORMAL_WORDS, Record, Split, assign_splits, make_record
from snl.errors import DataError

_TRAIN, _TEST = frozenset({"train", "training"}), frozenset({"test", "testing"})
_VALIDATION = frozenset({"val", "valid", "validation"})
_STRUCTURE = NORMAL_WORDS | DEFECT_WORDS | _TRAIN | _TEST | _VALIDATION | MASK_FOLDERS


def is_mvtec(root: Path) -> bool:
    """Return True if a product has a folder `train/good`."""
    return any(_has(p, "train", "good") for p in _find_products(root).values())


def is_btad(root: Path) -> bool:
    """Return True if a product has the folders `train/ok` and `test/ok` or `test/ko`."""
    return any(
        _has(p, "train", "ok") and (_has(p, "test", "ok") or _has(p, "test", "ko"))
        for p in _find_products(root).values()
    )


def is_loco(root: Path) -> bool:
    """Return True if a product has `test/logical_anomalies` or `test/structural_anomalies`."""
    return any(
        _has(p, "test", "logical_anomalies") or _has(p, "test", "structural_anomalies")
        for p in _find_products(root).values()
    )


def read_split_tree(root: Path, notes: list[str]) -> list[Record]:
    """Read MVTec AD, MPDD, BTAD or MVTec LOCO AD.

    Normal images in `validation` become training images.

    Args:
        root: folder of products, or of one product.
        notes: list to which remarks on skipped folders are appended.
    """
    products = _find_products(root)
    if root not in products.values():
        notes.extend(
            f"folder {folder.name} contains images but neither train nor test; skipped"
            for folder in subfolders(root)
            if folder.name not in products and any(walk_images(folder))
        )
    return [r for name, folder in products.items() for r in _read_splits(folder, name, notes)]


def read_folders(root: Path, notes: list[str]) -> list[Record]:
    """Read plain folders, with or without splits.

    Args:
        root: folder of product folders, or of the images of one product.
        notes: list to which remarks on ambiguous names and skipped images are appended.

    Raises:
        DataError: the meaning of the folders is ambiguous.
    """
    folders = [f for f in subfolders(root) if not is_mask_folder(f) and any(walk_images(f))]
    labels = [f.name for f in folders if f.name.casefold() in NORMAL_WORDS | DEFECT_WORDS]
    if _is_one_product(folders):
        if labels:
            notes.append(
                f"folder names {', '.join(labels)} were read as labels and all images as images of "
                f"one product, {folder_name(root)}; if they are products, put each in its own "
                "folder inside a product folder"
            )
        return _read_product(root, folder_name(root), notes)
    loose = direct_images(root)
    if loose and folders:
        raise DataError(
            f"{root} contains both images ({loose[0].name}, ...) and folders of images "
            f"({folders[0].name}, ...); put the images of each product in a folder of its own"
        )
    if loose:
        return _read_product(root, folder_name(root), notes)
    if labels:
        other = next(f.name for f in folders if f.name not in labels)
        notes.append(
            f"folder names {', '.join(labels)} were read as products, not as labels, because "
            f"{other} beside them is not a label; if they are labels, put all folders into one "
            "product folder"
        )
    return [r for folder in folders for r in _read_product(folder, folder.name, notes)]


def _find_products(root: Path) -> dict[str, Path]:
    """Return the product folders (those with `train` or `test` in them) by product name.

    If `root` itself has such a folder, it is the only product.
    """
    if _has_splits(root):
        return {folder_name(root): root}
    return {folder.name: folder for folder in subfolders(root) if _has_splits(folder)}


def _read_product(folder: Path, product: str, notes: list[str]) -> list[Record]:
    if _has_splits(folder):
        return _read_splits(folder, product, notes)
    kinds = [f for f in subfolders(folder) if not is_mask_folder(f)]
    names = {f.name.casefold() for f in kinds}
    if not names & (NORMAL_WORDS | DEFECT_WORDS):
        if nested := _find_nested_structure(folder):
            raise DataError(
                f"{nested.parent} has a folder {nested.name}, which belongs directly in a product "
                f"folder, but here {folder} would be the product; give {nested.parent.parent} as "
                f"the data set, or move {nested.name} directly into its product's folder"
            )
        return _read_all_normal(folder, product, "train", notes)
    loose = direct_images(folder)
    if names & NORMAL_WORDS and loose:
        notes.append(
            f"product {product}: {len(loose)} images beside the folder of normal images "
            f"({loose[0].name}, ...) were skipped"
        )
        loose = []
    records = [make_record(path, product, "train", "normal") for path in loose]
    records += _read_kinds(folder, folder, product, "train")
    return assign_splits(records, folder)


def _read_splits(product_folder: Path, product: str, notes: list[str]) -> list[Record]:
    names = {f: f.name.casefold() for f in subfolders(product_folder)}
    has_test = any(name in _TEST for name in names.values())
    records: list[Record] = []
    for folder, name in names.items():
        if name in _TRAIN:
            kinds = {f.name.casefold() for f in subfolders(folder)}
            if kinds & (NORMAL_WORDS | DEFECT_WORDS):
                records += [
                    make_record(p, product, "train", "normal") for p in direct_images(folder)
                ]
                records += _read_kinds(folder, product_folder, product, "train")
            elif nested := _find_nested_structure(folder):
                raise DataError(
                    f"{nested.parent} has a folder {nested.name}, which belongs directly in a "
                    f"product folder, but it is inside {folder}; put products first, as "
                    f"{nested.parent.name}/{folder.name}/..."
                )
            else:
                records += _read_all_normal(folder, product, "train", notes)
        elif name in _TEST or (name in _VALIDATION and not has_test):
            records += [make_record(path, product, "test", None) for path in direct_images(folder)]
            records += _read_kinds(folder, product_folder, product, "test")
        elif name in _VALIDATION:
            # If there is a test set as well, normal validation images are additional training
            # images (MVTec LOCO AD).
            records += [make_record(p, product, "train", "normal") for p in direct_images(folder)]
            records += [
                replace(r, split="train" if r.label == "normal" else "test")
                for r in _read_kinds(folder, product_folder, product, "test")
            ]
    return records


def _read_kinds(folder: Path, product_folder: Path, product: str, split: Split) -> list[Record]:
    """Read the folders in `folder` as kinds of images: normal, or the defect they are named by."""
    kinds = [f for f in subfolders(folder) if not is_mask_folder(f)]
    defects = [f for f in kinds if f.name.casefold() not in NORMAL_WORDS]
    records: list[Record] = []
    for kind in kinds:
        paths = list(walk_images(kind))
        if kind not in defects:
            records += [make_record(path, product, split, "normal") for path in paths]
            continue
        if {f.name.casefold() for f in subfolders(kind)} & NORMAL_WORDS:
            raise DataError(
                f"{kind} looks like a product, since it has a folder of normal images, but it is "
                f"where a kind of defect is expected; put products first, as "
                f"{kind.name}/{folder.name}/..."
            )
        masks = _find_masks(product_folder, kind.name, is_only_kind=len(defects) == 1)
        records += [
            make_record(p, product, split, "anomalous", masks.get(_stem(p, kind), ()), kind.name)
            for p in paths
        ]
    return records


def _find_masks(
    product_folder: Path, kind: str, *, is_only_kind: bool
) -> dict[str, tuple[Path, ...]]:
    """Return the mask files of one kind of defect by the path of their image.

    The path is relative to the folder of the kind and has no suffix. The masks of an image are
    `<kind>/<stem>_mask.png`, `<kind>/<stem>.png`, or all files in a folder `<kind>/<stem>/`. If
    this is the only kind of defect, the masks may also be directly in the mask folder.
    """
    single: dict[str, tuple[Path, ...]] = {}
    several: dict[str, tuple[Path, ...]] = {}
    for mask_folder in filter(is_mask_folder, subfolders(product_folder)):
        same_kind = [f for f in subfolders(mask_folder) if f.name.casefold() == kind.casefold()]
        for folder in same_kind or ([mask_folder] if is_only_kind else []):
            for path in walk_images(folder):
                stem = _stem(path, folder)
                single.setdefault(stem, (path,))
                if stem.endswith("_mask"):
                    single[stem.removesuffix("_mask")] = (path,)
                if path.parent != folder:
                    parent = path.parent.relative_to(folder).as_posix()
                    several[parent] = (*several.get(parent, ()), path)
    return several | single


def _read_all_normal(folder: Path, product: str, split: Split, notes: list[str]) -> list[Record]:
    below = [f for f in subfolders(folder) if not is_mask_folder(f)]
    nested = [p for f in below if not f.is_symlink() for p in walk_images(f)]
    if nested:
        notes.append(
            f"product {product}: {len(nested)} images in subfolders ({below[0].name}, ...) were "
            "read as normal"
        )
    paths = [*direct_images(folder), *nested]
    return [make_record(path, product, split, "normal") for path in paths]


def _is_one_product(folders: list[Path]) -> bool:
    """Return True if the names of a root's folders are splits or labels, not products."""
    names = {folder.name.casefold() for folder in folders}
    if names & (_TRAIN | _TEST):
        has_both = names & _TRAIN and names & (_TEST | _VALIDATION)
        return bool(has_both) or names <= _STRUCTURE
    if names & NORMAL_WORDS and any(map(_names_defect, names)):
        return True
    return bool(names) and names <= NORMAL_WORDS | DEFECT_WORDS


def _names_defect(name: str) -> bool:
    """Return True if a name is or contains a defect word: `bad`, `cracked_left`."""
    return name in DEFECT_WORDS or not DEFECT_WORDS.isdisjoint(re.split(r"[\W_]+", name))


def _find_nested_structure(folder: Path) -> Path | None:
    """Return a folder, two or more levels below, that has images and the name of a split, label
    or mask folder; None if there is none."""
    queue = [f for f in subfolders(folder) if not is_mask_folder(f)]
    while queue:
        parent = queue.pop(0)
        if parent.is_symlink():  # as in walk_images
            continue
        for subfolder in subfolders(parent):
            if subfolder.name.casefold() in _STRUCTURE and any(walk_images(subfolder)):
                return subfolder
            queue.append(subfolder)
    return None


def _has_splits(folder: Path) -> bool:
    return any(f.name.casefold() in _TRAIN | _TEST for f in subfolders(folder))


def _has(folder: Path, *names: str) -> bool:
    """Return True if `folder` has the nested folders `names` (case is ignored)."""
    for name in names:
        matches = [f for f in subfolders(folder) if f.name.casefold() == name]
        if not matches:
            return False
        folder = matches[0]
    return True


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()
