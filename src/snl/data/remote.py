"""Files at addresses such as s3://bucket/images, which fsspec reads, and in tar archives."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from snl.dependencies import require
from snl.errors import DataError, DependencyError

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
_BLOCK = 512
"""Bytes of a block of a tar archive; the last ones are zero."""


def is_address(source: str) -> bool:
    """Return whether a source is an address such as `s3://bucket/images`, not a path."""
    scheme, colon, _ = source.partition("://")
    return bool(colon) and scheme.isalnum() and len(scheme) > 1


def is_container(source: str) -> bool:
    """Return whether a source is an archive or a table, by its name."""
    return source.lower().endswith((*ARCHIVES, ".parquet"))


@contextmanager
def explained(source: str) -> Iterator[None]:
    """Raise what reading a source raises as one line that says what to do."""
    try:
        yield
    except (DataError, DependencyError):
        raise
    except ImportError as error:
        scheme = source.partition("://")[0]
        raise DependencyError(
            f"{source}: reading {scheme}:// needs another package "
            f"({' '.join(str(error).split())[:120]}): pip install 'snl-ad[remote]'"
        ) from None
    except FileNotFoundError:
        raise DataError(
            f"{source}: does not exist; check the path, the bucket and the spelling"
        ) from None
    except PermissionError as error:
        raise DataError(
            f"{source}: access is denied ({_short(error)}); check permissions and credentials"
        ) from None
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{source}: the archive is damaged or cut off ({_short(error)}); write it again"
        ) from None
    except Exception as error:
        names = {type(error).__name__, *(c.__name__ for c in type(error).__mro__)}
        if "ArrowInvalid" in names or "ArrowException" in names:
            raise DataError(f"{source}: is no readable Parquet file ({_short(error)})") from None
        if names & {"NoCredentialsError", "BotoCoreError", "ClientError", "ClientConnectorError"}:
            raise DataError(
                f"{source}: cannot be read ({_short(error)}); check address and credentials"
            ) from None
        if isinstance(error, OSError | ValueError):
            raise DataError(f"{source}: cannot be read ({_short(error)})") from None
        raise


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:150] or type(error).__name__


def filesystem(address: str) -> tuple[Any, str]:
    """Return the fsspec file system of a path or an address, and its path there."""
    require(["fsspec"], "remote", "Reading from an address")
    import fsspec

    fs, path = fsspec.core.url_to_fs(address)
    return fs, str(path)


def members(
    address: str, wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files in a tar archive whose names are wanted.

    Raises:
        tarfile.TarError: the archive is cut off.
    """
    fs, path = filesystem(address)
    with fs.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r|*") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if not member.isfile() or not wanted(name):
                continue
            opened = archive.extractfile(member)
            content = opened.read() if opened else b""
            if len(content) != member.size:
                raise tarfile.ReadError(f"{member.name} is incomplete")
            yield name, content
        if address.lower().endswith(".tar"):
            # an archive that is cut between two members reads like a shorter one
            size = file.seek(0, 2)
            file.seek(max(0, size - _BLOCK))
            if size % _BLOCK or any(file.read(_BLOCK)):
                raise tarfile.ReadError("its end is missing")
