"""A data set of any known layout as a list of records: which image, of what, for what.

>>> import tempfile, pathlib
>>> from PIL import Image
>>> root = pathlib.Path(tempfile.mkdtemp())
>>> for number in range(3):
...     (root / "bolt").mkdir(exist_ok=True)
...     Image.new("RGB", (8, 8)).save(root / "bolt" / f"{number}.png")
>>> catalog = Catalog.read(root)
>>> catalog.layout, catalog.products, len(catalog.train())
('folders', ('bolt',), 3)
"""

from __future__ import annotations

import difflib
import hashlib
import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from snl.data.layouts import (
    EXTENSIONS,
    Record,
    inside,
    is_btad,
    is_loco,
    is_mvtec,
    read_folders,
    read_split_tree,
    subfolders,
)
from snl.data.tables import (
    find_manifest,
    is_real_iad,
    is_visa,
    read_manifest,
    read_real_iad,
    read_visa,
)
from snl.errors import DataError

__all__ = ["LAYOUTS", "Catalog", "Record"]


@dataclass(frozen=True)
class _Layout:
    fits: Callable[[Path], bool]
    read: Callable[[Path, list[str]], list[Record]]
    looks: str


# In the order in which they are tried; MPDD has MVTec AD's shape and is only told by its name.
_LAYOUTS = {
    "manifest": _Layout(
        lambda root: find_manifest(root) is not None,
        read_manifest,
        "a .csv or .parquet file with a column path, or a folder with manifest.csv",
    ),
    "visa": _Layout(is_visa, read_visa, "split_csv/1cls.csv, <product>/Data/Images/Normal/"),
    "real-iad": _Layout(
        is_real_iad, read_real_iad, "realiad_jsons/<product>.json, realiad_256/<product>/"
    ),
    "loco": _Layout(
        is_loco, read_split_tree, "<product>/train/good/, <product>/test/logical_anomalies/"
    ),
    "btad": _Layout(is_btad, read_split_tree, "<product>/train/ok/, <product>/test/ko/"),
    "mvtec": _Layout(is_mvtec, read_split_tree, "<product>/train/good/, <product>/test/<defect>/"),
    "mpdd": _Layout(is_mvtec, read_split_tree, "<product>/train/good/, <product>/test/<defect>/"),
    "folders": _Layout(
        lambda root: root.is_dir(), read_folders, "<product>/ with images, or good/ and bad/ in it"
    ),
}

LAYOUTS = tuple(_LAYOUTS)
"""Names that `Catalog.read` knows, besides `auto`."""


@dataclass(frozen=True)
class Catalog:
    """The images of a data set, sorted by path."""

    root: Path
    """The folder that paths are relative to; of a manifest, the folder it lies in."""
    layout: str
    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()
    """What was left out or taken for granted while reading; `snl doctor` shows it."""

    @classmethod
    def read(cls, root: str | Path, layout: str = "auto") -> Catalog:
        """List the images of the data set at `root`, a folder or a manifest.

        `layout` is one of LAYOUTS, or `auto`: the first of them that fits. No image is opened.
        Raises DataError where nothing is found, a list cannot be understood, the folder above
        a data set is given or the name of a product is not UTF-8; DependencyError where a Parquet
        manifest is given and pyarrow is missing.
        """
        path = Path(os.path.normpath(root))
        name = layout.strip().lower().replace("_", "-")
        if name not in (*LAYOUTS, "auto"):
            near = difflib.get_close_matches(name, LAYOUTS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise DataError(
                f"layout '{layout}' is not known; {hint}choose auto, {', '.join(LAYOUTS)}"
            )
        try:
            return cls._read(path, name)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise DataError(
                f"{error.filename or path} cannot be read ({reason}); check the path and its "
                "permissions"
            ) from error

    @classmethod
    def _read(cls, path: Path, name: str) -> Catalog:
        if not path.exists():
            raise DataError(f"{path} does not exist; give the folder of images or a manifest")
        if path.is_file() and find_manifest(path) is None:
            raise DataError(
                f"{path} is neither a folder nor a manifest; give the folder of images, or a .csv "
                "or .parquet file"
            )
        if name == "auto":
            name = next(known for known, layout in _LAYOUTS.items() if _fits(layout, path))
            if name == "folders":
                _refuse_folder_above(path)
        elif not _fits(_LAYOUTS[name], path):
            raise DataError(
                f"{path} is not laid out as {name} ({_LAYOUTS[name].looks}); give another folder, "
                "or layout auto"
            )
        notes: list[str] = []
        records = _LAYOUTS[name].read(path, notes)
        if not records:
            endings = ", ".join(sorted(EXTENSIONS))
            raise DataError(
                f"no images found in {path} (read as {name}); put files ending in {endings} in a "
                "folder per product"
            )
        for product in {record.product for record in records}:
            _check_name(product)
        records.sort(key=lambda record: record.path.as_posix())
        return cls(path.parent if path.is_file() else path, name, tuple(records), tuple(notes))

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the products, sorted."""
        return tuple(sorted({record.product for record in self.records}))

    def train(self) -> tuple[Record, ...]:
        """Normal images to train on; anomalous ones that lie among them are left out."""
        return tuple(r for r in self.records if r.split == "train" and r.label == "normal")

    def test(self) -> tuple[Record, ...]:
        """Images to measure on: those of the split test that are known normal or anomalous."""
        return tuple(r for r in self.records if r.split == "test" and r.label is not None)

    def of(self, product: str) -> Catalog:
        """The part of the catalog that is one product's; raises DataError where it has none."""
        if product not in self.products:
            near = difflib.get_close_matches(product, self.products, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise DataError(
                f"product '{product}' is not in {self.root}; {hint}it has "
                f"{', '.join(self.products[:20])}{', ...' if len(self.products) > 20 else ''}"
            )
        kept = tuple(record for record in self.records if record.product == product)
        return replace(self, records=kept)

    def fingerprint(self) -> str:
        """SHA-256, in hex, of what is trained on: path below the root, size in bytes, product.

        The same on every machine and for every copy; it reads no content. A missing file counts
        with size -1, a file outside the root by its name alone.
        """
        lines = sorted(self._line(record) for record in self.train())
        return hashlib.sha256(b"\n".join(lines)).hexdigest()

    def relative(self, path: Path) -> str:
        """A path below the root with `/` between its parts, as messages and reports show it."""
        return (inside(path, self.root) or path).as_posix()

    def _line(self, record: Record) -> bytes:
        try:
            size = record.path.stat().st_size
        except (OSError, ValueError):
            size = -1
        name = (inside(record.path, self.root) or Path(record.path.name)).as_posix()
        fields = (name, str(size), record.product, record.split, str(record.label))
        return unicodedata.normalize("NFC", "\0".join(fields)).encode("utf-8", "surrogateescape")


def _fits(layout: _Layout, path: Path) -> bool:
    # Only a manifest may be a file; the other layouts list folders.
    return (path.is_dir() or layout is _LAYOUTS["manifest"]) and layout.fits(path)


def _refuse_folder_above(path: Path) -> None:
    """Lists and folders of VisA and Real-IAD mean something from their own folder only."""
    for folder in subfolders(path):
        for name in ("visa", "real-iad"):
            if _fits(_LAYOUTS[name], folder):
                raise DataError(f"{folder} is laid out as {name}; give {folder} as the data set")


def _check_name(product: str) -> None:
    try:
        product.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"the name of product folder {product!r} is not UTF-8 and cannot be stored; rename it"
        ) from error
