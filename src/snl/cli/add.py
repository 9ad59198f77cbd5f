"""`snl add`: add products to a bundle, without the images of its other products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli import options as shared
from snl.cli import rois
from snl.cli.calibration_table import missing, move
from snl.cli.common import OK, say

if TYPE_CHECKING:
    from snl.decision.calibration import Calibration

SUMMARY = "add products to a bundle, without the images of its other products"


class Options(
    shared.BudgetOptions,
    shared.LayoutOption,
    rois.RoiOption,
    shared.PixelsOption,
    shared.DeviceOption,
    shared.QuietOption,
):
    """Options of `snl add`."""

    file: str
    normals: Path
    product: str | None
    output: Path | None
    replace: bool
    quick: bool
    steps: int | None
    force: bool


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "add",
        SUMMARY,
        "snl add parts.snl new/",
        "snl add parts.snl gears/ --product gear",
        "snl add parts.snl gears/ --product gear -o parts-2.snl",
        "snl add parts.snl gears-new-light/ --product gear --replace",
        "snl add parts.snl gears/ --product gear --quick",
        "snl add parts.snl gears/ --product gear --roi 40,20,300,200",
        more="The products can be inspected after some seconds; then adapters of the student are "
        "trained for them, for a tenth of its former steps. The scores of the other "
        "products do not change; their thresholds may move a little. An interrupted "
        "command goes on if it is given again. snl undo FILE takes it "
        "back.",
    )
    verb.add_argument("file", metavar="FILE", help="bundle of snl train; it is changed in place")
    verb.add_argument(
        "normals",
        type=Path,
        metavar="NORMALS",
        help="normal images of the new products, in one folder per product (or use --product), or "
        "a manifest; 4 or more of each",
    )
    verb.add_argument("--product", metavar="NAME", help="product that all NORMALS show")
    verb.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write to this file, leave FILE unchanged"
    )
    verb.add_argument(
        "--replace",
        action="store_true",
        help="the products are known; NORMALS show their new version, such as a new revision or a "
        "new light, and the old one is no longer normal",
    )
    verb.add_argument(
        "--quick", action="store_true", help="only make the products known, without training"
    )
    verb.add_argument(
        "--steps",
        type=shared.setting("training.steps"),
        metavar="N",
        help="steps of the training (default: a tenth of those of the whole training)",
    )
    verb.add_argument(
        "--force",
        action="store_true",
        help="take NORMALS even if they look like a known product, or are in folders of anomalous "
        "images",
    )
    shared.add_budget(verb)
    shared.add_layout(verb)
    rois.add_roi(verb)
    shared.add_max_pixels(verb)
    shared.add_device(verb)
    shared.add_quiet(verb)


def _moved(before: Calibration, after: Calibration, new: Sequence[str]) -> str | None:
    """Return how far the thresholds of the other products have moved; None: they have not."""
    others = [name for name in before.products if name not in new and name in after.sets]
    shares = [share for name in others if math.isfinite(share := move(before, after, name))]
    if not shares or max(shares) < 0.005:
        return None
    return (
        f"thresholds of the other products move by up to {100 * max(shares):.1f} %: how far normal "
        "scores reach is learned from all products (snl calibrate FILE shows them)"
    )


def run(options: Options) -> int:
    """Add the products, and show what the calibration of each of them allows."""
    import snl
    from snl.kinds import BUNDLE, model_kind
    from snl.runtime.inspector import open_file
    from snl.signals import Stopped
    from snl.training.cache import CacheBudget

    is_bundle = Path(options.file).is_file() and model_kind(Path(options.file)) is BUNDLE
    before = open_file(options.file).calibration if is_bundle else None  # otherwise refused
    try:
        inspector = snl.add(
            options.file,
            options.normals,
            product=options.product,
            output=options.output,
            replace=options.replace,
            quick=options.quick,
            steps=options.steps,
            rois=rois.rois_of(options.roi, options.product),
            force=options.force,
            layout=options.layout,
            device=options.device,
            cache=CacheBudget(options.cache_memory, options.cache_disk),
            checkpoint_every=options.checkpoint_every,
            max_pixels=options.max_pixels,
            quiet=options.quiet,
            note=say,
        )
    except Stopped as stop:
        say(f"{stop}; to continue, run the same command again")
        return stop.status
    new = inspector.training.facts["additions"][-1]["products"]
    for line in missing(inspector.calibration, new):
        say(f"note: {line}")
    if before is not None and (text := _moved(before, inspector.calibration, new)):
        say(f"note: {text}")
    say(f"{options.output or options.file}: {len(inspector.products)} products")
    return OK
