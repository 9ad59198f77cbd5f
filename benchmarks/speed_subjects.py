"""What `speed.py` measures, made beforehand: generated parts, networks of ours and anomalib's.

    python benchmarks/speed_subjects.py PLAN.json WORK data|even|odd|peers

Weights do not matter to speed, so ours are trained for two steps (which gives them everything that
an inspection takes: prototypes, thresholds, levels) and anomalib's are the initial ones, with
thresholds and ranges of its post-processor set from what they give on the parts, EfficientAd's
normalisation and quantiles set, and PatchCore's bank filled with random vectors: as many as a
coreset of 1 % keeps of 1000 images. Both sides write their own exports, by their own code.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RUNTIMES = {"torch": ".snl", "onnx": ".onnx", "openvino": ".xml"}
OURS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "snl-compact": ("snl, compact teacher", "snl", {}),
    "snl": ("snl, ResNet-18", "snl", {"teacher.name": "resnet18", "teacher.weights": "random"}),
    "snl-rd": (
        "snl-rd, ResNet-18",
        "snl-rd",
        {"teacher.name": "resnet18", "teacher.weights": "random"},
    ),
    "rd": ("rd, ResNet-18", "rd", {"teacher.name": "resnet18", "teacher.weights": "random"}),
}
"""Title, method, changes to the preset `compact`."""
PEERS = {
    "anomalib-rd": "anomalib Reverse Distillation, ResNet-18",
    "anomalib-stfpm": "anomalib STFPM, ResNet-18",
    "anomalib-patchcore": "anomalib PatchCore, ResNet-18",
    "anomalib-efficientad": "anomalib EfficientAd, small",
}
TITLES = {**{name: title for name, (title, _, _) in OURS.items()}, **PEERS}
HALVED = {"torch": "bf16", "openvino": "bf16"}
"""A lower precision that a runtime computes in when it is told so; of ours and of the reference."""
QUANTISED = ("snl-compact", "snl-rd")
"""Those of ours that are exported in int8, too."""
REFERENCE = "anomalib-rd"
"""What others are compared with: the same teacher and kind of student as our `rd`."""
PRODUCTS = ("gear", "wood")
TRAIN = 20
"""Images a product, half of them held back: enough for thresholds of scores and regions."""
TINY = {
    "teacher.name": "test_resnet",
    "teacher.weights": "random",
    "teacher.stages": (1, 2),
    "image_size": 64,
    "training.batch_size": 4,
}
"""The network for figures in which its size has no part."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    threads: int = 2
    size: int = 256
    batch: int = 16
    repeats: int = 5
    """Turns of every subject, one after the other."""
    seconds: float = 0.3
    """A turn goes on for at least so long, and for at least `passes` passes."""
    passes: int = 1
    maps: tuple[int, ...] = (100, 450)
    images: tuple[int, ...] = (100, 1000, 10_000)
    large: tuple[int, int] = (4000, 3000)
    tile: int = 256
    runtimes: tuple[str, ...] = tuple(RUNTIMES)
    ours: tuple[str, ...] = tuple(OURS)
    peers: tuple[str, ...] = tuple(PEERS)
    overrides: dict[str, Any] = field(default_factory=dict)
    """Changes to the settings of all networks of ours."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """From JSON values, where tuples are lists."""
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**known)


def ours_file(work: Path, name: str, runtime: str, precision: str = "fp32") -> Path:
    """The bundle or an export of a network of ours."""
    kind = "-int8" if precision == "int8" else ""
    return work / "ours" / f"{name}{kind}{RUNTIMES[runtime]}"


def variants(runtime: str, plan: Plan) -> dict[str, dict[str, Any]]:
    """By title: every network in fp32, then in the lower precisions that the runtime has."""
    names = dict.fromkeys(plan.ours, "ours") | dict.fromkeys(plan.peers, "peer")
    asked = [(name, "fp32") for name in names]
    if runtime in HALVED:
        asked += [(n, HALVED[runtime]) for n in names if n in (*plan.ours, REFERENCE)]
    if runtime != "torch":
        asked += [(name, "int8") for name in plan.ours if name in QUANTISED]
    return {
        TITLES[name] + ("" if precision == "fp32" else f", {precision}"): {
            "kind": names[name],
            "runtime": runtime,
            "subject": name,
            "precision": precision,
        }
        for name, precision in asked
    }


def peer_file(work: Path, name: str, runtime: str, batch: int) -> Path:
    """anomalib's export; of one for a single size of batch, that of this size."""
    folder = work / "peers" / name / "weights" / runtime
    suffix = ".pt" if runtime == "torch" else RUNTIMES[runtime]
    fixed = folder / f"model-{batch}{suffix}"
    return fixed if fixed.is_file() else folder / f"model{suffix}"


def settings_of(name: str, plan: Plan, **changes: Any) -> dict[str, Any]:
    """The overrides of a network of ours."""
    return {
        **OURS[name][2],
        "image_size": plan.size,
        "training.steps": 2,
        "training.precision": "fp32",
        "training.holdout": 0.5,
        **plan.overrides,
        **changes,
    }


def prepare_ours(plan: Plan, work: Path, names: Sequence[str], *, rest: bool) -> None:
    """Bundles with their exports; what is there is kept.

    Args:
        names: out of `plan.ours`.
        rest: make the tiny bundle, too.
    """
    import snl
    from snl.export.write import export

    parts = work / "parts"
    for name in names:
        bundle = ours_file(work, name, "torch")
        if not bundle.is_file():
            overrides = settings_of(name, plan)
            snl.train(
                parts, output=bundle, method=OURS[name][1], overrides=overrides, quiet=True,
                device="cpu", overwrite=True,
            )  # fmt: skip
        inspector = snl.load(bundle, "cpu")
        for runtime in plan.runtimes:
            file = ours_file(work, name, runtime)
            if not file.is_file():
                export(inspector, file, format=runtime)
            small = ours_file(work, name, runtime, "int8")
            if runtime != "torch" and name in QUANTISED and not small.is_file():
                catalog = snl.Catalog.read(parts)
                normals = snl.Catalog(catalog.root, catalog.layout, tuple(catalog.train()))
                export(inspector, small, format=runtime, precision="int8", data=normals)
    if not rest:
        return
    tiny = work / "ours" / "tiny.snl"
    if not tiny.is_file():
        changes = {**TINY, "training.steps": 2, "training.precision": "fp32"}
        snl.train(
            parts, output=tiny, overrides=changes, quiet=True, device="cpu", overwrite=True
        )  # fmt: skip


def prepare_data(plan: Plan, work: Path) -> None:
    """Generated parts, pictures of 512 and of many pixels, maps and masks."""
    import numpy as np
    from PIL import Image

    import snl
    from snl.demo.dataset import DEFECTS, demo_image
    from snl.files import atomic

    parts = work / "parts"
    if not parts.is_dir():
        some: dict[str, Any] = {"n_train": TRAIN, "n_good": 4, "n_defect": 2, "products": PRODUCTS}
        snl.make_demo(parts, size=plan.size, **some)
    product = PRODUCTS[0]
    drawn = demo_image(product, DEFECTS[product][0], size=512).image
    for file, size in ((work / "part.png", (512, 512)), (work / "large.png", plan.large)):
        if not file.is_file():
            repeats = (-(-size[1] // 512), -(-size[0] // 512), 1)
            tiled = np.tile(drawn, repeats)[: size[1], : size[0]]
            with atomic(file) as temporary:
                Image.fromarray(tiled).save(temporary, format="PNG", compress_level=1)
    if not (work / "maps.npz").is_file():
        maps, masks = make_maps(max(plan.maps), plan.size)
        with atomic(work / "maps.npz") as temporary, temporary.open("wb") as stream:
            np.savez(stream, maps=maps, masks=masks)


def make_maps(count: int, size: int) -> tuple[Any, Any]:
    """Smooth maps float32 (N, size, size) within 0..1 and masks bool, of two thirds with one to
    three regions, which the maps tell a little of."""
    import numpy as np
    from scipy import ndimage

    rng = np.random.default_rng(0)
    maps = np.empty((count, size, size), np.float32)
    masks = np.zeros((count, size, size), bool)
    rows, columns = np.ogrid[:size, :size]
    for number in range(count):
        noise = ndimage.uniform_filter(rng.standard_normal((size, size)), size // 32)
        maps[number] = 0.4 + 0.4 * noise
        for _ in range(0 if number % 3 == 0 else int(rng.integers(1, 4))):
            y, x = rng.uniform(0.1, 0.9, 2) * size
            radius = rng.uniform(0.01, 0.08) * size
            masks[number] |= (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        maps[number][masks[number]] += 0.08
    return maps, masks


def main(arguments: Sequence[str]) -> int:
    plan = Plan.from_dict(json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    work, part = Path(arguments[1]), arguments[2]
    if part == "data":
        prepare_data(plan, work)
    elif part == "peers":
        from speed_peers import prepare_peers

        prepare_peers(plan, work)
    else:
        prepare_ours(plan, work, plan.ours[part == "odd" :: 2], rest=part == "even")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
