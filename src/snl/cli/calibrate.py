"""`snl calibrate`: show the calibration of a bundle or export, or change it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli import options as shared
from snl.cli.common import OK, PROBLEMS, image_files, progress_bar, say
from snl.errors import SettingsError

if TYPE_CHECKING:
    from snl.runtime.inspector import Inspector

SUMMARY = "show the calibration of a bundle or change it, in seconds and without training"
OPTIONAL_PATH = "normals"
"""See `snl.cli.main.parse`."""

_CHANGES = (
    *("normals", "rate", "uncertain_rate", "unknown_rate", "regions_rate", "tail"),
    *("false_alarms", "misses", "ignore", "mm_per_pixel", "smallest", "tile"),
)
"""The options that change the calibration."""


class Options(
    shared.RateOptions,
    shared.PrecisionOption,
    shared.LayoutOption,
    shared.DeviceOption,
    shared.QuietOption,
):
    """Options of `snl calibrate`."""

    file: str
    normals: Path | None
    add: bool
    product: str | None
    regions_rate: float | None
    tail: str | None
    false_alarms: list[Path] | None
    misses: list[Path] | None
    ignore: list[str] | None
    mm_per_pixel: list[str] | None
    smallest: list[str] | None
    tile: int | None
    undo: bool
    output: Path | None


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "calibrate",
        SUMMARY,
        "snl calibrate parts.snl",
        "snl calibrate parts.snl --rate 0.02 --product bottle",
        "snl calibrate parts.snl normals/ --add",
        "snl calibrate parts.snl --false-alarms ok1.jpg ok2.jpg --product bottle",
        "snl calibrate parts.snl --misses bad1.jpg",
        "snl calibrate parts.snl --ignore bottle=label.png --mm-per-pixel bottle=0.05",
        "snl calibrate parts.snl --undo",
    )
    verb.add_argument("file", metavar="FILE", help="bundle or export; it is changed in place")
    verb.add_argument(
        "normals",
        nargs="?",
        type=Path,
        metavar="NORMALS",
        help="normal images, in one folder per product (or use --product). They replace the "
        "held-back images of these products",
    )
    verb.add_argument(
        "--add", action="store_true", help="add NORMALS to the held-back images, do not replace"
    )
    verb.add_argument(
        "--product", metavar="NAME", help="product of the images, rates and values given"
    )
    shared.add_rates(verb)
    verb.add_argument(
        "--regions-rate",
        type=float,
        metavar="X",
        help="largest average number of regions marked in a normal image",
    )
    verb.add_argument(
        "--tail",
        choices=("fit", "none"),
        help="fit: take rates too small for the number of held-back images from a fitted tail, "
        "which is an estimate without guarantee",
    )
    _add_feedback(verb)
    verb.add_argument(
        "--tile",
        type=shared.index,
        metavar="N",
        help="inspect images in tiles of N pixels from now on, 0: whole images; needs NORMALS of "
        "all products",
    )
    verb.add_argument("--undo", action="store_true", help="undo the last change")
    verb.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write to this file, leave FILE unchanged"
    )
    shared.add_precision(verb)
    shared.add_layout(verb)
    shared.add_device(verb)
    shared.add_quiet(verb)


def _add_feedback(verb: Any) -> None:
    """Add the options about single images and about regions."""
    verb.add_argument(
        "--false-alarms",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="images of normal parts that were flagged: add them to the held-back images",
    )
    verb.add_argument(
        "--misses",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="images of anomalous parts that were not flagged: raise the product's uncertain rate "
        "until they are",
    )
    verb.add_argument(
        "--ignore",
        action="append",
        metavar="PRODUCT=MASK",
        help="ignore mask: an image that is white where the product is not inspected; none: "
        "inspect the product everywhere",
    )
    verb.add_argument(
        "--mm-per-pixel",
        action="append",
        metavar="PRODUCT=X",
        help="scale of the images, to report areas in mm2",
    )
    verb.add_argument(
        "--smallest",
        action="append",
        metavar="PRODUCT=N",
        help="do not report regions smaller than N pixels",
    )


def run(options: Options) -> int:
    """Change the calibration if requested, save it, and print it."""
    import snl
    from snl.files import check_output
    from snl.runtime.recalibrate import format_calibration

    inspector = snl.load(options.file, options.device, precision=options.precision)
    target = options.output or options.file
    images = image_files([*(options.false_alarms or ()), *(options.misses or ())])
    check_output(target, images)
    before = len(inspector.calibrations)
    all_caught = True
    if options.undo:
        _undo(options, inspector)
    else:
        all_caught = _change(options, inspector)
    if options.output or len(inspector.calibrations) != before:
        inspector.save(target)  # before printing: the reader of the table may close the pipe
        say(f"{target}: calibrated; --undo takes the last change back")
    print(format_calibration(inspector), flush=True)
    return OK if all_caught else PROBLEMS


def _undo(options: Options, inspector: Inspector) -> None:
    """Undo the last change.

    Raises:
        SettingsError: a change is requested too, or there is nothing to undo.
    """
    also = [name for name in _CHANGES if getattr(options, name) is not None]
    if also:
        name = "NORMALS" if also[0] == "normals" else "--" + also[0].replace("_", "-")
        raise SettingsError(f"--undo cannot be combined with a change; leave out {name}")
    undone = inspector.undo()
    say(f"taken back: version of {undone.made} ({undone.why})")


def _change(options: Options, inspector: Inspector) -> bool:
    """Make all requested changes as one version; return False if a miss could not be caught."""
    inspector.check_product(options.product)
    if options.add and options.normals is None:
        raise SettingsError("--add has nothing to add; give NORMALS with it")
    before = len(inspector.calibrations)
    _change_tile(options, inspector)
    _change_masks(options, inspector)
    _change_numbers(options, inspector)
    _change_normals(options, inspector)
    _add_false_alarms(options, inspector)
    _change_rates(options, inspector)
    all_caught = _learn_misses(options, inspector)
    _merge_versions(inspector, before)
    return all_caught


def _change_tile(options: Options, inspector: Inspector) -> None:
    """Set the tile size, which needs new normal images of all products."""
    from snl.runtime import recalibrate

    if options.tile is None or options.tile == inspector.tile:
        return
    if options.normals is None:
        raise SettingsError("--tile changes every score; give NORMALS of all products with it")
    if options.add:
        raise SettingsError("--tile changes every score; leave out --add, NORMALS replace all")
    inspector.settings.replace({"tile": options.tile})  # checks the range
    recalibrate.change(inspector, f"tile {options.tile}", tile=options.tile)


def _change_masks(options: Options, inspector: Inspector) -> None:
    """Set or remove ignore masks."""
    from snl.runtime import recalibrate

    for name, mask in _pairs(options.ignore, "--ignore", options.product, inspector.products):
        recalibrate.set_ignored(inspector, name, None if mask == "none" else Path(mask))


def _change_numbers(options: Options, inspector: Inspector) -> None:
    """Set the scale and the smallest region of products."""
    from snl.runtime import recalibrate

    for assignments, field, kind, least in (
        (options.mm_per_pixel, "mm_per_pixel", float, 0.0),
        (options.smallest, "smallest", int, 1),
    ):
        flag = "--" + field.replace("_", "-")
        values = {
            name: _value(text, kind, least, flag)
            for name, text in _pairs(assignments, flag, options.product, inspector.products)
        }
        if values:
            for name in values:
                inspector.check_product(name)
            merged = {**getattr(inspector.calibration, field), **values}
            recalibrate.change(inspector, flag, **{field: merged})


def _change_normals(options: Options, inspector: Inspector) -> None:
    """Replace the held-back images by NORMALS, or add NORMALS to them."""
    from snl.runtime import recalibrate

    if options.normals is None:
        return
    counts = recalibrate.set_normals(
        inspector,
        recalibrate.records_in(options.normals, options.product, options.layout),
        add=options.add,
        progress=progress_bar("calibrating", options.quiet),
        note=say,
    )
    for name, count in counts.items():
        say(f"{name}: {count} normal images")
    if options.tile is not None and set(counts) != set(inspector.products):
        missing = ", ".join(sorted(set(inspector.products) - set(counts)))
        raise SettingsError(f"--tile changes every score; NORMALS has none of {missing}")


def _add_false_alarms(options: Options, inspector: Inspector) -> None:
    """Add flagged images of normal parts to the held-back images of their product."""
    from snl.data.catalog import Record
    from snl.runtime import recalibrate

    if not options.false_alarms:
        return
    paths = image_files(options.false_alarms)
    results = [(r.product, r.score) for r in inspector.stream(paths, options.product)]
    records = [
        Record(path, product, "test", "normal")
        for path, (product, _) in zip(paths, results, strict=True)
    ]
    recalibrate.set_normals(inspector, records, add=True, why="false alarms", note=say)
    for record, (product, score) in zip(records, results, strict=True):
        if not recalibrate.trained_on(inspector, record.path):
            p = inspector.calibration.scores.p_value(score, product)
            say(f"{record.path}: normal image of {product} from now on, p {p:.2g}")


def _change_rates(options: Options, inspector: Inspector) -> None:
    """Set the fitted tail and the rates, of one product or of all."""
    from snl.runtime import recalibrate

    if options.tail is not None:
        recalibrate.change(inspector, "tail", tail=options.tail == "fit")
    rates = {
        "anomalous": options.rate,
        "uncertain": options.uncertain_rate,
        "unknown": options.unknown_rate,
        "regions": options.regions_rate,
    }
    if any(value is not None for value in rates.values()):
        recalibrate.set_rates(inspector, options.product, **rates)


def _learn_misses(options: Options, inspector: Inspector) -> bool:
    """Raise uncertain rates to catch missed images; return whether all of them are caught."""
    from snl.runtime import recalibrate

    if not options.misses:
        return True
    misses = recalibrate.learn_misses(inspector, image_files(options.misses), options.product)
    for miss in misses:
        p = "-" if miss.p_value is None else f"{miss.p_value:.2g}"
        outcome = (
            "caught from now on"
            if miss.caught
            else f"would take a rate above {recalibrate.MOST_UNCERTAIN:g}; not caught"
        )
        say(f"{miss.path}: {miss.product}, p {p}: {outcome}")
    return all(miss.caught for miss in misses)


def _merge_versions(inspector: Inspector, before: int) -> None:
    """Make several changes of one command one version, so that --undo undoes all of them."""
    from dataclasses import replace

    versions = inspector.calibrations[before:]
    if len(versions) > 1:
        why = ", ".join(dict.fromkeys(version.why for version in versions))
        inspector.calibrations = [
            *inspector.calibrations[:before],
            replace(versions[-1], why=why),
        ]


def _pairs(
    assignments: Sequence[str] | None, flag: str, product: str | None, products: Sequence[str]
) -> list[tuple[str, str]]:
    """Return name and value of `PRODUCT=VALUE`, or of `VALUE` with --product.

    Product names and values may contain `=`: a split at which a known product ends is preferred.
    """
    pairs = []
    for text in assignments or ():
        splits = [(text[:i], text[i + 1 :]) for i, letter in enumerate(text) if letter == "="]
        whole = [(product, text)] if product else []
        name, value = next(
            (split for split in splits if split[0] in products), (whole + splits + [("", "")])[0]
        )
        if not name or not value:
            raise SettingsError(f"{flag} {text}: write {flag} PRODUCT=VALUE")
        pairs.append((name, value))
    return pairs


def _value(text: str, kind: type[float] | type[int], least: float, flag: str) -> float | int:
    """Return a positive number of at least `least`."""
    try:
        value = kind(text)
    except ValueError:
        value = kind(-1)
    if not least <= value < float("inf") or value == 0:
        raise SettingsError(f"{flag} {text}: give a number above 0")
    return value
