"""`snl calibrate`: show the calibration of a bundle or export, or change it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli import options as shared
from snl.cli.common import OK, PROBLEMS, image_files, progress_bar, say
from snl.errors import SettingsError

if TYPE_CHECKING:
    from snl.decision.calibration import Calibration
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
    shared.PixelsOption,
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
        "held-out images of these products",
    )
    verb.add_argument(
        "--add", action="store_true", help="add NORMALS to the held-out images, do not replace"
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
        help="fit: take rates too small for the number of held-out images from a fitted tail, "
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
    shared.add_max_pixels(verb)
    shared.add_device(verb)
    shared.add_quiet(verb)


def _add_feedback(verb: Any) -> None:
    """Add the options about single images and about regions."""
    verb.add_argument(
        "--false-alarms",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="images of normal parts that were flagged: add them to the held-out images",
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
    from snl.decision.edit import combine
    from snl.files import check_output
    from snl.runtime.recalibrate import format_calibration

    inspector = snl.load(
        options.file, options.device, precision=options.precision, max_pixels=options.max_pixels
    )
    target = options.output or options.file
    images = image_files([*(options.false_alarms or ()), *(options.misses or ())])
    check_output(target, images)
    caught = True
    edits: list[Calibration] = []
    if options.undo:
        _undo(options, inspector)
    else:
        caught = _change(options, inspector, edits)
        if edits:  # all changes of one command are one version, which --undo takes back
            inspector.recalibrate(combine(inspector.calibration, edits))
    if options.output or options.undo or edits:
        inspector.save(target)  # before printing: the reader of the table may close the pipe
        say(f"{target}: calibrated; --undo takes the last change back")
    print(format_calibration(inspector), flush=True)
    return OK if caught else PROBLEMS


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
    say(f"taken back: version of {undone.created} ({undone.reason})")


def _change(options: Options, inspector: Inspector, edits: list[Calibration]) -> bool:
    """Append all requested changes, one after another; return False if a miss is not caught."""
    inspector.check_product(options.product)
    if options.add and options.normals is None:
        raise SettingsError("--add has nothing to add; give NORMALS with it")
    edits += _tile(options, inspector, _latest(inspector, edits))
    edits += _masks(options, inspector, _latest(inspector, edits))
    edits += _numbers(options, _latest(inspector, edits))
    edits += _normals(options, inspector, _latest(inspector, edits))
    edits += _false_alarms(options, inspector, _latest(inspector, edits))
    edits += _rates(options, _latest(inspector, edits))
    changed, caught = _misses(options, inspector, _latest(inspector, edits))
    edits += changed
    return caught


def _latest(inspector: Inspector, edits: list[Calibration]) -> Calibration:
    return edits[-1] if edits else inspector.calibration


def _tile(
    options: Options, inspector: Inspector, calibration: Calibration
) -> Iterator[Calibration]:
    """Set the tile size, which needs new normal images of all products."""
    from snl.decision.edit import edit

    if options.tile is None or options.tile == calibration.tile:
        return
    if options.normals is None:
        raise SettingsError("--tile changes every score; give NORMALS of all products with it")
    if options.add:
        raise SettingsError("--tile changes every score; leave out --add, NORMALS replace all")
    inspector.settings.replace({"tile": options.tile})  # checks the range
    yield edit(calibration, f"tile {options.tile}", tile=options.tile)


def _masks(
    options: Options, inspector: Inspector, calibration: Calibration
) -> Iterator[Calibration]:
    """Set or remove ignore masks."""
    from snl.data.masks import load_mask
    from snl.decision.edit import set_ignore_mask
    from snl.errors import DataError

    side, most = inspector.image_size, inspector.max_pixels
    for name, file in _pairs(options.ignore, "--ignore", options.product, calibration.products):
        calibration.check_product(name)
        mask = None
        if file != "none":
            mask = load_mask((Path(file),), (side, side), max_pixels=most)
        try:
            calibration = set_ignore_mask(calibration, name, mask)
        except DataError:
            raise DataError(
                f"{file}: everything would be ignored; white is what to ignore"
            ) from None
        yield calibration


def _numbers(options: Options, calibration: Calibration) -> Iterator[Calibration]:
    """Set the scale and the smallest region of products."""
    from snl.decision.edit import set_product_values

    for assignments, flag, field, kind, least in (
        (options.mm_per_pixel, "--mm-per-pixel", "mm_per_pixel", float, 0.0),
        (options.smallest, "--smallest", "min_region_area", int, 1),
    ):
        values = {
            name: _value(text, kind, least, flag)
            for name, text in _pairs(assignments, flag, options.product, calibration.products)
        }
        if values:
            calibration = set_product_values(calibration, field, values)
            yield calibration


def _normals(
    options: Options, inspector: Inspector, calibration: Calibration
) -> Iterator[Calibration]:
    """Replace the held-out images by NORMALS, or add NORMALS to them."""
    from snl.runtime import recalibrate

    if options.normals is None:
        return
    changed, counts = recalibrate.add_normals(
        inspector,
        calibration,
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
    yield changed


def _false_alarms(
    options: Options, inspector: Inspector, calibration: Calibration
) -> Iterator[Calibration]:
    """Add flagged images of normal parts to the held-out images of their product."""
    from snl.runtime.recalibrate import learn_false_alarms

    if not options.false_alarms:
        return
    paths = image_files(options.false_alarms)
    changed, alarms = learn_false_alarms(inspector, calibration, paths, options.product, say)
    for alarm in alarms:
        if alarm.p_value is not None:
            say(f"{alarm.path}: normal image of {alarm.product} from now on, p {alarm.p_value:.2g}")
    yield changed


def _rates(options: Options, calibration: Calibration) -> Iterator[Calibration]:
    """Set the fitted tail and the rates, of one product or of all."""
    from snl.decision.edit import edit, set_rates

    if options.tail is not None:
        calibration = edit(calibration, "tail", fit_tail=options.tail == "fit")
        yield calibration
    rates = {
        "anomalous": options.rate,
        "uncertain": options.uncertain_rate,
        "unknown": options.unknown_rate,
        "regions": options.regions_rate,
    }
    if any(value is not None for value in rates.values()):
        yield set_rates(calibration, options.product, **rates)


def _misses(
    options: Options, inspector: Inspector, calibration: Calibration
) -> tuple[list[Calibration], bool]:
    """Raise uncertain rates to catch missed images; the second value: whether all are caught."""
    from snl.decision.edit import MAX_UNCERTAIN_RATE
    from snl.runtime.recalibrate import learn_misses

    if not options.misses:
        return [], True
    paths = image_files(options.misses)
    changed, misses = learn_misses(inspector, calibration, paths, options.product)
    for miss in misses:
        p = "-" if miss.p_value is None else f"{miss.p_value:.2g}"
        outcome = (
            "caught from now on"
            if miss.caught
            else f"would take a rate above {MAX_UNCERTAIN_RATE:g}; not caught"
        )
        say(f"{miss.path}: {miss.product}, p {p}: {outcome}")
    return ([] if changed is calibration else [changed]), all(miss.caught for miss in misses)


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
