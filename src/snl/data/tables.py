"""Read data sets that have a table of their files: manifests (CSV, Parquet) and VisA."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from snl.data.listing import direct_images, folder_name, posix_path, subfolders
from snl.data.records import (
    DEFECT_WORDS,
    NORMAL_WORDS,
    Label,
    Record,
    Split,
    assign_splits,
    make_record,
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
    location: str
    """File and line, for messages."""
    cells: dict[str, str]

    def get(self, column: str) -> str:
        return self.cells.get(column, "")


def find_manifest(root: Path) -> Path | None:
    """Return the manifest: `root` itself or a file in it with one of MANIFEST_NAMES, or None."""
    if root.is_file():
        return root if root.suffix.lower() in (".csv", ".parquet") else None
    return next((root / name for name in MANIFEST_NAMES if (root / name).is_file()), None)


def read_manifest(root: Path, notes: list[str]) -> list[Record]:
    """Read a CSV or Parquet table with one image per row; only the column `path` is required.

    Columns:
        path, mask: files, relative to the folder of the table.
        product: by default the name of that folder.
        label: by default anomalous if `defect` names a defect, unknown if `split` is test,
            otherwise normal.
        split: by default train for normal images and test for anomalous ones. If no row of a
            product has a split and it has both kinds of images, a fifth of its normal images
            becomes test images (`assign_splits`). `validation` means train for normal images and
            test for others.
        defect: the kind of defect.

    Raises:
        DataError: the table cannot be read, or a row is malformed or repeated.
        DependencyError: the table is a Parquet file and pyarrow is not installed.
    """
    manifest = find_manifest(root)
    if manifest is None:
        raise DataError(
            f"{root} contains no {' or '.join(MANIFEST_NAMES)}; give the path of the table"
        )
    rows = _parquet_rows if manifest.suffix.lower() == ".parquet" else _csv_rows
    return _records(list(rows(manifest, {})), manifest.parent)


def is_visa(root: Path) -> bool:
    """Return True if there is `split_csv/1cls.csv` or a `<product>/Data/Images/Normal`."""
    return (root / _VISA_LIST).is_file() or bool(_visa_folders(root))


def read_visa(root: Path, notes: list[str]) -> list[Record]:
    """Read VisA by its official one-class split or, if that file is missing, by its folders."""
    if (root / _VISA_LIST).is_file():
        rows = list(_csv_rows(root / _VISA_LIST, _VISA_COLUMNS, required=("path", "product")))
        return _records(rows, root)
    notes.append(
        f"{_VISA_LIST.as_posix()} is missing; a fifth of the normal images, chosen by name, is "
        "used as test images"
    )
    records: list[Record] = []
    for folder in _visa_folders(root):
        product, data = folder_name(folder), folder / "Data"
        product_records = [
            make_record(p, product, "train", "normal")
            for p in direct_images(data / "Images" / "Normal")
        ]
        if (data / "Images" / "Anomaly").is_dir():
            mask_folder = data / "Masks" / "Anomaly"
            masks = (
                {p.stem: (p,) for p in direct_images(mask_folder)} if mask_folder.is_dir() else {}
            )
            product_records += [
                make_record(p, product, "test", "anomalous", masks.get(p.stem, ()), "anomaly")
                for p in direct_images(data / "Images" / "Anomaly")
            ]
        records += assign_splits(product_records, folder)
    return records


def _records(rows: list[_Row], base: Path) -> list[Record]:
    records: list[Record] = []
    locations: dict[Path, str] = {}
    without_split: set[str] = set()
    with_split: set[str] = set()
    for row in rows:
        record, has_split = _record(row, base)
        if record.path in locations:
            raise DataError(
                f"{row.location}: {row.get('path')} is already listed "
                f"({locations[record.path]}); keep one of the two"
            )
        locations[record.path] = row.location
        (with_split if has_split else without_split).add(record.product)
        records.append(record)
    # If any row of a product has a split, the user has split that product; the other products are
    # split here.
    unsplit = without_split - with_split
    result = [r for r in records if r.product not in unsplit]
    for product in sorted(unsplit):
        result += assign_splits((r for r in records if r.product == product), base)
    return result


def _record(row: _Row, base: Path) -> tuple[Record, bool]:
    if not row.get("path"):
        raise DataError(f"{row.location}: path is empty; add the path or remove the line")
    stated_split = _look_up(_SPLITS, row, "split", "train, test or validation")
    label = _look_up(_LABELS, row, "label", _ALLOWED_LABELS)
    defect = row.get("defect")
    if label is None and defect:
        label = "normal" if defect.casefold() in NORMAL_WORDS else "anomalous"
    if label is None and stated_split != "test":
        label = "normal"
    split: Split
    if stated_split in ("train", "test"):
        split = "train" if stated_split == "train" else "test"
    else:
        split = "train" if label == "normal" else "test"
    masks = (base / posix_path(row.get("mask")),) if row.get("mask") else ()
    product = row.get("product") or folder_name(base)
    path = base / posix_path(row.get("path"))
    return make_record(path, product, split, label, masks, defect), stated_split is not None


def _look_up(table: Mapping[str, _T], row: _Row, column: str, allowed: str) -> _T | None:
    value = row.get(column)
    if not value:
        return None
    if value.casefold() not in table:
        raise DataError(f"{row.location}: unknown {column} '{value}'; use {allowed}")
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
                location = f"{file}, line {reader.line_num}"
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) > len(names):
                    raise DataError(
                        f"{location}: {len(cells)} cells but {len(names)} columns; put cells that "
                        f"contain '{separator}' in double quotes"
                    )
                stripped = (cell.strip() for cell in cells)
                yield _Row(location, dict(zip(names, stripped, strict=False)))
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
            f"{file}: reading Parquet needs pyarrow; run: pip install 'snl-ad[parquet]'"
        ) from error
    try:
        names = parquet.read_schema(file).names
        used = [name for name in names if _column(name, renamed) in _COLUMNS]
        _check_columns(file, [_column(name, renamed) for name in names], ("path",), renamed)
        rows = parquet.read_table(file, columns=used).to_pylist()
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
            existing = ", ".join(original.get(n, n) for n in names) or "none"
            raise DataError(
                f"{file} has no column '{original.get(name, name)}' (columns: {existing}); add the "
                "name to the first line"
            )


def _column(name: str, renamed: Mapping[str, str]) -> str:
    key = name.strip().lower()
    return renamed.get(key, key)


def _text(value: object) -> str:
    if value is None or value != value:  # data frames write an empty cell as NaN
        return ""
    if isinstance(value, bool | float) and value == int(value):
        value = int(value)
    return str(value).strip()


def _visa_folders(root: Path) -> list[Path]:
    normal_images = Path("Data") / "Images" / "Normal"
    return [folder for folder in (root, *subfolders(root)) if (folder / normal_images).is_dir()]
