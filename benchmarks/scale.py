"""Speed of several processes: training by one and two, bulk inspection against a plain loop.

    python -m benchmarks.scale train DATA -o docs/results/scale.json
    python -m benchmarks.scale bulk FILE DATA -o docs/results/scale.json
    python -m benchmarks.scale cluster FILE -o docs/results/scale.json
    python -m benchmarks.scale decode DATA -o docs/results/scale.json

`train`: images per second of the default command at 128 px with one and with two processes of
one thread each, by turns. `bulk`: the images of DATA, repeated under other names until there are
enough, by `Inspector.stream` over their files, by a bulk inspection of the files and of tar
archives, and on Ray with one worker, all with one thread; of Ray the time from the first shard to
the last counts, so that its start is left out. `cluster`: rows written on a Ray cluster (`--ray`)
from small drawings in tar archives, and the memory of its workers. `decode`: images of DATA that a
core decodes and resizes in a second of its time. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import snl
from benchmarks.common import log, new_parser, run_main, write_runs
from snl.bulk.inspect import Work
from snl.bulk.results import Results
from snl.bulk.run import Loading, run_here, run_on_ray
from snl.bulk.shards import find_shards
from snl.data.stream import read


def measure_training(data: Path, steps: int, turns: int) -> dict[str, Any]:
    """Return images per second by number of processes, one value for each turn."""
    rates: dict[str, list[float]] = {"1": [], "2": []}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryDirectory() as folder:
        for turn, count in itertools.product(range(turns), (1, 2)):
            file = Path(folder, f"{turn}-{count}.snl")
            devices = ["--devices", ",".join(["cpu"] * count)]
            subprocess.run(
                [sys.executable, "-m", "snl", "train", str(data), "-o", str(file), "--quiet",
                 "--image-size", "128", "--steps", str(steps), "--set", "training.threads=1",
                 *devices],
                check=True, env=environment,
            )  # fmt: skip
            facts = snl.load(file, "cpu").training.facts
            rates[str(count)].append(facts["images_per_second"])
            log(f"{count} processes: {rates[str(count)][-1]:.1f} images/s")
    return {"steps": steps, "batch_size": 8, "image_size": 128, "images_per_second": rates}


def measure_bulk(file: Path, data: Path, images: int, turns: int) -> dict[str, Any]:
    """Return seconds by way of inspecting the same images, one value for each turn."""
    seconds: dict[str, list[float]] = {"loop": [], "files": [], "tars": [], "ray": []}
    inspector = snl.load(file, "cpu", 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = repeat(data, folder / "files", images)
        archive(paths, folder / "tars", 250)
        work = Work()
        for turn in range(turns):
            start = time.perf_counter()
            count = sum(1 for _ in inspector.stream(paths))
            seconds["loop"].append(time.perf_counter() - start)
            assert count == images
            for way in ("files", "tars"):
                shards = find_shards([str(folder / way)], per_shard=250)
                results = Results(str(folder / f"{way}-{turn}"))
                results.open({})
                start = time.perf_counter()
                done = list(run_here(inspector, shards, results, work))
                seconds[way].append(time.perf_counter() - start)
                assert sum(one.images for one in done) == images
            results = Results(str(folder / f"ray-{turn}"))
            results.open({})
            shards = find_shards([str(folder / "tars")])
            loading = Loading("cpu", 1, max_pixels=inspector.max_pixels)
            stream = run_on_ray(file, loading, shards, results, work, "local", workers=1)
            first = next(stream)
            start = time.perf_counter()
            rest = sum(one.images for one in stream)
            took = time.perf_counter() - start
            assert rest + first.images == images
            seconds["ray"].append(took * images / rest)
            log(", ".join(f"{way} {values[-1]:.1f} s" for way, values in seconds.items()))
    return {"images": images, "image_size": inspector.image_size, "seconds": seconds}


def measure_cluster(file: Path, address: str, images: int, drawings: int) -> dict[str, Any]:
    """Return how long many rows took on a cluster, and its workers' memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        each = drawings // 8
        snl.make_demo(folder / "demo", size=64, n_train=each, n_good=0, n_defect=0)
        drawn = sorted((folder / "demo").glob("*/train/good/*.png"))
        per_tar = 1000
        names = itertools.cycle(drawn)
        (folder / "tars").mkdir()
        for number in range(images // per_tar):
            with tarfile.open(folder / "tars" / f"{number:04d}.tar", "w") as tar:
                for row, path in zip(range(per_tar), names, strict=False):
                    tar.add(path, f"{row:05d}.png")
        results = Results(str(folder / "out"))
        results.open({})
        shards = find_shards([str(folder / "tars")])
        loading = Loading("cpu", 1, max_pixels=10**8)
        memory: list[float] = []
        start, rows = time.perf_counter(), 0
        for done in run_on_ray(file, loading, shards, results, Work(batch_size=32), address):
            rows += done.images
            memory.append(round(worker_memory(), 3))
        seconds = time.perf_counter() - start
        names_written = results.ids()
        assert rows == images == len(names_written)
    return {"rows": rows, "drawings": len(drawn), "seconds": seconds, "worker_gib": memory}


def measure_decoding(data: Path, images: int, turns: int) -> dict[str, Any]:
    """Return images per second of processor time, one value for each turn, and their mean size."""
    found = itertools.cycle(record.path for record in snl.Catalog.read(data).records)
    paths = list(itertools.islice(found, images))
    rates = []
    for _ in range(turns):
        start = time.process_time()
        count = sum(1 for _ in read(paths, 256))
        rates.append(count / (time.process_time() - start))
    size = sum(path.stat().st_size for path in paths) / len(paths)
    return {"images": images, "image_size": 256, "bytes": size, "images_per_core_second": rates}


def worker_memory() -> float:
    """Return the largest resident memory of a Ray worker that inspects, in GiB."""
    listed = subprocess.run(["ps", "-eo", "rss=,args="], capture_output=True, text=True, check=True)
    found = [int(line.split()[0]) for line in listed.stdout.splitlines() if "_Worker" in line]
    return max(found, default=0) / 2**20


def repeat(data: Path, folder: Path, count: int) -> list[Path]:
    """Link the images of a data set under new names until there are `count`."""
    folder.mkdir()
    found = [record.path for record in snl.Catalog.read(data).records]
    paths = []
    for number, path in zip(range(count), itertools.cycle(found), strict=False):
        paths.append(folder / f"{number:06d}{path.suffix}")
        paths[-1].hardlink_to(path) if path.stat().st_dev == folder.stat().st_dev else (
            paths[-1].write_bytes(path.read_bytes())
        )
    return paths


def archive(paths: list[Path], folder: Path, each: int) -> None:
    """Write images to tar archives."""
    folder.mkdir()
    for start in range(0, len(paths), each):
        with tarfile.open(folder / f"{start:06d}.tar", "w") as tar:
            for path in paths[start : start + each]:
                tar.add(path, path.name)


def parser() -> argparse.ArgumentParser:
    parser = new_parser("scale", __doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("train", "bulk", "cluster", "decode"):
        sub = verbs.add_parser(verb)
        if verb in ("bulk", "cluster"):
            sub.add_argument("file", type=Path, help="bundle or export")
        if verb != "cluster":
            sub.add_argument("data", type=Path)
        sub.add_argument("-o", "--output", type=Path, required=True)
        sub.add_argument("--turns", type=int, default=3)
        sub.add_argument("--images", type=int, default=100_000 if verb == "cluster" else 5000)
        sub.add_argument("--steps", type=int, default=200)
        sub.add_argument("--ray", default="local")
    return parser


def main() -> None:
    options = parser().parse_args()
    if options.verb == "train":
        found = measure_training(options.data, options.steps, options.turns)
    elif options.verb == "bulk":
        found = measure_bulk(options.file, options.data, options.images, options.turns)
    elif options.verb == "decode":
        found = measure_decoding(options.data, options.images, options.turns)
    else:
        found = measure_cluster(options.file, options.ray, options.images, 2000)
    before = json.loads(options.output.read_text()) if options.output.exists() else {}
    write_runs(options.output, {**before, options.verb: found})


if __name__ == "__main__":
    run_main(main)
