"""Decide by their names what sibling folders contain: products, or images of one label each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from snl.data.listing import shown, subfolders
from snl.data.pairing import is_mask_folder, walk_without_masks
from snl.data.reading import Reading
from snl.data.records import Label
from snl.data.words import fold, label_of, meaning_of, split_of
from snl.errors import DataError


def label_kinds(
    folders: Sequence[Path], reading: Reading, *, in_test: bool, has_loose: bool = False
) -> dict[Path, Label | None]:
    """Return the labels of folders that are inside a product; empty if no name says any.

    Args:
        folders: siblings.
        reading: for notes.
        in_test: True inside a folder `test`, where every other name is a kind of defect.
        has_loose: True if there are images beside the folders, which count as normal.

    Raises:
        DataError: it is not clear which folders contain normal images.
    """
    meanings = {folder: meaning_of(folder.name) for folder in folders}
    for folder, meaning in meanings.items():
        if meaning.contradictory:
            raise DataError(
                f"it is not clear whether the images in {shown(folder)} are normal or anomalous; "
                "rename the folder to good, to bad, or to unlabelled"
            )
    labels: dict[Path, Label | None] = {}
    unlabelled: dict[Path, Label | None] = {}
    for folder, meaning in meanings.items():
        if meaning.unlabelled and meaning.certain:
            unlabelled[folder] = None
        elif meaning.label == "anomalous" or (
            meaning.label == "normal" and (meaning.certain or meaning.verdict)
        ):
            labels[folder] = meaning.label
    unknown = [folder for folder in folders if folder not in labels | unlabelled]
    if in_test:
        labels |= dict.fromkeys(unknown, "anomalous")
    elif unknown and labels:
        filled = [folder for folder in unknown if any(walk_without_masks(folder))]
        if "normal" not in labels.values() and filled:
            raise DataError(_ambiguous(list(labels), filled, has_loose))
        labels |= dict.fromkeys(unknown, "anomalous")
    for folder, label in labels.items():
        if label == "normal" and not meanings[folder].certain:
            reading.note(f"the images in {reading.name(folder)} were read as normal, by its name")
    for folder in unknown:
        if labels.get(folder) == "anomalous" and "normal" in meanings[folder].labels:
            reading.note(
                f"the images in {reading.name(folder)} were read as a kind of defect, although "
                "its name has a word for normal"
            )
    if unlabelled and unknown and not labels:
        labels |= dict.fromkeys(unknown, "normal")
        reading.note(f"the images in {_names(unknown)} were read as normal")
    return labels | unlabelled


def is_one_product(folders: Sequence[Path], reading: Reading, name: str) -> bool:
    """Return True if the folders in a root are splits or labels of one product, not products.

    Args:
        folders: the folders in the root that contain images, without mask folders.
        reading: for notes.
        name: what the one product would be called.

    Raises:
        DataError: one name says a label, and it is not clear what the others are.
    """
    splits = [split_of(f.name) for f in folders]
    if "train" in splits or "test" in splits:
        has_both = "train" in splits and ("test" in splits or "validation" in splits)
        certain = all(s or label_of(f.name) for s, f in zip(splits, folders, strict=True))
        return bool(has_both or certain)
    products = [f for f in folders if is_product(f)]
    rest = [f for f in folders if f not in products]
    meanings = {f: meaning_of(f.name) for f in rest}
    if doubtful := [f for f, m in meanings.items() if m.contradictory and m.certain]:
        raise DataError(
            f"it is not clear whether the images in {shown(doubtful[0])} are normal or "
            "anomalous; rename the folder to good or to bad, or put it into a product folder"
        )
    says_normal = [f for f, m in meanings.items() if m.certain and m.label == "normal"]
    says_defect = [f for f, m in meanings.items() if m.label == "anomalous"]
    certain_labels = [f for f, m in meanings.items() if m.certain and m.label is not None]
    verdicts = [f for f, m in meanings.items() if m.verdict and (m.certain or f in says_defect)]
    unknown = [f for f in rest if f not in certain_labels and f not in says_defect]
    if rest and not products and len(certain_labels) == len(rest):
        _note_labels(certain_labels, [], reading, name)
        return True
    if says_normal and says_defect and not products:
        kinds = [f for f in unknown if not meanings[f].unlabelled]
        _note_labels([*says_normal, *says_defect], kinds, reading, name)
        return True
    if _differ_in_label_only(rest) and not products:
        _note_labels(rest, [], reading, name)
        return True
    labelled = verdicts or _labels_of_siblings(rest)
    others = [f for f in folders if f not in labelled]
    if labelled and others:
        raise DataError(_ambiguous(labelled, others, has_loose=False))
    if len(labelled) > 1:
        raise DataError(
            f"folders {_names(labelled)} are labels of several products; put products first, as "
            f"{shown(labelled[0].parent / '<product>')}/good/ and .../bad/"
        )
    if mentions := [f for f, m in meanings.items() if f in says_defect or f in certain_labels]:
        others = [f for f in folders if f not in mentions]
        reading.note(
            f"folder names {_names(mentions)} were read as products, not as labels"
            + (f", because {shown(others[0].name)} beside them is not a label" if others else "")
            + "; if they are labels, put all folders into one product folder"
        )
    return False


def is_product(folder: Path) -> bool:
    """Return True if a folder contains splits or a folder of normal images."""
    return any(
        split_of(f.name) in ("train", "test")
        or (label_of(f.name) == "normal" and meaning_of(f.name).verdict)
        for f in subfolders(folder)
    )


def check_normal(folder: Path) -> None:
    """Raise DataError if a folder below a folder of normal images has a name that says defect."""
    queue = [folder]
    while queue:
        for below in subfolders(queue.pop()):
            meaning = meaning_of(below.name)
            says_defect = "anomalous" in meaning.labels and (meaning.certain or meaning.verdict)
            if not is_mask_folder(below) and says_defect and any(walk_without_masks(below)):
                raise DataError(
                    f"{shown(below)} has the name of a folder of anomalous images, but it is "
                    f"inside a folder of normal images; move it beside {shown(folder.name)}, or "
                    "rename it"
                )
            if not below.is_symlink():
                queue.append(below)


def _differ_in_label_only(folders: Sequence[Path]) -> bool:
    """Return True for `bolt_ok`, `bolt_ng`: both labels, and the same other words."""
    found = [meaning_of(f.name) for f in folders]
    return (
        len(found) > 1
        and len({m.rest for m in found}) == 1
        and {m.label for m in found} == {"normal", "anomalous"}
    )


def _labels_of_siblings(folders: Sequence[Path]) -> list[Path]:
    """Return the folders that name a sibling and a defect: `bolt_scratched` beside `bolt`."""
    names = {fold(f.name) for f in folders}
    rests: dict[Path, str] = {}
    for folder in folders:
        meaning = meaning_of(folder.name)
        if meaning.label == "anomalous" and meaning.rest:
            rests[folder] = "".join(meaning.rest)
    known = {"".join(meaning_of(n).rest) for n in names if not meaning_of(n).labels}
    known |= {
        "".join(m.rest) for f in folders if (m := meaning_of(f.name)).label == "normal" and m.rest
    }
    return [folder for folder, rest in rests.items() if rest in known]


def _note_labels(labels: list[Path], kinds: list[Path], reading: Reading, name: str) -> None:
    text = (
        f"folder names {_names(labels)} were read as labels and all images as images of one "
        f"product, {shown(name)}"
    )
    if kinds:
        text += f", with {_names(kinds)} as kinds of defects"
    reading.note(
        f"{text}; if they are products, put each in its own folder inside a product folder"
    )


def _ambiguous(labels: Sequence[Path], others: Sequence[Path], has_loose: bool) -> str:
    parent = labels[0].parent
    beside = "images beside them or " if has_loose else ""
    return (
        f"the folders in {shown(parent)} are ambiguous: {_names(labels)} "
        f"{'is a label' if len(labels) == 1 else 'are labels'}, but {_names(others)} may be "
        f"{beside}products, normal images or kinds of defects; name the folders of one product "
        "good and bad, or put products first, as <product>/good/ and <product>/bad/"
    )


def _names(folders: Sequence[Path]) -> str:
    names = sorted(shown(folder.name) for folder in folders)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
