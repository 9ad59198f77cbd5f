"""`snl inspect --copy-rejects` and `--move-rejects`: images that are not normal into a folder."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from snl.errors import DataError, SettingsError, SnlError

if TYPE_CHECKING:
    from snl.cli.inspect_sinks import Record
    from snl.decision.inspection import Inspection


class Rejects:
    """Copies or moves each image that is not normal to `FOLDER/DECISION/`, with its subfolders.

    No file is ever replaced: an image that is there already is left as it is, and one with the
    same name but another content gets a number.

    Args:
        folder: for the images.
        places: file in `folder` for each image, without the decision.
        move: remove the images from where they are.
    """

    broken = False

    def __init__(self, folder: Path, places: Mapping[Path, Path], move: bool) -> None:
        self.option = "--move-rejects" if move else "--copy-rejects"
        self._folder, self._places, self._move = folder, places, move
        self._counts: Counter[str] = Counter()

    def add(self, result: Inspection, record: Record) -> None:
        """Copy or move the image if it is not normal; its record says where it is now."""
        if result.decision == "normal":
            return
        source = Path(str(result.path))
        inside = self._places[source].relative_to(self._folder)
        target = self._folder / result.decision.replace(" ", "-") / inside
        try:
            record["rejected_to"] = str(_transfer(source, target, self._move))
        except OSError as error:
            what = "moved" if self._move else "copied"
            raise SnlError(
                f"{source}: could not be {what} to {target} ({error.strerror or error})"
            ) from None
        self._counts[result.decision] += 1

    def close(self, complete: bool) -> None:
        """Do nothing: every file is complete."""

    def summary(self) -> str | None:
        """Return the number of images by decision."""
        what = "moved" if self._move else "copied"
        by = ", ".join(f"{count} {decision}" for decision, count in sorted(self._counts.items()))
        return f"{self._counts.total()} rejects {what}: {self._folder}" + (f" ({by})" if by else "")


def check_rejects(option: str, folder: Path, given: Sequence[str], files: Sequence[Path]) -> None:
    """Check that rejects can be taken out of the folders that are inspected.

    Args:
        option: `--copy-rejects` or `--move-rejects`.
        folder: for the rejects.
        given: images and folders as the user gave them.
        files: all images.

    Raises:
        SettingsError: the folder for rejects is inside a folder that is inspected.
        DataError: images cannot be removed from their folder.
    """
    real = Path(os.path.realpath(folder))
    for path in given:
        inspected = Path(os.path.realpath(path))
        if inspected.is_dir() and real.is_relative_to(inspected):
            raise SettingsError(
                f"{folder}: is inside {path}, so the next run would inspect the rejects again; "
                f"give {option} a folder outside of it"
            )
    if option == "--move-rejects":
        for parent in {file.parent for file in files}:
            if parent.is_dir() and not os.access(parent, os.W_OK | os.X_OK):
                raise DataError(
                    f"{parent}: its images cannot be moved (the folder is read-only); use "
                    "--copy-rejects"
                )


def _transfer(source: Path, target: Path, move: bool) -> Path:
    """Copy or move a file without replacing any, and return where it is."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for name in _names(target):
        if os.path.lexists(name):
            if not name.is_file() or not filecmp.cmp(source, name, shallow=False):
                continue
        elif not _copied(source, name, move):
            continue
        if move and Path(os.path.realpath(source)) != Path(os.path.realpath(name)):
            source.unlink()
        return name
    raise AssertionError  # there are endless names


def _names(target: Path) -> Iterator[Path]:
    """Yield a path, and then paths with a number."""
    yield target
    number = 2
    while True:
        yield target.with_stem(f"{target.stem}-{number}")
        number += 1


def _copied(source: Path, target: Path, move: bool) -> bool:
    """Create a file with the content of another; False: somebody else has created it meanwhile."""
    from snl.files import sync_file
    from snl.temporary import temporary_file

    if move and not source.is_symlink():
        try:
            os.link(source, target)
        except FileExistsError:
            return False
        except OSError:  # another file system, or one without hard links
            pass
        else:
            return True
    with temporary_file(target) as temporary:
        shutil.copy2(source, temporary)
        if move:
            sync_file(temporary)  # before the original is removed
        try:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        temporary.replace(target)
    return True
