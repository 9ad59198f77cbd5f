"""`snl calibrate`: show the calibration of a bundle or export, or change it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli import options as shared
from snl.cli.calibrate_changes import CHANGES, Options, change
from snl.cli.calibrate_reviews import add_reviews, check_data, files_read
from snl.cli.calibration_costs import add_costs, show_costs, wants_costs
from snl.cli.changes import BUSY, WAIT
from snl.cli.common import OK, PROBLEMS, image_files, say, show
from snl.errors import SettingsError

if TYPE_CHECKING:
    from snl.decision.calibration import Calibration
    from snl.runtime.inspector import Inspector

SUMMARY = "show the calibration of a bundle or change it, in seconds and without training"
OPTIONAL_PATH = "normals"
"""See `snl.cli.main.parse`."""
_MEASURED = ("normals", "false_alarms", "misses", "reviews", "tile")
"""Options for which the network is needed."""


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "calibrate",
        SUMMARY,
        "snl calibrate parts.snl",
        "snl calibrate parts.snl --rate 0.02 --product bottle",
        "snl calibrate parts.snl normals/ --add",
        "snl calibrate parts.snl --false-alarms ok1.jpg ok2.jpg --product bottle",
        "snl calibrate parts.snl --misses bad1.jpg --product bottle",
        "snl calibrate parts.snl --reviews reviews-parts.json --data parts/",
        "snl calibrate parts.snl --ignore bottle=label.png --mm-per-pixel bottle=0.05",
        "snl calibrate parts.snl --leave-out good/017.png --product bottle",
        "snl calibrate parts.snl --rule conformal --product bottle",
        "snl calibrate parts.snl reviewed/ --cost-miss 100 --cost-false-alarm 1",
        "snl calibrate parts.snl --undo",
    )
    verb.add_argument("file", metavar="FILE", help="bundle or export; it is changed in place")
    verb.add_argument(
        "normals",
        nargs="?",
        type=Path,
        metavar="NORMALS",
        help="normal images, in one folder per product (or use --product). They replace the "
        "held-out images of these products",
    )
    verb.add_argument(
        "--add", action="store_true", help="add NORMALS to the held-out images, do not replace"
    )
    verb.add_argument(
        "--product", metavar="NAME", help="product of the images, rates and values given"
    )
    shared.add_rates(verb)
    verb.add_argument(
        "--regions-rate",
        type=shared.rate,
        metavar="X",
        help="largest average number of regions marked in a normal image",
    )
    verb.add_argument(
        "--rule",
        choices=("shared-tail", "conformal"),
        help="how thresholds follow from held-out images. shared-tail (default): the centre of the "
        "product and the tail of all products, measured to keep the rate and steadier with few "
        "images; conformal: the images of the product alone, with a guarantee",
    )
    verb.add_argument(
        "--leave-out",
        nargs="+",
        metavar="NAME",
        help="remove held-out images, such as those that are said to stand alone",
    )
    verb.add_argument(
        "--tail",
        choices=("fit", "none"),
        help="fit: take rates too small for the number of held-out images from a fitted tail, "
        "which is an estimate without guarantee and needs 50 of them, of all products together",
    )
    _add_feedback(verb)
    verb.add_argument(
        "--tile",
        type=shared.tile,
        metavar="N",
        help="inspect images in tiles of N pixels from now on, 0: whole images; needs NORMALS of "
        "all products",
    )
    verb.add_argument(
        "--force",
        action="store_true",
        help="take NORMALS, --false-alarms, --misses and --reviews even if the calibration speaks "
        "against them: images of another or an unknown product, in a folder of the opposite label, "
        "among the normal images already, a threshold that would more than double, or reviews of "
        "another network",
    )
    verb.add_argument("--undo", action="store_true", help="undo the last change, as snl undo does")
    add_costs(verb)
    verb.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write to this file, leave FILE unchanged"
    )
    shared.add_precision(verb)
    shared.add_layout(verb)
    shared.add_max_pixels(verb)
    shared.add_device(verb)
    shared.add_quiet(verb)


def _add_feedback(verb: Any) -> None:
    """Add the options about single images and about regions."""
    verb.add_argument(
        "--false-alarms",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="images of normal parts that were flagged: add them to the held-out images",
    )
    verb.add_argument(
        "--misses",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="images of anomalous parts that were not flagged: raise the product's uncertain rate "
        "until they are",
    )
    add_reviews(verb)
    verb.add_argument(
        "--ignore",
        action="append",
        metavar="PRODUCT=MASK",
        help="ignore mask: an image that is white where the product is not inspected; none: "
        "inspect the product everywhere",
    )
    verb.add_argument(
        "--mm-per-pixel",
        action="append",
        metavar="PRODUCT=X",
        help="scale of the images, to report areas in mm2",
    )
    verb.add_argument(
        "--smallest",
        action="append",
        metavar="PRODUCT=N",
        help="do not report regions smaller than N pixels",
    )


def run(options: Options) -> int:
    """Change the calibration if requested, save it, and print it."""
    from snl.locks import locked

    check_data(options)
    if wants_costs(options):
        return show_costs(options)
    changes = options.undo or any(getattr(options, name) is not None for name in CHANGES)
    target = Path(options.output or options.file)
    if (not changes and not options.output) or not Path(options.file).is_file():
        return _run(options, target)  # only shows the calibration, or says that there is none
    _check_output(options, target)
    if _needs_network(options):
        _import_runtime(options.file)
    with locked(target, BUSY, wait=WAIT, note=say):
        return _run(options, target)


def _run(options: Options, target: Path) -> int:
    """Load the file, change and save it while it is locked, and print its calibration."""
    import snl
    from snl.cli.calibration_table import format_calibration, format_change
    from snl.decision.differences import described
    from snl.decision.edit import combine
    from snl.runtime.inspector import open_file
    from snl.signals import deferred

    if _needs_network(options):
        inspector = snl.load(
            options.file, options.device, precision=options.precision, max_pixels=options.max_pixels
        )
    else:
        inspector = open_file(options.file, options.device, max_pixels=options.max_pixels)
    if options.output and target.is_file():
        _check_same_network(inspector, target)
    if options.undo:
        _undo(options, inspector.calibration, target)
        return OK
    before = inspector.calibration
    edits: list[Calibration] = []
    caught = change(options, inspector, edits)
    wanted = any(getattr(options, name) is not None for name in CHANGES)
    if not edits and wanted:
        say(f"{options.file}: nothing was changed")
    edits = _with_effect(inspector, edits)
    if edits:  # all changes of one command are one version, which --undo takes back
        inspector.recalibrate(combine(inspector.calibration, edits))
    if options.output or edits:
        with deferred():  # before printing: the reader of the table may close the pipe
            inspector.save(target)
        done = described("calibrated", before, edits[-1]) if edits else "written"
        say(f"{target}: {done}{'; --undo takes it back' if edits else ''}")
    if edits:
        show(format_change(before, edits[-1]))
    elif not wanted:
        show(format_calibration(inspector))
    return OK if caught else PROBLEMS


def _needs_network(options: Options) -> bool:
    """Return whether images are measured."""
    return any(getattr(options, name) is not None for name in _MEASURED)


def _import_runtime(file: str) -> None:
    """Import what takes seconds, before others have to wait for the lock."""
    if Path(file).suffix.lower() not in (".onnx", ".xml"):
        with suppress(ImportError):  # loading the file says what is missing
            import snl.runtime.torch_engine  # noqa: F401


def _check_output(options: Options, target: Path) -> None:
    """Check before any work that the file can be written, and is none of those that are read.

    Raises:
        SnlError: see `snl.outputs.check_outputs`; also a name of another kind of file.
    """
    from snl.kinds import model_kind
    from snl.outputs import Output, check_outputs

    kind = model_kind(Path(options.file))
    inputs = image_files([*(options.false_alarms or ()), *(options.misses or ())], quiet=True)
    inputs += files_read(options)
    inputs += [Path(text.rpartition("=")[2]) for text in options.ignore or ()]
    if options.normals is not None and options.normals.exists():
        inputs += [options.normals, *_normal_files(options)]
    # the file itself is checked when it is loaded
    output = Output("-o", target, kind, anything=target == Path(options.file))
    check_outputs([output], inputs)


def _normal_files(options: Options) -> Iterator[Path]:
    """Yield the files of NORMALS."""
    from snl.runtime.recalibrate import records_in

    assert options.normals is not None
    for record in records_in(options.normals, options.product, options.layout):
        yield record.path
        yield from record.mask


def _check_same_network(inspector: Inspector, target: Path) -> None:
    """Check that an existing file holds the network that the new calibration is for.

    Raises:
        SettingsError: it holds another one, which would be lost.
    """
    from snl.runtime.describe import describe

    existing = describe(target)["model"]["network"]
    if existing != inspector.predictor.metadata.network:
        raise SettingsError(
            f"{target}: exists and holds another model; it is not replaced: move it away, or "
            "choose another name for -o"
        )


def _with_effect(inspector: Inspector, edits: list[Calibration]) -> list[Calibration]:
    """Return the changes, or none if together they change nothing."""
    from snl.decision.edit import combine, is_same

    if not edits or not is_same(combine(inspector.calibration, edits), inspector.calibration):
        return edits
    say("nothing changed: the result is the calibration in force")
    return []


def _undo(options: Options, before: Calibration, target: Path) -> None:
    """Undo the last change and show what that means for thresholds.

    Raises:
        SettingsError: a change is requested too, or there is nothing to undo.
    """
    import snl
    from snl.cli.calibration_table import format_change
    from snl.runtime.inspector import open_file
    from snl.signals import deferred

    also = [name for name in CHANGES if getattr(options, name) is not None]
    if also:
        name = "NORMALS" if also[0] == "normals" else "--" + also[0].replace("_", "-")
        raise SettingsError(f"--undo cannot be combined with a change; leave out {name}")
    with deferred():
        undone = snl.undo(options.file, target)
    say(f"{target}: undone: {undone}")
    show(format_change(before, open_file(target, options.device).calibration))
