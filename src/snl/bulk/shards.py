"""Shards: the pieces that a bulk inspection is divided into, and the images of each.

A shard is a tar archive (as WebDataset writes them), a row group of a Parquet file, or some
hundreds of image files; each may lie on this machine or at any address that fsspec can read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from snl.data.listing import EXTENSIONS
from snl.data.pairing import images_in
from snl.data.remote import explained, filesystem, is_address, is_container, members
from snl.data.words import is_mask_name
from snl.dependencies import require
from snl.errors import DataError

TAR, PARQUET, FILES = "tar", "parquet", "files"
FILES_PER_SHARD = 512
_AHEAD = 16
"""Files at an address that are fetched at a time."""


@dataclass(frozen=True)
class Item:
    """One image.

    Attributes:
        name: that identifies it in the results.
        content: bytes of the file, or the path of a file of this machine.
    """

    name: str
    content: bytes | str


@dataclass(frozen=True)
class Columns:
    """Columns of Parquet sources.

    Attributes:
        image: bytes of the image files, or a struct with a field `bytes`.
        name: that identifies an image; empty: file and row number do.
    """

    image: str = "image"
    name: str = ""


@dataclass(frozen=True)
class Shard:
    """A piece of work, whose results are written together or not at all.

    Attributes:
        kind: `tar`, `parquet` or `files`.
        address: of the archive or table; of files, what they were found in.
        row_group: number in the Parquet file.
        first_row: number of its first row in the file.
        files: paths or addresses.
    """

    kind: str
    address: str
    row_group: int = 0
    first_row: int = 0
    files: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """32 hex digits by which its results are found again."""
        text = json.dumps([self.kind, self.address, self.row_group, self.files])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def title(self) -> str:
        """What it is, for messages."""
        if self.kind == PARQUET:
            return f"{self.address}, row group {self.row_group}"
        return self.address

    def to_json(self) -> str:
        """Return the shard as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Shard:
        """Inverse of `to_json`."""
        values = json.loads(text)
        return cls(**{**values, "files": tuple(values["files"])})


def find_shards(
    sources: Sequence[str],
    columns: Columns | None = None,
    per_shard: int = FILES_PER_SHARD,
) -> list[Shard]:
    """Return the shards of sources, each once, in order.

    Args:
        sources: images, folders, tar archives, Parquet files, or addresses of such.
        columns: of Parquet files, which are checked; None: the usual ones.
        per_shard: files in a shard of files.

    Raises:
        DataError: a source that cannot be read or holds no images.
        DependencyError: a package for an address or a format is missing.
    """
    shards: dict[str, Shard] = {}
    loose: dict[str, None] = {}
    for source in sources:
        with explained(source):
            found = _expand(source)
            if not found:
                raise DataError(f"{source}: no images, tar archives or Parquet files here")
            for address in found:
                if address.lower().endswith(".parquet"):
                    shards |= {s.key: s for s in _row_groups(address, columns or Columns())}
                elif is_container(address):
                    shard = Shard(TAR, address)
                    shards[shard.key] = shard
                else:
                    loose[address] = None
    return [*shards.values(), *_of_files(list(loose), per_shard)]


def without(shards: Sequence[Shard], known: Collection[str]) -> list[Shard]:
    """Return the shards, those of files made anew from the files that are not known."""
    names = [name for shard in shards for name in shard.files if name not in known]
    return [*(shard for shard in shards if shard.kind != FILES), *_of_files(names)]


def _of_files(names: Sequence[str], per_shard: int = FILES_PER_SHARD) -> list[Shard]:
    parts = [tuple(names[i : i + per_shard]) for i in range(0, len(names), per_shard)]
    return [Shard(FILES, part[0].rpartition("/")[0], files=part) for part in parts]


def items_of(shard: Shard, columns: Columns) -> Iterator[Item]:
    """Yield the images of a shard, in order.

    Raises:
        DataError: it cannot be read to its end.
    """
    with explained(shard.title):
        if shard.kind == TAR:
            for name, content in members(shard.address, _is_image):
                yield Item(f"{shard.address}/{name}", content)
        elif shard.kind == PARQUET:
            yield from _rows(shard, columns)
        else:
            yield from _files(shard.files)


def _expand(source: str) -> list[str]:
    """Return the images, archives and tables that a source names or contains, as addresses."""
    fs, path = filesystem(source)
    remote = is_address(source)
    if not remote:
        source = str(Path(source).absolute())  # the same from everywhere

    def name(found: str) -> str:
        return str(fs.unstrip_protocol(found)) if remote else found

    if is_container(source) and not fs.isdir(path):
        if not fs.exists(path):
            raise FileNotFoundError(source)
        return [name(path)]
    if remote and PurePosixPath(path).suffix.lower() in EXTENSIONS:
        return [name(path)]
    if not remote and Path(source).is_file():
        return [str(Path(source))]
    if not fs.isdir(path):
        raise FileNotFoundError(source)
    if not remote:
        folder = Path(source)
        found = [*images_in(folder), *filter(_is_visible_container, folder.rglob("*"))]
        return sorted(map(str, found))
    return [name(f) for f in sorted(fs.find(path)) if _is_wanted(f[len(path) :])]


def _is_visible_container(path: Path) -> bool:
    return is_container(path.name) and path.name[0] not in "._" and path.is_file()


def _is_wanted(path: str) -> bool:
    """Return whether a path within an archive or at an address is of an image, an archive or a
    table: not hidden, and in no folder of masks."""
    *folders, name = PurePosixPath(path.lstrip("/")).parts
    if name[0] in "._" or any(f[0] in "._" and f != "." for f in folders):
        return False
    if any(map(is_mask_name, folders)):
        return False
    return PurePosixPath(name).suffix.lower() in EXTENSIONS or is_container(name)


def _is_image(path: str) -> bool:
    return _is_wanted(path) and not is_container(path)


def _row_groups(address: str, columns: Columns) -> list[Shard]:
    require(["pyarrow"], "parquet", "Reading Parquet")
    import pyarrow.parquet as pq

    fs, path = filesystem(address)
    with fs.open(path, "rb") as file:
        table = pq.ParquetFile(file)
        names = table.schema_arrow.names
        for column in filter(None, (columns.image, columns.name)):
            if column not in names:
                raise DataError(
                    f"{address}: has no column '{column}', only {', '.join(names[:8])}; name the "
                    "columns with --image-column and --id-column"
                )
        counts = [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
    firsts = [sum(counts[:i]) for i in range(len(counts))]
    return [Shard(PARQUET, address, i, first) for i, first in enumerate(firsts)]


def _rows(shard: Shard, columns: Columns) -> Iterator[Item]:
    import pyarrow.parquet as pq

    fs, path = filesystem(shard.address)
    wanted = [columns.image, *([columns.name] if columns.name else [])]
    number = shard.first_row
    with fs.open(path, "rb") as file:
        table = pq.ParquetFile(file)
        for batch in table.iter_batches(64, row_groups=[shard.row_group], columns=wanted):
            for row in batch.to_pylist():
                value = row[columns.image]
                content = value.get("bytes") if isinstance(value, dict) else value
                known = row.get(columns.name) if columns.name else None
                name = f"{shard.address}#{number}" if known is None else str(known)
                yield Item(name, content if isinstance(content, bytes) else b"")
                number += 1


def _files(files: Sequence[str]) -> Iterator[Item]:
    if not is_address(files[0]):
        yield from (Item(file, file) for file in files)
        return
    with ThreadPoolExecutor(_AHEAD) as pool:
        for start in range(0, len(files), _AHEAD):
            part = files[start : start + _AHEAD]
            yield from map(Item, part, pool.map(_fetch, part))


def _fetch(address: str) -> bytes:
    fs, path = filesystem(address)
    with explained(address):
        return bytes(fs.cat_file(path))


def total(shards: Iterable[Shard]) -> int:
    """Return the number of files in shards of files, which alone is known beforehand."""
    return sum(len(shard.files) for shard in shards)
