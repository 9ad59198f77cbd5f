"""`snl inspect`: inspect new images or a video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli import inspect_bulk
from snl.cli import options as shared
from snl.cli.common import BAD_INPUT, OK, image_files, progress_bar, say
from snl.cli.inspect_outputs import OutputOptions, open_outputs
from snl.cli.inspect_parts import PartRun
from snl.cli.inspect_summary import Summary, for_people
from snl.cli.remarks import Remarks
from snl.errors import DataError, ImageError, SettingsError

if TYPE_CHECKING:
    from snl.decision.calibration import Rates
    from snl.decision.inspection import Inspection
    from snl.runtime.inspector import Inspector

SUMMARY = "inspect new images: a summary, one JSON line each, overlays if requested"


_SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")


class Options(
    OutputOptions,
    shared.PartOption,
    shared.RateOptions,
    shared.PixelsOption,
    shared.PrecisionOption,
    shared.DeviceOption,
    shared.QuietOption,
):
    """Options of `snl inspect`."""

    paths: list[str]
    output: str | None
    ray: str | None
    workers: int
    maps: bool
    image_column: str
    id_column: str
    product: str | None
    tile: int | None
    batch_size: int
    threads: int


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "inspect",
        SUMMARY,
        "snl inspect parts.snl new.jpg",
        "snl inspect parts.snl incoming/ --out overlays/ --json results.jsonl",
        "snl inspect parts.snl incoming/ --csv results.csv --move-rejects rejects/",
        "snl inspect parts.snl bottle.png --product bottle --rate 6%",
        "snl inspect parts.snl incoming/ --monitor drift.json --json today.jsonl",
        "snl inspect parts.onnx camera:0 --batch-size 1",
        "snl inspect parts.snl s3://plant/line1/ -o s3://plant/results --ray auto",
        r"snl inspect parts.snl incoming/ --part-pattern '(\d+)_view' --parts parts.jsonl",
    )
    verb.add_argument("file", metavar="FILE", help="bundle or export")
    verb.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="images or folders; or one video file, rtsp:// address or camera:0. Live sources drop "
        "frames instead of queueing them",
    )
    verb.add_argument("--out", type=Path, metavar="DIR", help="write overlays as PNG")
    verb.add_argument(
        "--json",
        type=Path,
        metavar="OUT",
        help="write one JSON line for each image to a file, or to standard output (-). Without it "
        "and --csv they are printed unless standard output is a terminal, which gets a summary",
    )
    verb.add_argument(
        "--csv", type=Path, metavar="OUT", help="write one row for each image to a table"
    )
    rejects = verb.add_mutually_exclusive_group()
    rejects.add_argument(
        "--copy-rejects",
        type=Path,
        metavar="DIR",
        help="copy each image that is not normal to DIR/anomalous, DIR/uncertain or "
        "DIR/unknown-product; no file is replaced",
    )
    rejects.add_argument(
        "--move-rejects", type=Path, metavar="DIR", help="the same, but move the images"
    )
    verb.add_argument(
        "--outline-normal",
        action="store_true",
        help="outline regions in overlays of normal images, too; JSON, COCO and LabelMe "
        "always have them",
    )
    verb.add_argument("--coco", type=Path, metavar="OUT", help="write the regions as COCO JSON")
    verb.add_argument(
        "--labelme", type=Path, metavar="DIR", help="write the regions as LabelMe JSON files"
    )
    verb.add_argument(
        "--product",
        metavar="NAME",
        help="product that the images show; without it the product is recognised, and images of "
        "other objects are reported as unknown product",
    )
    shared.add_part_pattern(verb, "PATH, or the folder that contains all PATHs")
    verb.add_argument(
        "--parts",
        type=Path,
        metavar="OUT",
        help="with --part-pattern: write one JSON line for each part as soon as all its images are "
        "inspected",
    )
    shared.add_rates(verb)
    verb.add_argument(
        "--tile",
        type=shared.tile,
        metavar="N",
        help="inspect images in tiles of N pixels, 0: whole images (default: as calibrated)",
    )
    verb.add_argument(
        "--monitor",
        type=Path,
        metavar="STATE",
        help="monitor drift over this run and later runs; the state is kept in this file",
    )
    verb.add_argument(
        "--batch-size",
        type=shared.batch_size,
        default=8,
        metavar="N",
        help="images in one batch (default: 8; 1: lowest latency)",
    )
    verb.add_argument(
        "--threads",
        type=shared.threads,
        default=0,
        metavar="N",
        help="threads of the network, 0: chosen by the runtime (default); snl bench inference "
        "measures which number is best",
    )
    inspect_bulk.add_options(verb)
    shared.add_precision(verb)
    shared.add_max_pixels(verb)
    shared.add_device(verb)
    shared.add_quiet(verb)


def run(options: Options) -> int:
    """Inspect all images, or the frames of one video."""
    import snl
    from snl.data.video import is_video

    if options.parts and not options.part_pattern:
        raise SettingsError("--parts needs --part-pattern, which names the part of each image")
    if options.csv and options.csv.suffix.lower() in _SPREADSHEETS:
        raise SettingsError(
            f"--csv {options.csv}: writes comma-separated text, which spreadsheets open; give a "
            "name that ends in .csv"
        )
    _check_rejects(options)
    inspect_bulk.check(options)
    _check_paths(options)
    inspector = snl.load(
        options.file,
        options.device,
        options.threads,
        options.precision,
        max_pixels=options.max_pixels,
    )
    if options.tile is not None:
        _check_tile(inspector, options.tile, bool(options.monitor))
    rates = inspector.rates_for(  # refuses an unknown product or a wrong rate before any work
        options.product, options.rate, options.uncertain_rate, options.unknown_rate
    )
    if options.output:
        return inspect_bulk.run(options, inspector, rates)
    if any(map(is_video, options.paths)):
        return _inspect_video(options, inspector, rates)
    return _inspect_images(options, inspector, rates)


def _check_paths(options: Options) -> None:
    """Check before the network is loaded that something of what is given is there.

    Raises:
        DataError: nothing is.
    """
    from snl.data.remote import is_address
    from snl.data.video import is_live

    if not Path(options.file).is_file():
        return  # loading it says so
    if not any(is_address(p) or is_live(p) or Path(p).exists() for p in options.paths):
        raise DataError(f"{options.paths[0]} does not exist; check the path")


def _check_rejects(options: Options) -> None:
    """Check that the option for rejects and others fit together.

    Raises:
        SettingsError: they do not.
    """
    from snl.data.video import is_video

    option = "--move-rejects" if options.move_rejects else "--copy-rejects"
    if not (options.move_rejects or options.copy_rejects):
        return
    if options.part_pattern:
        raise SettingsError(
            f"{option} goes by the decision on an image, --part-pattern by that on a part; leave "
            "out one of them"
        )
    if options.move_rejects and (options.coco or options.labelme):
        other = "--coco" if options.coco else "--labelme"
        raise SettingsError(
            f"{other} names images where they are, and --move-rejects moves them; use "
            "--copy-rejects"
        )
    if any(map(is_video, options.paths)):
        raise SettingsError(f"{option} takes images, not a video; save its overlays with --out DIR")


def _check_tile(inspector: Inspector, tile: int, monitored: bool) -> None:
    """Check a tile size for this run only, and say what it means for the thresholds.

    Raises:
        SettingsError: a tile size out of range, or drift is monitored too.
    """
    if tile == inspector.tile:
        return
    if monitored:
        raise SettingsError(
            "--monitor compares scores with the calibration, which --tile does not match; leave "
            f"out one of them, or first run snl calibrate FILE NORMALS --tile {tile}"
        )
    inspector.settings.replace({"tile": tile})  # checks the range
    say(
        f"note: thresholds were made with {_pieces(inspector.tile)}; for {_pieces(tile)} they are "
        f"not valid until you run snl calibrate FILE NORMALS --tile {tile}"
    )


def _pieces(tile: int) -> str:
    return f"tiles of {tile} pixels" if tile else "whole images"


def _inspect_images(options: Options, inspector: Inspector, rates: Rates | None) -> int:
    """Write one result for each image; an image that cannot be used is reported and left out."""
    from snl.signals import Stopped, deferred

    paths = image_files([Path(path) for path in options.paths])
    parts = PartRun(options, paths, inspector, rates) if options.part_pattern else None
    is_text = for_people(options.json, options.csv)
    progress = progress_bar("inspecting", options.quiet or not is_text)
    failed: list[ImageError] = []
    remarks, summary = Remarks(), Summary()
    status = OK

    def refuse(error: ImageError) -> None:
        failed.append(error)
        say(f"error: {error}")

    with open_outputs(options, inspector, paths, None) as outputs:

        def keep(result: Inspection) -> None:
            with deferred():
                remarks.add(result.path, result.remarks)
                summary.add(result)
                record = result.to_dict()
                if parts:
                    record["part"] = parts.name(result)
                outputs.add(result, record)
                if parts:
                    parts.add(result, outputs)

        results = outputs.ahead(
            inspector.stream(
                paths,
                options.product,
                rates,
                options.batch_size,
                on_error=refuse,
                tile=options.tile,
                overlays=bool(options.out),
            )
        )
        try:
            for result in results:
                keep(result)
                if outputs.useless:
                    break
                if progress:
                    progress(outputs.count + len(failed), len(paths))
        except Stopped as stop:  # the results so far are kept
            with deferred():
                for result in results.rest():
                    keep(result)
            say(f"stopped after {outputs.count + len(failed)} of {len(paths)} images")
            outputs.stopped, status = True, stop.status
        if parts and not status and not outputs.useless:
            with deferred():
                parts.finish(outputs)
    remarks.summarise()
    if parts:
        parts.summarise()
    elif is_text and not options.quiet:
        rejects = bool(options.copy_rejects or options.move_rejects)
        written = bool(options.csv or options.json)
        for line in summary.lines(shown=bool(options.out), sorted_out=rejects, written=written):
            say(line, lines=True)
    if not status:
        _advise(options, inspector, rates)
    if failed:
        say(f"{len(failed)} of {len(paths)} images could not be inspected")
    if outputs.alarm:  # where nobody overlooks it
        say(outputs.alarm)
    return status or (BAD_INPUT if failed or outputs.failed else OK)


def _advise(options: Options, inspector: Inspector, rates: Rates | None) -> None:
    """Say if there are too few held-out images for any threshold."""
    from snl.decision.calibration import images_needed

    calibration, product = inspector.calibration, options.product
    rate = (rates or calibration.rates_for(product)).anomalous
    if not calibration.can_decide(rate, product):
        held_back = sum(len(data) for data in calibration.sets.values())
        possible = calibration.possible_rate()
        other = "" if possible is None else f", or inspect with --rate {possible:g} or more"
        say(
            f"note: with {held_back} held-out normal images no decision at a false-alarm rate of "
            f"{rate:g} is possible, so it is 'uncertain'; add {images_needed(rate) - held_back} or "
            f"more normal images with snl calibrate {options.file} NORMALS --add{other}"
        )


def _inspect_video(options: Options, inspector: Inspector, rates: Rates | None) -> int:
    """Write one result for each frame as it comes."""
    from snl.data.video import frames, is_live
    from snl.signals import Stopped, deferred

    source = options.paths[0]
    if len(options.paths) > 1 or options.coco or options.labelme or options.part_pattern:
        raise DataError(
            f"{source}: give one video alone, without --coco, --labelme and --part-pattern"
        )
    files = [] if is_live(source) else [Path(source)]
    dropped, status = 0, OK
    with open_outputs(options, inspector, files, source) as outputs:
        try:
            for frame in frames(source):
                stream = inspector.stream([frame.image], options.product, rates, tile=options.tile)
                result = next(stream)
                dropped += frame.number - (outputs.count + dropped)
                record = result.to_dict() | {"path": source, "frame": frame.number}
                record |= {"seconds": round(frame.seconds, 3), "dropped": dropped}
                with deferred():
                    outputs.add(result, record)
                if outputs.useless:
                    break
        except Stopped as stop:
            say(f"stopped after {outputs.count} frames, {dropped} dropped")
            outputs.stopped, status = True, stop.status
    if not status:
        say(f"{outputs.count} frames inspected, {dropped} dropped")
    if outputs.alarm:
        say(outputs.alarm)
    return status or (BAD_INPUT if outputs.failed else OK)
