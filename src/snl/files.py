"""Files that are whole or not there: atomic writes, and safetensors with a JSON description.

No pickle is read or written. A tensor file carries, in the safetensors header, one JSON document
with its kind, format version and a sha256 over tensors and facts, so damage of any byte is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from snl.errors import BundleError, SnlError

FORMATS = {"bundle": 3}
"""Version of the contents by kind of file; 1 for all others."""
OLDEST = {"bundle": 2}
"""Oldest version that can still be read."""
_KEY = "snl"
_SAMPLED = 2**16


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary sibling to write to, renamed to `path` when the block ends without an error.

    Raises:
        SnlError: the folder cannot be made or written.
    """
    path = Path(path)
    if not path.name:
        raise SnlError(f"{path}: cannot be written (a folder); give the name of a file in it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except BrokenPipeError:  # of another output of whoever writes this file
        raise
    except OSError as error:
        raise SnlError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "choose a place that exists, has room and may be written"
        ) from None
    finally:
        with suppress(OSError):  # gone already, or its folder was never there
            temporary.unlink()


def check_output(path: str | Path, inputs: Iterable[str | Path] = ()) -> None:
    """Says before the work, not after it, that a file could not or must not be written.

    Raises:
        SnlError: a folder, a place that cannot be written, or one of the `inputs`.
    """
    path = Path(path)
    if not path.name or path.is_dir():
        raise SnlError(f"{path}: is a folder; give the name of a file in it")
    if path.resolve() in {Path(source).resolve() for source in inputs}:
        raise SnlError(f"{path}: would overwrite what is read; choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise SnlError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "choose a place that exists, has room and may be written"
        ) from None


def write_text(path: str | Path, text: str) -> None:
    """Text as UTF-8, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: Any) -> None:
    """Strict JSON (no NaN), indented, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def content_hash(path: str | Path) -> int:
    """64 bits that tell a file's content: of its size, its first and its last 64 KiB.

    Raises:
        OSError: it cannot be read.
    """
    with Path(path).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest = hashlib.blake2b(str(size).encode(), digest_size=8)
        for start in (0, max(0, size - _SAMPLED)):
            file.seek(start)
            digest.update(file.read(_SAMPLED))
    return int.from_bytes(digest.digest(), "little")


def save_tensors(
    path: str | Path, tensors: Mapping[str, np.ndarray], kind: str, facts: Mapping[str, Any]
) -> None:
    """One safetensors file of numpy arrays with `facts` (JSON values) beside them.

    Args:
        path: of the file; replaced whole.
        tensors: by name.
        kind: what the file is (`bundle`, `checkpoint`); `load_tensors` asks for it.
        facts: JSON-serialisable description.
    """
    from safetensors.numpy import save

    arrays = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    document = {
        "kind": kind,
        "format": FORMATS.get(kind, 1),
        "sha256": _digest(arrays, facts),
        "facts": dict(facts),
    }
    content = save(arrays, metadata={_KEY: json.dumps(document, allow_nan=False)})
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # on the disk before the rename, should the power fail


def load_tensors(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and facts of a file that `save_tensors` wrote.

    Raises:
        BundleError: missing, truncated, damaged, foreign, of another kind or a newer format.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if path.is_dir():
        raise BundleError(f"{path}: is a folder, not a {kind}; give the file of snl train -o first")
    if not path.is_file():
        raise BundleError(f"{path}: no such file; snl train DATA -o {path.name} makes one")
    try:
        with safe_open(path, framework="np") as file:
            document = _document(path, file.metadata(), kind)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0][:100]
        raise BundleError(
            f"{path}: not a readable {kind} (truncated, damaged or of another kind: {reason}); "
            "give the file of snl train -o, or copy it again from where it was made"
        ) from None
    if _digest(arrays, document["facts"]) != document.get("sha256"):
        raise BundleError(
            f"{path}: its contents do not match their checksum, so it was damaged or edited; "
            "copy it again from where it was made"
        )
    return arrays, document["facts"]


def _document(path: Path, metadata: Mapping[str, str] | None, kind: str) -> dict[str, Any]:
    text = (metadata or {}).get(_KEY)
    if text is None:
        raise BundleError(
            f"{path}: a safetensors file, but not made by snl; give the file of snl train -o"
        )
    document = json.loads(text)
    if not isinstance(document, dict) or not isinstance(document.get("facts"), dict):
        raise ValueError("its description is not a JSON object")
    known, found = FORMATS.get(kind, 1), document.get("format")
    readable = isinstance(found, int) and OLDEST.get(kind, known) <= found <= known
    if document.get("kind") == kind and not readable:
        newer = isinstance(found, int) and found > known
        hint = "update snl: pip install -U snl-ad" if newer else "train it again"
        raise BundleError(f"{path}: written in format {found}, this snl reads {known}; {hint}")
    if document.get("kind") != kind:
        raise BundleError(
            f"{path}: is a {document.get('kind')}, not a {kind}; give the file of snl train -o"
        )
    return document


def _digest(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> str:
    """sha256 over the facts, then names, types, shapes and bytes in the order of the names."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(np.asarray(array, order="C").reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
