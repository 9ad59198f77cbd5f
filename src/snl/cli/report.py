"""`snl report`: write one HTML page with the results on labelled test images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snl.cli import options as shared
from snl.cli.common import OK, PROBLEMS, progress_bar, say, say_left_out
from snl.cli.remarks import say_remarks

SUMMARY = "write one HTML page on labelled test images: decisions, errors, what-if rates, metrics"


class Options(
    shared.ProductsOption,
    shared.PrecisionOption,
    shared.LayoutOption,
    shared.PartOption,
    shared.PixelsOption,
    shared.DeviceOption,
    shared.QuietOption,
):
    """Options of `snl report`."""

    file: str
    data: str
    output: Path


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(verbs, "report", SUMMARY, "snl report parts.snl parts/ -o report.html")
    verb.add_argument("file", metavar="FILE", help="bundle or export")
    verb.add_argument("data", metavar="DATA", help="folder of products, or a manifest")
    verb.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="page to write (.html)"
    )
    shared.add_products_known(verb)
    shared.add_precision(verb)
    shared.add_layout(verb)
    shared.add_part_pattern(verb)
    shared.add_max_pixels(verb)
    shared.add_device(verb)
    shared.add_quiet(verb)


def run(options: Options) -> int:
    """Evaluate and write the page."""
    import snl
    from snl.data.inputs import catalog_files
    from snl.kinds import PAGE
    from snl.outputs import Output, check_outputs
    from snl.reporting.collect import report

    inspector = snl.load(
        options.file, options.device, precision=options.precision, max_pixels=options.max_pixels
    )
    catalog = snl.Catalog.for_model(
        options.data, inspector, options.layout, options.part_pattern, unseen=True
    )
    inputs: list[str | Path] = [options.file, *catalog_files(catalog, options.data)]
    check_outputs([Output("-o", options.output, PAGE)], inputs)
    evaluation = report(
        inspector,
        catalog,
        options.output,
        products_given=options.products == "given",
        progress=progress_bar("evaluating", options.quiet),
    )
    say_left_out(evaluation)
    say_remarks(evaluation.remarks)
    size = options.output.stat().st_size / 1e6
    say(f"report: {options.output} ({len(evaluation.scores)} images, {size:.1f} MB)")
    return PROBLEMS if evaluation.skipped or evaluation.unusable_masks else OK
