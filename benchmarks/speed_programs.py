"""Whole programs for `speed.py`: how long they take from start to end and how much memory, sizes of
files, and whether memory grows with the number of images."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from speed_subjects import TITLES, Plan, ours_file, peer_file
from speed_turns import ENOUGH, add_turn, environment

LAUNCH = """
import os, resource, sys, time
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
began = time.perf_counter()
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
_, status, usage = os.wait4(process, 0)
print(time.perf_counter() - began, usage.ru_maxrss, os.waitstatus_to_exitcode(status))
"""
"""Started without any package, so that its own memory is less than that of what it measures (a new
process's peak begins with that of the one that starts it)."""

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
    """Run a program of this Python to its end: `seconds`, `memory` in MB, or an `error`."""
    words = [sys.executable, *map(str, command)]
    with (work / "log.txt").open("a", encoding="utf-8") as log:
        told = subprocess.run(
            [sys.executable, "-I", "-S", "-c", LAUNCH, *words],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=work,
            env=environment(plan),
            check=True,
        )
    seconds, memory, status = told.stdout.split()
    if int(status):
        return {"error": f"ended with status {status}; see log.txt"}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": float(seconds), "memory": int(memory) * unit / 1e6}


def start(plan: Plan, work: Path) -> dict[str, Any]:
    """Import, help, and a first inspection, in fresh processes that take turns. Their files were
    read and compiled by whatever ran before, so that it is not the first start after a boot."""
    picture = work / "part.png"
    commands: dict[str, list[Any]] = {
        "python alone": ["-c", "pass"],
        "import snl": ["-c", "import snl"],
        "snl --help": ["-m", "snl", "--help"],
    }
    for name in dict.fromkeys((plan.ours[0], "rd" if "rd" in plan.ours else plan.ours[0])):
        for runtime in plan.runtimes:
            if runtime == "torch" and name != "rd":
                continue  # of whose seconds torch takes nearly all
            file = ours_file(work, name, runtime)
            commands[f"snl.load and inspect, {TITLES[name]}, {runtime}"] = [
                *("-c", OURS_FIRST, file, picture)
            ]
    if plan.peers and importlib.util.find_spec("anomalib"):
        commands["import anomalib"] = ["-c", "import anomalib"]
        commands["anomalib --help"] = ["-c", ANOMALIB_HELP]
        for runtime, code in (("torch", TORCH_FIRST), ("openvino", OPENVINO_FIRST)):
            if runtime in plan.runtimes:
                name = plan.peers[0]
                file = peer_file(work, name, runtime, 1)
                title = f"load and predict, {TITLES[name]}, {runtime}"
                commands[title] = ["-c", code, file, picture, plan.size]
    found: dict[str, Any] = {title: {"figures": {}} for title in commands}
    for number in range(min(plan.repeats, 3)):
        for title, command in commands.items():
            past = found[title].get("figures", {}).get("whole", {}).get("turns", [])
            if "error" in found[title] or (number > 1 and sum(past) > ENOUGH):
                continue
            answer = launch(command, plan, work)
            if "error" in answer:
                found[title] = answer
            else:
                add_turn(found[title]["figures"], "whole", answer)
    return found


def sizes(plan: Plan, work: Path) -> dict[str, Any]:
    """Files of every network in MB; an OpenVINO model and an ONNX file with data beside it are
    several."""
    found: dict[str, Any] = {}
    for name in plan.ours:
        files = {kind: ours_file(work, name, kind) for kind in plan.runtimes}
        for kind in ("onnx", "openvino"):
            files[f"{kind} int8"] = ours_file(work, name, kind, "int8")
        found[TITLES[name]] = {"megabytes": _megabytes(files)}
    for name in plan.peers:
        files = {kind: peer_file(work, name, kind, 1) for kind in plan.runtimes}
        files["checkpoint"] = work / "peers" / name / "model.ckpt"
        found[TITLES[name]] = {"megabytes": _megabytes(files)}
    return found


def _megabytes(files: dict[str, Path]) -> dict[str, float]:
    found = {}
    for kind, file in files.items():
        parts = [file, file.with_name(file.name + ".data")]
        if file.suffix == ".xml":
            parts.append(file.with_suffix(".bin"))
        size = sum(part.stat().st_size for part in parts if part.is_file())
        if size:
            found[kind] = round(size / 1e6, 2)
    return found


def memory(plan: Plan, work: Path) -> dict[str, Any]:
    """Peak memory of our commands over ever more images, and of a large image in tiles."""
    found: dict[str, Any] = {}

    def once(title: str, figure: str, command: list[Any]) -> None:
        own = found.setdefault(title, {"figures": {}})
        answer = launch(["-m", "snl", *command], plan, work)
        if "error" in answer:
            own["error"] = answer["error"]
        else:
            add_turn(own["figures"], figure, answer)

    tiny = work / "ours" / "tiny.snl"
    for count in plan.images:
        folder = many_images(work, count)
        outputs = [work / f"{name}-{count}.json" for name in ("evaluated", "inspected")]
        options = ("--device", "cpu", "--quiet", "--json")
        figure = f"{count} images"
        once("snl evaluate", figure, ["evaluate", tiny, folder, *options, outputs[0]])
        pictures = folder / "part" / "test"
        once("snl inspect --json", figure, ["inspect", tiny, pictures, *options, outputs[1]])
    name = plan.ours[0]
    runtime = "onnx" if "onnx" in plan.runtimes else plan.runtimes[0]
    width, height = plan.large
    title = f"snl inspect --tile {plan.tile}, {TITLES[name]}, {runtime}"
    command = ["inspect", ours_file(work, name, runtime), work / "large.png", "--quiet"]
    output = work / "large.json"
    once(title, f"{width} x {height}", [*command, "--tile", plan.tile, "--json", output])
    return found


def many_images(work: Path, count: int) -> Path:
    """A folder in the layout of MVTec AD with `count` test images, half of them anomalous, all of
    64 x 64 pixels; hard links to a few."""
    from snl.demo.dataset import DEFECTS, PRODUCTS, demo_image
    from snl.files import atomic

    folder = work / f"images-{count}"
    if (folder / "done").is_file():
        return folder
    from PIL import Image

    few: dict[str, list[Path]] = {"good": [], "bad": [], "mask": []}
    for number in range(16):
        product = PRODUCTS[number % len(PRODUCTS)]
        normal = demo_image(product, "good", number, size=64)
        anomalous = demo_image(product, DEFECTS[product][0], number, size=64)
        drawn = {"good": normal.image, "bad": anomalous.image, "mask": anomalous.mask}
        for kind, image in drawn.items():
            file = work / "few" / f"{kind}{number}.png"
            if not file.is_file():
                with atomic(file) as temporary:
                    Image.fromarray(image).save(temporary, format="PNG")
            few[kind].append(file)
    test, truth = folder / "part" / "test", folder / "part" / "ground_truth" / "bad"
    for place in (test / "good", test / "bad", truth, folder / "part" / "train" / "good"):
        place.mkdir(parents=True, exist_ok=True)
    _link(few["good"][0], folder / "part" / "train" / "good" / "0.png")
    for number in range(count):
        kind = ("good", "bad")[number % 2]
        source = number // 2 % 16
        _link(few[kind][source], test / kind / f"{number:05}.png")
        if kind == "bad":
            _link(few["mask"][source], truth / f"{number:05}_mask.png")
    (folder / "done").touch()
    return folder


def _link(source: Path, target: Path) -> None:
    if not target.exists():
        os.link(source, target)
