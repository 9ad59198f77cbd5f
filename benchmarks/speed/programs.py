"""Whole programs: their duration and memory, the sizes of files, and whether memory grows with the
number of images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import is_installed
from benchmarks.speed.plan import TITLES, Plan, ours_file, peer_file
from benchmarks.speed.turns import ENOUGH, add_turn, environment

LAUNCH = """
import os, resource, sys, time
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
began = time.perf_counter()
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
_, status, usage = os.wait4(process, 0)
print(time.perf_counter() - began, usage.ru_maxrss, os.waitstatus_to_exitcode(status))
"""
"""The program that starts the measured one. It imports no package, because the peak memory of a new
process starts with that of its parent, which must therefore be smaller than what is measured."""

OURS_FIRST = "import sys, snl; snl.load(sys.argv[1], 'cpu').inspect(sys.argv[2])"
TORCH_FIRST = (
    "import sys; from anomalib.deploy import TorchInferencer; "
    "TorchInferencer(sys.argv[1], 'cpu').predict(sys.argv[2])"
)
OPENVINO_FIRST = (
    "import sys, numpy; from PIL import Image; from anomalib.deploy import OpenVINOInferencer; "
    "image = Image.open(sys.argv[2]).convert('RGB').resize((int(sys.argv[3]),) * 2); "
    "OpenVINOInferencer(sys.argv[1], 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})"
    ".predict(numpy.asarray(image))"
)
ANOMALIB_HELP = "import sys; from anomalib.cli.cli import main; sys.argv = ['anomalib', '--help']; main()"  # noqa: E501  # fmt: skip


def launch(command: list[Any], plan: Plan, work: Path) -> dict[str, Any]:
    """Run a program with this Python and return `seconds` and `memory` in MB, or an `error`."""
    words = [sys.executable, *map(str, command)]
    with (work / "log.txt").open("a", encoding="utf-8") as log:
        result = subprocess.run(
            [sys.executable, "-I", "-S", "-c", LAUNCH, *words],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=work,
            env=environment(plan),
            check=True,
        )
    seconds, memory, status = result.stdout.split()
    if int(status):
        return {"error": f"ended with status {status}; see log.txt"}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": float(seconds), "memory": int(memory) * unit / 1e6}


def start(plan: Plan, work: Path) -> dict[str, Any]:
    """Measure import, help and a first inspection, in fresh processes that take turns.

    Earlier processes have read and compiled their files: it is not the first start after a boot.
    """
    picture = work / "part.png"
    commands: dict[str, list[Any]] = {
        "python alone": ["-c", "pass"],
        "import snl": ["-c", "import snl"],
        "snl --help": ["-m", "snl", "--help"],
    }
    for name in dict.fromkeys((plan.ours[0], "rd" if "rd" in plan.ours else plan.ours[0])):
        for runtime in plan.runtimes:
            if runtime == "torch" and name != "rd":
                continue  # the import of torch takes nearly all of the time
            file = ours_file(work, name, runtime)
            commands[f"snl.load and inspect, {TITLES[name]}, {runtime}"] = [
                *("-c", OURS_FIRST, file, picture)
            ]
    if plan.peers and is_installed("anomalib"):
        commands["import anomalib"] = ["-c", "import anomalib"]
        commands["anomalib --help"] = ["-c", ANOMALIB_HELP]
        for runtime, code in (("torch", TORCH_FIRST), ("openvino", OPENVINO_FIRST)):
            if runtime in plan.runtimes:
                name = plan.peers[0]
                file = peer_file(work, name, runtime, 1)
                title = f"load and predict, {TITLES[name]}, {runtime}"
                commands[title] = ["-c", code, file, picture, plan.size]
    results: dict[str, Any] = {title: {"figures": {}} for title in commands}
    for number in range(min(plan.repeats, 3)):
        for title, command in commands.items():
            past = results[title].get("figures", {}).get("whole", {}).get("turns", [])
            if "error" in results[title] or (number > 1 and sum(past) > ENOUGH):
                continue
            answer = launch(command, plan, work)
            if "error" in answer:
                results[title] = answer
            else:
                add_turn(results[title]["figures"], "whole", answer)
    return results


def sizes(plan: Plan, work: Path) -> dict[str, Any]:
    """Return the sizes of the files of each network in MB.

    An OpenVINO model has two files, and an ONNX file may have a data file beside it.
    """
    results: dict[str, Any] = {}
    for name in plan.ours:
        files = {kind: ours_file(work, name, kind) for kind in plan.runtimes}
        for kind in ("onnx", "openvino"):
            files[f"{kind} int8"] = ours_file(work, name, kind, "int8")
        results[TITLES[name]] = {"megabytes": _megabytes(files)}
    for name in plan.peers:
        files = {kind: peer_file(work, name, kind, 1) for kind in plan.runtimes}
        files["checkpoint"] = work / "peers" / name / "model.ckpt"
        results[TITLES[name]] = {"megabytes": _megabytes(files)}
    return results


def _megabytes(files: dict[str, Path]) -> dict[str, float]:
    sizes = {}
    for kind, file in files.items():
        parts = [file, file.with_name(file.name + ".data")]
        if file.suffix == ".xml":
            parts.append(file.with_suffix(".bin"))
        size = sum(part.stat().st_size for part in parts if part.is_file())
        if size:
            sizes[kind] = round(size / 1e6, 2)
    return sizes


def memory(plan: Plan, work: Path) -> dict[str, Any]:
    """Measure the peak memory of our commands over growing numbers of images, and of a large image
    in tiles."""
    results: dict[str, Any] = {}

    def measure(title: str, figure: str, command: list[Any]) -> None:
        result = results.setdefault(title, {"figures": {}})
        answer = launch(["-m", "snl", *command], plan, work)
        if "error" in answer:
            result["error"] = answer["error"]
        else:
            add_turn(result["figures"], figure, answer)

    tiny = work / "ours" / "tiny.snl"
    for count in plan.images:
        folder = many_images(work, count)
        outputs = [work / f"{name}-{count}.json" for name in ("evaluated", "inspected")]
        options = ("--device", "cpu", "--quiet", "--json")
        figure = f"{count} images"
        measure("snl evaluate", figure, ["evaluate", tiny, folder, *options, outputs[0]])
        pictures = folder / "part" / "test"
        measure("snl inspect --json", figure, ["inspect", tiny, pictures, *options, outputs[1]])
    name = plan.ours[0]
    runtime = "onnx" if "onnx" in plan.runtimes else plan.runtimes[0]
    width, height = plan.large
    title = f"snl inspect --tile {plan.tile}, {TITLES[name]}, {runtime}"
    command = ["inspect", ours_file(work, name, runtime), work / "large.png", "--quiet"]
    output = work / "large.json"
    measure(title, f"{width} x {height}", [*command, "--tile", plan.tile, "--json", output])
    return results


def many_images(work: Path, count: int) -> Path:
    """Make a folder in the layout of MVTec AD and return its path.

    It has `count` test images of 64 x 64 pixels, half of them anomalous: hard links to 16 drawings.
    """
    from snl.demo.dataset import DEFECTS, PRODUCTS, demo_image
    from snl.files import atomic

    folder = work / f"images-{count}"
    if (folder / "done").is_file():
        return folder
    from PIL import Image

    drawings: dict[str, list[Path]] = {"good": [], "bad": [], "mask": []}
    for number in range(16):
        product = PRODUCTS[number % len(PRODUCTS)]
        normal = demo_image(product, "good", number, size=64)
        anomalous = demo_image(product, DEFECTS[product][0], number, size=64)
        drawn = {"good": normal.image, "bad": anomalous.image, "mask": anomalous.mask}
        for kind, image in drawn.items():
            file = work / "drawings" / f"{kind}{number}.png"
            if not file.is_file():
                with atomic(file) as temporary:
                    Image.fromarray(image).save(temporary, format="PNG")
            drawings[kind].append(file)
    test, truth = folder / "part" / "test", folder / "part" / "ground_truth" / "bad"
    for place in (test / "good", test / "bad", truth, folder / "part" / "train" / "good"):
        place.mkdir(parents=True, exist_ok=True)
    _link(drawings["good"][0], folder / "part" / "train" / "good" / "0.png")
    for number in range(count):
        kind = ("good", "bad")[number % 2]
        source = number // 2 % 16
        _link(drawings[kind][source], test / kind / f"{number:05}.png")
        if kind == "bad":
            _link(drawings["mask"][source], truth / f"{number:05}_mask.png")
    (folder / "done").touch()
    return folder


def _link(source: Path, target: Path) -> None:
    if not target.exists():
        os.link(source, target)
