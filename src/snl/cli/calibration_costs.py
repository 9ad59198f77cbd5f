"""`snl calibrate FILE REVIEWED --cost-miss X --cost-false-alarm Y`: the rate with the lowest cost.

It only prints; the file stays as it is.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from snl.cli import options as shared
from snl.cli.common import OK, progress_bar, say, show, table
from snl.errors import DataError, SettingsError

if TYPE_CHECKING:
    from snl.cli.calibrate_changes import Options
    from snl.data.records import Record
    from snl.runtime.inspector import Inspector
    from snl.runtime.review import ProductCosts

COSTS = ("cost_miss", "cost_false_alarm", "defect_share")
"""The options that ask for costs."""
_OTHERS = (
    *("rate", "uncertain_rate", "unknown_rate", "regions_rate", "tail", "false_alarms", "misses"),
    *("reviews", "ignore", "mm_per_pixel", "smallest", "tile", "add", "force", "undo", "output"),
)
"""Options of changes, which cannot be combined with those of costs."""

_HIGH = 0.3
"""A best rate above it says that the model does not separate the defects."""


def add_costs(verb: argparse.ArgumentParser) -> None:
    """Add the options that compare the costs of false-alarm rates."""
    group: Any = verb.add_argument_group(
        "the false-alarm rate with the lowest cost",
        "with REVIEWED, images labelled normal and anomalous, in place of NORMALS; changes nothing",
    )
    group.add_argument(
        "--cost-miss",
        type=cost,
        metavar="X",
        help="cost of a defective part that passes, in any unit",
    )
    group.add_argument(
        "--cost-false-alarm",
        type=cost,
        metavar="X",
        help="cost of a normal part that is called anomalous, in the same unit",
    )
    group.add_argument(
        "--defect-share",
        type=shared.rate,
        metavar="X",
        help="share of defective parts in production (default: their share in REVIEWED, which is "
        "usually much too high)",
    )


def cost(text: str) -> float:
    """Return an option's value as a cost: a number above 0."""
    from snl.decision.costs import MOST_COST

    value = shared.number_in(0, MOST_COST)(text)
    if value == 0:
        raise argparse.ArgumentTypeError("a cost of 0 leaves nothing to weigh; give more than 0")
    return value


def wants_costs(options: Options) -> bool:
    """Return whether the command asks for costs.

    Raises:
        SettingsError: it does, but something is missing or contradicts it.
    """
    given = [name for name in COSTS if getattr(options, name) is not None]
    if not given:
        return False
    for name in COSTS[:2]:
        if name not in given:
            raise SettingsError(
                f"{_flag(given[0])} needs {_flag(name)}, too: costs are compared with each other"
            )
    if options.normals is None:
        raise SettingsError(
            "--cost-miss needs reviewed images: snl calibrate FILE REVIEWED --cost-miss X "
            "--cost-false-alarm Y"
        )
    values = {name: getattr(options, name) for name in _OTHERS}
    also = [name for name, value in values.items() if value is not None and value is not False]
    if also:
        raise SettingsError(
            f"--cost-miss only compares rates and changes nothing; leave out {_flag(also[0])}"
        )
    return True


def show_costs(options: Options) -> int:
    """Print the costs of the rates in force and of the best ones."""
    import snl
    from snl.decision.costs import Costs
    from snl.runtime.review import compare_costs, reviewed_p_values, share_of_defects

    assert options.normals is not None
    assert options.cost_miss is not None and options.cost_false_alarm is not None
    inspector = snl.load(
        options.file, options.device, precision=options.precision, max_pixels=options.max_pixels
    )
    inspector.check_product(options.product)
    records = _records(options, inspector)
    reviewed = reviewed_p_values(
        inspector, records, progress=progress_bar("reviewing", options.quiet), note=say
    )
    share = options.defect_share
    if share is None:
        share = share_of_defects(reviewed)
        say(
            f"note: the defect share {share:.3g} is that of the reviewed images, which usually "
            "show far more defects than production does; give the real one with --defect-share"
        )
    costs = Costs(options.cost_miss, options.cost_false_alarm, share)
    rows = compare_costs(inspector.calibration, reviewed, costs)
    for product, images in reviewed.items():
        if not len(images.anomalous):
            say(f"{product}: no reviewed defect, so it has no best rate")
    show(_format(rows, costs.defect_share))
    show("\n".join(_remarks(rows, inspector, options.file)))
    return OK


def _records(options: Options, inspector: Inspector) -> list[Record]:
    """Return the reviewed images, with `--product` only those of the product.

    If all images are of one product with another name, the product given is taken as theirs.
    """
    from dataclasses import replace

    from snl.data.catalog import Catalog

    assert options.normals is not None
    records = list(Catalog.read(options.normals, options.layout).records)
    wanted = options.product
    if wanted is None:
        return records
    found = {record.product for record in records}
    if wanted in found:
        return [record for record in records if record.product == wanted]
    if len(found) == 1 and not found & set(inspector.products):
        return [replace(record, product=wanted) for record in records]
    raise DataError(
        f"{options.normals}: no images of '{wanted}', but of {', '.join(sorted(found)[:5])}; name "
        "one of these with --product, or give a folder of that product"
    )


def _format(rows: Sequence[ProductCosts], share: float) -> str:
    """Return the costs as aligned text."""
    cells = [["product", "defects", "present rate", "found", "cost", "best rate", "found", "cost",
              "best rate, 90 % interval"]]  # fmt: skip
    for row in rows:
        best, now = row.result.best, row.present
        low, high = row.result.interval
        cells.append(
            [
                row.product or "all products",
                str(row.defects),
                "several" if row.present_rate is None else f"{row.present_rate:g}",
                "-" if now is None else f"{100 * now.found:.1f} %",
                "-" if now is None else f"{now.cost:.4g}",
                f"{row.rate:g}",
                f"{100 * best.found:.1f} %",
                f"{best.cost:.4g}",
                f"{low:.2g} .. {max(high, row.rate):.2g}",
            ]
        )
    return "\n".join(
        [
            table(cells),
            f"expected costs per part, with a defect share of {share:.3g}; found: share of the "
            "reviewed defects that are called anomalous",
        ]
    )


def _remarks(rows: Sequence[ProductCosts], inspector: Inspector, file: str) -> Iterator[str]:
    """Yield what to know about each row, and how to set its rate."""
    own = [name for name in inspector.calibration.product_rates if name in inspector.products]
    for row in rows:
        name = row.product or "all products"
        result = row.result
        if result.more_defects is None:
            yield (
                f"{name}: the interval is wide, and {15 * row.defects} more reviewed defects "
                "would not narrow it; more held-out normal images may: snl calibrate FILE NORMALS "
                "--add"
            )
        elif result.more_defects:
            yield (
                f"{name}: the interval is wide; about {result.more_defects} more reviewed defects "
                "would narrow it"
            )
        if result.flat[0] < result.flat[1]:
            yield (
                f"{name}: rates of {result.flat[0]:.2g} .. {result.flat[1]:.2g} cost at most 5 % "
                "more than the best one"
            )
        if result.best.rate > _HIGH:
            yield (
                f"{name}: the best rate is so high because normal images have scores as high as "
                "some of these defects; look at those defects: a longer training, a larger "
                "image_size or tiles may separate them"
            )
        if row.surprising:
            yield (
                f"{name}: at the best rate {row.false_alarms} of {row.normals} reviewed normal "
                "images are called anomalous, more than the rate explains. Either they were "
                "reviewed because they had been flagged, or normal parts have changed and need "
                "snl calibrate FILE NORMALS"
            )
    yield "nothing was changed; to set a rate:"
    for row in rows:
        name = row.product or "all products"
        words = ["snl", "calibrate", file, "--rate", f"{row.rate!r}"]
        words += ["--product", row.product] if row.product else []
        if row.unchanged:
            yield f"  {name}: the present rate is the best one"
            continue
        command = shlex.join(words)
        low, high = row.result.interval
        if row.present is not None and low <= row.present.rate <= high:
            command += "  (the present rate is within the interval)"
        if row.product is None and own:
            command += f"  (not of {', '.join(own)}, which have rates of their own)"
        yield f"  {name}: {command}"


def _flag(name: str) -> str:
    return "-o" if name == "output" else "--" + name.replace("_", "-")
