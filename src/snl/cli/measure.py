"""`snl evaluate`, `snl probe`, `snl report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from snl.cli.common import OK, PROBLEMS, about, progress_bar, say, show
from snl.errors import SettingsError


def evaluate(options: argparse.Namespace) -> int:
    """`snl evaluate`."""
    import snl
    from snl.files import check_output, write_json

    inspector = snl.load(options.file, options.device, precision=options.precision)
    catalog = snl.Catalog.read(options.data, options.layout)
    if options.json:
        check_output(options.json, [options.file])
    untaught = sorted(set(catalog.products) - set(inspector.products))
    if untaught:
        say(f"note: not taught to this inspector: {', '.join(untaught)}")
    evaluation = snl.evaluate(
        inspector,
        catalog,
        resolution=options.resolution,
        save_maps=options.save_maps,
        products_given=options.products == "given",
        progress=progress_bar("evaluating", options.quiet),
    )
    show(evaluation)
    if options.json:
        made = about(options, catalog, inspector, evaluation.skipped)
        made |= {"resolution": options.resolution, "products": options.products}
        write_json(options.json, {**evaluation.to_dict(), "about": made})
        say(f"metrics: {options.json}")
    if options.save_maps:
        say(f"maps: {options.save_maps}")
    return PROBLEMS if evaluation.skipped else OK


def probe(options: argparse.Namespace) -> int:
    """`snl probe`."""
    import snl
    from snl.evaluation.probe_results import format_probes
    from snl.files import check_output, write_json

    if options.picture:
        from snl.report.plots import check_matplotlib, draw_probes

        check_matplotlib()
    for path in filter(None, (options.json, options.picture)):
        check_output(path, [options.file, options.data])
    if options.json and options.picture and options.json.resolve() == options.picture.resolve():
        raise SettingsError(f"{options.json}: is both --json and --picture; give two names")
    inspector = snl.load(options.file, options.device, precision=options.precision)
    catalog = snl.Catalog.read(options.data, options.layout)
    result = snl.probe(
        inspector,
        catalog,
        products=options.products.split(",") if options.products else None,
        images=options.images,
        share=options.share,
        seed=options.seed,
        progress=progress_bar("probing", options.quiet),
    )
    print(format_probes(result), flush=True)
    for text in result.notes:
        say(f"note: {text}")
    for text in result.skipped:
        say(f"left out: {text}")
    if options.json:
        made = about(options, catalog, inspector, result.skipped)
        write_json(options.json, {**result.to_dict(), "about": made})
        say(f"figures: {options.json}")
    if options.picture:
        say(f"picture: {draw_probes(result, options.picture, Path(options.file).name)}")
    return PROBLEMS if result.skipped else OK


def report(options: argparse.Namespace) -> int:
    """`snl report`."""
    import snl
    from snl.files import check_output
    from snl.report.collect import report as write

    check_output(options.output, [options.file, options.data])
    inspector = snl.load(options.file, options.device, precision=options.precision)
    catalog = snl.Catalog.read(options.data, options.layout)
    evaluation = write(
        inspector,
        catalog,
        options.output,
        products_given=options.products == "given",
        progress=progress_bar("looking", options.quiet),
    )
    for line in evaluation.skipped:
        say(f"left out: {line}")
    size = options.output.stat().st_size / 1e6
    say(f"report: {options.output} ({len(evaluation.scores)} images, {size:.1f} MB)")
    return PROBLEMS if evaluation.skipped else OK
