"""Data sets that come with a list of their files: manifests (CSV, Parquet), VisA, Real-IAD."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from snl.data.layouts import (
    DEFECT_WORDS,
    NORMAL_WORDS,
    Label,
    Record,
    Split,
    folder_name,
    images_here,
    labelled,
    share_out,
    subfolders,
)
from snl.errors import DataError, DependencyError

MANIFEST_NAMES = ("manifest.csv", "manifest.parquet")
_COLUMNS = ("path", "product", "split", "label", "mask", "defect")

_NORMAL_LABELS = NORMAL_WORDS | {"0", "false"}
_LABELS: dict[str, Label] = {
    word: "normal" if word in _NORMAL_LABELS else "anomalous"
    for word in (*_NORMAL_LABELS, *DEFECT_WORDS, "1", "true")
}
_ALLOWED_LABELS = "normal, good, ok, 0 or anomalous, bad, ng, defect, 1"
_SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}

_VISA_LIST = Path("split_csv") / "1cls.csv"
_VISA_COLUMNS = {"image": "path", "object": "product"}


_T = TypeVar("_T")


@dataclass(frozen=True)
class _Row:
    where: str
    cells: dict[str, str]

    def get(self, column: str) -> str:
        return self.cells.get(column, "")


def find_manifest(root: Path) -> Path | None:
    """The manifest that `root` is or holds."""
    if root.is_file():
        return root if root.suffix.lower() in (".csv", ".parquet") else None
    return next((root / name for name in MANIFEST_NAMES if (root / name).is_file()), None)


def read_manifest(root: Path, notes: list[str]) -> list[Record]:
    """Read a CSV or Parquet table of images; of its columns only `path` must be there.

    `path` and `mask` are relative to the folder of the table. Left out, `product` is the name of
    that folder; `label` is normal, but unknown in split test, and anomalous where `defect` names a
    defect; `split` is train for normal images and test for anomalous ones, and where a product
    has both and no split at all, a fifth of its normal images is held out (`share_out`).
    A split `validation` is training for normal images and test for others.
    """
    manifest = find_manifest(root)
    if manifest is None:
        raise DataError(f"{root} holds no {' or '.join(MANIFEST_NAMES)}; give the table's own path")
    rows = _parquet_rows if manifest.suffix.lower() == ".parquet" else _csv_rows
    return _records(list(rows(manifest, {})), manifest.parent)


def is_visa(root: Path) -> bool:
    """`split_csv/1cls.csv`, or `<product>/Data/Images/Normal`."""
    return (root / _VISA_LIST).is_file() or bool(_visa_folders(root))


def read_visa(root: Path, notes: list[str]) -> list[Record]:
    """Read VisA by its official one-class split, or, where that is missing, by its folders."""
    if (root / _VISA_LIST).is_file():
        rows = list(_csv_rows(root / _VISA_LIST, _VISA_COLUMNS, required=("path", "product")))
        return _records(rows, root)
    notes.append(f"{_VISA_LIST.as_posix()} is missing; normal images were split by their names")
    records: list[Record] = []
    for folder in _visa_folders(root):
        product, data = folder_name(folder), folder / "Data"
        of_product = [
            labelled(p, product, "train", "normal") for p in images_here(data / "Images" / "Normal")
        ]
        if (data / "Images" / "Anomaly").is_dir():
            gt = data / "Masks" / "Anomaly"
            masks = {p.stem: (p,) for p in images_here(gt)} if gt.is_dir() else {}
            of_product += [
                labelled(p, product, "test", "anomalous", masks.get(p.stem, ()), "anomaly")
                for p in images_here(data / "Images" / "Anomaly")
            ]
        records += share_out(of_product, folder)
    return records


def is_real_iad(root: Path) -> bool:
    """JSON files of `meta`, `train` and `test`, in `realiad_jsons` or in `root`."""
    return bool(_real_iad_lists(root))


def read_real_iad(root: Path, notes: list[str]) -> list[Record]:
    """Read Real-IAD by its JSON lists; products whose images are not there are left out."""
    records: list[Record] = []
    for file in _real_iad_lists(root):
        content = _load_json(file)
        try:
            prefix = _posix(content["meta"].get("prefix") or f"{file.stem}/").strip("/")
            normal = str(content["meta"].get("normal_class", "OK"))
            folder = _real_iad_folder(root, prefix, content)
            if folder is None:
                notes.append(f"product {file.stem}: its images are not there, so it was left out")
                continue
            splits: tuple[Split, ...] = ("train", "test")
            for split in splits:
                records += [
                    _real_iad_record(entry, file.stem, folder, normal, split)
                    for entry in content[split]
                ]
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{file} is no list of Real-IAD: {type(error).__name__} {error}; give each image "
                "its image_path, anomaly_class and mask_path"
            ) from error
    return records


def _real_iad_record(
    entry: Mapping[str, Any], stem: str, folder: Path, normal: str, split: Split
) -> Record:
    kind = str(entry["anomaly_class"])
    mask = entry.get("mask_path")
    return labelled(
        folder / _posix(str(entry["image_path"])),
        str(entry.get("category") or stem),
        split,
        "normal" if kind == normal else "anomalous",
        (folder / _posix(str(mask)),) if mask else (),
        kind,
    )


def _real_iad_lists(root: Path) -> list[Path]:
    """The first folder that has lists: `realiad_jsons`, `realiad_jsons_sv`, others, `root`."""
    others = [f for f in subfolders(root) if f.name.startswith("realiad_jsons")]
    for folder in (*others, root):
        files = sorted(f for f in folder.glob("*.json") if not f.name.startswith("."))
        if folder != root and files:
            return files
        if found := [f for f in files if _is_real_iad_list(f)]:
            return found
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
    """Where the paths of a list start: below `realiad_256`, ..., or `root`, with its prefix."""
    sized = [f for f in subfolders(root) if f.name.startswith("realiad_") and "json" not in f.name]
    tops = [*sorted(sized, key=lambda f: (len(f.name), f.name)), root]
    first = next(iter([*content["train"], *content["test"]]), None)
    if first is not None:
        path = _posix(str(first["image_path"]))
        for folder in (f for top in tops for f in (top / prefix, top)):
            if (folder / path).is_file():
                return folder
    return next((top / prefix for top in tops if (top / prefix).is_dir()), None)


def _records(rows: list[_Row], base: Path) -> list[Record]:
    records: list[Record] = []
    lines: dict[Path, str] = {}
    open_ends: set[str] = set()
    stated: set[str] = set()
    for row in rows:
        record, has_split = _record(row, base)
        if record.path in lines:
            raise DataError(
                f"{row.where}: {row.get('path')} was listed already ({lines[record.path]}); "
                "keep one of the two"
            )
        lines[record.path] = row.where
        (stated if has_split else open_ends).add(record.product)
        records.append(record)
    # A product of which some rows say their split is split by its owner; the others are not.
    shared = open_ends - stated
    kept = [r for r in records if r.product not in shared]
    for product in sorted(shared):
        kept += share_out((r for r in records if r.product == product), base)
    return kept


def _record(row: _Row, base: Path) -> tuple[Record, bool]:
    if not row.get("path"):
        raise DataError(f"{row.where}: path is empty; name an image there or remove the line")
    named = _look_up(_SPLITS, row, "split", "train, test or validation")
    label = _look_up(_LABELS, row, "label", _ALLOWED_LABELS)
    defect = row.get("defect")
    if label is None and defect:
        label = "normal" if defect.casefold() in NORMAL_WORDS else "anomalous"
    if label is None and named != "test":
        label = "normal"
    split: Split
    if named in ("train", "test"):
        split = "train" if named == "train" else "test"
    else:
        split = "train" if label == "normal" else "test"
    masks = (base / _posix(row.get("mask")),) if row.get("mask") else ()
    product = row.get("product") or folder_name(base)
    path = base / _posix(row.get("path"))
    return labelled(path, product, split, label, masks, defect), named is not None


def _look_up(table: Mapping[str, _T], row: _Row, column: str, allowed: str) -> _T | None:
    value = row.get(column)
    if not value:
        return None
    if value.casefold() not in table:
        raise DataError(f"{row.where}: {column} '{value}' is not known; write {allowed}")
    return table[value.casefold()]


def _csv_rows(
    file: Path, renamed: Mapping[str, str], required: tuple[str, ...] = ("path",)
) -> Iterator[_Row]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
            stream.seek(0)
            separator = max(",;\t", key=first.count)
            reader = csv.reader(stream, delimiter=separator)
            names = [_column(cell, renamed) for cell in next(reader, [])]
            _check_columns(file, names, required, renamed)
            for cells in reader:
                where = f"{file}, line {reader.line_num}"
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) > len(names):
                    raise DataError(
                        f"{where}: {len(cells)} cells under {len(names)} columns; put cells that "
                        f"contain '{separator}' in double quotes"
                    )
                cleaned = (cell.strip() for cell in cells)
                yield _Row(where, dict(zip(names, cleaned, strict=False)))
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text; save it as 'CSV UTF-8'") from error
    except csv.Error as error:
        raise DataError(f"{file} cannot be read as CSV ({error}); export it again") from error


def _parquet_rows(file: Path, renamed: Mapping[str, str]) -> Iterator[_Row]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DependencyError(
            f"{file} needs pyarrow to be read; run: pip install 'snl-ad[parquet]'"
        ) from error
    try:
        stored = parquet.read_schema(file).names
        wanted = [name for name in stored if _column(name, renamed) in _COLUMNS]
        _check_columns(file, [_column(name, renamed) for name in stored], ("path",), renamed)
        rows = parquet.read_table(file, columns=wanted).to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file} cannot be read as Parquet ({reason}); export it again") from error
    for number, row in enumerate(rows, start=1):
        cells = {_column(name, renamed): _text(value) for name, value in row.items()}
        yield _Row(f"{file}, row {number}", cells)


def _check_columns(
    file: Path, names: list[str], required: tuple[str, ...], renamed: Mapping[str, str]
) -> None:
    original = {new: old for old, new in renamed.items()}
    for name in required:
        if name not in names:
            found = ", ".join(original.get(n, n) for n in names) or "none"
            raise DataError(
                f"{file} has no column '{original.get(name, name)}' (found: {found}); name it in "
                "the first line"
            )


def _column(name: str, renamed: Mapping[str, str]) -> str:
    key = name.strip().lower()
    return renamed.get(key, key)


def _text(value: object) -> str:
    if value is None or value != value:  # NaN is how data frames write an empty cell
        return ""
    if isinstance(value, bool | float) and value == int(value):
        value = int(value)
    return str(value).strip()


def _posix(path: str) -> str:
    return path.replace("\\", "/")


def _visa_folders(root: Path) -> list[Path]:
    inside = Path("Data") / "Images" / "Normal"
    return [folder for folder in (root, *subfolders(root)) if (folder / inside).is_dir()]
