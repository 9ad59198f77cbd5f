"""`snl demo`: generate parts, train on them, and write every kind of result."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli import options as shared
from snl.cli.common import OK, progress_bar, save_overlay, say, show_evaluation
from snl.errors import DataError

if TYPE_CHECKING:
    from snl.evaluation.result import Evaluation
    from snl.runtime.inspector import Inspector

SUMMARY = "generate demo parts, train, evaluate, and save the inspector, overlays and a report"

SETTINGS: dict[str, Any] = {
    "image_size": 192,
    "training.steps": 600,
}
"""Settings that train within three minutes on two cores."""


class Options(shared.DeviceOption, shared.QuietOption):
    """Options of `snl demo`."""

    out: Path
    seed: int


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs, "demo", SUMMARY, "snl demo", "snl demo --out demo1 --seed 1"
    )  # fmt: skip
    verb.add_argument(
        "--out",
        type=Path,
        default=Path("demo"),
        metavar="DIR",
        help="output folder (default: demo)",
    )
    verb.add_argument(
        "--seed",
        type=shared.seed,
        default=0,
        metavar="N",
        help="seed of the images and of training (default: 0)",
    )
    shared.add_device(verb)
    shared.add_quiet(verb)


def run(options: Options) -> int:
    """Generate the images, train, evaluate and write all results into one folder."""
    import snl
    from snl.files import write_json
    from snl.reporting.collect import report

    started = time.perf_counter()
    train = snl.train  # fails before any work if PyTorch is missing
    out = options.out
    data, file, page = out / "parts", out / "demo.snl", out / "report.html"
    _check_outputs(out)
    _make_data(options, data)
    inspector = train(
        data,
        output=file,
        overrides={**SETTINGS, "training.seed": options.seed},
        device=options.device,
        overwrite=True,
        quiet=options.quiet,
        note=say,
    )
    catalog = snl.Catalog.read(data)
    evaluation = report(
        inspector, catalog, page, progress=progress_bar("evaluating", options.quiet)
    )
    show_evaluation(evaluation)
    write_json(out / "metrics.json", evaluation.to_dict())
    overlays = _save_overlays(inspector, evaluation, out / "overlays")
    seconds = time.perf_counter() - started
    say(
        f"done in {seconds:.0f} s\n"
        f"  images    {data}\n  inspector {file}\n  metrics   {out / 'metrics.json'}\n"
        f"  overlays  {overlays}\n  report    {page}  (open it in a browser)\n"
        f"next: snl inspect {file} {data / catalog.products[0] / 'test'} --out {out / 'inspected'}",
        lines=True,
    )
    return OK


def _check_outputs(out: Path) -> None:
    """Check before any work that the folder is new, or holds an earlier demo and nothing that would
    be replaced.

    Raises:
        DataError: a file, or a folder with something other than a demo.
        SnlError: see `snl.outputs.check_outputs`.
    """
    from snl import kinds
    from snl.outputs import Output, check_outputs

    if out.is_file():
        raise DataError(f"{out}: is a file; choose another folder with --out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not _has_demo(out):
        raise DataError(f"{out}: is not empty and holds no demo; choose another folder with --out")
    files = (
        ("demo.snl", kinds.BUNDLE),
        ("report.html", kinds.PAGE),
        ("metrics.json", kinds.METRICS),
    )
    outputs = [Output("--out", out / name, kind) for name, kind in files]
    overlays = (out / "overlays").glob("*.png")
    outputs.append(Output("--out", out / "overlays", kinds.PICTURE, tuple(overlays)))
    check_outputs(outputs)


def _has_demo(out: Path) -> bool:
    return (out / "parts" / "README.txt").is_file()


def _make_data(options: Options, data: Path) -> None:
    """Generate the demo images, unless an earlier demo has done so."""
    import snl

    if _has_demo(options.out):
        say(f"{data}: using the demo images that exist")
        return
    snl.make_demo(data, seed=options.seed, progress=progress_bar("drawing parts", options.quiet))


def _save_overlays(inspector: Inspector, evaluation: Evaluation, folder: Path) -> Path:
    """Save the normal and the anomalous image of median score of each product."""
    for product in evaluation.products:
        for label in ("normal", "anomalous"):
            scores = [s for s in evaluation.scores if (s.product, s.label) == (product, label)]
            median = sorted(scores, key=lambda s: s.score)[len(scores) // 2]
            result = inspector.inspect(median.path)
            save_overlay(result.overlay(), folder / f"{product}-{label}.png")
    return folder
