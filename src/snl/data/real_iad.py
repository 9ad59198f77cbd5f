"""Read the data set Real-IAD by its JSON lists of files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snl.data.listing import json_files, posix_path, shown, subfolders
from snl.data.reading import Reading
from snl.data.records import Record, Split, make_record
from snl.errors import DataError


def is_real_iad(root: Path) -> bool:
    """Return True if `realiad_jsons*` has JSON files, or `root` has some with the keys `meta`,
    `train` and `test`."""
    return bool(_real_iad_lists(root))


def read_real_iad(root: Path, reading: Reading) -> list[Record]:
    """Read Real-IAD by its JSON lists; products whose images are missing are skipped."""
    reading.default_reason = "the lists of the data set do not name them"
    records: list[Record] = []
    for file in _real_iad_lists(root):
        content = _load_json(file)
        try:
            prefix = posix_path(content["meta"].get("prefix") or f"{file.stem}/").strip("/")
            normal_class = str(content["meta"].get("normal_class", "OK"))
            folder = _real_iad_folder(root, prefix, content)
            if folder is None:
                reading.note(f"product {shown(file.stem)}: its images are missing; skipped")
                continue
            splits: tuple[Split, ...] = ("train", "test")
            for split in splits:
                records += [
                    _real_iad_record(entry, file.stem, folder, normal_class, split)
                    for entry in content[split]
                ]
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{file} is not a Real-IAD list ({type(error).__name__}: {error}); each image "
                "needs image_path, anomaly_class and mask_path"
            ) from error
    return records


def _real_iad_record(
    entry: Mapping[str, Any], list_name: str, folder: Path, normal_class: str, split: Split
) -> Record:
    kind = str(entry["anomaly_class"])
    mask = entry.get("mask_path")
    return make_record(
        folder / posix_path(str(entry["image_path"])),
        str(entry.get("category") or list_name),
        split,
        "normal" if kind == normal_class else "anomalous",
        (folder / posix_path(str(mask)),) if mask else (),
        kind,
    )


def _real_iad_lists(root: Path) -> list[Path]:
    """Return the lists of the first folder that has any: `realiad_jsons`, `realiad_jsons_sv`,
    other `realiad_jsons*`, `root`."""
    list_folders = [f for f in subfolders(root) if f.name.startswith("realiad_jsons")]
    for folder in (*list_folders, root):
        files = json_files(folder)
        if folder != root and files:
            return files
        if lists := [f for f in files if _is_real_iad_list(f)]:
            return lists
    return []


def _is_real_iad_list(file: Path) -> bool:
    try:
        content = _load_json(file)
    except DataError:
        return False
    return isinstance(content, dict) and {"meta", "train", "test"} <= content.keys()


def _load_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as JSON ({error}); download it again") from error


def _real_iad_folder(root: Path, prefix: str, content: Mapping[str, Any]) -> Path | None:
    """Return the folder that the paths of a list are relative to, or None if there are no images.

    It is `realiad_256` (or another size) or `root`, with or without the prefix of the list.
    """
    sized = [f for f in subfolders(root) if f.name.startswith("realiad_") and "json" not in f.name]
    bases = [*sorted(sized, key=lambda f: (len(f.name), f.name)), root]
    first = next(iter([*content["train"], *content["test"]]), None)
    if first is not None:
        path = posix_path(str(first["image_path"]))
        for folder in (f for base in bases for f in (base / prefix, base)):
            if (folder / path).is_file():
                return folder
    return next((base / prefix for base in bases if (base / prefix).is_dir()), None)
