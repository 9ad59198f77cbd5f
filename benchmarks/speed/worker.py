"""One process of the benchmark: loads one subject and measures one of its figures on request.

    python -m benchmarks.speed.worker TASK.json

Writes one line of JSON when the subject is loaded, and one for each line that it reads. What
libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from benchmarks.speed.plan import Plan, ours_file, peer_file
from benchmarks.speed.steps import Figures, metrics, training

PRECISION = "INFERENCE_PRECISION_HINT"


def ours(plan: Plan, work: Path, task: dict[str, Any]) -> Figures:
    """Return calls of `Inspector.predict` with uint8 arrays and `Inspector.inspect` of a file."""
    import snl

    precision = task["precision"]
    file = ours_file(work, task["subject"], task["runtime"], precision)
    run_precision = "fp32" if precision == "int8" else precision
    inspector = snl.load(file, "cpu", plan.threads, run_precision)
    single, batch = (_pixels(size, plan.size) for size in (1, plan.batch))
    picture = work / "part.png"

    def inspect() -> dict[str, Any]:
        result = inspector.inspect(picture)
        return {"regions": len(result.regions), "marked": result.region_threshold is not None}

    return {
        "batch 1": lambda: inspector.predict(single) and None,
        f"batch {plan.batch}": lambda: inspector.predict(batch) and None,
        "file": inspect,
    }


def peer(plan: Plan, work: Path, task: dict[str, Any]) -> Figures:
    """Return calls of anomalib's export with the same arrays, by its inferencer if it has one."""
    make = {"torch": _peer_torch, "onnx": _peer_onnx, "openvino": _peer_openvino}
    return make[task["runtime"]](plan, work, task["subject"], task["precision"])


def _peer_torch(plan: Plan, work: Path, name: str, precision: str) -> Figures:
    import torch
    from anomalib.deploy import TorchInferencer

    os.environ["TRUST_REMOTE_CODE"] = "1"
    inferencer = TorchInferencer(peer_file(work, name, "torch", 1), "cpu")
    module: Any = inferencer.model

    def whole(pixels: Any) -> Callable[[], None]:
        def call() -> None:
            with torch.inference_mode(), autocast():
                images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 255
                result = module(inferencer.pre_process(images))
                result.anomaly_map.float().numpy(), result.pred_score.float().numpy()

        return call

    def model_alone(pixels: Any) -> Callable[[], None]:
        with torch.inference_mode():
            floats = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 255
            ready = module.pre_processor(floats)

        def call() -> None:
            with torch.inference_mode():
                module.model(ready)

        return call

    def file(inference: bool) -> Callable[[], None]:
        def call() -> None:
            with torch.inference_mode() if inference else nullcontext():
                inferencer.predict(work / "part.png")

        return call

    def autocast() -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()

    single, batch = (_pixels(size, plan.size) for size in (1, plan.batch))
    figures: Figures = {"batch 1": whole(single), f"batch {plan.batch}": whole(batch)}
    if precision != "fp32":
        return figures
    return {
        **figures,
        "model alone, batch 1": model_alone(single),
        f"model alone, batch {plan.batch}": model_alone(batch),
        "file": file(False),
        "file, inference mode": file(True),
    }


def _peer_onnx(plan: Plan, work: Path, name: str, precision: str) -> Figures:
    import numpy as np
    import onnxruntime

    figures: Figures = {}
    sessions: dict[Path, Any] = {}
    for batch in (1, plan.batch):
        file, pixels = peer_file(work, name, "onnx", batch), _pixels(batch, plan.size)

        def call(file: Path = file, pixels: Any = pixels) -> None:
            if file not in sessions:  # the second session must not count for the first figure
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = plan.threads
                sessions[file] = onnxruntime.InferenceSession(str(file), options)
            images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32) / 255
            sessions[file].run(None, {"input": images})

        figures[f"batch {batch}"] = call
    return figures


def _peer_openvino(plan: Plan, work: Path, name: str, precision: str) -> Figures:
    import numpy as np
    from anomalib.deploy import OpenVINOInferencer
    from PIL import Image

    config = {PRECISION: precision.replace("fp", "f"), "PERFORMANCE_HINT": "LATENCY"}
    options = {**config, "INFERENCE_NUM_THREADS": plan.threads}
    loaded: dict[Path, Any] = {}

    def predict(pixels: Any) -> None:
        file = peer_file(work, name, "openvino", len(pixels))
        if file not in loaded:
            loaded[file] = OpenVINOInferencer(file, "CPU", options)
        loaded[file].predict(pixels)

    def read() -> None:
        with Image.open(work / "part.png") as image:
            resized = image.convert("RGB").resize((plan.size, plan.size), Image.Resampling.BILINEAR)
        predict(np.asarray(resized)[None])

    single, batch = (_pixels(size, plan.size) for size in (1, plan.batch))
    return {
        "batch 1": lambda: predict(single),
        f"batch {plan.batch}": lambda: predict(batch),
        "file": read,
    }


def _pixels(count: int, size: int) -> Any:
    """Return random images, uint8 (count, size, size, 3)."""
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


def peak() -> float:
    """Return the peak resident memory of this process so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def turn(call: Callable[[], Any], seconds: float, passes: int, warm: int) -> dict[str, Any]:
    """Return the median seconds of the passes of one turn, and what the last pass returned.

    Args:
        call: one pass.
        seconds: minimum duration of the turn.
        passes: minimum number of passes.
        warm: passes beforehand that do not count.
    """
    for _ in range(warm):
        call()
    durations: list[float] = []
    value = None
    while len(durations) < passes or sum(durations) < seconds:
        start = time.perf_counter()
        value = call()
        durations.append(time.perf_counter() - start)
    return {
        "seconds": statistics.median(durations),
        "passes": len(durations),
        "memory": peak(),
        "value": value,
    }


KINDS = {"ours": ours, "peer": peer, "training": training, "metrics": metrics}


def main(file: Path) -> None:
    task = json.loads(file.read_text(encoding="utf-8"))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    plan = Plan.from_dict(task["plan"])
    try:
        if task["torch"]:
            import torch

            torch.set_num_threads(plan.threads)
        figures = KINDS[task["kind"]](plan, Path(task["work"]), task)
        answer({"figures": list(figures), "memory": peak()})
        for line in sys.stdin:
            request = json.loads(line)
            call = figures[request.pop("figure")]
            answer(turn(call, **request))
    except Exception as error:  # the process that asked reports it
        answer({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"})
        raise


if __name__ == "__main__":
    main(Path(sys.argv[1]))
