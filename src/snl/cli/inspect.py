"""`snl inspect`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli.common import BAD_INPUT, OK, STOPPED, progress_bar, save_overlay, say
from snl.errors import DataError, ImageError, SettingsError

if TYPE_CHECKING:
    from snl.decision.calibration import Rates
    from snl.decision.inspection import Inspection
    from snl.runtime.inspector import Inspector

_SAVE_EVERY = 200
"""Images between two savings of the drift monitor's state."""


def inspect(options: argparse.Namespace) -> int:
    """`snl inspect`."""
    import snl
    from snl.data.video import is_video
    from snl.files import check_output, write_text

    inspector = snl.load(options.file, options.device, options.threads, options.precision)
    if options.tile is not None:
        if options.monitor and options.tile != inspector.tile:
            raise SettingsError(
                "--monitor compares with the calibration, which --tile departs from; leave out one "
                f"of them, or first: snl calibrate FILE NORMALS --tile {options.tile}"
            )
        _look_in_tiles(inspector, options.tile)
    rates = inspector.rates_for(  # a bad product or rate, before any work
        options.product, options.rate, options.uncertain_rate, options.unknown_rate
    )
    if any(map(is_video, options.paths)):
        return _inspect_video(options, inspector, rates)
    paths = image_files([Path(path) for path in options.paths])
    outputs = [options.json, options.coco, options.monitor]
    for path in filter(None, outputs):
        check_output(path, [options.file, *paths])
    overlays = output_files(paths, options.out, options.file, ".png") if options.out else {}
    labels = output_files(paths, options.labelme, options.file, ".json") if options.labelme else {}
    progress = progress_bar("inspecting", options.quiet or not options.json)
    lines: list[str] = []
    bad, status = 0, OK

    def refuse(error: ImageError) -> None:
        nonlocal bad
        bad += 1
        say(f"error: {error}")

    with ExitStack() as stack:
        watch = _monitor(options, inspector, stack)
        add = _coco(options, stack)
        try:
            for result in inspector.stream(
                paths, options.product, rates, options.batch_size, on_error=refuse
            ):
                path = Path(str(result.path))
                record = result.to_dict()
                if options.out:
                    record["overlay"] = str(save_overlay(result.overlay(), overlays[path]))
                if options.labelme:
                    record["labelme"] = str(_labelme(result, labels[path]))
                if add:
                    add(result)
                if watch:
                    record["drift"] = watch(result)
                lines.append(json.dumps(record, allow_nan=False))
                if not options.json:
                    print(lines[-1], flush=True)
                elif progress:
                    progress(len(lines) + bad, len(paths))
        except KeyboardInterrupt:  # what was looked at is not lost
            say(f"stopped after {len(lines) + bad} of {len(paths)} images")
            status = STOPPED
    if options.json:
        write_text(options.json, "".join(line + "\n" for line in lines))
        say(f"{len(lines)} inspections: {options.json}")
    for what, place in (("overlays", options.out), ("LabelMe files", options.labelme)):
        if place:
            say(f"{len(lines)} {what}: {place}")
    if options.coco:
        say(f"regions: {options.coco}")
    _advise(inspector, options.product, rates)
    if bad:
        say(f"{bad} of {len(paths)} images could not be inspected")
    return status or (BAD_INPUT if bad else OK)


def _inspect_video(options: argparse.Namespace, inspector: Inspector, rates: Rates | None) -> int:
    """A JSON line a frame, to stdout or, as it comes, to --json."""
    from snl.data.video import frames
    from snl.files import check_output

    source = options.paths[0]
    if len(options.paths) > 1 or options.coco or options.labelme:
        raise DataError(f"{source}: of a video give one alone, without --coco and --labelme")
    for path in filter(None, (options.json, options.monitor)):
        check_output(path, [options.file, source])
    count = dropped = 0
    with ExitStack() as stack:
        watch = _monitor(options, inspector, stack)
        lines = (
            stack.enter_context(options.json.open("w", encoding="utf-8")) if options.json else None
        )
        try:
            for frame in frames(source):
                result = next(inspector.stream([frame.image], options.product, rates))
                dropped += frame.number - (count + dropped)
                count += 1
                record = result.to_dict() | {"path": source, "frame": frame.number}
                record |= {"seconds": round(frame.seconds, 3), "dropped": dropped}
                if options.out:
                    place = options.out / f"{Path(source).stem or 'video'}-{frame.number:06}.png"
                    record["overlay"] = str(save_overlay(result.overlay(), place))
                if watch:
                    record["drift"] = watch(result)
                print(json.dumps(record, allow_nan=False), file=lines, flush=True)
        except KeyboardInterrupt:
            say(f"stopped after {count} frames, {dropped} dropped")
            return STOPPED
    say(f"{count} frames inspected, {dropped} dropped")
    return OK


def image_files(paths: Sequence[Path]) -> list[Path]:
    """Files as given, each once; of folders all images below, without hidden files and masks."""
    from snl.data.layouts import images_in

    found: dict[Path, Path] = {}
    for path in paths:
        inside = images_in(path) if path.is_dir() else [path]  # a missing file is told later
        if not inside:
            raise DataError(f"{path}: no images in this folder; give images or another folder")
        for file in inside:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def output_files(
    paths: Sequence[Path], folder: Path, bundle: Path, suffix: str
) -> dict[Path, Path]:
    """Where each image's file goes: the images' paths below what they have in common, with the
    suffix; a number is added where two would be the same file.

    Raises:
        DataError: one would take the place of an image or of the bundle.
    """
    whole = {path: path.resolve() for path in paths}
    anchors = {path.anchor for path in whole.values()}
    common = os.path.commonpath([p.parent for p in whole.values()]) if len(anchors) == 1 else None
    files: dict[Path, Path] = {}
    taken: set[str] = set()
    for path, full in whole.items():
        place = full.relative_to(common) if common else Path(full.name)
        name, number = place.with_suffix(suffix), 1
        while str(name).lower() in taken:
            number += 1
            name = place.with_name(f"{place.stem}-{number}{suffix}")
        taken.add(str(name).lower())
        files[path] = folder / name
    if {file.resolve() for file in files.values()} & {*whole.values(), Path(bundle).resolve()}:
        raise DataError(f"{folder}: files there would be overwritten; choose another folder")
    return files


def _look_in_tiles(inspector: Inspector, tile: int) -> None:
    """For this run alone."""
    if tile == inspector.tile:
        return
    inspector.settings.replace({"tile": tile})  # refuses what is too small or too large
    inspector.recalibrate(dataclasses.replace(inspector.calibration, tile=tile))
    say(
        f"note: thresholds were made with {_pieces(inspector.calibrations[-2].tile)}; with "
        f"{_pieces(tile)} they hold after snl calibrate FILE NORMALS --tile {tile}"
    )


def _pieces(tile: int) -> str:
    return f"tiles of {tile} pixels" if tile else "whole images"


def _monitor(
    options: argparse.Namespace, inspector: Inspector, stack: ExitStack
) -> Callable[[Inspection], dict[str, Any]] | None:
    """Tells the drift monitor of an inspection and a person of an alarm; saves its state."""
    if not options.monitor:
        return None
    from snl.monitoring import baseline as monitoring

    if options.monitor.exists():
        monitor = monitoring.resume(options.monitor, inspector.calibration)
    else:
        monitor = monitoring.start(inspector.calibration)
    stack.callback(lambda: monitor.save(options.monitor))
    told = {product for product, drift in monitor.status().items() if drift.alarm}
    count = 0

    def watch(result: Inspection) -> dict[str, Any]:
        nonlocal count
        drift = monitoring.watch(monitor, inspector.calibration, result, result.path)
        if drift.alarm and drift.product not in told:
            told.add(drift.product)
            say(
                f"drift: {drift.product}, since its image {drift.since} ({drift.since_when}): "
                f"{drift.reason}"
            )
        count += 1
        if count % _SAVE_EVERY == 0:
            monitor.save(options.monitor)
        return {"alarm": drift.alarm, "since": drift.since, "reason": drift.reason}

    return watch


def _coco(options: argparse.Namespace, stack: ExitStack) -> Callable[[Inspection], None] | None:
    if not options.coco:
        return None
    from snl.report.annotations import coco_file

    return stack.enter_context(coco_file(options.coco))


def _labelme(result: Inspection, file: Path) -> Path:
    from snl.files import write_json
    from snl.report.annotations import to_labelme

    image = Path(os.path.relpath(str(result.path), file.parent)).as_posix()
    write_json(file, to_labelme(result, image))
    return file


def _advise(inspector: Inspector, product: str | None, rates: Rates | None) -> None:
    """What a user should know of the thresholds."""
    rate = rates.anomalous if rates else None
    if inspector.threshold(product, rate) is None:
        held = sum(map(len, inspector.calibration.normals.values()))
        say(
            f"note: with {held} held-back normal images no decision at a false-alarm rate of "
            f"{inspector.rates.anomalous:g} can be promised, so it is 'uncertain'; add normal "
            "images by snl calibrate FILE NORMALS --add"
        )
