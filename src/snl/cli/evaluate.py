"""`snl evaluate`: measure detection and localization on labelled test images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli import options as shared
from snl.cli.common import OK, PROBLEMS, about, progress_bar, say, show_evaluation, written_first
from snl.cli.inspect_parts import note_few_images
from snl.cli.remarks import say_remarks

if TYPE_CHECKING:
    from snl.evaluation.result import Evaluation
    from snl.runtime.inspector import Inspector

SUMMARY = "measure detection and localization on labelled test images"


class Options(
    shared.ProductsOption,
    shared.PrecisionOption,
    shared.LayoutOption,
    shared.PartOption,
    shared.PixelsOption,
    shared.DeviceOption,
    shared.QuietOption,
):
    """Options of `snl evaluate`."""

    file: str
    data: str
    json: Path | None
    save_maps: Path | None
    resolution: str
    kinds: bool
    all_products: bool


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "evaluate",
        SUMMARY,
        "snl evaluate parts.snl parts/",
        "snl evaluate parts.snl parts/ --json metrics.json --save-maps maps/",
        "snl evaluate parts.snl parts/ --products given",
    )
    verb.add_argument("file", metavar="FILE", help="bundle or export")
    verb.add_argument("data", metavar="DATA", help="folder of products, or a manifest")
    verb.add_argument("--json", type=Path, metavar="OUT", help="write the metrics as JSON")
    verb.add_argument(
        "--save-maps",
        type=Path,
        metavar="DIR",
        help="write the raw anomaly maps at the size of the images, as float32 .npy files",
    )
    verb.add_argument(
        "--resolution",
        choices=("input", "original"),
        default="input",
        help="size at which pixel metrics are computed: the network's input size, as in "
        "publications (default), or the size of each image",
    )
    verb.add_argument(
        "--kinds",
        action="store_true",
        help="print detection rates by kind of defect however long the table is; the JSON always "
        "has them",
    )
    verb.add_argument(
        "--all-products",
        action="store_true",
        help="print every product; without it, of more than 30 the 30 with the lowest image AUROC",
    )
    shared.add_products_known(verb)
    shared.add_precision(verb)
    shared.add_layout(verb)
    shared.add_part_pattern(verb)
    shared.add_max_pixels(verb)
    shared.add_device(verb)
    shared.add_quiet(verb)


GUESSING = 0.6
"""Image AUROC below which a model is called no better than guessing."""


def _seen_before(evaluation: Evaluation, inspector: Inspector) -> Iterator[str]:
    """Yield how many normal test images the model knows: they say nothing about new images."""
    training = inspector.training
    known = {
        "trained on": set(training.hashes.tolist()),
        "held-out images of the calibration": inspector.calibration.held_out,
    }
    normal = [image.path for image in evaluation.scores if image.label == "normal"]
    contents = []
    for path in normal:
        with suppress(OSError):  # it was read before, and is gone now
            contents.append(training.content_hash(path))
    for what, hashes in known.items():
        if count := sum(content in hashes for content in contents):
            yield (
                f"{count} of {len(normal)} normal test images are {what}, so their false alarms "
                "say nothing about new images"
            )


def _no_better_than_chance(evaluation: Evaluation) -> Iterator[str]:
    """Yield which products the model cannot judge, and what may help."""
    values = {name: row["image_auroc"] for name, row in evaluation.products.items()}
    low = {name: value for name, value in values.items() if value is not None and value < GUESSING}
    if low:
        some = ", ".join(f"{name} ({100 * value:.1f})" for name, value in list(low.items())[:5])
        yield (
            f"image AUROC close to guessing (50) for {some}{', ...' if len(low) > 5 else ''}: "
            "train longer (snl train --steps), with a larger --image-size or --tile, or "
            "another --teacher"
        )


def run(options: Options) -> int:
    """Evaluate, print the tables and write the metrics and maps."""
    import snl
    from snl.data.inputs import catalog_files
    from snl.evaluation.evaluate import map_files
    from snl.kinds import MAP, METRICS
    from snl.outputs import Output, check_outputs

    inspector = snl.load(
        options.file, options.device, precision=options.precision, max_pixels=options.max_pixels
    )
    catalog = snl.Catalog.for_model(
        options.data, inspector, options.layout, options.part_pattern, unseen=True
    )
    outputs = [Output("--json", options.json, METRICS)] if options.json else []
    if options.save_maps:
        files = map_files(options.save_maps, catalog)
        outputs.append(Output("--save-maps", options.save_maps, MAP, tuple(files.values())))
    check_outputs(outputs, [options.file, *catalog_files(catalog, options.data)])
    unknown = sorted(set(catalog.products) - set(inspector.products))
    if unknown:
        more = ", ..." if len(unknown) > 20 else ""
        say(f"note: not products of this inspector: {', '.join(unknown[:20])}{more}")
    evaluation = snl.evaluate(
        inspector,
        catalog,
        resolution=options.resolution,
        save_maps=options.save_maps,
        products_given=options.products == "given",
        progress=progress_bar("evaluating", options.quiet),
    )
    measured_on = about(options.file, catalog, inspector, evaluation.skipped)
    measured_on |= {"resolution": options.resolution, "products": options.products}
    with written_first(options.json, {**evaluation.to_dict(), "about": measured_on}):
        show_evaluation(
            evaluation,
            kinds=True if options.kinds else None,
            all_products=options.all_products,
        )
        say_remarks(evaluation.remarks)
        for text in (*_seen_before(evaluation, inspector), *_no_better_than_chance(evaluation)):
            say(f"note: {text}")
        if evaluation.parts:
            note_few_images(options.file, inspector, max(part.views for part in evaluation.parts))
    if options.json:
        say(f"metrics: {options.json}")
    if options.save_maps:
        say(f"maps: {options.save_maps}")
    return PROBLEMS if evaluation.skipped or evaluation.unusable_masks else OK
