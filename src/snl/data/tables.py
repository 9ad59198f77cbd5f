"""Read data sets that have a table of their files: manifests (CSV, Parquet) and VisA."""

from __future__ import annotations

from pathlib import Path

from snl.data.attach import marks_nothing
from snl.data.listing import direct_images, folder_name, has_folder, posix_path, shown, subfolders
from snl.data.reading import Reading
from snl.data.records import Label, Record, Split, make_record
from snl.data.roi import parse_roi
from snl.data.sheets import Columns, Row, read_rows
from snl.data.words import label_of, split_of
from snl.errors import DataError

MANIFEST_NAMES = ("manifest.csv", "manifest.parquet")
_COLUMNS = ("path", "product", "split", "label", "mask", "defect", "part", "roi")

_LABELS: dict[str, Label] = {
    "0": "normal",
    "false": "normal",
    "1": "anomalous",
    "true": "anomalous",
}
_ALLOWED_LABELS = "normal, good, ok, 0 or anomalous, bad, ng, defect, 1"

_VISA_LIST = Path("split_csv") / "1cls.csv"
_VISA_COLUMNS = Columns(_COLUMNS, ("path", "product"), {"image": "path", "object": "product"})


def find_manifest(root: Path) -> Path | None:
    """Return the manifest: `root` itself or a file in it with one of MANIFEST_NAMES, or None."""
    if root.is_file():
        return root if root.suffix.lower() in (".csv", ".parquet") else None
    return next((root / name for name in MANIFEST_NAMES if (root / name).is_file()), None)


def read_manifest(root: Path, reading: Reading) -> list[Record]:
    """Read a CSV or Parquet table with one image per row; only the column `path` is required.

    Columns:
        path, mask: files, relative to the folder of the table.
        product: by default the name of that folder.
        label: by default anomalous if `defect` names a defect or the mask has marked pixels,
            unknown if `split` is test, otherwise normal.
        split: by default train for normal images and test for anomalous ones. If no row of a
            product has a split and it has both kinds of images, a share of its normal images
            becomes test images (`assign_splits`). `validation` means train for normal images and
            test for others.
        defect: the kind of defect.
        part: name of the physical part, which several images may show.
        roi: region of interest of the product: left, top, width and height in pixels, as `X Y W H`;
            the same in all rows of a product.

    Raises:
        DataError: the table cannot be read, or a row is malformed or repeated.
        DependencyError: the table is a Parquet file and pyarrow is not installed.
    """
    manifest = find_manifest(root)
    if manifest is None:
        raise DataError(
            f"{root} contains no {' or '.join(MANIFEST_NAMES)}; give the path of the table"
        )
    reading.default_reason = f"{shown(manifest.name)} does not list them"
    return _records(list(read_rows(manifest, Columns(_COLUMNS))), manifest.parent, reading)


def is_visa(root: Path) -> bool:
    """Return True if there is `split_csv/1cls.csv` or a `<product>/Data/Images/Normal`."""
    return (root / _VISA_LIST).is_file() or bool(_visa_folders(root))


def read_visa(root: Path, reading: Reading) -> list[Record]:
    """Read VisA by its official one-class split or, if that file is missing, by its folders."""
    if (root / _VISA_LIST).is_file():
        reading.default_reason = f"{_VISA_LIST.as_posix()} does not list them"
        return _records(list(read_rows(root / _VISA_LIST, _VISA_COLUMNS)), root, reading)
    reading.note(f"{_VISA_LIST.as_posix()} is missing, so the official split is not known")
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
        records += reading.split(product_records, folder)
    return records


def _records(rows: list[Row], base: Path, reading: Reading) -> list[Record]:
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
        result += reading.split((r for r in records if r.product == product), base)
    return result


def _record(row: Row, base: Path) -> tuple[Record, bool]:
    if not row.get("path"):
        raise DataError(f"{row.location}: path is empty; add the path or remove the line")
    stated_split = split_of(row.get("split")) if row.get("split") else None
    if row.get("split") and stated_split is None:
        raise _unknown(row, "split", "train, test or validation")
    label = _label(row)
    defect = row.get("defect")
    if label is None and defect:
        label = "normal" if label_of(defect) == "normal" else "anomalous"
    masks = (base / posix_path(row.get("mask")),) if row.get("mask") else ()
    if label is None and masks:
        label = "normal" if marks_nothing(masks) else "anomalous"
    if label is None and stated_split != "test":
        label = "normal"
    split: Split
    if stated_split in ("train", "test"):
        split = "train" if stated_split == "train" else "test"
    else:
        split = "train" if label == "normal" else "test"
    product = row.get("product") or folder_name(base)
    path = base / posix_path(row.get("path"))
    roi = parse_roi(row.get("roi"), f"{row.location}: roi") if row.get("roi") else None
    record = make_record(path, product, split, label, masks, defect, row.get("part"), roi)
    return record, stated_split is not None


def _label(row: Row) -> Label | None:
    text = row.get("label")
    if not text:
        return None
    label = _LABELS.get(text.casefold()) or label_of(text)
    if label is None:
        raise _unknown(row, "label", _ALLOWED_LABELS)
    return label


def _unknown(row: Row, column: str, allowed: str) -> DataError:
    value = shown(row.get(column))[:80]
    return DataError(f"{row.location}: unknown {column} '{value}'; use {allowed}")


def _visa_folders(root: Path) -> list[Path]:
    normal_images = Path("Data") / "Images" / "Normal"
    return [folder for folder in (root, *subfolders(root)) if has_folder(folder, normal_images)]
