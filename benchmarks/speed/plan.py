"""What is measured: the networks, how much of each figure, and where their files are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RUNTIMES = {"torch": ".snl", "onnx": ".onnx", "openvino": ".xml"}
"""Suffix of the model file of each runtime."""
RESNET = {"teacher.name": "resnet18", "teacher.weights": "random"}
OURS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "snl-compact": ("snl, compact teacher", "snl", {}),
    "snl": ("snl, ResNet-18", "snl", RESNET),
    "snl-rd": ("snl-rd, ResNet-18", "snl-rd", RESNET),
    "rd": ("rd, ResNet-18", "rd", RESNET),
}
"""Title, method and changes to the preset `compact` of each network of snl."""
PEERS = {
    "anomalib-rd": "anomalib Reverse Distillation, ResNet-18",
    "anomalib-stfpm": "anomalib STFPM, ResNet-18",
    "anomalib-patchcore": "anomalib PatchCore, ResNet-18",
    "anomalib-efficientad": "anomalib EfficientAd, small",
}
"""Title of each network of anomalib."""
TITLES = {**{name: title for name, (title, _, _) in OURS.items()}, **PEERS}
REFERENCE = "anomalib-rd"
"""The network that ratios refer to: it has the same teacher and kind of student as our `rd`."""
LOWER_PRECISION = {"torch": "bf16", "openvino": "bf16"}
"""The lower precision that a runtime supports; measured for our networks and the reference."""
QUANTISED = ("snl-compact", "snl-rd")
"""Our networks that are also exported in int8."""
TINY = {
    "teacher.name": "test_resnet",
    "teacher.weights": "random",
    "teacher.stages": (1, 2),
    "image_size": 64,
    "training.batch_size": 4,
}
"""Settings of the network for figures that its size does not influence."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    threads: int = 2
    size: int = 256
    """Side of the input in pixels."""
    batch: int = 16
    repeats: int = 5
    """Turns per figure and subject, at most."""
    seconds: float = 0.3
    """Minimum duration of a turn of inference, in seconds."""
    passes: int = 1
    """Minimum number of passes in a turn of inference."""
    maps: tuple[int, ...] = (100, 450)
    """Numbers of maps that metrics are computed from."""
    images: tuple[int, ...] = (100, 1000, 10_000)
    """Numbers of images for the memory of whole commands."""
    large: tuple[int, int] = (4000, 3000)
    """Width and height of the image that is inspected in tiles."""
    tile: int = 256
    runtimes: tuple[str, ...] = tuple(RUNTIMES)
    ours: tuple[str, ...] = tuple(OURS)
    peers: tuple[str, ...] = tuple(PEERS)
    overrides: dict[str, Any] = field(default_factory=dict)
    """Changes to the settings of all our networks."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """Return a plan from JSON values, in which tuples are lists."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**fields)


QUICK = Plan(repeats=2, seconds=0.0, passes=1, maps=(10, 20), images=(20, 60), large=(800, 600))
"""A plan that only shows whether everything runs."""


def ours_file(work: Path, name: str, runtime: str, precision: str = "fp32") -> Path:
    """Return the path of the bundle or an export of one of our networks."""
    suffix = "-int8" if precision == "int8" else ""
    return work / "ours" / f"{name}{suffix}{RUNTIMES[runtime]}"


def peer_file(work: Path, name: str, runtime: str, batch: int) -> Path:
    """Return the path of anomalib's export: the one for this batch size, if there is one."""
    folder = work / "peers" / name / "weights" / runtime
    suffix = ".pt" if runtime == "torch" else RUNTIMES[runtime]
    fixed = folder / f"model-{batch}{suffix}"
    return fixed if fixed.is_file() else folder / f"model{suffix}"


def settings_of(name: str, plan: Plan, **changes: Any) -> dict[str, Any]:
    """Return the overrides of one of our networks."""
    return {
        **OURS[name][2],
        "image_size": plan.size,
        "training.steps": 2,
        "training.precision": "fp32",
        "training.holdout": 0.5,
        **plan.overrides,
        **changes,
    }


def variants(runtime: str, plan: Plan) -> dict[str, dict[str, Any]]:
    """Return the tasks of inference by title: all networks in fp32, then in lower precisions."""
    kinds = dict.fromkeys(plan.ours, "ours") | dict.fromkeys(plan.peers, "peer")
    chosen = [(name, "fp32") for name in kinds]
    if runtime in LOWER_PRECISION:
        lower = LOWER_PRECISION[runtime]
        chosen += [(name, lower) for name in kinds if name in (*plan.ours, REFERENCE)]
    if runtime != "torch":
        chosen += [(name, "int8") for name in plan.ours if name in QUANTISED]
    return {
        TITLES[name] + ("" if precision == "fp32" else f", {precision}"): {
            "kind": kinds[name],
            "runtime": runtime,
            "subject": name,
            "precision": precision,
        }
        for name, precision in chosen
    }
