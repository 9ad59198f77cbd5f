"""Exported files for tests: copies that may be changed, their graphs and their metadata."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

Capture = pytest.CaptureFixture[str]


def copied(exported: dict[str, Path], kind: str, folder: Path) -> Path:
    """Return a copy of an exported file that a test may change."""
    folder.mkdir(exist_ok=True)
    for suffix in (".onnx",) if kind == "onnx" else (".xml", ".bin"):
        shutil.copy(exported[kind].with_suffix(suffix), folder)
    return folder / exported[kind].name


def graph_of(path: Path) -> bytes:
    """Return the bytes of everything that computes, without metadata."""
    import onnx

    if path.suffix == ".xml":
        return path.with_suffix(".bin").read_bytes()
    model = onnx.load(path)
    del model.metadata_props[:]
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def metadata_of(path: Path) -> dict[str, str]:
    """Return the metadata of an ONNX file as the package onnx reads it."""
    import onnx

    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def set_metadata(path: Path, values: dict[str, str]) -> None:
    """Replace the metadata of an ONNX file as the package onnx writes it."""
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, values)
    onnx.save(model, path)


def error_line(capsys: Capture) -> str:
    """Return the one line that a user sees of an error."""
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("snl: error: ")
    return lines[0]
