"""Write files atomically, and read and write safetensors files with JSON metadata.

No pickle is read or written. The safetensors header contains one JSON document with the kind of
file, its format version and a sha256 of tensors and facts, so that damage to any byte is detected.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from snl.errors import BundleError, SnlError
from snl.temporary import temporary_file, temporary_folder

if TYPE_CHECKING:
    import numpy as np

FORMATS = {"bundle": 3}
"""Format version by kind of file; 1 for all other kinds."""
OLDEST = {"bundle": 2}
"""Oldest format version that can still be read, by kind of file."""
_KEY = "snl"
"""Key of the JSON document in the safetensors header."""
_HASHED_BYTES = 2**16


@contextmanager
def atomic(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield an empty temporary file in the same folder; it replaces `path` if no error occurs.

    If the `with` block raises, the temporary file is deleted and `path` stays unchanged. A symbolic
    link stays and its target is replaced; other hard links keep the old content. Permissions and,
    where allowed, the owner of an existing file are kept. A device or a pipe is written to.

    Args:
        path: the file; its folder is created if necessary.
        durable: wait until the file is on the disk, in case of a power failure.

    Raises:
        SnlError: the folder cannot be created or written to, or the file is write-protected.
    """
    path = Path(path)
    if not path.name:
        raise SnlError(f"{path}: cannot be written (it is a folder); give the path of a file")
    try:
        if is_device(path):
            with temporary_folder("snl") as folder:
                yield folder / path.name
                _copy_to_device(folder / path.name, path)
            return
        target = real_path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        check_unprotected(target)
        before = target.stat() if target.exists() else None
        mode = 0o666 if before is None else stat.S_IMODE(before.st_mode) & 0o777 | 0o600
        with temporary_file(target, mode) as temporary:
            yield temporary
            _keep_owner(temporary, before)
            _replace(temporary, target, durable)
    except BrokenPipeError:  # comes from another output of the caller, not from this file
        raise
    except OSError as error:
        raise not_writable(path, error) from None


def real_path(path: Path) -> Path:
    """Return the file that writing to `path` changes: symbolic links are followed.

    Raises:
        OSError: the links form a loop, or lead into a folder that does not exist.
    """
    if not path.is_symlink():
        return path
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise OSError(errno.ELOOP, "its symbolic links form a loop")
    if not real.parent.is_dir():
        raise OSError(errno.ENOENT, f"it is a link to {real}, whose folder does not exist")
    return real


def is_device(path: Path) -> bool:
    """Return whether a path is a device or a pipe, such as /dev/null, which cannot be replaced."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def open_device(path: Path) -> BinaryIO:
    """Open a device or a pipe for writing.

    Raises:
        OSError: also for a pipe that nobody reads, where opening would wait for ever.
    """
    number = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
    os.set_blocking(number, True)
    return os.fdopen(number, "wb", buffering=0)


def check_unprotected(target: Path) -> None:
    """Check that a file may be replaced; permission of its folder alone would be enough for that.

    Raises:
        OSError: the file has no write permission, or is a folder.
    """
    if not target.exists():
        return
    if target.is_dir():
        raise OSError(errno.EISDIR, "it is a folder")
    if not stat.S_IMODE(target.stat().st_mode) & 0o222 or not os.access(target, os.W_OK):
        raise OSError(errno.EACCES, "it is write-protected")


def _copy_to_device(source: Path, device: Path) -> None:
    try:
        with source.open("rb") as content, open_device(device) as file:
            shutil.copyfileobj(content, file)
    except BrokenPipeError as error:
        raise SnlError(f"{device}: cannot be written ({error.strerror}); nobody reads it") from None


def _keep_owner(temporary: Path, before: os.stat_result | None) -> None:
    """Give a file the owner and the permissions of the one that it replaces."""
    if before is None:
        return
    if hasattr(os, "chown"):
        made = temporary.stat()
        for user, group in ((before.st_uid, -1), (-1, before.st_gid)):
            if (user, group) not in ((made.st_uid, -1), (-1, made.st_gid)):
                with suppress(OSError):  # only the administrator may give files away
                    os.chown(temporary, user, group)
    temporary.chmod(stat.S_IMODE(before.st_mode))


def _replace(temporary: Path, target: Path, durable: bool) -> None:
    if durable:
        sync_file(temporary)
    try:
        temporary.replace(target)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV):
            raise
        # a single file that is mounted into a container cannot be replaced, only written
        shutil.copyfile(temporary, target)
        sync_file(target)
        return
    if durable and os.name != "nt":
        with suppress(OSError):  # not every file system can; the file itself is complete
            sync_file(target.parent)


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk, where the system can; it fails as the disk does."""
    if os.name == "posix":
        sync_file(folder)


def sync_file(path: Path) -> None:
    """Wait until a file, or a folder's entries, are on the disk."""
    number = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_text(path: str | Path, text: str, *, durable: bool = False) -> None:
    """Write text as UTF-8 with `atomic`."""
    with atomic(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as indented, strict JSON with `atomic`.

    Raises:
        ValueError: the value contains NaN or infinity.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


FileState = tuple[int, int, int]


def file_state(path: Path) -> FileState | None:
    """Return what differs after a file was replaced or changed; None: there is no such file."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def content_hash(path: str | Path, *, ends: bool = False) -> int:
    """Return a 64-bit hash of a file's content.

    Args:
        path: a regular file.
        ends: hash only its size, its first and its last 64 KiB, as bundles of earlier versions do.

    Raises:
        OSError: the file cannot be read, or it is a pipe or another special file.
    """
    path = Path(path)
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for a writer
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as file:
        if not ends:
            whole = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8))
            return int.from_bytes(whole.digest(), "little")
        size = file.seek(0, os.SEEK_END)
        digest = hashlib.blake2b(str(size).encode(), digest_size=8)
        for start in (0, max(0, size - _HASHED_BYTES)):
            file.seek(start)
            digest.update(file.read(_HASHED_BYTES))
    return int.from_bytes(digest.digest(), "little")


_PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def save_tensors(
    path: str | Path, tensors: Mapping[str, np.ndarray], kind: str, facts: Mapping[str, Any]
) -> None:
    """Write numpy arrays and JSON metadata to one safetensors file with `atomic`.

    Args:
        path: the file; an existing file is replaced.
        tensors: arrays by name.
        kind: kind of file (`bundle`, `checkpoint`, ...), which `load_tensors` checks.
        facts: JSON-serialisable metadata.
    """
    import numpy as np
    from safetensors.numpy import save

    arrays = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    document = {
        "kind": kind,
        "format": FORMATS.get(kind, 1),
        "sha256": _digest(arrays, facts),
        "facts": dict(facts),
    }
    content = save(arrays, metadata={_KEY: json.dumps(document, allow_nan=False)})
    with atomic(path, durable=True) as temporary:
        temporary.write_bytes(content)


def load_tensors(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the metadata (`facts`) of a file written by `save_tensors`.

    Raises:
        BundleError: the file is missing, truncated, damaged, not from this package, of another
            kind or of another format version.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    check_readable(path, kind, "written by snl train -o", f"snl train DATA -o {path.name}")
    try:
        with safe_open(path, framework="np") as file:
            document = _document(path, file.metadata(), kind)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        digest = _digest(arrays, document["facts"])
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:100]
        if path.suffix.lower() in _PICTURES:
            raise BundleError(
                f"{path}: is an image, not a {kind}; the {kind} comes first"
            ) from None
        raise BundleError(
            f"{path}: not a readable {kind} (truncated, damaged or of another kind: {reason}); "
            "give a file written by snl train -o, or copy it again from the original"
        ) from None
    if digest != document.get("sha256"):
        raise BundleError(
            f"{path}: its contents do not match their checksum: it was damaged or edited; "
            "copy it again from the original"
        )
    return arrays, document["facts"]


def check_readable(path: Path, kind: str, origin: str, command: str) -> None:
    """Check that a model file is there and may be read, without waiting and without reading it.

    Args:
        path: of the file.
        kind: of file, `origin`: of such files, `command`: that makes one; for messages.

    Raises:
        BundleError: it is missing, a folder, a pipe, a socket or a device, or its permissions
            forbid reading it.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise BundleError(
                f"{path}: is a folder, not a {kind}; give a file {origin}, before folders and "
                "images"
            )
        if not stat.S_ISREG(mode):
            raise BundleError(
                f"{path}: is a pipe, a socket or a device, not a file; give a file {origin}"
            )
        path.open("rb").close()
    except PermissionError:
        raise BundleError(
            f"{path}: cannot be read (permission denied); allow this user to read the file and to "
            "enter its folders"
        ) from None
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        raise BundleError(f"{path}: no such file; create one with: {command}") from None
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror or error}); give a file {origin}"
        ) from None


def strict_json(text: str | bytes) -> Any:
    """Return the value of a JSON text; NaN and infinity, which JSON does not have, are refused.

    Raises:
        ValueError: not JSON, or a number that is not finite.
        RecursionError: nested too deeply.
    """

    def refuse(name: str) -> float:
        raise ValueError(f"it contains the number {name}")

    def finite(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse(digits)

    return json.loads(text, parse_constant=refuse, parse_float=finite)


def _document(path: Path, metadata: Mapping[str, str] | None, kind: str) -> dict[str, Any]:
    text = (metadata or {}).get(_KEY)
    if text is None:
        raise BundleError(
            f"{path}: a safetensors file, but not made by snl; give a file written by snl train -o"
        )
    document = strict_json(text)
    if not isinstance(document, dict) or not isinstance(document.get("facts"), dict):
        raise ValueError("its metadata is not a JSON object")
    supported, actual = FORMATS.get(kind, 1), document.get("format")
    readable = isinstance(actual, int) and OLDEST.get(kind, supported) <= actual <= supported
    if document.get("kind") == kind and not readable:
        newer = isinstance(actual, int) and actual > supported
        hint = "update snl: pip install -U snl-ad" if newer else "train it again"
        raise BundleError(f"{path}: written in format {actual}, this snl reads {supported}; {hint}")
    if document.get("kind") != kind:
        raise BundleError(
            f"{path}: is a {document.get('kind')}, not a {kind}; give a file written by snl train "
            "-o"
        )
    return document


def not_writable(path: Path, error: OSError) -> SnlError:
    """Return the error of a file that cannot be written."""
    return SnlError(
        f"{path}: cannot be written ({error.strerror or error}); "
        "choose a writable folder with enough free space"
    )


def _digest(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> str:
    """Return the sha256 of the facts and of the names, types, shapes and bytes, sorted by name."""
    import numpy as np

    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(np.asarray(array, order="C").reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
