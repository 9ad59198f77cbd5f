"""One check of all files that will be written, before any work starts.

It knows every file that is read and every other output. An output is refused if it is one of the
inputs (also by a link or in another letter case), if two outputs are the same or one would be a
folder of the other, if it would replace a file that is not an earlier output of the same kind, if
its name belongs to another kind of file, or if it cannot be written.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from snl.errors import SnlError
from snl.files import check_unprotected, is_device, not_writable, real_path
from snl.kinds import DRIFT, OPENVINO, OPENVINO_WEIGHTS, Kind

LONGEST_NAME = 255
"""Bytes of a file name, as most file systems allow."""


@dataclass(frozen=True)
class Output:
    """A file, or the files of a folder, that an option says to write."""

    option: str
    """For messages: `--json`."""
    path: Path
    """A file, or a folder if there are `files`."""
    kind: Kind
    files: tuple[Path, ...] | None = None
    """What is written into the folder `path`; None: `path` is the file."""
    anything: bool = False
    """Whether to replace a file of any kind: the caller checks that."""

    def targets(self) -> Iterator[tuple[Path, Kind]]:
        """Yield all files that are written, and their kinds."""
        for path in (self.path,) if self.files is None else self.files:
            if self.kind is OPENVINO:
                yield path.with_suffix(".bin"), OPENVINO_WEIGHTS
            yield path, self.kind

    @property
    def other(self) -> str:
        """The advice to give something else."""
        return f"choose another {'name' if self.files is None else 'folder'} for {self.option}"


def check_outputs(outputs: Iterable[Output], inputs: Iterable[str | Path] = ()) -> None:
    """Check all outputs of a command before its work; their folders are created if necessary.

    Args:
        outputs: all of them.
        inputs: all files that are read. Reading `x.xml` means reading `x.bin` too.

    Raises:
        SnlError: an output that cannot or must not be written; the message says which and why.
    """
    checked = list(outputs)
    if not checked:
        return
    try:
        for output in checked:
            _check_place(output)
        _check_inputs(checked, inputs)
        for output in checked:
            _check_names(output)
        _check_each_other(checked)
        for output in checked:
            for path, kind in output.targets():
                _check_existing(output, path, kind)
        for output in checked:
            _check_writable(output)
    except OSError as error:
        raise not_writable(Path(str(error.filename or checked[0].path)), error) from None


def _check_place(output: Output) -> None:
    """Check that a file is not a folder, and the other way round."""
    path = output.path
    if str(path) == "-":
        what = "file" if output.files is None else "folder"
        raise SnlError(
            f"{output.option} -: is not written to standard output; give the path of a {what}"
        )
    for target, _ in output.targets():
        if len(os.fsencode(target.name)) > LONGEST_NAME:
            raise SnlError(
                f"{target}: cannot be written (its name is longer than {LONGEST_NAME} bytes); "
                f"choose a shorter name for {output.option}"
            )
    if is_device(path) and not _takes_device(output, path):
        raise SnlError(
            f"{path}: cannot be written (it is a device or a pipe); give {output.option} the path "
            f"of a {'file' if output.files is None else 'folder'}"
        )
    if output.files is None:
        if not path.name or path.is_dir():
            raise SnlError(f"{path}: is a folder; give the path of a file as {output.option}")
    elif path.exists() and not path.is_dir():
        raise SnlError(
            f"{path}: cannot be written (it is a file); give {output.option} the path of a folder"
        )


def _takes_device(output: Output, path: Path) -> bool:
    """Return whether results can go to a device, or to another program by the shell's >(...).

    A pipe with a name is refused: whether anybody reads it cannot be known before the work.
    """
    if output.files is not None or output.kind.group not in (
        "a JSON file",
        "a web page",
        "a table",
    ):
        return False
    if output.kind is DRIFT:
        return False  # it is read, too
    return stat.S_ISCHR(path.stat().st_mode) or path.absolute().parts[1:2] in (("dev",), ("proc",))


def _check_names(output: Output) -> None:
    for path, kind in output.targets():
        if is_device(path):
            continue
        problem = kind.name_problem(path)
        if problem:
            raise SnlError(f"{path}: {problem} ({output.option})")


def _check_inputs(outputs: Sequence[Output], inputs: Iterable[str | Path]) -> None:
    """Check that no output is one of the inputs, by whatever name or link."""
    existing = {}
    for output in outputs:
        for path, _ in output.targets():
            identity = _identity(path)
            if identity is not None:
                existing[identity] = (output, path)
    if not existing:
        return
    for source in inputs:
        for file in _read_with(Path(source)):
            found = existing.get(_identity(file) or (-1, -1))
            if found is None:
                continue
            output, path = found
            if output.files is not None:
                raise SnlError(
                    f"{output.path}: files there would be overwritten that are read, the first: "
                    f"{path.name}; {output.other}"
                )
            raise SnlError(f"{path}: would overwrite what is read ({file}); {output.other}")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what is equal for all names of a regular file; None: there is none."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _read_with(path: Path) -> tuple[Path, ...]:
    """Return a file and what is read with it."""
    return (path, path.with_suffix(".bin")) if path.suffix.lower() == ".xml" else (path,)


def _check_each_other(outputs: Sequence[Output]) -> None:
    """Check that no two outputs are the same file, and none is a folder of another."""
    keys = _Keys()
    owners: dict[str, Output] = {}
    folders: dict[Path, Output] = {}
    for output in outputs:
        if output.files is not None:
            folders[output.path] = output
        for path, _ in output.targets():
            folders.setdefault(path.parent, output)
            key = keys.of(path)
            if key in owners and not is_device(path):
                _refuse_both(path, owners[key], output)
            owners[key] = output
    for folder, output in folders.items():
        for part in (folder, *folder.parents):
            owner = owners.get(keys.of(part))
            if owner is not None:
                raise SnlError(
                    f"{part}: would be both the file of {owner.option} and a folder of "
                    f"{output.option}; give two names"
                )


def _refuse_both(path: Path, first: Output, second: Output) -> None:
    if first is second:
        raise SnlError(f"{path}: would be written twice; {first.other}")
    raise SnlError(f"{path}: is both {first.option} and {second.option}; give two names")


class _Keys:
    """Paths without links, in one letter case where the file system has only one."""

    def __init__(self) -> None:
        self._folders: dict[Path, tuple[Path, bool]] = {}

    def of(self, path: Path) -> str:
        """Return what is equal for all names of a file, whether it exists or not."""
        if path.is_symlink():
            path = Path(os.path.realpath(path))
        folder = self._folders.get(path.parent)
        if folder is None:
            real = Path(os.path.realpath(path.parent))
            folder = self._folders[path.parent] = (real, _ignores_case(real))
        key = str(folder[0] / path.name)
        return key.casefold() if folder[1] else key


def _ignores_case(folder: Path) -> bool:
    """Return whether names in a folder, or in the nearest one that exists, have no letter case."""
    folder = next(part for part in (folder, *folder.parents) if part.is_dir())
    swapped = Path(str(folder).swapcase())
    try:
        return swapped != folder and swapped.samefile(folder)
    except OSError:
        return False


def _check_existing(output: Output, path: Path, kind: Kind) -> None:
    """Check that an existing file is an earlier output of the same kind, and may be replaced."""
    try:
        target = real_path(path)
        if is_device(path) or not target.exists():
            return
        check_unprotected(target)
        replaceable = output.anything or kind.is_replaceable(target)
    except OSError as error:
        raise not_writable(path, error) from None
    if not replaceable:
        raise SnlError(
            f"{path}: exists and is not {kind.name}; it is not replaced: move it away, or "
            f"{output.other}"
        )


def _check_writable(output: Output) -> None:
    """Create the folders of an output, and check that files can be created in them."""
    folders: dict[Path, Path] = {}
    for path, _ in output.targets():
        if not is_device(path):
            folders.setdefault(path.parent, path)
    if output.files is not None:
        folders = {output.path: output.path, **folders}
    for folder, path in folders.items():
        try:
            if folder != path:
                folder = real_path(path).parent
            if output.files is None or folder == output.path:
                folder.mkdir(parents=True, exist_ok=True)
            else:  # created when its first file is written
                while not folder.exists():
                    folder = folder.parent
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise not_writable(path, error) from None
