"""Makes what is measured beforehand: generated parts, our networks and anomalib's.

    python -m benchmarks.speed.prepare TASK.json

TASK.json holds `plan`, `work` (a folder) and `part`: `data`, `even`, `odd` (halves of our networks)
or `peers`. `prepare` starts these processes.

Weights have no influence on speed. Our networks are trained for two steps, which gives them
everything that an inspection uses (prototypes, thresholds, score normalisation). anomalib's have
their initial weights; thresholds and ranges of its post-processor are set from the predictions on
the parts, EfficientAd's normalisation and quantiles are set, and PatchCore's memory bank is filled
with as many random vectors as a coreset of 1 % of 1000 images has. Each project writes its exports
with its own code.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import run_main
from benchmarks.speed.plan import OURS, QUANTISED, TINY, Plan, ours_file, settings_of
from benchmarks.speed.turns import environment, module_command
from snl.errors import SnlError

PRODUCTS = ("gear", "wood")
TRAIN = 20
"""Images per product; half of them are held out, enough for thresholds of scores and regions."""
MADE_FOR = ("size", "batch", "maps", "large", "runtimes", "ours", "peers", "overrides")
"""Fields of the plan that the files depend on."""


def prepare(plan: Plan, work: Path) -> None:
    """Make everything that is measured, in parallel processes; keep what exists.

    Raises:
        SnlError: the folder was made for another plan, or a process fails.
    """
    work.mkdir(parents=True, exist_ok=True)
    plan_file = work / "plan.json"
    wanted = json.loads(json.dumps(dataclasses.asdict(plan)))
    if plan_file.is_file():
        existing = json.loads(plan_file.read_text(encoding="utf-8"))
        if any(existing[name] != wanted[name] for name in MADE_FOR):
            raise SnlError(f"{work}: made for other settings; remove it, or give another --work")
    plan_file.write_text(json.dumps(wanted), encoding="utf-8")
    variables = {**environment(plan, package=True), "OMP_NUM_THREADS": "1"}
    for together in (["data"], ["even", "odd", *(["peers"] if plan.peers else [])]):
        with (work / "log.txt").open("a", encoding="utf-8") as log:
            processes = [
                subprocess.Popen(
                    module_command("benchmarks.speed.prepare", work, part, plan, {"part": part}),
                    stdout=log,
                    stderr=log,
                    cwd=work,
                    env=variables,
                )
                for part in together
            ]
            statuses = [process.wait() for process in processes]
        if any(statuses):
            raise SnlError(f"the networks could not be made; see {work / 'log.txt'}")


def prepare_ours(plan: Plan, work: Path, names: Sequence[str], *, tiny: bool) -> None:
    """Train our networks and export them; keep files that exist.

    Args:
        plan: of the benchmark.
        work: folder of all files.
        names: the networks, out of `plan.ours`.
        tiny: also make the bundle of the tiny network.
    """
    import snl
    from snl.exporting.write import export

    parts = work / "parts"
    options: dict[str, Any] = {"quiet": True, "device": "cpu", "overwrite": True}
    for name in names:
        bundle = ours_file(work, name, "torch")
        if not bundle.is_file():
            overrides = settings_of(name, plan)
            snl.train(parts, output=bundle, method=OURS[name][1], overrides=overrides, **options)
        inspector = snl.load(bundle, "cpu")
        for runtime in plan.runtimes:
            file = ours_file(work, name, runtime)
            if not file.is_file():
                export(inspector, file, format=runtime)
            quantised = ours_file(work, name, runtime, "int8")
            if runtime != "torch" and name in QUANTISED and not quantised.is_file():
                catalog = snl.Catalog.read(parts)
                normals = snl.Catalog(catalog.root, catalog.layout, tuple(catalog.train()))
                export(inspector, quantised, format=runtime, precision="int8", data=normals)
    tiny_bundle = work / "ours" / "tiny.snl"
    if tiny and not tiny_bundle.is_file():
        changes = {**TINY, "training.steps": 2, "training.precision": "fp32"}
        snl.train(parts, output=tiny_bundle, overrides=changes, **options)


def prepare_data(plan: Plan, work: Path) -> None:
    """Make generated parts, an image of 512 x 512 pixels, a large image, and maps with masks."""
    import numpy as np
    from PIL import Image

    import snl
    from snl.demo.dataset import DEFECTS, demo_image
    from snl.files import atomic

    parts = work / "parts"
    if not parts.is_dir():
        counts: dict[str, Any] = {"n_train": TRAIN, "n_good": 4, "n_defect": 2}
        snl.make_demo(parts, size=plan.size, products=PRODUCTS, **counts)
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
    """Return smooth anomaly maps and their masks.

    Two thirds of the masks have one to three regions, where the maps are slightly higher.

    Returns:
        Maps float32 (N, size, size) in about [0, 1] and masks bool (N, size, size).
    """
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


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    plan, work, part = Plan.from_dict(task["plan"]), Path(task["work"]), task["part"]
    if part == "data":
        prepare_data(plan, work)
    elif part == "peers":
        from benchmarks.speed.anomalib_models import prepare_peers

        prepare_peers(plan, work)
    else:
        prepare_ours(plan, work, plan.ours[part == "odd" :: 2], tiny=part == "even")


if __name__ == "__main__":
    run_main(main)
