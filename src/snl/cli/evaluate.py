"""`snl evaluate`: measure detection and localization on labelled test images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snl.cli import options as shared
from snl.cli.common import OK, PROBLEMS, about, progress_bar, say, show_evaluation, written_first
from snl.cli.inspect_parts import note_few_images
from snl.cli.remarks import say_remarks

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
    catalog = snl.Catalog.for_model(options.data, inspector, options.layout, options.part_pattern)
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
        if evaluation.parts:
            note_few_images(options.file, inspector, max(part.views for part in evaluation.parts))
    if options.json:
        say(f"metrics: {options.json}")
    if options.save_maps:
        say(f"maps: {options.save_maps}")
    return PROBLEMS if evaluation.skipped or evaluation.unusable_masks else OK
