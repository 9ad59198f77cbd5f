"""List the files that reading a data set reads, so that no output replaces one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from snl.data.catalog import Catalog
from snl.data.tables import find_manifest

_LISTS = ("split_csv/*.csv", "realiad_jsons/*.json")
"""File lists of VisA and Real-IAD."""


def catalog_files(catalog: Catalog, given: str | Path | None = None) -> Iterator[Path]:
    """Yield the images and masks of a catalog, and the lists of files that it was read from.

    Args:
        catalog: the data set.
        given: the path that it was read from: a manifest may have any name.
    """
    for record in catalog.records:
        yield record.path
        yield from record.mask
    roots = [catalog.root] if given is None else [catalog.root, Path(given)]
    for root in roots:
        manifest = find_manifest(root)
        if manifest is not None:
            yield manifest
    for pattern in _LISTS:
        yield from catalog.root.glob(pattern)
