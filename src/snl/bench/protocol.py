"""`snl bench`: MVTec AD or VisA by the protocol of publications, for several seeds, and the table.

For every seed one model is trained on all normal training images of all classes. The model of its
last step is evaluated at the network's input size; no test score has an influence on it. All files
are in one folder: `seed-N.snl` (the bundle; `seed-N.snl.run/` during training), `seed-N.json` (the
metrics), `seed-N.log` (the log of a worker process), `bench.json` (data and settings), `task.json`
(for worker processes), `summary.json` and `summary.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snl import progress
from snl.bench import table
from snl.bench.dataset import count_images, partial_reasons, read_benchmark
from snl.bench.published import BENCHMARKS, COLUMNS, Benchmark
from snl.bench.results import Results
from snl.bench.task import Task
from snl.bench.workers import run_workers
from snl.data.catalog import Catalog
from snl.errors import DataError, SettingsError
from snl.evaluation.evaluate import evaluate
from snl.evaluation.result import Evaluation
from snl.files import write_json, write_text
from snl.model import device as devices
from snl.settings import resolve
from snl.signals import stoppable
from snl.training.train import train


@dataclass(frozen=True)
class _Plan:
    """A task, checked, with its images.

    Attributes:
        task: as given.
        benchmark: the data set.
        catalog: images of the selected classes.
        overrides: of settings, without the seed.
        partial: why the results are not comparable with published ones; empty if they are.
        results: in the output folder.
    """

    task: Task
    benchmark: Benchmark
    catalog: Catalog
    overrides: dict[str, Any]
    partial: list[str]
    results: Results


def run(task: Task) -> str:
    """Measure every seed that is not finished, then write the summary.

    Seeds run one after another in this process or, with several devices, in worker processes.

    Returns:
        The table as text.

    Raises:
        SnlError: the message says what to do.
        Stopped: by a signal; the same task continues from the checkpoints.
    """
    plan = _prepare(task)
    plan.results.open(range(task.seeds), overwrite=task.overwrite)
    with stoppable():
        missing = [seed for seed in range(task.seeds) if plan.results.get(seed) is None]
        names = devices.choose_all(task.device)
        if len(names) > 1 and len(missing) > 1:
            run_workers(task, missing, names)
        else:
            for seed in missing:
                _measure(plan, seed, names[0])
    summary = _summary(plan)
    write_json(task.output / "summary.json", summary)
    write_text(task.output / "summary.md", table.markdown(summary, plan.benchmark))
    return table.text(summary, plan.benchmark)


def run_seed(task: Task, seed: int) -> str:
    """Measure one seed in this process, unless it is finished.

    Returns:
        One line with its class means; no summary is written.

    Raises:
        SnlError, Stopped: as `run`.
    """
    plan = _prepare(task)
    plan.results.open([seed], overwrite=task.overwrite)
    with stoppable():
        if plan.results.get(seed) is None:
            _measure(plan, seed, devices.choose_all(task.device)[0])
    mean = plan.results.require(seed)["mean"]
    values = (f"{name} {100 * mean[name]:.1f}" for name in COLUMNS)
    return f"seed {seed}, class means: {', '.join(values)}"


def _prepare(task: Task) -> _Plan:
    """Check everything that can be checked before the work; nothing is written."""
    benchmark = BENCHMARKS[task.benchmark]
    if "training.seed" in task.overrides:
        raise SettingsError("the seeds are 0, 1, ...: use --seeds for how many, --seed for one")
    # held-out images would be missing from training, and the protocol makes no decisions
    overrides = {"training.holdout": 0.0, **task.overrides}
    settings = resolve(task.method, task.preset, overrides).to_dict()
    del settings["training"]["seed"]
    settings["teacher"]["weights"] = Path(settings["teacher"]["weights"]).name
    devices.choose_all(task.device)
    catalog = read_benchmark(benchmark, task.root, task.classes)
    counts = count_images(catalog)
    data = {"layout": catalog.layout, "fingerprint": catalog.fingerprint(), "images": counts}
    results = Results(task.output, task.benchmark, {"data": data, "settings": settings})
    partial = partial_reasons(benchmark, counts)
    return _Plan(task, benchmark, catalog, overrides, partial, results)


def _measure(plan: _Plan, seed: int, device: str) -> None:
    """Train a seed's model (or use a finished one, or continue), evaluate it, write its metrics."""
    task = plan.task
    task.note(f"seed {seed} of {plan.benchmark.name}, {len(plan.catalog.products)} classes")
    inspector = train(
        plan.catalog,
        output=plan.results.path(seed, ".snl"),
        method=task.method,
        preset=task.preset,
        overrides={**plan.overrides, "training.seed": seed},
        device=device,
        resume=not task.overwrite,
        overwrite=task.overwrite,
        cache=task.cache,
        skip_bad=False,
        checkpoint_every=task.checkpoint_every,
        max_pixels=task.max_pixels,
        quiet=task.quiet,
        note=task.note,
    )
    bar = None if task.quiet else progress.bar("evaluating")
    evaluation = evaluate(inspector, plan.catalog, progress=bar)
    _check_complete(evaluation)
    facts = dict(inspector.training.facts)
    plan.results.write(seed, {"partial": plan.partial, **evaluation.to_dict(), "training": facts})


def _check_complete(evaluation: Evaluation) -> None:
    """Check that all test images and masks could be read; the protocol needs all of them."""
    unreadable = [*evaluation.skipped, *evaluation.unusable_masks]
    if unreadable:
        raise DataError(
            f"{len(unreadable)} test images or masks cannot be read, and the protocol needs all of "
            f"them, the first: {unreadable[0]}"
        )


def _summary(plan: _Plan) -> dict[str, Any]:
    """Return the content of summary.json; all seeds are finished."""
    seeds = list(range(plan.task.seeds))
    results = [plan.results.require(seed) for seed in seeds]
    summary = {
        "benchmark": plan.task.benchmark,
        "partial": plan.partial,
        "seeds": seeds,
        **plan.results.identity,
        **table.summarise(results),
        "training": [result["training"] for result in results],
    }
    if not plan.partial:
        summary["published"] = [
            {"method": r.method, **dict(zip(COLUMNS, r.values, strict=True)), "source": r.source}
            for r in plan.benchmark.rows
        ]
    return summary
