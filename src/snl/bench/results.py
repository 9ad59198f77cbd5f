"""The files of a benchmark's output folder, all made with the same settings and images."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snl.errors import SettingsError, SnlError
from snl.files import write_json
from snl.kinds import BENCHMARK
from snl.outputs import Output, check_outputs
from snl.training.checkpoint import differences

_WRITTEN = ("summary.json", "summary.md", "task.json", "seed-*")


@dataclass(frozen=True)
class Results:
    """Results by seed.

    Attributes:
        folder: output folder.
        benchmark: key of the benchmark.
        identity: what all results must agree in: `data` and `settings`, JSON values.
    """

    folder: Path
    benchmark: str
    identity: dict[str, Any]

    def open(self, replaced: Iterable[int] = (), *, overwrite: bool = False) -> None:
        """Check that the folder can be used for these results, and write what they are.

        Args:
            replaced: seeds whose results are removed if `overwrite`.
            overwrite: replace a folder of other settings or images.

        Raises:
            SnlError: the folder cannot be written.
            SettingsError: it has results of other settings or images, or other files.
        """
        description = self.folder / "bench.json"
        check_outputs([Output("--out", description, BENCHMARK)])
        if not description.exists():
            self._check_empty()
        if overwrite:
            for seed in replaced:
                self.path(seed).unlink(missing_ok=True)
        else:
            self._read(description)
        write_json(description, {"benchmark": self.benchmark, **self.identity})

    def _check_empty(self) -> None:
        """Check that a folder without a description has no file that this benchmark writes.

        Raises:
            SettingsError: it has one, which is not of this benchmark.
        """
        for pattern in _WRITTEN:
            for file in self.folder.glob(pattern):
                raise SettingsError(
                    f"{file}: exists, and {self.folder} is no folder of snl bench; choose another "
                    "--out"
                )

    def path(self, seed: int, suffix: str = ".json") -> Path:
        """Return the path of a seed's result, or with another suffix of its model."""
        return self.folder / f"seed-{seed}{suffix}"

    def get(self, seed: int) -> dict[str, Any] | None:
        """Return the result of a seed; None: it is not finished.

        Raises:
            SnlError: the file is damaged, or of other settings or images.
        """
        return self._read(self.path(seed))

    def require(self, seed: int) -> dict[str, Any]:
        """Return the result of a finished seed.

        Raises:
            SnlError: the file is missing, damaged, or of other settings or images.
        """
        result = self.get(seed)
        if result is None:
            raise SnlError(f"{self.path(seed)}: is missing; the same command writes it again")
        return result

    def write(self, seed: int, result: dict[str, Any]) -> None:
        """Write the result of a seed."""
        head = {"benchmark": self.benchmark, "seed": seed}
        write_json(self.path(seed), {**head, **self.identity, **result})

    def _read(self, file: Path) -> dict[str, Any] | None:
        if not file.is_file():
            return None
        expected = {"benchmark": self.benchmark, **self.identity}
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            existing = {key: content[key] for key in expected}
        except (OSError, ValueError, KeyError, TypeError):
            raise SnlError(f"{file}: is damaged or not of snl bench; remove it") from None
        changed = differences(existing, expected)
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise SettingsError(
                f"{file}: was made with another {', '.join(changed[:3])}{more}; choose another "
                "--out, or replace the results with --overwrite"
            )
        return dict(content)
