"""`snl export`: write a bundle as a graph that runs without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli import options as shared
from snl.cli.common import OK, progress_bar, say

if TYPE_CHECKING:
    from snl.exporting.check import Checked

SUMMARY = "write a graph that runs without PyTorch, and check that it agrees with the bundle"
FORMATS = ("onnx", "openvino")
PRECISIONS = ("fp32", "fp16", "int8")


class Options(shared.LayoutOption, shared.PixelsOption, shared.DeviceOption, shared.QuietOption):
    """Options of `snl export`."""

    file: str
    output: Path
    format: str | None
    precision: str
    data: Path | None
    batch: int | None


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "export",
        SUMMARY,
        "snl export parts.snl -o parts.onnx",
        "snl export parts.snl -o parts.xml",
        "snl export parts.snl -o parts-int8.onnx --precision int8 --data parts/",
        more="snl inspect, evaluate, report, calibrate and info accept the exported file as FILE.",
    )
    verb.add_argument("file", metavar="FILE", help="bundle of snl train")
    verb.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help=".onnx file (ONNX Runtime), .xml file (OpenVINO), or a folder",
    )
    verb.add_argument(
        "--format", choices=FORMATS, help="default: by the suffix of OUT; onnx for a folder"
    )
    verb.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="number format (default: fp32)"
    )
    verb.add_argument(
        "--data",
        type=Path,
        metavar="DATA",
        help="images to check the export with. int8 needs normal images to choose its value "
        "ranges. With labelled images, the AUROC may fall by at most 0.2 points (fp16) or 0.5 "
        "points (int8)",
    )
    verb.add_argument(
        "--batch", type=shared.batch_size, metavar="N", help="fixed batch size (default: any size)"
    )
    shared.add_layout(verb)
    shared.add_max_pixels(verb)
    shared.add_device(verb)
    shared.add_quiet(verb)


def run(options: Options) -> int:
    """Export, check, and report the differences between bundle and export."""
    import snl
    from snl.data.inputs import catalog_files
    from snl.exporting.write import export
    from snl.kinds import ONNX, OPENVINO
    from snl.outputs import Output, check_outputs

    output, format = _target(options)
    inspector = snl.load(options.file, options.device, max_pixels=options.max_pixels)
    given = options.data
    data = None if given is None else snl.Catalog.for_model(given, inspector, options.layout)
    inputs = [] if data is None else catalog_files(data, options.data)
    kind = ONNX if format == "onnx" else OPENVINO
    check_outputs([Output("-o", output, kind)], [options.file, *inputs])
    if not options.quiet:
        say("writing the graph; this takes 15 to 60 seconds")
    checked = export(
        inspector,
        output,
        format=format,
        precision=options.precision,
        data=data,
        batch=options.batch,
        progress=progress_bar("comparing", options.quiet),
    )
    _report(checked, options.precision, output)
    return OK


def _target(options: Options) -> tuple[Path, str]:
    """Return the file to write and its format."""
    from snl.exporting.write import FORMATS as SUFFIXES

    output = options.output
    formats = {suffix: name for name, suffix in SUFFIXES.items()}
    format = options.format or formats.get(output.suffix.lower(), "onnx")
    if output.is_dir() or not output.suffix:
        output = output / Path(options.file).with_suffix(SUFFIXES[format]).name
    return output, format


def _report(checked: Checked, precision: str, output: Path) -> None:
    """Say how far the export differs from the bundle, and what was not checked."""
    differences = ", ".join(f"{name} {value:.1e}" for name, value in checked.differences.items())
    say(f"largest relative differences on {checked.images} images: {differences}")
    for name, (bundle, export) in (checked.aurocs or {}).items():
        if bundle is not None and export is not None:
            say(f"{name} AUROC: {100 * bundle:.2f} by the bundle, {100 * export:.2f} by the export")
    if precision != "fp32":
        if not checked.aurocs:
            say("note: no labelled images were given with --data, so the AUROC was not compared")
        if not checked.recalibrated:
            say(
                "note: the thresholds are those of fp32; give the held-out images with --data, or "
                f"run snl calibrate {output} NORMALS"
            )
    files = [output] if output.suffix.lower() == ".onnx" else [output, output.with_suffix(".bin")]
    for file in files:
        say(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    if len(files) > 1:
        say(f"{output.name} is read together with {files[1].name}: copy both into one folder")
    extra = "runtime" if len(files) == 1 else "openvino"
    say(
        f"next: where it runs, pip install 'snl-ad[{extra}]' and snl inspect {output.name} IMAGES; "
        "PyTorch is not needed there"
    )
