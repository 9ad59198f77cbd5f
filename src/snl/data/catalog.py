"""A data set of any known layout as a list of records: path, product, split, label and masks.

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
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snl.data.layouts import (
    is_btad,
    is_loco,
    is_mvtec,
    is_mvtec_ad_2,
    read_folders,
    read_split_tree,
)
from snl.data.listing import EXTENSIONS, inside, shown, subfolders
from snl.data.parts import PartPattern, keep_together, named, relative
from snl.data.reading import Reading
from snl.data.real_iad import is_real_iad, read_real_iad
from snl.data.records import Record
from snl.data.tables import find_manifest, is_visa, read_manifest, read_visa
from snl.data.unused import unused_notes
from snl.errors import DataError
from snl.limits import TEST_SHARE


@dataclass(frozen=True)
class _Layout:
    matches: Callable[[Path], bool]
    read: Callable[[Path, Reading], list[Record]]
    example: str


# In the order in which `auto` tries them. MPDD has the structure of MVTec AD, so `auto` reads it as
# `mvtec`; the name is accepted if it is given.
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
    "mvtec-ad-2": _Layout(
        is_mvtec_ad_2, read_split_tree, "<product>/train/good/, <product>/test_public/good/"
    ),
    "mvtec": _Layout(is_mvtec, read_split_tree, "<product>/train/good/, <product>/test/<defect>/"),
    "mpdd": _Layout(is_mvtec, read_split_tree, "<product>/train/good/, <product>/test/<defect>/"),
    "folders": _Layout(
        lambda root: root.is_dir(), read_folders, "<product>/ with images, or good/ and bad/ in it"
    ),
}

LAYOUTS = tuple(_LAYOUTS)
"""Names of layouts that `Catalog.read` accepts, in addition to `auto`."""


@dataclass(frozen=True)
class Catalog:
    """The images of a data set, sorted by path."""

    root: Path
    """The folder that paths are relative to; for a manifest, the folder that contains it."""
    layout: str
    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()
    """Skipped files and assumptions made while reading; `snl doctor` shows them."""

    split_note: str = ""
    """What was decided about products without a split; empty: nothing."""

    unsplit: frozenset[str] = frozenset()
    """Products without a split, some of whose normal images became test images."""

    @classmethod
    def read(
        cls,
        root: str | Path,
        layout: str = "auto",
        part_pattern: str | None = None,
        test_share: float = TEST_SHARE,
    ) -> Catalog:
        """Return the catalog of the data set at `root`. No image is opened.

        Args:
            root: folder of a data set, or a manifest (.csv or .parquet).
            layout: one of LAYOUTS, or `auto`: the first of them that matches.
            part_pattern: regular expression that is searched in each path below the root; its
                first group, or the whole match, names the part that the image shows.
            test_share: of the normal images of products that have no split but anomalous images:
                they are test images, not training images. 0 to below 1; as in training.

        Raises:
            DataError: there are no images, a list of files is malformed, `root` is the parent
                folder of a data set, the name of a product is not UTF-8, or the pattern is wrong
                or matches no image.
            DependencyError: `root` is a Parquet manifest and pyarrow is not installed.
        """
        path = Path(os.path.normpath(root))
        name = layout.strip().lower().replace("_", "-")
        if name not in (*LAYOUTS, "auto"):
            near = difflib.get_close_matches(name, LAYOUTS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise DataError(
                f"unknown layout '{layout}'; {hint}choose one of auto, {', '.join(LAYOUTS)}"
            )
        try:
            pattern = PartPattern(part_pattern) if part_pattern else None
            return cls._read(path, name, pattern, test_share)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise DataError(
                f"{error.filename or path} cannot be read ({reason}); check the path and its "
                "permissions"
            ) from error

    @classmethod
    def _read(
        cls, path: Path, name: str, pattern: PartPattern | None, test_share: float
    ) -> Catalog:
        if not path.exists():
            raise DataError(f"{path} does not exist; give the folder of images or a manifest")
        if not path.is_dir() and find_manifest(path) is None:
            raise DataError(
                f"{path} is neither a folder nor a manifest; give the folder of images, or a .csv "
                "or .parquet file"
            )
        if name == "auto":
            name = next(known for known, layout in _LAYOUTS.items() if _matches(layout, path))
            if name == "folders":
                _check_not_parent_folder(path)
        elif not _matches(_LAYOUTS[name], path):
            raise DataError(
                f"{path} is not laid out as {name} (expected: {_LAYOUTS[name].example}); give "
                "another folder, or layout auto"
            )
        base = path.parent if path.is_file() else path
        reading = Reading(base, test_share=test_share)
        if pattern is not None:
            reading.part_of = lambda image: pattern.name(relative(image, base))
        records = _LAYOUTS[name].read(path, reading)
        # A manifest may be anywhere: beside it, only folders that it refers to are looked into.
        listed = {r.path.parent for r in records} if path.is_file() else None
        unused = unused_notes(reading, records, listed)
        if not records:
            extensions = ", ".join(sorted(EXTENSIONS))
            found = f" ({unused[0]})" if unused else ""
            raise DataError(
                f"no images found in {path} (layout {name}){found}; put files with one of the "
                f"extensions {extensions} into one folder per product"
            )
        for product in {record.product for record in records}:
            _check_product_name(product)
        records.sort(key=lambda record: record.path.as_posix())
        records, of_parts = named(records, pattern, base) if pattern else (records, [])
        records, moved = keep_together(records)
        return cls(
            base,
            name,
            tuple(records),
            (*reading.notes, *of_parts, *moved, *unused),
            reading.split_note(),
            frozenset(reading.tested),
        )

    @classmethod
    def for_model(
        cls,
        data: Catalog | str | Path,
        model: object,
        layout: str = "auto",
        part_pattern: str | None = None,
        *,
        unseen: bool = False,
    ) -> Catalog:
        """Return a data set with the split that a model was trained with.

        Args:
            data: a catalog, which is returned as it is, or a data set to read.
            model: an inspector, or anything else, for which the split is the default one.
            layout, part_pattern: as for `read`.
            unseen: of products without a split, let the normal images be test images that an
                inspector was neither trained nor calibrated with.

        Raises:
            DataError, DependencyError: as `read`.
        """
        if isinstance(data, Catalog):
            return data
        settings = getattr(model, "settings", None)
        share = TEST_SHARE if settings is None else settings.training.test_share
        catalog = cls.read(data, layout, part_pattern, share)
        if unseen and catalog.unsplit and settings is not None:
            return replace(catalog, records=tuple(_unseen_as_test(catalog, model)))
        return catalog

    @property
    def products(self) -> tuple[str, ...]:
        """The names of the products, sorted."""
        return tuple(sorted({record.product for record in self.records}))

    def train(self) -> tuple[Record, ...]:
        """Return the normal images of the split `train`; anomalous ones there are ignored."""
        return tuple(r for r in self.records if r.split == "train" and r.label == "normal")

    def test(self) -> tuple[Record, ...]:
        """Return the images of the split `test` that have a label."""
        return tuple(r for r in self.records if r.split == "test" and r.label is not None)

    def unused(self) -> tuple[str, ...]:
        """Return a sentence for each product with images that are in no split."""
        lines = []
        for product in self.products:
            records = [r for r in self.records if r.product == product]
            for what, found in (
                (
                    "anomalous images in train",
                    [r for r in records if r.split == "train" and r.label == "anomalous"],
                ),
                ("images without a label", [r for r in records if r.label is None]),
            ):
                if found:
                    example = shown(self.relative(found[0].path))
                    more = ", ..." if len(found) > 1 else ""
                    lines.append(
                        f"product {shown(product)}: {len(found)} {what} ({example}{more}) not used"
                    )
        return tuple(lines)

    def of(self, product: str) -> Catalog:
        """Return the catalog of one product alone.

        Raises:
            DataError: the catalog has no such product.
        """
        if product not in self.products:
            near = difflib.get_close_matches(product, self.products, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise DataError(
                f"product '{product}' is not in {self.root}; {hint}its products are "
                f"{', '.join(self.products[:20])}{', ...' if len(self.products) > 20 else ''}"
            )
        records = tuple(record for record in self.records if record.product == product)
        return replace(self, records=records)

    def fingerprint(self, further: str = "") -> str:
        """Return a SHA-256 (hex) of the training images: relative path, size in bytes, product.

        It is the same on every machine and for every copy of the data set; file contents are not
        read. A missing file has the size -1; a file outside the root enters by its name alone.

        Args:
            further: text that enters, too, if it is not empty.
        """
        lines = sorted(self._fingerprint_line(record) for record in self.train())
        lines += [further.encode()] if further else []
        return hashlib.sha256(b"\n".join(lines)).hexdigest()

    def relative(self, path: Path) -> str:
        """Return a path relative to the root, with `/`, for messages and reports."""
        return (inside(path, self.root) or path).as_posix()

    def _fingerprint_line(self, record: Record) -> bytes:
        try:
            size = record.path.stat().st_size
        except (OSError, ValueError):
            size = -1
        name = (inside(record.path, self.root) or Path(record.path.name)).as_posix()
        fields = [name, str(size), record.product, record.split, str(record.label)]
        fields += [record.part] if record.part else []
        fields += [f"roi {record.roi}"] if record.roi else []
        return unicodedata.normalize("NFC", "\0".join(fields)).encode("utf-8", "surrogateescape")


def _unseen_as_test(catalog: Catalog, model: Any) -> Iterator[Record]:
    """Yield the records; see `Catalog.for_model`."""
    trained = set(model.training.hashes.tolist())

    def is_known(path: Path) -> bool:
        with suppress(OSError):  # it is reported when it is read
            content = model.training.content_hash(path)
            return content in trained or content in model.calibration.held_out
        return False

    for record in catalog.records:
        is_ours = record.label == "normal" and record.product in catalog.unsplit
        if is_ours and record.split == "train" and not is_known(record.path):
            record = replace(record, split="test")
        yield record


def _matches(layout: _Layout, path: Path) -> bool:
    # Only a manifest may be a file; the other layouts list folders.
    return (path.is_dir() or layout is _LAYOUTS["manifest"]) and layout.matches(path)


def _check_not_parent_folder(path: Path) -> None:
    """Raise DataError if `path` is the parent folder of a VisA or Real-IAD data set.

    The file lists and folders of these data sets are only valid relative to their root.
    """
    for folder in subfolders(path):
        for name in ("visa", "real-iad"):
            if _matches(_LAYOUTS[name], folder):
                raise DataError(f"{folder} is laid out as {name}; give {folder} as the data set")


def _check_product_name(product: str) -> None:
    try:
        product.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"the name of product folder {product!r} is not valid UTF-8 and cannot be stored; "
            "rename it"
        ) from error
