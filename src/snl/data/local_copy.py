"""A local copy of a data set that is at an address or in archives, brought up to date when needed.

Training reads every image several times, by name and in random order, so it works on files of this
machine. The copy lies in the user's cache folder and is complete or not used; files that have not
changed at their address are not fetched again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from snl.data.listing import EXTENSIONS
from snl.data.remote import explained, filesystem, is_address, is_container, members
from snl.data.sheets import Columns, read_rows
from snl.errors import DataError
from snl.files import atomic
from snl.locks import locked

INDEX = "index.jsonl"
"""One line for each file or archive that is there: name, version, and files unpacked from it."""
MANIFEST = "manifest.csv"
_TABLES = (".csv", ".json", ".txt", ".xml")
"""Files besides images that layouts read."""
_AHEAD = 16
"""Files fetched at a time."""
_OTHERS = ("product", "split", "label", "defect", "part")
"""Columns of a table with images that its manifest keeps."""
_GIB = 2**30

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Remote:
    """A file at an address, or an archive.

    Attributes:
        name: below the data set's folder, with `/`.
        address: where it is.
        size: in bytes.
        version: changes when the file does.
    """

    name: str
    address: str
    size: int
    version: str


def is_elsewhere(source: str) -> bool:
    """Return whether a data set has to be copied before it can be read: it is at an address, or a
    tar archive."""
    return is_address(source) or (is_container(source) and not source.lower().endswith(".parquet"))


def cache_folder() -> Path:
    """Return the folder of local copies: `snl/data` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "snl" / "data"


def local_copy(source: str, folder: Path | None = None, progress: Progress | None = None) -> Path:
    """Return the local copy of a data set, after fetching what is new or has changed.

    Args:
        source: address of a folder, of a manifest or of a Parquet file with images, or a tar
            archive. Archives in a folder are unpacked into it.
        folder: for local copies; None: `cache_folder()`.
        progress: called with (done, total) files.

    Returns:
        The folder or manifest to read.

    Raises:
        DataError: it cannot be read, has no images, or does not fit on the disk.
        DependencyError: a package for the address is missing.
    """
    source = source.rstrip("/")
    address = source if is_address(source) else str(Path(source).absolute())
    name = PurePosixPath(source).name.partition(".")[0] or "data"
    home = (folder or cache_folder()) / hashlib.sha256(address.encode()).hexdigest()[:16]
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{home}: cannot be made for the copy ({error.strerror}); choose another folder with "
            "--data-cache"
        ) from None
    busy = "another command is fetching these images; wait for it"
    with explained(source), locked(home / "copy", busy, error=DataError):
        copy = _Copy(home / name, home / INDEX)
        manifest = None
        if source.lower().endswith((".csv", ".parquet")):
            wanted = _of_manifest(address, copy)
            table = MANIFEST if _has_images(address) else PurePosixPath(address).name
            manifest = copy.folder / table
        else:
            wanted = _listed(address)
        if not wanted:
            raise DataError(f"{source}: no images or tar archives here")
        copy.bring_up_to_date(wanted, progress)
    return manifest or copy.folder


class _Copy:
    """The files of a data set that are here."""

    def __init__(self, folder: Path, index: Path) -> None:
        self.folder, self._index = folder, index
        self._present: dict[str, dict[str, Any]] = {}
        """By name: `version` and `files`."""
        with suppress(FileNotFoundError):
            for line in index.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):  # a line that a crash cut short
                    entry = json.loads(line)
                    self._present[entry["name"]] = entry

    def bring_up_to_date(self, wanted: list[_Remote], progress: Progress | None) -> None:
        """Fetch what is missing or has changed, and remove what is not wanted any more."""
        new = [one for one in wanted if not self._has(one)]
        self._check_space(new)
        done = len(wanted) - len(new)
        owners: dict[str, str] = {}
        kept = {one.name for one in wanted} - {one.name for one in new}
        self._present = {n: entry for n, entry in self._present.items() if n in kept}
        lines = (json.dumps(entry) + "\n" for entry in self._present.values())
        self._index.write_text("".join(lines), encoding="utf-8")
        with self._index.open("a", encoding="utf-8") as index:
            for one, files in self._fetched(new):
                entry = {"name": one.name, "version": one.version, "files": files}
                index.write(json.dumps(entry) + "\n")
                index.flush()
                self._present[one.name] = entry
                done += 1
                if progress:
                    progress(done, len(wanted))
        for name, entry in self._present.items():
            for file in entry["files"]:
                if owners.setdefault(file, name) != name:
                    raise DataError(
                        f"{name}: contains {file}, as does {owners[file]}; give the files of "
                        "different archives different names"
                    )
        for path in self.folder.rglob("*"):
            if path.is_file() and path.relative_to(self.folder).as_posix() not in owners:
                path.unlink()

    def _has(self, one: _Remote) -> bool:
        entry = self._present.get(one.name)
        return (
            entry is not None
            and entry["version"] == one.version
            and all((self.folder / file).is_file() for file in entry["files"])
        )

    def _check_space(self, new: Iterable[_Remote]) -> None:
        needed, free = sum(one.size for one in new), shutil.disk_usage(self._index.parent).free
        if needed > free:
            raise DataError(
                f"{self._index.parent}: {needed / _GIB:.1f} GiB are to be fetched, and "
                f"{free / _GIB:.1f} GiB are free; choose another folder with --data-cache"
            )

    def _fetched(self, new: list[_Remote]) -> Iterator[tuple[_Remote, list[str]]]:
        with ThreadPoolExecutor(_AHEAD) as pool:
            waiting = {pool.submit(self._fetch, one): one for one in new}
            try:
                for future in as_completed(waiting):
                    yield waiting[future], future.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _fetch(self, one: _Remote) -> list[str]:
        """Fetch a file, or unpack an archive; return the files that are there then."""
        with explained(one.address):
            if one.address.lower().endswith(".parquet") and is_container(one.address):
                return list(self._unpack(_rows(one.address)))
            if is_container(one.address):
                return list(self._unpack(members(one.address, _is_wanted)))
            fs, path = filesystem(one.address)
            target = self.place(one.name)
            with atomic(target) as temporary:
                fs.get_file(path, str(temporary))
            return [one.name]

    def _unpack(self, contents: Iterable[tuple[str, bytes]]) -> Iterator[str]:
        for name, content in contents:
            with atomic(self.place(name)) as temporary:
                temporary.write_bytes(content)
            yield name

    def place(self, name: str) -> Path:
        """Return the path of a file, whose folder exists then.

        Raises:
            DataError: the name leads out of the data set's folder.
        """
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name:
            raise DataError(f"{name!r}: is no name of a file in a data set")
        target = self.folder.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


def _listed(address: str) -> list[_Remote]:
    """The files of a folder, or an archive."""
    fs, path = filesystem(address)
    if is_container(address) and not fs.isdir(path):
        return [_remote(fs, fs.info(path), PurePosixPath(path).name)]
    if not fs.isdir(path):
        raise FileNotFoundError(address)
    found = fs.find(path, detail=True)
    start = len(path.rstrip("/")) + 1
    names = ((name[start:], details) for name, details in sorted(found.items()))
    files = [_remote(fs, details, name) for name, details in names if _is_wanted(name)]
    images = any(_ends(one.name, EXTENSIONS) or is_container(one.name) for one in files)
    return files if images else []


def _of_manifest(address: str, copy: _Copy) -> list[_Remote]:
    """A table at an address, and the files that it lists; of a table of images itself alone."""
    fs, path = filesystem(address)
    table = _remote(fs, fs.info(path), PurePosixPath(path).name)
    if _has_images(address):
        return [table]
    target = copy.place(table.name)
    with atomic(target) as temporary:
        fs.get_file(path, str(temporary))
    names = dict.fromkeys(
        value
        for row in read_rows(target, Columns(("path", "mask")))
        for value in (row.get("path"), row.get("mask"))
        if value
    )
    base = address.rpartition("/")[0]
    files = []
    for name in names:
        at = filesystem(f"{base}/{name}")[1]
        with explained(f"{base}/{name}"):
            files.append(_remote(fs, fs.info(at), name))
    return [table, *files]


def _remote(fs: Any, details: dict[str, Any], name: str) -> _Remote:
    version = [details.get(k) for k in ("ETag", "etag", "LastModified", "mtime", "created")]
    size = int(details.get("size") or 0)
    address = str(fs.unstrip_protocol(details["name"]))
    return _Remote(name, address, size, f"{size} {version}")


def _has_images(address: str) -> bool:
    """Return whether a table has the images themselves, not their paths."""
    if not address.lower().endswith(".parquet"):
        return False
    import pyarrow.parquet as pq

    fs, path = filesystem(address)
    with fs.open(path, "rb") as file:
        names = pq.ParquetFile(file).schema_arrow.names
    return "path" not in names and "image" in names


def _rows(address: str) -> Iterator[tuple[str, bytes]]:
    """The images of a table as files, and a manifest with its other columns."""
    import pyarrow.parquet as pq

    fs, path = filesystem(address)
    with fs.open(path, "rb") as file:
        table = pq.ParquetFile(file)
        others = [name for name in _OTHERS if name in table.schema_arrow.names]
        lines, number = io.StringIO(), 0
        writer = csv.writer(lines)
        writer.writerow(["path", *others])
        for batch in table.iter_batches(64, columns=["image", *others]):
            for row in batch.to_pylist():
                value = row["image"]
                content = value.get("bytes") if isinstance(value, dict) else value
                content = content if isinstance(content, bytes) else b""
                name = f"images/{number:08d}{_suffix(content)}"
                writer.writerow([name, *("" if row[c] is None else row[c] for c in others)])
                yield name, content
                number += 1
    yield MANIFEST, lines.getvalue().encode()


def _suffix(content: bytes) -> str:
    """The extension of an image file; of what is none that of any, and training says so."""
    with suppress(OSError), Image.open(io.BytesIO(content)) as image:
        found = f".{str(image.format).lower()}"
        return found if found in EXTENSIONS else ".png"
    return ".png"


def _is_wanted(name: str) -> bool:
    """Return whether a file belongs to a data set: not hidden, and of a kind that is read."""
    if any(part[0] in "._" and part != ".." for part in PurePosixPath(name).parts):
        return False
    return _ends(name, (*EXTENSIONS, *_TABLES)) or is_container(name)


def _ends(name: str, endings: Iterable[str]) -> bool:
    return name.lower().endswith(tuple(endings))
