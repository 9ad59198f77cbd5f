"""The groups of figures, and the run that measures them one after the other."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import is_installed, log, machine, read_results, versions
from benchmarks.speed.plan import REFERENCE, TITLES, Plan, variants
from benchmarks.speed.prepare import prepare
from benchmarks.speed.programs import memory, sizes, start
from benchmarks.speed.turns import turns
from snl.errors import SnlError
from snl.files import write_json

PACKAGES = ("anomalib", "torch", "torchmetrics", "timm", "onnxruntime", "openvino", "numpy")
REPEATS = {"batch 1": 5, "model alone": 2}
"""Maximum number of turns of a figure, where it is not 3."""


def inference(runtime: str, plan: Plan, work: Path) -> dict[str, Any]:
    """Measure latency, throughput and memory of all networks with one runtime."""
    torch = runtime == "torch"  # torch must not take memory in processes of the other runtimes
    tasks = {title: {**task, "torch": torch} for title, task in variants(runtime, plan).items()}
    return turns(
        tasks, plan, work, seconds=plan.seconds, passes=plan.passes, warm=1, least=1,
        repeats=lambda figure: min(plan.repeats, REPEATS.get(figure.partition(",")[0], 3)),
    )  # fmt: skip


def training(plan: Plan, work: Path) -> dict[str, Any]:
    """Measure training steps of our networks and of anomalib's.

    Ours: cached and not, in fp32 and in the precision that `auto` (the default) chooses here.
    """
    tasks: dict[str, dict[str, Any]] = {}
    for name in (n for n in ("rd", "snl-rd", "snl") if n in plan.ours):
        for variant, cached, precision in (
            ("features cached, precision auto", True, "auto"),
            ("features cached", True, "fp32"),
            ("not cached", False, "fp32"),
        ):
            title = f"{TITLES[name]}, {variant}"
            tasks[title] = {"subject": name, "cached": cached, "precision": precision}
    tasks |= {TITLES[name]: {"subject": name} for name in plan.peers if name == REFERENCE}
    tasks = {title: {**task, "kind": "training", "torch": True} for title, task in tasks.items()}
    return turns(
        tasks, plan, work, seconds=0, passes=1, warm=1, least=2,
        repeats=lambda _: min(plan.repeats, 3),
    )  # fmt: skip


def metrics(plan: Plan, work: Path) -> dict[str, Any]:
    """Measure our metrics and those of other packages, on the same maps."""
    packages = {
        "snl, all eight figures": "snl",
        "anomalib AUPRO": "anomalib",
        "torchmetrics pixel AUROC": "torchmetrics",
        "scikit-learn pixel AUROC": "sklearn",
    }
    tasks = {}
    for title, package in packages.items():
        if is_installed(package) and (package != "anomalib" or plan.peers):
            subject = "scikit-learn" if package == "sklearn" else package
            torch = package in ("anomalib", "torchmetrics")
            tasks[title] = {"kind": "metrics", "subject": subject, "torch": torch}
    return turns(
        tasks, plan, work, seconds=0, passes=1, warm=0, least=1,
        repeats=lambda _: min(plan.repeats, 3),
    )  # fmt: skip


def run(plan: Plan, output: Path, work: Path, only: Sequence[str], *, again: bool) -> None:
    """Measure groups that the results do not have, and write the results after each.

    Args:
        plan: how much is measured.
        output: results file; groups in it are kept.
        work: folder of data and networks; what it has is not made again.
        only: groups; empty: all.
        again: measure groups that the results already have.

    Raises:
        SnlError: an unknown group, or results or files of another plan.
    """
    groups: dict[str, Callable[[], dict[str, Any]]] = {
        **{name: partial(inference, name, plan, work) for name in plan.runtimes},
        "training": lambda: training(plan, work),
        "metrics": lambda: metrics(plan, work),
        "start": lambda: start(plan, work),
        "sizes": lambda: sizes(plan, work),
        "memory": lambda: memory(plan, work),
    }
    for unknown in sorted(set(only) - set(groups)):
        raise SnlError(f"--only: no group '{unknown}'; choose from {', '.join(groups)}")
    results = resume(output, plan)
    wanted = [name for name in only or groups if again or name not in results["groups"]]
    if not wanted:
        return
    log("making the networks and data")
    prepare(plan, work)
    for name in wanted:
        log(name)
        began = time.perf_counter()
        subjects = groups[name]()
        seconds = round(time.perf_counter() - began, 1)
        results["groups"][name] = {"seconds": seconds, "subjects": subjects}
        ordered = {known: results["groups"].get(known) for known in groups}
        results["groups"] = {k: v for k, v in ordered.items() if v is not None}
        write_json(output, results)


def resume(output: Path, plan: Plan) -> dict[str, Any]:
    """Return the results in a file, or new ones.

    Raises:
        SnlError: the file has results of another plan.
    """
    settings = json.loads(json.dumps(dataclasses.asdict(plan)))
    if output.is_file():
        results = read_results(output)
        if results.get("settings") != settings:
            raise SnlError(f"{output}: was measured with other settings; choose another -o")
        return results
    gib = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    return {
        "title": f"Speed and memory, {plan.size} px, {plan.threads} threads",
        "machine": machine(threads=plan.threads, memory_gib=gib),
        "versions": {"python": platform.python_version(), **versions(PACKAGES)},
        "settings": settings,
        "groups": {},
    }
