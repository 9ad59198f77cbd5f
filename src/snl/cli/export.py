"""`snl export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from snl.cli.common import OK, progress_bar, say


def export(options: argparse.Namespace) -> int:
    """`snl export`."""
    import snl
    from snl.export.write import FORMATS
    from snl.export.write import export as write
    from snl.files import check_output

    output: Path = options.output
    kinds = {suffix: name for name, suffix in FORMATS.items()}
    kind = options.format or kinds.get(output.suffix, "onnx")
    if output.is_dir() or not output.suffix:
        output = output / Path(options.file).with_suffix(FORMATS[kind]).name
    check_output(output, [options.file])
    inspector = snl.load(options.file, options.device)
    data = None if options.data is None else snl.Catalog.read(options.data, options.layout)
    checked = write(
        inspector,
        output,
        format=kind,
        precision=options.precision,
        data=data,
        batch=options.batch,
        progress=progress_bar("comparing", options.quiet),
    )
    each = ", ".join(f"{name} {value:.1e}" for name, value in checked.differences.items())
    say(f"largest relative differences on {checked.images} images: {each}")
    for name, (before, after) in (checked.aurocs or {}).items():
        if before is not None and after is not None:
            say(f"{name} AUROC: {100 * before:.2f} by the bundle, {100 * after:.2f} by the export")
    if options.precision != "fp32":
        if not checked.aurocs:
            say("note: no labelled images were given (--data), so its AUROC was not compared")
        if not checked.recalibrated:
            say(
                "note: thresholds are those of fp32; give the held-back images by --data, or "
                f"snl calibrate {output} NORMALS"
            )
    say(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
    return OK
