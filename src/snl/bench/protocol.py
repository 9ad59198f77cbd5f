"""`snl bench`: MVTec AD or VisA as they are published on, seed by seed, and the table of it.

Every seed trains one model on all normal training images of all classes, its last step is
evaluated at the network's input size, and nothing is chosen by a test score. All of it lies in one
folder: `seed-N.snl` (the bundle; `seed-N.snl.run/` while it is made), `seed-N.json` (its metrics),
`seed-N.log` (of a worker process), `bench.json` (what the folder is of), `summary.json` and
`summary.md`.
"""

from __future__ import annotations

import difflib
import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from snl import progress
from snl.bench import table as report
from snl.bench.published import BENCHMARKS, COLUMNS, Benchmark
from snl.bench.workers import run_workers
from snl.data.catalog import Catalog
from snl.data.records import Record
from snl.errors import DataError, SettingsError, SnlError
from snl.evaluation.evaluate import evaluate
from snl.files import check_output, write_json, write_text
from snl.model import device as devices
from snl.settings import DEFAULT_METHOD, resolve
from snl.training.cache import CacheBudget
from snl.training.checkpoint import differences
from snl.training.train import train

FOUND = "found"
"""Instead of names of classes: those that are there."""


@dataclass(frozen=True)
class Task:
    """What is to be measured, and how it is carried out."""

    benchmark: str
    root: Path
    output: Path
    method: str = DEFAULT_METHOD
    preset: str = "paper"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Settings as of `snl.settings.resolve`, but for the seed."""
    classes: tuple[str, ...] = ()
    """Empty: all of the benchmark; `found`: those that are there."""
    seeds: int = 3
    device: str = "auto"
    """As of `snl.model.device.choose`, or several separated by commas; `auto`: all GPUs."""
    cache: CacheBudget = field(default_factory=CacheBudget)
    """Of every seed that runs."""
    checkpoint_every: float = 60.0
    overwrite: bool = False
    quiet: bool = False
    note: Callable[[str], None] = lambda text: None


def run(task: Task) -> str:
    """Do every seed that is not finished, then write the summary.

    Seeds run one after another in this process, or, with several devices, in worker processes.

    Returns:
        The table as text.

    Raises:
        SnlError: with the way out in the message.
        KeyboardInterrupt: stopped; the same task goes on from the checkpoints.
    """
    job = _Job.of(task)
    with _terminable():
        todo = [seed for seed in range(task.seeds) if job.result(seed) is None]
        names = devices.choose_all(task.device)
        if len(names) > 1 and len(todo) > 1:
            run_workers(task, todo, names)
        else:
            for seed in todo:
                job.measure(seed, names[0])
    results = [job.need(seed) for seed in range(task.seeds)]
    summary = {
        "benchmark": task.benchmark,
        "partial": job.partial,
        "seeds": list(range(task.seeds)),
        **job.identity,
        **report.summarise(results),
        "training": [result["training"] for result in results],
    }
    if not job.partial:
        summary["published"] = [
            {"method": r.method, **dict(zip(COLUMNS, r.values, strict=True)), "source": r.source}
            for r in job.benchmark.rows
        ]
    write_json(task.output / "summary.json", summary)
    write_text(task.output / "summary.md", report.markdown(summary, job.benchmark))
    return report.text(summary, job.benchmark)


def run_seed(task: Task, seed: int) -> str:
    """Do one seed in this process, unless it is finished; no summary, one line of its means."""
    job = _Job.of(task, seed)
    with _terminable():
        if job.result(seed) is None:
            job.measure(seed, devices.choose_all(task.device)[0])
    mean = job.need(seed)["mean"]
    values = (f"{name} {100 * mean[name]:.1f}" for name in COLUMNS)
    return f"seed {seed}, class means: {', '.join(values)}"


def read_benchmark(benchmark: Benchmark, root: Path, classes: tuple[str, ...] = ()) -> Catalog:
    """The images of the classes asked for, in the order of their names.

    Raises:
        DataError: another layout, missing classes, a class without what the protocol needs.
    """
    catalog = Catalog.read(root)
    name, whole = benchmark.name, benchmark.classes
    if catalog.layout not in benchmark.layouts:
        example = "bottle/train/good" if name == "MVTec AD" else "split_csv/1cls.csv"
        raise DataError(
            f"{root}: is not laid out as {name} (found layout '{catalog.layout}'); give the folder "
            f"that has {example}"
        )
    if catalog.layout == "visa" and not (catalog.root / "split_csv" / "1cls.csv").is_file():
        raise DataError(
            f"{root}: split_csv/1cls.csv is missing, so the published split is not known; it comes "
            "with the data set"
        )
    here = [known for known in whole if known in catalog.products]
    if not here:
        fits = [key for key, b in BENCHMARKS.items() if set(b.classes) & set(catalog.products)]
        hint = f"snl bench {fits[0]} takes them" if fits else f"it needs {', '.join(whole)}"
        raise DataError(
            f"{root}: has none of the classes of {name} (found {', '.join(catalog.products[:5])}); "
            f"{hint}"
        )
    chosen = _chosen(benchmark, root, classes, here)
    kept = tuple(record for record in catalog.records if record.product in chosen)
    others = [product for product in catalog.products if product not in chosen]
    notes = (f"left out: {', '.join(others)}",) if others else ()
    found = replace(catalog, records=kept, notes=notes)
    for product, counts in _counts(found).items():
        _check_class(root, product, counts, [r for r in found.test() if r.product == product])
    return found


@dataclass(frozen=True)
class _Job:
    """A task with its data read, and what its results must agree with."""

    task: Task
    benchmark: Benchmark
    catalog: Catalog
    overrides: dict[str, Any]
    identity: dict[str, Any]
    partial: list[str]
    """Why the results are not comparable with published ones; empty where they are."""

    @classmethod
    def of(cls, task: Task, only: int | None = None) -> _Job:
        """Checks all that can be checked before the work, and makes the folder the task's."""
        benchmark = BENCHMARKS[task.benchmark]
        if "training.seed" in task.overrides:
            raise SettingsError("the seeds are 0, 1, ...: use --seeds for how many, --seed for one")
        # held-out images would be missing from training, and the protocol decides nothing
        overrides = {"training.holdout": 0.0, **task.overrides}
        settings = resolve(task.method, task.preset, overrides).to_dict()
        del settings["training"]["seed"]
        settings["teacher"]["weights"] = Path(settings["teacher"]["weights"]).name
        devices.choose_all(task.device)
        catalog = read_benchmark(benchmark, task.root, task.classes)
        counts = _counts(catalog)
        data = {"layout": catalog.layout, "fingerprint": catalog.fingerprint(), "images": counts}
        identity = {"data": data, "settings": settings}
        job = cls(task, benchmark, catalog, overrides, identity, _partial(benchmark, counts))
        file = task.output / "bench.json"
        check_output(file)
        if task.overwrite:
            for seed in range(task.seeds) if only is None else [only]:
                job.file(seed).unlink(missing_ok=True)
        else:
            job.read(file)
        write_json(file, {"benchmark": task.benchmark, **identity})
        return job

    def file(self, seed: int, suffix: str = ".json") -> Path:
        return self.task.output / f"seed-{seed}{suffix}"

    def result(self, seed: int) -> dict[str, Any] | None:
        """The finished evaluation of a seed."""
        return self.read(self.file(seed))

    def need(self, seed: int) -> dict[str, Any]:
        result = self.result(seed)
        if result is None:
            raise SnlError(f"{self.file(seed)}: is gone; the same command makes it again")
        return result

    def read(self, file: Path) -> dict[str, Any] | None:
        """A JSON file of this task, or None; one of other settings or images is refused."""
        if not file.is_file():
            return None
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            there = {key: content[key] for key in ("benchmark", *self.identity)}
        except (OSError, ValueError, KeyError, TypeError):
            raise SnlError(f"{file}: is damaged or not of snl bench; remove it") from None
        changed = differences(there, {"benchmark": self.task.benchmark, **self.identity})
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise SettingsError(
                f"{file}: was made with another {', '.join(changed[:3])}{more}; choose another "
                "--out, or replace what is there with --overwrite"
            )
        return dict(content)

    def measure(self, seed: int, device: str) -> None:
        """Train (or take, or go on with) the seed's model, evaluate it, write its metrics."""
        task = self.task
        task.note(f"seed {seed} of {self.benchmark.name}, {len(self.catalog.products)} classes")
        inspector = train(
            self.catalog,
            output=self.file(seed, ".snl"),
            method=task.method,
            preset=task.preset,
            overrides={**self.overrides, "training.seed": seed},
            device=device,
            resume=not task.overwrite,
            overwrite=task.overwrite,
            cache=task.cache,
            skip_bad=False,
            checkpoint_every=task.checkpoint_every,
            quiet=task.quiet,
            note=task.note,
        )
        bar = None if task.quiet else progress.bar("evaluating")
        evaluation = evaluate(inspector, self.catalog, progress=bar)
        if evaluation.skipped:
            raise DataError(
                f"{len(evaluation.skipped)} test images or masks cannot be read, and the protocol "
                f"needs all of them, the first: {evaluation.skipped[0]}"
            )
        result = {
            "benchmark": task.benchmark,
            "seed": seed,
            "partial": self.partial,
            **self.identity,
            **evaluation.to_dict(),
            "training": dict(inspector.training.facts),
        }
        write_json(self.file(seed), result)


def _chosen(
    benchmark: Benchmark, root: Path, classes: tuple[str, ...], here: list[str]
) -> list[str]:
    if classes == (FOUND,):
        return here
    for name in classes:
        if name not in benchmark.classes:
            near = difflib.get_close_matches(name, benchmark.classes, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(benchmark.classes)}"
            raise DataError(f"'{name}' is no class of {benchmark.name}; {hint}")
    wanted = classes or benchmark.classes
    missing = [name for name in wanted if name not in here]
    if missing:
        raise DataError(
            f"{root}: {len(missing)} of {len(wanted)} classes of {benchmark.name} missing: "
            f"{', '.join(missing)}; add them, or measure what is there with --classes found (a "
            "partial table, not comparable with published ones)"
        )
    return list(wanted)


def _counts(catalog: Catalog) -> dict[str, list[int]]:
    """By class: training images, normal and anomalous test images."""
    counts = {name: [0, 0, 0] for name in catalog.products}
    for record in catalog.train():
        counts[record.product][0] += 1
    for record in catalog.test():
        counts[record.product][2 if record.label == "anomalous" else 1] += 1
    return counts


def _check_class(root: Path, product: str, counts: list[int], test: list[Record]) -> None:
    kinds = ("training", "normal test", "anomalous test")
    for kind, count in zip(kinds, counts, strict=True):
        if not count:
            raise DataError(f"{root}: class {product} has no {kind} images; download it again")
    unmasked = [record for record in test if not record.mask_known]
    if unmasked:
        raise DataError(
            f"{root}: {len(unmasked)} anomalous test images of class {product} have no mask "
            f"({unmasked[0].path.name}, ...); download it again"
        )


def _partial(benchmark: Benchmark, counts: dict[str, list[int]]) -> list[str]:
    if len(counts) < len(benchmark.classes):
        return [f"{len(counts)} of {len(benchmark.classes)} classes ({', '.join(counts)})"]
    total = tuple(map(sum, zip(*counts.values(), strict=True)))
    if total == benchmark.images:
        return []
    kinds = ("training", "normal test", "anomalous test")
    return [
        f"{have} {kind} images where {benchmark.name} has {published}"
        for have, published, kind in zip(total, benchmark.images, kinds, strict=True)
        if have != published
    ]


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, as schedulers send it, stops as Ctrl-C does, and Ctrl-C stops even where the shell
    has switched it off, as for a job in the background."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
