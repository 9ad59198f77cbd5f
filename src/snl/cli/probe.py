"""`snl probe`: measure how much products interfere in one model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli import options as shared
from snl.cli.common import OK, PROBLEMS, about, progress_bar, say, say_skipped, show, written_first

if TYPE_CHECKING:
    from snl.data.catalog import Catalog

SUMMARY = "measure how much products interfere: are blends and pasted patches of two anomalous?"


class Options(
    shared.PrecisionOption,
    shared.LayoutOption,
    shared.PixelsOption,
    shared.DeviceOption,
    shared.QuietOption,
):  # fmt: skip
    """Options of `snl probe`."""

    file: str
    data: str
    json: Path | None
    picture: Path | None
    products: str | None
    images: int
    share: float
    seed: int


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "probe",
        SUMMARY,
        "snl probe parts.snl parts/",
        "snl probe parts.snl parts/ --json probes.json --picture probes.png",
        "snl probe parts.snl parts/ --products bottle,screw --images 50",
    )
    verb.add_argument("file", metavar="FILE", help="bundle or export; its products are the rows")
    verb.add_argument(
        "data",
        metavar="DATA",
        help="folder of products, or a manifest; its products are the columns",
    )
    verb.add_argument("--json", type=Path, metavar="OUT", help="write the figures of every pair")
    verb.add_argument(
        "--picture", type=Path, metavar="OUT", help="write heat maps as PNG (needs matplotlib)"
    )
    verb.add_argument("--products", metavar="A,B", help="use only these products of DATA")
    verb.add_argument(
        "--images",
        type=shared.whole(1, 1000),
        default=20,
        metavar="N",
        help="images for each pair and probe (default: 20)",
    )
    verb.add_argument(
        "--share",
        type=shared.number_in(0, 1),
        default=0.5,
        metavar="X",
        help="weight of the row's product in a blend (default: 0.5)",
    )
    verb.add_argument(
        "--seed",
        type=shared.seed,
        default=0,
        metavar="N",
        help="seed of the random choices (default: 0)",
    )
    shared.add_precision(verb)
    shared.add_layout(verb)
    shared.add_max_pixels(verb)
    shared.add_device(verb)
    shared.add_quiet(verb)


def run(options: Options) -> int:
    """Probe every pair of products, print the table and write figures and picture."""
    import snl
    from snl.evaluation.probe_results import format_probes
    from snl.reporting.plots import check_matplotlib, draw_probes

    if options.picture:
        check_matplotlib()
    inspector = snl.load(
        options.file, options.device, precision=options.precision, max_pixels=options.max_pixels
    )
    catalog = snl.Catalog.for_model(options.data, inspector, options.layout)
    _check_outputs(options, catalog)
    result = snl.probe(
        inspector,
        catalog,
        products=options.products.split(",") if options.products else None,
        images=options.images,
        share=options.share,
        seed=options.seed,
        progress=progress_bar("probing", options.quiet),
    )
    measured_on = about(options.file, catalog, inspector, result.skipped)
    with written_first(options.json, {**result.to_dict(), "about": measured_on}):
        show(format_probes(result))
        for text in result.notes:
            say(f"note: {text}")
        say_skipped(result.skipped)
    if options.json:
        say(f"figures: {options.json}")
    if options.picture:
        say(f"picture: {draw_probes(result, options.picture, Path(options.file).name)}")
    return PROBLEMS if result.skipped else OK


def _check_outputs(options: Options, catalog: Catalog) -> None:
    """Check before any work that the outputs can be written.

    Raises:
        SnlError: an output cannot or must not be written.
    """
    from snl.data.inputs import catalog_files
    from snl.kinds import PICTURE, PROBES
    from snl.outputs import Output, check_outputs

    outputs = [Output("--json", options.json, PROBES)] if options.json else []
    if options.picture:
        outputs.append(Output("--picture", options.picture, PICTURE))
    check_outputs(outputs, [options.file, *catalog_files(catalog, options.data)])
