"""Hashes of the training images' contents, by which a changed image is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from snl.data.records import Record
from snl.files import content_hash

THREADS = 8

Hashes = dict[Path, int | None]
"""Hash by file, see `snl.files.content_hash`; None: the file cannot be read."""


def content_hashes(
    records: Sequence[Record],
    progress: Callable[[int, int], None] | None = None,
    *,
    ends: bool = False,
) -> Hashes:
    """Return the hash of every image file, which is read completely.

    Args:
        records: of the images; masks are not read, because a model does not depend on them.
        progress: called with (done, total).
        ends: see `snl.files.content_hash`.
    """
    paths = list(dict.fromkeys(record.path for record in records))
    hashes: Hashes = {}
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for path, value in zip(paths, pool.map(lambda p: _hash(p, ends), paths), strict=True):
                hashes[path] = value
                if progress:
                    progress(len(hashes), len(paths))
        except BaseException:  # on Ctrl-C stop at once, not after the last image
            pool.shutdown(cancel_futures=True)
            raise
    return hashes


def fingerprint(hashes: Hashes, further: str = "") -> str:
    """Return the sha256 of the contents of files, in their order; their names do not count.

    Args:
        hashes: of the files.
        further: text that enters, too, if it is not empty.
    """
    texts = ["-" if value is None else f"{value:016x}" for value in hashes.values()]
    text = " ".join([*texts, further] if further else texts)
    return hashlib.sha256(text.encode()).hexdigest()


def _hash(path: Path, ends: bool) -> int | None:
    try:
        return content_hash(path, ends=ends)
    except (OSError, ValueError):
        return None  # reported when the image is decoded
