"""Read folder trees as records: MVTec AD and AD 2, MPDD, BTAD, MVTec LOCO AD, and plain folders.

All these layouts have the same structure: one folder per product; in it `train` and `test` folders,
or neither; below those one folder per kind of image, normal (`good`, `ok`, ...) or a kind of
defect; masks in `ground_truth`, with the names of their images. One reader is enough for all; the
layouts differ only in how they are recognised. Names are compared by their words
(`snl.data.words`). For data sets with a list of files see `snl.data.tables` and
`snl.data.real_iad`.
"""

from __future__ import annotations

from pathlib import Path

from snl.data.attach import attach_masks
from snl.data.kinds import check_normal, is_one_product, is_product, label_kinds
from snl.data.listing import direct_images, folder_name, shown, subfolders, walk_images
from snl.data.pairing import is_mask_folder, walk_without_masks
from snl.data.reading import Reading
from snl.data.records import Record, Split, make_record
from snl.data.words import Label, is_mask_name, label_of, meaning_of, split_of, stated_split
from snl.errors import DataError

_SHOWN = 8
"""Names of folders that a note lists."""


def is_mvtec(root: Path) -> bool:
    """Return True if a product has a folder `train/good`."""
    return any(_has(p, "train", "good") for p in _find_products(root).values())


def is_mvtec_ad_2(root: Path) -> bool:
    """Return True if a product has the folders `train/good` and `test_public`."""
    return any(
        _has(p, "train", "good") and _has(p, "test_public") for p in _find_products(root).values()
    )


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


def read_split_tree(root: Path, reading: Reading) -> list[Record]:
    """Read MVTec AD, MVTec AD 2, MPDD, BTAD or MVTec LOCO AD.

    Normal images in `validation` become training images.

    Args:
        root: folder of products, or of one product.
        reading: for notes on assumptions and reasons why folders are not used.
    """
    products = _find_products(root)
    if root not in products.values():
        for folder in subfolders(root):
            if folder.name not in products:
                reading.reasons[folder] = "it contains neither train nor test"
    records = [r for name, p in products.items() for r in _read_splits(p, name, reading)]
    return _finish(records, reading)


def read_folders(root: Path, reading: Reading) -> list[Record]:
    """Read plain folders, with or without splits.

    Args:
        root: folder of product folders, or of the images of one product.
        reading: for notes on assumptions and reasons why folders are not used.

    Raises:
        DataError: the meaning of the folders is ambiguous.
    """
    name = folder_name(root)
    folders = [
        f
        for f in subfolders(root)
        if not is_mask_folder(f)
        and (any(walk_without_masks(f)) or (meaning_of(f.name).verdict and label_of(f.name)))
    ]
    if is_one_product(folders, reading, name):
        return _finish(_read_product(root, name, reading), reading)
    folders = [f for f in folders if any(walk_without_masks(f))]
    loose = direct_images(root)
    if loose and folders:
        raise DataError(
            f"{shown(root)} contains both images ({shown(loose[0].name)}, ...) and folders of "
            f"images ({shown(folders[0].name)}, ...); put the images of each product in a folder "
            "of its own"
        )
    if loose:
        return _finish(_read_product(root, name, reading), reading)
    for folder in folders:
        meaning = meaning_of(folder.name)
        if meaning.unlabelled and meaning.certain and not is_product(folder):
            reading.reasons[folder] = "they have no labels"
    folders = [f for f in folders if f not in reading.reasons]
    for folder in folders:
        if is_mask_name(folder.name):
            reading.note(
                f"folder {shown(folder.name)} was read as a product: its images are not masks of "
                "other images"
            )
    records = [r for folder in folders for r in _read_product(folder, folder.name, reading)]
    return _finish(records, reading)


def _finish(records: list[Record], reading: Reading) -> list[Record]:
    """Return the records with masks, and with splits for products that have none."""
    records = attach_masks(records, reading)
    result = [r for r in records if r.product not in reading.unsplit]
    for product, base in reading.unsplit.items():
        result += reading.split((r for r in records if r.product == product), base)
    return result


def _find_products(root: Path) -> dict[str, Path]:
    """Return the product folders (those with `train` or `test` in them) by product name.

    If `root` itself has such a folder, it is the only product.
    """
    if _has_splits(root):
        return {folder_name(root): root}
    return {folder.name: folder for folder in subfolders(root) if _has_splits(folder)}


def _read_product(folder: Path, product: str, reading: Reading) -> list[Record]:
    if _has_splits(folder):
        return _read_splits(folder, product, reading)
    loose = direct_images(folder)
    kinds = [f for f in subfolders(folder) if not is_mask_folder(f)]
    labels = label_kinds(kinds, reading, in_test=False, has_loose=bool(loose))
    if not labels:
        if nested := _find_nested_structure(folder):
            raise DataError(
                f"{shown(nested.parent)} has a folder {shown(nested.name)}, which belongs directly "
                f"in a product folder, but here {shown(folder)} would be the product; give "
                f"{shown(nested.parent.parent)} as the data set, or move {shown(nested.name)} "
                "directly into its product's folder"
            )
        reading.unsplit[product] = folder
        return _read_all_normal(folder, product, "train", reading)
    if "normal" in labels.values() and loose:
        reading.reasons[folder] = "they are beside the folder of normal images"
        loose = []
    records = [make_record(path, product, "train", "normal") for path in loose]
    stated = {f: stated_split(f.name) for f, label in labels.items() if label == "normal"}
    if {"train", "test"} <= set(stated.values()):  # `train_good`, `test_good`, `test_bad`
        for kind, label in labels.items():
            split: Split = "test" if stated.get(kind, "test") == "test" else "train"
            records += _read_kinds(folder, {kind: label}, product, split)
        return records
    reading.unsplit[product] = folder
    return records + _read_kinds(folder, labels, product, "train")


def _read_splits(product_folder: Path, product: str, reading: Reading) -> list[Record]:
    parts = {f: split_of(f.name) for f in subfolders(product_folder)}
    has_test = "test" in parts.values()
    records: list[Record] = []
    for folder, part in parts.items():
        if part == "train":
            records += _read_train(folder, product, reading)
        elif part == "test" or (part == "validation" and not has_test):
            records += [make_record(path, product, "test", None) for path in direct_images(folder)]
            records += _read_labelled(folder, product, reading)
        elif part == "validation":
            # If there is a test set as well, normal validation images are additional training
            # images (MVTec LOCO AD, MVTec AD 2).
            records += [make_record(p, product, "train", "normal") for p in direct_images(folder)]
            records += [
                r if r.label != "normal" else make_record(r.path, product, "train", "normal")
                for r in _read_labelled(folder, product, reading)
            ]
        elif not is_mask_folder(folder):
            reading.reasons[folder] = (
                "they have no labels"
                if meaning_of(folder.name).unlabelled
                else "the folder is neither train, test, validation nor ground_truth"
            )
    return records


def _read_train(folder: Path, product: str, reading: Reading) -> list[Record]:
    loose = direct_images(folder)
    kinds = [f for f in subfolders(folder) if not is_mask_folder(f)]
    labels = label_kinds(kinds, reading, in_test=False, has_loose=bool(loose))
    if labels:
        records = [make_record(p, product, "train", "normal") for p in loose]
        return records + _read_kinds(folder, labels, product, "train")
    if nested := _find_nested_structure(folder):
        raise DataError(
            f"{shown(nested.parent)} has a folder {shown(nested.name)}, which belongs directly in "
            f"a product folder, but it is inside {shown(folder)}; put products first, as "
            f"{shown(nested.parent.name)}/{shown(folder.name)}/..."
        )
    return _read_all_normal(folder, product, "train", reading)


def _read_labelled(folder: Path, product: str, reading: Reading) -> list[Record]:
    kinds = [f for f in subfolders(folder) if not is_mask_folder(f)]
    return _read_kinds(folder, label_kinds(kinds, reading, in_test=True), product, "test")


def _read_kinds(
    folder: Path, labels: dict[Path, Label | None], product: str, split: Split
) -> list[Record]:
    """Read folders as kinds of images: normal, or the defect they are named by."""
    records: list[Record] = []
    for kind, label in labels.items():
        if label == "normal":
            check_normal(kind)
        elif label == "anomalous" and any(
            label_of(f.name) == "normal" and any(walk_images(f)) for f in subfolders(kind)
        ):
            raise DataError(
                f"{shown(kind)} looks like a product, since it has a folder of normal images, but "
                f"it is where a kind of defect is expected; put products first, as "
                f"{shown(kind.name)}/{shown(folder.name)}/..."
            )
        defect = kind.name if label == "anomalous" else ""
        records += [
            make_record(p, product, split if label else "test", label, (), defect)
            for p in walk_without_masks(kind)
        ]
    return records


def _read_all_normal(folder: Path, product: str, split: Split, reading: Reading) -> list[Record]:
    below = [f for f in subfolders(folder) if not is_mask_folder(f) and not f.is_symlink()]
    check_normal(folder)
    nested = [p for f in below for p in walk_without_masks(f)]
    if nested:
        names = ", ".join(shown(f.name) for f in below[:_SHOWN])
        more = f" and {len(below) - _SHOWN} more" if len(below) > _SHOWN else ""
        reading.note(
            f"product {shown(product)}: {len(nested)} images in subfolders ({names}{more}) were "
            "read as normal; give folders of anomalous images a name that says so, such as bad"
        )
    paths = [*direct_images(folder), *nested]
    return [make_record(path, product, split, "normal") for path in paths]


def _find_nested_structure(folder: Path) -> Path | None:
    """Return a folder, two or more levels below, that has images and the name of a split, label
    or mask folder; None if there is none."""
    queue = [f for f in subfolders(folder) if not is_mask_folder(f)]
    while queue:
        parent = queue.pop(0)
        if parent.is_symlink():  # as in walk_images
            continue
        for subfolder in subfolders(parent):
            if _is_structure(subfolder) and any(walk_images(subfolder)):
                return subfolder
            queue.append(subfolder)
    return None


def _is_structure(folder: Path) -> bool:
    if is_mask_name(folder.name):
        return not any(direct_images(folder.parent))
    return split_of(folder.name) is not None or label_of(folder.name) is not None


def _has_splits(folder: Path) -> bool:
    return any(split_of(f.name) in ("train", "test") for f in subfolders(folder))


def _has(folder: Path, *names: str) -> bool:
    """Return True if `folder` has the nested folders `names` (case is ignored)."""
    for name in names:
        matches = [f for f in subfolders(folder) if f.name.casefold() == name]
        if not matches:
            return False
        folder = matches[0]
    return True
