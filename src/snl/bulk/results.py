"""The results of a bulk inspection: a folder of Parquet files, one for each shard, written whole.

The name of a file is the key of its shard, so work that was interrupted, or done twice after a
machine was lost, never leaves an image twice or half a shard. `_snl.json` says by which model and
with which options the results were made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snl.bulk.shards import Shard
from snl.data.remote import explained, filesystem, is_address
from snl.dependencies import require
from snl.errors import SettingsError
from snl.files import atomic
from snl.temporary import temporary_folder

ABOUT = "_snl.json"
ROWS = 256
"""Rows that are written at a time."""


def schema() -> Any:
    """Return the columns of the results, a `pyarrow.Schema`."""
    import pyarrow as pa

    region = pa.struct([
        ("box", pa.list_(pa.int32())), ("area", pa.int64()), ("peak", pa.float32()),
        ("peak_at", pa.list_(pa.int32())), ("p_value", pa.float64()),
    ])  # fmt: skip
    number, text = pa.float64(), pa.string()
    return pa.schema([
        ("id", text), ("error", text), ("decision", text), ("product", text),
        ("product_from", text), ("recognised", text), ("score", number), ("calibrated", number),
        ("p_value", number), ("threshold", number), ("threshold_from", text),
        ("distance", number), ("second_distance", number), ("strangeness", number),
        ("width", pa.int32()), ("height", pa.int32()),
        ("roi", pa.list_(pa.int32())), ("regions", pa.list_(region)),
        ("remarks", pa.list_(text)), ("map", pa.binary()),
    ])  # fmt: skip


@dataclass(frozen=True)
class Results:
    """A folder of results.

    Attributes:
        address: a path, or anything that fsspec can write to.
    """

    address: str

    def open(self, about: Mapping[str, Any]) -> set[str]:
        """Create the folder, or continue one that was made in the same way.

        Args:
            about: model and options, JSON values.

        Returns:
            The keys of the shards that are done.

        Raises:
            SettingsError: it holds results of another model or of other options, or other files.
            SnlError: it cannot be written.
        """
        require(["pyarrow"], "parquet", "Writing results")
        with explained(self.address):
            fs, root = filesystem(self.address)
            names = self._names()
            if ABOUT not in names:
                if names:
                    raise SettingsError(
                        f"{self.address}: holds other files; give a new or empty folder as -o"
                    )
                fs.makedirs(root, exist_ok=True)
                fs.pipe_file(f"{root}/{ABOUT}", (json.dumps(dict(about), indent=1) + "\n").encode())
                return set()
            try:
                before = json.loads(fs.cat_file(f"{root}/{ABOUT}"))
            except ValueError:
                raise SettingsError(
                    f"{self.address}/{ABOUT}: is damaged; choose another -o"
                ) from None
            different = [key for key in about if before.get(key) != about[key]]
            if different:
                raise SettingsError(
                    f"{self.address}: holds results of another {' and '.join(different)} "
                    f"({different[0]} {before.get(different[0])}, now {about[different[0]]}); "
                    "choose another -o"
                )
            return {name.removesuffix(".parquet") for name in names if name.endswith(".parquet")}

    def ids(self) -> set[str]:
        """Return the names of all images in the results."""
        import pyarrow.parquet as pq

        fs, root = filesystem(self.address)
        found: set[str] = set()
        for name in self._names():
            if name.endswith(".parquet"):
                with fs.open(f"{root}/{name}", "rb") as file:
                    found.update(pq.read_table(file, columns=["id"])["id"].to_pylist())
        return found

    @contextmanager
    def writing(self, shard: Shard) -> Iterator[ShardWriter]:
        """Yield a writer of a shard's rows; after the block they are all there, or none."""
        fs, root = filesystem(self.address)
        name = f"{shard.key}.parquet"
        if not is_address(self.address):
            with atomic(Path(root, name)) as temporary:
                yield from _written(temporary)
            return
        with temporary_folder("snl-bulk") as folder:
            yield from _written(folder / name)
            with explained(self.address):
                fs.put_file(str(folder / name), f"{root}/{name}")

    def _names(self) -> set[str]:
        fs, root = filesystem(self.address)
        with suppress(FileNotFoundError):
            listed = fs.ls(root, detail=False, refresh=True) if is_address(self.address) else (
                fs.ls(root, detail=False))  # fmt: skip
            names = {str(path).rstrip("/").rpartition("/")[2] for path in listed}
            return {name for name in names if name and not name.startswith(".")}
        return set()


class ShardWriter:
    """Writes rows to a Parquet file, some hundred at a time."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._schema = schema()
        self._file = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self.count = self.failed = 0

    def add(self, row: dict[str, Any]) -> None:
        """Add a row, by the names of columns; those that are missing are null."""
        self._rows.append(row)
        self.count += 1
        self.failed += row.get("error") is not None
        if len(self._rows) == ROWS:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._file.write_table(pa.Table.from_pylist(self._rows, self._schema))
            self._rows = []


def _written(path: Path) -> Iterator[ShardWriter]:
    """Yield a writer of a file, which is closed afterwards."""
    writer = ShardWriter(path)
    yield writer
    writer.close()
