"""Bundles with a valid checksum and absurd values: what an edited or foreign file may hold."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VALUES: tuple[Any, ...] = (
    *(-1, 0, 1, 2**70, -(2**70), 1e308, -1e-308, 0.5, True, None, "", "x", "1", [], {}, [[]]),
    *("\x1b[31mred", "a\nb", "x" * 100_000, ["x"], {"a": {}}, [1e308, -1e308], "../../etc"),
)
"""Replacements for JSON values."""


def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return arrays and facts of a bundle."""
    from snl.files import load_tensors

    return load_tensors(path, "bundle")


def write(path: Path, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> None:
    """Write a bundle with a valid checksum."""
    from snl.files import save_tensors

    save_tensors(path, arrays, "bundle", facts)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a JSON document, containers included."""
    if path:
        yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield from leaves(item, (*path, key))


def replaced(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return a copy of a document with another value at a path."""
    changed = copy.deepcopy(document)
    place: Any = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


def without(document: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    """Return a copy of a document without the value at a path."""
    changed = copy.deepcopy(document)
    place: Any = changed
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return changed


def distorted(array: NDArray[Any], how: str) -> NDArray[Any]:
    """Return an absurd version of an array: `nan`, `inf`, `huge`, `zero`, `empty`, ..."""
    whole = array.dtype.kind in "iub"
    if how in ("nan", "inf", "-inf"):
        changed = array.astype(np.float32) if whole else array.copy()
        changed.reshape(-1)[: max(1, changed.size // 2)] = float(how)
        return changed
    if how == "huge":
        return np.full_like(array, np.iinfo(array.dtype).max if whole else 1e38)
    if how == "empty":
        return np.empty((0, *array.shape[1:]), array.dtype)
    if how == "long":
        return np.concatenate([np.atleast_1d(array)] * 2)
    if how == "deep":
        return array[None]
    if how == "text":
        return np.frombuffer(b"x" * 8, np.uint8)
    changed = np.zeros_like(array) if how == "zero" else -array.astype(np.float32)
    return changed


DISTORTIONS = ("nan", "inf", "-inf", "huge", "zero", "negative", "empty", "long", "deep", "text")
"""What `distorted` knows."""
