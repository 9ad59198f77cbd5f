"""What a benchmark measures, and how it is carried out; worker processes read it from a file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snl.errors import SettingsError
from snl.limits import MAX_PIXELS
from snl.settings import DEFAULT_METHOD
from snl.training.cache import CacheBudget


@dataclass(frozen=True)
class Task:
    """A benchmark of one method over several seeds.

    Attributes:
        benchmark: key of `snl.bench.published.BENCHMARKS`.
        root: folder of the data set.
        output: folder of the results.
        method, preset, overrides: settings, see `snl.settings.resolve`; without the seed.
        classes: names of classes; empty: all of the benchmark; `found`: those in `root`.
        seeds: their number; they are 0, 1, ...
        device: see `snl.model.device.choose`, or several separated by commas; `auto`: all GPUs.
        cache: of every seed that runs.
        checkpoint_every: seconds between checkpoints.
        max_pixels: largest allowed height times width of an image.
        overwrite: replace existing results instead of keeping them.
        quiet: show no progress.
        note: called with a sentence about everything noteworthy.
    """

    benchmark: str
    root: Path
    output: Path
    method: str = DEFAULT_METHOD
    preset: str = "paper"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    seeds: int = 3
    device: str = "auto"
    cache: CacheBudget = field(default_factory=CacheBudget)
    checkpoint_every: float = 60.0
    max_pixels: int = MAX_PIXELS
    overwrite: bool = False
    quiet: bool = False
    note: Callable[[str], None] = field(default=lambda text: None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, without `note`."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del values["note"]
        return values | {
            "root": str(self.root),
            "output": str(self.output),
            "overrides": dict(self.overrides),
            "classes": list(self.classes),
            "cache": dataclasses.asdict(self.cache),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Task:
        """Inverse of `to_json`.

        >>> task = Task("mvtec", Path("mvtec"), Path("out"), overrides={"teacher.stages": (1, 2)})
        >>> Task.from_json(json.loads(json.dumps(task.to_json()))) == task
        True
        """
        overrides = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values["overrides"].items()
        }
        converted = {
            "root": Path(values["root"]),
            "output": Path(values["output"]),
            "overrides": overrides,
            "classes": tuple(values["classes"]),
            "cache": CacheBudget(**values["cache"]),
        }
        return cls(**{**values, **converted})


def read_task(path: Path) -> Task:
    """Return the task of a file with the JSON values of `Task.to_json`.

    Raises:
        SettingsError: the file is missing or damaged.
    """
    try:
        return Task.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise SettingsError(
            f"{path}: is not a readable task of snl bench ({error}); repeat the command that "
            "wrote it"
        ) from None
