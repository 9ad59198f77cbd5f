"""The folder of one attempt: copies of the shared model files and data, and commands run in it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from tests.hostile.attempt import Command, Result
from tests.trees import save_part


class Site:
    """A folder with helpers to fill it.

    Args:
        root: the folder, which exists and is empty.
        kit: folder of the shared files, see `tests.hostile.kit`.
    """

    def __init__(self, root: Path, kit: Path) -> None:
        self.root = root
        self.kit = kit

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def bundle(self, name: str = "parts.snl", source: str = "parts.snl") -> Path:
        """Copy a trained bundle and return its path."""
        return Path(shutil.copy(self.kit / source, self.root / name))

    def export(self, kind: str, name: str = "parts") -> Path:
        """Copy an export (`onnx` or `xml` with its `.bin`) and return the path of its graph."""
        if kind == "xml":
            shutil.copy(self.kit / "parts.bin", self.root / f"{name}.bin")
        return Path(shutil.copy(self.kit / f"parts.{kind}", self.root / f"{name}.{kind}"))

    def data(self, name: str = "data", source: str = "parts") -> Path:
        """Copy a data set (two products in the layout of MVTec AD) and return its folder."""
        return Path(shutil.copytree(self.kit / source, self.root / name))

    def image(
        self,
        name: str = "part.png",
        seed: int = 900,
        *,
        defect: bool = False,
        product: str = "bolt",
    ) -> Path:
        """Write the image of a part and return its path."""
        path = self.root / name
        save_part(path, seed, defect=defect, product=product)
        return path

    def images(self, folder: str, count: int, first: int = 900) -> Path:
        """Write several images of parts into a folder and return it."""
        for number in range(count):
            self.image(f"{folder}/{number:03}.png", first + number)
        return self.root / folder

    def snl(self, *arguments: Any, timeout: float = 120.0, **options: Any) -> Result:
        """Run a command in this folder and return its result."""
        from tests.hostile.runner import run

        return run(Command([os.fspath(a) for a in arguments], **options), self.root, timeout)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return the JSON lines of a file; bad lines raise ValueError."""
        text = (self.root / name).read_text(encoding="utf-8")
        return [strict_json(line) for line in text.splitlines()]


def strict_json(text: str) -> Any:
    """Return the value of JSON text; NaN and infinities raise ValueError."""

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)
