"""What `snl inspect` does with each result: overlays, regions, the drift state.

A sink takes one result after another and adds to its JSON record what it wrote. What it was given
is on the disk when the process is killed, or at most some seconds older. Lines of JSON and tables
are in `snl.cli.inspect_lines`.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from snl.cli.common import overlay_png, say, write_bytes

if TYPE_CHECKING:
    from concurrent.futures import Future

    from snl.decision.inspection import Inspection
    from snl.monitoring.drift import DriftMonitor
    from snl.runtime.inspector import Inspector

    Record = dict[str, Any]
    Place = Callable[[Record], Path]

SAVE_AFTER = 10.0
"""Seconds after which what is collected in memory is saved, if that takes little of the time."""
_SAVE_SHARE = 50
"""Saving takes at most one part in this many of the time."""
_MANY = 20
"""A product with at least this many images in a run is reported if most of them are rejected."""


class Sink(Protocol):
    """Something that results are written to.

    `add` and `close` raise `SnlError` or `OSError` if it cannot be written. After an error of `add`
    the next result is tried again, unless `broken`.
    """

    option: str
    """For messages: `--coco`."""
    broken: bool
    """Whether nothing can be written any more."""

    def add(self, result: Inspection, record: Record) -> None:
        """Write a result; `record` is its JSON record, to which the sink may add."""

    def close(self, complete: bool) -> None:
        """Write what is left; `complete`: the run was not stopped and raised no error."""

    def summary(self) -> str | None:
        """Return what was written where, for the user."""


class Overlays:
    """One PNG file for each result, drawn beside the network's work where `begin` is called."""

    option, broken = "--out", False

    def __init__(self, folder: Path, place: Place, outline_normal: bool) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._folder, self._place, self._outline_normal = folder, place, outline_normal
        self._pool = ThreadPoolExecutor(1, "overlays")
        self._begun: dict[int, Future[bytes]] = {}
        self._count = 0

    def begin(self, result: Inspection) -> Future[bytes]:
        """Draw the overlay of a result in a thread; `add` writes it."""
        future = self._begun[id(result)] = self._pool.submit(self._drawn, result)
        return future

    def add(self, result: Inspection, record: Record) -> None:
        """Write the overlay."""
        begun = self._begun.pop(id(result), None)
        content = self._drawn(result) if begun is None else begun.result()
        record["overlay"] = str(write_bytes(self._place(record), content))
        self._count += 1

    def close(self, complete: bool) -> None:
        """End the thread: every file is complete."""
        self._pool.shutdown(cancel_futures=True)

    def _drawn(self, result: Inspection) -> bytes:
        return overlay_png(result.overlay(self._outline_normal))

    def summary(self) -> str | None:
        """Return the number of files."""
        return f"{self._count} overlay{'' if self._count == 1 else 's'}: {self._folder}"


class LabelMe:
    """One LabelMe file for each result."""

    option, broken = "--labelme", False

    def __init__(self, folder: Path, place: Place) -> None:
        self._folder, self._place = folder, place
        self._count = 0

    def add(self, result: Inspection, record: Record) -> None:
        """Write the regions."""
        from snl.files import write_json
        from snl.reporting.annotations import to_labelme

        file = self._place(record)
        image = Path(os.path.relpath(str(result.path), file.parent)).as_posix()
        write_json(file, to_labelme(result, image))
        record["labelme"] = str(file)
        self._count += 1

    def close(self, complete: bool) -> None:
        """Do nothing: every file is complete."""

    def summary(self) -> str | None:
        """Return the number of files."""
        return f"{self._count} LabelMe files: {self._folder}"


class _Saver:
    """Saves now and then: soon after the first result, and seldom if saving takes long."""

    def __init__(self, save: Callable[[], None]) -> None:
        self._save = save
        self._next = time.monotonic() + SAVE_AFTER

    def tick(self) -> None:
        """Save if it is time."""
        started = time.monotonic()
        if started < self._next:
            return
        self._next = started + SAVE_AFTER  # also if it fails
        self._save()
        now = time.monotonic()
        self._next = now + max(SAVE_AFTER, _SAVE_SHARE * (now - started))


class Coco:
    """One COCO file for all results."""

    option, broken = "--coco", False

    def __init__(self, path: Path) -> None:
        from snl.reporting.annotations import CocoFile

        self._path, self._file = path, CocoFile(path)
        self._saver = _Saver(self._file.save)

    def add(self, result: Inspection, record: Record) -> None:
        """Add the regions."""
        self._file.add(result)
        self._saver.tick()

    def close(self, complete: bool) -> None:
        """Write the file; without results an existing one is left as it is."""
        try:
            if len(self._file) or (complete and not self._path.exists()):
                self._file.save()
        finally:
            self._file.close()

    def summary(self) -> str | None:
        """Return the path."""
        return f"regions: {self._path}"


class Monitor:
    """The state of the drift monitor."""

    option, broken = "--monitor", False

    def __init__(self, path: Path, inspector: Inspector, monitor: DriftMonitor) -> None:
        self._path, self._monitor = path, monitor
        self._calibration = inspector.calibration
        self._reported = {product for product, d in monitor.status().items() if d.alarm}
        self._images: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._saver = _Saver(self._save)

    def add(self, result: Inspection, record: Record) -> None:
        """Update the monitor, and report a new alarm."""
        from snl.monitoring import baseline

        self._images[result.product] += 1
        self._rejected[result.product] += result.decision in ("anomalous", "unknown product")
        drift = baseline.watch(self._monitor, self._calibration, result, result.path)
        record["drift"] = {"alarm": drift.alarm, "since": drift.since, "reason": drift.reason}
        if drift.alarm and drift.product not in self._reported:
            self._reported.add(drift.product)
            say(
                f"drift: {drift.product}, since its image {drift.since} ({drift.since_when}): "
                f"{drift.reason}"
            )
        self._saver.tick()

    def close(self, complete: bool) -> None:
        """Write the state."""
        self._save()

    def summary(self) -> str | None:
        """Return the alarms that stand, in every run until somebody acknowledges them.

        It also reports products without an alarm whose images were mostly rejected in this run.
        """
        standing = [name for name, drift in self._monitor.status().items() if drift.alarm]
        for name, count in self._images.items():
            if name not in standing and count >= _MANY and 2 * self._rejected[name] > count:
                say(
                    f"drift: no alarm, but {self._rejected[name]} of {count} images of {name} were "
                    "rejected in this run: compare camera, light and product with those of the "
                    "calibration"
                )
        if not standing:
            return None
        return (
            f"drift alarm of {', '.join(standing)}: snl drift {self._path} shows since when and "
            f"why; --acknowledge with it ends an alarm whose cause is known"
        )

    def _save(self) -> None:
        self._monitor.save(self._path)
