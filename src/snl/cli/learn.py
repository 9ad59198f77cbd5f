"""`snl demo`, `snl doctor`, `snl train`, `snl bench`."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli.common import (
    OK,
    PROBLEMS,
    STOPPED,
    overrides,
    progress_bar,
    save_overlay,
    say,
    show,
)
from snl.errors import DataError

if TYPE_CHECKING:
    from snl.evaluation.evaluate import Evaluation
    from snl.runtime.inspector import Inspector

DEMO_SETTINGS: dict[str, Any] = {
    "image_size": 192,
    "training.steps": 600,
}
"""Of `snl demo`: what fits into three minutes on two cores."""


def train(options: argparse.Namespace) -> int:
    """`snl train`."""
    import snl
    from snl.training.cache import CacheBudget
    from snl.training.loop import Interrupted

    began = time.perf_counter()
    try:
        inspector = snl.train(
            options.data,
            output=options.output,
            method=options.method,
            preset=options.preset,
            overrides=overrides(options),
            layout=options.layout,
            device=options.device,
            resume=options.resume,
            overwrite=options.overwrite,
            cache=CacheBudget(options.cache_memory, options.cache_disk),
            skip_bad=options.on_bad_image == "skip",
            checkpoint_every=options.checkpoint_every,
            tensorboard=options.tensorboard,
            quiet=options.quiet,
            note=say,
        )
    except Interrupted as stop:
        say(f"{stop}; the same command with --resume goes on from there")
        return STOPPED
    facts = inspector.facts.training
    seconds = time.perf_counter() - began
    say(f"{options.output}: {facts['steps']} steps, {seconds:.0f} s, loss {facts['loss']:.4f}")
    _tell_calibration(inspector)
    return OK


def _tell_calibration(inspector: Inspector) -> None:
    """What the held-back images can promise."""
    calibration, rate = inspector.calibration, inspector.rates.anomalous
    held = sum(map(len, calibration.normals.values()))
    if inspector.threshold() is None:
        say(
            f"{held} normal images were held back; a false-alarm rate of {rate:g} needs "
            f"{math.ceil(1 / rate - 1e-9) - 1}, so decisions will be 'uncertain'. Ways out: more "
            "normal images, --set training.holdout=0.3 here, or snl inspect --rate "
            f"{math.ceil(100 / (held + 1)) / 100:g} or more"
        )
        return
    few = [name for name, own in calibration.normals.items() if (len(own) + 1) * rate < 1 - 1e-9]
    if few:
        some = ", ".join(few[:5]) + (", ..." if len(few) > 5 else "")
        say(
            f"note: too few images of {some} were held back for a false-alarm rate of {rate:g} of "
            "their own; the images of all products together decide there"
        )


def doctor(options: argparse.Namespace) -> int:
    """`snl doctor`."""
    from snl.data.catalog import Catalog
    from snl.data.doctor import diagnose, format_diagnosis, to_dict
    from snl.files import check_output, write_json

    catalog = Catalog.read(options.data, options.layout)
    if options.json:
        check_output(options.json)
    diagnosis = diagnose(catalog, progress=progress_bar("reading images", options.quiet))
    print(format_diagnosis(diagnosis))
    if options.json:
        write_json(options.json, to_dict(diagnosis))
    return OK if diagnosis.ok else PROBLEMS


def demo(options: argparse.Namespace) -> int:
    """`snl demo`."""
    import snl
    from snl.files import write_json
    from snl.report.collect import report

    began = time.perf_counter()
    fit = snl.train  # says at once if PyTorch is missing
    out = Path(options.out)
    data, file = out / "parts", out / "demo.snl"
    if out.is_file():
        raise DataError(f"{out}: is a file; choose another folder by --out")
    if out.exists() and any(out.iterdir()):
        if not (out / "parts" / "README.txt").is_file():
            raise DataError(f"{out}: is not empty and no demo; choose another folder by --out")
        say(f"{data}: the demo images are there already")
    else:
        snl.make_demo(
            data, seed=options.seed, progress=progress_bar("drawing parts", options.quiet)
        )
    inspector = fit(
        data,
        output=file,
        overrides={**DEMO_SETTINGS, "training.seed": options.seed},
        device=options.device,
        overwrite=True,
        quiet=options.quiet,
        note=say,
    )
    catalog = snl.Catalog.read(data)
    page = out / "report.html"
    told = progress_bar("evaluating", options.quiet)
    evaluation = report(inspector, catalog, page, progress=told)
    show(evaluation)
    write_json(out / "metrics.json", evaluation.to_dict())
    overlays = _demo_overlays(inspector, evaluation, out / "overlays")
    seconds = time.perf_counter() - began
    say(
        f"done in {seconds:.0f} s\n"
        f"  images    {data}\n  inspector {file}\n  metrics   {out / 'metrics.json'}\n"
        f"  overlays  {overlays}\n  report    {page}  (open it in a browser)\n"
        f"next: snl inspect {file} {data / catalog.products[0] / 'test'} --out {out / 'inspected'}"
    )
    return OK


def bench(options: argparse.Namespace) -> int:
    """`snl bench`."""
    if options.benchmark == "inference":
        from snl.bench.inference import format_speeds, measure

        told = progress_bar("measuring", options.quiet)
        print(format_speeds(measure(options.root, options.device, told)), flush=True)
        return OK
    from snl.bench import protocol as bench
    from snl.training.cache import CacheBudget

    task = bench.Task(
        options.benchmark,
        options.root,
        options.out or Path(f"bench-{options.benchmark}"),
        options.method,
        options.preset,
        overrides(options),
        tuple(name.strip() for name in options.classes.split(",") if name.strip()),
        options.seeds,
        options.device,
        CacheBudget(options.cache_memory, options.cache_disk),
        options.checkpoint_every,
        options.overwrite,
        options.quiet,
        say,
    )
    try:
        if options.only is not None:
            print(bench.run_seed(task, options.only))
            return OK
        print(bench.run(task))
    except KeyboardInterrupt as stop:
        again = " without --overwrite" if options.overwrite else ""
        say(f"{str(stop) or 'stopped'}; the same command{again} goes on from there")
        return STOPPED
    say(f"results: {task.output}")
    return OK


def _demo_overlays(inspector: Inspector, evaluation: Evaluation, folder: Path) -> Path:
    """The normal and the anomalous image of median score of each product."""
    for product in evaluation.products:
        for label in ("normal", "anomalous"):
            scores = [s for s in evaluation.scores if (s.product, s.label) == (product, label)]
            middle = sorted(scores, key=lambda s: s.score)[len(scores) // 2]
            result = inspector.inspect(middle.path)
            save_overlay(result.overlay(), folder / f"{product}-{label}.png")
    return folder
