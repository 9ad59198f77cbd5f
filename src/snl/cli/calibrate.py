"""`snl calibrate`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from snl.cli.common import OK, PROBLEMS, progress_bar, say
from snl.cli.inspect import image_files
from snl.errors import SettingsError

if TYPE_CHECKING:
    from snl.runtime.inspector import Inspector


def calibrate(options: argparse.Namespace) -> int:
    """`snl calibrate`: show the calibration, or change it and show it."""
    import snl
    from snl.files import check_output
    from snl.runtime.recalibrate import format_calibration

    inspector = snl.load(options.file, options.device, precision=options.precision)
    target = options.output or options.file
    given = image_files([*(options.false_alarms or ()), *(options.misses or ())])
    check_output(target, given)
    before = len(inspector.calibrations)
    done = _undo(options, inspector) if options.undo else _change(options, inspector)
    if options.output or len(inspector.calibrations) != before:
        inspector.save(target)  # first of all: whoever reads the table may hang up
        say(f"{target}: calibrated; --undo takes the last change back")
    print(format_calibration(inspector), flush=True)
    missed = [m for m in done if not getattr(m, "caught", True)]
    return PROBLEMS if missed else OK


def _undo(options: argparse.Namespace, inspector: Inspector) -> Sequence[object]:
    changes = ("normals", "rate", "uncertain_rate", "unknown_rate", "regions_rate", "tail",
               "false_alarms", "misses", "ignore", "mm_per_pixel", "smallest", "tile")  # fmt: skip
    also = [name for name in changes if getattr(options, name) is not None]
    if also:
        name = "NORMALS" if also[0] == "normals" else "--" + also[0].replace("_", "-")
        raise SettingsError(f"--undo takes back and does not change; leave out {name}")
    undone = inspector.undo()
    say(f"taken back: version of {undone.made} ({undone.why})")
    return [undone]


def _change(options: argparse.Namespace, inspector: Inspector) -> Sequence[object]:
    """All that was asked for, in one version; what was done, empty if nothing."""
    from snl.runtime import recalibrate as editing

    product = options.product
    inspector.check_product(product)
    if options.add and options.normals is None:
        raise SettingsError("--add has nothing to add; give NORMALS with it")
    before = len(inspector.calibrations)
    done: list[object] = []
    if options.tile is not None and options.tile != inspector.tile:
        if options.normals is None:
            raise SettingsError("--tile changes every score; give NORMALS of all products with it")
        if options.add:
            raise SettingsError("--tile changes every score; leave out --add, NORMALS replace all")
        inspector.settings.replace({"tile": options.tile})  # refuses what is out of range
        done.append(editing.change(inspector, f"tile {options.tile}", tile=options.tile))
    for name, mask in _pairs(options.ignore, "--ignore", product, inspector.products):
        editing.set_ignored(inspector, name, None if mask == "none" else Path(mask))
        done.append(name)
    for option, field, kind, least in (
        (options.mm_per_pixel, "mm_per_pixel", float, 0.0),
        (options.smallest, "smallest", int, 1),
    ):
        flag = "--" + field.replace("_", "-")
        values = {
            n: _value(v, kind, least, flag)
            for n, v in _pairs(option, flag, product, inspector.products)
        }
        if values:
            for name in values:
                inspector.check_product(name)
            now = {**getattr(inspector.calibration, field), **values}
            done.append(editing.change(inspector, flag, **{field: now}))
    if options.normals is not None:
        counts = editing.set_normals(
            inspector,
            editing.records_in(options.normals, product, options.layout),
            add=options.add,
            progress=progress_bar("calibrating", options.quiet),
            note=say,
        )
        done += counts
        for name, count in counts.items():
            say(f"{name}: {count} normal images")
        if options.tile is not None and set(counts) != set(inspector.products):
            missing = ", ".join(sorted(set(inspector.products) - set(counts)))
            raise SettingsError(f"--tile changes every score; NORMALS has none of {missing}")
    if options.false_alarms:
        done += _false_alarms(options, inspector)
    if options.tail is not None:
        done.append(editing.change(inspector, "tail", tail=options.tail == "fit"))
    rates = {
        "anomalous": options.rate,
        "uncertain": options.uncertain_rate,
        "unknown": options.unknown_rate,
        "regions": options.regions_rate,
    }
    if any(value is not None for value in rates.values()):
        done.append(editing.set_rates(inspector, product, **rates))
    if options.misses:
        found = editing.learn_misses(inspector, image_files(options.misses), product)
        for miss in found:
            p = "-" if miss.p_value is None else f"{miss.p_value:.2g}"
            say(
                f"{miss.path}: {miss.product}, p {p}: "
                + (
                    "caught from now on"
                    if miss.caught
                    else f"would take a rate above {editing.MOST_UNCERTAIN:g}; not caught"
                )
            )
        done += found
    _one_version(inspector, before)
    return done


def _false_alarms(options: argparse.Namespace, inspector: Inspector) -> list[object]:
    """Images that were flagged and are normal join the normal ones of their product."""
    from snl.data.catalog import Record
    from snl.runtime import recalibrate as editing

    paths = image_files(options.false_alarms)
    results = [(r.product, r.score) for r in inspector.stream(paths, options.product)]
    records = [
        Record(path, product, "test", "normal")
        for path, (product, _) in zip(paths, results, strict=True)
    ]
    counts = editing.set_normals(inspector, records, add=True, why="false alarms", note=say)
    for record, (product, score) in zip(records, results, strict=True):
        if not editing.trained_on(inspector, record.path):
            p = inspector.calibration.scores.p_value(score, product)
            say(f"{record.path}: normal image of {product} from now on, p {p:.2g}")
    return list(counts)


def _one_version(inspector: Inspector, before: int) -> None:
    """Several changes of one command are one version, taken back together."""
    import dataclasses

    made = inspector.calibrations[before:]
    if len(made) > 1:
        why = ", ".join(dict.fromkeys(version.why for version in made))
        inspector.calibrations = [
            *inspector.calibrations[:before],
            dataclasses.replace(made[-1], why=why),
        ]


def _pairs(
    given: Sequence[str] | None, option: str, product: str | None, products: Sequence[str]
) -> list[tuple[str, str]]:
    """`PRODUCT=VALUE`, or `VALUE` with --product; names and paths may hold `=` themselves."""
    pairs = []
    for text in given or ():
        ways = [(text[:i], text[i + 1 :]) for i, letter in enumerate(text) if letter == "="]
        whole = [(product, text)] if product else []
        name, value = next(
            (way for way in ways if way[0] in products), (whole + ways + [("", "")])[0]
        )
        if not name or not value:
            raise SettingsError(f"{option} {text}: write {option} PRODUCT=VALUE")
        pairs.append((name, value))
    return pairs


def _value(text: str, kind: type[float] | type[int], least: float, option: str) -> float | int:
    try:
        value = kind(text)
    except ValueError:
        value = kind(-1)
    if not least <= value < float("inf") or value == 0:
        raise SettingsError(f"{option} {text}: give a number above 0")
    return value
