"""The files of versions: copies in the service's folder, named by their content."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

from snl.errors import SnlError
from snl.service.ids import new_id


class ModelError(SnlError):
    """A model or version cannot be changed like this."""


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a model file and its weights.

    Raises:
        ModelError: it cannot be read.
    """
    digest = hashlib.sha256()
    weights = file.with_suffix(".bin")
    files = [file, weights] if file.suffix == ".xml" and weights.is_file() else [file]
    try:
        for one in files:
            with one.open("rb") as content:
                for part in iter(lambda: content.read(2**20), b""):
                    digest.update(part)
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def copy_into(folder: Path, source: Path, name: str) -> None:
    """Copy a file into a folder; it is complete or not there."""
    temporary = folder / f"incoming-{new_id()}"
    try:
        shutil.copyfile(source, temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(folder / name)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
