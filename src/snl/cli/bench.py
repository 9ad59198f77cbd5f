"""`snl bench`: measure a method on a public benchmark, or the speed of a bundle or export."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli import options as shared
from snl.cli.common import OK, progress_bar, say, show

if TYPE_CHECKING:
    from snl.bench.task import Task

SUMMARY = "measure a method on MVTec AD or VisA over several seeds, next to published results"


class Options(
    shared.SettingsOptions,
    shared.BudgetOptions,
    shared.PixelsOption,
    shared.DeviceOption,
    shared.QuietOption,
):
    """Options of `snl bench`."""

    benchmark: str
    root: Path
    out: Path | None
    seeds: int
    only: int | None
    classes: str
    overwrite: bool
    task: Path | None


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "bench",
        SUMMARY,
        "snl bench mvtec mvtec/ --device cuda",
        "snl bench visa VisA/ --method rd --out visa-rd",
        "snl bench mvtec mvtec/ --device cuda:0,cuda:1,cuda:2",
        "snl bench mvtec mvtec/ --classes bottle,cable --preset compact --seeds 1",
        "snl bench inference parts.onnx",
        more="To continue an interrupted run, repeat the command. training.holdout is 0 here.\n\n"
        + shared.format_settings(),
    )
    verb.add_argument(
        "benchmark",
        choices=("mvtec", "visa", "inference"),
        help="MVTec AD; VisA; or the inference speed of a bundle or an export on this machine",
    )
    verb.add_argument(
        "root",
        type=Path,
        metavar="ROOT",
        help="folder with the classes of the data set; for inference, the bundle or export",
    )
    verb.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="output folder (default: bench-mvtec, ...)"
    )
    verb.add_argument(
        "--seeds",
        type=shared.whole(1, 1000),
        default=3,
        metavar="N",
        help="use seeds 0..N-1 (default: 3)",
    )
    verb.add_argument(
        "--seed",
        type=shared.seed,
        dest="only",
        metavar="K",
        help="run only this seed and print no table, to run seeds as separate jobs",
    )
    verb.add_argument(
        "--classes",
        default="",
        metavar="A,B",
        help="use only these classes, or `found` for those that exist; the table is marked as "
        "partial",
    )
    shared.add_settings(verb, "paper")
    verb.add_argument("--overwrite", action="store_true", help="repeat what is already finished")
    shared.add_budget(verb)
    shared.add_max_pixels(verb)
    verb.add_argument(
        "--device",
        "--devices",
        default="auto",
        metavar="D",
        help="auto (all GPUs, one seed on each), cpu, cuda, mps, or several: cuda:0,cuda:1",
    )
    shared.add_quiet(verb)
    verb.add_argument("--task", type=Path, help=argparse.SUPPRESS)  # for worker processes
    verb.set_defaults(seed=None)  # the setting training.seed comes from --seeds and --seed


def run(options: Options) -> int:
    """Run the benchmark and print its table."""
    return _measure_speed(options) if options.benchmark == "inference" else _run_protocol(options)


def _measure_speed(options: Options) -> int:
    from snl.bench.inference import format_speeds, measure

    progress = progress_bar("measuring", options.quiet)
    show(format_speeds(measure(options.root, options.device, progress)))
    return OK


def _run_protocol(options: Options) -> int:
    from snl.bench import protocol
    from snl.signals import Stopped

    task = _task(options)
    try:
        if options.only is not None:
            print(protocol.run_seed(task, options.only))
            return OK
        print(protocol.run(task))
    except Stopped as stop:
        without = " without --overwrite" if options.overwrite else ""
        say(f"{stop}; the same command{without} goes on from there")
        return stop.status
    say(f"results: {task.output}")
    return OK


def _task(options: Options) -> Task:
    """Return the task of a worker process, read from its file, or of the options."""
    from dataclasses import replace

    from snl.bench.task import Task, read_task
    from snl.training.cache import CacheBudget

    if options.task:
        task = read_task(options.task)
        return replace(task, device=options.device, quiet=options.quiet, note=say)
    return Task(
        benchmark=options.benchmark,
        root=options.root,
        output=options.out or Path(f"bench-{options.benchmark}"),
        method=options.method,
        preset=options.preset,
        overrides=options.overrides(),
        classes=tuple(name.strip() for name in options.classes.split(",") if name.strip()),
        seeds=options.seeds,
        device=options.device,
        cache=CacheBudget(options.cache_memory, options.cache_disk),
        checkpoint_every=options.checkpoint_every,
        max_pixels=options.max_pixels,
        overwrite=options.overwrite,
        quiet=options.quiet,
        note=say,
    )
