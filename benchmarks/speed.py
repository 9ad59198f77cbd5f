"""Speed and memory of snl beside anomalib's own models, metrics and command, on this machine.

    python benchmarks/speed.py run -o docs/results/speed.json
    python benchmarks/speed.py table docs/results/speed.json -o docs/results/speed.md
    python benchmarks/speed.py plot docs/results/speed.json -o docs/results/speed.png

anomalib (`pip install anomalib==2.7.0`) is no dependency of snl; without it the rows of snl alone
are measured. Every subject lives in a process of its own, and those that are compared take turns
(A B A B ...), so that a change of the machine's speed meets all of them; a figure is the median
over turns, its range their smallest and largest, a turn the median of some passes after one that
does not count. Memory is the largest resident set of the whole process so far, libraries included.

| group | what |
|---|---|
| `torch`, `onnx`, `openvino` | an image and a batch, uint8 arrays to maps and scores in numpy; \
a file of 512 x 512 to a result; memory of each |
| `training` | one step, teacher features cached as `snl train` does, and not |
| `metrics` | all of ours, anomalib's AUPRO, and pixel AUROC of torchmetrics and scikit-learn |
| `start` | import, help, and load with a first inspection, in fresh processes |
| `sizes` | of files |
| `memory` | `snl evaluate` and `snl inspect --json` of ever more images; a large one in tiles |

Footing: fp32 on all sides but where a row says otherwise (OpenVINO is told so, or it would take
bf16 where a CPU has it), the same number of threads, 256 px. In bf16 ours run by `--precision
bf16`, anomalib's Reverse Distillation by autocast, which is Lightning's way, and by OpenVINO's
own setting. anomalib's figures hold what its inferencers do: its normalisation,
upsampling, blur and the post-processor with thresholds, as its exports do; `model alone` is its
torch model on tensors that are ready. Where it has no inferencer (ONNX) its graph is run by ONNX
Runtime. A file: ours gives decision, regions and the map at the size of the image, anomalib's the
map and mask of 256 x 256; its TorchInferencer computes with gradients, so that it is measured under
`inference_mode`, too, and its OpenVINOInferencer takes images of the graph's size alone, so that
the image is resized before by Pillow, as ours does it. Training: its `training_step` and optimiser
without Lightning's loop. What random weights cannot change is all that is measured here; how good
the models are, `peers.py` says.

A group that is in the results is not measured again unless `--again` is given.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from speed_programs import memory, sizes, start
from speed_subjects import REFERENCE, TITLES, Plan, variants
from speed_turns import HERE, environment, say, turns

PACKAGES = ("anomalib", "torch", "torchmetrics", "timm", "onnxruntime", "openvino", "numpy")
QUICK = Plan(repeats=2, seconds=0.0, passes=1, maps=(10, 20), images=(20, 60), large=(800, 600))
REPEATS = {"batch 1": 5, "model alone": 2}
"""Turns of a figure at most, where they are not 3."""
MADE_FOR = ("size", "batch", "maps", "large", "runtimes", "ours", "peers", "overrides")
"""Settings that what is measured is made for."""


def inference(runtime: str, plan: Plan, work: Path) -> dict[str, Any]:
    """Latency, throughput and memory of all networks by one runtime."""
    torch = runtime == "torch"  # others must not have it in memory
    tasks = {title: {**task, "torch": torch} for title, task in variants(runtime, plan).items()}
    return turns(
        tasks, plan, work, seconds=plan.seconds, passes=plan.passes, warm=1, least=1,
        repeats=lambda figure: min(plan.repeats, REPEATS.get(figure.partition(",")[0], 3)),
    )  # fmt: skip


def training(plan: Plan, work: Path) -> dict[str, Any]:
    """Steps of ours, in fp32 and in the precision that `auto` (the default) chooses here, cached
    and not, and of anomalib's."""
    tasks: dict[str, dict[str, Any]] = {}
    for name in (n for n in ("rd", "snl-rd", "snl") if n in plan.ours):
        for how, cached, precision in (
            ("features cached, precision auto", True, "auto"),
            ("features cached", True, "fp32"),
            ("not cached", False, "fp32"),
        ):
            title = f"{TITLES[name]}, {how}"
            tasks[title] = {"subject": name, "cached": cached, "precision": precision}
    tasks |= {TITLES[name]: {"subject": name} for name in plan.peers if name == REFERENCE}
    tasks = {title: {**task, "kind": "training", "torch": True} for title, task in tasks.items()}
    return turns(
        tasks, plan, work, seconds=0, passes=1, warm=1, least=2,
        repeats=lambda _: min(plan.repeats, 3),
    )  # fmt: skip


def metrics(plan: Plan, work: Path) -> dict[str, Any]:
    """Ours against others', of the same maps."""
    packages = {
        "snl, all eight figures": "snl",
        "anomalib AUPRO": "anomalib",
        "torchmetrics pixel AUROC": "torchmetrics",
        "scikit-learn pixel AUROC": "sklearn",
    }
    tasks = {}
    for title, package in packages.items():
        if importlib.util.find_spec(package) and (package != "anomalib" or plan.peers):
            subject = "scikit-learn" if package == "sklearn" else package
            torch = package in ("anomalib", "torchmetrics")
            tasks[title] = {"kind": "metrics", "subject": subject, "torch": torch}
    return turns(
        tasks, plan, work, seconds=0, passes=1, warm=0, least=1,
        repeats=lambda _: min(plan.repeats, 3),
    )  # fmt: skip


def prepare(plan: Plan, work: Path) -> None:
    """All that is measured, made by some processes at once; what is there already stays.

    Stops the program where one of them fails.
    """
    work.mkdir(parents=True, exist_ok=True)
    file = work / "plan.json"
    wanted = json.loads(json.dumps(dataclasses.asdict(plan)))
    if file.is_file():
        there = json.loads(file.read_text(encoding="utf-8"))
        if any(there[name] != wanted[name] for name in MADE_FOR):
            sys.exit(f"{work}: made for other settings; remove it, or give another --work")
    file.write_text(json.dumps(wanted), encoding="utf-8")
    command = [sys.executable, str(HERE / "speed_subjects.py"), str(file), str(work)]
    variables = {**environment(plan), "OMP_NUM_THREADS": "1"}
    for together in (["data"], ["even", "odd", *(["peers"] if plan.peers else [])]):
        with (work / "log.txt").open("a", encoding="utf-8") as log:
            made = [
                subprocess.Popen([*command, part], stdout=log, stderr=log, cwd=work, env=variables)
                for part in together
            ]
            statuses = [process.wait() for process in made]
        if any(statuses):
            sys.exit(f"what is to be measured could not be made; see {work / 'log.txt'}")


def run(plan: Plan, output: Path, work: Path, only: Sequence[str], again: bool) -> None:
    """Measure the groups asked for that the results do not have, writing after each."""
    from snl.files import write_json

    groups: dict[str, Callable[[], dict[str, Any]]] = {
        **{name: partial(inference, name, plan, work) for name in plan.runtimes},
        "training": lambda: training(plan, work),
        "metrics": lambda: metrics(plan, work),
        "start": lambda: start(plan, work),
        "sizes": lambda: sizes(plan, work),
        "memory": lambda: memory(plan, work),
    }
    for unknown in set(only) - set(groups):
        sys.exit(f"no group '{unknown}'; there are {', '.join(groups)}")
    results = resumed(output, plan)
    wanted = [name for name in only or groups if again or name not in results["groups"]]
    if not wanted:
        return
    say("making what is measured")
    prepare(plan, work)
    for name in wanted:
        say(name)
        began = time.perf_counter()
        measured = groups[name]()
        seconds = round(time.perf_counter() - began, 1)
        results["groups"][name] = {"seconds": seconds, "subjects": measured}
        ordered = {known: results["groups"].get(known) for known in groups}
        results["groups"] = {k: v for k, v in ordered.items() if v is not None}
        write_json(output, results)


def resumed(output: Path, plan: Plan) -> dict[str, Any]:
    """The results there are, or new ones."""
    settings = json.loads(json.dumps(dataclasses.asdict(plan)))
    if output.is_file():
        results: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
        if results.get("settings") != settings:
            sys.exit(f"{output}: was measured with other settings; choose another -o")
        return results
    return {
        "title": f"Speed and memory, {plan.size} px, {plan.threads} threads",
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": plan.threads,
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in PACKAGES if _installed(name)},
        },
        "settings": settings,
        "groups": {},
    }


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    measure = verbs.add_parser("run", help="measure what the results do not have yet")
    measure.add_argument("-o", "--output", type=Path, required=True)
    measure.add_argument("--only", default="", metavar="NAMES", help="groups, comma-separated")
    measure.add_argument("--again", action="store_true", help="measure what is there anew")
    measure.add_argument("--threads", type=int, default=2)
    measure.add_argument("--quick", action="store_true", help="few passes: whether it runs at all")
    measure.add_argument(
        "--work", type=Path, metavar="FOLDER", help="networks are made here (default: runs/speed)"
    )
    for name, help in (("table", "as Markdown"), ("plot", "bars of the seconds of an image")):
        verb = verbs.add_parser(name, help=help)
        verb.add_argument("results", type=Path)
        verb.add_argument("-o", "--output", type=Path, required=name == "plot")
    options = parser.parse_args()
    if options.verb == "run":
        peers = Plan().peers if _installed("anomalib") else ()
        if not peers:
            say("anomalib is not installed (pip install anomalib==2.7.0): snl alone is measured")
        plan = dataclasses.replace(
            QUICK if options.quick else Plan(), threads=options.threads, peers=peers
        )
        work = options.work or Path("runs") / ("speed-quick" if options.quick else "speed")
        only = [name.strip() for name in options.only.split(",") if name.strip()]
        run(plan, options.output, work.resolve(), only, options.again)
        return 0
    from snl.files import write_text
    from speed_table import plot, table

    results = json.loads(options.results.read_text(encoding="utf-8"))
    if options.verb == "plot":
        plot(results, options.output)
    elif options.output:
        write_text(options.output, table(results))
    else:
        print(table(results), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
