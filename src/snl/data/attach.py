"""Give the records of a folder tree their masks, and take the masks out of the images.

An image that counts as normal, or has no label, but has a mask with marked pixels is anomalous: it
is a test image, never a training image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from snl.data.listing import shown, subfolders
from snl.data.pairing import (
    Beside,
    MaskFolder,
    find_masks,
    is_mask_folder,
    split_masks,
    walk_without_masks,
)
from snl.data.reading import Reading
from snl.data.records import Record, make_record
from snl.data.words import folder_label, meaning_of
from snl.errors import ImageError


def attach_masks(records: Sequence[Record], reading: Reading) -> list[Record]:
    """Return the records of images with their masks; records of mask files are left out.

    Args:
        records: of a whole data set, one for each image file, with labels by folders.
        reading: its root is the uppermost folder in which mask folders are looked for.
    """
    beside = _split_folders(records, reading)
    kept = [r for r in records if r.path in beside]
    masks = _from_folders(kept, reading) | {p: found for p, found in beside.items() if found}
    result: list[Record] = []
    contradicted: dict[str, list[Path]] = defaultdict(list)
    for record in kept:
        found = masks.get(record.path, ())
        if not found:
            result.append(record)
        elif record.label == "anomalous":
            result.append(_with_masks(record, found))
        elif marks_nothing(found):
            reading.used.update(found)
            result.append(make_record(record.path, record.product, record.split, "normal"))
        else:
            place = f"product {shown(record.product)}, {reading.name(record.path.parent)}"
            contradicted[place].append(record.path)
            result.append(make_record(record.path, record.product, "test", "anomalous", found))
    reading.note_groups(
        contradicted,
        "image",
        "with marked pixels in masks; read as anomalous test images, not trained on",
    )
    _note_names(result, reading)
    return result


def normal_images(folder: Path, product: str) -> list[Record]:
    """Return all images in a folder as normal ones of a product, without those that masks mark."""
    reading = Reading(folder)
    records = [make_record(path, product, "test", "normal") for path in walk_without_masks(folder)]
    return [r for r in attach_masks(records, reading) if r.label == "normal"]


def marks_nothing(masks: tuple[Path, ...]) -> bool:
    """Return True if masks can be read and mark no pixel."""
    from snl.data.masks import is_marked

    try:
        return not any(is_marked(path) for path in masks)
    except ImageError:
        return False


def _split_folders(records: Sequence[Record], reading: Reading) -> dict[Path, tuple[Path, ...]]:
    """Return the masks beside each image; the masks themselves are no keys."""
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for record in records:
        by_folder[record.path.parent].append(record.path)
    masks: dict[Path, tuple[Path, ...]] = {}
    for folder, paths in by_folder.items():
        beside: Beside = split_masks(folder, paths)
        masks |= {image: beside.masks.get(image, ()) for image in beside.images}
        if beside.doubles:
            names = " and ".join(path.name for path in beside.doubles[0])
            reading.note(
                f"{reading.name(folder)} has {len(beside.doubles)} images twice, with different "
                f"extensions ({reading.name(Path(names))}); both were read as images, since none "
                "is a mask"
            )
    return masks


def _from_folders(records: Sequence[Record], reading: Reading) -> dict[Path, tuple[Path, ...]]:
    """Return the masks in mask folders by image, where names are unambiguous."""
    folders: dict[Path, list[tuple[Path, MaskFolder]]] = {}
    claims: dict[tuple[Path, ...], list[tuple[int, int, Record]]] = defaultdict(list)
    for record in records:
        for base, index in _mask_folders(record.path.parent, reading.root, folders):
            for left_out, masks in find_masks(index, record.path, base):
                claims[masks].append((_rank(record), left_out, record))
    found: dict[Path, tuple[Path, ...]] = {}
    nearest: dict[Path, int] = {}
    for masks, claimed in claims.items():
        exact = [claim for claim in claimed if claim[1] == 0] or claimed
        best = min(rank for rank, _, _ in exact)
        records_of_best = {r.path: left for rank, left, r in exact if rank == best}
        if len(records_of_best) == 1:
            ((path, left_out),) = records_of_best.items()
            if left_out < nearest.get(path, 1000):
                found[path], nearest[path] = masks, left_out
    return found


def _mask_folders(
    folder: Path, root: Path, known: dict[Path, list[tuple[Path, MaskFolder]]]
) -> list[tuple[Path, MaskFolder]]:
    """Return the mask folders in a folder and in those above it up to the root, nearest first."""
    path = [folder]
    while path[-1] not in known and path[-1] not in (root, path[-1].parent):
        path.append(path[-1].parent)
    for current in reversed(path):
        if current not in known:
            found = [(current, MaskFolder(f)) for f in subfolders(current) if is_mask_folder(f)]
            known[current] = found + known.get(current.parent, [])
    return known[folder]


def _rank(record: Record) -> int:
    """Return who gets a mask first: anomalous images before others, test before train."""
    return 2 * (record.label != "anomalous") + (record.split != "test")


def _with_masks(record: Record, masks: tuple[Path, ...]) -> Record:
    with_masks = make_record(
        record.path, record.product, record.split, record.label, masks, record.defect, record.part
    )
    return replace(with_masks, path=record.path)


def _note_names(records: Sequence[Record], reading: Reading) -> None:
    """Note training images whose names or folders say that they are anomalous: `NG_001.png`."""
    named: dict[str, list[Path]] = defaultdict(list)
    stated = {folder: folder_label(folder / "image") for folder in {r.path.parent for r in records}}
    for record in records:
        if record.split == "train" and record.label == "normal":
            meaning = meaning_of(record.path.stem)
            says = meaning.label == "anomalous" and meaning.certain and meaning.verdict
            label, folder = stated[record.path.parent]  # a product may be named `crack`
            if says or (label == "anomalous" and folder != record.product):
                named[f"product {shown(record.product)}"].append(record.path)
    reading.note_groups(
        named,
        "image",
        "whose names or folders say defect are read as normal; if they show defects, move them to "
        "a folder bad",
    )
