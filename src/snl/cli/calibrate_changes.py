"""The changes that `snl calibrate` makes, one after another, in a fixed order."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from snl.cli import options as shared
from snl.cli.calibrate_reviews import ReviewOptions, reviewed
from snl.cli.common import image_files, progress_bar, say
from snl.errors import SettingsError

if TYPE_CHECKING:
    from snl.decision.calibration import Calibration
    from snl.runtime.inspector import Inspector
    from snl.runtime.recalibrate import FalseAlarm

CHANGES = (
    *("normals", "rate", "uncertain_rate", "unknown_rate", "regions_rate", "tail", "rule"),
    "leave_out",
    *("false_alarms", "misses", "reviews", "ignore", "mm_per_pixel", "smallest", "tile"),
)
"""The options that change the calibration."""


class Options(
    ReviewOptions,
    shared.RateOptions,
    shared.PrecisionOption,
    shared.LayoutOption,
    shared.PixelsOption,
    shared.DeviceOption,
    shared.QuietOption,
):
    """Options of `snl calibrate`."""

    normals: Path | None
    add: bool
    regions_rate: float | None
    tail: str | None
    rule: str | None
    leave_out: list[str] | None
    ignore: list[str] | None
    mm_per_pixel: list[str] | None
    smallest: list[str] | None
    tile: int | None
    undo: bool
    cost_miss: float | None
    cost_false_alarm: float | None
    defect_share: float | None
    output: Path | None


def change(options: Options, inspector: Inspector, edits: list[Calibration]) -> bool:
    """Append all requested changes, one after another; return False if a miss is not caught, or an
    image of --reviews is missing."""
    inspector.check_product(options.product)
    if options.add and options.normals is None:
        raise SettingsError("--add has nothing to add; give NORMALS with it")
    found = reviewed(options, inspector)
    _check_contradictions(found.together(options))
    edits += _tile(options, inspector, _latest(inspector, edits))
    edits += _masks(options, inspector, _latest(inspector, edits))
    edits += _numbers(options, _latest(inspector, edits))
    edits += _normals(options, inspector, _latest(inspector, edits))
    edits += _left_out(options, _latest(inspector, edits))
    alarms: list[FalseAlarm] = []
    for part in (options, *found.false_alarms):
        edits += _false_alarms(part, inspector, _latest(inspector, edits), alarms)
    edits += _rates(options, _latest(inspector, edits))
    caught = found.complete
    for part in (options, *found.misses):
        changed, now = _misses(part, inspector, _latest(inspector, edits))
        edits += changed
        caught = caught and now
    _say_still_flagged(alarms, _latest(inspector, edits))
    return caught


def _check_contradictions(options: Options) -> None:
    """Check that no image is given both as normal and as missed."""
    from snl.runtime.feedback import check_contradictions
    from snl.runtime.recalibrate import records_in

    if not options.misses:
        return
    normal = image_files(options.false_alarms or (), quiet=True)
    if options.normals is not None:
        records = records_in(options.normals, options.product, options.layout)
        normal += [record.path for record in records]
    check_contradictions(normal, image_files(options.misses, quiet=True))


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
    from snl.data.masks import read_area
    from snl.decision.edit import set_ignore_mask
    from snl.decision.maps import resize_mask
    from snl.errors import DataError

    side, most = inspector.image_size, inspector.max_pixels
    for name, file in _pairs(options.ignore, "--ignore", options.product, calibration.products):
        calibration.check_product(name)
        mask = None
        if file != "none":
            mask = read_area(Path(file), max_pixels=most)
            if (roi := calibration.rois.get(name)) is not None:
                mask = roi.window(mask.shape, file).of(mask)
            mask = resize_mask(mask, (side, side))
        try:
            calibration = set_ignore_mask(calibration, name, mask)
        except DataError:
            raise DataError(
                f"{file}: everything would be ignored; white is what to ignore"
            ) from None
        if mask is not None:
            share = calibration.ignore_masks[name].mean()
            say(f"{name}: {100 * share:.1f} % of the image is ignored, the white part of {file}")
            say(
                f"note: {name}: fewer false alarms than stated until it is calibrated again, snl "
                "calibrate FILE NORMALS; and its images are no longer compared as a whole, which "
                "finds empty carriers"
            )
        yield calibration


def _numbers(options: Options, calibration: Calibration) -> Iterator[Calibration]:
    """Set the scale and the smallest region of products."""
    from snl.decision.edit import set_product_values

    for assignments, flag, field, kind in (
        (options.mm_per_pixel, "--mm-per-pixel", "mm_per_pixel", shared.number_in(1e-6, 1e6)),
        (options.smallest, "--smallest", "min_region_area", shared.whole(1, 10**9)),
    ):
        values = {
            name: _value(text, kind, flag)
            for name, text in _pairs(assignments, flag, options.product, calibration.products)
        }
        if values:
            calibration = set_product_values(calibration, field, values)
            yield calibration


def _normals(
    options: Options, inspector: Inspector, calibration: Calibration
) -> Iterator[Calibration]:
    """Replace the held-out images by NORMALS, or add NORMALS to them."""
    from snl.runtime import feedback, recalibrate

    if options.normals is None:
        return
    feedback.doubts_about_data(options.normals).decide(say, options.force)
    changed, counts = recalibrate.add_normals(
        inspector,
        calibration,
        recalibrate.records_in(options.normals, options.product, options.layout),
        add=options.add,
        named=options.product is not None,
        force=options.force,
        progress=progress_bar("calibrating", options.quiet),
        note=say,
    )
    for name, count in counts.items():
        new = f", {count - len(calibration.sets[name])} of them new" if options.add else ""
        say(f"{name}: {count} normal images{new}")
    if options.tile is not None and set(counts) != set(inspector.products):
        missing = ", ".join(sorted(set(inspector.products) - set(counts)))
        raise SettingsError(f"--tile changes every score; NORMALS has none of {missing}")
    yield changed


def _left_out(options: Options, calibration: Calibration) -> Iterator[Calibration]:
    """Remove single held-out images."""
    from snl.decision.edit import leave_out

    if options.leave_out:
        yield leave_out(calibration, list(dict.fromkeys(options.leave_out)), options.product)


def _false_alarms(
    options: Options, inspector: Inspector, calibration: Calibration, alarms: list[FalseAlarm]
) -> Iterator[Calibration]:
    """Add flagged images of normal parts to the held-out images of their product, and to a list."""
    from snl.runtime.recalibrate import learn_false_alarms

    if not options.false_alarms:
        return
    paths = image_files(options.false_alarms)
    changed, found = learn_false_alarms(
        inspector, calibration, paths, options.product, say, force=options.force
    )
    alarms += found
    for alarm in found:
        if alarm.p_value is not None:
            say(f"{alarm.path}: normal image of {alarm.product} from now on, p {alarm.p_value:.2g}")
    if changed is not calibration:
        yield changed


def _say_still_flagged(alarms: Sequence[FalseAlarm], calibration: Calibration) -> None:
    """Say which false alarms are still flagged when all changes are made.

    More held-out images, other rates and misses all move the thresholds.
    """
    for alarm in alarms:
        if alarm.score is None:
            continue
        p = calibration.scores.p_value(alarm.score, alarm.product)
        rates = calibration.rates_for(alarm.product)
        if p is not None and p <= rates.uncertain:
            kind, rate = "uncertain", rates.uncertain
            if p <= rates.anomalous:
                kind, rate = "anomalous", rates.anomalous
            say(f"{alarm.path}: still {kind}, p {p:.2g} at the rate {rate:.2g}")


def _rates(options: Options, calibration: Calibration) -> Iterator[Calibration]:
    """Set the rule, the fitted tail and the rates, of one product or of all."""
    from snl.decision.conformal import TAIL_MINIMUM
    from snl.decision.edit import edit, set_rates, set_rule

    if options.rule is not None:
        calibration = set_rule(calibration, options.rule, options.product)
        yield calibration

    if options.tail is not None:
        calibration = edit(calibration, "tail", fit_tail=options.tail == "fit")
        count = sum(map(len, calibration.sets.values()))
        if calibration.fit_tail and count < TAIL_MINIMUM:
            say(
                f"note: no tail is fitted yet: that takes {TAIL_MINIMUM} held-out images of all "
                f"products together, and there are {count}"
            )
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
    changed, misses = learn_misses(
        inspector, calibration, paths, options.product, note=say, force=options.force
    )
    for miss in misses:
        p = "-" if miss.p_value is None else f"{miss.p_value:.2g}"
        outcome = (
            f"judged '{miss.before}' already"
            if miss.before != "normal"
            else "caught from now on"
            if miss.caught
            else f"would take a rate above {MAX_UNCERTAIN_RATE:g}; not caught"
        )
        say(f"{miss.path}: {miss.product}, p {p}: {outcome}")
        if not miss.caught:
            say(f"  {miss.shows}", lines=True)
    if proposals := dict.fromkeys(text for miss in misses for text in miss.remedies):
        say("what may catch the missed ones, the most promising first:")
        for text in proposals:
            say(f"  - {text}", lines=True)
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


def _value(text: str, kind: Callable[[str], float | int], flag: str) -> float | int:
    """Return a value that belongs to a product; `kind` is the type of an option."""
    try:
        return kind(text)
    except argparse.ArgumentTypeError as error:
        raise SettingsError(f"{flag}: {error}") from None
