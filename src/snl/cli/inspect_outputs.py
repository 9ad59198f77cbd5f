"""The files that `snl inspect` writes next to its JSON lines: overlays, regions, drift state."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli.common import save_overlay, say
from snl.errors import DataError

if TYPE_CHECKING:
    from snl.decision.inspection import Inspection
    from snl.runtime.inspector import Inspector

    AddResult = Callable[[Inspection, dict[str, Any]], None]
    Watch = Callable[[Inspection], dict[str, Any]]

_SAVE_EVERY = 200
"""Images between two times that the drift monitor's state is saved."""


class OutputOptions(argparse.Namespace):
    """The bundle, and the files that are written."""

    file: str
    out: Path | None
    json: Path | None
    coco: Path | None
    labelme: Path | None
    monitor: Path | None


@contextmanager
def open_outputs(
    options: OutputOptions, inspector: Inspector, paths: Sequence[Path]
) -> Iterator[AddResult]:
    """Return, for the `with` block, a function that writes one inspection to all outputs.

    The function takes the inspection and its JSON record, and adds to the record what it wrote.
    At the end of the block the COCO file and the drift state are written.

    Raises:
        SnlError: an output cannot be written, or would replace an input.
    """
    from snl.files import check_output

    for path in filter(None, (options.json, options.coco, options.monitor)):
        check_output(path, [options.file, *paths])
    overlays = output_files(paths, options.out, options.file, ".png") if options.out else {}
    labels = output_files(paths, options.labelme, options.file, ".json") if options.labelme else {}
    with ExitStack() as stack:
        watch = open_monitor(options.monitor, inspector, stack)
        add_regions = _open_coco(options.coco, stack)

        def add(result: Inspection, record: dict[str, Any]) -> None:
            path = Path(str(result.path))
            if overlays:
                record["overlay"] = str(save_overlay(result.overlay(), overlays[path]))
            if labels:
                record["labelme"] = str(_save_labelme(result, labels[path]))
            if add_regions:
                add_regions(result)
            if watch:
                record["drift"] = watch(result)

        yield add


def open_monitor(state: Path | None, inspector: Inspector, stack: ExitStack) -> Watch | None:
    """Return a function that passes an inspection to the drift monitor and reports new alarms.

    It returns the drift of the inspection's product as JSON values. The monitor continues from
    the file `state` if it exists, and its state is saved there when `stack` closes.
    """
    if not state:
        return None
    from snl.monitoring import baseline

    if state.exists():
        monitor = baseline.resume(state, inspector.calibration)
    else:
        monitor = baseline.start(inspector.calibration)
    few = baseline.note(monitor, inspector.calibration)
    if few:
        say(f"note: {few}")
    stack.callback(lambda: monitor.save(state))
    reported = {product for product, drift in monitor.status().items() if drift.alarm}
    count = 0

    def watch(result: Inspection) -> dict[str, Any]:
        nonlocal count
        drift = baseline.watch(monitor, inspector.calibration, result, result.path)
        if drift.alarm and drift.product not in reported:
            reported.add(drift.product)
            say(
                f"drift: {drift.product}, since its image {drift.since} ({drift.since_when}): "
                f"{drift.reason}"
            )
        count += 1
        if count % _SAVE_EVERY == 0:
            monitor.save(state)
        return {"alarm": drift.alarm, "since": drift.since, "reason": drift.reason}

    return watch


def output_files(
    paths: Sequence[Path], folder: Path, bundle: str | Path, suffix: str
) -> dict[Path, Path]:
    """Return the file in `folder` for each image.

    The files have the image's path below the common folder of all images, with `suffix`. A number
    is appended where two images would get the same file.

    Raises:
        DataError: a file would replace one of the images or the bundle.
    """
    resolved = {path: path.resolve() for path in paths}
    anchors = {path.anchor for path in resolved.values()}
    common = (
        os.path.commonpath([p.parent for p in resolved.values()]) if len(anchors) == 1 else None
    )
    files: dict[Path, Path] = {}
    taken: set[str] = set()
    for path, full in resolved.items():
        place = full.relative_to(common) if common else Path(full.name)
        name, number = place.with_suffix(suffix), 1
        while str(name).lower() in taken:  # some file systems ignore case
            number += 1
            name = place.with_name(f"{place.stem}-{number}{suffix}")
        taken.add(str(name).lower())
        files[path] = folder / name
    inputs = {*resolved.values(), Path(bundle).resolve()}
    if {file.resolve() for file in files.values()} & inputs:
        raise DataError(f"{folder}: files there would be overwritten; choose another folder")
    return files


def _open_coco(path: Path | None, stack: ExitStack) -> Callable[[Inspection], None] | None:
    """Return a function that adds an inspection's regions to the COCO file."""
    if not path:
        return None
    from snl.reporting.annotations import coco_file

    return stack.enter_context(coco_file(path))


def _save_labelme(result: Inspection, file: Path) -> Path:
    """Write the regions as a LabelMe file and return its path."""
    from snl.files import write_json
    from snl.reporting.annotations import to_labelme

    image = Path(os.path.relpath(str(result.path), file.parent)).as_posix()
    write_json(file, to_labelme(result, image))
    return file
